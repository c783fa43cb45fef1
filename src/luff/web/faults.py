"""
What is injected right now, whoever did it, as the mesh itself says.

One look every few seconds serves every page and every request. Where it could
not be looked, that is said: no answer is not "nothing there".
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from luff.clock import Clock
from luff.errors import LuffError, MeshDenied, MeshError, RestoreNotVerified
from luff.lifecycle import Intent
from luff.mesh import Mesh
from luff.metrics import Metrics
from luff.restore import (
    LEFT_BEHIND,
    Held,
    Injected,
    ask_to_stop,
    find_injected,
    held_by_runs,
    how_to_put_back,
    moment,
    put_back,
    written_down,
)
from luff.withdraw import PATIENCE_S, Withdrawal

__all__ = ["Fault", "Faults", "Restored", "Seen"]

LOOK_EVERY_S = 2.0
LOOK_WITHIN_S = 20.0
ASK_FIRST_S = 20.0
"""How long a live run elsewhere is given to restore by itself before its routes are taken out from here."""
_log = logging.getLogger("luff.web")


@dataclass(frozen=True, slots=True)
class Fault:
    """This is what one run has in one object; see `luff.restore.Injected`. *until* is when it ends by itself."""

    namespace: str
    virtual_service: str
    run: str | None
    state: str
    holder: str | None
    since: datetime | None
    until: datetime | None
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """This is the newest look. *error* says why it failed; then *faults* are those of the last one that did not."""

    faults: tuple[Fault, ...] = ()
    doubtful: tuple[str, ...] = ()
    error: str | None = "nobody has looked yet"
    at: datetime | None = None
    looked_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Restored:
    """This is what was done about leftovers: how many had been *left*, which runs are proven *back*, and which *may_be_live*."""

    left: int
    back: frozenset[str]
    may_be_live: frozenset[str]


class Faults:
    """This looks after faults. *namespaces* are looked into where the whole mesh may not be listed."""

    def __init__(self, mesh: Mesh, clock: Clock, *, namespaces: Callable[[], Sequence[str]], metrics: Metrics) -> None:
        self._mesh = mesh
        self._clock = clock
        self._namespaces = namespaces
        self._metrics = metrics
        self._turn = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()
        self._where: Sequence[str] | None = None
        self.seen = Seen()

    async def keep_looking(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> Seen:
        """Look now, and return what is there."""
        async with self._turn:
            try:
                async with asyncio.timeout(LOOK_WITHIN_S):
                    found, doubtful = await self._find()
                faults = tuple(_fault(each) for each in found)
                self.seen = Seen(faults, tuple(map(str, doubtful)), None, datetime.now(UTC), self._clock.monotonic_s())
                self._metrics.faults(Counter((each.namespace, each.virtual_service) for each in faults))
            except (LuffError, TimeoutError) as error:
                said = error.message if isinstance(error, LuffError) else "the API server does not answer"
                before = self.seen
                self.seen = Seen(before.faults, before.doubtful, said, before.at, before.looked_s)
            return self.seen

    async def _find(self) -> tuple[list[Injected], list[object]]:
        try:
            found, doubtful = await find_injected(self._mesh, None)
            self._where = None
        except MeshDenied:
            self._where = self._namespaces()
            found, doubtful = await find_injected(self._mesh, self._where)
        return found, list(doubtful)

    async def restore_leftovers(self, intents: Sequence[Intent]) -> Restored:
        """
        Take out what nobody holds any more, and what *intents*, those of our own journal, may have left wherever it is.

        What is not in our journal and stays is another's: it is logged. Raises
        `RestoreNotVerified` when a fault of ours was seen and may still be live.
        """
        found, _ = await self._find()
        seen = [each for each in found if each.state in LEFT_BEHIND]
        failed, _ = await self._put_back(seen)
        mine = {each.run for each in intents}
        if ours := {each: error for each, error in failed.items() if each.run in mine}:
            raise _not_restored(self._mesh, ours)
        recorded = await asyncio.gather(*(written_down(self._mesh, each) for each in intents))
        still, taken = await self._put_back([each for each in recorded if each.state in LEFT_BEHIND])
        for each, error in {**failed, **still}.items():
            _log.error("run %s is not restored: %s", each.run or "(nameless)", error)
        return Restored(
            left=len(seen) - len(failed) + sum(bool(done.removed) for done in taken.values()),
            back=frozenset(each.run for each in taken if each.run is not None),
            may_be_live=frozenset(each.run for each in recorded if each.run and each.state not in LEFT_BEHIND),
        )

    def stop_elsewhere(self, run: str, *, who: str) -> None:
        """Begin to stop *run*, which is not of this server: ask its holder, wait a while, take out what is left."""
        task = asyncio.create_task(self._stop_elsewhere(run, who=who))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def settle(self, *, within_s: float) -> None:
        """Wait for stops that have begun."""
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=within_s)

    async def _stop_elsewhere(self, run: str, *, who: str) -> None:
        try:
            held = await self._held(run)
            asked = [each for each in held if await ask_to_stop(self._mesh, each.ref, who=who)]
            until_s = self._clock.monotonic_s() + ASK_FIRST_S
            while held and self._clock.monotonic_s() < until_s:
                await self._clock.sleep(0.5)
                held = await self._held(run)
            found, _ = await self._find()
            failed, taken = await self._put_back([each for each in found if each.run == run])
            if failed:
                raise _not_restored(self._mesh, failed)
            for each in [] if taken else held:
                how = "was asked to end" if each in asked else "could not be asked to end"
                _log.error("run %s on %s %s, and %s still holds it", run, each.ref, how, each.holder)
        except LuffError as error:
            _log.error("run %s could not be stopped: %s", run, error)
        await self.look()

    async def _held(self, run: str) -> list[Held]:
        try:
            return [each for each in await held_by_runs(self._mesh, self._where) if each.run == run]
        except MeshError:
            return []

    async def _put_back(
        self, chosen: Sequence[Injected]
    ) -> tuple[dict[Injected, LuffError], dict[Injected, Withdrawal]]:
        """Return which of *chosen* are not restored, with why, and which are proven to be."""
        results = await put_back(self._mesh, chosen, clock=self._clock, patience_s=PATIENCE_S)
        failed, taken = {}, {}
        for each, result in zip(chosen, results, strict=True):
            if isinstance(result, Withdrawal):
                taken[each] = result
                continue
            if not isinstance(result, LuffError):
                raise result
            self._metrics.restore_failed()
            failed[each] = result
        return failed, taken


def _not_restored(mesh: Mesh, failed: dict[Injected, LuffError]) -> RestoreNotVerified:
    said = "; ".join(dict.fromkeys(error.message for error in failed.values()))
    return RestoreNotVerified(f"a fault may still be live: {said}", next_step=how_to_put_back(mesh, failed))


def _fault(each: Injected) -> Fault:
    return Fault(
        namespace=each.ref.namespace,
        virtual_service=each.ref.name,
        run=each.run,
        state=each.state,
        holder=each.holder,
        since=moment(each.created_s),
        until=moment(each.expires_s),
        names=each.names,
    )
