"""The exit codes of the contract, as the table that they are."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.errors import UsageError
from luff.exit_codes import FAIL_ON, SEVERITY, exit_code, is_unrestored, parse_fail_on, standing
from luff.model import Verdict
from luff.outcome import Outcome
from tests.factories import EVERY_VERDICT, aborted, errored, failed, inconclusive, passed, stale, stranded

TODAY = date(2026, 11, 23)
KNOWN = {"reason": "LUFF-12", "until": "2027-01-31"}
OVER = {"reason": "LUFF-12", "until": "2026-11-22"}


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], 6),
        ([passed()], 0),
        ([failed()], 1),
        ([inconclusive()], 3),
        ([aborted()], 4),
        ([errored()], 5),
        ([stranded()], 7),
        ([stale()], 7),
        ([passed(), inconclusive()], 3),
        ([inconclusive(), errored()], 5),
        ([errored(), aborted()], 4),
        ([aborted(), failed()], 1),
        ([failed(), stranded(), passed()], 7),
        ([failed(reason="isolation_breach")], 1),
        ([failed(known_failure=KNOWN)], 0),
        ([failed(known_failure={"reason": "LUFF-12", "until": None})], 0),
        ([failed(known_failure={"reason": "LUFF-12", "until": "2026-11-23"})], 0),
        ([failed(known_failure=OVER)], 1),
        ([failed(known_failure={"reason": "LUFF-12", "until": "soon"})], 1),
        ([failed(known_failure=KNOWN, reason="isolation_breach")], 1),
        ([passed(known_failure=KNOWN)], 1),
        ([passed(known_failure=OVER)], 0),
        ([inconclusive(known_failure=KNOWN)], 3),
        ([failed(known_failure=KNOWN), inconclusive()], 3),
        ([passed(expected="failed")], 0),
    ],
)
def test_outcomes_lead_to_their_exit_code(outcomes: list[Outcome], expected: int) -> None:
    assert exit_code(outcomes, today=TODAY) == expected


@pytest.mark.parametrize(
    ("outcomes", "flags", "expected"),
    [
        ([failed()], {"soft_fail": True}, 0),
        ([stranded()], {"soft_fail": True}, 7),
        ([failed()], {"soft_fail": True, "signal": 2}, 130),
        ([], {"soft_fail": True}, 6),
        ([failed()], {"fail_on": {"error"}}, 0),
        ([failed(), errored()], {"fail_on": {"error"}}, 5),
        ([inconclusive()], {"fail_on": {"fail", "error"}}, 0),
        ([passed(known_failure=KNOWN)], {"fail_on": {"error"}}, 0),
        ([stranded()], {"fail_on": set()}, 7),
        ([failed()], {"signal": 2}, 130),
        ([failed()], {"signal": 15}, 143),
        ([], {"signal": 15}, 143),
        ([stranded()], {"signal": 15}, 7),
        ([passed()], {"restore_unverified": True}, 7),
        ([], {"restore_unverified": True, "signal": 2}, 7),
    ],
)
def test_flags_change_what_counts_but_never_a_restore(
    outcomes: list[Outcome], flags: dict[str, Any], expected: int
) -> None:
    assert exit_code(outcomes, today=TODAY, **flags) == expected


@given(st.lists(st.sampled_from([make() for make in EVERY_VERDICT])), st.randoms())
def test_the_worst_of_several_decides_in_any_order(outcomes: list[Outcome], chance: Any) -> None:
    alone = [exit_code([outcome], today=TODAY) for outcome in outcomes] or [6]
    chance.shuffle(outcomes)

    assert exit_code(outcomes, today=TODAY) == min(alone, key=SEVERITY.index)


def test_a_known_failure_says_how_it_counts() -> None:
    excused = standing(failed(known_failure=KNOWN), today=TODAY)
    surprising = standing(passed(known_failure=KNOWN), today=TODAY)
    over = standing(failed(known_failure=OVER), today=TODAY)

    assert (excused.counts_as, excused.excused) == (Verdict.PASSED, True)
    assert excused.note == "known failure: LUFF-12 (until 2027-01-31)"
    assert (surprising.counts_as, surprising.surprising) == (Verdict.FAILED, True)
    assert over.note == "the known failure (LUFF-12) was excused until 2026-11-22: no longer"
    assert standing(failed(), today=TODAY).note is None


def test_what_was_never_injected_is_not_unrestored() -> None:
    assert not is_unrestored(errored())
    assert is_unrestored(stranded())


def test_fail_on_is_read_word_by_word() -> None:
    assert parse_fail_on("fail, error") == {"fail", "error"}
    assert parse_fail_on("failed") == {"fail"}
    assert parse_fail_on(",".join(FAIL_ON)) == FAIL_ON
    assert parse_fail_on("") == frozenset()


def test_an_unknown_word_in_fail_on_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"--fail-on does not know 'passed'; use any of aborted,error,fail,inconclusive"
    ):
        parse_fail_on("fail,passed")
