"""
Fakes that luff ships, for users' tests and for ours: a mesh, a clock, a journal, the store's levers, a watcher.

`SimMesh` keeps what the restore protocol relies on, and nothing more: one
counter of resourceVersions for all objects, JSON Patch on the object as it is
stored, a stale resourceVersion is a conflict, a patch that changes nothing
moves nothing on. Its answers can be lost, late, doubled or stale, on command.

Everything is deterministic: time is the event loop's own, and `VirtualLoop`
jumps to the next timer instead of waiting for it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar, cast

from luff.errors import Conflict, MeshBusy, MeshDenied, MeshError, MeshUnreachable, NotFound, Rejected, StoreError
from luff.lifecycle import Intent, Phase, StoredLever, check_way
from luff.mesh import Kind, Operation, Ref
from luff.mesh.answers import error_of
from luff.model import Object
from luff.patches import apply, clone
from luff.routes import Injection

__all__ = [
    "Cluster",
    "Killed",
    "MemoryJournal",
    "MemoryLevers",
    "NoWatcher",
    "SetClock",
    "SimClock",
    "SimMesh",
    "Trouble",
    "VirtualLoop",
    "virtual_time",
]

T = TypeVar("T")

ANSWER_S = 0.002
"""How long a call takes."""
TIME_OUT_S = 10.0
"""How long a call waits for an answer that does not come."""
EPOCH_S = 1_800_000_000.0
"""The Unix time at which every simulation begins."""


class Killed(BaseException):
    """This is the end of a simulated process: whatever it calls from then on has no effect outside."""


class Trouble(StrEnum):
    """This is what may happen to one call."""

    NONE = "none"
    CONFLICT = "409"
    NOT_FOUND = "404"
    DENIED = "403"
    REJECTED = "422"
    BUSY = "429"
    ERROR = "500"
    LOST_BEFORE = "timeout, not applied"
    LOST_AFTER = "timeout, applied"
    LATE = "timeout, applied late"
    DAMAGED = "connection damaged, applied"
    DAMAGED_LATE = "connection damaged, applied late"
    TWICE = "applied twice"
    AGAIN = "applied twice, answered the second time"
    STALE = "stale read"


_REFUSALS: dict[Trouble, Callable[[Ref], MeshError]] = {
    Trouble.CONFLICT: lambda ref: Conflict(f"{ref} was changed meanwhile"),
    Trouble.NOT_FOUND: lambda ref: NotFound(f"{ref} is not there"),
    Trouble.DENIED: lambda ref: MeshDenied(f"{ref}: forbidden"),
    Trouble.REJECTED: lambda ref: Rejected(f"{ref}: a webhook says no"),
    Trouble.BUSY: lambda ref: MeshBusy(f"{ref}: too many requests", retry_after_s=1.0),
    Trouble.ERROR: lambda ref: MeshBusy(f"{ref}: internal error"),
}


@dataclass(slots=True)
class Cluster:
    """
    This is the API server's memory, shared by every `SimMesh` on it.

    *history* holds every state of every object, oldest first, so that a stale
    read has something to return and a test can look at what ever was. *ahead_s*
    is how far its clock is ahead of the loop's.
    """

    objects: dict[Ref, Object] = field(default_factory=dict)
    version: int = 100
    uids: int = 0
    history: dict[Ref, list[Object | None]] = field(default_factory=dict)
    on_write: list[Callable[[Ref, Object | None], None]] = field(default_factory=list)
    ahead_s: float = 0.0

    def add(self, object_: Object) -> Object:
        """Create *object_*; `Conflict` when there is one by that name."""
        ref = Ref.of(object_)
        if ref in self.objects:
            raise Conflict(f"{ref} is there already")
        fresh = clone(object_)
        self.uids += 1
        fresh["metadata"]["uid"] = f"uid-{self.uids}"
        return self._store(ref, fresh)

    def change(self, ref: Ref, operations: Sequence[Operation]) -> Object:
        """Apply a JSON Patch to what is stored now."""
        return self._put(ref, self._get(ref), self.tried(ref, operations))

    def tried(self, ref: Ref, operations: Sequence[Operation]) -> Object:
        """Return what a JSON Patch would make of what is stored now; `Conflict` when it does not apply."""
        try:
            return apply(self._get(ref), [dict(operation) for operation in operations])
        except ValueError as error:
            raise Conflict(f"{ref}: {error}") from error

    def put(self, object_: Object) -> Object:
        """Replace an object; its resourceVersion must be the stored one."""
        ref = Ref.of(object_)
        return self._put(ref, self._get(ref), clone(object_))

    def edit(self, ref: Ref, change: Callable[[Object], None]) -> None:
        """Let somebody else change the object in place, without a precondition."""
        after = clone(self._get(ref))
        change(after)
        self._put(ref, self._get(ref), after)

    def remove(self, ref: Ref, resource_version: str | None = None) -> None:
        """Delete an object, if *resource_version* is given only at that version."""
        now = self._get(ref)
        if resource_version not in (None, now["metadata"]["resourceVersion"]):
            raise Conflict(f"{ref} has moved on")
        self.version += 1
        del self.objects[ref]
        self.history.setdefault(ref, []).append(None)
        self._tell(ref, None)

    def _get(self, ref: Ref) -> Object:
        if ref not in self.objects:
            raise NotFound(f"{ref} is not there")
        return self.objects[ref]

    def _put(self, ref: Ref, before: Object, after: Object) -> Object:
        if after["metadata"].get("resourceVersion") not in (None, before["metadata"]["resourceVersion"]):
            raise Conflict(f"{ref} has moved on")
        if after["metadata"].get("uid") not in (None, before["metadata"]["uid"]):
            raise Conflict(f"{ref} is another object by now")
        if {**after, "metadata": {**after["metadata"], "resourceVersion": 0}} == {
            **before,
            "metadata": {**before["metadata"], "resourceVersion": 0},
        }:
            return before
        after["metadata"]["uid"] = before["metadata"]["uid"]
        return self._store(ref, after)

    def _store(self, ref: Ref, object_: Object) -> Object:
        self.version += 1
        object_["metadata"]["resourceVersion"] = str(self.version)
        self.objects[ref] = object_
        self.history.setdefault(ref, []).append(object_)
        self._tell(ref, object_)
        return object_

    def _tell(self, ref: Ref, object_: Object | None) -> None:
        for listener in self.on_write:
            listener(ref, object_)


@dataclass(slots=True)
class SimClock:
    """This is the loop's own time. A process that was *killed* is told so at its next wait."""

    killed: Callable[[], bool] = lambda: False
    skew_s: float = 0.0

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    def now_s(self) -> float:
        return EPOCH_S + self.monotonic_s() + self.skew_s

    async def sleep(self, seconds: float) -> None:
        if self.killed():
            raise Killed
        await asyncio.sleep(seconds)
        if self.killed():
            raise Killed


