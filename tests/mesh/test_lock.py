"""The Lease while a run lasts: who writes in between, who takes it away, and what nobody expects."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from luff.errors import RunAborted
from luff.lock import LEASE_S, lease_ref, locked
from luff.mesh import Kind, Ref
from luff.testing import Cluster, SimClock, SimMesh, virtual_time
from luff.words import Object

REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "inventory")
RUN = "0123456789abcdef"
LONG_S = 120.0


def _touch(lease: Object) -> None:
    notes = lease["metadata"]["annotations"]
    notes["touched"] = str(int(notes.get("touched", "0")) + 1)


def _hold(mesh: SimMesh, *, for_s: float = LONG_S) -> tuple[list[RunAborted], float]:
    """Hold the Lease until it is lost or *for_s* are over; returns what was said, and after how many seconds."""
    told: list[RunAborted] = []

    async def story() -> float:
        lost = asyncio.Event()

        def stop(why: RunAborted) -> None:
            told.append(why)
            lost.set()

        loop = asyncio.get_running_loop()
        async with locked(mesh, REF, run=RUN, holder="me", clock=SimClock(), stop=stop):
            began_s = loop.time()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), for_s)
            return loop.time() - began_s

    with virtual_time() as run:
        return told, run(story())


class _Busy(SimMesh):
    """This is a mesh where somebody writes the Lease just before each of *times* writes of ours."""

    times = 0

    async def replace(self, object_: Object) -> Object:
        if object_["kind"] == "Lease" and self.times:
            self.times -= 1
            self.cluster.edit(lease_ref(REF), _touch)
        return await SimMesh.replace(self, object_)


def test_who_writes_the_lease_now_and_then_does_not_keep_it_from_being_renewed() -> None:
    cluster = Cluster()
    mesh = _Busy(cluster)
    mesh.times = 2

    told, _ = _hold(mesh, for_s=3.0)

    assert not told
    first, *_, last = [each for each in cluster.history[lease_ref(REF)] if each is not None]
    assert last["spec"]["renewTime"] > first["spec"]["renewTime"]


def test_who_writes_the_lease_all_the_time_makes_the_run_end_when_the_lease_does() -> None:
    mesh = _Busy(Cluster())
    mesh.times = 1_000_000

    told, after_s = _hold(mesh)

    [why] = told
    assert why.reason == "bound"
    assert "could not be renewed" in why.message
    assert LEASE_S <= after_s < LEASE_S + 3


def test_who_takes_the_lease_between_a_look_and_a_write_is_seen_at_once() -> None:
    cluster = Cluster()

    class Thief(SimMesh):
        async def replace(self, object_: Object) -> Object:
            if object_["kind"] == "Lease":
                cluster.edit(lease_ref(REF), lambda lease: lease["spec"].update(holderIdentity="another"))
            return await SimMesh.replace(self, object_)

    told, after_s = _hold(Thief(cluster))

    [why] = told
    assert "taken over by another" in why.message
    assert after_s < 3


@pytest.mark.parametrize("error", [ValueError("Invalid header value"), KeyError("spec"), OSError("no file left")])
def test_a_keeper_that_fails_as_nobody_expects_ends_the_run_and_keeps_its_outcome(error: Exception) -> None:
    class Odd(SimMesh):
        async def replace(self, object_: Object) -> Any:
            raise error

    told, after_s = _hold(Odd(Cluster()))

    [why] = told
    assert why.reason == "bound"
    assert type(error).__name__ in why.message
    assert after_s < 3
