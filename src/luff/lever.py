"""
The lever: the global stop. It has two halves, and either of them stops runs.

In the cluster, where the routes are, it is a ConfigMap named ``luff-lever`` in
a namespace, or in ``luff-system`` for all of them; absent means off. In the
store it is a row (`luff.store.levers`), so that it also holds for whom the
cluster's half could not be written. What must stay true: anything but a clear
answer means that nothing may be injected, and neither half waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from luff.clock import Clock
from luff.errors import (
    Conflict,
    MeshBusy,
    MeshDenied,
    MeshError,
    MeshUnreachable,
    NotFound,
    Rejected,
    RunAborted,
    StoreError,
)
from luff.lifecycle import StoredLever
from luff.mesh import Kind, Mesh, Ref
from luff.words import Object

__all__ = [
    "LEVER",
    "SYSTEM_NAMESPACE",
    "LetGo",
    "LeverPulled",
    "Pulled",
    "Record",
    "check_lever",
    "check_record",
    "in_both",
    "let_go",
    "levers",
    "pull",
    "pull_lever",
    "put_lever_back",
    "read_lever",
    "recorded",
]

LEVER = "luff-lever"
SYSTEM_NAMESPACE = "luff-system"
PULL_WITHIN_S = 60.0
"""How long pulling the lever goes on against an API server that is away."""
PAUSE_S = 0.25
FOR_ALL = "all-namespaces"
"""The ``scope`` of a ConfigMap that stands in a namespace for want of one in `SYSTEM_NAMESPACE`."""


@dataclass(frozen=True, slots=True)
class LeverPulled:
    """
    This is a lever that is on: in which namespace, by whom, why and since when (ISO 8601, or empty).

    *stands_in* says that it was pulled for all namespaces and is in this one
    for want of a better place; *cluster* and *store* in which halves it is on.
    """

    namespace: str
    who: str
    why: str
    when: str
    stands_in: bool = False
    cluster: bool = True
    store: bool = False

    def __str__(self) -> str:
        scope = "everywhere" if self.namespace == SYSTEM_NAMESPACE else f"in {self.namespace}"
        half = (
            "" if self.cluster and self.store else ", in the cluster alone" if self.cluster else ", in the store alone"
        )
        return f"the lever is on {scope}{half}: {self._said()}"

    def _said(self) -> str:
        return f"{self.who} pulled it{' at ' + self.when if self.when else ''}, since {self.why}"

    def refusal(self) -> RunAborted:
        """Return what a run under it ends with."""
        scope = "everywhere" if self.namespace == SYSTEM_NAMESPACE else f"in {self.namespace}"
        where = "" if self.stands_in or self.namespace == SYSTEM_NAMESPACE else f" -n {self.namespace}"
        return RunAborted(
            "lever", f"the lever is on {scope}: {self._said()}", next_step=f"ask them, then `luff lever off{where}`"
        )


class Record(Protocol):
    """This is the store's half of the levers of one mesh: `luff.store.Levers`. Every method raises `luff.errors.StoreError`."""

    async def pull(self, namespace: str | None, *, who: str, why: str) -> StoredLever:
        """Put the lever of *namespace* on, ``None`` for all of them."""

    async def let_go(self, namespace: str | None) -> bool:
        """Put it off; False when it was not on."""

    async def pulled(self) -> Sequence[StoredLever]:
        """Return every one that is on."""


def _ref(namespace: str) -> Ref:
    return Ref(Kind.CONFIG_MAP, namespace, LEVER)


async def _lever_in(mesh: Mesh, namespace: str) -> LeverPulled | None:
    try:
        found = await mesh.read(_ref(namespace))
    except NotFound:
        return None
    # Whatever a hand has written there: the object is there, so the lever is on.
    data: Any = found.get("data")
    said = data if isinstance(data, dict) else {}
    return LeverPulled(
        namespace,
        str(said.get("who") or "somebody"),
        str(said.get("why") or "(no reason given)"),
        str(said.get("when") or ""),
        stands_in=said.get("scope") == FOR_ALL,
    )


async def read_lever(mesh: Mesh, namespace: str) -> LeverPulled | None:
    """Return the lever that stops runs in *namespace*, or ``None`` when both are off. Raises `MeshError` when unreadable."""
    for where in (namespace, SYSTEM_NAMESPACE):
        if pulled := await _lever_in(mesh, where):
            return pulled
    return None


async def levers(mesh: Mesh, namespaces: Iterable[str]) -> list[LeverPulled]:
    """Return every lever that is on in *namespaces*, in their order. Raises `MeshError` when one is unreadable."""
    found = await asyncio.gather(*(_lever_in(mesh, namespace) for namespace in namespaces))
    return [pulled for pulled in found if pulled is not None]


