"""When the whole proof is none."""

from __future__ import annotations

from dataclasses import replace

from tests.crash import schedules as every
from tests.crash.prove import DEEPER, DISTINCT_LEAST, KINDS, Part, shortfalls
from tests.crash.test_mutants import Tried
from tests.crash.writers import WRITERS

ENOUGH = [
    *(Part(kind.says, played=1, distinct=set(range(DISTINCT_LEAST))) for kind in KINDS),
    Part(DEEPER, complete=False),
]
KILLED = Tried("m", "a rule", "left behind", killed=True, by="after 1: left behind")


def test_a_proof_that_is_whole_falls_short_in_nothing() -> None:
    assert shortfalls(ENOUGH, {"an_hour": "holds"}, [KILLED]) == []


def test_too_few_distinct_schedules_are_no_proof_however_many_were_played() -> None:
    few = set(range(DISTINCT_LEAST - 1))
    parts = [replace(part, played=10 * DISTINCT_LEAST, distinct=few) for part in ENOUGH]

    assert shortfalls(parts, {}, []) == [f"{DISTINCT_LEAST - 1} distinct schedules are fewer than {DISTINCT_LEAST}"]


def test_a_kind_that_was_cut_short_is_no_proof() -> None:
    parts = [replace(ENOUGH[0], complete=False), *ENOUGH[1:]]

    assert shortfalls(parts, {}, []) == [f"not played to its end: {KINDS[0].says}"]


def test_a_violation_a_mutant_that_lives_and_what_stands_beside_the_schedules_are_no_proof() -> None:
    parts = [replace(ENOUGH[0], failures=["left behind"]), *ENOUGH[1:]]

    assert shortfalls(parts, {"an_hour": "VIOLATED"}, [replace(KILLED, killed=False)]) == [
        f"1 violations: {KINDS[0].says}",
        "beside the schedules: an hour",
        "a mutant lives: m",
    ]


def test_each_pair_is_played_and_each_writer_at_each_boundary_as_often_as_any_other() -> None:
    calls, played = every.reach().calls, list(every.pairs(seed=3))
    times: dict[tuple[str, int], int] = {}
    for schedule in played:
        if schedule.writer != "nobody":
            boundary = (schedule.writer, schedule.write_at)
            times[boundary] = times.get(boundary, 0) + 1

    pairs = {(one, other) for one in range(calls) for other in range(one + 1, calls)}
    assert {(s.troubles[0][0], s.troubles[1][0]) for s in played} == pairs
    assert set(times) == {(writer, at) for writer in WRITERS[1:] for at in range(calls)}
    assert max(times.values()) - min(times.values()) <= 1
