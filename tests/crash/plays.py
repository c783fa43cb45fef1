"""
One play of the protocol: what may happen, and what must hold whatever does.

The code under test is the product's own: `lock`, `inject`, `withdraw`,
`restore`, `reaper`, and for a whole run `run` with everything below it. A
schedule says what happens to which call of the run, at which of its awaits the
process is killed, whether its guard lives, and what somebody else writes at
which call. At the end only one look of a reaper with no memory is left.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from luff.errors import LuffError, RunAborted
from luff.inject import Hands, injected
from luff.lifecycle import Phase
from luff.lock import locked, release
from luff.outcome import Outcome
from luff.patches import clone
from luff.reaper import Reaper
from luff.testing import Killed, NoWatcher, SimClock, SimMesh, Trouble, VirtualLoop
from luff.withdraw import withdraw
from tests.crash.whole import whole_run
from tests.crash.world import (
    BODY_S,
    OVER_S,
    PATIENCE_S,
    REF,
    Journal,
    Schedule,
    Violation,
    World,
    ended,
    planner,
)
from tests.crash.writers import BASE, RUN

__all__ = ["Bounded", "Played", "play", "shrink"]

STEPS_MOST = 30_000
"""Nobody needs so many steps of the event loop: who takes more never ends."""
TICK_S = 1e-4
"""How much of a whole run's time a step takes: its generator waits for the last millisecond without sleeping."""


@dataclass(slots=True)
class Played:
    """This is a play that is over: what of its schedule came to pass, calls and awaits of the run and of the other process."""

    happened: Schedule
    verbs: tuple[str, ...]
    points: int
    phases: tuple[Phase, ...]
    other_verbs: tuple[str, ...] = ()
    other_points: int = 0
    outcome: Outcome | None = None


