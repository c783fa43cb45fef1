"""Which schedules are played: everything that can be enumerated, then ever deeper ones, drawn by seed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from luff.testing import Trouble
from tests.crash.plays import play
from tests.crash.world import TTL_S, Schedule
from tests.crash.writers import PROCESSES, WRITERS

__all__ = [
    "TROUBLES", "deeper", "how_pairs_are_drawn", "kills", "kills_after_a_late_inject", "kills_in_trouble", "others", "pairs", "pairs_with_the_inject", "reach", "singles",
    "wholes", "writers_alone",
]  # fmt: skip

TROUBLES = tuple(trouble for trouble in Trouble if trouble is not Trouble.NONE)
LATE_S = (1.0, 5.0, 60.0, TTL_S - 20.0)
MARGIN = 6
"""Trouble makes a run longer; so many more calls than without any are looked at."""
LATE_OF = 3
"""The latest of so many draws is where a deeper schedule kills; for one whose troubles begin anywhere, so many begin late."""
DRAWN_WRITERS = 2
"""With so many writers at a boundary each pair of troubles is played, beside nobody."""
PROXIES = ("unseen", "seen", "stale")


@dataclass(frozen=True, slots=True)
class Reach:
    """This is how many calls and awaits to look at."""

    calls: int
    points: int


def reach(schedule: Schedule | None = None, *, other: bool = False) -> Reach:
    """Return how far to look beyond *schedule*, in the run or in the *other* process."""
    played = play(schedule or Schedule())
    if other:
        return Reach(len(played.other_verbs) + MARGIN, played.other_points + 2 * MARGIN)
    return Reach(len(played.verbs) + MARGIN, played.points + 2 * MARGIN)


def _boundaries(calls: int) -> list[tuple[str, int]]:
    return list(itertools.product(WRITERS[1:], range(calls)))


def writers_alone() -> Iterator[Schedule]:
    """Each writer at each boundary, and nothing else."""
    for writer, write_at in _boundaries(reach().calls):
        yield Schedule((), None, writer, write_at)


def singles(*, writers: bool = True) -> Iterator[Schedule]:
    """Each trouble at each call, with each concurrent writer at each boundary; and each of these writers alone."""
    calls = reach().calls
    if writers:
        yield from writers_alone()
    boundaries = [("nobody", 0), *(_boundaries(calls) if writers else ())]
    late = (Trouble.LATE, Trouble.DAMAGED_LATE)
    for number, trouble, (writer, write_at) in itertools.product(range(calls), TROUBLES, boundaries):
        for late_s in LATE_S if trouble in late and writer == "nobody" else (5.0,):
            yield Schedule(((number, trouble),), None, writer, write_at, late_s=late_s)


def kills(*, writers: bool = True) -> Iterator[Schedule]:
    """A kill at each await, with and without a guard, with each writer at each boundary."""
    seen = reach()
    boundaries = [("nobody", 0), *(_boundaries(seen.calls) if writers else ())]
    for kill_at, (writer, write_at), guard in itertools.product(range(seen.points), boundaries, (False, True)):
        yield Schedule((), kill_at, writer, write_at, guard=guard)


def kills_in_trouble() -> Iterator[Schedule]:
    """A kill at each await together with each trouble at each call, with and without a guard."""
    seen = reach()
    calls, points = range(seen.calls), range(seen.points)
    for number, trouble, kill_at, guard in itertools.product(calls, TROUBLES, points, (False, True)):
        yield Schedule(((number, trouble),), kill_at, guard=guard)


def others(*, seed: int = 0) -> Iterator[Schedule]:
    """
    A kill at each await of the other process, or each trouble at each of its calls.

    The other is a reaper, a "restore all" or a second luff that begins at each
    boundary of a run; or the guard, or a reaper, of a run that was killed at
    each of its awaits; or, with a kill of both, one that began at a boundary
    drawn by *seed*.
    """
    seen = reach()
    rng = random.Random(seed)
    begun = [Schedule((), None, writer, at) for writer in PROCESSES for at in range(seen.calls)]
    dead = [Schedule((), at, guard=guard) for at in range(seen.points) for guard in (True, False)]
    both = [Schedule((), at, writer, rng.randrange(seen.calls)) for at in range(seen.points) for writer in PROCESSES]
    for each in (*begun, *dead, *both):
        # A kill that nobody lives to see only makes sure that there is another process.
        other = reach(replace(each, other_kill_at=10**6), other=True)
        for kill_at in range(other.points):
            yield replace(each, other_kill_at=kill_at)
        for number, trouble in itertools.product(range(other.calls), TROUBLES):
            yield replace(each, other_troubles=((number, trouble),))


def pairs(*, seed: int = 0) -> Iterator[Schedule]:
    """
    All pairs of troubles, each with nobody, and each with writers at boundaries drawn by *seed*.

    All pairs with all writers at all boundaries are too many. Drawn is without
    putting back until all are through, so that each writer at each boundary
    comes as often as any other.
    """
    calls = reach().calls
    rng = random.Random(seed)
    drawn = _without_putting_back(_boundaries(calls), rng)
    for one, other in itertools.combinations(range(calls), 2):
        for first, second in itertools.product(TROUBLES, TROUBLES):
            both = ((one, first), (other, second))
            yield Schedule(both)
            for writer, write_at in itertools.islice(drawn, DRAWN_WRITERS):
                yield Schedule(both, None, writer, write_at)


def how_pairs_are_drawn() -> str:
    """Return in words what part of all pairs with all writers at all boundaries `pairs` plays."""
    calls = reach().calls
    boundaries = len(_boundaries(calls))
    all_ = math.comb(calls, 2) * len(TROUBLES) ** 2
    least = all_ * DRAWN_WRITERS // boundaries
    return (
        f"{DRAWN_WRITERS} of {boundaries} writers at boundaries for each of {all_} pairs, "
        f"so that each writer at each boundary comes with at least {least} pairs"
    )


def _without_putting_back(all_: list[tuple[str, int]], rng: random.Random) -> Iterator[tuple[str, int]]:
    while True:
        yield from rng.sample(all_, len(all_))


def _inject_call() -> int:
    return play(Schedule()).verbs.index("patch")


def pairs_with_the_inject() -> Iterator[Schedule]:
    """Every way in which the inject itself may go wrong, with each trouble at each later call."""
    sent = _inject_call()
    for at_inject, number, trouble in itertools.product(TROUBLES, range(sent + 1, reach().calls), TROUBLES):
        yield Schedule(((sent, at_inject), (number, trouble)))


def kills_after_a_late_inject() -> Iterator[Schedule]:
    """A kill at each await of a run whose inject is still on the wire: also between the two writes of a fence."""
    late = ((play(Schedule()).verbs.index("patch"), Trouble.LATE),)
    points = play(Schedule(late)).points
    for kill_at, guard in itertools.product(range(points), (False, True)):
        yield Schedule(late, kill_at, guard=guard)


def wholes(*, seed: int = 0) -> Iterator[Schedule]:
    """
    Whole runs, with traffic, verdict and exit code.

    Each trouble at each call; a stop at each call; the object denied from each
    call on, with and without a guard that takes over, or with a stop at a later
    one; a kill at each await; each writer at each boundary: each of them with
    proxies drawn by *seed*.
    """
    seen = reach(Schedule(whole=True))
    rng = random.Random(seed)
    calls = range(seen.calls)
    plain = [Schedule(((number, trouble),)) for number, trouble in itertools.product(calls, TROUBLES)]
    plain += [Schedule(stop_at=at) for at in calls]
    plain += [Schedule(denied_at=at, guard=guard) for at in calls for guard in (False, True)]
    plain += [Schedule(denied_at=at, stop_at=stop) for at in calls for stop in calls if at - MARGIN <= stop]
    plain += [Schedule(kill_at=at, guard=guard) for at in range(seen.points) for guard in (False, True)]
    plain += [Schedule(writer=writer, write_at=at) for writer, at in _boundaries(seen.calls)]
    for each in plain:
        yield replace(each, whole=True, proxies=rng.choice(PROXIES))


def deeper(*, seed: int) -> Iterator[Schedule]:
    """
    Schedules without end: several troubles, perhaps a kill, a writer, requests that are late by anything.

    The other process dies, or meets trouble, as often as not. Fewer troubles,
    and those before the inject, are enumerated elsewhere; here most begin with
    the inject, and a kill comes rather late. Else many would be alike: what
    fails before it ends the run, and the dead meet nothing.
    """
    seen, sent = reach(), _inject_call()
    rng = random.Random(seed)

    def some(least: int, most: int, *, first: int = 0) -> tuple[tuple[int, Trouble], ...]:
        numbers = sorted(rng.sample(range(first, seen.calls), rng.randint(least, most)))
        return tuple((number, rng.choice(TROUBLES)) for number in numbers)

    while True:
        late = max(rng.randrange(seen.points + MARGIN) for _ in range(LATE_OF))
        yield Schedule(
            some(3, 6, first=rng.choice([0, *[sent] * LATE_OF])),
            rng.choice([None, late]),
            rng.choice(WRITERS),
            rng.randrange(seen.calls + MARGIN),
            guard=rng.random() < 0.5,  # as often as not
            late_s=rng.choice(LATE_S),
            other_troubles=rng.choice([(), some(1, 2)]),
            other_kill_at=rng.choice([None, rng.randrange(seen.points)]),
        )
