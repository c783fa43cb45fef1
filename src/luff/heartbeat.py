"""
The sign of life of a restorer that is not us: the reaper's Lease.

A guard is a child of luff; where killing the container takes both, somebody
else has to be there before anything is injected.
"""

from __future__ import annotations

from datetime import datetime

from luff.errors import MeshError, NoGuard, NotFound
from luff.lever import SYSTEM_NAMESPACE
from luff.mesh import Kind, Mesh, Ref

__all__ = ["HEARTBEAT", "HEARTBEAT_S", "check_heartbeat"]

HEARTBEAT = "luff-reaper"
HEARTBEAT_S = 30
"""How long a heartbeat counts as fresh, by the API server's clock."""


async def check_heartbeat(mesh: Mesh) -> None:
    """Raise `NoGuard` unless a reaper has been at work within the last 30 s."""
    try:
        lease = await mesh.read(Ref(Kind.LEASE, SYSTEM_NAMESPACE, HEARTBEAT))
    except NotFound:
        raise _nobody("no reaper has ever been at work here") from None
    except MeshError as error:
        raise _nobody(f"the reaper's heartbeat cannot be read: {error.message}") from error
    age_s = await mesh.server_time_s() - _seconds((lease.get("spec") or {}).get("renewTime"))
    if age_s > HEARTBEAT_S:
        raise _nobody(f"the reaper's last heartbeat is {age_s:.0f} s old")


def _nobody(why: str) -> NoGuard:
    return NoGuard(
        f"{why}, and luff runs in a container, where its own guard would die with it",
        next_step="start one (`kubectl apply -f deploy/reaper.yaml`), or accept that a twin that hits nobody may stay behind: "
        "--accept-inert-leftover",
    )


def _seconds(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0
