"""The twins as requests of luff's own meet them, where no proxy can be looked into."""

from __future__ import annotations

import asyncio

import pytest

from luff.evidence.probes import FIRST_NUMBER, PROBES, Probes
from luff.routes import Injection
from luff.settle import Settled, await_gone, await_live
from luff.testing import SimClock, virtual_time

INJECTION = Injection(
    namespace="shop", virtual_service="stock", uid="u", resource_version="1", run="r", names=("twin",), twins=({},),
    positions=(0,), operations=(), hash_before="", created_s=0, expires_s=1,
)  # fmt: skip


class Way:
    """This is the way of luff's requests: which share of its proxies has the twins, by time."""

    def __init__(self, *shares: tuple[float, float | None]) -> None:
        self.shares = shares
        self.numbers: list[int] = []

    async def send(self, number: int) -> bool | None:
        self.numbers.append(number)
        now_s = asyncio.get_running_loop().time()
        share = [share for since_s, share in self.shares if since_s <= now_s][-1]
        return None if share is None else number % PROBES < share * PROBES

    def settled(self, *, live: bool) -> Settled:
        wait = await_live if live else await_gone
        with virtual_time() as play:
            found = play(wait(Probes(self.send), INJECTION, clock=SimClock()))
        assert isinstance(found, Settled)
        return found


def test_the_twins_are_live_once_every_probe_meets_them() -> None:
    way = Way((0, 0.0), (1.0, 0.5), (3.0, 1.0))
    found = way.settled(live=True)
    assert found.state == "live"
    assert 3.0 <= found.seconds < 5.0
    assert way.numbers == list(range(FIRST_NUMBER, FIRST_NUMBER + len(way.numbers))), "no probe is taken for a sample"


@pytest.mark.parametrize("share", [0.0, 0.9, None])
def test_twins_that_some_probes_never_meet_are_not_live(share: float | None) -> None:
    assert Way((0, share)).settled(live=True).state == "not_live"


def test_a_way_that_keeps_the_twins_is_stale() -> None:
    found = Way((0, 0.1)).settled(live=False)
    assert (found.state, found.where) == ("stale", ("luff's own way",))


@pytest.mark.parametrize("share", [0.0, None])
def test_a_clean_way_says_nothing_of_the_proxies_of_others(share: float | None) -> None:
    assert Way((0, 1.0), (2.0, share)).settled(live=False).state == "unobserved"
