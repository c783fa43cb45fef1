"""
Game days on a calendar: the part that is there when they are due.

For whoever runs a server::

    game_days = GameDays([folder], lambda: read_documents([folder]), hours=hours)
    scheduler = Scheduler(Occurrences.of(store), game_days, run, surroundings=Surroundings(lever=…, canary=…, metric=…))
    await scheduler.start()      # raises InvalidFile; what fired while nobody was there is settled before it returns
    scheduler.last_tick          # when the calendar was last looked at; tick_age_s() for /readyz, which fails above 60 s
    scheduler.trouble            # why the last look failed, or None; game_days.problem is a file that cannot be read
    scheduler.upcoming(now, until)
    await scheduler.approve(name, scheduled_for, who)
    await scheduler.stop()       # begins nothing more, cancels and awaits what runs

*run* is called for each occurrence that is held, with the game day and its `Occurrence`; it finds the experiments with
``game_days.experiments(game_day)`` and returns `Held`. It is cancelled by `stop`. What became of each firing is in
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
import heapq
import itertools
import math
import os
import secrets
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from luff.clock import Clock, SystemClock
from luff.errors import InvalidFile, LuffError, Problem, StoreError, UsageError
from luff.gameday import (
    Blackout,
    Firing,
    Planned,
    Reason,
    check_game_days,
    due_at,
    firings,
    occurrence_id,
    parse_ics,
    planned,
    ruled_out,
    suites_under,
)
from luff.model import Experiment, GameDay, PrometheusCondition, Schedule, Suite
from luff.parse import Documents
from luff.policy import Hours
from luff.store.occurrences import New, Occurrence, Occurrences, Rule, State
from luff.suite import expand
from luff.units import show_duration
from luff.yaml_nodes import Node, Place, Problems, place_at, plain, read_nodes

__all__ = ["GameDays", "Held", "Scheduler", "Surroundings", "prometheus"]

T = TypeVar("T")

LOOK_EVERY_S = 15.0
"""How often the calendar is looked at when nothing is due: changed files and dead replicas are noticed then."""
ENDINGS = (".yaml", ".yml", ".ics")
ICS_MOST_BYTES = 5 << 20
MISSED_MOST = 1000
"""How many missed firings of one schedule get rows of their own; the oldest of them says how many there were before."""
ASK_WITHIN_S = 10.0
TRIES = 10
PAUSE_S = 2.0
JOB = "calendar"
_ANSWERED = 200


# --- what there is -----------------------------------------------------------------------------------------------


class GameDays:
    """
    This is the game days in some files, read again when the files change.

    *read* returns all that the files hold, and raises `InvalidFile`. Everything here may block on the disk.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], Documents], *, hours: Hours | None = None) -> None:
        self._paths = tuple(paths)
        self._read = read
        self.hours = hours
        self.problem: LuffError | None = None
        self._seen: object = None
        self._calendars: dict[Path, tuple[Blackout, ...]] = {}
        self._documents = Documents()
        self._game_days: dict[str, GameDay] = {}

    def load(self, now: datetime) -> None:
        """Read the files; raises `InvalidFile` with all that is wrong, and keeps what was there before."""
        seen = self._stamp(self._calendars)
        documents = self._read()
        place = _Places()
        calendars = _calendars(documents.game_days, place)
        check_game_days(
            documents.game_days,
            documents.suites,
            place=lambda game_day, path: place("GameDay", game_day, *path),
            now=now,
            blackouts=lambda game_day: _of(calendars, game_day),
            hours=self.hours,
        )
        if documents.suites:
            expand(
                documents.suites,
                documents.experiments,
                place=lambda suite, entry: place("Suite", suite, "spec", "experiments", entry),
            )
        if calendars.keys() != self._calendars.keys():
            seen = self._stamp(calendars)
        self._seen, self._calendars, self._documents, self.problem = seen, calendars, documents, None
        self._game_days = {each.metadata.name: each for each in documents.game_days}

    def refresh(self, now: datetime) -> bool:
        """Read the files again if they have changed, and return whether there is anything new; a mistake is kept in *problem*."""
        stamp = self._stamp(self._calendars)
        if stamp == self._seen:
            return False
        try:
            self.load(now)
        except LuffError as error:
            self._seen, self.problem = stamp, error
            return False
        return True

    @property
    def all(self) -> Mapping[str, GameDay]:
        """Return the game days by name."""
        return self._game_days

    def experiments(self, game_day: GameDay) -> tuple[Experiment, ...]:
        """Return the experiments of *game_day*'s suites, in order."""
        return expand(suites_under(game_day.spec.suites, self._documents.suites), self._documents.experiments)

    def blackouts(self, game_day: GameDay) -> Mapping[str, Sequence[Blackout]]:
        """Return the events of the calendar files that *game_day* refers to."""
        return _of(self._calendars, game_day)

    def planned(self, after: datetime, until: datetime, *, limit: int | None = None) -> list[Planned]:
        """Return the first *limit* firings between two instants, in order, with why each will not be held as far as that is known."""
        spans = [
            planned(each, after, until, blackouts=self.blackouts(each), hours=self.hours)
            for each in self._game_days.values()
        ]
        in_order = heapq.merge(*spans, key=lambda each: (each.at, each.game_day.metadata.name))
        return list(in_order if limit is None else itertools.islice(in_order, limit))

    def _stamp(self, calendars: Iterable[Path]) -> object:
        found: dict[str, tuple[int, int, int]] = {}
        for path in [*_watched(self._paths), *calendars]:
            with contextlib.suppress(OSError):
                seen = path.stat()
                found[str(path)] = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        return found


