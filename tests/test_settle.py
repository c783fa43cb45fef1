"""Waiting for proxies: what is live, what is gone, and what nobody can see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import pytest

from luff.evidence import Sighting
from luff.lifecycle import LIVE_WITHIN_S
from luff.routes import Injection
from luff.settle import GONE_WITHIN_S, LOOK_EVERY_MOST_S, PROPAGATION_S, Settled, await_gone, await_live

Wait = Callable[..., Awaitable[Settled]]
NAMES = ("luff.1.0123456789abcdef.1.2.0", "luff.1.0123456789abcdef.1.2.1")
INJECTION = Injection(
    namespace="shop",
    virtual_service="inventory",
    uid="u",
    resource_version="1",
    run="0123456789abcdef",
    names=NAMES,
    twins=(),
    positions=(),
    operations=(),
    hash_before="a" * 64,
    created_s=1,
    expires_s=2,
)


class Ticking:
    """This is a clock whose sleeps take no time; it keeps how long they would have been."""

    def __init__(self) -> None:
        self.at_s = 100.0
        self.pauses: list[float] = []

    def monotonic_s(self) -> float:
        return self.at_s

    def now_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at_s += seconds


class Plane:
    """This shows one sighting after another, the last of them for ever."""

    def __init__(self, *sightings: Sighting) -> None:
        self.sightings = sightings
        self.asked: list[Injection] = []

    async def look(self, injection: Injection) -> Sighting:
        self.asked.append(injection)
        return self.sightings[min(len(self.asked), len(self.sightings)) - 1]


def _seen(names: Mapping[str, tuple[str, ...]], *, concerned: str = "", silent: str = "") -> Sighting:
    return Sighting(
        frozenset(concerned.split()) or frozenset(names),
        {replica: frozenset(each) for replica, each in names.items()},
        frozenset(silent.split()),
    )


def _waited(wait: Wait, *sightings: Sighting, injection: Injection = INJECTION) -> tuple[Settled, Ticking]:
    clock = Ticking()
    plane = Plane(*sightings)

    async def work() -> Settled:
        return await wait(plane, injection, clock=clock)

    settled = asyncio.run(work())
    assert all(asked is injection for asked in plane.asked)
    assert settled.looks == len(plane.asked)
    assert settled.seconds == pytest.approx(sum(clock.pauses))
    return settled, clock


NONE = _seen({"a-0": (), "b-0": ()})
ONE = _seen({"a-0": NAMES, "b-0": ()})
BOTH = _seen({"a-0": NAMES, "b-0": NAMES})


def test_it_is_live_when_every_proxy_that_routes_the_object_has_the_twins() -> None:
    settled, _ = _waited(await_live, NONE, NONE, ONE, BOTH)
    assert (settled.state, settled.looks, settled.where) == ("live", 4, ("a-0", "b-0"))


def test_a_proxy_that_does_not_route_the_object_is_not_waited_for() -> None:
    settled, _ = _waited(await_live, _seen({"a-0": NAMES, "b-0": ()}, concerned="a-0"))
    assert (settled.state, settled.where) == ("live", ("a-0",))


def test_a_proxy_that_routes_the_object_and_says_nothing_is_waited_for() -> None:
    silent = _seen({"a-0": NAMES}, concerned="a-0 b-0", silent="b-0")
    assert _waited(await_live, silent, BOTH)[0].state == "live"
    assert _waited(await_live, silent)[0].state == "not_live"


def test_with_source_labels_only_some_callers_ever_get_them() -> None:
    some = replace(INJECTION, for_some_callers=True)
    assert _waited(await_live, ONE, injection=some)[0].state == "live"
    assert _waited(await_live, NONE, injection=some)[0].state == "not_live"


def test_it_is_not_live_when_it_took_too_long() -> None:
    settled, clock = _waited(await_live, ONE)
    assert (settled.state, settled.where) == ("not_live", ("a-0",))
    assert LIVE_WITHIN_S < settled.seconds <= LIVE_WITHIN_S + LOOK_EVERY_MOST_S
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] < 0.05
    assert clock.pauses[-1] == LOOK_EVERY_MOST_S


def test_nowhere_live_is_not_live() -> None:
    assert _waited(await_live, _seen({}))[0].state == "not_live"


def test_it_is_gone_when_no_proxy_has_any_of_them() -> None:
    left = _seen({"a-0": NAMES[1:], "b-0": ()})
    settled, _ = _waited(await_gone, BOTH, ONE, left, NONE)
    assert (settled.state, settled.looks, settled.where) == ("gone", 4, ())


def test_it_is_stale_when_some_are_left_for_too_long() -> None:
    settled, _ = _waited(await_gone, BOTH, ONE)
    assert (settled.state, settled.where) == ("stale", ("a-0",))
    assert GONE_WITHIN_S < settled.seconds <= GONE_WITHIN_S + LOOK_EVERY_MOST_S


def test_a_silent_proxy_may_still_have_them_and_that_is_said() -> None:
    silent = _seen({"a-0": ()}, silent="b-0")
    settled, _ = _waited(await_gone, silent)
    assert settled.state == "unobserved"
    assert PROPAGATION_S <= settled.seconds <= PROPAGATION_S + LOOK_EVERY_MOST_S
    # For a moment any proxy can be.
    assert _waited(await_gone, silent, silent, NONE)[0].state == "gone"
    assert _waited(await_gone, silent, ONE)[0].state == "stale"


@pytest.mark.parametrize(("wait", "seconds"), [(await_live, PROPAGATION_S), (await_gone, 0.0)])
def test_where_nothing_can_be_seen_that_is_said(wait: Wait, seconds: float) -> None:
    clock = Ticking()

    async def work() -> Settled:
        return await wait(None, INJECTION, clock=clock)

    settled = asyncio.run(work())
    assert (settled.state, settled.looks, settled.seconds, settled.where) == ("unobserved", 0, seconds, ())
