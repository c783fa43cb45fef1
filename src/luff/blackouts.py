"""
Events of calendar files, in which no game day begins: a freeze, a holiday.

Pure: the text is given. What cannot be read is refused with its line, never guessed: a freeze at the wrong time would
be worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from luff.errors import InvalidFile, Problem

__all__ = ["Blackout", "Blackouts", "aware", "parse_ics"]

EVENTS_MOST = 10_000
LINE_MOST = 2_000


@dataclass(frozen=True, slots=True)
class Blackout:
    """This is one event of a calendar file: from *begin* up to but not with *end*. Naive times are by the clocks of whoever asks."""

    begin: datetime
    end: datetime
    what: str

    def covers(self, at: datetime, zone: ZoneInfo) -> bool:
        """Return whether *at* is in it, for a schedule in *zone*."""
        return aware(self.begin, zone) <= at < aware(self.end, zone)


Blackouts = Mapping[str, Sequence[Blackout]]
"""The events of each calendar file, by the name under which one game day refers to it."""


def aware(at: datetime, zone: ZoneInfo) -> datetime:
    """Return *at* with a zone: its own, or *zone* when it has none."""
    return at.replace(tzinfo=zone) if at.tzinfo is None else at


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
