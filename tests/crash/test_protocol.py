"""
The restore protocol, run for real on a simulated API server.

`tests.crash.world` says what may happen and what must hold. This plays a slice
in seconds; `make prove` plays everything.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from luff.lifecycle import Phase
from luff.patches import clone
from luff.testing import Trouble
from tests.crash import schedules as every
from tests.crash.extras import EXTRAS
from tests.crash.plays import Bounded, play, shrink
from tests.crash.slice import SEED, Tally, explain, few_schedules, schedules_of_the_slice
from tests.crash.world import REF, Schedule, Violation, World
from tests.crash.writers import BASE, PROCESSES, RUN


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.__name__)
def test_extra(extra: Callable[[], None]) -> None:
    extra()


def test_a_slice_of_all_schedules_ends_clean(
    capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    tally = Tally()
    record_property("seed", SEED)
    record_property("cleaned_by", "the run, its guard, or a reaper at the end")
    for schedule in itertools.chain(few_schedules(), schedules_of_the_slice(SEED, 200)):
        try:
            tally.play(schedule)
        except Violation as violation:
            pytest.fail(explain(violation, schedule, seed=SEED))
    with capsys.disabled():
        sys.stdout.write(f"\ncrash simulation: {tally}\n")


def test_without_trouble_a_run_ends_clean_and_within_a_few_calls() -> None:
    played = play(Schedule())

    assert played.phases[-2:] == (Phase.WITHDRAWING, Phase.CLEAN)
    assert len(played.verbs) <= 12


def test_every_kind_of_trouble_is_met_by_some_call() -> None:
    met = {trouble for schedule in every.singles(writers=False) for _, trouble in play(schedule).happened.troubles}

    assert met == set(Trouble) - {Trouble.NONE}


@pytest.mark.parametrize("late_s", [1.0, 60.0, 580.0])
def test_a_patch_that_arrives_after_the_restore_meets_the_fence(late_s: float) -> None:
    """The case that nobody writes a unit test for: the restore reads a clean object while the patch is on the wire."""
    for number in range(every.reach().calls):
        played = play(Schedule(((number, Trouble.LATE),), late_s=late_s))
        assert played.phases[-1:] in ((Phase.CLEAN,), ()), played


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(((5, Trouble.BUSY), (7, Trouble.LOST_AFTER)), writer="second luff", write_at=7, guard=False, late_s=5.0, other_kill_at=10),
        Schedule(((5, Trouble.ERROR), (7, Trouble.NOT_FOUND)), writer="second luff", write_at=9, guard=False, late_s=60.0, other_kill_at=16),
        Schedule(((5, Trouble.AGAIN), (9, Trouble.BUSY)), writer="flagger reverts", write_at=6, late_s=580.0, other_kill_at=3),
    ],
)  # fmt: skip
def test_a_fence_beside_another_runs_twins_does_not_stay(schedule: Schedule) -> None:
    """Who fenced died between its two writes, and what a second luff or a restored copy put in is there at the last look."""
    for kill_at in range(60):
        play(replace(schedule, kill_at=kill_at))


def test_work_without_an_end_is_a_violation_after_the_same_work_on_any_machine() -> None:
    loop = Bounded(World(Schedule()))

    async def spin() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with pytest.raises(Violation, match="it never ends"):
        loop.run_until_complete(spin())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.close()


@pytest.mark.parametrize("writer", PROCESSES)
def test_a_process_of_luff_that_writes_dies_at_each_of_its_awaits(writer: str) -> None:
    died = set()
    for kill_at in range(60):
        played = play(Schedule((), None, writer, 11, other_kill_at=kill_at))
        died.add(played.happened.other_kill_at)

    assert None in died, "it has more awaits than were tried"
    assert len(died) > 4
    assert died - {None} == set(range(len(died) - 1))


@pytest.mark.parametrize("guard", [True, False])
def test_whoever_cleans_up_after_a_killed_run_may_die_and_meet_trouble_as_well(guard: bool) -> None:
    sent = play(Schedule()).verbs.index("patch")
    run = Schedule((), play(Schedule()).points - 4, guard=guard)
    played = play(replace(run, other_kill_at=3))
    troubled = play(replace(run, other_troubles=((1, Trouble.DAMAGED_LATE),)))

    assert sent < len(played.verbs)
    assert played.happened.other_kill_at == 3
    assert played.other_verbs
    assert troubled.happened.other_troubles == ((1, Trouble.DAMAGED_LATE),)


def test_a_bystander_who_is_routed_to_a_twin_is_a_violation() -> None:
    world = World(Schedule())
    world.expected = world.before = clone(BASE)
    # It is in anybody's way who sends the header at all.
    catching = clone(BASE)
    twin = {
        "name": f"luff.1.{RUN}.1800000000.1800000600.0",
        "match": [{"headers": {"x-luff-run": {"regex": ".*"}}}],
        "route": [{"destination": {"host": "elsewhere"}}],
    }
    catching["spec"]["http"].insert(0, twin)

    with pytest.raises(Violation, match="outside the scope"):
        world.check_write(REF, catching)


def test_a_failure_is_shrunk_to_what_matters() -> None:
    culprit = (3, Trouble.CONFLICT)
    large = Schedule(((1, Trouble.BUSY), culprit, (5, Trouble.LATE)), 7, "weights", 4, guard=True)

    small = shrink(large, fails=lambda schedule: culprit in schedule.troubles)

    assert small == Schedule((culprit,))
