"""
The restore protocol, run for real on a simulated API server.

`tests.crash.world` says what may happen and what must hold. This plays a slice
in seconds; `make prove` plays everything.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import pytest

from luff.lifecycle import Phase
from luff.testing import Trouble
from tests.crash import schedules as every
from tests.crash.extras import EXTRAS
from tests.crash.plays import play, shrink
from tests.crash.slice import SEED, Tally, explain, few_schedules, schedules_of_the_slice
from tests.crash.world import Schedule, Violation


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.__name__)
def test_extra(extra: Callable[[], None]) -> None:
    extra()


def test_a_slice_of_all_schedules_ends_clean(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    for schedule in itertools.chain(few_schedules(), schedules_of_the_slice(SEED, 400)):
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


def test_a_failure_is_shrunk_to_what_matters() -> None:
    culprit = (3, Trouble.CONFLICT)
    large = Schedule(((1, Trouble.BUSY), culprit, (5, Trouble.LATE)), 7, "weights", 4, guard=True)

    small = shrink(large, fails=lambda schedule: culprit in schedule.troubles)

    assert small == Schedule((culprit,))
