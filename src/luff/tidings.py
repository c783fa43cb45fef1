"""
When people are told: a run that changes what is known, a restore that is not proven, a game day ahead or not held.

What must stay true:

1. Whatever happens here, a run's verdict, a game day and a restore go on as if nobody were told.
2. Of several servers on one database, one tells of an occurrence, and once.
3. Nothing that waits for the database runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from luff.clock import Clock
from luff.errors import LuffError
from luff.exit_codes import is_unrestored
from luff.gameday import Planned
from luff.gameday_files import GameDays
from luff.model import GameDay
from luff.notify import Ahead, NotHeld, Notice, Notifier, game_day_ahead, occurrences_not_held, of_outcome
from luff.outcome import Outcome
from luff.store import Store
from luff.store.diary import Diary, Pause
from luff.store.occurrences import Occurrence
from luff.store.tellings import Telling, Tellings

__all__ = ["GameDayTidings", "RunTidings"]

NEWS = timedelta(minutes=10)
"""What ended longer ago is no news: somebody else told it, or nobody was to be told then."""

LOOKED_AHEAD_MOST = 200
"""How many firings of one game day are looked at, the nearest: those after them are told of once they are nearer."""

_log = logging.getLogger("luff.notify")


class RunTidings:
    """This tells what became of runs, by *notifier*. Its methods belong to one event loop."""

    def __init__(
        self, store: Store, notifier: Notifier, clock: Clock, *, log: Callable[[str], None] = _log.error
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._clock = clock
        self._log = log
        self._asking: set[asyncio.Task[None]] = set()

    def ended(self, outcome: Outcome) -> None:
        """Tell *outcome*, which has been recorded, if it is news. Comes back at once, and never raises."""
        task = asyncio.create_task(self._tell(outcome), name=f"luff-tidings-{outcome.run}")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def close(self, *, within_s: float) -> None:
        """Come back once everything is told, or after *within_s*."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        if self._asking:
            await asyncio.wait(tuple(self._asking), timeout=within_s)
        await self._notifier.close(within_s=max(0.0, until_s - loop.time()))

    async def _tell(self, outcome: Outcome) -> None:
        # What was before is not known where history cannot be read; that a fault may be live is said all the same.
        before = outcome.verdict if is_unrestored(outcome) else None
        try:
            before = await asyncio.to_thread(self._store.verdict_before, outcome)
        except LuffError as error:
            self._log(f"what was before run {outcome.run} cannot be read: {error}")
        for notice in of_outcome(outcome, before, at=datetime.fromtimestamp(self._clock.now_s(), UTC)):
            self._notifier.tell(notice)


class GameDayTidings:
    """
    This tells of game days, each time somebody looks: those ahead as their ``announce`` asks, and those not held.

    Those ahead are told to the channels that ``announce.to`` names. So are
    those not held, and where it names none, to every channel that wants them.
    """

    def __init__(self, store: Store, notifier: Notifier, definitions: GameDays, clock: Clock) -> None:
        self._tellings = Tellings.of(store)
        self._diary = Diary.of(store)
        self._notifier = notifier
        self._definitions = definitions
        self._clock = clock

    async def look(self) -> None:
        """Tell what is news now; raises `luff.errors.StoreError`."""
        now = datetime.fromtimestamp(self._clock.now_s(), UTC)
        for notice, to in await asyncio.to_thread(self._news, now):
            self._notifier.tell(notice, to=to or None)

    def _news(self, now: datetime) -> list[tuple[Notice, tuple[str, ...]]]:
        game_days = dict(self._definitions.all)
        return [*self._ahead(game_days.values(), now), *self._not_held(game_days, now)]

    def _ahead(self, game_days: Iterable[GameDay], now: datetime) -> list[tuple[Notice, tuple[str, ...]]]:
        wanted: dict[Telling, Planned] = {}
        for game_day in game_days:
            announce = game_day.spec.announce
            if not announce.before or not announce.to:
                continue
            until = now + timedelta(seconds=max(announce.before))
            for planned in self._definitions.coming(now, until, limit=LOOKED_AHEAD_MOST, of=[game_day]):
                # Of several that are over only the nearest is told: who was not there for a week tells one thing.
                left_s = (planned.due - now).total_seconds()
                over = [before_s for before_s in announce.before if before_s >= left_s > 0]
                if over:
                    telling = Telling(game_day.metadata.name, planned.at.astimezone(UTC), f"before {min(over):g}")
                    wanted[telling] = planned
        mine = self._tellings.claim(list(wanted), now=now)
        pauses = self._diary.pauses() if mine else {}
        return [
            (_ahead(planned, pauses.get(each.schedule), now), planned.game_day.spec.announce.to)
            for each, planned in wanted.items()
            if each in mine
        ]

    def _not_held(self, game_days: dict[str, GameDay], now: datetime) -> list[tuple[Notice, tuple[str, ...]]]:
        ended = self._tellings.bad_ends(now - NEWS)
        tellings = {Telling(each.schedule, each.scheduled_for, "ended"): each for each in ended}
        mine = self._tellings.claim(list(tellings), now=now)
        by_schedule: dict[str, list[Occurrence]] = {}
        for telling, each in tellings.items():
            if telling in mine:
                by_schedule.setdefault(each.schedule, []).append(each)
        found = []
        for name, each_ended in by_schedule.items():
            game_day = game_days.get(name)
            to = () if game_day is None else game_day.spec.announce.to
            found.append((_not_held(each_ended, now), to))
        return found


def _ahead(planned: Planned, paused: Pause | None, now: datetime) -> Notice:
    people = planned.game_day.spec.people
    against = None if planned.skipped is None else planned.skipped.said
    coming = Ahead(
        planned.game_day.metadata.name,
        planned.at,
        planned.due,
        owner=None if people is None else people.owner,
        skipped=against if paused is None else paused.said,
    )
    return game_day_ahead(coming, at=now)


def _not_held(ended: list[Occurrence], now: datetime) -> Notice:
    """Return one notice for all that *ended* of one game day: after a long absence nobody wants a thousand."""
    newest = max(ended, key=lambda each: each.scheduled_for)
    told = NotHeld(
        newest.schedule,
        newest.scheduled_for,
        str(newest.state),
        newest.reason,
        newest.said,
        runs=newest.runs,
        others=len(ended) - 1,
    )
    return occurrences_not_held(told, at=now)
