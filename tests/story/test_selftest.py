"""`luff selftest`: each planted defect is caught by its check, and no healthy service is blamed."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from luff.selftest import CASES, CONTROL, EXPOSURE, Case
from tests.story.conftest import Done, Shell, environment_in

WITHIN_S = 280
SHORT = (
    "no-timeout", "retries-without-pause", "never-recovers", "wrong-fallback", "error-status",
    "pool-refuses-all", "lost-header", "healthy-when-slow", "healthy-elsewhere",
)  # fmt: skip
"""A row for each expectation, both guards and two that are healthy; all rows with ``LUFF_TEST_WHOLE``, as `make prove` does."""
ROWS = tuple(case for case in CASES if os.environ.get("LUFF_TEST_WHOLE") or case.name in SHORT)


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Done, dict[str, dict[str, Any]]]:
    """Run the matrix once."""
    folder = tmp_path_factory.mktemp("selftest")
    named = [word for case in ROWS for word in ("--defect", case.name)]
    done = Shell(folder, environment_in(folder)).luff("selftest", "-o", "json", *named, within_s=WITHIN_S)
    assert done.out, done
    return done, {row["name"]: row for row in json.loads(done.out)}


@pytest.mark.timing
@pytest.mark.timeout(300)
def test_every_defect_is_caught_and_nobody_healthy_is_blamed(
    tested: tuple[Done, dict[str, dict[str, Any]]],
) -> None:
    done, rows = tested

    assert done.code == 0, done.err
    assert list(rows) == [case.name for case in ROWS]
    assert {name: row["verdict"] for name, row in rows.items()} == {case.name: case.expected for case in ROWS}


@pytest.mark.timing
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_by_the_checks_that_must_catch_it_and_by_no_other(
    case: Case, tested: tuple[Done, dict[str, dict[str, Any]]]
) -> None:
    row = tested[1][case.name]
    checks = {check["id"]: check["verdict"] for check in row["outcome"]["checks"]}

    assert row["ok"]
    assert set(row["caughtBy"]) == case.caught_by
    assert row["outcome"]["restore"]["api"] == row["outcome"]["restore"]["data_plane"] == "verified"
    if not case.caught_by & {EXPOSURE, CONTROL}:
        assert {name for name, verdict in checks.items() if verdict != "passed"} == case.caught_by
    if case.name == "lost-header":
        assert "lost at lost-header-v1" in row["because"]
    if case.elsewhere and case.defect is None:
        assert "never reach the target, as bystanders" in row["outcome"]["explanation"]
    if case.name == "pool-refuses-all":
        assert re.search(r"[1-9]\d* of \d+ requests of the control arm failed", row["because"])
