"""The table of ways between phases."""

from __future__ import annotations

import pytest

from luff.lifecycle import NEXT, Phase, check_way


def test_every_phase_is_in_the_table() -> None:
    assert set(NEXT) == set(Phase)


def test_there_is_no_way_from_anything_armed_to_clean_but_through_withdrawing() -> None:
    straight = {before for before, after in NEXT.items() if Phase.CLEAN in after}

    assert straight == {Phase.PLANNED, Phase.WITHDRAWING}


def test_clean_is_final() -> None:
    assert not NEXT[Phase.CLEAN]


def test_a_stranded_run_can_still_be_cleaned() -> None:
    check_way(Phase.STRANDED, Phase.WITHDRAWING)
    check_way(Phase.WITHDRAWING, Phase.CLEAN)


def test_writing_the_same_phase_again_is_a_way() -> None:
    for phase in Phase:
        check_way(phase, phase)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b, a) for b in Phase for a in Phase if a is not b and a not in NEXT[b]],
)
def test_every_other_way_is_refused_and_named(before: Phase, after: Phase) -> None:
    with pytest.raises(ValueError, match=f"no way from {before} to {after}"):
        check_way(before, after)
