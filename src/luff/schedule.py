"""
Game days on a calendar: the part that is there when they are due.

For whoever runs a server::

    game_days = GameDays([folder], lambda: read_documents([folder]), hours=hours)
    scheduler = Scheduler(Occurrences.of(store), game_days, run, surroundings=Surroundings(lever=…, metric=…))
    await scheduler.start()      # raises InvalidFile; what fired while nobody was there is settled before it returns
    scheduler.last_tick          # when the calendar was last looked at; tick_age_s() for /readyz, which fails above 60 s
    scheduler.trouble            # why the last look failed, or None; game_days.problem is a file that cannot be read
    scheduler.upcoming(now, until)
    await scheduler.approve(name, scheduled_for, who)
    await scheduler.stop()       # begins nothing more, cancels and awaits what runs

*run* is called for each occurrence that is held, with the game day and its `Occurrence`; it finds the experiments with
``game_days.experiments(game_day)`` and returns `Held`. It is cancelled by `stop` and `stop_occurrence`, with the reason
as the message, and has put everything back when it lets the cancellation through. What became of each firing is in
`luff.store.occurrences`.

What must stay true:

1. The truth is in the store. APScheduler only rings; a ring that is lost, early or double changes nothing, and the
   calendar is looked at every `LOOK_EVERY_S` anyway, by a clock that does not jump.
2. A firing is held at most once, by whichever replica has claimed it, and only if nothing spoke against it. What cannot
   be asked speaks against it.
3. Every firing gets a row. What is not held has a reason there, also when nobody was there at its time.
4. A mistake in the files stops no game day: what was read before goes on.
5. Nothing that waits for the database or the disk runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from luff.clock import Clock, SystemClock
from luff.due import Line, Lines, former, missed, started
from luff.errors import StoreError, UsageError
from luff.gameday import Planned, Reason, agreed, approvals_until, as_planned, check_approval
from luff.gameday_files import GameDays
from luff.model import GameDay, PrometheusCondition
from luff.replica import is_gone, own_name
from luff.store.access import Actor
from luff.store.occurrences import New, Occurrence, Occurrences, Rule, State
from luff.surroundings import Surroundings
from luff.units import show_duration
from luff.yaml_nodes import did_you_mean

__all__ = ["Held", "Scheduler", "read_definitions"]

T = TypeVar("T")

LOOK_EVERY_S = 15.0
"""How often the calendar is looked at when nothing is due: changed files and dead replicas are noticed then."""
ASK_WITHIN_S = 10.0
TRIES = 10
PAUSE_S = 2.0
JOB = "calendar"


@dataclass(frozen=True, slots=True)
class Held:
    """This is how an occurrence went: *good* when everything came out as expected, one sentence, and its runs."""

    good: bool
    said: str = ""
    runs: tuple[str, ...] = ()


class _Ring(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """This is the calendar as APScheduler sees it: the next firing, and at least every `LOOK_EVERY_S`."""

    def __init__(self, next_due: Callable[[], datetime | None]) -> None:
        self._next_due = next_due

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        look, due = now + timedelta(seconds=LOOK_EVERY_S), self._next_due()
        return look if due is None or not now < due < look else due


class Scheduler:
    """This holds what is due; the module says how it is used. Several may share one database."""

    def __init__(
        self,
        store: Occurrences,
        definitions: GameDays,
        run: Callable[[GameDay, Occurrence], Awaitable[Held]],
        *,
        surroundings: Surroundings | None = None,
        clock: Clock | None = None,
        name: str | None = None,
    ) -> None:
        self._store = store
        self.definitions = definitions
        self._run = run
        self._surroundings = surroundings or Surroundings()
        self._clock = clock or SystemClock()
        self.name = name or own_name()
        self.last_tick: datetime | None = None
        self.trouble: str | None = None
        self._ticked_s: float | None = None
        self._lines = Lines({})
        self._holding: dict[str, asyncio.Task[None]] = {}
        self._stopped: dict[str, str] = {}
        """Who stopped an occurrence, by its id."""
        self._bell = asyncio.Event()
        self._ticking = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="luff-schedule")
        self._alarm: AsyncIOScheduler | None = None
        self._worker: asyncio.Task[None] | None = None
        self._synced = 0
        """The version of the definitions that the lines are of; 0 when they have to be taken over again."""
        self._closing = False

    # --- for whoever runs a server

    async def start(self) -> None:
        """Read the definitions unless that is done, settle what has fired meanwhile, and be there from now on."""
        now = self._now()
        if not self.definitions.version:
            await self._in_thread(read_definitions, self.definitions, self._store, now)
        await self._tick(now)
        if not self._synced:
            raise StoreError(self.trouble or "the calendar cannot be read", next_step="look with `luff db current`")
        self._alarm = AsyncIOScheduler(timezone=UTC, executors={"default": AsyncIOExecutor()})
        self._alarm.add_job(
            self._ring,
            _Ring(lambda: self._lines.next_due),
            id=JOB,
            coalesce=True,
            misfire_grace_time=None,
            max_instances=1,
        )
        self._alarm.start()
        self._worker = asyncio.create_task(self._work(), name="luff-schedule")

    def begin_stopping(self) -> None:
        """Begin nothing more, and cancel what runs, without waiting for it."""
        if self._closing:
            return
        self._closing = True
        if self._worker is not None:
            self._worker.cancel()
        for task in self._holding.values():
            task.cancel("the server was stopped")

    async def stop(self) -> None:
        """Begin nothing more; cancel and await what runs. What had not begun is left to others."""
        self.begin_stopping()
        if self._alarm is not None:
            self._alarm.shutdown(wait=False)
            await asyncio.sleep(0)  # it is shut down by the loop's next turn
            self._alarm = None
        # A second cancellation would break off what the first one has begun: routes being put back, the row's last word.
        tasks = [task for task in (self._worker, *self._holding.values()) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        self._worker = None
        self._thread.shutdown(wait=True)

    def tick_age_s(self) -> float:
        """Return how long ago the calendar was last looked at, by a clock that does not jump; infinite before the first time."""
        return float("inf") if self._ticked_s is None else self._clock.monotonic_s() - self._ticked_s

    def coming(self, name: str) -> Planned | None:
        """Return the next firing of the game day *name*, with why it will not be held as far as the calendar knows."""
        game_day, firing = self.definitions.all.get(name), self._lines.coming(name)
        if game_day is None or firing is None:
            return None
        return as_planned(game_day, firing, lambda at: self.definitions.ruled_out(game_day, at))

    def upcoming(
        self, now: datetime, until: datetime, *, limit: int | None = None, each_most: int | None = None
    ) -> list[Planned]:
        """
        Return the first *limit* firings to come until *until*, with why each will not be held as far as the calendar knows.

        Of one game day there are at most *each_most*.
        """
        of = self._lines.soonest(until, limit)
        return self.definitions.coming(now, until, limit=limit, of=of, each_most=each_most)

    @property
    def next_due(self) -> datetime | None:
        """Return when the next firing of all is due."""
        return self._lines.next_due

    def stop_occurrence(self, occurrence: str, *, who: str) -> bool:
        """Stop the occurrence with this id, if it is held here; what it runs is restored by whoever runs it."""
        task = self._holding.get(occurrence)
        if task is None:
            return False
        if occurrence not in self._stopped and not self._closing:
            self._stopped[occurrence] = who
            task.cancel(f"stopped by {who}")
        return True

    def check_approval(self, schedule: str, scheduled_for: datetime, who: str) -> datetime:
        """Return the instant of that firing; `UsageError` when *who* cannot agree now to the occurrence of *schedule* then."""
        return check_approval(self._known(schedule), scheduled_for, who=who, now=self._now())

    def _known(self, schedule: str) -> GameDay:
        game_day = self.definitions.all.get(schedule)
        if game_day is None:
            hint = did_you_mean(schedule, sorted(self.definitions.all)) if self.definitions.all else None
            raise UsageError(f"there is no game day {schedule[:63]!r}", next_step=hint)
        return game_day

    async def approve(self, schedule: str, scheduled_for: datetime, who: str) -> None:
        """Write down that *who* agrees to the occurrence of *schedule* at *scheduled_for*; `UsageError` when that cannot be."""
        at, now = self.check_approval(schedule, scheduled_for, who), self._now()
        await self._in_thread(lambda: self._store.approve(schedule, at, who=who, now=now))

    async def start_now(self, schedule: str, actor: Actor, *, who: str) -> str:
        """Begin the game day *schedule* by hand, and return the id of the occurrence; `UsageError` when *who* may not."""
        new = started(self._known(schedule), self._now(), who=who)
        await self._in_thread(lambda: self._store.start(new, actor=actor, now=new.scheduled_for))
        await self._ring()
        return new.id

    async def tick(self) -> None:
        """Look at the calendar once: read changed files, and claim, hold or skip what has fired. Never raises."""
        await self._tick(self._now())

    async def _tick(self, now: datetime) -> None:
        async with self._ticking:
            if self._closing:
                return
            try:
                await self._in_thread(self.definitions.refresh, now)
                if self._synced != self.definitions.version:
                    await self._sync(now)
                await self._look_after(now)
                await self._settle(now)
            except Exception as error:  # the clock must not die of whatever it meets
                self.trouble = f"{type(error).__name__}: {error}"
                return
            self.trouble = None
            self.last_tick, self._ticked_s = now, self._clock.monotonic_s()

    # --- what has fired

    async def _sync(self, now: datetime) -> None:
        """Take over the definitions, each from where the store says that it is settled."""
        self._synced = 0
        version, game_days = self.definitions.version, dict(self.definitions.all)
        rules = {name: _rule(each) for name, each in game_days.items()}
        # A file that has changed may have done so directly after the last look: what fires since is not lost.
        since = now if self.last_tick is None else min(self.last_tick, now)
        known = await self._in_thread(self._store.sync, rules, since)
        skipped: list[New] = []
        for name, game_day in game_days.items():
            before = known[name].former
            if before is not None:
                skipped += former(game_day, before[0], before[1], since)
        await self._in_thread(lambda: self._store.settle(skipped, who=self.name, now=now))

        def lined_up() -> Lines:
            found = {}
            for name, game_day in game_days.items():
                begun = self.definitions.begun(game_day, known[name].settled_until)
                found[name] = Line(game_day, begun.first, begun.rest)
            return Lines(found)

        self._lines = await self._in_thread(lined_up)
        self._synced = version

    async def _look_after(self, now: datetime) -> None:
        """Keep what is ours, and settle what a dead replica had."""
        held = list(self._holding)
        await self._in_thread(lambda: self._store.renew(held, who=self.name, now=now))
        for taken in await self._in_thread(lambda: self._store.reap(who=self.name, now=now, is_gone=is_gone)):
            game_day = self.definitions.all.get(taken.schedule)
            new = New(taken.id, taken.schedule, taken.scheduled_for, taken.due, started_by=taken.started_by)
            if game_day is None:
                why: Reason | None = Reason("undefined", "the game day was taken out of the definitions")
            else:
                why = self._against(game_day, new, now)
            if why is None and game_day is not None:
                self._hold(game_day, new)
            elif why is not None:
                await self._end(taken.id, State.SKIPPED, why)

    async def _settle(self, now: datetime) -> None:
        lines = self._lines
        new = await self._in_thread(lambda: lines.fired(now, self._against))
        mine = set(await self._in_thread(lambda: self._store.settle(new, who=self.name, now=now)))
        lines.settled()
        for each in new:
            if each.id in mine:
                self._hold(lines[each.schedule].game_day, each)

    def _against(self, game_day: GameDay, new: New, now: datetime) -> Reason | None:
        """Return what the calendar has against holding it now."""
        late = missed(game_day, new.due, now)
        if late is not None and game_day.spec.schedule.misfire == "skip":
            return late
        return self.definitions.ruled_out(game_day, max(new.due, now))

    # --- holding

    def _hold(self, game_day: GameDay, new: New) -> None:
        if self._closing or new.id in self._holding:
            return
        task = asyncio.create_task(self._held(game_day, new), name=f"luff-occurrence-{new.id}")
        self._holding[new.id] = task
        task.add_done_callback(lambda _: self._let_go(new.id))

    def _let_go(self, occurrence: str) -> None:
        self._holding.pop(occurrence, None)
        self._stopped.pop(occurrence, None)

    async def _held(self, game_day: GameDay, new: New) -> None:
        began = False
        try:
            why = await self._why_not(game_day, new)
            if why is None:
                alone = game_day.spec.schedule.overlap == "forbid"
                answer = await self._persistently(
                    lambda: self._store.begin(new.id, who=self.name, now=self._now(), alone=alone)
                )
                if answer == "taken":
                    return
                began = answer is None
                if not began:
                    why = Reason("overlap", "the one before it was not over, and overlap is forbid")
            if why is not None:
                await self._end(new.id, State.SKIPPED, why)
                return
            occurrence = Occurrence(
                new.id,
                new.schedule,
                new.scheduled_for,
                new.due,
                State.RUNNING,
                who=self.name,
                began_at=self._now(),
                started_by=new.started_by,
            )
            held = await self._run(game_day, occurrence)
            state = State.PASSED if held.good else State.FAILED
            await self._end(new.id, state, Reason("", held.said), held.runs)
        except asyncio.CancelledError:
            who = self._stopped.get(new.id)
            if who is not None:
                state = State.ABORTED if began else State.SKIPPED
                await self._end(new.id, state, Reason("operator", f"stopped by {who}"))
            elif began:
                await self._end(new.id, State.LOST, Reason("stopped", "the server was stopped while it ran"))
            else:
                with contextlib.suppress(StoreError):  # another replica, or this one when it is back, takes it over
                    await self._in_thread(lambda: self._store.release(new.id, who=self.name, now=self._now()))
            raise
        except Exception as error:  # whatever a run raises, the calendar goes on and the row says it
            await self._end(new.id, State.ERROR, Reason("error", f"{type(error).__name__}: {error}"))

    async def _why_not(self, game_day: GameDay, new: New) -> Reason | None:
        """Return the first thing that speaks against holding it now: a pause, the lever, its people, its conditions."""
        paused = (await self._persistently(self._store.diary.pauses)).get(new.schedule)
        if paused is not None:
            return Reason("paused", paused.said)
        pulled = await self._asked("the lever", self._surroundings.lever(game_day))
        if pulled is not None:
            return pulled if isinstance(pulled, Reason) else Reason("lever", pulled)
        people = game_day.spec.people
        # Who begins it by hand was let to do so alone.
        if people is not None and people.approvals and new.started_by is None:
            found = await self._persistently(lambda: self._store.approvals(new.schedule, new.scheduled_for))
            in_time = agreed(game_day, new.scheduled_for, found)
            if len(in_time) < people.approvals:
                by = f"{approvals_until(game_day, new.scheduled_for):%Y-%m-%d %H:%M %Z}"
                return Reason("not_approved", f"{len(in_time)} of {people.approvals} approvals were there by {by}")
        for condition in game_day.spec.skip_when:
            # The other conditions were looked at before it was claimed.
            why = None if condition.prometheus is None else await self._metric(condition.prometheus)
            if why is not None:
                return why
        return None

    async def _metric(self, condition: PrometheusCondition) -> Reason | None:
        if self._surroundings.metric is None:
            return Reason("cannot_tell", "there is no Prometheus to ask: set LUFF_PROMETHEUS_URL")
        value = await self._asked(condition.query, self._surroundings.metric(condition.query))
        if value is None or isinstance(value, Reason):
            return value
        if value <= condition.above:
            return None
        return Reason("metric", f"{condition.query} is {value:g}, above {condition.above:g}")

    async def _asked(self, what: str, question: Awaitable[T]) -> T | Reason:
        try:
            return await asyncio.wait_for(question, ASK_WITHIN_S)
        except TimeoutError:
            return Reason("cannot_tell", f"{what}: no answer within {show_duration(ASK_WITHIN_S)}")
        except Exception as error:  # what cannot be asked speaks against it
            return Reason("cannot_tell", f"{what}: {str(error) or type(error).__name__}")

    async def _end(self, occurrence: str, state: State, why: Reason, runs: Sequence[str] | None = None) -> None:
        reason, said = why.code or None, why.said or None
        with contextlib.suppress(StoreError):  # its claim runs out, and whoever comes next calls it lost
            await self._persistently(
                lambda: self._store.end(
                    occurrence, state, who=self.name, now=self._now(), reason=reason, said=said, runs=runs
                )
            )

    # --- the clock

    async def _ring(self) -> None:
        self._bell.set()

    async def _work(self) -> None:
        while True:
            # A clock that was set back leaves APScheduler waiting for the time that it was set for.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), 2 * LOOK_EVERY_S)
            self._bell.clear()
            await self.tick()
            if self._alarm is not None:
                now = datetime.now(UTC)
                self._alarm.modify_job(
                    JOB, next_run_time=_Ring(lambda: self._lines.next_due).get_next_fire_time(None, now)
                )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_s(), UTC)

    async def _in_thread(self, act: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    async def _persistently(self, act: Callable[[], T]) -> T:
        """Return what *act* does with the store; one that is locked or away for a moment is waited out."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(StoreError):
                return await self._in_thread(act)
            await self._clock.sleep(PAUSE_S)
        return await self._in_thread(act)


def read_definitions(definitions: GameDays, store: Occurrences, now: datetime) -> None:
    """Read *definitions*, and look for firings from where *store* says that each is settled; raises `InvalidFile`."""
    settled = store.settled()
    definitions.load(now, since=lambda each: _since(each, settled))


def _rule(game_day: GameDay) -> Rule:
    return Rule(game_day.spec.schedule.cron, game_day.spec.schedule.time_zone)


def _since(game_day: GameDay, settled: Mapping[str, tuple[Rule, datetime]]) -> datetime | None:
    """Return how far *game_day* is settled as it is now, ``None`` when that is not known."""
    rule, until = settled.get(game_day.metadata.name, (None, None))
    return until if rule == _rule(game_day) else None
