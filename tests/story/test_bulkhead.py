"""The shipped bulkhead experiment: what needs no ratings is told from what does, by the evidence alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.story.conftest import Shell

EXPERIMENT = Path(__file__).parent.parent.parent / "experiments" / "bulkhead" / "reviews.yaml"


@pytest.mark.timing
def test_what_never_reaches_the_target_is_no_missing_exposure_and_is_named(shell: Shell) -> None:
    done = shell.luff("run", "--lab", EXPERIMENT, "--json", "out.json")

    outcome = shell.outcome()
    assert done.code == 0, done
    assert outcome["verdict"] == outcome["expected"] == "passed"
    assert outcome["evidence"]["bystanders"] == ["GET http://reviews.bookinfo:9080/health"]
    assert outcome["evidence"]["exposure"] == 1.0
    assert outcome["evidence"]["expected"] < outcome["arms"]["fault"]["sent"] / 2
    assert "never reach the target, as bystanders" in outcome["explanation"]