def _watched(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from (inside for inside in path.rglob("*") if inside.suffix in ENDINGS)
        else:
            yield path


def _ics_path(game_day: GameDay, ics: str) -> Path:
    """Return where a calendar file lies: beside the game day that names it."""
    return Path(os.path.normpath(Path(game_day.file).parent / ics))


def _of(calendars: Mapping[Path, Sequence[Blackout]], game_day: GameDay) -> dict[str, Sequence[Blackout]]:
    names = [condition.ics for condition in game_day.spec.skip_when if condition.ics]
    return {ics: calendars.get(_ics_path(game_day, ics), ()) for ics in names}


def _calendars(game_days: Iterable[GameDay], place: _Places) -> dict[Path, tuple[Blackout, ...]]:
    found: dict[Path, tuple[Blackout, ...]] = {}
    problems: list[Problem] = []
    for game_day in game_days:
        for index, condition in enumerate(game_day.spec.skip_when):
            if not condition.ics or (path := _ics_path(game_day, condition.ics)) in found:
                continue
            found[path] = ()
            try:
                if path.stat().st_size > ICS_MOST_BYTES:
                    raise OSError(f"it is larger than {ICS_MOST_BYTES >> 20} MiB")  # noqa: TRY301  # said as the others are
                found[path] = parse_ics(str(path), path.read_text(encoding="utf-8-sig"))
            except InvalidFile as error:
                problems += error.problems
            except (OSError, ValueError) as error:
                why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
                at = place("GameDay", game_day, "spec", "skipWhen", index, "ics")
                message = f"the calendar {condition.ics[:80]!r} cannot be read: {why}"
                problems.append(Problem(at.file, at.line, at.column, message, "it lies beside the game day's file"))
    if problems:
        raise InvalidFile(problems)
    return found


class _Places:
    """This finds where a part of a document is written, by reading its file again: only problems need it."""

    def __init__(self) -> None:
        self._roots: dict[str, list[Node]] = {}

    def __call__(self, kind: str, document: GameDay | Suite, *path: str | int) -> Place:
        file = document.file
        if file not in self._roots:
            try:
                self._roots[file] = read_nodes(file, Path(file).read_text(encoding="utf-8-sig"), Problems())
            except (OSError, UnicodeDecodeError):
                self._roots[file] = []
        found = Place(file, 1, 1)
        for root in self._roots[file]:
            read = plain(root)
            if not isinstance(read, dict) or read.get("kind") != kind:
                continue
            if (read.get("metadata") or {}).get("name") == document.metadata.name:
                found = place_at(root, *path)  # the last one: of two with one name it is the second that is wrong
        return found


# --- what there is to ask ----------------------------------------------------------------------------------------


async def _off(_: GameDay) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    This is what is asked before a game day begins.

    *lever* returns which lever is on, as a sentence, or ``None``; *canary*
    which canary is progressing; *metric* the value of a query, ``None`` when
    it selects nothing. What is left out cannot be asked. Each may raise.
    """

    lever: Callable[[GameDay], Awaitable[str | None]] = _off
    canary: Callable[[GameDay], Awaitable[str | None]] | None = None
    metric: Callable[[str], Awaitable[float | None]] | None = None


def prometheus(url: str, client: httpx.AsyncClient) -> Callable[[str], Awaitable[float | None]]:
    """Return a *metric* that asks the Prometheus at *url* and answers with the highest value."""

    async def highest(query: str) -> float | None:
        answer = await client.get(url.rstrip("/") + "/api/v1/query", params={"query": query})
        if answer.status_code != _ANSWERED:
            raise LuffError(f"Prometheus answers {answer.status_code}")
        try:
            data = answer.json()["data"]
            rows = [data["result"]] if data["resultType"] == "scalar" else [row["value"] for row in data["result"]]
            values = [float(row[1]) for row in rows]
        except (ValueError, LookupError, TypeError) as error:
            raise LuffError("Prometheus answers something else than a result") from error
        return max((value for value in values if not math.isnan(value)), default=None)

    return highest


@dataclass(frozen=True, slots=True)
class Held:
    """This is how an occurrence went: *good* when everything came out as expected, one sentence, and its runs."""

    good: bool
    said: str = ""
    runs: tuple[str, ...] = ()


# --- being there -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Line:
    """This is where the calendar stands with one schedule: what has fired and has no row, and what fires next."""

    game_day: GameDay
    coming: Iterator[Firing]
    next: Firing | None = None
    fired: deque[Firing] = field(default_factory=lambda: deque(maxlen=MISSED_MOST))
    dropped: int = 0

    def move_on(self) -> datetime | None:
        """Go to the next firing, and return when it is due."""
        self.next = next(self.coming, None)
        return None if self.next is None else due_at(self.game_day, self.next.at)

    def catch_up(self, now: datetime) -> datetime | None:
        """Take what is due by *now* as fired, and return when the next one is due."""
        due = None if self.next is None else due_at(self.game_day, self.next.at)
        while due is not None and due <= now:
            assert self.next is not None
            self.dropped += len(self.fired) == self.fired.maxlen
            self.fired.append(self.next)
            due = self.move_on()
        return due


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
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.last_tick: datetime | None = None
        self.trouble: str | None = None
        self._ticked_s: float | None = None
        self._lines: dict[str, _Line] = {}
        self._heap: list[tuple[datetime, str]] = []
        self._next: datetime | None = None
        self._open: set[str] = set()
        """The lines that have fired and are not settled: the store was away."""
        self._holding: dict[str, asyncio.Task[None]] = {}
        self._bell = asyncio.Event()
        self._ticking = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="luff-schedule")
        self._alarm: AsyncIOScheduler | None = None
        self._worker: asyncio.Task[None] | None = None
        self._synced = False
        self._closing = False

    # --- for whoever runs a server

    async def start(self) -> None:
        """Read the definitions, settle what has fired meanwhile, and be there from now on."""
        await self._in_thread(self.definitions.load, self._now())
        await self.tick()
        if not self._synced:
            raise StoreError(self.trouble or "the calendar cannot be read", next_step="look with `luff db status`")
        self._alarm = AsyncIOScheduler(timezone=UTC, executors={"default": AsyncIOExecutor()})
        self._alarm.add_job(
            self._ring,
            _Ring(self._next_due),
            id=JOB,
            coalesce=True,
            misfire_grace_time=None,
            max_instances=1,
        )
        self._alarm.start()
        self._worker = asyncio.create_task(self._work(), name="luff-schedule")

    async def stop(self) -> None:
        """Begin nothing more; cancel and await what runs. What had not begun is left to others."""
        self._closing = True
        if self._alarm is not None:
            self._alarm.shutdown(wait=False)
            await asyncio.sleep(0)  # it is shut down by the loop's next turn
            self._alarm = None
        tasks = [task for task in (self._worker, *self._holding.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._worker = None
        self._thread.shutdown(wait=True)

    def tick_age_s(self) -> float:
        """Return how long ago the calendar was last looked at, by a clock that does not jump; infinite before the first time."""
        return float("inf") if self._ticked_s is None else self._clock.monotonic_s() - self._ticked_s

    def upcoming(self, now: datetime, until: datetime) -> list[Planned]:
        """Return every firing to come until *until*, with why it will not be held as far as the calendar knows."""
        return self.definitions.planned(now, until)

    @property
    def holding(self) -> tuple[str, ...]:
        """Return the ids of the occurrences that are held here now."""
        return tuple(self._holding)

    async def approve(self, schedule: str, scheduled_for: datetime, who: str) -> None:
        """Write down that *who* agrees to the occurrence of *schedule* at *scheduled_for*; `UsageError` when that cannot be."""
        game_day, now = self.definitions.all.get(schedule), self._now()
        if game_day is None:
            raise UsageError(f"there is no game day {schedule[:63]!r}")
        people = game_day.spec.people
        if people is None or not people.approvals:
            raise UsageError(f"{schedule} asks for no approval")
        if who not in people.approvers:
            raise UsageError(
                f"{who[:63]!r} is no approver of {schedule}", next_step=f"ask {', '.join(people.approvers)}"
            )
        if next(firings(game_day.spec.schedule, scheduled_for - timedelta(seconds=1), scheduled_for), None) is None:
            raise UsageError(f"{schedule} does not fire at {scheduled_for:%Y-%m-%d %H:%M %Z}")
        deadline = scheduled_for - timedelta(seconds=people.approve_by_s)
        if now > deadline:
            raise UsageError(f"approvals for it were due by {deadline:%Y-%m-%d %H:%M %Z}")
        await self._in_thread(lambda: self._store.approve(schedule, scheduled_for, who=who, now=now))

    async def tick(self) -> None:
        """Look at the calendar once: read changed files, and claim, hold or skip what has fired. Never raises."""
        async with self._ticking:
            now = self._now()
            try:
                changed = await self._in_thread(self.definitions.refresh, now)
                if changed or not self._synced:
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
        self._synced = False
        game_days = dict(self.definitions.all)
        rules = {name: Rule(each.spec.schedule.cron, each.spec.schedule.time_zone) for name, each in game_days.items()}
        # A file that has changed may have done so directly after the last look: what fires since is not lost.
        since = now if self.last_tick is None else min(self.last_tick, now)
        known = await self._in_thread(self._store.sync, rules, since)
        skipped: list[New] = []
        lines: dict[str, _Line] = {}
        for name, game_day in game_days.items():
            former = known[name].former
            if former is not None:
                skipped += _former(game_day, former[0], former[1], since)
            lines[name] = _Line(game_day, firings(game_day.spec.schedule, known[name].settled_until))
        await self._in_thread(lambda: self._store.settle(skipped, who=self.name, now=now))
        self._lines, self._open = lines, set()
        await self._in_thread(self._line_up)
        self._synced = True

    def _line_up(self) -> None:
        self._heap = [(due, name) for name, line in self._lines.items() if (due := line.move_on()) is not None]
        heapq.heapify(self._heap)
        self._next = self._heap[0][0] if self._heap else None

    async def _look_after(self, now: datetime) -> None:
        """Keep what is ours, and settle what a dead replica had."""
        held = list(self._holding)
        await self._in_thread(lambda: self._store.renew(held, who=self.name, now=now))
        for taken in await self._in_thread(lambda: self._store.reap(who=self.name, now=now)):
            game_day = self.definitions.all.get(taken.schedule)
            new = New(taken.id, taken.schedule, taken.scheduled_for, taken.due)
            if game_day is None:
                why: Reason | None = Reason("undefined", "the game day was taken out of the definitions")
            else:
                why = self._against(game_day, new, now)
            if why is None and game_day is not None:
                self._hold(game_day, new)
            elif why is not None:
                await self._end(taken.id, State.SKIPPED, why)

    async def _settle(self, now: datetime) -> None:
        new = await self._in_thread(self._fired, now)
        mine = set(await self._in_thread(lambda: self._store.settle(new, who=self.name, now=now)))
        for name in self._open:
            self._lines[name].fired.clear()
            self._lines[name].dropped = 0
        self._open.clear()
        for each in new:
            if each.id in mine:
                self._hold(self._lines[each.schedule].game_day, each)

    def _fired(self, now: datetime) -> list[New]:
        """Return what becomes of everything that has fired by *now*."""
        while self._heap and self._heap[0][0] <= now:
            _, name = heapq.heappop(self._heap)
            self._open.add(name)
            due = self._lines[name].catch_up(now)
            if due is not None:
                heapq.heappush(self._heap, (due, name))
        self._next = self._heap[0][0] if self._heap else None
        return [each for name in sorted(self._open) for each in self._decided(self._lines[name], now)]

    def _decided(self, line: _Line, now: datetime) -> list[New]:
        """Return what becomes of the firings of one schedule: the newest may be held, the others have been missed."""
        game_day, name = line.game_day, line.game_day.metadata.name
        *missed, newest = line.fired
        found = []
        for number, firing in enumerate(missed):
            why = _missed(game_day, due_at(game_day, firing.at), now) or Reason(
                "superseded", f"the one at {newest.at:%Y-%m-%d %H:%M %Z} was due by then as well"
            )
            before = f"; {line.dropped} before it were missed as well" if line.dropped and not number else ""
            found.append(_new(name, game_day, firing, Reason(why.code, why.said + before)))
        made = _new(name, game_day, newest, None)
        return [*found, _new(name, game_day, newest, self._against(game_day, made, now))]

    def _against(self, game_day: GameDay, new: New, now: datetime) -> Reason | None:
        """Return what the calendar has against holding it now."""
        missed = _missed(game_day, new.due, now)
        if missed is not None and game_day.spec.schedule.misfire == "skip":
            return missed
        return ruled_out(game_day, max(new.due, now), self.definitions.blackouts(game_day), self.definitions.hours)

    # --- holding

    def _hold(self, game_day: GameDay, new: New) -> None:
        if self._closing or new.id in self._holding:
            return
        task = asyncio.create_task(self._held(game_day, new), name=f"luff-occurrence-{new.id}")
        self._holding[new.id] = task
        task.add_done_callback(lambda _: self._holding.pop(new.id, None))

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
                new.id, new.schedule, new.scheduled_for, new.due, State.RUNNING, who=self.name, began_at=self._now()
            )
            held = await self._run(game_day, occurrence)
            state = State.PASSED if held.good else State.FAILED
            await self._end(new.id, state, Reason("", held.said), held.runs)
        except asyncio.CancelledError:
            if began:
                await self._end(new.id, State.LOST, Reason("stopped", "the server was stopped while it ran"))
            else:
                with contextlib.suppress(StoreError):  # another replica, or this one when it is back, takes it over
                    await self._in_thread(lambda: self._store.release(new.id, who=self.name, now=self._now()))
            raise
        except Exception as error:  # whatever a run raises, the calendar goes on and the row says it
            await self._end(new.id, State.ERROR, Reason("error", f"{type(error).__name__}: {error}"))

    async def _why_not(self, game_day: GameDay, new: New) -> Reason | None:
        """Return the first thing that speaks against holding it now: the lever, its people, its conditions."""
        pulled = await self._asked("the lever", self._surroundings.lever(game_day))
        if pulled is not None:
            return pulled if isinstance(pulled, Reason) else Reason("lever", pulled)
        people = game_day.spec.people
        if people is not None and people.approvals:
            found = await self._persistently(lambda: self._store.approvals(new.schedule, new.scheduled_for))
            deadline = new.scheduled_for - timedelta(seconds=people.approve_by_s)
            agreed = [who for who, at in found.items() if who in people.approvers and at <= deadline]
            if len(agreed) < people.approvals:
                by = f"{deadline:%Y-%m-%d %H:%M %Z}"
                return Reason("not_approved", f"{len(agreed)} of {people.approvals} approvals were there by {by}")
        for condition in game_day.spec.skip_when:
            if condition.canary_progressing:
                why = await self._canary(game_day)
            elif condition.prometheus is not None:
                why = await self._metric(condition.prometheus)
            else:
                continue  # calendar files were looked at before it was claimed
            if why is not None:
                return why
        return None

    async def _canary(self, game_day: GameDay) -> Reason | None:
        if self._surroundings.canary is None:
            return Reason("cannot_tell", "whether a canary is progressing cannot be asked here")
        found = await self._asked("canaries", self._surroundings.canary(game_day))
        return found if found is None or isinstance(found, Reason) else Reason("canary", found)

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

    async def _end(self, occurrence: str, state: State, why: Reason, runs: Sequence[str] = ()) -> None:
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

    def _next_due(self) -> datetime | None:
        return self._next

    async def _work(self) -> None:
        while True:
            # A clock that was set back leaves APScheduler waiting for the time that it was set for.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), 2 * LOOK_EVERY_S)
            self._bell.clear()
            await self.tick()
            if self._alarm is not None:
                now = datetime.now(UTC)
                self._alarm.modify_job(JOB, next_run_time=_Ring(self._next_due).get_next_fire_time(None, now))

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


def _new(name: str, game_day: GameDay, firing: Firing, why: Reason | None) -> New:
    due = due_at(game_day, firing.at)
    code, said = (None, None) if why is None else (why.code, why.said)
    return New(occurrence_id(name, firing.at), name, firing.at, due, code, said)


def _missed(game_day: GameDay, due: datetime, now: datetime) -> Reason | None:
    late_s, window_s = (now - due).total_seconds(), game_day.spec.schedule.window_s
    if late_s <= window_s:
        return None
    late, window = show_duration(late_s), show_duration(window_s)
    return Reason("missed", f"nobody was there when it was due; {late} later its window of {window} was over")


def _former(game_day: GameDay, rule: Rule, since: datetime, now: datetime) -> list[New]:
    """Return what the former *rule* of a game day has fired and nobody was there for."""
    name = game_day.metadata.name
    schedule = Schedule(cron=rule.cron, time_zone=rule.time_zone)
    try:
        fired = deque(firings(schedule, since, now), maxlen=MISSED_MOST)
    except Exception:  # a rule that an older version took and this one does not
        return []
    why = Reason("changed", "nobody was there when it was due, and its schedule has been changed since")
    return [_new(name, game_day, firing, why) for firing in fired]
