"""
One experiment, from top to bottom.

`run_experiment` reads as the walk in ARCHITECTURE.md, a line a step. The routes
are back before anything is judged, so a mistake in judging cannot hold a fault
in place; and what was learnt and where the routes are stay two things.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx

from luff.announce import FAULT_INJECTED, FAULT_REMOVED, RESTORE_FAILED, Announcement, announce
from luff.checks import late_most_s
from luff.clock import Clock
from luff.errors import LuffError, MeshError, NotFound, RestoreNotVerified, RunAborted, StoreError, UsageError
from luff.evidence import DataPlane, Source
from luff.heartbeat import check_heartbeat
from luff.inject import Hands, Live, Watcher, injected, shielded
from luff.lever import check_lever, pull_lever
from luff.lifecycle import Journal, Phase
from luff.lock import locked
from luff.mesh import Kind, Mesh, Ref
from luff.model import Arm, Experiment
from luff.model import Phase as Part
from luff.outcome import Context, MeshIdentity, Outcome
from luff.pacing import arrivals
from luff.plan import Bounds, Plan, Stamp, make_plan
from luff.predicates import observer
from luff.preflight import check_foreign, namespace_of, preflight, read_view
from luff.record import Record, iso
from luff.routes import Injection
from luff.samples import Failure, Samples
from luff.scope import Scope
from luff.settle import Settled, await_gone, await_live
from luff.tallies import Judge
from luff.traffic import Driver
from luff.tripwires import check_tripwires, tripwires
from luff.units import show_duration
from luff.verdicts import (
    WARMUP_ERRORS_MOST,
    Judgement,
    Situation,
    control_errors_most,
    ended_early,
    judge,
)
from luff.withdraw import give_back, remaining
from luff.words import Object

__all__ = ["Options", "Progress", "World", "plan_only", "run_experiment"]

POLL_EVERY_S = 0.1
WATCH_EVERY_S = 2.0
"""How often the lever and the twins are looked at while the fault is live."""
EXPIRY_MARGIN_S = 5.0
RECOVERY_TAIL_S = 1.0
EVIDENCE_WITHIN_S = 2.0
"""How long evidence is waited for after the last request that needs it is over."""
ASIDE_WITHIN_S = 2.0
"""How long the end of a run waits for what was done beside it: events, and giving field ownership back."""


class Progress(Protocol):
    """This is who is told how a run goes, for people to watch."""

    def step(self, name: str, note: str = "") -> None:
        """Say that the run is now at *name*."""

    def traffic(self, driver: Driver, *, phase: Part, most_s: float) -> None:
        """Show the traffic, several times a second."""


@dataclass(frozen=True, slots=True)
class World:
    """
    This is everything outside that a run needs, chosen by whoever starts it.

    *source* makes the evidence source for a plan and the Unix time of the
    samples' zero; *transport* the way out; *plane* is ``None`` where proxies
    cannot be seen; *watcher_died* comes back when nobody guards any more;
    *begin* is told of a run that is about to touch something.
    """

    mesh: Mesh
    identity: MeshIdentity
    journal: Journal
    watcher: Watcher
    watcher_died: Callable[[], Coroutine[Any, Any, int]]
    clock: Clock
    transport: Callable[[Experiment], httpx.AsyncBaseTransport]
    source: Callable[[Plan, float], Source]
    plane: DataPlane | None
    begin: Callable[[Record], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """
    This is what the person who starts a run decides.

    *namespace* is used where the experiment names none; *needs_reaper* says
    that the guard may not outlive us, so that somebody else must be there; *run*
    is the run id to use (16 hex digits), made here unless given.
    """

    actor: str
    namespace: str | None = None
    seed: int | None = None
    bounds: Bounds | None = None
    context: Context = field(default_factory=Context)
    needs_reaper: bool = False
    run: str | None = None


@dataclass(slots=True)
class _Stopper:
    """This ends the story once, and remembers why. It is what a signal, the lever, a lost lock or a tripwire calls."""

    task: asyncio.Task[None] | None = None
    reason: RunAborted | None = None

    def __call__(self, reason: RunAborted) -> None:
        if self.reason is None:
            self.reason = reason
            if self.task is not None:
                self.task.cancel()


@dataclass(slots=True)
class _Run:
    """This is one run under way: what its steps hand on to one another."""

    experiment: Experiment
    world: World
    options: Options
    progress: Progress
    record: Record
    rng: random.Random
    stop: _Stopper
    situation: Situation = field(default_factory=Situation)
    live: Live = field(default_factory=Live)
    plan: Plan | None = None
    elsewhere: tuple[Object, ...] = ()
    judge: Judge | None = None
    source: Source | None = None
    aside: list[tuple[str, asyncio.Task[None]]] = field(default_factory=list)

    def step(self, name: str, note: str = "") -> None:
        """Say where the run is, in its record and to who watches."""
        self.record.step(self.world.clock.now_s(), name, note or None)
        self.progress.step(name, note)

    def beside(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Let *work* be done beside the run, which it neither delays nor fails."""
        self.aside.append((what, asyncio.create_task(work)))


