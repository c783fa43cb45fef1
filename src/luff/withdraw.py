"""
The only way back: remove what is ours, by name, from the object as it is now.

What must stay true:

1. Only routes of ours are removed; whatever others changed meanwhile stays.
2. There is no give-up inside: conflicts, refusals, a server that is away, and
   whatever else goes wrong are waited out. Who cannot wait for ever says so with *patience_s*, and then
   knows that nothing was verified.
3. *Clean* is believed only from the answer to a write of ours, or from a read
   that is provably later than anything that could still show or bring our
   routes: the version our patch was pinned to, and the newest at which they
   were seen. A plain read may be stale, and a patch that timed out may still
   be on the wire: a real write moves the version on, so that it comes too
   late (the fence). That the object is *gone* is believed only when a list
   says so as well: a server that starts up answers 404 to everything.
4. A restore asked for one run never touches another's routes.

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
from luff.mesh import FIELD_MANAGER, Mesh, Operation, Ref, command_on
from luff.names import http_routes, our_run, ours
from luff.routes import fallbacks, http_hash, withdrawal
from luff.words import Object

__all__ = [
    "NAMELESS",
    "PATIENCE_S",
    "Withdrawal",
    "give_back",
    "remaining",
    "restore_command",
    "tidy",
    "try_it",
    "withdraw",
]

NAMELESS = "(nameless)"
"""In place of a run: the routes of ours whose name does not tell a run. Never those of a run."""

PATIENCE_S = 120.0
"""How long a person waits for a restore before being told that it is not verified."""
DENIED_PATIENCE_S = 15.0
"""The same when the API server says no: that rarely changes by itself."""
PAUSE_MOST_S = 5.0
PAUSE_FIRST_S = 0.05
MISSED_LEAST = 3
"""So many 404s in a row are believed where nothing else can be asked."""
CONFLICTS_MOST = 50
"""After so many conflicts in a row somebody fights us, and trying at once helps nobody."""
GIVE_BACK_TRIES = 3
_PINNED = ("uid", "resourceVersion")
FENCE_ANNOTATION = "luff.dev/fence"
FENCE_PATH = "/metadata/annotations/luff.dev~1fence"


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

    @property
    def hash_after(self) -> str | None:
        """Return the hash of the object's ``spec.http``; made when asked for, since it costs more than the removal."""
        return None if self.object_ is None else http_hash(self.object_)


@dataclass(slots=True)
class _Effort:
    """
    This is one withdrawal under way.

    *floor* is the resourceVersion from which on a read without our routes is
    proof; ``None`` while no read can be. *fence* says whether an annotation of
    ours may still be there.
    """

    mesh: Mesh
    ref: Ref
    run: str | None
    clock: Clock
    floor: int | None
    jitter: random.Random
    removed: list[str] = field(default_factory=list)
    fence: bool = False
    fenced: bool = False
    rung: int = 0
    accepted_rung: int = 0
    tries: int = 0
    pause_s: float = PAUSE_FIRST_S
    denied_since_s: float | None = None
    missed: int = 0
    conflicts: int = 0


class _Disarmed(Rejected):
    """This is a removal that was refused, while a gentler step was accepted: nothing is hit, but the route is there."""


def remaining(object_: Object, run: str | None) -> list[str]:
    """Return the names of the routes of ours, of *run* or of anybody's, that are still in *object_*."""
    return [str(route.get("name")) for route in http_routes(object_) if ours(route) and _is_meant(route, run)]


def _is_meant(route: object, run: str | None) -> bool:
    return run is None or (our_run(route) is None if run == NAMELESS else our_run(route) == run)


