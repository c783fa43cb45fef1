"""
One run at a time on one object: a Lease that everybody can see.

The Lease decides who *should* act; nobody's safety depends on it. It is taken,
renewed and released by its resourceVersion, so a holder that slept and woke up
finds out that it lost. Whether it is still alive is judged by the API server's
clock when it is taken over, since the holder wrote ``renewTime`` by the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from luff.clock import Clock
from luff.errors import Conflict, LockHeld, MeshError, NotFound, RunAborted
from luff.mesh import Kind, Mesh, Ref, command_on
from luff.words import Object

__all__ = [
    "LEASE_S",
    "OBJECT_ANNOTATION",
    "RUN_ANNOTATION",
    "STOP_ANNOTATION",
    "lease_name",
    "lease_ref",
    "locked",
    "release",
]

LEASE_S = 15
"""How long a Lease lives without being renewed."""
RENEW_EVERY_S = 2.0
TAKE_TRIES = 3
RENEW_TRIES = 5
STOP_ANNOTATION = "luff.dev/stop"
RUN_ANNOTATION = "luff.dev/run"
OBJECT_ANNOTATION = "luff.dev/virtual-service"


def lease_name(ref: Ref) -> str:
    """Return the Lease's name: ``luff-`` and a hash of the object's address."""
    return "luff-" + hashlib.sha256(f"{ref.namespace}/{ref.name}".encode()).hexdigest()[:16]


def lease_ref(ref: Ref) -> Ref:
    """Return the address of the Lease that guards *ref*; it lives in the object's namespace."""
    return Ref(Kind.LEASE, ref.namespace, lease_name(ref))


@asynccontextmanager
async def locked(
    mesh: Mesh, ref: Ref, *, run: str, holder: str, clock: Clock, stop: Callable[[RunAborted], None]
) -> AsyncIterator[None]:
    """
    Hold the Lease of *ref* for the life of the body, renewing it every 2 s.

    Raises `LockHeld` (with who holds it) when another run has it. *stop* is
    called once when the Lease was lost, or when somebody asked the run to end
    by the annotation ``luff.dev/stop``, or when it could not be kept.
    """
    try:
        lease = await _take(mesh, ref, run=run, holder=holder)
    except MeshError:
        # It may have been taken all the same, only the answer is lost.
        await release(mesh, ref, run=run)
        raise
    keeper = asyncio.create_task(_keep(mesh, lease, clock=clock, stop=stop))
    try:
        yield
    finally:
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        await release(mesh, ref, run=run)


def _micro_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _life_s(spec: Object) -> float:
    try:
        return float(spec.get("leaseDurationSeconds") or LEASE_S)
    except (TypeError, ValueError):
        return float(LEASE_S)


async def _take(mesh: Mesh, ref: Ref, *, run: str, holder: str) -> Object:
    for _ in range(TAKE_TRIES):
        now_s = await mesh.server_time_s()
        wanted: Object = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": lease_name(ref),
                "namespace": ref.namespace,
                "annotations": {RUN_ANNOTATION: run, OBJECT_ANNOTATION: ref.name},
            },
            "spec": {
                "holderIdentity": f"{holder}/{run}",
                "leaseDurationSeconds": LEASE_S,
                "acquireTime": _micro_time(now_s),
                "renewTime": _micro_time(now_s),
            },
        }
        try:
            return await mesh.create(wanted)
        except Conflict:
            pass
        try:
            there = await mesh.read(lease_ref(ref))
        except NotFound:
            continue
        spec = there.get("spec") or {}
        age_s = now_s - _seconds(spec.get("renewTime"))
        who = spec.get("holderIdentity")
        if who == wanted["spec"]["holderIdentity"]:
            # The request came twice, or its first answer was lost: it is ours already.
            return there
        if who and age_s < _life_s(spec):
            its = str((there["metadata"].get("annotations") or {}).get(RUN_ANNOTATION, "--all"))
            raise LockHeld(
                f"{ref} is held by {who}, renewed {max(0.0, age_s):.0f} s ago",
                next_step=f"wait for it, or end it with `{command_on(mesh, 'stop', its, namespace=ref.namespace)}`",
            )
        wanted["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"]
        try:
            return await mesh.replace(wanted)
        except (Conflict, NotFound):
            continue
    raise LockHeld(f"{ref}: others keep taking its Lease {lease_name(ref)}", next_step="try again in a moment")


async def _keep(mesh: Mesh, lease: Object, *, clock: Clock, stop: Callable[[RunAborted], None]) -> None:
    """Renew until cancelled. A server that is away is no loss: nobody else can take the Lease from it either."""
    name = lease["metadata"]["name"]
    renewed_s = clock.monotonic_s()
    while True:
        await clock.sleep(RENEW_EVERY_S)
        asked_s = clock.monotonic_s()
        try:
            await _renew(mesh, lease)
            renewed_s = asked_s
        except RunAborted as error:
            stop(error)
            return
        except MeshError as error:
            if clock.monotonic_s() - renewed_s >= LEASE_S:
                stop(RunAborted("bound", f"the Lease {name} could not be renewed for {LEASE_S} s: {error.message}"))
                return
        except Exception as error:
            # Nobody looks at this task before the run ends: what is not said here would leave it without a lock.
            stop(RunAborted("bound", f"the Lease {name} could not be kept: {type(error).__name__}: {error}"))
            return


async def _renew(mesh: Mesh, lease: Object) -> None:
    """Renew what is ours by its holder; `Conflict` when others wrote each time, and then it is not renewed."""
    name = lease["metadata"]["name"]
    ref = Ref(Kind.LEASE, lease["metadata"]["namespace"], name)
    for tries_left in reversed(range(RENEW_TRIES)):
        try:
            now = await mesh.read(ref)
        except NotFound as error:
            raise RunAborted("operator", f"the Lease {name} was deleted, so the target is no longer ours") from error
        holder = (now.get("spec") or {}).get("holderIdentity")
        if holder != lease["spec"]["holderIdentity"]:
            raise RunAborted("bound", f"the Lease {name} was taken over by {holder}")
        who = (now["metadata"].get("annotations") or {}).get(STOP_ANNOTATION)
        if who:
            raise RunAborted("operator", f"{who} asked for the end of this run")
        renewed = {**now, "spec": {**now["spec"], "renewTime": _micro_time(await mesh.server_time_s())}}
        try:
            await mesh.replace(renewed)
            return
        except Conflict:
            # Somebody wrote in between, perhaps a stop: look again, since their write did not renew it for us.
            if tries_left == 0:
                raise


async def release(mesh: Mesh, ref: Ref, *, run: str) -> None:
    """Give back the Lease of *ref* if *run* still has it. Best effort: one that is not given back runs out by itself."""
    with contextlib.suppress(Exception):
        now = await mesh.read(lease_ref(ref))
        if (now["metadata"].get("annotations") or {}).get(RUN_ANNOTATION) == run:
            await mesh.delete(lease_ref(ref), resource_version=now["metadata"]["resourceVersion"])
