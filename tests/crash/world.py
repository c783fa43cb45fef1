"""
What a play happens in: a simulated cluster, what others do in it, and what must hold at every write.

A violation is raised at the very write that commits it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from luff.decide import Proxy, RequestFacts, decide
from luff.errors import LuffError, PlanRefused, RunAborted
from luff.inject import Hands, injected
from luff.lifecycle import Phase
from luff.mesh import Kind, Ref
from luff.model import Delay, Fault, Object
from luff.names import http_routes, our_run, ours, tampered
from luff.outcome import Outcome
from luff.patches import clone
from luff.reaper import Reaper
from luff.restore import find_injected, put_back
from luff.routes import Injection
from luff.testing import EPOCH_S, Cluster, Killed, MemoryJournal, NoWatcher, SimClock, SimMesh, Trouble
from luff.withdraw import FENCE_ANNOTATION
from tests.crash.writers import BASE, EDITS, PROCESSES, RUN
from tests.factories import injection

__all__ = [
    "BASE", "BODY_S", "OVER_S", "PATIENCE_S", "REF", "RUN", "SECOND_RUN", "TTL_S", "Journal", "Process", "Schedule",
    "Violation", "World", "ended", "planner", "runs_in",
]  # fmt: skip

REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "inventory")
SECOND_RUN = "fedcba9876543210"
TTL_S = 600
BODY_S = 0.05
PATIENCE_S = 60.0
LATER_S = 0.06
"""When an editor that was opened at a boundary saves: around the withdrawal."""
REVERT_S = 30.0
"""When a controller puts back what it had saved."""
OVER_S = 2.0 * TTL_S
"""By then everything has arrived that was on the wire, and the time of every twin is over."""
BYSTANDERS = (
    RequestFacts(),
    RequestFacts(headers=(("x-canary", "1"),)),
    RequestFacts("/fix", "POST", headers=(("x-luff-run", "somebody-else"), ("baggage", "luff-run=other"))),
)
"""Requests of people who are in no run's scope."""
SIDECAR = Proxy(namespace="shop")
FAULT = Fault(delay=Delay(duration_s=3.0))


class Violation(BaseException):
    """This is an invariant that did not hold. A restorer goes on after every `Exception`; after this it must not."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    This is what happens.

    *troubles* by number of the run's call; *kill_at* the number of the await
    at which the run's process ends; a *writer* at the call *write_at*; *guard*
    whether somebody watches over the process, and takes over from it when it is
    killed or stranded; *late_s* how long after its
    timeout a late request arrives. *other_troubles* and *other_kill_at* are
    about the next process of luff that acts: the writer where it is one, else
    the guard, else a reaper before the last.

    *whole* plays `luff.run.run_experiment`, traffic and verdict included: asked
    to end at the call *stop_at*, denied the object from the call *denied_at*
    on, with *proxies* that are ``unseen``, ``seen`` or ``stale``.
    """

    troubles: tuple[tuple[int, Trouble], ...] = ()
    kill_at: int | None = None
    writer: str = "nobody"
    write_at: int = 0
    guard: bool = False
    late_s: float = 5.0
    other_troubles: tuple[tuple[int, Trouble], ...] = ()
    other_kill_at: int | None = None
    whole: bool = False
    stop_at: int | None = None
    denied_at: int | None = None
    proxies: str = "unseen"


@dataclass(slots=True)
class Process:
    """This is a process of luff: its calls, counted, what happens to them, and at which of its awaits it ends."""

    cluster: Cluster
    troubles: dict[int, Trouble] = field(default_factory=dict)
    kill_at: int | None = None
    late_s: float = 5.0
    denied_at: int | None = None
    at_call: Callable[[int], None] = lambda _number: None
    verbs: list[str] = field(default_factory=list)
    points: int = 0
    met: list[tuple[int, Trouble]] = field(default_factory=list)
    mesh: SimMesh = field(init=False)

    def __post_init__(self) -> None:
        self.mesh = SimMesh(self.cluster, trouble=self._trouble, late_s=self.late_s, killed=self.dead)

    @property
    def clock(self) -> SimClock:
        """Return the clock of this process."""
        return SimClock(killed=self.dead)

    def dead(self) -> bool:
        """Return whether the process has ended; each time that this is asked is an await at which it may."""
        if not self.mesh.dead:
            self.mesh.dead = self.points == self.kill_at
            self.points += 1
        return self.mesh.dead

    @property
    def was_killed(self) -> bool:
        """Return whether its schedule has come to its end."""
        return self.kill_at is not None and self.kill_at < self.points

    def _trouble(self, verb: str, ref: Ref) -> Trouble:
        number = len(self.verbs)
        self.verbs.append(verb)
        self.at_call(number)
        if self.denied_at is not None and number >= self.denied_at and ref == REF:
            return Trouble.DENIED
        trouble = self.troubles.get(number, Trouble.NONE)
        if trouble is not Trouble.NONE:
            self.met.append((number, trouble))
        return trouble


