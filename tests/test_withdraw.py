"""Withdrawing goes on whatever a call raises: nothing but the proof, or the end of somebody's patience, ends it."""

from __future__ import annotations

import pytest

from luff.errors import RestoreNotVerified
from luff.mesh import Ref
from luff.patches import clone
from luff.testing import Cluster, SimClock, SimMesh, virtual_time
from luff.withdraw import withdraw
from luff.words import Object
from tests.crash.world import BASE, REF, RUN

ODD = [ValueError("Incorrect padding"), KeyError("metadata"), AttributeError("get"), OSError("no file left")]


class _Odd(SimMesh):
    """This is a mesh whose reads raise *error* so many *times*."""

    error: Exception
    times = 3

    async def read(self, ref: Ref) -> Object:
        if self.times:
            self.times -= 1
            await SimMesh.read(self, ref)
            raise self.error
        return await SimMesh.read(self, ref)


def _mesh(error: Exception, *, times: int) -> _Odd:
    cluster = Cluster()
    cluster.add(clone(BASE))
    mesh = _Odd(cluster)
    mesh.error, mesh.times = error, times
    return mesh


@pytest.mark.parametrize("error", ODD, ids=repr)
def test_an_error_that_nobody_expects_is_waited_out(error: Exception) -> None:
    with virtual_time() as run:
        done = run(withdraw(_mesh(error, times=3), REF, run=RUN, clock=SimClock()))

    assert done.tries > 3


def test_an_error_that_stays_is_told_when_patience_ends() -> None:
    with virtual_time() as run, pytest.raises(RestoreNotVerified, match="ValueError: Incorrect padding"):
        run(withdraw(_mesh(ODD[0], times=1_000_000), REF, run=RUN, clock=SimClock(), patience_s=30.0))
