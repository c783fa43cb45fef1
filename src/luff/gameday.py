"""
Which firings a schedule has, and which of them the calendar alone rules out.

Pure: whoever holds a game day brings the store and the mesh. Laws:

1. The firings of a schedule between two instants depend on the schedule alone, and the firings of two spans side by
   side are those of the whole span: nothing is lost or doubled where they meet.
2. A wall-clock time that a change of clocks leaves out fires once, at the first instant after it; one that comes twice
   fires once, at the first. Only a schedule for every hour (``*``) follows elapsed time instead.
3. Jitter and id depend on the name and the instant, so that every replica computes the same.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from luff.blackouts import Blackouts, aware
from luff.errors import InvalidFile, UsageError
from luff.model import GameDay, Schedule, Suite
from luff.policy import Hours
from luff.units import show_duration
from luff.yaml_nodes import Place, Problems, did_you_mean

__all__ = [
    "Firing",
    "Known",
    "Planned",
    "Reason",
    "agreed",
    "approvals_until",
    "as_planned",
    "check_approval",
    "check_game_days",
    "check_start",
    "due_at",
    "firings",
    "in_words",
    "occurrence_id",
    "planned",
    "ruled_out",
    "suites_under",
]

ID_DIGITS = 16
FIRINGS_LOOKED_AT = 1000
"""How many firings are tried before it is said that hours or blackouts leave none."""
FIRINGS_COMPARED = 100
"""Over how many firings the shortest time between two is looked for."""


@dataclass(frozen=True, slots=True)
class Firing:
    """This is one instant, in UTC, at which a schedule fires; *note* says when a change of clocks has moved it."""

    at: datetime
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """This is why an occurrence is not held: a stable word, and one sentence."""

    code: str
    said: str


# --- firings -----------------------------------------------------------------------------------------------------


def firings(schedule: Schedule, after: datetime, until: datetime | None = None) -> Iterator[Firing]:
    """Yield the firings later than *after*, up to and with *until*, in order; without *until* for as long as there are any."""
    zone = ZoneInfo(schedule.time_zone)
    previous = after
    for firing in _instants(schedule.cron, zone, after):
        if until is not None and firing.at > until:
            return
        if firing.at > previous:
            previous = firing.at
            yield firing


def _instants(cron: str, zone: ZoneInfo, after: datetime) -> Iterator[Firing]:
    hourly = cron.split()[1] == "*"
    start = after.astimezone(zone)
    try:
        # Without a zone CronSim counts wall-clock times, whatever the clocks do; the zone is applied here.
        for wall in CronSim(cron, start if hourly else start.replace(tzinfo=None)):
            yield Firing(wall.astimezone(UTC)) if hourly else _instant(wall, zone)
    except (OverflowError, ValueError):
        return  # the end of the calendar


def _instant(wall: datetime, zone: ZoneInfo) -> Firing:
    local = wall.replace(tzinfo=zone, fold=0)
    offset = local.utcoffset()
    if offset == local.replace(fold=1).utcoffset():
        return Firing(local.astimezone(UTC))
    if local.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall:
        return Firing(local.astimezone(UTC), f"{wall:%H:%M} comes twice on that day; this is the first")
    later = local
    while later.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != later.replace(tzinfo=None):
        later += timedelta(minutes=1)
    return Firing(later.astimezone(UTC), f"{wall:%H:%M} is left out on that day; this is the first instant after it")


def occurrence_id(name: str, at: datetime) -> str:
    """Return the id of the firing at *at* of the game day *name*."""
    return hashlib.sha256(f"{name}\n{at.astimezone(UTC).isoformat()}".encode()).hexdigest()[:ID_DIGITS]


def due_at(game_day: GameDay, at: datetime) -> datetime:
    """Return when the firing at *at* begins: then, and its part of the jitter."""
    jitter_s = game_day.spec.schedule.jitter_s
    if not jitter_s:
        return at
    part = int(occurrence_id(game_day.metadata.name, at), 16) / 16**ID_DIGITS
    return at + timedelta(seconds=round(part * jitter_s, 3))


def in_words(schedule: Schedule) -> str:
    """Return the schedule as a sentence, such as ``At 10:00 on the first Tuesday of the month (Europe/Berlin)``."""
    words = CronSim(schedule.cron, datetime(2026, 1, 1)).explain()  # noqa: DTZ001  # a date to start from, in no zone
    return f"{words} ({schedule.time_zone})"


# --- what the calendar rules out ---------------------------------------------------------------------------------


def ruled_out(game_day: GameDay, at: datetime, blackouts: Blackouts, hours: Hours | None) -> Reason | None:
    """Return why the calendar alone says that nothing begins at *at*, or ``None``."""
    zone = ZoneInfo(game_day.spec.schedule.time_zone)
    for condition in game_day.spec.skip_when:
        for event in blackouts.get(condition.ics or "", ()):
            if event.covers(at, zone):
                return Reason(
                    "blackout",
                    f"{event.what!r} in {condition.ics} lasts until {aware(event.end, zone):%Y-%m-%d %H:%M %Z}",
                )
    if hours is not None and at not in hours:
        return Reason("outside_hours", f"it is outside the hours that the policy allows ({hours})")
    return None


@dataclass(frozen=True, slots=True)
class Planned:
    """This is a firing to come: *at* by the schedule, *due* with its jitter, and why it will not be held, as far as that is known."""

    id: str
    game_day: GameDay
    at: datetime
    due: datetime
    note: str | None
    skipped: Reason | None


def planned(
    game_day: GameDay, after: datetime, until: datetime, against: Callable[[datetime], Reason | None]
) -> Iterator[Planned]:
    """Yield what *game_day* has between two instants, in order; *against* says what speaks against beginning at one."""
    for firing in firings(game_day.spec.schedule, after, until):
        yield as_planned(game_day, firing, against)


def as_planned(game_day: GameDay, firing: Firing, against: Callable[[datetime], Reason | None]) -> Planned:
    """Return *firing* of *game_day* as what is to come."""
    due = due_at(game_day, firing.at)
    id_ = occurrence_id(game_day.metadata.name, firing.at)
    return Planned(id_, game_day, firing.at, due, firing.note, against(due))


# --- who agrees ----------------------------------------------------------------------------------------------------


def approvals_until(game_day: GameDay, scheduled_for: datetime) -> datetime | None:
    """Return until when this occurrence can be approved, ``None`` when it needs no approval."""
    people = game_day.spec.people
    if people is None or not people.approvals:
        return None
    return scheduled_for - timedelta(seconds=people.approve_by_s)


def agreed(game_day: GameDay, scheduled_for: datetime, approvals: Mapping[str, datetime]) -> dict[str, datetime]:
    """Return which of *approvals* to this occurrence, by who gave them and when, count: those of its approvers, in time."""
    until, people = approvals_until(game_day, scheduled_for), game_day.spec.people
    if until is None or people is None:
        return {}
    return {who: at for who, at in approvals.items() if who in people.approvers and at <= until}


def check_approval(game_day: GameDay, at: datetime, *, who: str, now: datetime) -> datetime:
    """Return the instant for which *game_day* fires at *at*; `UsageError` when *who* cannot agree *now* to hold it then."""
    name, people = game_day.metadata.name, game_day.spec.people
    if people is None or not people.approvals:
        raise UsageError(f"{name} asks for no approval", next_step="it is held without one")
    if who not in people.approvers:
        raise UsageError(f"{who[:63]!r} is no approver of {name}", next_step=f"ask {', '.join(people.approvers)}")
    firing = next(firings(game_day.spec.schedule, at - timedelta(seconds=1), at), None)
    if firing is None:
        coming = next(firings(game_day.spec.schedule, now), None)
        zone = ZoneInfo(game_day.spec.schedule.time_zone)
        raise UsageError(
            f"{name} does not fire at {at:%Y-%m-%d %H:%M %Z}",
            next_step=None if coming is None else f"the next one is {coming.at.astimezone(zone).isoformat()}",
        )
    deadline = approvals_until(game_day, firing.at)
    if deadline is not None and now > deadline:
        raise UsageError(
            f"approvals for it were due by {deadline.astimezone(UTC):%Y-%m-%d %H:%M %Z}",
            next_step="it will be skipped; approve a later one",
        )
    return firing.at


def check_start(game_day: GameDay, *, who: str) -> None:
    """Raise `UsageError` unless *who* alone can begin *game_day* by hand: who approves it has agreed by doing so."""
    people = game_day.spec.people
    needed = 0 if people is None else people.approvals
    if people is None or not needed:
        return
    name = game_day.metadata.name
    if who not in people.approvers:
        raise UsageError(f"{who[:63]!r} is no approver of {name}", next_step=f"ask {', '.join(people.approvers)}")
    if needed > 1:
        raise UsageError(
            f"{name} asks for {needed} approvals, and nobody begins it alone", next_step="approve its next one"
        )


# --- what is wrong with a game day before it is ever due ---------------------------------------------------------


def suites_under(names: Sequence[str], suites: Sequence[Suite]) -> tuple[Suite, ...]:
    """Return the suites with these *names* and all that stand in them, in the order of *suites*."""
    by_name = {suite.metadata.name: suite for suite in suites}
    found: set[str] = set()
    waiting = [name for name in names if name in by_name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [entry.ref for entry in by_name[name].spec.experiments if entry.ref in by_name]
    return tuple(suite for suite in suites if suite.metadata.name in found)


@dataclass(frozen=True, slots=True)
class Known:
    """
    This is what game days are held against.

    *suites* are the names of those that there are; *first* is a game day's
    first firing later than *now*; *experiments* are the names of its own, none
    when its suites cannot be read; *channels* are the names of whom can be
    told, ``None`` when that is not known.
    """

    suites: Collection[str]
    now: datetime
    hours: Hours | None
    blackouts: Callable[[GameDay], Blackouts]
    first: Callable[[GameDay], Firing | None]
    experiments: Callable[[GameDay], Collection[str]]
    channels: Collection[str] | None


def check_game_days(
    game_days: Sequence[GameDay], known: Known, *, place: Callable[[GameDay, tuple[str | int, ...]], Place]
) -> None:
    """
    Raise `InvalidFile` with every game day that could never be held or says something that means nothing, and why.

    *place* says where a part of a game day is written; it is asked only for problems.
    """
    problems = Problems()
    seen: set[str] = set()
    for game_day in game_days:
        name = game_day.metadata.name
        if name in seen:
            problems.add(
                place(game_day, ("metadata", "name")),
                f"there is a game day named {name!r} already",
                "give it another name",
            )
        seen.add(name)
        for path, message, hint in itertools.chain(
            _without_suite(game_day, known), _never(game_day, known), _unknown(game_day, known)
        ):
            problems.add(place(game_day, ("spec", *path)), message, hint)
    if problems:
        raise InvalidFile(list(problems))


_Wrong = tuple[tuple[str | int, ...], str, str | None]
"""Where below ``spec``, what, and what to do."""


def _without_suite(game_day: GameDay, known: Known) -> Iterator[_Wrong]:
    for index, suite in enumerate(game_day.spec.suites):
        if suite not in known.suites:
            hint = "put its file into the definitions"
            instead = did_you_mean(suite, sorted(known.suites)) if known.suites else hint
            yield ("suites", index), f"there is no suite named {suite!r}", instead


def _unknown(game_day: GameDay, known: Known) -> Iterator[_Wrong]:
    spec, channels = game_day.spec, known.channels
    names = known.experiments(game_day) if spec.expected else ()
    for name in spec.expected:
        if names and name not in names:
            hint = did_you_mean(name, sorted(names))
            yield ("expected", name), f"no suite of this game day has an experiment named {name[:63]!r}", hint
    for index, name in enumerate(() if channels is None else spec.announce.to):
        if channels is not None and name not in channels:
            hint = did_you_mean(name, sorted(channels)) if channels else "leave announce out: no channel is set up"
            yield ("announce", "to", index), f"there is no channel named {name[:63]!r} to announce it to", hint


def _never(game_day: GameDay, known: Known) -> Iterator[_Wrong]:
    schedule = game_day.spec.schedule
    if len(schedule.cron.split()) != 5:
        yield ("schedule", "cron"), "a game day begins at a minute", 'write five fields, such as "0 10 * * TUE#1"'
        return
    if not schedule.window_s:
        yield (
            ("schedule", "window"),
            "a window of 0s excludes every firing",
            "write how late it may still begin, such as 1h",
        )
    if schedule.jitter_s > schedule.window_s > 0:
        yield (
            ("schedule", "jitter"),
            f"the jitter ({show_duration(schedule.jitter_s)}) is longer than the window ({show_duration(schedule.window_s)})",
            "make it shorter than the window",
        )
    try:
        coming = known.first(game_day)
        closest_s = _closest_s(schedule, known.now) if schedule.jitter_s else math.inf
    except (CronSimError, ZoneInfoNotFoundError):
        return  # said by the parser
    if coming is None:
        yield ("schedule", "cron"), f"{schedule.cron[:60]!r} never fires", 'such as "0 10 * * TUE#1"'
        return
    if schedule.jitter_s > closest_s:
        yield (
            ("schedule", "jitter"),
            f"the jitter ({show_duration(schedule.jitter_s)}) is longer than the {show_duration(closest_s)} between two firings",
            "make it shorter, so that the next one cannot be due first",
        )
    blackouts = known.blackouts(game_day)
    if known.hours is None and not any(blackouts.values()):
        return
    tried = [
        ruled_out(game_day, due_at(game_day, each.at), blackouts, known.hours)
        for each in itertools.islice(firings(schedule, known.now), FIRINGS_LOOKED_AT)
    ]
    if None not in tried:
        why = tried[0]
        assert why is not None
        yield (
            ("schedule", "cron"),
            f"none of its next {len(tried)} firings could be held: {why.said}",
            "choose another time",
        )


def _closest_s(schedule: Schedule, now: datetime) -> float:
    """Return how close two of the next firings of *schedule* are, infinite when there are not two."""
    pairs = itertools.pairwise(itertools.islice(firings(schedule, now), FIRINGS_COMPARED))
    return min(((later.at - sooner.at).total_seconds() for sooner, later in pairs), default=math.inf)
