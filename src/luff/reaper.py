"""
The reaper: an independent restorer with its own identity, no database and no leader.

It looks at every VirtualService it may read and takes out what is ours and
should not be there. Any number may run at once. It trusts no clock but its own
monotonic one and the API server's ``Date``: a Lease counts as alive while its
record *changes*, and a twin is too old when the server's clock says so or when
this process has watched it for longer than any twin may live.

What must stay true: it removes only what is ours by the whole grammar; what
merely looks like ours is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from luff.announce import FAULT_REMOVED, Announcement, announce, reaper_says
from luff.clock import Clock
from luff.errors import Conflict, LuffError, MeshDenied, MeshError, NotFound, Rejected
from luff.heartbeat import beat
from luff.lock import RUN_ANNOTATION, lease_ref
from luff.mesh import Kind, Mesh, Ref
from luff.names import http_routes, is_newer, our_run, ours, parse_name, suspects, tampered
from luff.units import TTL_MOST_S
from luff.withdraw import FENCE_ANNOTATION, NAMELESS, tidy, try_it, withdraw
from luff.words import Object

__all__ = ["ORPHAN_AFTER_S", "REASONS", "Reaper", "Sighted", "Sweep"]

ORPHAN_AFTER_S = 15.0
"""How long a run's Lease may stand still before the run counts as dead."""
SKEW_S = 60.0
"""How far in the future a twin's creation may lie: clocks of API servers differ."""
SWEEP_PATIENCE_S = 10.0
"""One stubborn object must not keep the heartbeat waiting; the next sweep tries again."""
AT_ONCE = 16
"""How many objects are restored at the same time."""
PROVE_EVERY_S = 15.0
"""How long it counts as shown that a route could be removed in a namespace: half as long as its heartbeat is fresh."""
PROVE_ON_MOST = 3
"""So many objects are tried in a namespace before it counts as one where nothing can be removed: one may be locked, or broken."""


@dataclass(frozen=True, slots=True)
class Sighted:
    """
    This is one run's routes in one object, as the reaper sees them.

    *created_s* and *expires_s* are what their names say, the latest and the
    earliest; ``None`` where a newer luff wrote them. *broken* is a name that no
    luff writes. *watched_s* is how long this process has seen them, *silent_s*
    for how long their Lease has not changed, *seen_at* the resourceVersion.
    """

    ref: Ref
    run: str | None
    created_s: int | None
    expires_s: int | None
    broken: bool
    scoped: bool
    server_s: float
    watched_s: float
    silent_s: float
    seen_at: str | None = None


Reason = tuple[str, Callable[[Sighted], bool]]

REASONS: tuple[Reason, ...] = (
    ("its name is not one that luff writes", lambda s: s.broken),
    ("its scope is missing, short or a wildcard", lambda s: not s.scoped),
    ("it has expired", lambda s: s.expires_s is not None and s.server_s > s.expires_s),
    ("it was created in the future", lambda s: s.created_s is not None and s.created_s > s.server_s + SKEW_S),
    ("it would live too long", lambda s: s.expires_s is not None and s.expires_s > s.server_s + TTL_MOST_S + SKEW_S),
    ("it has been here too long", lambda s: s.watched_s > TTL_MOST_S),
    ("its run is dead: the Lease stands still", lambda s: s.silent_s > ORPHAN_AFTER_S),
)
"""Why a route of ours is removed. The first that holds is the reason; if none does, it stays."""