async def run_experiment(
    experiment: Experiment,
    world: World,
    *,
    options: Options,
    progress: Progress,
    on_start: Callable[[Callable[[RunAborted], None]], None] | None = None,
) -> tuple[Outcome, Samples]:
    """
    Carry out *experiment* and return its outcome, whatever happens, and the samples behind it.

    *on_start* gets the function that stops the run from outside; it takes a
    `RunAborted`. Cancelling the task that awaits this restores as well.
    """
    run = _begin(experiment, world, options=options, progress=progress)
    run.stop.task = asyncio.create_task(_story(run))
    if on_start is not None:
        on_start(run.stop)
    error: LuffError | None = None
    try:
        await asyncio.shield(run.stop.task)
    except asyncio.CancelledError:
        if run.stop.reason is None:
            run.stop.task.cancel()
            await asyncio.gather(run.stop.task, return_exceptions=True)
            await shielded(_finish_aside(run))
            raise
        error = run.stop.reason
    except UsageError:
        # Nothing was touched, and nothing was learnt: the command line or the environment has to change.
        raise
    except LuffError as raised:
        error = run.stop.reason or raised
    error = await shielded(_see_it_gone(run)) or error
    if isinstance(error, RestoreNotVerified):
        await shielded(_stop_everything(run, error))
    await shielded(_finish_aside(run))
    outcome = run.record.outcome(_judgement(run, error), ended_s=world.clock.now_s())
    return outcome, run.record.samples


async def _story(run: _Run) -> None:
    """Do what an experiment does, in order. Leaving `injected` in any way puts the routes back."""
    plan = await _prepare(run)
    async with _locked(run, plan), _traffic(run, plan) as driver:
        if not await _warm_up(run, plan, driver):
            return
        async with injected(lambda: _plan_again(run), _hands(run), live=run.live) as live:
            if await _settle(run, live):
                await _drive(run, plan, driver, live)
        run.situation.removed_ns = driver.now_ns()
        stale = await _see_it_gone(run)
        if stale is not None:
            raise stale
        await _recover(run, plan, driver)
        await _last_evidence(run, plan)


async def plan_only(
    experiment: Experiment,
    mesh: Mesh,
    *,
    namespace: str | None,
    dry_run: bool = False,
    bounds: Bounds | None = None,
    everywhere: bool = True,
) -> Plan:
    """
    Return what a run would do now, without doing it. With *dry_run* the API server tries the patch as well.

    Without *everywhere* other namespaces are not read: quicker, for who only wants to know the target.
    """
    view = await read_view(mesh, namespace_of(experiment, namespace), everywhere=everywhere)
    plan = make_plan(experiment, view, await _stamp(experiment, mesh), bounds=bounds)
    if dry_run:
        await preflight(mesh, plan)
    return plan


async def _stamp(experiment: Experiment, mesh: Mesh) -> Stamp:
    now_s = int(await mesh.server_time_s())
    spec = experiment.spec
    scope = Scope(secrets.token_hex(16), secrets.token_hex(16), header=spec.scope.header, carriers=spec.scope.carriers)
    return Stamp(secrets.token_hex(8), scope, created_s=now_s, expires_s=now_s + math.ceil(spec.restore.ttl_s))


def _begin(experiment: Experiment, world: World, *, options: Options, progress: Progress) -> _Run:
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    record = Record(
        experiment=experiment,
        run=options.run or secrets.token_hex(8),
        mesh=world.identity,
        actor=options.actor,
        seed=seed,
        context=options.context,
        started_s=world.clock.now_s(),
    )
    run = _Run(experiment, world, options, progress, record, random.Random(seed), _Stopper())
    record.live = run.live
    return run


async def _prepare(run: _Run) -> Plan:
    """Read, plan, and let the server try the patch without keeping it."""
    world = run.world
    check_tripwires(run.experiment)
    run.step(str(Phase.PLANNED))
    stamp = replace(await _stamp(run.experiment, world.mesh), run=run.record.run)
    view = await read_view(world.mesh, namespace_of(run.experiment, run.options.namespace))
    plan = make_plan(run.experiment, view, stamp, bounds=run.options.bounds)
    run.plan = run.record.plan = plan
    run.elsewhere = view.elsewhere
    for warning in plan.others:
        run.record.step(world.clock.now_s(), "mind", plan.stamp.scope.redact(warning))
    await preflight(world.mesh, plan)
    if run.options.needs_reaper:
        await check_heartbeat(world.mesh)
    if world.begin is not None:
        await world.begin(run.record)
    run.judge = Judge(plan.checks, control_errors_most=control_errors_most(run.experiment))
    return plan


