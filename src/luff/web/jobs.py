"""
Runs that this server was asked for: waiting, running, ended.

What must stay true:

1. Never two at once on one object, and no more waiting than `QUEUE_MOST`.
2. What was asked to stop stops: also one that still waits, or is just starting.
3. Who watches sees every event once and in order, as long as it is kept.

A request has an id before its run has one, because a run makes its own. Both
lead to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from luff.errors import RunAborted, StoreError, UsageError
from luff.lifecycle import Intent, Journal, Phase
from luff.mesh import Ref
from luff.model import Arm, Experiment
from luff.model import Phase as Part
from luff.outcome import Outcome
from luff.run import Options, World, run_experiment, target_of
from luff.samples import Samples
from luff.store import RunRequest, Store
from luff.suite import next_up
from luff.traffic.driver import Driver
from luff.verdicts import second_try, worth_another_try
from luff.web.problems import Problem

__all__ = ["Event", "Job", "Jobs", "State"]

QUEUE_MOST = 50
AT_ONCE_MOST = 4
KEPT_MOST = 100
"""How many ended jobs are remembered; the store has the others."""
EVENTS_MOST = 5000
SAMPLE_EVERY_S = 0.5
HEARTBEAT_S = 10.0

_log = logging.getLogger("luff.web")
Stop = Callable[[RunAborted], None]


class State(StrEnum):
    """This is how far a request is."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """This is one thing that watchers are told. *id* counts from 1 for each job."""

    id: int
    name: str
    data: str


@dataclass(slots=True)
class Job:
    """This is one request. *run* and *ref* are ``None`` until they are known; *why_not* says why it never ran."""

    id: str
    experiment: Experiment
    actor: str
    requested_at: datetime
    state: State = State.WAITING
    run: str | None = None
    ref: Ref | None = None
    outcome: Outcome | None = None
    why_not: str | None = None
    stopped: RunAborted | None = None
    stop: Stop | None = None
    step: str | None = None
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=EVENTS_MOST))
    told: asyncio.Event = field(default_factory=asyncio.Event)
    number: int = 0

    def tell(self, name: str, **data: Any) -> None:
        """Tell who watches."""
        self.number += 1
        said = {"at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), **data}
        self.events.append(Event(self.number, name, json.dumps(said, ensure_ascii=True, allow_nan=False)))
        # Each waiter waits on the event as it was; the next one gets a new one.
        self.told.set()
        self.told = asyncio.Event()

    async def watch(self, after: int) -> AsyncIterator[Event | None]:
        """Yield every event after number *after* as it comes, ``None`` when there was none for a while, until the job has ended."""
        while True:
            told, ended = self.told, self.state is State.ENDED
            for event in [each for each in self.events if each.id > after]:
                after = event.id
                yield event
            if ended:
                return
            try:
                await asyncio.wait_for(told.wait(), HEARTBEAT_S)
            except TimeoutError:
                yield None


class _Progress:
    """This is how a run tells its job how it goes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.driver: Driver | None = None
        self.part: Part | None = None

    def step(self, name: str, note: str = "") -> None:
        self._job.step = name
        self._job.tell("step", step=name, note=note)

    def traffic(self, driver: Driver, *, phase: Part, most_s: float) -> None:
        self.driver, self.part = driver, phase
        self._job.tell("traffic", phase=str(phase), most_s=most_s)

    async def sample(self) -> None:
        """Tell how both arms do, until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            if self.driver is None:
                continue
            arms = {str(arm): _seen(self.driver, arm) for arm in Arm}
            self._job.tell("sample", t=round(self.driver.now_ns() / 1e9, 2), phase=str(self.part), arms=arms)


def _seen(driver: Driver, arm: Arm) -> dict[str, Any]:
    seen = driver.snapshot(arm)
    return {
        "rate_hz": round(seen.rate_hz, 1),
        "p50_ms": None if seen.p50_ms is None else round(seen.p50_ms, 1),
        "p99_ms": None if seen.p99_ms is None else round(seen.p99_ms, 1),
        "sent": seen.sent,
        "errors": seen.errors,
        "in_flight": seen.in_flight,
    }


@dataclass(frozen=True, slots=True)
class _Noting:
    """This is a journal that also tells which run a job became."""

    journal: Journal
    note: Callable[[str], None]

    async def arm(self, intent: Intent) -> None:
        self.note(intent.run)
        await self.journal.arm(intent)

    async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
        await self.journal.mark(run, phase, note=note)


class Jobs:
    """
    This carries requests out. *ended* is called with every outcome.

    *options* are those of every run but for who asks for it.
    """

    def __init__(self, world: World, store: Store, *, options: Options, ended: Callable[[Outcome], None]) -> None:
        self._world = world
        self._store = store
        self._options = options
        self._ended = ended
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._queue: list[Job] = []
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._moved = asyncio.Event()
        self.closing: RunAborted | None = None

    def __iter__(self) -> Any:
        return iter(tuple(self._jobs.values()))

    def get(self, id_: str) -> Job | None:
        """Return the job with this id, its own or its run's."""
        found = self._jobs.get(id_)
        return found or next((job for job in self._jobs.values() if job.run == id_), None)

    @property
    def running(self) -> list[Job]:
        """Return what is carried out now."""
        return list(self._tasks.values())

    @property
    def full(self) -> bool:
        """Return whether no more may wait now."""
        return len(self._queue) >= QUEUE_MOST

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until *holds*, which is looked at whenever a job has left the queue or has ended."""
        while not holds():
            await self._moved.wait()

    def check_open(self) -> None:
        """Raise `Problem` when no more may wait now."""
        if self.closing is not None:
            raise Problem("closing", "the server is leaving; it starts no more runs")
        if self.full:
            raise Problem("queue_full", f"{QUEUE_MOST} runs wait already", headers={"retry-after": "30"})

    async def submit(self, experiment: Experiment, request: RunRequest) -> Job:
        """Let *experiment* wait for its turn."""
        job = Job(request.id, experiment, request.actor, request.requested_at)
        self._jobs[job.id] = job
        self._queue.append(job)
        job.tell("queued", experiment=experiment.name, actor=job.actor)
        options = self._options
        job.ref = await target_of(experiment, self._world.mesh, namespace=options.namespace, policy=options.policy)
        self._start_more()
        return job

    def stop(self, job: Job, who: str) -> None:
        """Stop *job* wherever it is; its routes are restored by the run itself."""
        self.abort(job, RunAborted("operator", f"stopped by {who}"))

    def stop_all(self, why: RunAborted) -> None:
        """Stop everything that waits or runs."""
        for job in self:
            self.abort(job, why)

    async def close(self, why: RunAborted, *, within_s: float) -> bool:
        """Start no more, stop all, and return whether every run has ended in time."""
        self.closing = self.closing or why
        self.stop_all(why)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)
        return not self._tasks

    def abort(self, job: Job, why: RunAborted) -> None:
        """Stop *job* for *why*; one that has ended, or is being stopped, stays as it is."""
        if job.state is State.ENDED or job.stopped is not None:
            return
        job.stopped = why
        job.tell("stopping", why=why.message)
        if job in self._queue:
            self._queue.remove(job)
            self._finish(job, why_not=f"it was not started: {why.message}")
            self._move()
        elif job.stop is not None:
            job.stop(why)

    def _start_more(self) -> None:
        while len(self._tasks) < AT_ONCE_MOST and self.closing is None:
            index = next_up([job.ref for job in self._queue], {job.ref for job in self._tasks.values()})
            if index is None:
                return
            job = self._queue.pop(index)
            job.state = State.RUNNING
            task = asyncio.create_task(self._carry_out(job))
            self._tasks[task] = job
            task.add_done_callback(self._done)
            self._move()

    def _move(self) -> None:
        # Each waiter waits on the event as it was; the next one gets a new one.
        self._moved.set()
        self._moved = asyncio.Event()

    def _done(self, task: asyncio.Task[None]) -> None:
        job = self._tasks.pop(task)
        if job.state is not State.ENDED:
            error = None if task.cancelled() else task.exception()
            _log.error("run of %s ended without an outcome", job.experiment.name, exc_info=error)
            self._finish(job, why_not="luff made a mistake; see the server's log, and look with `luff status`")
        self._move()
        self._start_more()

    async def _carry_out(self, job: Job) -> None:
        progress = _Progress(job)

        def on_start(stop: Stop) -> None:
            job.stop = stop
            if job.stopped is not None:
                stop(job.stopped)

        def became(run: str) -> None:
            job.run = run
            job.tell("run", run=run)

        world = replace(self._world, journal=_Noting(self._world.journal, became))
        options = replace(self._options, actor=job.actor)
        first: Outcome | None = None
        while True:
            sampling = asyncio.create_task(progress.sample())
            try:
                outcome, samples = await run_experiment(
                    job.experiment, world, options=options, progress=progress, on_start=on_start
                )
            except UsageError as error:
                # Nothing was touched: what this server was started with has to change, as the value of a secret.
                self._finish(job, why_not="; ".join(filter(None, (error.message, error.next_step))))
                return
            finally:
                sampling.cancel()
                await asyncio.gather(sampling, return_exceptions=True)
            if job.run is None:
                became(outcome.run)
            outcome = outcome if first is None else second_try(first, outcome)
            await self._record(job, outcome, samples)
            if job.stopped is not None or self.closing is not None or not worth_another_try(outcome):
                break
            first, job.run = outcome, None
            job.tell("warning", message=f"{outcome.reason}, which may pass: trying once more")
        self._ended(outcome)
        self._finish(job, outcome=outcome)

    async def _record(self, job: Job, outcome: Outcome, samples: Samples) -> None:
        try:
            await asyncio.to_thread(self._store.record, outcome, samples)
            await asyncio.to_thread(self._store.access.became, job.id, outcome.run)
        except StoreError as error:
            # The outcome is with the job; history lacks it.
            _log.error("run %s is not in history: %s", outcome.run, error)
            job.tell("warning", message=f"the outcome is not in history: {error.message}")

    def _finish(self, job: Job, *, outcome: Outcome | None = None, why_not: str | None = None) -> None:
        job.state, job.outcome, job.why_not, job.stop = State.ENDED, outcome, why_not, None
        if outcome is not None:
            said = outcome.model_dump(mode="json", include={"run", "verdict", "reason", "explanation", "phase"})
            job.tell("outcome", **said)
        else:
            # Where its routes are nobody has proven.
            job.tell("outcome", run=job.run, verdict=None, reason=None, explanation=why_not, phase=None)
        ended = [id_ for id_, each in self._jobs.items() if each.state is State.ENDED]
        for id_ in ended[: max(0, len(ended) - KEPT_MOST)]:
            del self._jobs[id_]