class Bounded(VirtualLoop):
    """This is virtual time for one play: work without an end is a violation, on any machine after the same work."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._steps = 0
        super().__init__()

    def _advance(self, timeout: float | None) -> None:
        self._steps += 1
        if self._steps > STEPS_MOST:
            raise self._world.violated("it never ends")
        super()._advance(max(timeout, TICK_S) if timeout is not None and self._world.schedule.whole else timeout)


async def _story(world: World) -> tuple[Phase, ...]:
    schedule, cluster, run = world.schedule, world.cluster, world.run
    cluster.add(BASE)
    world.expected = clone(BASE)
    world.before = cluster.objects[REF]
    cluster.on_write.append(world.check_write)
    journal, watcher = Journal(killed=run.dead, world=world), NoWatcher()
    cluster.on_write.append(lambda _ref, _after: world.check_armed(journal))
    with contextlib.suppress(LuffError, Killed):
        await (whole_run if schedule.whole else _protocol)(world, journal, watcher)
    if schedule.guard and (run.mesh.dead or watcher.taken_over):
        world.guarded = True
        await _guard(world, journal, watcher)
    phases = tuple(journal.phases.get(RUN, ()))
    await asyncio.sleep(OVER_S / 2)
    if phases[-1:] == (Phase.CLEAN,):
        world.check_not_live("it was clean, and came back")
    await asyncio.sleep(OVER_S / 2)
    await ended(world.tasks)
    if world.other is None and (schedule.other_kill_at is not None or schedule.other_troubles):
        early = world.next_process()
        with contextlib.suppress(Killed):
            await Reaper(early.mesh, early.clock).sweep()
        # What it had on the wire when it died arrives before the last one looks.
        await asyncio.sleep(OVER_S)
    sweep = await Reaper(SimMesh(cluster), SimClock()).sweep()
    if sweep.errors:
        raise world.violated(f"the reaper could not: {sweep.errors}")
    world.check_end()
    quiet = not run.mesh.dead and not schedule.troubles and schedule.denied_at is None
    if quiet and phases[-1:] not in ((Phase.CLEAN,), ()):
        raise world.violated(f"without trouble it ended as {phases}")
    return phases


async def _protocol(world: World, journal: Journal, watcher: NoWatcher) -> None:
    mesh, clock = world.run.mesh, world.run.clock
    asked: list[RunAborted] = []
    async with (
        locked(mesh, REF, run=RUN, holder="tester", clock=clock, stop=asked.append),
        injected(planner(mesh, RUN), Hands(mesh, journal, watcher, clock), patience_s=PATIENCE_S),
    ):
        await clock.sleep(BODY_S)


async def _guard(world: World, journal: Journal, watcher: NoWatcher) -> None:
    """Do what the guard does, without a limit. It may die as well."""
    for ref, injection in tuple(watcher.watched.values()):
        guard = world.next_process()
        with contextlib.suppress(Killed):
            await withdraw(guard.mesh, ref, run=RUN, clock=guard.clock, pinned=injection.resource_version)
            world.check_not_live("the guard says that it is clean, and it is not")
            journal.phases.setdefault(RUN, []).append(Phase.CLEAN)
            if world.run.mesh.dead:
                await release(guard.mesh, ref, run=RUN)


def play(schedule: Schedule) -> Played:
    """Play *schedule* to its end; raises `Violation` when an invariant does not hold."""
    world = World(schedule)
    loop = Bounded(world)
    # What a killed process leaves unfinished is no news.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        phases = loop.run_until_complete(_story(world))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()
    if world.violation is not None:
        raise world.violation
    run, other = world.run, world.other
    return Played(
        _happened(world),
        tuple(run.verbs),
        run.points,
        phases,
        () if other is None else tuple(other.verbs),
        0 if other is None else other.points,
        world.outcome,
    )


def _happened(world: World) -> Schedule:
    """Return what of the schedule came to pass: two that differ only in what did not are one."""
    schedule, run, other = world.schedule, world.run, world.other
    late = {Trouble.LATE, Trouble.DAMAGED_LATE}
    met = [*run.met, *(other.met if other is not None else ())]
    denied = schedule.denied_at is not None and schedule.whole and schedule.denied_at < len(run.verbs)
    return replace(
        schedule,
        troubles=tuple(run.met),
        kill_at=schedule.kill_at if run.was_killed else None,
        writer=schedule.writer if world.wrote else "nobody",
        write_at=schedule.write_at if world.wrote and schedule.writer != "nobody" else 0,
        guard=world.guarded,
        late_s=schedule.late_s if any(trouble in late for _, trouble in met) else 5.0,
        other_troubles=() if other is None else tuple(other.met),
        other_kill_at=schedule.other_kill_at if other is not None and other.was_killed else None,
        stop_at=schedule.stop_at if world.stopped else None,
        denied_at=schedule.denied_at if denied else None,
        proxies=schedule.proxies if schedule.whole else "unseen",
    )


def _fails(schedule: Schedule) -> bool:
    try:
        play(schedule)
    except Violation:
        return True
    return False


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool] = _fails) -> Schedule:
    """Return a smaller schedule that fails as well: without what does not matter, everything as early as may be."""
    small = schedule
    while (smaller := next((each for each in _smaller(small) if fails(each)), None)) is not None:
        small = smaller
    return small


def _smaller(schedule: Schedule) -> list[Schedule]:
    found = [
        replace(schedule, troubles=schedule.troubles[:at] + schedule.troubles[at + 1 :])
        for at in range(len(schedule.troubles))
    ]
    found += [
        replace(schedule, other_troubles=schedule.other_troubles[:at] + schedule.other_troubles[at + 1 :])
        for at in range(len(schedule.other_troubles))
    ]
    if schedule.kill_at is not None:
        found.append(replace(schedule, kill_at=None, guard=False))
    plainer = (
        replace(schedule, guard=False),
        replace(schedule, other_kill_at=None),
        replace(schedule, stop_at=None),
        replace(schedule, denied_at=None),
        replace(schedule, proxies="unseen"),
    )
    found += [each for each in plainer if each != schedule]
    if schedule.writer != "nobody":
        found.append(replace(schedule, writer="nobody", write_at=0))
        found += [replace(schedule, write_at=at) for at in range(schedule.write_at)]
    return found