@dataclass(slots=True)
class SetClock:
    """This is a clock that stands where it is set; who sleeps on it is back at once."""

    at: datetime

    def now_s(self) -> float:
        return self.at.timestamp()

    def monotonic_s(self) -> float:
        return self.at.timestamp()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@dataclass(slots=True)
class SimMesh:
    """
    This is one process's way to a `Cluster`.

    *trouble* is asked before each call, with its verb and object, for what
    shall happen to it. *late_s* is how much later than its timeout, or than the
    end of its connection, a late patch is applied. *killed* is asked before each request leaves and before
    each answer is heard. After `kill` nothing that this process does has
    effect; what is on the wire already may still arrive.
    """

    cluster: Cluster
    trouble: Callable[[str, Ref], Trouble] = lambda _verb, _ref: Trouble.NONE
    kind: Literal["lab", "cluster"] = "cluster"
    name: str = "simulated"
    kubeconfig: str | None = None
    late_s: float = 5.0
    killed: Callable[[], bool] = lambda: False
    dead: bool = False
    calls: list[tuple[str, Ref]] = field(default_factory=list)

    def kill(self) -> None:
        """End this process, as -9 does."""
        self.dead = True

    async def read(self, ref: Ref) -> Object:
        return await self._call("read", ref, lambda: self.cluster._get(ref))

    async def list(self, kind: Kind, namespace: str | None) -> list[Object]:
        def found() -> list[Object]:
            return [
                each
                for ref, each in sorted(self.cluster.objects.items())
                if ref.kind is kind and namespace in (None, ref.namespace)
            ]

        return await self._call("list", Ref(kind, namespace or "", "*"), found)

    async def create(self, object_: Object, *, dry_run: bool = False) -> Object:
        ref = Ref.of(object_)
        if dry_run:
            return await self._call("dry-run", ref, lambda: object_)
        return await self._call("create", ref, lambda: self.cluster.add(object_))

    async def patch(self, ref: Ref, operations: Sequence[Operation], *, dry_run: bool = False) -> Object:
        if dry_run:
            return await self._call("dry-run", ref, lambda: self.cluster.tried(ref, operations))
        return await self._call("patch", ref, lambda: self.cluster.change(ref, operations))

    async def replace(self, object_: Object) -> Object:
        return await self._call("replace", Ref.of(object_), lambda: self.cluster.put(object_))

    async def delete(self, ref: Ref, *, resource_version: str | None = None) -> None:
        await self._call("delete", ref, lambda: self.cluster.remove(ref, resource_version))

    async def server_time_s(self) -> float:
        clock = Ref(Kind.NAMESPACE, "", "(server clock)")

        def now_s() -> float:
            return float(int(EPOCH_S + asyncio.get_running_loop().time() + self.cluster.ahead_s))

        return await self._call("time", clock, now_s)

    def _check_alive(self) -> None:
        if self.dead or self.killed():
            self.dead = True
            raise Killed

    async def _call(self, verb: str, ref: Ref, act: Callable[[], T]) -> T:
        self._check_alive()
        self.calls.append((verb, ref))
        trouble = self.trouble(verb, ref)
        await asyncio.sleep(ANSWER_S)
        # The request has left: it is applied even if its sender dies now.
        answer = await self._carry_out(trouble, verb, ref, act)
        await asyncio.sleep(ANSWER_S)
        self._check_alive()
        return cast("T", clone(answer))

    async def _carry_out(self, trouble: Trouble, verb: str, ref: Ref, act: Callable[[], T]) -> T:
        if trouble is Trouble.NONE:
            return act()
        if trouble in _REFUSALS:
            raise _REFUSALS[trouble](ref)
        if trouble is Trouble.STALE:
            return self._stale(verb, ref, act)
        if trouble is Trouble.LATE:
            asyncio.get_running_loop().call_later(TIME_OUT_S + self.late_s, self._too_late, act)
        if trouble is Trouble.DAMAGED_LATE:
            asyncio.get_running_loop().call_later(self.late_s, self._too_late, act)
        if trouble in (Trouble.LOST_AFTER, Trouble.TWICE, Trouble.AGAIN, Trouble.DAMAGED):
            answer = act()
            if trouble is Trouble.TWICE:
                self._too_late(act)
                return answer
            if trouble is Trouble.AGAIN:
                return act()
        if trouble in (Trouble.DAMAGED, Trouble.DAMAGED_LATE):
            # It breaks off after the request was read, so what that means is for the product to say.
            raise error_of(ref, 0, "TLS: bad record", None)
        if trouble in (Trouble.LOST_BEFORE, Trouble.LOST_AFTER, Trouble.LATE):
            await asyncio.sleep(TIME_OUT_S)
            self._check_alive()
            raise MeshUnreachable(f"{ref}: no answer")
        return act()

    def _stale(self, verb: str, ref: Ref, act: Callable[[], T]) -> T:
        """Return what was there one change ago, as a replica that lags does; writes are never stale."""
        if verb == "list":
            found = cast("list[Object]", act())
            return cast("T", [self._before(Ref.of(each)) or each for each in found])
        old = self._before(ref) if verb == "read" else None
        return act() if old is None else cast("T", old)

    def _before(self, ref: Ref) -> Object | None:
        past = self.cluster.history.get(ref, [])
        return past[-2] if len(past) > 1 else None

    @staticmethod
    def _too_late(act: Callable[[], Any]) -> None:
        try:
            act()
        except (Conflict, NotFound):
            # The API server refused it; nobody is listening any more.
            return


