"""
The calendar as the API and the pages show it, and the scheduler behind it.

Beside the jobs: it begins after what a dead server left was restored, and ends before the jobs do. The server is not
ready when nobody has looked at it for a while.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from starlette.concurrency import run_in_threadpool

from luff.clock import Clock
from luff.errors import UsageError
from luff.gameday import Planned, Reason, agreed, approvals_until
from luff.gameday_files import GameDays
from luff.model import GameDay
from luff.schedule import Held, Scheduler
from luff.store import Store
from luff.store.diary import Pause, Remark, RemarkKind
from luff.store.occurrences import Occurrence, Occurrences, State
from luff.surroundings import Surroundings
from luff.units import show_duration
from luff.web.access import Person
from luff.web.problems import Problem

__all__ = ["Calendar", "Coming"]

TICK_MOST_S = 60.0
"""How long ago the newest look at the calendar may be for the server to be ready."""


@dataclass(frozen=True, slots=True)
class Coming:
    """
    This is a firing to come, and how its game day is *paused*.

    *agreed* is who has approved it and when, *until* when it still can be,
    ``None`` when it need not.
    """

    planned: Planned
    paused: Pause | None = None
    needed: int = 0
    until: datetime | None = None
    agreed: Mapping[str, datetime] = field(default_factory=dict)

    @property
    def skipped(self) -> Reason | None:
        """Return why it will not be held, as far as that is certain."""
        return self.planned.skipped if self.paused is None else Reason("paused", self.paused.said)

    @property
    def missing(self) -> int:
        """Return how many approvals it still needs."""
        return max(0, self.needed - len(self.agreed))


class Calendar:
    """This holds game days by *hold*, and says what is to come and what has been."""

    def __init__(
        self,
        store: Store,
        game_days: GameDays,
        hold: Callable[[GameDay, Occurrence], Awaitable[Held]],
        *,
        surroundings: Surroundings,
        clock: Clock,
    ) -> None:
        self.game_days = game_days
        self._clock = clock
        self._occurrences = Occurrences.of(store)
        self.diary = self._occurrences.diary
        self.scheduler = Scheduler(self._occurrences, game_days, hold, surroundings=surroundings, clock=clock)

    async def start(self) -> None:
        """Be there when a game day is due, from now on; raises `InvalidFile` and `StoreError`."""
        await self.scheduler.start()

    def begin_stopping(self) -> None:
        """Begin nothing more, and let what runs be stopped."""
        self.scheduler.begin_stopping()

    async def stop(self) -> None:
        """Come back once what ran is stopped, restored and written down."""
        await self.scheduler.stop()

    def trouble(self) -> str | None:
        """Return why the calendar cannot be relied on, or ``None``: then the server is not ready."""
        age_s = self.scheduler.tick_age_s()
        if age_s <= TICK_MOST_S:
            return None
        if math.isinf(age_s):
            return "nobody has looked at the calendar yet"
        why = "" if self.scheduler.trouble is None else f": {self.scheduler.trouble}"
        return f"the calendar was last looked at {show_duration(age_s)} ago{why}"

    def now(self) -> datetime:
        """Return the time that the calendar goes by."""
        return datetime.fromtimestamp(self._clock.now_s(), UTC)

    def each_next(self) -> list[tuple[GameDay, Coming | None]]:
        """Return every game day, by name, with its next firing; blocks on the store."""
        found = [(each, self.scheduler.coming(each.metadata.name)) for _, each in sorted(self.game_days.all.items())]
        known = iter(self._with_people([planned for _, planned in found if planned is not None]))
        return [(game_day, None if planned is None else next(known)) for game_day, planned in found]

    def coming(
        self,
        now: datetime,
        until: datetime,
        *,
        schedule: str | None = None,
        limit: int,
        each_most: int | None = None,
    ) -> list[Coming]:
        """Return the first *limit* firings from *now* until *until*, *each_most* of one game day; blocks on the store."""
        if schedule is None:
            return self._with_people(self.scheduler.upcoming(now, until, limit=limit, each_most=each_most))
        game_day = self.game_days.all.get(schedule)
        of = [] if game_day is None else [game_day]
        return self._with_people(self.game_days.coming(now, until, limit=limit, of=of))

    def past(
        self, since: datetime | None, until: datetime | None, *, schedule: str | None = None, limit: int
    ) -> list[Occurrence]:
        """Return at most *limit* firings that have rows, newest first; blocks on the store."""
        return self._occurrences.between(since, until, schedule=schedule, limit=limit)

    def open(self, limit: int) -> list[Occurrence]:
        """Return the occurrences that are held now, by whichever server; blocks on the store."""
        return self._occurrences.open_ones(limit)

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many occurrences of each schedule have come to each state; blocks on the store."""
        return {(schedule, str(state)): count for (schedule, state), count in self._occurrences.counts().items()}

    def approver(self, person: Person, name: str | None, game_day: GameDay) -> str:
        """
        Return as whom *person* approves *game_day*; raises `Problem` when they may not.

        Everybody speaks for themselves; only the machine's own user, who could
        make a token of any name, may say for whom.
        """
        people = game_day.spec.people
        approvers = () if people is None else people.approvers
        who = name or person.name
        if who != person.name and person.token is not None:
            raise Problem("role_too_weak", f"{person.name} approves as {person.name}, not as {who[:63]}")
        if approvers and who not in approvers:
            raise Problem(
                "not_an_approver",
                f"{who[:63]} is no approver of {game_day.metadata.name}",
                next_step=f"approvers are {', '.join(approvers)}; their tokens go by these names",
            )
        return who

    def get(self, name: str) -> GameDay:
        """Return the game day *name*, or raise `Problem`."""
        found = self.game_days.all.get(name)
        if found is None:
            raise Problem("not_found", f"there is no game day {name[:63]!r}", next_step="see /api/v1/gamedays")
        return found

    async def approve(
        self,
        name: str,
        scheduled_for: datetime,
        person: Person,
        who: str | None,
        audit: Callable[[str], Awaitable[None]],
    ) -> Coming:
        """Write down that *person*, or *who*, agrees to a firing to come, after *audit* has; raises `Problem`."""
        game_day = self.get(name)
        agreeing = self.approver(person, who, game_day)
        with _conflicts():
            at = self.scheduler.check_approval(name, scheduled_for, agreeing)
            await audit(f"{at.isoformat()} as {agreeing}")
            await self.scheduler.approve(name, at, agreeing)
        moment = timedelta(microseconds=1)
        found = self.game_days.planned_of(game_day, at - moment, at)
        return (await run_in_threadpool(self._with_people, list(found)))[0]

    async def start_now(self, name: str, person: Person, who: str | None) -> Occurrence:
        """Begin the game day *name* by hand, at once; raises `Problem` when *person*, or *who*, may not alone."""
        beginning = self.approver(person, who, self.get(name))
        with _conflicts():
            id_ = await self.scheduler.start_now(name, person.actor, who=beginning)
        return await run_in_threadpool(self.occurrence, id_)

    def occurrence(self, id_: str) -> Occurrence:
        """Return the occurrence with this id, or raise `Problem`; blocks on the store."""
        found = self._occurrences.get(id_)
        if found is None:
            raise Problem("not_found", f"no occurrence {id_[:63]!r} has fired", next_step="see /api/v1/occurrences")
        return found

    def remarks(self, id_: str) -> list[Remark]:
        """Return what was said of the occurrence with this id; blocks on the store."""
        return self.diary.remarks([id_]).get(id_, [])

    def pause(self, name: str, why: str, person: Person) -> Pause:
        """Let the game day *name* not be held until it is resumed; raises `Problem`, blocks on the store."""
        self.get(name)
        with _conflicts():
            return self.diary.pause(name, why, actor=person.actor, now=self.now())

    def resume(self, name: str, person: Person) -> Pause:
        """Let the game day *name* be held again; raises `Problem`, blocks on the store."""
        with _conflicts():
            return self.diary.resume(name, actor=person.actor, now=self.now())

    def remark(self, id_: str, kind: RemarkKind, said: str, person: Person) -> Remark:
        """Write down what *person* says of an occurrence; raises `Problem`, blocks on the store."""
        self.occurrence(id_)
        with _conflicts():
            return self.diary.remark(id_, kind, said, actor=person.actor, now=self.now())

    def finish(self, id_: str, person: Person) -> Occurrence:
        """Close an occurrence that is over; raises `Problem`, blocks on the store."""
        self.occurrence(id_)
        with _conflicts():
            self.diary.finish(id_, actor=person.actor, now=self.now())
        return self.occurrence(id_)

    async def stop_occurrence(self, id_: str, person: Person) -> Occurrence:
        """Stop the occurrence with this id; raises `Problem` when it does not run here."""
        stopping = self.scheduler.stop_occurrence(id_, who=person.name)
        found = await run_in_threadpool(self.occurrence, id_)
        if stopping:
            return found
        if found.state in (State.CLAIMED, State.RUNNING):
            raise Problem(
                "conflict",
                f"it is held by another server, {found.who}",
                next_step="ask that one, or stop its runs: any server can",
            )
        raise Problem("conflict", f"it is over: {found.state}")

    def _with_people(self, found: list[Planned]) -> list[Coming]:
        pauses = self.diary.pauses() if found else {}
        asked = [each for each in found if approvals_until(each.game_day, each.at) is not None]
        known = self._occurrences.approvals_since(min(each.at for each in asked)) if asked else {}
        return [
            _coming(each, known.get((name, each.at), {}), pauses.get(name))
            for each in found
            for name in (each.game_day.metadata.name,)
        ]


@contextmanager
def _conflicts() -> Iterator[None]:
    """Answer what cannot be done as things are."""
    try:
        yield
    except UsageError as error:
        raise Problem("conflict", error.message, next_step=error.next_step) from error


def _coming(planned: Planned, approvals: Mapping[str, datetime], paused: Pause | None) -> Coming:
    until, people = approvals_until(planned.game_day, planned.at), planned.game_day.spec.people
    needed = 0 if people is None else people.approvals
    return Coming(planned, paused, needed, until, agreed(planned.game_day, planned.at, approvals))
