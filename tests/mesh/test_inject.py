"""An inject that failed in a way that proves nothing is treated as one that may have been applied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from luff.errors import MeshBusy, MeshDenied, MeshError, MeshUnreachable, NotFound, Rejected, RestoreNotVerified
from luff.inject import Hands, Live, injected
from luff.lifecycle import Phase
from luff.mesh import Operation, Ref
from luff.names import http_routes
from luff.patches import clone
from luff.testing import Cluster, MemoryJournal, NoWatcher, SimClock, SimMesh, Trouble, virtual_time
from luff.words import Object
from tests.crash.world import BASE, REF, RUN, planner

LATE_S = 3.0


class _Odd(SimMesh):
    """This is a mesh that answers the first patch with *error*, and applies it later all the same."""

    error: MeshError

    async def patch(self, ref: Ref, operations: Sequence[Operation], *, dry_run: bool = False) -> Object:
        if not any(verb == "odd" for verb, _ in self.calls):
            self.calls.append(("odd", ref))

            def act() -> object:
                return self.cluster.change(ref, operations)

            asyncio.get_running_loop().call_later(LATE_S, self._too_late, act)
            raise self.error
        return await SimMesh.patch(self, ref, operations, dry_run=dry_run)


def _inject(error: MeshError) -> tuple[Live, list[str], list[Phase]]:
    cluster, journal, live = Cluster(), MemoryJournal(), Live()
    cluster.add(clone(BASE))
    mesh = _Odd(cluster)
    mesh.error = error

    async def story() -> None:
        hands = Hands(mesh, journal, NoWatcher(), SimClock())
        with pytest.raises(type(error)):
            async with injected(planner(mesh, RUN), hands, live=live):
                raise AssertionError("nothing is live")
        await asyncio.sleep(2 * LATE_S)

    with virtual_time() as run:
        run(story())
    names = [str(route["name"]) for route in http_routes(cluster.objects[REF])]
    return live, names, journal.phases[RUN]


@pytest.mark.parametrize("error", [MeshError("odd"), MeshUnreachable("TLS broke"), MeshBusy("busy")], ids=repr)
def test_what_may_have_been_applied_is_fenced_so_that_it_comes_too_late(error: MeshError) -> None:
    live, names, phases = _inject(error)

    assert live.maybe_applied
    assert live.withdrawal is not None
    assert live.withdrawal.fenced
    assert names == ["canary", "default"]
    assert phases[-1] is Phase.CLEAN


def _stranded(trouble: Callable[[str, Ref], Trouble], answer: Callable[[Object], None]) -> tuple[Live, NoWatcher]:
    """Play a run whose first patch gets *answer* changed, and whose calls meet *trouble* from then on."""
    cluster, watcher, live = Cluster(), NoWatcher(), Live()
    cluster.add(clone(BASE))
    mesh = SimMesh(cluster)

    async def story() -> None:
        hands = Hands(mesh, MemoryJournal(), watcher, SimClock())
        async with injected(planner(mesh, RUN), hands, live=live, patience_s=30):
            assert live.object_ is not None
            answer(live.object_)
            mesh.trouble = trouble

    with virtual_time() as run, pytest.raises(RestoreNotVerified):
        run(story())
    return live, watcher


def test_what_a_run_cannot_take_out_its_watcher_is_told_to() -> None:
    live, watcher = _stranded(lambda *_: Trouble.DENIED, lambda _: None)

    assert live.stranded is not None
    assert watcher.taken_over == [RUN]
    assert list(watcher.watched) == [RUN], "and it is not released"


def test_what_has_lost_its_name_is_nothing_that_a_watcher_could_take_out() -> None:
    live, watcher = _stranded(lambda *_: Trouble.NONE, lambda answer: answer["spec"].update(http=[]))

    assert live.stranded is not None
    assert watcher.taken_over == []


@pytest.mark.parametrize("error", [Rejected("no"), MeshDenied("no"), NotFound("no")], ids=repr)
def test_what_was_refused_needs_no_write_to_be_clean(error: MeshError) -> None:
    live, _, _ = _inject(error)

    assert not live.maybe_applied
    assert live.withdrawal is not None
    assert not live.withdrawal.fenced