@dataclass(slots=True)
class MemoryJournal:
    """
    This is a journal in memory that survives its process, as a database would.

    *broken* makes every write fail from then on.
    """

    intents: dict[str, Intent] = field(default_factory=dict)
    phases: dict[str, list[Phase]] = field(default_factory=dict)
    broken: bool = False
    killed: Callable[[], bool] = lambda: False

    async def arm(self, intent: Intent) -> None:
        await self._commit()
        self.intents[intent.run] = intent
        self._move(intent.run, Phase.ARMED)

    async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
        await self._commit()
        self._move(run, phase)

    async def _commit(self) -> None:
        if self.killed():
            raise Killed
        await asyncio.sleep(ANSWER_S)
        if self.killed():
            raise Killed
        if self.broken:
            raise StoreError("the disk is full")

    def _move(self, run: str, phase: Phase) -> None:
        passed = self.phases.setdefault(run, [Phase.PLANNED])
        check_way(passed[-1], phase)
        passed.append(phase)


@dataclass(slots=True)
class MemoryLevers:
    """
    This is the store's half of the levers, in memory.

    *broken* makes every call fail from then on.
    """

    on: dict[str | None, StoredLever] = field(default_factory=dict)
    broken: bool = False

    async def pull(self, namespace: str | None, *, who: str, why: str) -> StoredLever:
        self._check()
        at = datetime.fromtimestamp(EPOCH_S + asyncio.get_running_loop().time(), UTC)
        self.on[namespace] = StoredLever(namespace, who, why, at)
        return self.on[namespace]

    async def let_go(self, namespace: str | None) -> bool:
        self._check()
        return self.on.pop(namespace, None) is not None

    async def pulled(self) -> Sequence[StoredLever]:
        self._check()
        return list(self.on.values())

    def _check(self) -> None:
        if self.broken:
            raise StoreError("the database is away")


@dataclass(slots=True)
class NoWatcher:
    """This is a watcher that only remembers what it was told."""

    watched: dict[str, tuple[Ref, Injection]] = field(default_factory=dict)
    taken_over: list[str] = field(default_factory=list)

    async def watch(self, ref: Ref, injection: Injection) -> None:
        self.watched[injection.run] = (ref, injection)

    async def release(self, run: str) -> None:
        self.watched.pop(run, None)

    async def take_over(self, run: str) -> None:
        self.taken_over.append(run)


class _NoSelector(selectors.BaseSelector):
    """This is a selector without files: it answers at once, and tells the loop to move its time on."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        self._advance = advance
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._advance(timeout)
        return []

    def get_map(self) -> dict[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """This is an event loop whose time jumps to the next timer. It opens nothing and waits for nothing."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_NoSelector(self._advance))

    def time(self) -> float:
        return self._now_s

    def _advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise RuntimeError("nothing is left to happen, and somebody still waits")
        self._now_s += timeout


@contextmanager
def virtual_time() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Yield a function that runs an awaitable to its end in virtual time."""
    loop = VirtualLoop()

    def run(work: Awaitable[Any]) -> Any:
        return loop.run_until_complete(work)

    try:
        yield run
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.close()
