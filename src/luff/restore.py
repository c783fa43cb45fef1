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
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeAlias

from luff.clock import Clock
from luff.errors import Conflict, LuffError, MeshDenied, MeshError, NotFound, Rejected, RestoreNotVerified
from luff.lifecycle import Intent
from luff.lock import LEASE_S, OBJECT_ANNOTATION, RUN_ANNOTATION, STOP_ANNOTATION, lease_ref
from luff.mesh import Kind, Mesh, Ref, command_on
from luff.names import http_routes, is_newer, our_run, ours, parse_name, suspects, why_suspect
from luff.withdraw import NAMELESS, PATIENCE_S, Withdrawal, give_back, remaining, restore_command, withdraw
from luff.words import Object

__all__ = [
    "LEFT_BEHIND",
    "Held",
    "Injected",
    "Suspect",
    "ask_to_stop",
    "find_injected",
    "find_patiently",
    "held_by_runs",
    "how_to_put_back",
    "moment",
    "put_back",
    "written_down",
]

State: TypeAlias = Literal["live", "unknown", "newer", "expired", "orphaned"]
LEFT_BEHIND: frozenset[State] = frozenset({"expired", "orphaned"})
"""The states of what may be taken out without being named."""
ASK_TRIES = 5
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Injected:
    """
    This is what one run has in one object.

    *state*: **live** its Lease is held and fresh; **unknown** its Lease could
    not be read, for the reason *unread* (for want of a role where *denied*, else
    for now), so its run may be live; **newer** a
    luff after this one made it, whose dates cannot be read here; **expired**
    its own time is over, or its name is broken; **orphaned** nobody holds its
    Lease. *holder* is who does, or did. *created_s* and *expires_s* are Unix
    seconds by the API server's clock, ``None`` where the name does not tell.
    *seen_at* is the resourceVersion at which it was seen.
    """

    ref: Ref
    run: str | None
    names: tuple[str, ...]
    state: State
    holder: str | None
    created_s: int | None
    expires_s: int | None
    seen_at: str | None = None
    unread: str | None = None
    denied: bool = False


def moment(unix_s: int | None) -> datetime | None:
    """Return *unix_s* as a time, ``None`` where it is not one: a name may hold any twelve digits."""
    try:
        return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)
    except (ValueError, OverflowError, OSError):
        return None


class Held(NamedTuple):
    """This is an object whose Lease a live run holds, and who that is."""

    ref: Ref
    run: str
    holder: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """This is a route that looks like ours and is not: reported, never removed."""

    ref: Ref
    name: str

    @property
    def newer(self) -> bool:
        """Return whether a luff after this one may have made it: then a fault may be live."""
        return is_newer(self.name)

    def __str__(self) -> str:
        return f"{self.ref}: the route {self.name}: {why_suspect(self.name)}"


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


async def find_patiently(
    mesh: Mesh,
    namespaces: Sequence[str] | None,
    *,
    clock: Clock,
    asked: Sequence[str],
    with_leases: bool = False,
    patience_s: float = PATIENCE_S,
) -> tuple[list[Injected], list[Suspect]]:
    """
    Do what `find_injected` does, and wait out an API server that is away; *with_leases*, also one that says nothing of a Lease for now.

    Raises `RestoreNotVerified` when nothing could be seen: who cannot look
    cannot say that no fault is live. *asked* is the command that wants to know,
    which has to be run again.
    """
    began_s = clock.monotonic_s()
    while True:
        try:
            found = await find_injected(mesh, namespaces)
            waiting = with_leases and any(each.state == "unknown" and not each.denied for each in found[0])
            if not waiting or clock.monotonic_s() - began_s >= patience_s:
                return found
        except MeshError as error:
            final = isinstance(error, MeshDenied | Rejected)
            if final or clock.monotonic_s() - began_s >= patience_s:
                again = _ask_again(mesh, namespaces, asked, denied=isinstance(error, MeshDenied))
                raise RestoreNotVerified(
                    f"it cannot be seen whether a fault is live: {error.message}",
                    next_step=error.next_step if isinstance(error, Rejected) and error.next_step else again,
                ) from error
        await clock.sleep(LOOK_EVERY_S)


def _ask_again(mesh: Mesh, namespaces: Sequence[str] | None, asked: Sequence[str], *, denied: bool) -> str:
    command = command_on(mesh, *asked, namespace=namespaces[0] if namespaces else None, by_others=denied)
    if not denied:
        return f"run `{command}` once the API server answers"
    elsewhere = "" if namespaces else ", or with -n NS"
    return f"run `{command}` with credentials that may list VirtualServices{elsewhere}"


async def held_by_runs(mesh: Mesh, namespaces: Sequence[str] | None) -> list[Held]:
    """
    Return the objects whose Lease a live run holds; also those that have nothing injected yet.

    Best effort: a role that may not list Leases sees none.
    """
    now_s = await mesh.server_time_s()
    where: Iterable[str | None] = [None] if namespaces is None else namespaces
    found = []
    for namespace in where:
        try:
            leases = await mesh.list(Kind.LEASE, namespace)
        except MeshError:
            continue
        for lease in leases:
            annotations = lease["metadata"].get("annotations") or {}
            run, name = annotations.get(RUN_ANNOTATION), annotations.get(OBJECT_ANNOTATION)
            if run and name and _is_fresh(lease, now_s):
                ref = Ref(Kind.VIRTUAL_SERVICE, lease["metadata"]["namespace"], name)
                found.append(Held(ref, str(run), str(lease["spec"]["holderIdentity"])))
    return found


