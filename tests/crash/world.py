"""
One play of the protocol on a simulated API server: what may happen, and what must hold whatever does.

The code under test is the product's own: `lock`, `inject`, `withdraw`,
`restore`, `reaper`. A schedule says what happens to which call of the run, at
which of its awaits the process is killed, whether its guard lives, and what
somebody else writes at which call. At the end only one look of a reaper with
no memory is left. A violation is raised at the very write that commits it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from luff.errors import LuffError, PlanRefused, RunAborted
from luff.inject import Hands, injected
from luff.lifecycle import Phase
from luff.lock import locked
from luff.mesh import Kind, Ref
from luff.model import Delay, Fault, Object, Target
from luff.names import http_routes, our_run, ours, tampered
from luff.patches import clone
from luff.reaper import Reaper
from luff.restore import find_injected, put_back
from luff.routes import Injection, inject, select
from luff.scope import Scope
from luff.testing import EPOCH_S, Cluster, Killed, MemoryJournal, NoWatcher, SimClock, SimMesh, Trouble, VirtualLoop
from luff.withdraw import FENCE_ANNOTATION, withdraw

__all__ = ["BASE", "REF", "RUN", "WRITERS", "Played", "Schedule", "Violation", "planner", "play", "shrink"]

REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "inventory")
RUN = "0123456789abcdef"
SECOND_RUN = "fedcba9876543210"
TTL_S = 600
BODY_S = 0.05
PATIENCE_S = 60.0
LATER_S = 0.06
"""When an editor that was opened at a boundary saves: around the withdrawal."""
OVER_S = 2.0 * TTL_S
"""By then everything has arrived that was on the wire, and the time of every twin is over."""

BASE: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "inventory", "namespace": "shop"},
    "spec": {
        "hosts": ["inventory"],
        "unknownToUs": {"keep": [1, 2]},
        "http": [
            {
                "name": "canary",
                "match": [{"headers": {"x-canary": {"exact": "1"}}}],
                "route": [{"destination": {"host": "inventory", "subset": "v2"}}],
            },
            {"name": "default", "route": [{"destination": {"host": "inventory"}, "weight": 100}], "timeout": "5s"},
        ],
    },
}


class Violation(BaseException):
    """This is an invariant that did not hold. A restorer goes on after every `Exception`; after this it must not."""


# --- what others do to the object, in place


def _weights(object_: Object) -> None:
    for route in object_["spec"]["http"]:
        if route.get("name") == "default":
            route["route"][0]["weight"] = 90


def _new_route(object_: Object) -> None:
    object_["spec"]["http"].insert(
        0, {"name": "hotfix", "match": [{"uri": {"exact": "/fix"}}], "route": [{"destination": {"host": "inventory"}}]}
    )


def _append(object_: Object) -> None:
    object_["spec"]["http"].append({"name": "last", "route": [{"destination": {"host": "inventory"}}]})


def _reorder(object_: Object) -> None:
    object_["spec"]["http"].reverse()


def _drop_route(object_: Object) -> None:
    object_["spec"]["http"] = [route for route in object_["spec"]["http"] if route.get("name") != "canary"]


def _gitops_revert(object_: Object) -> None:
    object_["spec"] = clone(BASE["spec"])


def _annotate(object_: Object) -> None:
    object_["metadata"].setdefault("annotations", {})["team"] = "shop"


def _replace_annotations(object_: Object) -> None:
    object_["metadata"]["annotations"] = {"managed-by": "flagger"}


def _look_alike(object_: Object) -> None:
    object_["spec"]["http"].insert(0, {"name": "luff.frontend", "route": [{"destination": {"host": "inventory"}}]})


def _to_ours(change: Callable[[Object], None]) -> Callable[[Object], None]:
    def to_each(object_: Object) -> None:
        for route in object_["spec"]["http"]:
            if ours(route):
                change(route)

    return to_each


def _drop_ours(object_: Object) -> None:
    object_["spec"]["http"] = [route for route in object_["spec"]["http"] if not ours(route)]


def _double_ours(object_: Object) -> None:
    object_["spec"]["http"] += [clone(route) for route in object_["spec"]["http"] if ours(route)]


EDITS: dict[str, Callable[[Object], None]] = {
    "weights": _weights,
    "new route on top": _new_route,
    "new route below": _append,
    "reorder": _reorder,
    "drop route": _drop_route,
    "gitops revert": _gitops_revert,
    "annotate": _annotate,
    "replace annotations": _replace_annotations,
    "look-alike": _look_alike,
    "drop ours": _drop_ours,
    "double ours": _double_ours,
    "strip the scope of ours": _to_ours(lambda route: route.pop("match", None)),
    "strip the fault of ours": _to_ours(lambda route: route.pop("fault", None)),
    "rename ours": _to_ours(lambda route: route.update(name="luff.renamed")),
    "break the name of ours": _to_ours(lambda route: route.update(name=f"luff.1.{RUN}.broken")),
}
OTHERS = ("stale editor", "delete", "recreate from git", "recreate from a dump", "reaper", "restore all", "second luff")
WRITERS = ("nobody", *EDITS, *OTHERS)
LATE_S = (1.0, 5.0, 60.0, TTL_S - 20.0)


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    This is what happens.

    *troubles* by number of the run's call; *kill_at* the number of the await
    at which the run's process ends; a *writer* at the call *write_at*; *guard*
    whether somebody watches over the process; *late_s* how long after its
    timeout a late request arrives.
    """

    troubles: tuple[tuple[int, Trouble], ...] = ()
    kill_at: int | None = None
    writer: str = "nobody"
    write_at: int = 0
    guard: bool = False
    late_s: float = 5.0


