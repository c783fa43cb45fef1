"""`luff db`."""

from __future__ import annotations

import click

from luff.cli.options import store_option

__all__ = ["db"]


@click.group()
def db() -> None:
    """Look after the database. A SQLite file of your own is migrated by itself; a server's is not."""


@db.command()
@store_option
@click.argument("revision", default="head")
def upgrade(store: str | None, revision: str) -> None:
    """Bring the database up to REVISION, by default the newest that this luff knows."""
    from luff import store as stores  # SQLAlchemy costs a third of a second

    click.echo(stores.upgrade(store, revision).database or "empty")


@db.command()
@store_option
def current(store: str | None) -> None:
    """Print the revision of the database and the one that this luff ships."""
    from luff import store as stores

    found = stores.current(store)
    click.echo(f"database {found.database or 'empty'}")
    click.echo(f"shipped  {found.shipped}")


@db.command()
@store_option
@click.argument("revision")
def downgrade(store: str | None, revision: str) -> None:
    """Take the database back to REVISION (`base` is empty). What newer tables hold is lost."""
    from luff import store as stores

    click.echo(stores.downgrade(store, revision).database or "empty")
