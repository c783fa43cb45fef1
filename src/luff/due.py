"""
Where the calendar stands with each schedule: what has fired and has no row yet, and what fires next.

Values in, values out: whoever holds game days brings the clock, the files and the store.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from luff.gameday import Firing, Reason, check_start, due_at, firings, occurrence_id
from luff.model import GameDay, Schedule
from luff.store.occurrences import New, Rule
from luff.units import show_duration

__all__ = ["Line", "Lines", "former", "missed", "started"]

MISSED_MOST = 1000
"""How many missed firings of one schedule get rows of their own; the oldest of them says how many there were before."""
Against = Callable[[GameDay, New, datetime], Reason | None]


@dataclass(slots=True)
class Line:
    """This is one schedule: the firing that comes *next*, those after it, and what has *fired* without a row."""

    game_day: GameDay
    next: Firing | None
    rest: Iterator[Firing]
    fired: deque[Firing] = field(default_factory=lambda: deque(maxlen=MISSED_MOST))
    dropped: int = 0

    @property
    def due(self) -> datetime | None:
        """Return when the next firing is due, ``None`` when there is none."""
        return None if self.next is None else due_at(self.game_day, self.next.at)

    def catch_up(self, now: datetime) -> datetime | None:
        """Take what is due by *now* as fired, and return when the next one is due."""
        due = self.due
        while due is not None and due <= now:
            assert self.next is not None
            self.dropped += len(self.fired) == self.fired.maxlen
            self.fired.append(self.next)
            self.next = next(self.rest, None)
            due = self.due
        return due

    def decided(self, now: datetime, against: Against) -> list[New]:
        """Return what becomes of what has fired: the newest may be held, the others have been missed."""
        game_day, name = self.game_day, self.game_day.metadata.name
        *earlier, newest = self.fired
        found = []
        for number, firing in enumerate(earlier):
            why = missed(game_day, due_at(game_day, firing.at), now) or Reason(
                "superseded", f"the one at {newest.at:%Y-%m-%d %H:%M %Z} was due by then as well"
            )
            before = f"; {self.dropped} before it were missed as well" if self.dropped and not number else ""
            found.append(_new(name, game_day, firing, Reason(why.code, why.said + before)))
        made = _new(name, game_day, newest, None)
        return [*found, _new(name, game_day, newest, against(game_day, made, now))]

    def settled(self) -> None:
        """Forget what has fired: it has rows now."""
        self.fired.clear()
        self.dropped = 0


class Lines:
    """This is every schedule, ordered by what is due next."""

    def __init__(self, lines: dict[str, Line]) -> None:
        self._lines = lines
        self._heap = [(due, name) for name, line in lines.items() if (due := line.due) is not None]
        heapq.heapify(self._heap)
        self._open: set[str] = set()
        """The lines that have fired and are not settled: the store was away."""

    @property
    def next_due(self) -> datetime | None:
        """Return when the next firing of all is due."""
        return self._heap[0][0] if self._heap else None

    def __getitem__(self, name: str) -> Line:
        return self._lines[name]

    def coming(self, name: str) -> Firing | None:
        """Return the next firing of the schedule *name*."""
        line = self._lines.get(name)
        return None if line is None else line.next

    def soonest(self, until: datetime, limit: int | None = None) -> list[GameDay]:
        """Return the game days that fire until *until*, of which the first *limit* firings are; the others need no look."""
        firing = [(coming.at, line) for line in list(self._lines.values()) if (coming := line.next) is not None]
        due = [(at, line) for at, line in firing if at <= until]
        chosen = due if limit is None else heapq.nsmallest(limit, due, key=lambda each: each[0])
        return [line.game_day for _, line in chosen]

    def fired(self, now: datetime, against: Against) -> list[New]:
        """Return what becomes of everything that has fired by *now* and is not settled."""
        while self._heap and self._heap[0][0] <= now:
            _, name = heapq.heappop(self._heap)
            self._open.add(name)
            due = self._lines[name].catch_up(now)
            if due is not None:
                heapq.heappush(self._heap, (due, name))
        return [each for name in sorted(self._open) for each in self._lines[name].decided(now, against)]

    def settled(self) -> None:
        """Take what `fired` returned last as written down."""
        for name in self._open:
            self._lines[name].settled()
        self._open.clear()


def missed(game_day: GameDay, due: datetime, now: datetime) -> Reason | None:
    """Return that *now* is too late for what was *due*, or ``None``."""
    late_s, window_s = (now - due).total_seconds(), game_day.spec.schedule.window_s
    if late_s <= window_s:
        return None
    late, window = show_duration(late_s), show_duration(window_s)
    return Reason("missed", f"nobody was there when it was due; {late} later its window of {window} was over")


def former(game_day: GameDay, rule: Rule, since: datetime, now: datetime) -> list[New]:
    """Return what the former *rule* of a game day has fired and nobody was there for."""
    name = game_day.metadata.name
    schedule = Schedule(cron=rule.cron, time_zone=rule.time_zone)
    try:
        fired = deque(firings(schedule, since, now), maxlen=MISSED_MOST)
    except Exception:  # a rule that an older version took and this one does not
        return []
    why = Reason("changed", "nobody was there when it was due, and its schedule has been changed since")
    return [_new(name, game_day, firing, why) for firing in fired]


def started(game_day: GameDay, now: datetime, *, who: str) -> New:
    """Return the occurrence of *game_day* that *who* begins by hand *now*; `UsageError` when they may not alone."""
    check_start(game_day, who=who)
    name = game_day.metadata.name
    return New(occurrence_id(name, now), name, now, now, started_by=who)


def _new(name: str, game_day: GameDay, firing: Firing, why: Reason | None) -> New:
    due = due_at(game_day, firing.at)
    code, said = (None, None) if why is None else (why.code, why.said)
    return New(occurrence_id(name, firing.at), name, firing.at, due, code, said)
