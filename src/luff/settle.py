"""
Wait until the proxies have what the API server has, both ways.

An object that reads right is not a route that works: proxies learn of it
later. Where their configuration can be read it is the authority; where it
cannot, that is said (*unobserved*) and a fixed time is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luff.clock import Clock
from luff.evidence import DataPlane, Sighting
from luff.lifecycle import LIVE_WITHIN_S
from luff.routes import Injection

__all__ = ["PROPAGATION_S", "Settled", "await_gone", "await_live"]

GONE_WITHIN_S = 30.0
LOOK_EVERY_S = 0.02
LOOK_EVERY_MOST_S = 0.5
PROPAGATION_S = 5.0
"""What unseen proxies are given to learn of a change."""


@dataclass(frozen=True, slots=True)
class Settled:
    """This is what the proxies showed. *looks* counts how often they were asked; *seconds* until the answer was had."""

    state: Literal["live", "not_live", "gone", "stale", "unobserved"]
    looks: int
    seconds: float
    where: tuple[str, ...] = ()
    """The proxies that were live, or that still are where they should not be."""


async def await_live(plane: DataPlane | None, injection: Injection, *, clock: Clock) -> Settled:
    """Come back when every proxy that routes the object has the twins, or after 30 s without."""
    return await _await(plane, injection, clock=clock, live=True)


async def await_gone(plane: DataPlane | None, injection: Injection, *, clock: Clock) -> Settled:
    """Come back when no proxy has any of the twins, or after 30 s with some left."""
    return await _await(plane, injection, clock=clock, live=False)


async def _await(plane: DataPlane | None, injection: Injection, *, clock: Clock, live: bool) -> Settled:
    began_s = clock.monotonic_s()
    if plane is None:
        if live:
            await clock.sleep(PROPAGATION_S)
        return Settled("unobserved", 0, clock.monotonic_s() - began_s)
    looks, pause_s = 0, LOOK_EVERY_S
    within_s = LIVE_WITHIN_S if live else GONE_WITHIN_S
    while True:
        seen = await plane.look(injection)
        looks += 1
        took_s = clock.monotonic_s() - began_s
        having = tuple(sorted(replica for replica, names in seen.names.items() if names))
        if live and having and not _missing(seen, injection):
            return Settled("live", looks, took_s, having)
        if not live and not having and (not seen.silent or took_s >= PROPAGATION_S):
            # One that is silent for a moment is asked again.
            return Settled("unobserved" if seen.silent else "gone", looks, took_s)
        if took_s > within_s:
            return Settled("not_live" if live else "stale", looks, took_s, having)
        await clock.sleep(pause_s)
        pause_s = min(LOOK_EVERY_MOST_S, pause_s * 1.5)


def _missing(seen: Sighting, injection: Injection) -> bool:
    """Return whether a proxy that should have twins has none. With sourceLabels only some callers ever get them."""
    if injection.for_some_callers:
        return False
    return any(not seen.names.get(replica) for replica in seen.concerned)