def restore_command(mesh: Mesh, ref: Ref, run: str | None, *, by_others: bool = False) -> str:
    """Return the exact command that puts the routes of *ref* back by hand; *by_others*, with other credentials than ours."""
    which = "--all" if run is None or run == NAMELESS else run
    return command_on(mesh, "restore", which, namespace=ref.namespace, by_others=by_others)


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

    *pinned* is the resourceVersion that the inject was pinned to, or at which
    the routes were seen; *sent* says whether an inject was sent at all (else a
    plain read is proof enough). Without *patience_s* this comes back only with
    the proof; with it `RestoreNotVerified` is raised when the time is over.
    """
    effort = _Effort(mesh, ref, run, clock, _after(pinned), random.Random(str(ref)))
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
                    rung=effort.accepted_rung + 1,
                    tries=effort.tries,
                    seconds=clock.monotonic_s() - began_s,
                )
            failure = Conflict(f"{ref} still shows routes of ours after their removal")
        except MeshError as error:
            failure = error
        except Exception as error:
            # No file left, no thread to be had, an answer that trips somebody up: a restore does not end over it.
            failure = MeshUnreachable(f"{ref}: {type(error).__name__}: {error}")
            failure.__cause__ = error
        _check_patience(effort, failure, began_s=began_s, patience_s=patience_s)
        await clock.sleep(_pause_after(effort, failure))


async def _attempt(effort: _Effort, *, sent: bool) -> tuple[bool, Object | None]:
    """Do one step: remove what is seen, or prove that nothing is left. Returns whether it is proven."""
    try:
        return await _attempt_on_what_is_there(effort, sent=sent)
    except NotFound:
        effort.missed += 1
        if await _is_gone(effort):
            return True, None
        raise


async def _attempt_on_what_is_there(effort: _Effort, *, sent: bool) -> tuple[bool, Object | None]:
    now = await effort.mesh.read(effort.ref)
    effort.missed = 0
    left = remaining(now, effort.run)
    if left:
        _raise_floor(effort, _after(_version(now)))
        after = await effort.mesh.patch(effort.ref, _operations(effort, now))
        still = remaining(after, effort.run)
        effort.removed += [name for name in left if name not in effort.removed and name not in still]
        if not still:
            effort.accepted_rung = effort.rung
            # What comes next is about the fence only; no read older than this write may say otherwise.
            _raise_floor(effort, _number(_version(after)))
            return not effort.fence, after
        if effort.rung:
            effort.accepted_rung, effort.rung = effort.rung, 0
            raise _Disarmed(f"{effort.ref}: removing was refused; until it is allowed, the route does nothing")
        return False, after
    if effort.fence and FENCE_ANNOTATION in ((now.get("metadata") or {}).get("annotations") or {}):
        now = await _unfence(effort)
        return not remaining(now, effort.run), now
    if not sent or _is_proof(effort, now):
        return True, now
    after = await _fence(effort, now)
    return not remaining(after, effort.run), after


async def _is_gone(effort: _Effort) -> bool:
    """Return whether a list says as well that the object is not there; without a role for lists, several 404s must do."""
    try:
        found = await effort.mesh.list(effort.ref.kind, effort.ref.namespace)
    except MeshDenied:
        return effort.missed >= MISSED_LEAST
    if all(Ref.of(each) != effort.ref for each in found):
        return True
    effort.missed = 0
    return False


def _operations(effort: _Effort, now: Object) -> tuple[Operation, ...]:
    """Return the patch of the ladder's present rung: removing first, and only if that is refused something gentler."""
    run = effort.run
    if run == NAMELESS:
        # Routes of a run are hidden; their places stay, so that the indexes are right.
        shown = [route if ours(route) and our_run(route) is None else {} for route in http_routes(now)]
        now, run = {**now, "spec": {**now["spec"], "http": shown}}, None
    if effort.rung == 0:
        return withdrawal(now, run=run)
    ladder = fallbacks(now, run=run)
    return ladder[effort.rung % len(ladder)]


async def _fence(effort: _Effort, now: Object) -> Object:
    """Write once for real, so that a patch of ours that is still on the wire meets a newer version; then tidy up."""
    annotations = (now.get("metadata") or {}).get("annotations")
    value = NAMELESS.strip("()") if effort.run == NAMELESS else effort.run or "all"
    # Pinned to what was read: one that arrives late would stay for ever, and another's first annotation would be lost.
    pin: Operation = {"op": "replace", "path": "/metadata/resourceVersion", "value": now["metadata"]["resourceVersion"]}
    add: Operation = {"op": "add", "path": FENCE_PATH, "value": value}
    if annotations is None:
        add = {"op": "add", "path": "/metadata/annotations", "value": {FENCE_ANNOTATION: value}}
    effort.fence = True
    if FENCE_ANNOTATION not in (annotations or {}):
        fenced = await effort.mesh.patch(effort.ref, [pin, add])
        effort.fenced = True
        _raise_floor(effort, _number(_version(fenced)))
    # One that is there already was left by a restorer that died here: taking it away is a real write as well.
    return await _unfence(effort)


