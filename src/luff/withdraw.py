"""
The only way back: remove what is ours, by name, from the object as it is now.

What must stay true:

1. Only routes of ours are removed; whatever others changed meanwhile stays.
2. There is no give-up inside: conflicts, refusals, a server that is away are
   waited out. Who cannot wait for ever says so with *patience_s*, and then
   knows that nothing was verified.
3. *Clean* is believed only from the answer to a write of ours, or from a read
   that is provably later than the version our patch was pinned to. A plain
   read may be stale, and a patch that timed out may still be on the wire: a
   real write moves the version on, so that it comes too late (the fence).

Nothing here needs the database, a lock or a leader; any number of restorers
may work at once, since removing by name is idempotent and commutes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from luff.clock import Clock
from luff.errors import (
    Conflict,
    MeshBusy,
    MeshDenied,
    MeshError,
    MeshUnreachable,
    NotFound,
    Rejected,
    RestoreNotVerified,
)
from luff.mesh import Mesh, Operation, Ref
from luff.model import Object
from luff.routes import fallbacks, http_hash, our_run, ours, withdrawal

__all__ = ["PATIENCE_S", "Withdrawal", "remaining", "restore_command", "withdraw"]

PATIENCE_S = 120.0
"""How long a person waits for a restore before being told that it is not verified."""
DENIED_PATIENCE_S = 15.0
"""The same when the API server says no: that rarely changes by itself."""
PAUSE_MOST_S = 5.0
PAUSE_FIRST_S = 0.05
FENCE_ANNOTATION = "luff.dev/fence"


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """
    This is a verified removal.

    *object_* is the object afterwards, or ``None`` when it is gone; *removed*
    the names taken out by us; *fenced* whether a write was needed only to
    close the way for a late patch; *rung* which step of the ladder was
    accepted (1 is plain removal); *seconds* from the call to the proof.
    """

    ref: Ref
    object_: Object | None
    removed: tuple[str, ...] = ()
    fenced: bool = False
    rung: int = 1
    tries: int = 1
    seconds: float = 0.0
    hash_after: str | None = None


@dataclass(slots=True)
class _Effort:
    """This is one withdrawal under way."""

    mesh: Mesh
    ref: Ref
    run: str | None
    clock: Clock
    pinned: str | None
    jitter: random.Random
    removed: list[str] = field(default_factory=list)
    wrote: bool = False
    fenced: bool = False
    rung: int = 0
    tries: int = 0
    pause_s: float = PAUSE_FIRST_S
    denied_since_s: float | None = None


def remaining(object_: Object, run: str | None) -> list[str]:
    """Return the names of the routes of ours, of *run* or of anybody's, that are still in *object_*."""
    routes = (object_.get("spec") or {}).get("http") or []
    return [str(route.get("name")) for route in routes if ours(route) and run in (None, our_run(route))]


def restore_command(mesh: Mesh, ref: Ref, run: str | None) -> str:
    """Return the exact command that puts the routes of *ref* back by hand."""
    where = f" --context {mesh.name}" if mesh.kind == "cluster" else " --lab"
    return f"luff restore {run or '--all'} -n {ref.namespace}{where}"


async def withdraw(
    mesh: Mesh,
    ref: Ref,
    *,
    run: str | None,
    clock: Clock,
    pinned: str | None = None,
    sent: bool = True,
    patience_s: float | None = None,
) -> Withdrawal:
    """
    Remove the routes of *run* (of every run when ``None``) from *ref*, and prove it.

    *pinned* is the resourceVersion that the inject was pinned to; *sent* says
    whether an inject was sent at all (else a plain read is proof enough).
    Without *patience_s* this comes back only with the proof; with it
    `RestoreNotVerified` is raised when the time is over.
    """
    effort = _Effort(mesh, ref, run, clock, pinned, random.Random(str(ref)))
    began_s = clock.monotonic_s()
    while True:
        effort.tries += 1
        failure: MeshError
        try:
            done, object_ = await _attempt(effort, sent=sent)
            if done:
                return Withdrawal(
                    ref,
                    object_,
                    removed=tuple(effort.removed),
                    fenced=effort.fenced,
                    rung=effort.rung + 1,
                    tries=effort.tries,
                    seconds=clock.monotonic_s() - began_s,
                    hash_after=None if object_ is None else http_hash(object_),
                )
            failure = Conflict(f"{ref} still shows routes of ours after their removal")
        except NotFound:
            return Withdrawal(
                ref, None, removed=tuple(effort.removed), tries=effort.tries, seconds=clock.monotonic_s() - began_s
            )
        except (MeshUnreachable, MeshBusy, MeshDenied, Conflict, Rejected) as error:
            failure = error
        _check_patience(effort, failure, began_s=began_s, patience_s=patience_s)
        await clock.sleep(_pause_after(effort, failure))


