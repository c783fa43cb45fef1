"""
How Alembic runs luff's migrations.

luff hands over an open connection that holds the lock. A developer's
``alembic`` command line, from the repository's root, names the database:
``alembic -x url=sqlite:///new.db revision --autogenerate -m "..." --rev-id 0002``.
Logging is left as the caller set it up.
"""

from __future__ import annotations

from alembic import context
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from luff.store.engine import migration_engine, parse_url
from luff.store.tables import metadata


def run(connection: Connection) -> None:
    """Run what was asked for, in the transaction of *connection*."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_by_hand() -> None:
    """Run for the ``alembic`` command line."""
    url = context.get_x_argument(as_dictionary=True).get("url")
    if url is None:
        raise CommandError("name the database: alembic -x url=sqlite:///new.db ...")
    engine = migration_engine(parse_url(url))
    with engine.begin() as connection:
        run(connection)
    engine.dispose()


if "connection" in context.config.attributes:
    run(context.config.attributes["connection"])
else:
    run_by_hand()
