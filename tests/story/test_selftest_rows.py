"""`luff selftest` with single rows, and with a check that is none."""

from __future__ import annotations

import json
import sys

import pytest

from tests.story.conftest import Shell


@pytest.mark.timing
def test_one_row_can_be_run_by_itself_and_history_stays_as_it_was(shell: Shell) -> None:
    done = shell.luff("selftest", "--defect", "error-status", within_s=120)
    table = [line.split() for line in done.out.splitlines()]

    assert done.code == 0, done
    assert [line[0] for line in table[:2]] == ["ROW", "error-status"]
    assert "1 of 1 defects caught, 0 of 0 healthy services passed." in done.out
    assert json.loads(shell.luff("runs", "list", "-o", "json").out) == []


BLIND = """\
import sys
import luff.results, luff.tallies
sees = luff.tallies.violations
luff.results.violations = luff.tallies.violations = (
    lambda check, *rest: [] if check.kind == "attempts" else sees(check, *rest)
)
from luff.cli import main
sys.argv = ["luff", "selftest", "--defect", "retries-without-pause"]
main()
"""


@pytest.mark.timing
def test_a_check_that_sees_nothing_is_found_out(shell: Shell) -> None:
    done = shell._run(sys.executable, "-c", BLIND, within_s=120)

    assert done.code == 1, done
    assert "NOT CAUGHT" in done.out
    assert "0 of 1 defects caught" in done.out


def test_a_row_that_is_not_there_is_refused_with_those_that_are(shell: Shell) -> None:
    done = shell.luff("selftest", "--defect", "no-such")

    assert done.code == 2
    assert "there is no row no-such" in done.err
    assert "lost-header" in done.err