@dataclass(slots=True)
class Played:
    """This is a play that is over: what of its schedule came to pass, the run's calls, and how many awaits there were."""

    happened: Schedule
    verbs: tuple[str, ...]
    points: int
    phases: tuple[Phase, ...]


@dataclass(slots=True)
class _World:
    schedule: Schedule
    cluster: Cluster = field(default_factory=Cluster)
    expected: Object | None = None
    """The object as it would be without any luff."""
    stranger: int = 0
    excused: bool = False
    """Somebody else has put our routes back; that they are there is not our doing any more."""
    tampered: bool = False
    before: Object | None = None
    verbs: list[str] = field(default_factory=list)
    points: int = 0
    troubles: list[tuple[int, Trouble]] = field(default_factory=list)
    wrote: bool = False
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    violation: Violation | None = None
    """The first one: whoever restores several objects keeps what one of them raised to itself."""

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
        elif writer == "reaper":
            self.tasks.append(asyncio.ensure_future(Reaper(SimMesh(self.cluster), SimClock()).sweep()))
        elif writer == "restore all":
            self.tasks.append(asyncio.ensure_future(_restore_all(self.cluster)))
        elif writer == "second luff":
            self.tasks.append(asyncio.ensure_future(self.second_luff()))

    @contextlib.contextmanager
    def as_stranger(self) -> Any:
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

    async def second_luff(self) -> None:
        """Run another luff on the same object, one that does not ask for the lock: a split brain."""
        mesh, clock = SimMesh(self.cluster), SimClock()
        hands = Hands(mesh, MemoryJournal(), NoWatcher(), clock)
        with contextlib.suppress(LuffError):
            async with injected(planner(mesh, SECOND_RUN), hands, patience_s=PATIENCE_S):
                await clock.sleep(BODY_S)

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
        if not self.tampered and any(tampered(route) for route in _ours_in(after)):
            raise self.violated("a twin without a scope was put in")


@dataclass(slots=True)
class _Journal(MemoryJournal):
    """This checks that what is written down is true."""

    world: _World | None = None

    def _move(self, run: str, phase: Phase) -> None:
        MemoryJournal._move(self, run, phase)
        world = self.world
        if phase is Phase.CLEAN and world is not None and not world.excused and run in _runs_in(world.cluster):
            raise world.violated("reported clean, and it is not")


def _ours_in(object_: Object) -> list[Object]:
    return [route for route in http_routes(object_) if ours(route)]


def _theirs(object_: Object) -> list[Object]:
    return clone([route for route in http_routes(object_) if not ours(route)])  # type: ignore[no-any-return]


def _runs_in(cluster: Cluster) -> set[str | None]:
    object_ = cluster.objects.get(REF)
    return set() if object_ is None else {our_run(route) for route in _ours_in(object_)}


def _but_ours(object_: Object) -> Object:
    """Return *object_* without anything of ours and without what the server counts."""
    metadata = {key: value for key, value in object_["metadata"].items() if key not in ("resourceVersion", "uid")}
    annotations = metadata.pop("annotations", None) or {}
    metadata["annotations"] = {key: value for key, value in annotations.items() if key != FENCE_ANNOTATION}
    spec = {**object_["spec"], "http": [route for route in object_["spec"]["http"] if not ours(route)]}
    return {**object_, "metadata": metadata, "spec": spec}


def planner(mesh: SimMesh, run: str) -> Callable[[], Any]:
    async def plan() -> Injection:
        object_ = await mesh.read(REF)
        if _ours_in(object_) and run == RUN:
            raise PlanRefused("already_injected", "it carries a twin")
        target = Target(host="inventory")
        now_s = int(EPOCH_S + asyncio.get_running_loop().time())
        return inject(
            object_,
            select(object_, target, namespace="shop"),
            run=run,
            created_s=now_s,
            expires_s=now_s + TTL_S,
            scope=Scope("a" * 32, "b" * 32),
            fault=_FAULT,
            target=target,
        )

    return plan


_FAULT = Fault(delay=Delay(duration_s=3.0))


