"""
The sign of life of a restorer that is not us: the reaper's Lease.

A guard is a child of luff; where killing the container takes both, somebody
else has to be there, before anything is injected and for as long as it is. To
be alive is not enough for that. What must stay true: a reaper says that it
covers a namespace only after the API server has let it try a removal there.

The Lease holds, for each namespace, when that was: several reapers with
different namespaces share it, and none speaks for another.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from luff.clock import Clock
from luff.errors import Conflict, MeshError, NoGuard, NotFound
from luff.lever import SYSTEM_NAMESPACE
from luff.mesh import Kind, Mesh, Ref
from luff.words import Object

__all__ = ["COVERS", "HEARTBEAT", "HEARTBEAT_S", "beat", "check_heartbeat", "heartbeat_lost"]

HEARTBEAT = "luff-reaper"
HEARTBEAT_S = 30
"""How long a heartbeat counts as fresh, by the API server's clock."""
COVERS = "luff.dev/covers"
"""The annotation with a JSON object: when, in Unix seconds, it was last shown of a namespace that a route could be removed there."""
LOOK_EVERY_S = 10.0
LOOKS_MISSED = 2
"""After so many looks in a row without a good answer the reaper counts as lost: one may meet an API server that is busy."""
BEAT_TRIES = 5
SHOWN_MOST = 5


async def check_heartbeat(mesh: Mesh, namespace: str) -> None:
    """Raise `NoGuard` unless a reaper has shown within the last 30 s that it could remove a route in *namespace*."""
    try:
        lease = await mesh.read(Ref(Kind.LEASE, SYSTEM_NAMESPACE, HEARTBEAT))
        now_s = await mesh.server_time_s()
    except NotFound:
        raise _nobody("no reaper has ever been at work here") from None
    except MeshError as error:
        raise _nobody(f"the reaper's heartbeat cannot be read: {error.message}") from error
    age_s = now_s - _seconds((lease.get("spec") or {}).get("renewTime"))
    if age_s > HEARTBEAT_S:
        raise _nobody(f"the reaper's last heartbeat is {age_s:.0f} s old")
    fresh = sorted(each for each, at_s in _covered(lease).items() if now_s - at_s <= HEARTBEAT_S)
    if namespace not in fresh:
        shown = ", ".join(fresh[:SHOWN_MOST]) + (", …" if len(fresh) > SHOWN_MOST else "")
        raise _nobody(
            f"no reaper has shown of late that it could remove a route in {namespace}"
            f" (it has in: {shown or 'no namespace'})"
        )


async def heartbeat_lost(mesh: Mesh, namespace: str, *, clock: Clock) -> NoGuard:
    """Come back, with what is missing, once *namespace* has gone uncovered for two looks in a row, 10 s apart."""
    missed = 0
    while True:
        await clock.sleep(LOOK_EVERY_S)
        try:
            await check_heartbeat(mesh, namespace)
            missed = 0
        except NoGuard as error:
            missed += 1
            if missed >= LOOKS_MISSED:
                return error


async def beat(mesh: Mesh, home: str, *, identity: str, covers: Mapping[str, float], now_s: float) -> None:
    """
    Renew the Lease in *home*: *identity* could have removed a route in each of *covers*, at that time.

    What other reapers said of other namespaces stays for as long as it is
    fresh. Raises `MeshError` when it cannot be written.
    """
    ref = Ref(Kind.LEASE, home, HEARTBEAT)
    spec = {
        "holderIdentity": identity,
        "leaseDurationSeconds": HEARTBEAT_S,
        "renewTime": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    for tries_left in reversed(range(BEAT_TRIES)):
        try:
            try:
                there = await mesh.read(ref)
                await mesh.replace(_renewed(there, spec, covers, now_s=now_s))
            except NotFound:
                bare: Object = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": str(Kind.LEASE),
                    "metadata": {"name": HEARTBEAT, "namespace": home},
                }
                await mesh.create(_renewed(bare, spec, covers, now_s=now_s))
            return
        except Conflict:
            # Another reaper has just beaten, perhaps for other namespaces; ours have to be in it as well.
            if not tries_left:
                raise


def _renewed(lease: Object, spec: Object, covers: Mapping[str, float], *, now_s: float) -> Object:
    fresh = {name: at_s for name, at_s in _covered(lease).items() if now_s - at_s <= HEARTBEAT_S}
    for name, at_s in covers.items():
        fresh[name] = max(at_s, fresh.get(name, at_s))
    annotations = {**(lease["metadata"].get("annotations") or {}), COVERS: json.dumps(fresh, sort_keys=True)}
    metadata = {**lease["metadata"], "annotations": annotations}
    return {**lease, "metadata": metadata, "spec": {**(lease.get("spec") or {}), **spec}}


def _covered(lease: Object) -> dict[str, float]:
    """Return when each namespace was last covered; nothing where the annotation is missing or makes no sense."""
    try:
        found: Any = json.loads((lease["metadata"].get("annotations") or {}).get(COVERS) or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: float(at_s)
        for name, at_s in found.items()
        if isinstance(at_s, (int, float)) and not isinstance(at_s, bool) and math.isfinite(at_s)
    }


def _nobody(why: str) -> NoGuard:
    return NoGuard(
        f"{why}, and luff seems to run in a container, where its own guard would die with it",
        next_step="start one (`kubectl apply -f deploy/reaper.yaml`), or accept that a twin that hits nobody may stay behind: "
        "--accept-inert-leftover",
    )


def _seconds(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
