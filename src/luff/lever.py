"""
The lever: the global stop, kept where the routes are.

It is a ConfigMap named ``luff-lever`` in a namespace, or in ``luff-system``
for all of them. Absent means off. Anything but a clear answer means that
nothing may be injected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from luff.clock import Clock
from luff.errors import Conflict, MeshBusy, MeshError, MeshUnreachable, NotFound, RunAborted
from luff.mesh import Kind, Mesh, Ref
from luff.words import Object

__all__ = [
    "LEVER",
    "SYSTEM_NAMESPACE",
    "LeverPulled",
    "check_lever",
    "levers",
    "pull_lever",
    "put_lever_back",
    "read_lever",
]

LEVER = "luff-lever"
SYSTEM_NAMESPACE = "luff-system"
PULL_WITHIN_S = 60.0
"""How long pulling the lever goes on against an API server that is away."""
PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class LeverPulled:
    """This is a lever that is on: in which namespace, by whom, why and since when (ISO 8601, or empty)."""

    namespace: str
    who: str
    why: str
    when: str

    def __str__(self) -> str:
        scope = "everywhere" if self.namespace == SYSTEM_NAMESPACE else f"in {self.namespace}"
        return (
            f"the lever is on {scope}: {self.who} pulled it{' at ' + self.when if self.when else ''}, since {self.why}"
        )


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


async def check_lever(mesh: Mesh, namespace: str) -> None:
    """Raise `RunAborted` when the lever is on for *namespace*, or cannot be read: no answer is not a yes."""
    try:
        pulled = await read_lever(mesh, namespace)
    except MeshError as error:
        raise RunAborted(
            "lever",
            f"the lever of {namespace} cannot be read, and no answer means stop: {error.message}",
            next_step=f"see that `kubectl get configmap {LEVER} -n {namespace}` answers",
        ) from error
    if pulled is not None:
        where = "" if pulled.namespace == SYSTEM_NAMESPACE else f" -n {pulled.namespace}"
        raise RunAborted("lever", str(pulled), next_step=f"ask them, then `luff lever off{where}`")


async def pull_lever(mesh: Mesh, namespace: str, *, who: str, why: str, clock: Clock) -> LeverPulled:
    """
    Put the lever of *namespace* on, and return it as it stands there.

    A server that is away is asked again for a minute; then, or when it says
    no, the `MeshError` is raised.
    """
    began_s = clock.monotonic_s()
    when = datetime.fromtimestamp(await _server_or_own_time_s(mesh, clock), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    wanted: Object = {
        "apiVersion": "v1",
        "kind": str(Kind.CONFIG_MAP),
        "metadata": {"name": LEVER, "namespace": namespace},
        "data": {"state": "on", "who": who, "why": why, "when": when},
    }
    while True:
        try:
            await _put(mesh, wanted)
            return LeverPulled(namespace, who, why, when)
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


async def put_lever_back(mesh: Mesh, namespace: str) -> bool:
    """Put the lever of *namespace* off; returns False when it was not on."""
    try:
        await mesh.delete(_ref(namespace))
    except NotFound:
        return False
    return True


async def _server_or_own_time_s(mesh: Mesh, clock: Clock) -> float:
    try:
        return await mesh.server_time_s()
    except MeshError:
        # Only for people to read; a stop waits for no clock.
        return clock.now_s()
