"""`luff token`: who may use the server."""

from __future__ import annotations

import json

import click

from luff.cli.options import option, store_option
from luff.errors import NothingSelected

__all__ = ["token"]

ROLES = ("viewer", "operator", "admin")


@click.group()
def token() -> None:
    """Say who may use `luff serve`: a viewer looks, an operator also starts and stops runs, an admin also reads the audit."""


@token.command()
@click.argument("name")
@option("--role", type=click.Choice(ROLES), default="viewer", show_default=True, help="What the token may do.")
@store_option
def create(name: str, role: str, store: str | None) -> None:
    """Make a token for NAME and print it, once: only its hash is kept."""
    from luff.cli.restore import who_am_i
    from luff.store import Role, Store  # SQLAlchemy costs a third of a second

    with Store.open(store) as opened:
        made, secret = opened.access.create_token(name, Role(role))
        opened.access.audit("token.create", made.id, actor=who_am_i(), note=f"{name}, {role}")
    click.echo(secret)
    click.echo(f"token {made.id} for {name}, {role}; it is not shown again", err=True)


@token.command("list")
@option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
@store_option
def list_(output: str, store: str | None) -> None:
    """List the tokens, revoked ones too. Their secrets are not kept."""
    from luff.store import Store

    with Store.open(store) as opened:
        tokens = opened.access.tokens()
    if output == "json":
        rows = [
            {
                "id": each.id,
                "name": each.name,
                "role": each.role,
                "created_at": each.created_at.isoformat(),
                "revoked_at": None if each.revoked_at is None else each.revoked_at.isoformat(),
            }
            for each in tokens
        ]
        click.echo(json.dumps({"tokens": rows}, indent=2))
        return
    for each in tokens:
        state = "good" if each.revoked_at is None else f"revoked {each.revoked_at:%Y-%m-%d %H:%M} UTC"
        click.echo(f"{each.id}  {each.role:<8}  {each.created_at:%Y-%m-%d %H:%M} UTC  {each.name}  {state}")
    if not tokens:
        click.echo("there is no token", err=True)


@token.command()
@click.argument("token")
@store_option
def revoke(token: str, store: str | None) -> None:
    """Revoke the token with the id TOKEN, at once, also for who is signed in with it."""
    from luff.cli.restore import who_am_i
    from luff.store import Store

    with Store.open(store) as opened:
        if not opened.access.revoke(token):
            raise NothingSelected(f"there is no good token {token}", next_step="`luff token list` shows them")
        opened.access.audit("token.revoke", token, actor=who_am_i())
        last = all(each.revoked_at is not None for each in opened.access.tokens())
    click.echo(f"token {token} is revoked", err=True)
    if last:
        click.echo(
            "it was the last good one: `luff serve` lets nobody in until `luff token create NAME` makes another",
            err=True,
        )
