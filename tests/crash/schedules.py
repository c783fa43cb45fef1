"""Which schedules are played: everything that can be enumerated, then ever deeper ones, drawn by seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from luff.testing import Trouble
from tests.crash.world import LATE_S, WRITERS, Schedule, play

__all__ = ["TROUBLES", "deeper", "kills", "kills_in_trouble", "pairs", "pairs_with_the_inject", "reach", "singles"]

TROUBLES = tuple(trouble for trouble in Trouble if trouble is not Trouble.NONE)
MARGIN = 6
"""Trouble makes a run longer; so many more calls than without any are looked at."""


def reach() -> tuple[int, int]:
    """Return how many calls and awaits to look at."""
    played = play(Schedule())
    return len(played.verbs) + MARGIN, played.points + 2 * MARGIN


def singles(*, writers: bool = True) -> Iterator[Schedule]:
    """Each trouble at each call, with each concurrent writer at each boundary."""
    calls, _ = reach()
    boundaries = [("nobody", 0), *itertools.product(WRITERS[1:], range(calls))] if writers else [("nobody", 0)]
    for number, trouble, (writer, write_at) in itertools.product(range(calls), TROUBLES, boundaries):
        for late_s in LATE_S if trouble is Trouble.LATE and writer == "nobody" else (5.0,):
            yield Schedule(((number, trouble),), None, writer, write_at, late_s=late_s)


def kills(*, writers: bool = True) -> Iterator[Schedule]:
    """A kill at each await, with and without a guard, with each writer at each boundary."""
    calls, points = reach()
    boundaries = [("nobody", 0), *itertools.product(WRITERS[1:], range(calls))] if writers else [("nobody", 0)]
    for kill_at, (writer, write_at), guard in itertools.product(range(points), boundaries, (False, True)):
        yield Schedule((), kill_at, writer, write_at, guard=guard)


def kills_in_trouble() -> Iterator[Schedule]:
    """A kill at each await together with each trouble at each call, with and without a guard."""
    calls, points = reach()
    for number, trouble, kill_at, guard in itertools.product(range(calls), TROUBLES, range(points), (False, True)):
        yield Schedule(((number, trouble),), kill_at, guard=guard)


def pairs(*, seed: int = 0) -> Iterator[Schedule]:
    """All pairs of troubles, each with nobody and with one writer drawn by *seed*."""
    calls, _ = reach()
    rng = random.Random(seed)
    for one, other in itertools.combinations(range(calls), 2):
        for first, second in itertools.product(TROUBLES, TROUBLES):
            both = ((one, first), (other, second))
            yield Schedule(both)
            yield Schedule(both, None, rng.choice(WRITERS[1:]), rng.randrange(calls))


def pairs_with_the_inject() -> Iterator[Schedule]:
    """Every way in which the inject itself may go wrong, with each trouble at each later call."""
    calls, _ = reach()
    sent = play(Schedule()).verbs.index("patch")
    for at_inject, number, trouble in itertools.product(TROUBLES, range(sent + 1, calls), TROUBLES):
        yield Schedule(((sent, at_inject), (number, trouble)))


def deeper(*, seed: int) -> Iterator[Schedule]:
    """Schedules without end: several troubles, perhaps a kill, a writer, requests that are late by anything."""
    calls, points = reach()
    rng = random.Random(seed)
    while True:
        numbers = sorted(rng.sample(range(calls + MARGIN), rng.randint(1, 5)))
        yield Schedule(
            tuple((number, rng.choice(TROUBLES)) for number in numbers),
            rng.choice([None, rng.randrange(points + MARGIN)]),
            rng.choice(WRITERS),
            rng.randrange(calls + MARGIN),
            guard=rng.random() < 0.5,  # as often as not
            late_s=rng.choice(LATE_S),
        )
