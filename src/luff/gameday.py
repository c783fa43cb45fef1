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
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from luff.errors import InvalidFile, Problem
from luff.model import GameDay, Schedule, Suite
from luff.policy import Hours
from luff.units import show_duration
from luff.yaml_nodes import Place, Problems, did_you_mean

__all__ = [
    "Blackout",
    "Blackouts",
    "Firing",
    "Planned",
    "Reason",
    "check_game_days",
    "due_at",
    "firings",
    "in_words",
    "occurrence_id",
    "parse_ics",
    "planned",
    "ruled_out",
    "suites_under",
]

ID_DIGITS = 16
EVENTS_MOST = 10_000
FIRINGS_LOOKED_AT = 1000
"""How many firings are tried before it is said that hours or blackouts leave none."""
LINE_MOST = 2_000


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


@dataclass(frozen=True, slots=True, order=True)
class Blackout:
    """This is one event of a calendar file: from *begin* up to but not with *end*. Naive times are by the clocks of whoever asks."""

    begin: datetime
    end: datetime
    what: str

    def covers(self, at: datetime, zone: ZoneInfo) -> bool:
        """Return whether *at* is in it, for a schedule in *zone*."""
        return _aware(self.begin, zone) <= at < _aware(self.end, zone)


Blackouts = Mapping[str, Sequence[Blackout]]
"""The events of each calendar file, by the name under which one game day refers to it."""


def _aware(at: datetime, zone: ZoneInfo) -> datetime:
    return at.replace(tzinfo=zone) if at.tzinfo is None else at


def ruled_out(game_day: GameDay, at: datetime, blackouts: Blackouts, hours: Hours | None) -> Reason | None:
    """Return why the calendar alone says that nothing begins at *at*, or ``None``."""
    zone = ZoneInfo(game_day.spec.schedule.time_zone)
    for condition in game_day.spec.skip_when:
        for event in blackouts.get(condition.ics or "", ()):
            if event.covers(at, zone):
                return Reason(
                    "blackout",
                    f"{event.what!r} in {condition.ics} lasts until {_aware(event.end, zone):%Y-%m-%d %H:%M %Z}",
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
    game_day: GameDay, after: datetime, until: datetime, *, blackouts: Blackouts, hours: Hours | None
) -> Iterator[Planned]:
    """Yield what *game_day* has between two instants, in order."""
    name = game_day.metadata.name
    for firing in firings(game_day.spec.schedule, after, until):
        due = due_at(game_day, firing.at)
        skipped = ruled_out(game_day, due, blackouts, hours)
        yield Planned(occurrence_id(name, firing.at), game_day, firing.at, due, firing.note, skipped)


# --- calendar files ----------------------------------------------------------------------------------------------

_TIME = re.compile(r"(\d{8})(?:T(\d{6})(Z?))?")
_DURATION = re.compile(r"P(?:(\d{1,4})W)?(?:(\d{1,5})D)?(?:T(?:(\d{1,5})H)?(?:(\d{1,5})M)?(?:(\d{1,6})S)?)?")


def parse_ics(file: str, text: str) -> tuple[Blackout, ...]:
    """
    Return the events of an iCalendar file, in order of time; cancelled ones are left out.

    Raises `InvalidFile`, with the line, for what is no calendar and for events
    that repeat: to guess when a freeze is would be worse than to say so.
    """
    problems: list[Problem] = []
    found: list[Blackout] = []
    fields: dict[str, tuple[int, str, str]] | None = None
    began, nested = False, 0
    for line, name, parameters, value in _content(text):
        match (name, value.strip().upper()):
            case ("BEGIN", "VCALENDAR"):
                began = True
            case ("BEGIN", "VEVENT"):
                fields, nested = {"BEGIN": (line, "", "")}, 0
            case ("BEGIN", _) if fields is not None:
                nested += 1  # an alarm has fields of the same names
            case ("END", "VEVENT") if fields is not None:
                try:
                    event = _event(fields)
                    if event is not None:
                        found.append(event)
                except _NoEvent as error:
                    problems.append(Problem(file, error.line, 1, error.message, error.suggestion))
                fields = None
            case ("END", _) if fields is not None:
                nested -= 1
            case _ if fields is not None and not nested:
                fields.setdefault(name, (line, parameters, value))
        if len(found) > EVENTS_MOST or len(problems) > EVENTS_MOST:
            problems = [Problem(file, line, 1, f"there are more than {EVENTS_MOST} events in this calendar")]
            break
    if not began:
        problems = [Problem(file, 1, 1, "this is no iCalendar file", "it begins with BEGIN:VCALENDAR")]
    elif fields is not None:
        problems.append(Problem(file, fields["BEGIN"][0], 1, "this event never ends", "END:VEVENT is missing"))
    if problems:
        raise InvalidFile(problems)
    return tuple(sorted(found, key=lambda event: (event.begin.replace(tzinfo=None), event.what)))


