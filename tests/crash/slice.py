"""
A slice of the proof that is over in seconds: ``python -m tests.crash.slice [SEED]``.

Ends with 1 at the first violation, and prints it with its shrunk schedule.
"""

from __future__ import annotations

import itertools
import random
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.crash import schedules as every
from tests.crash.extras import EXTRAS
from tests.crash.plays import play, shrink
from tests.crash.world import Schedule, Violation

__all__ = ["Tally", "explain", "few_schedules", "main", "schedules_of_the_slice"]

SEED = 20261123
EXTRAS_FIRST = "extras-first"
"""The third argument, for who knows that it is one of those that fails."""
CPU_MOST_S = 600
"""A slice that needs more has run away where no play bounds it; the kernel ends it, which is no violation."""


@dataclass(slots=True)
class Tally:
    """This counts plays, and those that differ in what happened in them."""

    played: int = 0
    distinct: set[int] = field(default_factory=set)

    def play(self, schedule: Schedule) -> None:
        """Play *schedule* and count it; raises `Violation`."""
        self.distinct.add(hash(play(schedule).happened))
        self.played += 1

    def __str__(self) -> str:
        return f"{self.played} schedules played, {len(self.distinct)} of them distinct in what happened"


def few_schedules() -> Iterator[Schedule]:
    """All single troubles, all kills and all writers, each alone."""
    yield from every.singles(writers=False)
    yield from every.kills_after_a_late_inject()
    yield from every.kills(writers=False)
    yield from every.writers_alone()


def schedules_of_the_slice(seed: int, size: int) -> Iterator[Schedule]:
    """
    All pairs with the inject, without a writer, and *size* of each other kind, drawn by *seed*.

    Of whole runs, which take longer, a quarter of that, and as many that are
    denied and stopped: few of all are both.
    """
    rng = random.Random(seed)
    wholes = list(every.wholes(seed=seed))
    yield from rng.sample(wholes, size // 4)
    both = [each for each in wholes if each.denied_at is not None and each.stop_at is not None]
    yield from rng.sample(both, size // 4)
    yield from every.pairs_with_the_inject()
    for kind in (every.singles(), every.kills(), every.kills_in_trouble(), every.others(), every.pairs(seed=seed)):
        yield from rng.sample(list(kind), size)
    yield from itertools.islice(every.deeper(seed=seed), 2 * size)


def explain(violation: Violation, schedule: Schedule, *, seed: int) -> str:
    """Return what to print about *violation*: the seed, the schedule, and a smaller one that fails as well."""
    return f"{violation}\nseed {seed}\nshrunk: {shrink(schedule)}"


def main(seed: int = SEED, size: int = 400, *, extras_first: bool = False) -> int:
    """
    Play what is quickest first, or what stands beside the schedules; returns 1 after the first violation.

    With a *size* of 0 that is all.
    """
    tally = Tally()
    few = (None, few_schedules) if extras_first else (few_schedules, None)
    for step in (*few, lambda: schedules_of_the_slice(seed, size))[: None if size else 2]:
        failed = _extras() if step is None else _played(tally, step, seed=seed)
        if failed is not None:
            _say(f"after {tally.played}: {failed}")
            return 1
    _say(str(tally))
    return 0


def _played(tally: Tally, schedules: Callable[[], Iterator[Schedule]], *, seed: int) -> str | None:
    schedule = Schedule()
    try:
        for schedule in schedules():
            tally.play(schedule)
    except Violation as violation:
        return explain(violation, schedule, seed=seed)
    return None


def _extras() -> str | None:
    for extra in EXTRAS:
        try:
            extra()
        except AssertionError:
            return extra.__name__.replace("_", " ")
    return None


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_MOST_S, CPU_MOST_S))
    _, *arguments = sys.argv
    sys.exit(main(*map(int, arguments[:2]), extras_first=arguments[2:] == [EXTRAS_FIRST]))
