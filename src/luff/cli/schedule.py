"""`luff schedule list|next|simulate|history`: game days on a calendar, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from luff.cli.options import option, store_option
from luff.errors import NothingSelected, UsageError

if TYPE_CHECKING:
    from luff.gameday import Planned
    from luff.gameday_files import GameDays
    from luff.model import GameDay
    from luff.store.diary import Remark
    from luff.store.occurrences import Occurrence

__all__ = ["definitions_options", "instant", "read_game_days", "schedule"]

F = TypeVar("F", bound=Callable[..., Any])

NEXT_USUAL = 10
NEXT_MOST = 1000
FIRINGS_MOST = 10_000
SIMULATED_DAYS = 30
YEARS_MOST = 10
YEAR_FIRST, YEAR_LAST = 1970, 9000
YEAR = timedelta(days=366)


@click.group()
def schedule() -> None:
    """Look at game days: when they are held, and when not and why."""


def definitions_options(command: F) -> F:
    """Add ``--definitions`` and ``--policy``."""
    command = option(
        "--policy", type=click.Path(path_type=Path), help="A Policy; what is outside its hours is not held."
    )(command)
    return option(
        "--definitions",
        type=click.Path(path_type=Path),
        required=True,
        metavar="DIR",
        help="The folder with the game days, their suites and experiments.",
    )(command)


_output = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer."
)


@schedule.command("list")
@definitions_options
@_output
def list_(definitions: Path, policy: Path | None, output: str) -> None:
    """List the game days in words, each with its next firing."""
    from luff.gameday import in_words

    now = datetime.now(UTC)
    read = read_game_days(definitions, policy, now)
    rows = [(each, in_words(each.spec.schedule), _first(read, each, now)) for each in read.all.values()]
    if output == "json":
        found = [
            {
                "name": each.metadata.name,
                "cron": each.spec.schedule.cron,
                "time_zone": each.spec.schedule.time_zone,
                "words": words,
                "suites": list(each.spec.suites),
                "experiments": [experiment.name for experiment in read.experiments(each)],
                "next": None if coming is None else _shown(coming),
            }
            for each, words, coming in rows
        ]
        click.echo(json.dumps({"game_days": found}, indent=2))
        return
    for each, words, coming in rows:
        experiments = len(read.experiments(each))
        click.echo(f"{each.metadata.name}: {words}")
        click.echo(f"  holds {', '.join(each.spec.suites)} ({experiments} experiment{'s' if experiments != 1 else ''})")
        click.echo(f"  {_rules(each)}")
        click.echo("  never again" if coming is None else f"  next: {_line(coming)}")
    for warning in read.warnings:
        click.echo(f"warning: {warning}", err=True)


@schedule.command("next")
@definitions_options
@option(
    "--limit", type=click.IntRange(1, NEXT_MOST), default=NEXT_USUAL, show_default=True, help="How many, soonest first."
)
@_output
def next_(definitions: Path, policy: Path | None, limit: int, output: str) -> None:
    """Show the next firings of all game days, with the ones that will be skipped and why."""
    now = datetime.now(UTC)
    read = read_game_days(definitions, policy, now)
    span = timedelta(days=1)
    found: list[Planned] = []
    while len(found) < limit and span < YEARS_MOST * YEAR:
        span *= 2
        found = read.coming(now, now + span, limit=limit)
    _print(found[:limit], output)


@schedule.command()
@definitions_options
@click.option("--from", "since", metavar="TIME", help="From when, such as 2026-12-01 or 2026-12-01T09:00+01:00; now.")
@click.option("--to", "until", metavar="TIME", help=f"Until when; {SIMULATED_DAYS} days later.")
@_output
def simulate(definitions: Path, policy: Path | None, since: str | None, until: str | None, output: str) -> None:
    """Show every firing between two instants, with the ones that would be skipped and why. Without a zone they are UTC."""
    now = datetime.now(UTC)
    begin = now if since is None else instant("--from", since)
    end = begin + timedelta(days=SIMULATED_DAYS) if until is None else instant("--to", until)
    if end <= begin:
        raise UsageError(f"--to {end:%Y-%m-%d %H:%M %Z} is not later than --from {begin:%Y-%m-%d %H:%M %Z}")
    if end - begin > YEARS_MOST * YEAR:
        raise UsageError(f"--from and --to are more than {YEARS_MOST} years apart")
    read = read_game_days(definitions, policy, now)
    # A firing at --from itself belongs to the span.
    found = read.planned(begin - timedelta(microseconds=1), end, limit=FIRINGS_MOST + 1)
    if len(found) > FIRINGS_MOST:
        raise UsageError(f"there are more than {FIRINGS_MOST} firings in that time", next_step="choose a shorter one")
    _print(found, output)


@schedule.command()
@store_option
@click.option("--schedule", "name", metavar="NAME", help="Only of this game day.")
@option("--limit", type=click.IntRange(1, NEXT_MOST), default=20, show_default=True, help="How many, newest first.")
@_output
def history(store: str | None, name: str | None, limit: int, output: str) -> None:
    """Show what became of the firings so far, newest first."""
    from luff.store import Store  # SQLAlchemy costs a third of a second
    from luff.store.occurrences import Occurrences

    with Store.open(store) as opened:
        occurrences = Occurrences.of(opened)
        rows = occurrences.between(schedule=name, limit=limit)
        remarks = occurrences.diary.remarks([row.id for row in rows])
    if output == "json":
        found = [_past(row, remarks.get(row.id, ())) for row in rows]
        click.echo(json.dumps({"occurrences": found}, indent=2))
        return
    for row in rows:
        why = "" if row.said is None else f": {row.said}"
        finished = "" if row.finished_by is None else f"; finished by {row.finished_by}"
        click.echo(f"{row.scheduled_for:%Y-%m-%d %H:%M} UTC  {row.schedule}  {row.state}{why}{finished}")
        for each in remarks.get(row.id, ()):
            click.echo(f"  {each.kind} by {each.who}: {each.said}")
    if not rows:
        click.echo("nothing has fired yet", err=True)


def _past(row: Occurrence, remarks: Sequence[Remark]) -> dict[str, Any]:
    return {
        "id": row.id,
        "schedule": row.schedule,
        "scheduled_for": row.scheduled_for.isoformat(),
        "state": row.state,
        "reason": row.reason,
        "said": row.said,
        "runs": list(row.runs),
        "started_by": row.started_by,
        "finished_by": row.finished_by,
        "finished_at": None if row.finished_at is None else row.finished_at.isoformat(),
        "remarks": [
            {"kind": each.kind, "who": each.who, "at": each.at.isoformat(), "said": each.said} for each in remarks
        ],
    }


def read_game_days(folder: Path, policy: Path | None, now: datetime) -> GameDays:
    """Return the game days in *folder*; raises when anything is wrong, or when there is none."""
    from luff.cli.files import read_documents, read_policy
    from luff.gameday_files import GameDays
    from luff.policy import parse_hours

    spec = read_policy(policy)
    hours = None if spec is None or spec.hours is None else parse_hours(spec.hours)
    read = GameDays([folder], lambda: read_documents([folder]), hours=hours, channels=None)
    read.load(now)
    if not read.all:
        raise NothingSelected(
            f"there is no game day in {folder}", next_step="write one: `luff schema gameday` says how"
        )
    return read


def _first(read: GameDays, game_day: GameDay, now: datetime) -> Planned | None:
    return next(read.coming_of(game_day, now, now + 50 * YEAR), None)


def instant(flag: str, text: str, zone: tzinfo = UTC) -> datetime:
    """Return the time that *text* says, in UTC; without a zone it is by the clocks of *zone*."""
    try:
        at = datetime.fromisoformat(text.strip())
        found = (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{flag} {text[:40]!r} is no date or time", next_step="such as 2026-12-01 or 2026-12-01T09:00+01:00"
        ) from None
    if not YEAR_FIRST <= found.year <= YEAR_LAST:
        raise UsageError(f"{flag} {text[:40]!r} is not between the years {YEAR_FIRST} and {YEAR_LAST}")
    return found


def _rules(game_day: GameDay) -> str:
    from luff.units import show_duration

    spec = game_day.spec
    parts = [f"may begin up to {show_duration(spec.schedule.window_s)} late"]
    parts.append(
        "later it is skipped" if spec.schedule.misfire == "skip" else "later the newest is held as soon as possible"
    )
    parts.append("never beside itself" if spec.schedule.overlap == "forbid" else "also beside itself")
    if spec.schedule.jitter_s:
        parts.append(f"spread over {show_duration(spec.schedule.jitter_s)}")
    if spec.people is not None and spec.people.approvals:
        parts.append(f"{spec.people.approvals} approval(s) by {show_duration(spec.people.approve_by_s)} before")
    return "; ".join(parts)


def _line(planned: Planned) -> str:
    from zoneinfo import ZoneInfo

    local = planned.at.astimezone(ZoneInfo(planned.game_day.spec.schedule.time_zone))
    late = "" if planned.due == planned.at else f", due {planned.due - planned.at} later"
    note = "" if planned.note is None else f" ({planned.note})"
    why = "" if planned.skipped is None else f" skipped: {planned.skipped.said}"
    return f"{local:%a %Y-%m-%d %H:%M %Z}{late}{note}{why}"


def _print(found: list[Planned], output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"occurrences": [_shown(each) for each in found]}, indent=2))
        return
    for each in found:
        click.echo(f"{each.game_day.metadata.name}  {_line(each)}")
    skipped = sum(each.skipped is not None for each in found)
    click.echo(f"{len(found)} firing{'s' if len(found) != 1 else ''}, {skipped} skipped", err=True)


def _shown(planned: Planned) -> dict[str, Any]:
    why = planned.skipped
    return {
        "id": planned.id,
        "schedule": planned.game_day.metadata.name,
        "scheduled_for": planned.at.isoformat(),
        "due": planned.due.isoformat(),
        "note": planned.note,
        "skipped": None if why is None else {"reason": why.code, "said": why.said},
    }