async def _restore_all(cluster: Cluster) -> None:
    mesh = SimMesh(cluster)
    found, _ = await find_injected(mesh, None)
    await put_back(mesh, found, clock=SimClock(), patience_s=PATIENCE_S)


async def _story(world: _World) -> tuple[Phase, ...]:
    schedule, cluster = world.schedule, world.cluster
    cluster.add(BASE)
    world.expected = clone(BASE)
    world.before = cluster.objects[REF]
    cluster.on_write.append(world.check_write)
    troubles = dict(schedule.troubles)
    mesh = SimMesh(cluster, late_s=schedule.late_s)

    def point() -> bool:
        here = world.points
        world.points += 1
        return mesh.dead or here == schedule.kill_at

    def trouble(verb: str, _ref: Ref) -> Trouble:
        number = len(world.verbs)
        world.verbs.append(verb)
        if number == schedule.write_at:
            world.write()
        if number in troubles:
            world.troubles.append((number, troubles[number]))
            return troubles[number]
        return Trouble.NONE

    def dead() -> bool:
        mesh.dead = mesh.dead or point()
        return mesh.dead

    mesh.trouble, mesh.killed = trouble, dead
    journal = _Journal(killed=dead, world=world)
    clock, watcher = SimClock(killed=dead), NoWatcher()

    def check_armed(ref: Ref, after: Object | None) -> None:
        if ref == REF and after is not None and not world.stranger and RUN in _runs_in(cluster) - set(journal.intents):
            raise world.violated("injected before it was armed")

    cluster.on_write.append(check_armed)
    ended: list[RunAborted] = []

    async def run() -> None:
        hands = Hands(mesh, journal, watcher, clock)
        async with (
            locked(mesh, REF, run=RUN, holder="tester", clock=clock, stop=ended.append),
            injected(planner(mesh, RUN), hands, patience_s=PATIENCE_S),
        ):
            await clock.sleep(BODY_S)

    with contextlib.suppress(LuffError, Killed):
        await run()
    if mesh.dead and schedule.guard:
        for ref, injection in tuple(watcher.watched.values()):
            # What the guard does, without a limit.
            await withdraw(SimMesh(cluster), ref, run=RUN, clock=SimClock(), pinned=injection.resource_version)
            if not world.excused and RUN in _runs_in(cluster):
                raise world.violated("the guard says that it is clean, and it is not")
            journal.phases.setdefault(RUN, []).append(Phase.CLEAN)
    phases = tuple(journal.phases.get(RUN, ()))
    await asyncio.sleep(OVER_S / 2)
    if phases and phases[-1] is Phase.CLEAN and not world.excused and RUN in _runs_in(cluster):
        raise world.violated("it was clean, and came back")
    await asyncio.sleep(OVER_S / 2)
    for task in world.tasks:
        await task
    sweep = await Reaper(SimMesh(cluster), SimClock()).sweep()
    if sweep.errors:
        raise world.violated(f"the reaper could not: {sweep.errors}")
    _check_end(world)
    if not mesh.dead and not schedule.troubles and phases[-1:] not in ((Phase.CLEAN,), ()):
        raise world.violated(f"without trouble it ended as {phases}")
    return phases


def _check_end(world: _World) -> None:
    now = world.cluster.objects.get(REF)
    if now is None or world.expected is None:
        if now is not None or world.expected is not None:
            raise world.violated("the object is there, or is not, against somebody's will")
        return
    if _ours_in(now):
        raise world.violated(f"left behind: {[route['name'] for route in _ours_in(now)]}")
    if FENCE_ANNOTATION in (now["metadata"].get("annotations") or {}):
        raise world.violated("a fence was left behind")
    if _but_ours(now) != _but_ours(world.expected):
        raise world.violated("somebody's change was lost")


def play(schedule: Schedule) -> Played:
    """Play *schedule* to its end; raises `Violation` when an invariant does not hold."""
    world = _World(schedule)
    loop = VirtualLoop()
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
    late = any(trouble is Trouble.LATE for _, trouble in world.troubles)
    happened = Schedule(
        tuple(world.troubles),
        schedule.kill_at if schedule.kill_at is not None and schedule.kill_at < world.points else None,
        schedule.writer if world.wrote else "nobody",
        schedule.write_at if world.wrote else 0,
        guard=schedule.guard and schedule.kill_at is not None and schedule.kill_at < world.points,
        late_s=schedule.late_s if late else 5.0,
    )
    return Played(happened, tuple(world.verbs), world.points, phases)


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
    if schedule.kill_at is not None:
        found.append(replace(schedule, kill_at=None, guard=False))
    if schedule.guard:
        found.append(replace(schedule, guard=False))
    if schedule.writer != "nobody":
        found.append(replace(schedule, writer="nobody", write_at=0))
        found += [replace(schedule, write_at=at) for at in range(schedule.write_at)]
    return found
