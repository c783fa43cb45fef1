"""
When requests fall due: arrival times as a pure function of a rate and a seed.

The load is open: a request falls due whether or not earlier ones came back.
Both arms are interleaved in blocks of one request each, in random order, with
the same payload, so that whatever else changes during a run changes for both.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from luff.model import Arm, Request

__all__ = ["Arrival", "arrivals"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """This is one request to be sent *due_s* after the start, on *arm*; *request* is its index in ``traffic.requests``."""

    due_s: float
    arm: Arm
    request: int


def arrivals(
    rate_hz: float,
    duration_s: float,
    *,
    requests: Sequence[Request],
    rng: random.Random,
    arms: Sequence[Arm] = tuple(Arm),
    ramp_s: float = 0.0,
) -> Iterator[Arrival]:
    """
    Yield arrivals in order of due time, *rate_hz* per arm for *duration_s*.

    During *ramp_s* the rate rises from nothing in a straight line. Within a
    block each arm has its own even slot, jittered inside it, so that no timer
    of the service can fall in step with the load.
    """
    weights = [request.weight for request in requests]
    slots = len(arms)
    block = 0
    while True:
        starts_s = _time_of(block, rate_hz, ramp_s)
        if starts_s >= duration_s:
            return
        ends_s = _time_of(block + 1, rate_hz, ramp_s)
        width_s = (ends_s - starts_s) / slots
        request = rng.choices(range(len(requests)), weights)[0]
        for slot, arm in enumerate(rng.sample(list(arms), slots)):
            due_s = starts_s + (slot + rng.random()) * width_s
            if due_s < duration_s:
                yield Arrival(due_s, arm, request)
        block += 1


def _time_of(count: int, rate_hz: float, ramp_s: float) -> float:
    """Return when *count* blocks have begun: quadratic while the rate rises, straight afterwards."""
    during_ramp = rate_hz * ramp_s / 2
    if count <= during_ramp:
        return (2.0 * count * ramp_s / rate_hz) ** 0.5 if ramp_s else 0.0
    return ramp_s + (count - during_ramp) / rate_hz
