"""
One experiment, from top to bottom.

`run_experiment` reads as the walk in ARCHITECTURE.md, a line a step. The routes
are back before anything is judged, so a mistake in judging cannot hold a fault
in place; and what was learnt and where the routes are stay two things.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import httpx

from luff.announce import FAULT_INJECTED
from luff.beside import write_event
from luff.checks import lateness_of
from luff.conclude import conclude, see_it_gone
from luff.errors import (
    MeshError,
    PlanRefused,
    RunAborted,
)
from luff.heartbeat import check_heartbeat
from luff.inject import Live, injected, mark, shielded
from luff.lever import check_record
from luff.lifecycle import Phase
from luff.lock import STOP_ANNOTATION, lease_ref, locked
from luff.mesh import Kind, Mesh, Ref
from luff.model import Arm, Experiment, PolicySpec
from luff.model import Phase as Part
from luff.names import Stamp
from luff.outcome import Outcome
from luff.pacing import arrivals_of
from luff.plan import Plan, make_plan
from luff.policy import bounds_of, check_policy
from luff.predicates import observer
from luff.preflight import check_foreign, namespace_of, preflight, read_build, read_view
from luff.record import Record, iso
from luff.routes import Injection
from luff.samples import Samples
from luff.scope import Scope
from luff.settle import await_live
from luff.tallies import Judge
from luff.traffic.crew import Spread
from luff.traffic.driver import Driver
from luff.traffic.sender import Work
from luff.tripwires import check_tripwires
from luff.underway import POLL_EVERY_S, Options, Progress, Run, Stopper, World
from luff.verdicts import control_errors_most
from luff.warmup import warm_up
from luff.watch import watched

__all__ = ["Options", "Progress", "World", "plan_only", "run_experiment", "target_of"]

PLAN_WITHIN_S = 30.0
"""How long `target_of` waits for the API server."""

BEHIND_EVERY_S = 0.01
"""How soon the judge looks again when one look did not reach the end: the loop has other work in between."""
RECOVERY_TAIL_S = 1.0
EVIDENCE_WITHIN_S = 2.0
"""How long evidence is waited for after the last request that needs it is over."""


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
    try:
        await asyncio.wait([run.stop.task])
    except asyncio.CancelledError:
        run.stop.task.cancel()
        await shielded(conclude(run, run.stop.task))
        raise
    return await shielded(conclude(run, run.stop.task))


async def _story(run: Run) -> None:
    """Do what an experiment does, in order. Leaving `injected` in any way puts the routes back."""
    plan = await _prepare(run)
    async with _locked(run, plan), _traffic(run, plan) as driver:
        if not await warm_up(run, plan, driver):
            return
        await _begin_evidence(run)
        async with injected(lambda: _plan_again(run, plan), run.hands, live=run.live) as live, watched(run):
            if await _settle(run, live):
                await _drive(run, plan, driver)
        await see_it_gone(run)
        # Recovery is counted from here: before, proxies may have the fault yet, and nothing is sent.
        run.situation.removed_ns = driver.now_ns()
        if run.stale is not None:
            return
        await _recover(run, plan, driver)
        # Control requests still out are judged as well: without the slowest the others would look too good.
        await driver.drain(arm=Arm.CONTROL, within_s=plan.timeout_s)
        await _last_evidence(run, plan)
        await _hear_a_last_stop(run, plan)


async def plan_only(
    experiment: Experiment,
    mesh: Mesh,
    *,
    namespace: str | None,
    dry_run: bool = False,
    policy: PolicySpec | None = None,
    everywhere: bool = True,
) -> Plan:
    """
    Return what a run would do now, without doing it. With *dry_run* the API server tries the patch as well.

    Without *everywhere* other namespaces are not read: quicker, for who only wants to know the target.
    """
    stamp = await _stamp(experiment, mesh)
    _check_policy(policy, experiment, namespace, stamp)
    view = await read_view(mesh, namespace_of(experiment, namespace), everywhere=everywhere)
    plan = make_plan(experiment, view, stamp, bounds=bounds_of(policy, view.kind))
    if dry_run:
        await preflight(mesh, plan)
    return plan


async def target_of(
    experiment: Experiment, mesh: Mesh, *, namespace: str | None, policy: PolicySpec | None
) -> Ref | None:
    """Return the object that *experiment* would change; ``None`` when that cannot be told, which its run will say."""
    try:
        async with asyncio.timeout(PLAN_WITHIN_S):
            return _target(await plan_only(experiment, mesh, namespace=namespace, policy=policy, everywhere=False))
    except Exception:  # its run meets the same, and its outcome says what was wrong
        return None


def _check_policy(policy: PolicySpec | None, experiment: Experiment, namespace: str | None, stamp: Stamp) -> None:
    now = datetime.fromtimestamp(stamp.created_s, UTC)
    check_policy(policy, experiment, namespace=namespace_of(experiment, namespace), now=now)


async def _stamp(experiment: Experiment, mesh: Mesh) -> Stamp:
    now_s = int(await mesh.server_time_s())
    spec = experiment.spec
    scope = Scope(
        secrets.token_hex(16),
        secrets.token_hex(16),
        header=spec.scope.header,
        carriers=spec.scope.carriers,
        key=secrets.token_bytes(32),
    )
    return Stamp(secrets.token_hex(8), scope, created_s=now_s, expires_s=now_s + math.ceil(spec.restore.ttl_s))


def _begin(experiment: Experiment, world: World, *, options: Options, progress: Progress) -> Run:
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
    run = Run(experiment, world, options, progress, record, random.Random(seed), Stopper())
    record.live = run.live
    return run


async def _prepare(run: Run) -> Plan:
    """Read, plan, and let the server try the patch without keeping it."""
    world = run.world
    check_tripwires(run.experiment)
    # What is not set, or cannot be sent, is said before anything is touched.
    run.experiment.spec.traffic.revealed(os.environ)
    run.step(str(Phase.PLANNED))
    stamp = replace(await _stamp(run.experiment, world.mesh), run=run.record.run)
    _check_policy(run.options.policy, run.experiment, run.options.namespace, stamp)
    view = await read_view(world.mesh, namespace_of(run.experiment, run.options.namespace))
    plan = make_plan(run.experiment, view, stamp, bounds=bounds_of(run.options.policy, view.kind))
    run.plan = run.record.plan = plan
    run.view = view
    for warning in plan.others:
        run.mind(warning)
    await preflight(world.mesh, plan)
    await _note_build(run, plan)
    await check_record(world.levers, plan.injection.namespace)
    if run.options.needs_reaper:
        await check_heartbeat(world.mesh, plan.injection.namespace)
    if world.begin is not None:
        await world.begin(run.record)
    run.judge = Judge(
        plan.checks,
        control_errors_most=control_errors_most(run.experiment),
        met_least=run.experiment.spec.evidence.at_least_percent / 100,
    )
    return plan


async def _note_build(run: Run, plan: Plan) -> None:
    found, why_not = await read_build(run.world.mesh, plan)
    run.record.note_build(found)
    if why_not is not None:
        run.mind(why_not)


async def _plan_again(run: Run, first: Plan) -> Injection:
    """Plan from the object as it is now: what the patch is pinned to must be what was looked at, and what is locked."""
    namespace = namespace_of(run.experiment, run.options.namespace)
    # A delegate may be elsewhere; otherwise it is enough to have looked around once.
    again = first.injection.namespace != namespace
    view = await read_view(run.world.mesh, namespace, everywhere=again)
    if not again and run.view is not None:
        view = view.beside(run.view)
    plan = make_plan(run.experiment, view, first.stamp, bounds=bounds_of(run.options.policy, view.kind))
    if (plan.injection.namespace, plan.injection.virtual_service) != (
        first.injection.namespace,
        first.injection.virtual_service,
    ):
        raise PlanRefused(
            "target_moved",
            f"VirtualService {plan.injection.namespace}/{plan.injection.virtual_service} routes to the target by now, "
            f"and the run has locked {first.injection.virtual_service}",
            next_step="run it again, or name one with target.virtualService",
        )
    check_foreign(plan)
    run.plan = run.record.plan = plan
    return plan.injection


def _target(plan: Plan) -> Ref:
    return Ref(Kind.VIRTUAL_SERVICE, plan.injection.namespace, plan.injection.virtual_service)


def _locked(run: Run, plan: Plan) -> AbstractAsyncContextManager[None]:
    world, holder = run.world, run.options.actor
    return locked(world.mesh, _target(plan), run=run.record.run, holder=holder, clock=world.clock, stop=run.stop)


@asynccontextmanager
async def _traffic(run: Run, plan: Plan) -> AsyncIterator[Driver]:
    spread = await run.world.spread(plan)
    if spread is not None:
        run.step("traffic", f"{spread.processes} processes send it")
    async with AsyncExitStack() as ending:
        transport = run.world.transport(run.experiment)
        ending.push_async_callback(transport.aclose)
        driver = _driver(run, plan, transport, spread)
        run.source = run.world.source(plan, run.world.clock.monotonic_s() - driver.now_ns() / 1e9)
        ending.push_async_callback(run.source.close)
        run.record.evidence = run.source.evidence
        run.plane = run.world.plane or run.world.probes(plan, transport)
        # Of all that ends here it is the first: what is still sent needs the rest.
        ending.push_async_callback(_stop_driver, run, plan, driver)
        yield driver


def _driver(run: Run, plan: Plan, transport: httpx.AsyncBaseTransport, spread: Spread | None) -> Driver:
    work = Work(
        run.experiment.spec.traffic.revealed(os.environ),
        plan.stamp.scope,
        plan.timeout_s,
        observer(run.experiment),
        seed=f"{run.rng.getrandbits(64):x}",
    )
    return Driver(work, run.record.samples, transport, clock=run.world.clock, spread=spread)


async def _stop_driver(run: Run, plan: Plan, driver: Driver) -> None:
    await driver.stop()
    run.record.generator = driver.health(lateness_of(plan.checks, timeout_s=plan.timeout_s)).summary()


async def _begin_evidence(run: Run) -> None:
    """Make sure, before anything is touched, that there will be something to see the fault by."""
    assert run.source is not None
    await run.source.begin()
    evidence = run.source.evidence
    if evidence.remarks:
        run.step("evidence", f"{evidence.source}: {evidence.remarks}")


async def _settle(run: Run, live: Live) -> bool:
    """Wait until the proxies have the twins, and return whether they do."""
    assert live.injection is not None
    run.step(str(Phase.ARMED), f"{len(live.injection.twins)} twin(s) in {live.ref}")
    write_event(run, FAULT_INJECTED, f", until {iso(live.injection.expires_s)} at the latest")
    settling = asyncio.create_task(await_live(run.plane, live.injection, clock=run.world.clock))
    try:
        while not settling.done() and not run.situation.fault_removed:
            await asyncio.wait([settling], timeout=POLL_EVERY_S)
        if not settling.done():
            return False
        run.record.settled = settled = settling.result()
    finally:
        settling.cancel()
        await asyncio.gather(settling, return_exceptions=True)
    if settled.state == "not_live":
        run.situation.route_not_live = True
        return False
    await mark(live, run.world.journal, Phase.LIVE)
    where = f"at {', '.join(settled.where)}" if settled.where else "proxies cannot be seen from here"
    run.step(str(Phase.LIVE), where)
    return True


async def _drive(run: Run, plan: Plan, driver: Driver) -> None:
    """Send both arms until every check has decided, a bound is reached, or the run must not go on."""
    assert run.judge is not None
    assert run.source is not None
    duration_s = run.experiment.spec.traffic.duration_s
    run.progress.traffic(driver, phase=Part.FAULT, most_s=duration_s)
    run.situation.live_ns = driver.now_ns()
    enough = asyncio.Event()
    traffic = run.experiment.spec.traffic
    due = arrivals_of(traffic, Part.FAULT, rate_hz=plan.rate_hz, duration_s=duration_s, rng=run.rng)
    driving = asyncio.create_task(driver.drive(due, phase=Part.FAULT, until=enough))
    try:
        while not driving.done():
            await asyncio.wait([driving], timeout=BEHIND_EVERY_S if run.judge.behind else POLL_EVERY_S)
            await run.source.poll(run.record.samples)
            decided = run.judge.feed(run.record.samples, run.source.evidence)
            # Restore first, then report: when the judge sees a breach, bystanders are being hurt right now.
            run.situation.isolation_breach = run.judge.breached
            if decided or run.judge.breached or run.situation.fault_removed:
                enough.set()
        await driving
        if not run.situation.isolation_breach and not run.situation.fault_removed:
            await driver.drain(arm=Arm.FAULT, within_s=plan.timeout_s)
    finally:
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)


async def _recover(run: Run, plan: Plan, driver: Driver) -> None:
    """Keep both arms going until callers are back to normal, or the time for it is over."""
    assert run.judge is not None
    within_s = run.judge.recovery_most_s
    if not within_s or run.situation.live_ns is None:
        return
    run.step("recovery")
    # The last window must be over, and its slowest answers in, before it can be looked at.
    most_s = within_s + RECOVERY_TAIL_S
    run.progress.traffic(driver, phase=Part.RECOVERY, most_s=most_s)
    enough = asyncio.Event()
    traffic = run.experiment.spec.traffic
    due = arrivals_of(traffic, Part.RECOVERY, rate_hz=plan.rate_hz, duration_s=most_s, rng=run.rng)
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


async def _last_evidence(run: Run, plan: Plan) -> None:
    """Read what is still to come: a call that a caller gave up on is logged when it ends."""
    assert run.source is not None
    until_s = run.world.clock.monotonic_s() + plan.delay_s + EVIDENCE_WITHIN_S + run.source.late_s
    samples = run.record.samples
    await run.source.poll(samples)
    while run.source.evidence.settled_through < len(samples) and run.world.clock.monotonic_s() < until_s:
        await run.world.clock.sleep(POLL_EVERY_S)
        await run.source.poll(samples)


async def _hear_a_last_stop(run: Run, plan: Plan) -> None:
    """Heed somebody who asked for the end of the run since its Lease was last renewed: they are told that it was stopped."""
    try:
        lease = await run.world.mesh.read(lease_ref(_target(plan)))
    except MeshError:
        return
    who = (lease["metadata"].get("annotations") or {}).get(STOP_ANNOTATION)
    if who and run.stop.reason is None:
        run.stop.reason = RunAborted("operator", f"{who} asked for the end of this run")