class _NoEvent(Exception):  # not an error of luff's: it never leaves this module
    def __init__(self, line: int, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.line, self.message, self.suggestion = line, message, suggestion


def _content(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Yield the lines that a calendar was folded from: number, name, parameters and value."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if line[:1] in (" ", "\t") and lines:
            first, before = lines[-1]
            if len(before) < LINE_MOST:
                lines[-1] = (first, before + line[1:])
        elif line.strip():
            lines.append((number, line))
    for number, line in lines:
        head, _, value = re.sub(r'"[^"]*"', lambda quoted: quoted[0].replace(":", "\0"), line).partition(":")
        name, _, parameters = head.partition(";")
        yield number, name.strip().upper(), parameters.replace("\0", ":"), value.replace("\0", ":")


def _event(fields: Mapping[str, tuple[int, str, str]]) -> Blackout | None:
    line = fields["BEGIN"][0]
    if fields.get("STATUS", (0, "", ""))[2].strip().upper() == "CANCELLED":
        return None
    for name in ("RRULE", "RDATE"):
        if name in fields:
            raise _NoEvent(
                fields[name][0],
                f"events that repeat ({name}) are not supported",
                "write each one as an event of its own",
            )
    if "DTSTART" not in fields:
        raise _NoEvent(line, "this event has no DTSTART")
    begin = _when(*fields["DTSTART"])
    if "DTEND" in fields:
        end = _when(*fields["DTEND"])
    elif "DURATION" in fields:
        end = begin + _lasting(*fields["DURATION"])
    elif "T" in fields["DTSTART"][2]:
        raise _NoEvent(line, "this event has neither DTEND nor DURATION, so it rules nothing out")
    else:
        end = begin + timedelta(days=1)
    if (begin.tzinfo is None) != (end.tzinfo is None):
        raise _NoEvent(line, "DTSTART and DTEND must both have a time zone, or none")
    if end <= begin:
        raise _NoEvent(line, "this event ends before it begins")
    what = re.sub(
        r"\\([\\,;nN])",
        lambda escaped: " " if escaped[1] in "nN" else escaped[1],
        fields.get("SUMMARY", (0, "", "an event"))[2],
    )
    return Blackout(begin, end, what.strip()[:200] or "an event")


def _when(line: int, parameters: str, value: str) -> datetime:
    match = _TIME.fullmatch(value.strip().upper())
    zone = re.search(r"(?:^|;)TZID=\"?([^\";]+)", parameters, re.IGNORECASE)
    try:
        at = None if match is None else datetime.strptime(match[1] + (match[2] or "000000"), "%Y%m%d%H%M%S")  # noqa: DTZ007  # the zone comes next
    except ValueError:
        at = None
    if at is None or match is None:
        raise _NoEvent(line, f"{value.strip()[:40]!r} is no date or time", "such as 20261224T120000Z")
    if match[3]:
        return at.replace(tzinfo=UTC)
    if zone is None or match[2] is None:
        return at
    try:
        return at.replace(tzinfo=ZoneInfo(zone[1].strip()))
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise _NoEvent(
            line, f"there is no time zone {zone[1][:60]!r}", "such as Europe/Berlin, or times that end with Z"
        ) from None


def _lasting(line: int, _: str, value: str) -> timedelta:
    match = _DURATION.fullmatch(value.strip().upper().lstrip("+"))
    if match is None or not any(match.groups()):
        raise _NoEvent(line, f"{value.strip()[:40]!r} is no duration", "such as PT2H")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


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


def check_game_days(
    game_days: Sequence[GameDay],
    suites: Sequence[Suite],
    *,
    place: Callable[[GameDay, tuple[str | int, ...]], Place],
    now: datetime,
    blackouts: Callable[[GameDay], Blackouts],
    hours: Hours | None = None,
) -> None:
    """
    Raise `InvalidFile` with every game day that could never be held, and why.

    *place* says where a part of a game day is written; it is asked only for problems.
    """
    problems = Problems()
    seen: set[str] = set()
    names = [suite.metadata.name for suite in suites]
    known = set(names)
    for game_day in game_days:
        name = game_day.metadata.name
        if name in seen:
            problems.add(
                place(game_day, ("metadata", "name")),
                f"there is a game day named {name!r} already",
                "give it another name",
            )
        seen.add(name)
        for index, suite in enumerate(game_day.spec.suites):
            if suite not in known:
                instead = did_you_mean(suite, names) if names else "put its file into the definitions"
                problems.add(place(game_day, ("spec", "suites", index)), f"there is no suite named {suite!r}", instead)
        for path, message, hint in _never(game_day, now, blackouts(game_day), hours):
            problems.add(place(game_day, ("spec", *path)), message, hint)
    if problems:
        raise InvalidFile(list(problems))


def _never(
    game_day: GameDay, now: datetime, blackouts: Blackouts, hours: Hours | None
) -> Iterator[tuple[tuple[str | int, ...], str, str | None]]:
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
        coming = firings(schedule, now)
        first = next(coming, None)
    except (CronSimError, ZoneInfoNotFoundError):
        return  # said by the parser
    if first is None:
        yield ("schedule", "cron"), f"{schedule.cron[:60]!r} never fires", 'such as "0 10 * * TUE#1"'
        return
    if hours is None and not any(blackouts.values()):
        return
    tried = [
        ruled_out(game_day, due_at(game_day, each.at), blackouts, hours)
        for each in itertools.islice(itertools.chain([first], coming), FIRINGS_LOOKED_AT)
    ]
    if None not in tried:
        why = tried[0]
        assert why is not None
        yield (
            ("schedule", "cron"),
            f"none of its next {len(tried)} firings could be held: {why.said}",
            "choose another time",
        )