@dataclass(slots=True)
class World:
    """This is one play: its cluster, what others have done, and what must hold."""

    schedule: Schedule
    cluster: Cluster = field(default_factory=Cluster)
    expected: Object | None = None
    """The object as it would be without any luff."""
    stranger: int = 0
    excused: bool = False
    """Somebody else has put our routes back; that they are there is not our doing any more."""
    tampered: bool = False
    before: Object | None = None
    wrote: bool = False
    guarded: bool = False
    """The guard had something to do."""
    stop: Callable[[RunAborted], None] | None = None
    stopped: bool = False
    outcome: Outcome | None = None
    run: Process = field(init=False)
    other: Process | None = None
    """The process that `Schedule.other_kill_at` is about, once there is one."""
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    violation: Violation | None = None
    """The first one: whoever restores several objects keeps what one of them raised to itself."""

    def __post_init__(self) -> None:
        schedule = self.schedule
        self.run = Process(
            self.cluster,
            dict(schedule.troubles),
            schedule.kill_at,
            schedule.late_s,
            schedule.denied_at if schedule.whole else None,
            self._at_call,
        )

    def _at_call(self, number: int) -> None:
        if number == self.schedule.write_at:
            self.write()
        if number == self.schedule.stop_at and self.stop is not None:
            self.stopped = True
            self.stop(RunAborted("operator", "ada asked for the end of this run"))

    def next_process(self) -> Process:
        """Return the next process of luff: the first of them is the one that the schedule is about."""
        if self.other is not None:
            return Process(self.cluster)
        schedule = self.schedule
        self.other = Process(self.cluster, dict(schedule.other_troubles), schedule.other_kill_at, schedule.late_s)
        return self.other

    def violated(self, what: str) -> Violation:
        self.violation = self.violation or Violation(f"{what}\n{self.schedule}")
        return self.violation

    # --- what others do

    def write(self) -> None:
        """Let the writer of the schedule do what it does, now."""
        writer, loop = self.schedule.writer, asyncio.get_running_loop()
        self.wrote = True
        if writer in EDITS:
            self.edit(EDITS[writer], tampers=writer.endswith("of ours"))
        elif writer == "stale editor":
            opened = clone(self.cluster.objects.get(REF))
            loop.call_later(LATER_S, self.save, opened)
        elif writer == "flagger reverts":
            saved = clone(self.cluster.objects.get(REF))
            self.edit(EDITS["flagger"])
            loop.call_later(REVERT_S, self.save, saved)
        elif writer == "delete":
            self.delete()
        elif writer == "recreate from git":
            self.delete()
            self.create(BASE)
        elif writer == "recreate from a dump":
            dump = clone(self.cluster.objects.get(REF))
            self.delete()
            if dump is not None:
                self.create(dump)
        elif writer in PROCESSES:
            work = {"reaper": _sweep, "restore all": _restore_all, "second luff": _second_luff}[writer]
            self.tasks.append(asyncio.ensure_future(work(self.next_process())))

    @contextlib.contextmanager
    def as_stranger(self) -> Iterator[None]:
        self.stranger += 1
        try:
            yield
        finally:
            self.stranger -= 1

    def edit(self, change: Callable[[Object], None], *, tampers: bool = False) -> None:
        if REF not in self.cluster.objects or self.expected is None:
            return
        change(self.expected)
        self.tampered = self.tampered or tampers
        with self.as_stranger():
            self.cluster.edit(REF, change)

    def save(self, opened: Object | None) -> None:
        if opened is None or REF not in self.cluster.objects or self.expected is None:
            return
        self.excused = self.excused or bool(_ours_in(opened))
        self.expected["spec"] = {**clone(opened["spec"]), "http": _theirs(opened)}
        with self.as_stranger():
            self.cluster.edit(REF, lambda object_: object_.update(spec=clone(opened["spec"])))

    def delete(self) -> None:
        self.expected = None
        if REF in self.cluster.objects:
            with self.as_stranger():
                self.cluster.remove(REF)

    def create(self, object_: Object) -> None:
        fresh = clone(object_)
        fresh["metadata"].pop("resourceVersion", None)
        fresh["metadata"].pop("uid", None)
        self.excused = self.excused or bool(_ours_in(fresh))
        self.expected = {**clone(fresh), "spec": {**clone(fresh["spec"]), "http": _theirs(fresh)}}
        # What a restorer had just put in is in the dump as well, and a restorer's to take away.
        (self.expected["metadata"].get("annotations") or {}).pop(FENCE_ANNOTATION, None)
        with self.as_stranger():
            self.cluster.add(fresh)

    # --- what must hold at every write

    def check_write(self, ref: Ref, after: Object | None) -> None:
        if ref != REF:
            return
        before, self.before = self.before, after
        if self.stranger or before is None:
            return
        if after is None:
            raise self.violated("luff deleted the object")
        if _but_ours(before) != _but_ours(after):
            raise self.violated("luff changed what is not its own")
        if self.tampered:
            return
        if any(_taker(after, each) != _taker(_but_ours(after), each) for each in BYSTANDERS):
            raise self.violated("a request outside the scope is routed differently")
        if any(tampered(route) for route in _ours_in(after)):
            raise self.violated("a twin without a scope was put in")

    def check_armed(self, journal: MemoryJournal) -> None:
        """Raise when something of the run is in the object that is not written down."""
        if not self.stranger and RUN in runs_in(self.cluster) - set(journal.intents):
            raise self.violated("injected before it was armed")

    def check_not_live(self, what: str) -> None:
        """Raise *what* when a twin of the run is in the object, and nobody else has put it there."""
        if not self.excused and RUN in runs_in(self.cluster):
            raise self.violated(what)

    def check_end(self) -> None:
        """Raise when anything of ours is left, or something of others is not."""
        now = self.cluster.objects.get(REF)
        if now is None or self.expected is None:
            if now is not None or self.expected is not None:
                raise self.violated("the object is there, or is not, against somebody's will")
            return
        if _ours_in(now):
            raise self.violated(f"left behind: {[route['name'] for route in _ours_in(now)]}")
        if FENCE_ANNOTATION in (now["metadata"].get("annotations") or {}):
            raise self.violated("a fence was left behind")
        if _but_ours(now) != _but_ours(self.expected):
            raise self.violated("somebody's change was lost")


