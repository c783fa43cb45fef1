"""Whole runs in the simulation: that what they say of themselves is held against what happened."""

from __future__ import annotations

from typing import Any

import pytest

from luff.lifecycle import Phase
from luff.outcome import Outcome
from luff.testing import MemoryLevers
from luff.words import Verdict
from tests.crash.plays import play
from tests.crash.whole import check_outcome
from tests.crash.world import Schedule, Violation, World

CLEAN, STRANDED = (Phase.CLEAN,), (Phase.STRANDED,)


def _outcome(**changes: Any) -> Outcome:
    outcome = play(Schedule(whole=True, **changes)).outcome
    assert outcome is not None
    return outcome


def test_a_whole_run_in_peace_is_judged_with_a_verified_receipt() -> None:
    outcome = _outcome(proxies="seen")

    assert outcome.verdict is Verdict.FAILED, outcome.explanation
    assert outcome.restore is not None
    assert (outcome.restore.api, outcome.restore.data_plane) == ("verified", "verified")


def test_a_run_that_is_stopped_and_denied_says_both_and_names_the_command() -> None:
    sent = play(Schedule(whole=True)).verbs.index("patch")
    outcome = _outcome(stop_at=sent + 2, denied_at=sent + 2)

    assert (outcome.verdict, outcome.phase) == (Verdict.ABORTED, Phase.STRANDED)
    assert outcome.next is not None
    assert "luff restore" in outcome.next.do


def test_a_verdict_without_a_verified_receipt_is_a_violation() -> None:
    with pytest.raises(Violation, match="without a verified receipt"):
        check_outcome(World(Schedule()), _outcome().model_copy(update={"restore": None}), CLEAN, MemoryLevers())


def test_a_stranded_run_that_does_not_end_with_7_is_a_violation() -> None:
    with pytest.raises(Violation, match="it ended with"):
        check_outcome(World(Schedule()), _outcome(), STRANDED, MemoryLevers())


def test_a_7_without_anything_that_may_be_live_is_a_violation() -> None:
    with pytest.raises(Violation, match="it ended with 7"):
        check_outcome(World(Schedule()), _outcome().model_copy(update={"phase": Phase.STRANDED}), CLEAN, MemoryLevers())


def test_a_stranded_run_without_a_lever_is_a_violation() -> None:
    stale = _outcome(proxies="stale")

    with pytest.raises(Violation, match="no lever"):
        check_outcome(World(Schedule()), stale, CLEAN, MemoryLevers())
