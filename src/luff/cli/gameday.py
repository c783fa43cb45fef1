"""`luff gameday`: what people do with a game day, beside the server that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from luff.cli.options import store_option
from luff.cli.schedule import definitions_options, instant, read_game_days
from luff.errors import UsageError

if TYPE_CHECKING:
    from luff.gameday_files import GameDays
    from luff.model import GameDay
    from luff.store import Store
    from luff.store.access import Actor
    from luff.store.diary import RemarkKind
    from luff.store.occurrences import Occurrence, Occurrences, Rule

__all__ = ["gameday"]

F = TypeVar("F", bound=Callable[..., Any])

LOOKED_AHEAD = timedelta(days=50 * 366)


@click.group()
def gameday() -> None:
    """
    Take part in a game day, beside the store of the server that holds it.

    `luff schedule` shows game days; `luff serve` holds them.
    """


def _as_option(command: F) -> F:
    return click.option("--as", "who", metavar="WHO", help="As which of its approvers; your user name.")(command)


def _at_option(command: F) -> F:
    return click.option(
        "--at",
        metavar="TIME",
        help="When it was scheduled for, such as 2026-12-01T10:00, by the clocks of its time zone; the newest one.",
    )(command)


@gameday.command()
@click.argument("name")
@definitions_options
@click.option(
    "--at",
    metavar="TIME",
    help="When it is scheduled for, such as 2026-12-01T10:00, by the clocks of its time zone; the next one.",
)
@_as_option
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

    from luff.gameday import agreed, approvals_until, check_approval

    now = datetime.now(UTC)
    read = read_game_days(definitions, policy, now)
    game_day = _defined(read, name, definitions)
    zone = ZoneInfo(game_day.spec.schedule.time_zone)
    wanted = _next(read, game_day, now) if at is None else instant("--at", at, zone)
    agreeing = _speaking_for(game_day, who)
    scheduled_for = check_approval(game_day, wanted, who=agreeing, now=now)
    with _shared(store) as (opened, occurrences, actor):
        note = f"{scheduled_for.isoformat()} as {agreeing}"
        opened.access.audit("gameday.approve", name, actor=actor.name, note=note)
        occurrences.approve(name, scheduled_for, who=agreeing, now=now)
        counted = len(agreed(game_day, scheduled_for, occurrences.approvals(name, scheduled_for)))
    people = game_day.spec.people
    assert people is not None
    more = (
        ""
        if counted >= people.approvals
        else f"; {people.approvals - counted} more by {approvals_until(game_day, scheduled_for):%Y-%m-%d %H:%M %Z}"
    )
    local = scheduled_for.astimezone(zone)
    click.echo(f"{name} of {local:%a %Y-%m-%d %H:%M %Z}: {counted} of {people.approvals} approvals{more}", err=True)


@gameday.command()
@click.argument("name")
@definitions_options
@_as_option
@store_option
def start(name: str, definitions: Path, policy: Path | None, who: str | None, store: str | None) -> None:
    """
    Begin the game day NAME by hand.

    The server that uses this store holds it the next time it looks, within
    15 s. Where it asks for an approval, only one of its approvers can. The lever,
    the policy's hours and skipWhen count as for every other firing.
    """
    from luff.due import started

    now = datetime.now(UTC)
    game_day = _defined(read_game_days(definitions, policy, now), name, definitions)
    people = game_day.spec.people
    asked = people is not None and people.approvals > 0
    new = started(game_day, now, who=_speaking_for(game_day, who) if asked else who or _me().name)
    with _shared(store) as (_, occurrences, actor):
        occurrences.start(new, actor=actor, now=now)
    click.echo(f"{name} begins once its server has seen it: occurrence {new.id}", err=True)


@gameday.command()
@click.argument("name")
@click.option("--why", required=True, metavar="TEXT", help="Why it is not held until it is resumed.")
@store_option
def pause(name: str, why: str, store: str | None) -> None:
    """
    Let the game day NAME not be held until it is resumed.

    Each firing meanwhile is skipped, with who paused it and why. What is held
    now goes on.
    """
    with _shared(store) as (_, occurrences, actor):
        _known(occurrences, name)
        occurrences.diary.pause(name, why, actor=actor, now=datetime.now(UTC))
    click.echo(f"{name} is paused; `luff gameday resume {name}` lets it be held again", err=True)


@gameday.command()
@click.argument("name")
@store_option
def resume(name: str, store: str | None) -> None:
    """Let the game day NAME be held again. What it has missed meanwhile is not made up for."""
    with _shared(store) as (_, occurrences, actor):
        before = occurrences.diary.resume(name, actor=actor, now=datetime.now(UTC))
    click.echo(f"{name} is held again; {before.said}", err=True)


@gameday.command()
@click.argument("name")
@click.argument("text")
@_at_option
@store_option
def note(name: str, text: str, at: str | None, store: str | None) -> None:
    """Note what happens: TEXT, at an occurrence of the game day NAME."""
    from luff.store.diary import RemarkKind

    _remark(name, RemarkKind.NOTE, text, at=at, store=store)


@gameday.command()
@click.argument("name")
@click.argument("text")
@_at_option
@store_option
def finding(name: str, text: str, at: str | None, store: str | None) -> None:
    """Write down what was found: TEXT, by an occurrence of the game day NAME. It asks for work."""
    from luff.store.diary import RemarkKind

    _remark(name, RemarkKind.FINDING, text, at=at, store=store)


@gameday.command()
@click.argument("name")
@_at_option
@store_option
def finish(name: str, at: str | None, store: str | None) -> None:
    """Close an occurrence of the game day NAME. It has to be over, and nothing more is said of it."""
    with _shared(store) as (_, occurrences, actor):
        found = _occurrence(occurrences, name, at)
        occurrences.diary.finish(found.id, actor=actor, now=datetime.now(UTC))
    click.echo(f"{_called(found)} is finished", err=True)


def _remark(name: str, kind: RemarkKind, text: str, *, at: str | None, store: str | None) -> None:
    with _shared(store) as (_, occurrences, actor):
        found = _occurrence(occurrences, name, at)
        occurrences.diary.remark(found.id, kind, text, actor=actor, now=datetime.now(UTC))
    click.echo(f"{_called(found)}: {kind} written down", err=True)


@contextmanager
def _shared(url: str | None) -> Iterator[tuple[Store, Occurrences, Actor]]:
    """Open the store that the server uses, as who is at this machine."""
    from luff.store import Store  # SQLAlchemy costs a third of a second
    from luff.store.occurrences import Occurrences

    with Store.open(url) as opened:
        yield opened, Occurrences.of(opened), _me()


def _me() -> Actor:
    from luff.cli.restore import who_am_i
    from luff.store.access import Actor

    return Actor(who_am_i())


def _defined(read: GameDays, name: str, definitions: Path) -> GameDay:
    from luff.yaml_nodes import did_you_mean

    game_day = read.all.get(name)
    if game_day is None:
        hint = did_you_mean(name, sorted(read.all))
        raise UsageError(f"there is no game day {name[:63]!r} in {definitions}", next_step=hint)
    return game_day


def _next(read: GameDays, game_day: GameDay, now: datetime) -> datetime:
    coming = next(read.planned_of(game_day, now, now + LOOKED_AHEAD), None)
    if coming is None:
        raise UsageError(f"{game_day.metadata.name} never fires again", next_step="see `luff schedule list`")
    return coming.at


def _speaking_for(game_day: GameDay, who: str | None) -> str:
    """Return as which approver of *game_day* somebody speaks who says *who*, or nothing."""
    me = _me().name.partition("@")[0]
    people = game_day.spec.people
    if who is None and people is not None and me not in people.approvers:
        names = " or --as ".join(people.approvers) or "NAME"
        raise UsageError(f"{me} is no approver of {game_day.metadata.name}", next_step=f"say --as {names}")
    return who or me


def _known(occurrences: Occurrences, name: str) -> Rule:
    """Return the rule of the game day *name*, if a server with this store has it."""
    from luff.yaml_nodes import did_you_mean

    rules = occurrences.settled()
    if name not in rules:
        hint = did_you_mean(name, sorted(rules)) if rules else "is --store the store of its server?"
        raise UsageError(f"no server with this store has a game day {name[:63]!r}", next_step=hint)
    return rules[name][0]


def _occurrence(occurrences: Occurrences, name: str, at: str | None) -> Occurrence:
    """Return the occurrence of the game day *name* at *at*, or the newest."""
    from zoneinfo import ZoneInfo

    when = None if at is None else instant("--at", at, ZoneInfo(_known(occurrences, name).time_zone))
    until = None if when is None else when + timedelta(minutes=1) - timedelta(microseconds=1)
    found = occurrences.between(when, until, schedule=name, limit=1)
    if not found:
        raise UsageError(
            f"no occurrence of {name[:63]!r} has fired{'' if at is None else f' at {at[:40]}'}",
            next_step="`luff schedule history` lists them",
        )
    return found[0]


def _called(occurrence: Occurrence) -> str:
    return f"{occurrence.schedule} of {occurrence.scheduled_for:%Y-%m-%d %H:%M %Z}"
