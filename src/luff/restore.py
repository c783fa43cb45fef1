"""
Find what is injected, and take it out. A kubeconfig is all that this needs.

What is ours is read from the objects themselves: a twin's name says which run
it belongs to and until when. A Lease that is still renewed says that somebody
is at it right now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from luff.clock import Clock
from luff.errors import Conflict, MeshError, NotFound
from luff.lock import LEASE_S, RUN_ANNOTATION, STOP_ANNOTATION, lease_ref
from luff.mesh import Kind, Mesh, Ref
from luff.model import Object
from luff.routes import our_run, ours, parse_name, suspects
from luff.withdraw import Withdrawal, withdraw

__all__ = ["Injected", "Suspect", "ask_to_stop", "find_injected", "put_back"]

ASK_TRIES = 5


@dataclass(frozen=True, slots=True)
class Injected:
    """
    This is what one run has in one object.

    *state*: **live** its Lease is held and fresh; **expired** its own time is
    over; **orphaned** nobody holds its Lease. *holder* is who does, or did.
    *created_s* and *expires_s* are Unix seconds by the API server's clock,
    ``None`` where the name does not tell.
    """

    ref: Ref
    run: str | None
    names: tuple[str, ...]
    state: Literal["live", "expired", "orphaned"]
    holder: str | None
    created_s: int | None
    expires_s: int | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """This is a route that looks like ours and is not: reported, never removed."""

    ref: Ref
    name: str


async def find_injected(mesh: Mesh, namespaces: Sequence[str] | None) -> tuple[list[Injected], list[Suspect]]:
    """
    Return everything of ours in *namespaces* (everywhere when ``None``), and what only looks like it.

    Raises `MeshError` when a namespace could not be read: no answer is not
    "nothing there".
    """
    now_s = await mesh.server_time_s()
    where: Iterable[str | None] = [None] if namespaces is None else namespaces
    found: list[Injected] = []
    doubtful: list[Suspect] = []
    for namespace in where:
        for object_ in await mesh.list(Kind.VIRTUAL_SERVICE, namespace):
            ref = Ref.of(object_)
            doubtful += [Suspect(ref, name) for name in suspects(object_)]
            found += await _in_object(mesh, object_, ref, now_s)
    return found, doubtful


async def _in_object(mesh: Mesh, object_: Object, ref: Ref, now_s: float) -> list[Injected]:
    by_run: dict[str | None, list[str]] = {}
    for route in (object_.get("spec") or {}).get("http") or []:
        if ours(route):
            by_run.setdefault(our_run(route), []).append(str(route.get("name")))
    if not by_run:
        return []
    holder, holder_run, fresh = await _held(mesh, ref, now_s)
    found = []
    for run, names in by_run.items():
        name = parse_name(names[0])
        expired = name is None or now_s > name.expires_s
        state: Literal["live", "expired", "orphaned"] = "orphaned"
        if expired:
            state = "expired"
        elif fresh and holder_run == run:
            state = "live"
        found.append(
            Injected(
                ref,
                run,
                tuple(names),
                state,
                holder if holder_run == run else None,
                None if name is None else name.created_s,
                None if name is None else name.expires_s,
            )
        )
    return found


async def _held(mesh: Mesh, ref: Ref, now_s: float) -> tuple[str | None, str | None, bool]:
    """Return who holds the Lease of *ref*, for which run, and whether it is fresh."""
    try:
        lease = await mesh.read(lease_ref(ref))
    except MeshError:
        # Not there, or a role that may not read Leases: nobody is known to be at it.
        return None, None, False
    spec = lease.get("spec") or {}
    try:
        renewed_s = datetime.fromisoformat(str(spec.get("renewTime"))).timestamp()
    except ValueError:
        renewed_s = 0.0
    run = (lease["metadata"].get("annotations") or {}).get(RUN_ANNOTATION)
    return spec.get("holderIdentity"), run, now_s - renewed_s < float(spec.get("leaseDurationSeconds") or LEASE_S)


async def put_back(
    mesh: Mesh, chosen: Sequence[Injected], *, clock: Clock, patience_s: float
) -> list[Withdrawal | BaseException]:
    """Withdraw all of *chosen* at once and return what became of each, in order; a failure of one stops no other."""
    return list(
        await asyncio.gather(
            *(withdraw(mesh, each.ref, run=each.run, clock=clock, patience_s=patience_s) for each in chosen),
            return_exceptions=True,
        )
    )


async def ask_to_stop(mesh: Mesh, ref: Ref, *, who: str) -> bool:
    """Ask the holder of *ref*'s Lease to stop, by the annotation ``luff.dev/stop``; False when nobody holds it."""
    for _ in range(ASK_TRIES):
        try:
            lease = await mesh.read(lease_ref(ref))
        except NotFound:
            return False
        annotations = {**(lease["metadata"].get("annotations") or {}), STOP_ANNOTATION: who}
        lease["metadata"]["annotations"] = annotations
        try:
            await mesh.replace(lease)
        except NotFound:
            return False
        except Conflict:
            continue
        return True
    return False