async def _plan_again(run: _Run) -> Injection:
    """Plan from the object as it is now: what the patch is pinned to must be what was looked at."""
    assert run.plan is not None
    view = await read_view(run.world.mesh, run.plan.injection.namespace, everywhere=False)
    view = replace(view, elsewhere=run.elsewhere)
    plan = make_plan(run.experiment, view, run.plan.stamp, bounds=run.options.bounds)
    check_foreign(plan)
    run.plan = run.record.plan = plan
    return plan.injection


def _locked(run: _Run, plan: Plan) -> AbstractAsyncContextManager[None]:
    ref = Ref(Kind.VIRTUAL_SERVICE, plan.injection.namespace, plan.injection.virtual_service)
    return locked(
        run.world.mesh, ref, run=run.record.run, holder=run.options.actor, clock=run.world.clock, stop=run.stop
    )


def _hands(run: _Run) -> Hands:
    world = run.world
    return Hands(world.mesh, world.journal, world.watcher, world.clock)


@asynccontextmanager
async def _traffic(run: _Run, plan: Plan) -> AsyncIterator[Driver]:
    transport = run.world.transport(run.experiment)
    driver = Driver(
        run.experiment.spec.traffic.revealed(os.environ),
        plan.stamp.scope,
        run.record.samples,
        transport,
        timeout_s=plan.timeout_s,
        rng=run.rng,
        observe=observer(run.experiment),
        late_most_s=late_most_s(plan.checks),
    )
    run.source = run.world.source(plan, run.world.clock.now_s() - driver.now_ns() / 1e9)
    run.record.evidence = run.source.evidence
    try:
        yield driver
    finally:
        await driver.stop()
        await transport.aclose()
        run.record.generator = driver.health().summary()


async def _warm_up(run: _Run, plan: Plan, driver: Driver) -> bool:
    """Drive both arms before there is a fault: connections open, each arm's baseline is had. Return whether all is well."""
    warmup_s = run.experiment.spec.traffic.warmup_s
    if not warmup_s:
        return True
    run.step("warm-up")
    run.progress.traffic(driver, phase=Part.WARMUP, most_s=warmup_s)
    due = arrivals(
        plan.rate_hz, warmup_s, requests=run.experiment.spec.traffic.requests, rng=run.rng, ramp_s=warmup_s / 2
    )
    await driver.drive(due, phase=Part.WARMUP)
    await driver.drain(within_s=plan.timeout_s)
    share, example = _warmup_errors(run.record.samples)
    if share <= max(WARMUP_ERRORS_MOST, control_errors_most(run.experiment)):
        return True
    run.situation.control_unhealthy = (
        f"{share:.0%} of the warm-up's requests failed before there was a fault ({example})"
    )
    return False


def _warmup_errors(samples: Samples) -> tuple[float, str]:
    """Return the share of warm-up requests that failed, and how the last of them did."""
    errors, example = 0, ""
    for number in range(len(samples)):
        failure = Failure(samples.failure[number])
        if failure is not Failure.NONE or samples.status[number] >= 500:
            errors += 1
            example = f"status {samples.status[number]}" if failure is Failure.NONE else failure.name.lower()
    return (errors / len(samples) if len(samples) else 0.0), example


async def _settle(run: _Run, live: Live) -> bool:
    """Wait until the proxies have the twins, and return whether they do."""
    assert live.injection is not None
    run.step(str(Phase.ARMED), f"{len(live.injection.twins)} twin(s) in {live.ref}")
    _announce(run, FAULT_INJECTED, f"{_told(run)}, until {iso(live.injection.expires_s)} at the latest")
    settled = await await_live(run.world.plane, live.injection, clock=run.world.clock)
    run.record.settled = settled
    if settled.state == "not_live":
        run.situation.route_not_live = True
        return False
    with contextlib.suppress(StoreError):
        await asyncio.shield(run.world.journal.mark(run.record.run, Phase.LIVE))
    where = f"at {', '.join(settled.where)}" if settled.where else "proxies cannot be seen from here"
    run.step(str(Phase.LIVE), where)
    return True


