"""
When requests fall due: arrival times as a pure function of a load and a seed.

The load is open: a request falls due whether or not earlier ones came back.
Both arms are interleaved in blocks of one request each, in random order, with
the same payload, so that whatever else changes during a run changes for both.
Laws, whatever the load and the pattern:

1. Arrivals are in order of due time, and within the time that was asked for.
2. Each block has one request of each arm, and all of them ask the same.
3. Constant arrivals are as many as the load has by then, to one; Poisson
   arrivals are as many on average.
4. A seed decides.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from luff.model import DEFAULT_RATE_HZ, Arm, Phase, Request, Traffic

__all__ = ["Arrival", "Load", "Pattern", "arrivals", "arrivals_of", "load_of"]

Pattern = Literal["constant", "poisson"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """This is one request to be sent *due_s* after the start, on *arm*; *request* is its index in ``traffic.requests``."""

    due_s: float
    arm: Arm
    request: int


@dataclass(frozen=True, slots=True)
class Leg:
    """This is a stretch in which the rate per arm goes in a straight line from *from_hz* to *to_hz*, in *seconds*."""

    seconds: float
    from_hz: float
    to_hz: float

    @property
    def count(self) -> float:
        """Return how many requests of each arm it has."""
        return self.seconds * (self.from_hz + self.to_hz) / 2

    def time_of(self, count: float) -> float:
        """Return when *count* of its requests have fallen due: the inverse of the quadratic that they add up to."""
        if not count:
            return 0.0
        steepness = (self.to_hz - self.from_hz) / self.seconds
        return 2.0 * count / (self.from_hz + math.sqrt(max(0.0, self.from_hz**2 + 2.0 * steepness * count)))


class Load:
    """This is a rate per arm over time: *legs* one after another, then *then_hz* for as long as it takes."""

    def __init__(self, legs: Sequence[Leg], then_hz: float) -> None:
        self._legs = tuple(leg for leg in legs if leg.seconds > 0)
        self._then_hz = then_hz
        self._starts_s = list(accumulate((leg.seconds for leg in self._legs), initial=0.0))
        self._counts = list(accumulate((leg.count for leg in self._legs), initial=0.0))

    @classmethod
    def steady(cls, rate_hz: float, *, ramp_s: float = 0.0) -> Load:
        """Return the load of *rate_hz*, which is reached from nothing in *ramp_s*."""
        return cls([Leg(ramp_s, 0.0, rate_hz)], rate_hz)

    @property
    def mean_hz(self) -> float:
        """Return the mean rate per arm over the legs; without any, the rate."""
        return self._counts[-1] / self._starts_s[-1] if self._legs else self._then_hz

    @property
    def most_hz(self) -> float:
        """Return the highest rate per arm."""
        return max(self._then_hz, *(max(leg.from_hz, leg.to_hz) for leg in self._legs), 0.0)

    def time_of(self, count: float) -> float:
        """Return when *count* requests of each arm have fallen due."""
        index = bisect_right(self._counts, count) - 1
        if index >= len(self._legs):
            return self._starts_s[-1] + (count - self._counts[-1]) / self._then_hz
        # What is left over from rounding must not make a leg longer than it is.
        return self._starts_s[index] + min(
            self._legs[index].seconds, self._legs[index].time_of(count - self._counts[index])
        )


def load_of(traffic: Traffic, rate_hz: float | None = None) -> Load:
    """
    Return the load while the fault is live: the stages, or else *rate_hz* per arm.

    Stages begin at ``traffic.rate``, or at nothing; the last one's rate stays.
    """
    if not traffic.stages:
        written_hz = DEFAULT_RATE_HZ if traffic.rate_hz is None else traffic.rate_hz
        return Load.steady(written_hz if rate_hz is None else rate_hz)
    rates_hz = [traffic.rate_hz or 0.0, *(stage.rate_hz for stage in traffic.stages)]
    legs = [Leg(stage.for_s, rates_hz[place], stage.rate_hz) for place, stage in enumerate(traffic.stages)]
    return Load(legs, rates_hz[-1])


def arrivals_of(
    traffic: Traffic, phase: Phase, *, rate_hz: float, duration_s: float, rng: random.Random
) -> Iterator[Arrival]:
    """
    Yield the arrivals of *phase*, *duration_s* long, where *rate_hz* per arm is the plan's.

    The stages are for the time in which the fault is live. The warm-up rises to
    the rate in its first half.
    """
    if phase is Phase.FAULT:
        load = load_of(traffic, rate_hz)
    else:
        load = Load.steady(rate_hz, ramp_s=duration_s / 2 if phase is Phase.WARMUP else 0.0)
    return arrivals(load, duration_s, requests=traffic.requests, rng=rng, arms=traffic.arms, pattern=traffic.arrivals)


def arrivals(
    load: Load | float,
    duration_s: float,
    *,
    requests: Sequence[Request],
    rng: random.Random,
    arms: Sequence[Arm] = tuple(Arm),
    pattern: Pattern = "constant",
) -> Iterator[Arrival]:
    """
    Yield arrivals in order of due time, by *load* (or that many a second) per arm, for *duration_s*.

    Of constant arrivals each has its own even slot, jittered inside it, so that
    no timer of the service can fall in step with the load. Poisson arrivals of
    both arms together come as from many users who know nothing of one another.
    """
    load = load if isinstance(load, Load) else Load.steady(load)
    weights = [request.weight for request in requests]
    slots = len(arms)
    number, position = 0, 0.0
    while True:
        request = rng.choices(range(len(requests)), weights)[0]
        for arm in rng.sample(list(arms), slots):
            position = (number + rng.random()) / slots if pattern == "constant" else position + rng.expovariate(slots)
            due_s = load.time_of(position)
            if due_s >= duration_s:
                return
            yield Arrival(due_s, arm, request)
            number += 1
