"""`luff gameday approve`: agree to a game day to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from luff.cli.options import store_option
from luff.cli.schedule import definitions_options, instant, read_game_days
from luff.errors import UsageError

__all__ = ["gameday"]

LOOKED_AHEAD = timedelta(days=50 * 366)


@click.group()
def gameday() -> None:
    """Take part in a game day. `luff schedule` shows them; `luff serve` holds them."""


@gameday.command()
@click.argument("name")
@definitions_options
@click.option(
    "--at",
    metavar="TIME",
    help="When it is scheduled for, such as 2026-12-01T10:00, by the clocks of its time zone; the next one.",
)
@click.option("--as", "who", metavar="WHO", help="As which of its approvers; your user name.")
@store_option
def approve(
    name: str, definitions: Path, policy: Path | None, at: str | None, who: str | None, store: str | None
) -> None:
    """
    Agree that the game day NAME is held, in the store that its server uses.

    Without as many approvals as it asks for, by its deadline, it is skipped.
    Who did it, and as whom, is in the audit.
    """
    from zoneinfo import ZoneInfo

    from luff.cli.restore import who_am_i
    from luff.gameday import approvals_until, check_approval
    from luff.store import Store  # SQLAlchemy costs a third of a second
    from luff.store.occurrences import Occurrences
    from luff.yaml_nodes import did_you_mean

    now = datetime.now(UTC)
    read = read_game_days(definitions, policy, now)
    game_day = read.all.get(name)
    if game_day is None:
        raise UsageError(
            f"there is no game day {name[:63]!r} in {definitions}", next_step=did_you_mean(name, sorted(read.all))
        )
    zone = ZoneInfo(game_day.spec.schedule.time_zone)
    if at is None:
        coming = next(read.planned_of(game_day, now, now + LOOKED_AHEAD), None)
        if coming is None:
            raise UsageError(
                f"{name} never fires again", next_step=f"see `luff schedule list --definitions {definitions}`"
            )
        wanted = coming.at
    else:
        wanted = instant("--at", at, zone)
    me = who_am_i()
    people = game_day.spec.people
    agreeing = who or me.partition("@")[0]
    if who is None and people is not None and agreeing not in people.approvers:
        raise UsageError(
            f"{agreeing} is no approver of {name}", next_step=f"say --as {' or --as '.join(people.approvers) or 'NAME'}"
        )
    scheduled_for = check_approval(game_day, wanted, who=agreeing, now=now)
    with Store.open(store) as opened:
        occurrences = Occurrences.of(opened)
        opened.access.audit("gameday.approve", name, actor=me, note=f"{scheduled_for.isoformat()} as {agreeing}")
        occurrences.approve(name, scheduled_for, who=agreeing, now=now)
        agreed = occurrences.approvals(name, scheduled_for)
    assert people is not None
    counted = sum(each in people.approvers for each in agreed)
    more = (
        ""
        if counted >= people.approvals
        else f"; {people.approvals - counted} more by {approvals_until(game_day, scheduled_for):%Y-%m-%d %H:%M %Z}"
    )
    local = scheduled_for.astimezone(zone)
    click.echo(f"{name} of {local:%a %Y-%m-%d %H:%M %Z}: {counted} of {people.approvals} approvals{more}", err=True)
