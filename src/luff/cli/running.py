"""
Running experiments, one after another or several at once, with signals that restore.

What must stay true:

1. The first Ctrl-C or SIGTERM stops what runs and puts the routes back; a
   second one does not skip that. The same for the end of ``--max-duration``.
2. Never two runs of this process on one object at once.
3. Every experiment that was to be run has an outcome, unless a signal or ``-x``
   ended the command. Neither a mistake of ours nor a reader who has left takes
   it away, and what goes wrong in one run is no matter to the others.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from luff.cli import tell
from luff.cli.mesh_choice import Chosen, chosen_mesh
from luff.cli.options import MeshOptions, Voice
from luff.cli.paint import console_for
from luff.cli.places import keep_traceback, needs_reaper
from luff.cli.progress import PlainProgress, SilentProgress, progress_for
from luff.cli.restore import who_am_i
from luff.cli.signals import NOT_SKIPPED, heeded
from luff.cli.streams import may_be_lost
from luff.cli.world import context_from_environment, open_world, trace_id_of
from luff.endings import ended_early
from luff.errors import InternalError, LuffError, MeshError, PlanRefused, RunAborted, StoreError, UsageError
from luff.exit_codes import standing
from luff.lifecycle import Phase
from luff.lock import lease_ref
from luff.mesh import Ref
from luff.model import Experiment, PolicySpec, Verdict
from luff.notify import Channels, Notifier
from luff.outcome import Next, Outcome
from luff.parse import Documents
from luff.record import Record, stopped
from luff.run import Options, World, run_experiment, target_of
from luff.samples import Samples
from luff.store import Store
from luff.suite import next_up
from luff.tidings import RunTidings
from luff.traffic import loop
from luff.units import show_duration
from luff.verdicts import Situation, second_try, worth_another_try

__all__ = ["Crew", "Done", "RunSettings", "may_have_lost_the_race", "run_all"]

WAIT_LOOK_EVERY_S = 1.0
"""How often ``--wait-for`` looks whether the object is free."""

TOLD_WITHIN_S = 15.0
"""How long a command waits for who is told, once its runs have ended."""

Stop = Callable[[RunAborted], None]


def _passed(outcome: Outcome) -> bool:
    return standing(outcome, today=datetime.now(UTC).date()).counts_as is Verdict.PASSED


def may_have_lost_the_race(outcome: Outcome) -> bool:
    """Return whether a run may have found its object taken, so that another try may help. One that left something behind never is."""
    return outcome.verdict is Verdict.ERROR and outcome.restore is None and outcome.phase is Phase.CLEAN


@dataclass(frozen=True, slots=True)
class RunSettings:
    """
    This is what the command line said about how to run.

    *max_duration_s* bounds the whole command, *wait_for_s* the wait for an
    object that somebody else holds; ``None`` is no bound and no wait. *passes*
    says of an outcome whether ``-x`` goes on after it; *channels* are told what is news.
    """

    mesh: MeshOptions
    store: str | None
    seed: int | None
    fail_fast: bool
    voice: Voice
    parallel: int = 1
    max_duration_s: float | None = None
    wait_for_s: float | None = None
    passes: Callable[[Outcome], bool] = _passed
    accept_inert_leftover: bool = False
    channels: Channels = field(default_factory=Channels)


@dataclass(slots=True)
class Done:
    """This is what came of it. *signal* is the one that ended it, or ``None``."""

    outcomes: list[Outcome] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)
    signal: int | None = None


def run_all(
    experiments: Sequence[Experiment], documents: Documents, settings: RunSettings, *, each: Callable[[Outcome], None]
) -> Done:
    """
    Run *experiments* and return every outcome, in their order; *each* is called as they come.

    From then on to the end of the process Ctrl-C and SIGTERM end nothing:
    what was learnt is to be written.
    """
    began_s, done = time.monotonic(), Done()
    traceparent = os.environ.get("TRACEPARENT")
    if traceparent and trace_id_of(traceparent) is None and settings.voice.level >= 0:
        tell("luff: TRACEPARENT is not a W3C traceparent, so no outcome names the trace that it is part of", err=True)
    try:
        with chosen_mesh(settings.mesh, documents) as chosen, Store.open(settings.store) as store:
            loop.run(_run_all(experiments, chosen, store, settings, done, each=each, began_s=began_s))
    except Exception as error:  # the outermost place of a command's runs: their outcomes must not be lost over it
        if not done.outcomes:
            raise
        tell(f"luff: after the runs: {error if isinstance(error, LuffError) else _kept(error)}", err=True)
    order = {experiment.name: number for number, experiment in enumerate(experiments)}
    done.outcomes.sort(key=lambda outcome: order[outcome.experiment])
    return done


def _kept(error: Exception) -> str:
    """Keep the trace of a mistake of ours; returns what to say of it."""
    kept = keep_traceback("".join(traceback.format_exception(error)))
    return f"luff made a mistake: {type(error).__name__}: {error}; the traceback is in {kept}"


async def _run_all(
    experiments: Sequence[Experiment],
    chosen: Chosen,
    store: Store,
    settings: RunSettings,
    done: Done,
    *,
    each: Callable[[Outcome], None],
    began_s: float,
) -> None:
    loop = asyncio.get_running_loop()
    async with open_world(chosen, store) as world:
        crew = Crew(replace(world, keep_traceback=keep_traceback), store, settings, done, each, policy=chosen.policy)
        with heeded(crew.on_signal):
            timer = None
            if settings.max_duration_s is not None:
                left_s = max(0.0, settings.max_duration_s - (time.monotonic() - began_s))
                timer = loop.call_later(left_s, crew.on_bound)
            try:
                await crew.work(experiments)
            finally:
                if timer is not None:
                    timer.cancel()
                if crew.tidings is not None:
                    await crew.tidings.close(within_s=TOLD_WITHIN_S)


@dataclass(slots=True)
class Crew:
    """This is who carries the experiments out. *ending* says why no more are started, *stops* ends what runs."""

    world: World
    store: Store
    settings: RunSettings
    done: Done
    each: Callable[[Outcome], None]
    policy: PolicySpec | None = None
    stops: list[Stop] = field(default_factory=list)
    ending: RunAborted | None = None
    enough: bool = False
    usage: UsageError | None = None
    tidings: RunTidings | None = None

    def __post_init__(self) -> None:
        if self.settings.channels.by_name:
            channels, clock = self.settings.channels, self.world.clock
            notifier = Notifier(
                channels.by_name.values(), untold=lambda it: tell(f"luff: {it}", err=True), link=channels.link
            )
            self.tidings = RunTidings(self.store, notifier, clock, log=lambda said: tell(f"luff: {said}", err=True))

    def on_signal(self, number: int) -> None:
        again = self.done.signal is not None
        self.done.signal = self.done.signal or number
        self._end(RunAborted("operator", f"stopped by {signal.Signals(number).name}"))
        if again:
            tell(NOT_SKIPPED, err=True)

    def on_bound(self) -> None:
        most = show_duration(self.settings.max_duration_s or 0.0)
        next_step = "raise --max-duration, or split with --shard"
        self._end(RunAborted("bound", f"--max-duration {most} was over", next_step=next_step))
        tell(f"luff: --max-duration {most} is over: stopping what runs, and restoring", err=True)

    def _end(self, why: RunAborted) -> None:
        self.ending = self.ending or why
        for stop in tuple(self.stops):
            stop(why)

    async def work(self, experiments: Sequence[Experiment]) -> None:
        """Run *experiments*, as many at once as was asked for, each as soon as its object is free."""
        waiting = list(experiments)
        targets: list[Ref | None] = [None] * len(waiting)
        if self.settings.parallel > 1:
            targets = list(await asyncio.gather(*(self._target(experiment) for experiment in waiting)))
        running: dict[asyncio.Task[Outcome], tuple[Experiment, Ref | None]] = {}
        try:
            while (waiting and not self._over) or running:
                while len(running) < self.settings.parallel and not self._over:
                    index = next_up(targets, {target for _, target in running.values()})
                    if index is None:
                        break
                    experiment, target = waiting.pop(index), targets.pop(index)
                    running[asyncio.create_task(self._run_one(experiment))] = experiment, target
                if not running:
                    break
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    outcome = self._came_of(task, running.pop(task)[0])
                    self._ended(outcome)
                    self._see_whether_to_go_on(outcome)
        except Exception as error:
            if not running and not self.done.outcomes:
                raise
            await self._finish_after(error, running, waiting)
        finally:
            # Only who cancels us leaves some running here; cancelling restores them.
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        if self.usage is not None and not self.done.outcomes:
            raise self.usage
        if self.ending is not None and self.done.signal is None:
            for experiment in waiting:
                self._ended(self._not_started(experiment, self.ending))

    def _came_of(self, task: asyncio.Task[Outcome], experiment: Experiment) -> Outcome | None:
        """Return the outcome of a run, made here when it ended without one; ``None`` when its command line is at fault and nothing ran."""
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, UsageError):
            # Nothing was touched, but others may be under way: they come to their own end.
            self.enough = True
            if not self.done.outcomes and self.usage is None:
                self.usage = error
                return None
            return self._without_a_run(experiment, PlanRefused("usage", error.message, next_step=error.next_step))
        if not isinstance(error, Exception):
            raise error
        if isinstance(error, LuffError):
            return self._without_a_run(experiment, error)
        return self._without_a_run(experiment, self._mistake(error))

    @staticmethod
    def _mistake(error: Exception) -> InternalError:
        next_step = "report it with the traceback; `luff status` shows whether anything is injected"
        return InternalError(_kept(error), next_step=next_step)

    async def _finish_after(
        self,
        error: Exception,
        running: Mapping[asyncio.Task[Outcome], tuple[Experiment, Ref | None]],
        waiting: Sequence[Experiment],
    ) -> None:
        """After a mistake of ours between the runs: those under way come to their own end, the others are not begun."""
        await asyncio.gather(*running, return_exceptions=True)
        for task, (experiment, _) in running.items():
            self._ended(self._came_of(task, experiment))
        if not self._over:
            why = self._mistake(error)
            for experiment in waiting:
                self._ended(self._without_a_run(experiment, why))

    @property
    def _over(self) -> bool:
        return self.enough or self.ending is not None

    def _ended(self, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        self.done.outcomes.append(outcome)
        try:
            if self.tidings is not None and outcome.run in self.done.samples:
                # The others never ran: nothing was learnt of them.
                self.tidings.ended(outcome)
            # Who read it may have left, as `head` does. The runs go on, and the exit code is theirs.
            with may_be_lost():
                self.each(outcome)
        except Exception as error:  # whatever telling an outcome does, the others are still to be run
            tell(f"luff: the outcome of {outcome.experiment} could not be told: {_kept(error)}", err=True)

    def _see_whether_to_go_on(self, outcome: Outcome | None) -> None:
        if outcome is not None and self.settings.fail_fast and not self.settings.passes(outcome):
            self.enough = True

    async def _target(self, experiment: Experiment) -> Ref | None:
        return await target_of(experiment, self.world.mesh, namespace=self.settings.mesh.namespace, policy=self.policy)

    async def _run_one(self, experiment: Experiment) -> Outcome:
        first = await self._run_and_keep(experiment)
        if self._over or not worth_another_try(first):
            return first
        if self.settings.voice.level >= 0:
            tell(f"{experiment.name}: {first.reason}, which may pass: trying once more", err=True)
        return await self._run_and_keep(experiment, after=first)

    async def _run_and_keep(self, experiment: Experiment, *, after: Outcome | None = None) -> Outcome:
        """Run *experiment* and put its outcome into history; *after* is its first try, if this is the second."""
        until_s = time.monotonic() + (self.settings.wait_for_s or 0.0)
        while True:
            await self._wait_for(experiment, until_s=until_s)
            if self.ending is not None:
                return self._not_started(experiment, self.ending)
            outcome, samples = await self._try(experiment)
            # Between our look and the run's own somebody else may have come first.
            may_be_lost = may_have_lost_the_race(outcome)
            if not may_be_lost or time.monotonic() >= until_s or await self._holder(experiment) is None:
                break
        if after is not None:
            outcome = second_try(after, outcome)
        self.done.samples[outcome.run] = samples
        try:
            await asyncio.to_thread(self.store.record, outcome, samples)
        except Exception as error:  # whatever the store does, the outcome is the run's
            why = str(error) if isinstance(error, StoreError) else _kept(error)
            tell(f"luff: the outcome is not in history: {why}", err=True)
        return outcome

    async def _try(self, experiment: Experiment) -> tuple[Outcome, Samples]:
        mine: list[Stop] = []

        def on_start(stop: Stop) -> None:
            mine.append(stop)
            self.stops.append(stop)

        try:
            with self._progress(experiment.name) as progress:
                return await run_experiment(
                    experiment, self.world, options=self._options(), progress=progress, on_start=on_start
                )
        finally:
            for stop in mine:
                self.stops.remove(stop)

    def _options(self) -> Options:
        return Options(
            actor=who_am_i(),
            namespace=self.settings.mesh.namespace,
            seed=self.settings.seed,
            context=context_from_environment(),
            policy=self.policy,
            needs_reaper=needs_reaper(in_lab=self.world.in_lab, accepted=self.settings.accept_inert_leftover),
        )

    def _progress(self, title: str) -> SilentProgress:
        """Return the progress of one run; blocks that redraw themselves would draw over one another."""
        if self.settings.parallel > 1 and self.settings.voice.level >= 0:
            return PlainProgress(console_for(self.settings.voice, stderr=True), title)
        return progress_for(self.settings.voice, title)

    async def _wait_for(self, experiment: Experiment, *, until_s: float) -> None:
        """Wait until nobody holds the object of *experiment*, at most until *until_s*."""
        said = False
        while self.ending is None and time.monotonic() < until_s:
            holder = await self._holder(experiment)
            if holder is None:
                return
            if not said and self.settings.voice.level >= 0:
                left = show_duration(max(1.0, round(until_s - time.monotonic())))
                tell(f"{experiment.name}: waiting at most {left} for {holder}", err=True)
                said = True
            await asyncio.sleep(max(0.0, min(WAIT_LOOK_EVERY_S, until_s - time.monotonic())))

    async def _holder(self, experiment: Experiment) -> str | None:
        """Return who holds the object of *experiment*, ``None`` when nobody does or it cannot be told."""
        target = await self._target(experiment)
        if target is None:
            return None
        try:
            lease = await self.world.mesh.read(lease_ref(target))
            now_s = await self.world.mesh.server_time_s()
        except MeshError:
            return None
        spec = lease.get("spec") or {}
        try:
            renewed_s = datetime.fromisoformat(str(spec.get("renewTime"))).timestamp()
            alive = now_s - renewed_s < float(spec.get("leaseDurationSeconds") or 0)
        except ValueError:
            return None
        holder = spec.get("holderIdentity")
        return f"{target}, held by {holder}" if holder and alive else None

    def _not_started(self, experiment: Experiment, why: RunAborted) -> Outcome:
        """Return the outcome of an experiment whose turn never came. It is not kept in history: nothing was learnt."""
        record = self._record(experiment)
        next_ = Next(who="runner", retryable=True, do=why.next_step or "run it again")
        judgement = stopped(Verdict.ABORTED, why.reason, f"it was not started: {why.message}", next_)
        return record.outcome(judgement, ended_s=record.started_s)

    def _without_a_run(self, experiment: Experiment, error: LuffError) -> Outcome:
        """Return the outcome of an experiment whose run was over before it had one, by *error*."""
        record = self._record(experiment)
        return record.outcome(ended_early(error, Situation()), ended_s=record.started_s)

    def _record(self, experiment: Experiment) -> Record:
        options = self._options()
        return Record(
            experiment=experiment,
            run=secrets.token_hex(8),
            mesh=self.world.identity,
            actor=options.actor,
            seed=options.seed or 0,
            context=options.context,
            started_s=self.world.clock.now_s(),
        )