@dataclass(slots=True)
class Journal(MemoryJournal):
    """This checks that what is written down is true."""

    world: World | None = None

    def _move(self, run: str, phase: Phase) -> None:
        MemoryJournal._move(self, run, phase)
        world = self.world
        if phase is Phase.CLEAN and world is not None and run == RUN:
            world.check_not_live("reported clean, and it is not")


def _ours_in(object_: Object) -> list[Object]:
    return [route for route in http_routes(object_) if ours(route)]


def _theirs(object_: Object) -> list[Object]:
    return clone([route for route in http_routes(object_) if not ours(route)])  # type: ignore[no-any-return]


def runs_in(cluster: Cluster) -> set[str | None]:
    """Return the runs whose routes are in the object now."""
    object_ = cluster.objects.get(REF)
    return set() if object_ is None else {our_run(route) for route in _ours_in(object_)}


def _taker(object_: Object, request: RequestFacts) -> Object | None:
    at = decide(object_, request, SIDECAR)
    return None if at is None else http_routes(object_)[at]


def _but_ours(object_: Object) -> Object:
    """Return *object_* without anything of ours and without what the server counts."""
    metadata = {key: value for key, value in object_["metadata"].items() if key not in ("resourceVersion", "uid")}
    annotations = metadata.pop("annotations", None) or {}
    metadata["annotations"] = {key: value for key, value in annotations.items() if key != FENCE_ANNOTATION}
    spec = {**object_["spec"], "http": [route for route in object_["spec"]["http"] if not ours(route)]}
    return {**object_, "metadata": metadata, "spec": spec}


def planner(mesh: SimMesh, run: str) -> Callable[[], Any]:
    """Return what plans an injection for *run* from the object as *mesh* shows it."""

    async def plan() -> Injection:
        object_ = await mesh.read(REF)
        if _ours_in(object_) and run == RUN:
            raise PlanRefused("already_injected", "it carries a twin")
        now_s = int(EPOCH_S + asyncio.get_running_loop().time())
        return injection(object_, "inventory", run=run, created_s=now_s, expires_s=now_s + TTL_S, fault=FAULT)

    return plan


async def _sweep(process: Process) -> None:
    await Reaper(process.mesh, process.clock).sweep()


async def _restore_all(process: Process) -> None:
    found, _ = await find_injected(process.mesh, None)
    await put_back(process.mesh, found, clock=process.clock, patience_s=PATIENCE_S)


async def _second_luff(process: Process) -> None:
    """Be another luff on the same object, one that does not ask for the lock: a split brain."""
    hands = Hands(process.mesh, MemoryJournal(killed=process.dead), NoWatcher(), process.clock)
    async with injected(planner(process.mesh, SECOND_RUN), hands, patience_s=PATIENCE_S):
        await process.clock.sleep(BODY_S)


async def ended(work: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for what other processes do; that one dies or gives up is part of a play, a violation ends it."""
    for task in work:
        with contextlib.suppress(LuffError, Killed):
            await task