@dataclass(slots=True)
class Sweep:
    """
    This is one look at everything.

    *removed* has (object, run, reason); *kept* what is live; *errors* in
    sentences; *failed* the namespaces that they are about. *saw_everything*
    says that every list was answered, whatever came of what is in them.
    """

    removed: list[tuple[Ref, str | None, str]] = field(default_factory=list)
    kept: list[tuple[Ref, str | None]] = field(default_factory=list)
    suspects: list[tuple[Ref, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    saw_everything: bool = False

    def fail(self, error: Exception, namespace: str | None = None) -> None:
        """Take note of *error*, in *namespace* if it is about one."""
        self.errors.append(str(error) if isinstance(error, LuffError) else f"{type(error).__name__}: {error}")
        if namespace is not None:
            self.failed.add(namespace)

    async def over(self, work: Awaitable[None], namespace: str) -> None:
        """Do *work* in *namespace*; that it fails, or trips us up, keeps nobody from the rest."""
        try:
            await work
        except Exception as error:
            self.fail(error, namespace)


@dataclass(slots=True)
class Reaper:
    """
    This sweeps *namespaces* (everywhere when ``None``).

    *home* is where the heartbeat Lease lives; *identity* says whose it is. One
    that does not stay does not *beat*: nobody may rely on it.
    """

    mesh: Mesh
    clock: Clock
    namespaces: Sequence[str] | None = None
    home: str = "luff-system"
    identity: str = "luff-reaper"
    beats: bool = True
    _first_seen: dict[tuple[Ref, str | None], float] = field(default_factory=dict)
    _leases: dict[tuple[Ref, str | None], tuple[str, float]] = field(default_factory=dict)
    _proven: dict[str, float] = field(default_factory=dict)

    async def sweep(self) -> Sweep:
        """
        Look at everything once, remove what must go, and renew the heartbeat for the namespaces where that was possible.

        Never raises: whatever went wrong is in the answer, and the next look may do better.
        """
        sweep = Sweep()
        try:
            await self._sweep(sweep)
        except Exception as error:
            # Of ours or of the machine's, as no thread to be had: a reaper that ends over it restores nothing any more.
            sweep.fail(error)
        return sweep

    async def _sweep(self, sweep: Sweep) -> None:
        server_s = await self.mesh.server_time_s()
        seen: set[tuple[Ref, str | None]] = set()
        proven: dict[str, float] = {}
        everywhere: list[str | None] = [None]
        answered = True
        for namespace in self.namespaces or everywhere:
            try:
                objects = await self.mesh.list(Kind.VIRTUAL_SERVICE, namespace)
            except Exception as error:
                sweep.fail(error)
                answered = False
                continue
            looks = asyncio.Semaphore(AT_ONCE)
            for keys in await asyncio.gather(*(self._look(each, server_s, sweep, looks) for each in objects)):
                seen |= keys
            proven |= await self._prove(objects, server_s, sweep)
        self._proven = {name: at_s for name, at_s in proven.items() if name not in sweep.failed}
        sweep.saw_everything = answered
        if answered:
            # Only a whole look tells what is no longer there.
            self._first_seen = {key: at for key, at in self._first_seen.items() if key in seen}
            self._leases = {key: record for key, record in self._leases.items() if key in seen}
        if self.beats and (self._proven or not sweep.errors):
            try:
                await beat(self.mesh, self.home, identity=self.identity, covers=self._proven, now_s=server_s)
            except MeshError as error:
                sweep.errors.append(f"no heartbeat: {error}")

    async def _prove(self, objects: Iterable[Object], server_s: float, sweep: Sweep) -> dict[str, float]:
        """Return when it was shown of each namespace that we may remove a route there; asked anew when that is a while ago."""
        proven: dict[str, float] = {}
        by_namespace: dict[str, list[Ref]] = {}
        for each in objects:
            ref = Ref.of(each)
            by_namespace.setdefault(ref.namespace, []).append(ref)
        asks = asyncio.Semaphore(AT_ONCE)

        async def ask(namespace: str, refs: Sequence[Ref]) -> None:
            at_s = self._proven.get(namespace)
            if at_s is not None and server_s - at_s < PROVE_EVERY_S:
                proven[namespace] = at_s
                return
            try:
                async with asks:
                    if await self._may_remove_one_of(refs[:PROVE_ON_MOST]):
                        proven[namespace] = server_s
            except MeshError as error:
                sweep.errors.append(f"nothing can be removed in {namespace}: {error}")

        await asyncio.gather(*(ask(namespace, refs) for namespace, refs in by_namespace.items()))
        return proven

    async def _may_remove_one_of(self, refs: Sequence[Ref]) -> bool:
        """Return whether we may change one of *refs*, ``False`` when all are gone; raises the `MeshError` of the last that is not."""
        refused: MeshError | None = None
        for ref in refs:
            try:
                await try_it(self.mesh, ref)
            except NotFound:
                continue
            except (MeshDenied, Rejected, Conflict) as error:
                # That may be about this object. A server that cannot answer would say so of each, and take its time.
                refused = error
            else:
                return True
        if refused is not None:
            raise refused
        return False

    async def _look(
        self, object_: Object, server_s: float, sweep: Sweep, looks: asyncio.Semaphore
    ) -> set[tuple[Ref, str | None]]:
        ref = Ref.of(object_)
        sweep.suspects += [(ref, name) for name in suspects(object_)]
        by_run: dict[str | None, list[Object]] = {}
        for route in http_routes(object_):
            if ours(route):
                by_run.setdefault(our_run(route), []).append(route)
        async with looks:
            for run, routes in by_run.items():
                await sweep.over(self._act(object_, run, routes, server_s, sweep), ref.namespace)
            # Beside a run that lives as well: who is fencing for another takes a fence that is gone for a conflict.
            await sweep.over(self._tidy(object_, ref), ref.namespace)
        return {(ref, run) for run in by_run}

    async def _sight(self, object_: Object, run: str | None, routes: Sequence[Object], server_s: float) -> Sighted:
        ref = Ref.of(object_)
        texts = [str(route.get("name")) for route in routes]
        names = [name for text in texts if (name := parse_name(text)) is not None]
        return Sighted(
            ref=ref,
            run=run,
            created_s=max((name.created_s for name in names), default=None),
            expires_s=min((name.expires_s for name in names), default=None),
            broken=run is None or any(parse_name(text) is None and not is_newer(text) for text in texts),
            scoped=not any(tampered(route) for route in routes),
            server_s=server_s,
            watched_s=self._watched_s(ref, run),
            silent_s=await self._silent_s(ref, run),
            seen_at=str(object_["metadata"].get("resourceVersion", "")) or None,
        )

    async def _act(
        self, object_: Object, run: str | None, routes: Sequence[Object], server_s: float, sweep: Sweep
    ) -> None:
        sighted = await self._sight(object_, run, routes, server_s)
        reason = next((said for said, holds in REASONS if holds(sighted)), None)
        if reason is None:
            sweep.kept.append((sighted.ref, sighted.run))
            return
        done = await withdraw(
            self.mesh,
            sighted.ref,
            run=sighted.run or NAMELESS,
            clock=self.clock,
            pinned=sighted.seen_at,
            patience_s=SWEEP_PATIENCE_S,
        )
        sweep.removed.append((sighted.ref, sighted.run, reason))
        if done.removed and done.object_ is not None:
            note = reaper_says(self.identity, sighted.run or NAMELESS, reason)
            # For people, and for the run if it is alive; best effort.
            with contextlib.suppress(MeshError):
                await announce(self.mesh, done.object_, Announcement(FAULT_REMOVED, note, sighted.server_s))

    async def _tidy(self, object_: Object, ref: Ref) -> None:
        """Take away a fence that a restorer left when it died between its two writes."""
        if FENCE_ANNOTATION not in ((object_.get("metadata") or {}).get("annotations") or {}):
            return
        await tidy(self.mesh, ref)

    def _watched_s(self, ref: Ref, run: str | None) -> float:
        now_s = self.clock.monotonic_s()
        return now_s - self._first_seen.setdefault((ref, run), now_s)

    async def _silent_s(self, ref: Ref, run: str | None) -> float:
        """Return for how long the Lease of *ref* has said nothing new about *run*, by this process's own time."""
        now_s = self.clock.monotonic_s()
        try:
            lease = await self.mesh.read(lease_ref(ref))
            record = str(lease["metadata"].get("resourceVersion"))
            if (lease["metadata"].get("annotations") or {}).get(RUN_ANNOTATION) != run:
                # It is another run's by now, which says nothing for this one.
                record = "another's"
        except NotFound:
            record = "absent"
        except MeshError:
            # Not knowing is no proof of death; expiry still holds.
            return 0.0
        before, since_s = self._leases.get((ref, run), ("", now_s))
        if record != before:
            since_s = now_s
        self._leases[ref, run] = (record, since_s)
        return now_s - since_s