async def recorded(record: Record) -> list[LeverPulled]:
    """Return every lever that is on in the store. Raises `StoreError` when it cannot be read."""
    return [
        LeverPulled(each.namespace or SYSTEM_NAMESPACE, each.who, each.why, _iso(each.at), cluster=False, store=True)
        for each in await record.pulled()
    ]


def in_both(in_cluster: Iterable[LeverPulled], in_store: Iterable[LeverPulled]) -> list[LeverPulled]:
    """Return each lever once, with the halves in which it is on; the cluster's words come first."""
    found = {each.namespace: each for each in in_cluster}
    for each in in_store:
        there = found.get(each.namespace)
        found[each.namespace] = each if there is None else replace(there, store=True)
    return list(found.values())


async def check_lever(mesh: Mesh, namespace: str) -> None:
    """Raise `RunAborted` when the cluster's lever is on for *namespace*, or cannot be read: no answer is not a yes."""
    try:
        pulled = await read_lever(mesh, namespace)
    except MeshError as error:
        raise RunAborted(
            "lever",
            f"the lever of {namespace} cannot be read, and no answer means stop: {error.message}",
            next_step=f"see that `kubectl get configmap {LEVER} -n {namespace}` answers",
        ) from error
    if pulled is not None:
        raise pulled.refusal()


async def check_record(record: Record | None, namespace: str) -> None:
    """
    Raise `RunAborted` when the store's lever is on for *namespace*; with no *record* there is nothing to ask.

    Raises `StoreError` when it cannot be read. That refuses a new run; one
    that is live is not the store's to end.
    """
    if record is None:
        return
    for each in await recorded(record):
        if each.namespace in (namespace, SYSTEM_NAMESPACE):
            raise each.refusal()


@dataclass(frozen=True, slots=True)
class Pulled:
    """
    This is what became of pulling the lever for *namespace*, ``None`` for all of them.

    *namespaces* say where the cluster's half is on. Without a *cluster_error*
    that is all that was meant; with one for all of them, *namespaces* are those
    in which a ConfigMap stands in, and *open_* those where it could not be put,
    ``None`` when they are not even known. *store_error* is why the store's half is not on.
    """

    namespace: str | None
    namespaces: tuple[str, ...] = ()
    open_: tuple[str, ...] | None = ()
    cluster_error: MeshError | None = None
    store_error: StoreError | None = None

    @property
    def holds(self) -> bool:
        """Return whether no run that was meant can start: all of them ask the cluster's half."""
        return self.cluster_error is None or (bool(self.namespaces) and self.open_ == ())


async def pull(mesh: Mesh, record: Record | None, namespace: str | None, *, who: str, why: str, clock: Clock) -> Pulled:
    """
    Put both halves of the lever of *namespace* on, ``None`` for all of them, and return what became of that.

    Raises nothing that a half may raise: neither may keep the other from being
    pulled. Where ``luff-system`` is missing it is made; where that is forbidden,
    a ConfigMap in every namespace that may be written stands in for it.
    """
    # Side by side: a database that is away takes its time to say so, and nobody has that now.
    done, store_error = await asyncio.gather(
        _pull_in_cluster(mesh, namespace, who=who, why=why, clock=clock), _pull_in_store(record, namespace, who, why)
    )
    return replace(done, store_error=store_error)


async def _pull_in_store(record: Record | None, namespace: str | None, who: str, why: str) -> StoreError | None:
    if record is None:
        return None
    try:
        await record.pull(namespace, who=who, why=why)
    except StoreError as error:
        return error
    return None


async def _pull_in_cluster(mesh: Mesh, namespace: str | None, *, who: str, why: str, clock: Clock) -> Pulled:
    where = namespace or SYSTEM_NAMESPACE
    try:
        await pull_lever(mesh, where, who=who, why=why, clock=clock)
    except (MeshDenied, NotFound, Rejected) as error:
        if namespace is None:
            return await _stand_in(mesh, error, who=who, why=why, clock=clock)
        return Pulled(namespace, open_=(namespace,), cluster_error=error)
    except MeshError as error:
        return Pulled(namespace, open_=None, cluster_error=error)
    return Pulled(namespace, (where,))


async def _stand_in(mesh: Mesh, refused: MeshError, *, who: str, why: str, clock: Clock) -> Pulled:
    """Put a lever into every namespace that may be written, since there can be none for all of them."""
    known = await _namespaces(mesh)
    if known is None:
        return Pulled(None, open_=None, cluster_error=refused)
    tried = await asyncio.gather(
        *(pull_lever(mesh, each, who=who, why=why, clock=clock, scope=FOR_ALL) for each in known),
        return_exceptions=True,
    )
    for error in tried:
        if isinstance(error, BaseException) and not isinstance(error, MeshError):
            raise error
    stopped = tuple(each for each, done in zip(known, tried, strict=True) if isinstance(done, LeverPulled))
    left = tuple(each for each in known if each not in stopped)
    return Pulled(None, stopped, open_=left, cluster_error=refused)