async def _drive(run: _Run, plan: Plan, driver: Driver, live: Live) -> None:
    """Send both arms until every check has decided, a bound is reached, or the run must not go on."""
    assert run.judge is not None
    assert run.source is not None
    duration_s = run.experiment.spec.traffic.duration_s
    run.progress.traffic(driver, phase=Part.FAULT, most_s=duration_s)
    run.situation.live_ns = driver.now_ns()
    enough = asyncio.Event()
    due = arrivals(plan.rate_hz, duration_s, requests=run.experiment.spec.traffic.requests, rng=run.rng)
    driving = asyncio.create_task(driver.drive(due, phase=Part.FAULT, until=enough))
    watching = [
        asyncio.create_task(_watch_lever_and_twins(run, live, enough)),
        asyncio.create_task(_watch_guard(run)),
        asyncio.create_task(_watch_time(run, live)),
        *(asyncio.create_task(work) for work in tripwires(run.experiment, run.world.clock, run.stop)),
    ]
    try:
        while not driving.done():
            await asyncio.wait([driving], timeout=POLL_EVERY_S)
            await run.source.poll(run.record.samples)
            if run.judge.feed(run.record.samples, run.source.evidence):
                enough.set()
            if run.judge.breached:
                # Restore first, then report: bystanders are being hurt right now.
                run.situation.isolation_breach = True
                enough.set()
        await driving
        if not run.situation.isolation_breach and not run.situation.fault_removed:
            await driver.drain(arm=Arm.FAULT, within_s=plan.timeout_s)
    finally:
        for task in (driving, *watching):
            task.cancel()
        await asyncio.gather(driving, *watching, return_exceptions=True)
    run.step(str(Phase.WITHDRAWING))


async def _watch_lever_and_twins(run: _Run, live: Live, enough: asyncio.Event) -> None:
    """Look after the lever and the twins while the fault is live. Twins that others took out are not put back."""
    assert live.ref is not None
    assert live.injection is not None
    while True:
        await run.world.clock.sleep(WATCH_EVERY_S)
        try:
            await check_lever(run.world.mesh, live.ref.namespace)
        except RunAborted as pulled:
            run.stop(pulled)
            return
        try:
            left = remaining(await run.world.mesh.read(live.ref), live.injection.run)
        except NotFound:
            left = []
        except MeshError:
            continue
        if len(left) < len(live.injection.names):
            run.situation.fault_removed = True
            enough.set()
            return


async def _watch_guard(run: _Run) -> None:
    code = await run.world.watcher_died()
    run.stop(RunAborted("bound", f"the guard ended with {code}, so nobody could clean up after this process"))


async def _watch_time(run: _Run, live: Live) -> None:
    """Stop before the twins are old enough for anybody to remove them."""
    assert live.injection is not None
    await run.world.clock.sleep(max(0.0, live.injection.expires_s - live.injection.created_s - EXPIRY_MARGIN_S))
    run.stop(RunAborted("bound", "restore.ttl is over", next_step="raise restore.ttl, or shorten the traffic"))


async def _see_it_gone(run: _Run) -> RestoreNotVerified | None:
    """See that the proxies have let go of the twins too, however the run ended; return the error when they have not."""
    live = run.live
    if live.stranded is not None and run.record.gone is None:
        _announce(run, RESTORE_FAILED, f"{_told(run)}: {live.stranded.message}; {live.stranded.next_step}")
    if live.withdrawal is None or live.injection is None or run.record.gone is not None:
        return None
    run.step(str(Phase.CLEAN), "the object reads back without anything of ours")
    if live.withdrawal.removed or live.object_ is not None:
        _announce(run, FAULT_REMOVED, f"{_told(run)}: no twin is left in the object, as read back")
    run.beside("ownership", _give_back(run))
    try:
        run.record.gone = await await_gone(run.world.plane, live.injection, clock=run.world.clock)
    except OSError as error:
        # No file or no memory left to look with: the routes are back, and what was learnt is not lost over it.
        run.record.gone = Settled("unobserved", 0, 0.0)
        run.step(str(Phase.CLEAN), f"the proxies could not be looked at: {error}")
    if run.record.gone.state != "stale":
        return None
    stale = RestoreNotVerified(
        f"{live.ref} is clean in the API, but {', '.join(run.record.gone.where)} still run the fault",
        next_step=f"check istiod, then `luff status -n {live.injection.namespace}`",
    )
    _announce(run, RESTORE_FAILED, f"{_told(run)}: {stale.message}; {stale.next_step}")
    return stale