async def _attempt(effort: _Effort, *, sent: bool) -> tuple[bool, Object | None]:
    """Do one step: remove what is seen, or prove that nothing is left. Returns whether it is proven."""
    now = await effort.mesh.read(effort.ref)
    left = remaining(now, effort.run)
    if left:
        after = await effort.mesh.patch(effort.ref, _operations(effort, now))
        effort.removed += [name for name in left if name not in effort.removed]
        effort.wrote = True
        return not remaining(after, effort.run), after
    if effort.wrote or not sent or _later_than(now, effort.pinned):
        return True, now
    after = await _fence(effort, now)
    return not remaining(after, effort.run), after


def _operations(effort: _Effort, now: Object) -> tuple[Operation, ...]:
    """Return the patch of the ladder's present rung: removing first, and only if that is refused something gentler."""
    if effort.rung == 0:
        return withdrawal(now, run=effort.run)
    ladder = fallbacks(now, run=effort.run)
    return ladder[effort.rung % len(ladder)]


async def _fence(effort: _Effort, now: Object) -> Object:
    """Write once for real, so that a patch of ours that is still on the wire meets a newer version; then tidy up."""
    annotations = (now.get("metadata") or {}).get("annotations")
    path = "/metadata/annotations/" + FENCE_ANNOTATION.replace("~", "~0").replace("/", "~1")
    value = effort.run or "all"
    add: list[Operation] = [{"op": "add", "path": path, "value": value}]
    if annotations is None:
        # There is no map to add to yet. Pinned to what was read, or another's first annotation would be lost.
        add = [
            {"op": "replace", "path": "/metadata/resourceVersion", "value": now["metadata"]["resourceVersion"]},
            {"op": "add", "path": "/metadata/annotations", "value": {FENCE_ANNOTATION: value}},
        ]
    elif annotations.get(FENCE_ANNOTATION) == value:
        # Left by a restorer that died here: taking it away is a real write as well.
        add = []
    if add:
        await effort.mesh.patch(effort.ref, add)
    after = await effort.mesh.patch(effort.ref, [{"op": "remove", "path": path}])
    effort.fenced = effort.wrote = True
    return after


def _later_than(now: Object, pinned: str | None) -> bool:
    version = str((now.get("metadata") or {}).get("resourceVersion", ""))
    return pinned is not None and version.isdigit() and pinned.isdigit() and int(version) > int(pinned)


def _check_patience(effort: _Effort, failure: MeshError, *, began_s: float, patience_s: float | None) -> None:
    now_s = effort.clock.monotonic_s()
    if isinstance(failure, MeshDenied):
        effort.denied_since_s = now_s if effort.denied_since_s is None else effort.denied_since_s
    else:
        effort.denied_since_s = None
    if patience_s is None:
        return
    denied = effort.denied_since_s is not None and now_s - effort.denied_since_s >= min(DENIED_PATIENCE_S, patience_s)
    if denied or now_s - began_s >= patience_s:
        raise RestoreNotVerified(
            f"{effort.ref} may still carry {effort.run or 'routes of luff'}: {failure}",
            next_step=f"run `{restore_command(effort.mesh, effort.ref, effort.run)}`",
        ) from failure


def _pause_after(effort: _Effort, failure: MeshError) -> float:
    """Return how long to wait: not at all after a conflict, longer each time the server is away, never over 5 s."""
    if isinstance(failure, Conflict):
        return effort.jitter.uniform(0, PAUSE_FIRST_S)
    if isinstance(failure, Rejected):
        effort.rung += 1
    pause_s = effort.pause_s
    if isinstance(failure, MeshBusy) and failure.retry_after_s is not None:
        pause_s = failure.retry_after_s
    effort.pause_s = min(PAUSE_MOST_S, effort.pause_s * 2)
    return min(PAUSE_MOST_S, pause_s) * effort.jitter.uniform(0.8, 1.2)