async def _unfence(effort: _Effort) -> Object:
    after = await effort.mesh.patch(effort.ref, [{"op": "remove", "path": FENCE_PATH}])
    effort.fence, effort.fenced = False, True
    _raise_floor(effort, _number(_version(after)))
    return after


async def tidy(mesh: Mesh, ref: Ref) -> None:
    """Take away the annotation of a fence that a restorer left when it died between its two writes; routes are not touched."""
    try:
        await mesh.patch(ref, [{"op": "remove", "path": FENCE_PATH}])
    except (Conflict, NotFound):
        # Somebody else has tidied up.
        return


async def try_it(mesh: Mesh, ref: Ref) -> None:
    """
    Let the API server try a change of *ref* that changes nothing, and keep none of it.

    Roles and admission are asked as for a removal; raises the `MeshError` that a removal would have met.
    """
    await mesh.patch(ref, [{"op": "test", "path": "/metadata/name", "value": ref.name}], dry_run=True)


async def give_back(mesh: Mesh, ref: Ref, object_: Object) -> str | None:
    """
    Give back the ownership of ``spec.http`` that our patches took, and return what became of it; ``None`` if it is not ours.

    Our entry is taken out of ``metadata.managedFields``, so that nobody owns
    the routes and the next applier takes them without a conflict. Best effort,
    pinned to what was read: no part of the way back depends on it. *object_*
    is the object as the restore left it.
    """
    failure: MeshError | None = None
    for _ in range(GIVE_BACK_TRIES):
        try:
            if failure is not None:
                object_ = await mesh.read(ref)
            entries = (object_.get("metadata") or {}).get("managedFields") or []
            places = [at for at, entry in enumerate(entries) if _owns_routes(entry)]
            if not places:
                return None
            if remaining(object_, None):
                return "not returned: another run has twins in the object"
            if len(places) == len(entries):
                return "not returned: nobody else owns any field of the object"
            pin = [{"op": "replace", "path": f"/metadata/{key}", "value": object_["metadata"][key]} for key in _PINNED]
            drop = [{"op": "remove", "path": f"/metadata/managedFields/{at}"} for at in reversed(places)]
            after = await mesh.patch(ref, [*pin, *drop])
        except Conflict as error:
            failure = error
            continue
        except NotFound:
            return None
        except Exception as error:
            # Whoever gives back has put the routes back already: nothing about this may turn that into a failure.
            return f"not returned: {error.message if isinstance(error, MeshError) else repr(error)}"
        left = (after.get("metadata") or {}).get("managedFields") or []
        if any(_owns_routes(entry) for entry in left):
            return "not returned: the API server kept our entry in managedFields"
        return "returned: nobody owns spec.http now, so the next applier takes it without a conflict"
    return "not returned: others write the object all the time"


def _owns_routes(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.get("manager") != FIELD_MANAGER or entry.get("subresource"):
        return False
    spec = (entry.get("fieldsV1") or {}).get("f:spec")
    return isinstance(spec, dict) and "f:http" in spec


def _version(object_: Object) -> str:
    return str((object_.get("metadata") or {}).get("resourceVersion", ""))


def _number(version: str | None) -> int | None:
    return int(version) if version is not None and version.isdigit() else None


def _after(version: str | None) -> int | None:
    number = _number(version)
    return None if number is None else number + 1


def _raise_floor(effort: _Effort, version: int | None) -> None:
    if version is not None:
        effort.floor = version if effort.floor is None else max(effort.floor, version)


def _is_proof(effort: _Effort, now: Object) -> bool:
    version = _number(_version(now))
    return version is not None and effort.floor is not None and version >= effort.floor


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
    """Return how long to wait: hardly after a conflict, longer each time the server is away, never over 5 s."""
    effort.conflicts = effort.conflicts + 1 if isinstance(failure, Conflict) else 0
    if 0 < effort.conflicts <= CONFLICTS_MOST:
        return effort.jitter.uniform(0, PAUSE_FIRST_S)
    if isinstance(failure, Rejected) and not isinstance(failure, _Disarmed):
        effort.rung += 1
    pause_s = effort.pause_s
    if isinstance(failure, MeshBusy) and failure.retry_after_s is not None:
        pause_s = failure.retry_after_s
    effort.pause_s = min(PAUSE_MOST_S, effort.pause_s * 2)
    return min(PAUSE_MOST_S, pause_s) * effort.jitter.uniform(0.8, 1.2)