async def _namespaces(mesh: Mesh) -> list[str] | None:
    """Return every namespace, or those that have VirtualServices where they may not be listed; ``None`` when neither may."""
    try:
        return sorted(str(each["metadata"]["name"]) for each in await mesh.list(Kind.NAMESPACE, None))
    except MeshError:
        pass
    try:
        return sorted({str(each["metadata"]["namespace"]) for each in await mesh.list(Kind.VIRTUAL_SERVICE, None)})
    except MeshError:
        return None


async def pull_lever(
    mesh: Mesh, namespace: str, *, who: str, why: str, clock: Clock, scope: str | None = None
) -> LeverPulled:
    """
    Put the cluster's lever of *namespace* on, and return it as it stands there.

    A server that is away is asked again for a minute; then, or when it says
    no, the `MeshError` is raised.
    """
    began_s = clock.monotonic_s()
    when = _iso(datetime.fromtimestamp(await _server_or_own_time_s(mesh, clock), UTC))
    data = {"state": "on", "who": who, "why": why, "when": when, **({} if scope is None else {"scope": scope})}
    wanted: Object = {
        "apiVersion": "v1",
        "kind": str(Kind.CONFIG_MAP),
        "metadata": {"name": LEVER, "namespace": namespace},
        "data": data,
    }
    while True:
        try:
            await _put(mesh, wanted)
            return LeverPulled(namespace, who, why, when, stands_in=scope == FOR_ALL)
        except (MeshUnreachable, MeshBusy, Conflict):
            if clock.monotonic_s() - began_s > PULL_WITHIN_S:
                raise
        await clock.sleep(PAUSE_S)


async def _put(mesh: Mesh, wanted: Object) -> None:
    try:
        await mesh.create(wanted)
    except Conflict:
        there = await mesh.read(Ref.of(wanted))
        await mesh.replace({**there, "data": wanted["data"]})
    except NotFound:
        # Only ours is made: a user's namespace that is not there has no routes either.
        if wanted["metadata"]["namespace"] != SYSTEM_NAMESPACE:
            raise
        with contextlib.suppress(Conflict):  # somebody was quicker
            await mesh.create({"apiVersion": "v1", "kind": str(Kind.NAMESPACE), "metadata": {"name": SYSTEM_NAMESPACE}})
        await mesh.create(wanted)


@dataclass(frozen=True, slots=True)
class LetGo:
    """This is what became of letting go: whether it was on at all, and why a half may be on still."""

    was_on: bool
    cluster_errors: tuple[tuple[str, MeshError], ...] = ()
    store_error: StoreError | None = None

    @property
    def is_off(self) -> bool:
        """Return whether both halves are off."""
        return not self.cluster_errors and self.store_error is None


async def let_go(mesh: Mesh, record: Record | None, namespace: str | None) -> LetGo:
    """
    Put both halves of the lever of *namespace* off, ``None`` for the one over all, and return what became of that.

    The one over all takes with it what stands in for it elsewhere.
    """
    was_on, errors = False, list[tuple[str, MeshError]]()
    for where in [namespace or SYSTEM_NAMESPACE, *(await _standing_in(mesh) if namespace is None else [])]:
        try:
            was_on |= await put_lever_back(mesh, where)
        except MeshError as error:
            errors.append((where, error))
    store_error: StoreError | None = None
    if record is not None:
        try:
            was_on |= await record.let_go(namespace)
        except StoreError as error:
            store_error = error
    return LetGo(was_on, tuple(errors), store_error)


async def _standing_in(mesh: Mesh) -> list[str]:
    found = []
    for namespace in await _namespaces(mesh) or []:
        try:
            pulled = await _lever_in(mesh, namespace)
        except MeshError:
            continue
        if pulled is not None and pulled.stands_in:
            found.append(namespace)
    return found


async def put_lever_back(mesh: Mesh, namespace: str) -> bool:
    """Put the cluster's lever of *namespace* off; returns False when it was not on."""
    try:
        await mesh.delete(_ref(namespace))
    except NotFound:
        return False
    return True


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


async def _server_or_own_time_s(mesh: Mesh, clock: Clock) -> float:
    try:
        return await mesh.server_time_s()
    except MeshError:
        # Only for people to read; a stop waits for no clock.
        return clock.now_s()
