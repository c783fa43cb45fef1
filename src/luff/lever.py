"""
The lever: the global stop, kept where the routes are.

It is a ConfigMap named ``luff-lever`` in a namespace, or in ``luff-system``
for all of them. Absent means off. Anything but a clear answer means that
nothing may be injected.
"""

from __future__ import annotations

from dataclasses import dataclass

from luff.errors import MeshError, NotFound, RunAborted
from luff.mesh import Kind, Mesh, Ref

__all__ = ["LEVER", "SYSTEM_NAMESPACE", "LeverPulled", "check_lever", "read_lever"]

LEVER = "luff-lever"
SYSTEM_NAMESPACE = "luff-system"


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


async def read_lever(mesh: Mesh, namespace: str) -> LeverPulled | None:
    """Return the lever that stops runs in *namespace*, or ``None`` when both are off. Raises `MeshError` when unreadable."""
    for where in (namespace, SYSTEM_NAMESPACE):
        try:
            found = await mesh.read(Ref(Kind.CONFIG_MAP, where, LEVER))
        except NotFound:
            continue
        said = found.get("data") or {}
        return LeverPulled(
            where, said.get("who", "somebody"), said.get("why", "(no reason given)"), said.get("when", "")
        )
    return None


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
        raise RunAborted("lever", str(pulled), next_step=f"ask them, or delete ConfigMap {pulled.namespace}/{LEVER}")