async def written_down(mesh: Mesh, intent: Intent) -> Injected:
    """
    Return what *intent* may have put into its object, whether or not it is there: its Lease is asked, not the object.

    Raises `MeshError` when the API server's clock could not be read.
    """
    ref = Ref(Kind.VIRTUAL_SERVICE, intent.namespace, intent.virtual_service)
    now_s = await mesh.server_time_s()
    hold = await _hold(mesh, ref, now_s)
    return Injected(
        ref,
        intent.run,
        intent.names,
        _state(hold, intent.run, over=now_s > intent.expires_s),
        hold.holder if hold.run == intent.run else None,
        None,
        intent.expires_s,
        seen_at=intent.resource_version,
        unread=hold.unread,
    )


def _is_fresh(lease: Object, now_s: float) -> bool:
    spec = lease.get("spec") or {}
    try:
        renewed_s = datetime.fromisoformat(str(spec.get("renewTime"))).timestamp()
        lives_s = float(spec.get("leaseDurationSeconds") or LEASE_S)
    except ValueError:
        return False
    return bool(spec.get("holderIdentity")) and now_s - renewed_s < lives_s


async def _in_object(mesh: Mesh, object_: Object, ref: Ref, now_s: float) -> list[Injected]:
    by_run: dict[str | None, list[str]] = {}
    for route in http_routes(object_):
        if ours(route):
            by_run.setdefault(our_run(route), []).append(str(route.get("name")))
    if not by_run:
        return []
    hold = await _hold(mesh, ref, now_s)
    found = []
    for run, names in by_run.items():
        parsed = [parse_name(name) for name in names]
        known = [name for name in parsed if name is not None]
        broken = any(name is None and not is_newer(text) for name, text in zip(parsed, names, strict=True))
        expires_s = min((name.expires_s for name in known), default=None)
        over = broken or (expires_s is not None and now_s > expires_s)
        found.append(
            Injected(
                ref,
                run,
                tuple(names),
                _state(hold, run, over=over, newer=any(is_newer(text) for text in names)),
                hold.holder if hold.run == run else None,
                min((name.created_s for name in known), default=None),
                expires_s,
                str(object_["metadata"].get("resourceVersion", "")) or None,
                unread=hold.unread,
                denied=hold.denied,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class _Hold:
    """This is what the Lease of an object says: its *holder*, for which *run*, and whether it is *fresh*; or *unread*, why it says nothing."""

    holder: str | None = None
    run: str | None = None
    fresh: bool = False
    unread: str | None = None
    denied: bool = False


async def _hold(mesh: Mesh, ref: Ref, now_s: float) -> _Hold:
    try:
        lease = await mesh.read(lease_ref(ref))
    except NotFound:
        return _Hold()
    except MeshError as error:
        # No answer, or a role that may not ask, is not "nobody": a run that is live must not be cut short over it.
        return _Hold(unread=error.message, denied=isinstance(error, MeshDenied))
    run = (lease["metadata"].get("annotations") or {}).get(RUN_ANNOTATION)
    return _Hold((lease.get("spec") or {}).get("holderIdentity"), run, _is_fresh(lease, now_s))


def _state(hold: _Hold, run: str | None, *, over: bool, newer: bool = False) -> State:
    """Return the state of what *run* has, whose time is *over* or not; see `Injected`."""
    if run is not None and hold.fresh and hold.run == run and not over:
        return "live"
    if newer:
        # Its run may go on for as long as that version likes; who removes it must say that it is meant.
        return "newer"
    if over:
        return "expired"
    return "orphaned" if hold.unread is None else "unknown"


def how_to_put_back(mesh: Mesh, left: Iterable[Injected], *, by_others: bool = False) -> str:
    """Return, as a next step, the exact commands that put back what is *left*; *by_others*, with other credentials than ours."""
    commands = dict.fromkeys(f"`{restore_command(mesh, each.ref, each.run, by_others=by_others)}`" for each in left)
    return f"run {' and '.join(commands)}"


async def put_back(
    mesh: Mesh, chosen: Sequence[Injected], *, clock: Clock, patience_s: float
) -> list[Withdrawal | BaseException]:
    """
    Withdraw all of *chosen* at once and return what became of each, in order; a failure of one stops no other.

    Afterwards, as best effort, the ownership of ``spec.http`` is given back
    where it was all that was left of luff in an object.
    """
    results: list[Withdrawal | BaseException] = list(
        await asyncio.gather(
            *(
                withdraw(
                    mesh, each.ref, run=each.run or NAMELESS, clock=clock, pinned=each.seen_at, patience_s=patience_s
                )
                for each in chosen
            ),
            return_exceptions=True,
        )
    )
    # Of several on one object, whoever came last has seen it without the others.
    left = {each.ref: each.object_ for each in results if isinstance(each, Withdrawal) and each.object_ is not None
            and not remaining(each.object_, None)}  # fmt: skip
    await asyncio.gather(*(give_back(mesh, ref, object_) for ref, object_ in left.items()))
    return results


async def ask_to_stop(mesh: Mesh, ref: Ref, *, who: str) -> bool:
    """
    Ask the holder of *ref*'s Lease to stop, by the annotation ``luff.dev/stop``.

    False when nobody holds it, or it could not be written: then the routes are
    taken out without asking.
    """
    try:
        return await _ask_to_stop(mesh, ref, who=who)
    except LuffError:
        return False


async def _ask_to_stop(mesh: Mesh, ref: Ref, *, who: str) -> bool:
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