def _told(run: _Run) -> str:
    """Say who does what, for an event."""
    assert run.plan is not None
    fault = run.experiment.spec.fault
    parts = []
    if fault.delay is not None:
        parts.append(f"delay of {show_duration(fault.delay.duration_s)}")
    if fault.abort is not None:
        status = f"HTTP {fault.abort.http}" if fault.abort.http is not None else f"gRPC {fault.abort.grpc}"
        parts.append(f"abort with {status}")
    said = f"{run.options.actor} runs {run.experiment.name} (run {run.record.run}): {' and '.join(parts)} for requests in its scope"
    return run.plan.stamp.scope.redact(said)


def _announce(run: _Run, reason: str, note: str) -> None:
    """Write an Event beside the run; that it could not be written is a line of the timeline."""
    assert run.plan is not None
    secret = run.plan.stamp.scope
    said = Announcement(reason, secret.redact(note), run.world.clock.now_s())
    run.beside(f"event {reason}", announce(run.world.mesh, run.plan.virtual_service, said))


async def _give_back(run: _Run) -> None:
    """Give back the ownership of fields that our patches took, now that nothing depends on it."""
    done = run.live.withdrawal
    assert done is not None
    said = None if done.object_ is None else await give_back(run.world.mesh, done.ref, done.object_)
    if said is not None:
        run.record.step(run.world.clock.now_s(), "ownership", said)


async def _finish_aside(run: _Run) -> None:
    """Wait a little for what is done beside the run, and say in the timeline what came to nothing."""
    if not run.aside:
        return
    tasks = [task for _, task in run.aside]
    await asyncio.wait(tasks, timeout=ASIDE_WITHIN_S)
    for task in tasks:
        task.cancel()
    for (what, _), error in zip(run.aside, await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        if error is None:
            continue
        late = isinstance(error, asyncio.CancelledError)
        why = f"not within {ASIDE_WITHIN_S:.0f} s" if late else f"{type(error).__name__}: {error}"
        note = f"not done: {why}"
        run.record.step(run.world.clock.now_s(), what, note if run.plan is None else run.plan.stamp.scope.redact(note))


async def _stop_everything(run: _Run, error: RestoreNotVerified) -> None:
    """Pull the lever where a fault may still be live: nothing more is to be injected before somebody has looked."""
    assert run.live.ref is not None
    namespace = run.live.ref.namespace
    why = f"a restore is not verified: {error.message}"
    with contextlib.suppress(MeshError):
        await pull_lever(run.world.mesh, namespace, who=f"run {run.record.run}", why=why, clock=run.world.clock)
        run.step("lever", f"pulled for {namespace}: `luff lever off -n {namespace}` once you have looked")


async def _recover(run: _Run, plan: Plan, driver: Driver) -> None:
    """Keep both arms going until callers are back to normal, or the time for it is over."""
    assert run.judge is not None
    within_s = run.judge.recovery_most_s
    if not within_s or run.situation.route_not_live:
        return
    run.step("recovery")
    # The last window must be over, and its slowest answers in, before it can be looked at.
    most_s = within_s + RECOVERY_TAIL_S
    run.progress.traffic(driver, phase=Part.RECOVERY, most_s=most_s)
    enough = asyncio.Event()
    due = arrivals(plan.rate_hz, most_s, requests=run.experiment.spec.traffic.requests, rng=run.rng)
    driving = asyncio.create_task(driver.drive(due, phase=Part.RECOVERY, until=enough))
    try:
        while not driving.done():
            await asyncio.wait([driving], timeout=POLL_EVERY_S)
            if run.judge.recovered(run.record.samples, removed_ns=run.situation.removed_ns or 0):
                enough.set()
        await driving
        if not enough.is_set():
            await driver.drain(within_s=plan.timeout_s)
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)


async def _last_evidence(run: _Run, plan: Plan) -> None:
    """Read what is still to come: a call that a caller gave up on is logged when it ends."""
    assert run.source is not None
    until_s = run.world.clock.monotonic_s() + plan.delay_s + EVIDENCE_WITHIN_S
    samples = run.record.samples
    await run.source.poll(samples)
    while run.source.evidence.settled_through < len(samples) and run.world.clock.monotonic_s() < until_s:
        await run.world.clock.sleep(POLL_EVERY_S)
        await run.source.poll(samples)


def _judgement(run: _Run, error: LuffError | None) -> Judgement:
    """Say what was learnt. An early end says why; everything else is for the rules of `luff.checks`."""
    early = error is not None or run.situation.control_unhealthy is not None
    if early or run.live.injection is None or run.plan is None or run.source is None:
        return ended_early(error, run.situation)
    return judge(
        run.plan.checks,
        run.record.samples,
        run.source.evidence,
        experiment=run.experiment,
        situation=run.situation,
        generator=run.record.generator,
    )
