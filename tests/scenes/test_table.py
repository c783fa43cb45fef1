"""Every scenario of the list is tried by tests that exist, and the page that is published says what the table says."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.scenes.prove import Row, markdown, rows_of
from tests.scenes.table import HOW, SCENARIOS, How, Scenario, page

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"


@functools.cache
def _tests_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_the_numbers_are_all_there() -> None:
    assert [each.number for each in SCENARIOS] == list(range(1, 61))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: str(each.number))
def test_a_scenario_is_tried_by_tests_that_exist_or_says_why_it_is_not(scenario: Scenario) -> None:
    assert scenario.how in HOW
    if scenario.how == "cluster only":
        assert scenario.says
    else:
        assert scenario.tests
    for test in scenario.tests:
        file, _, name = test.partition("::")
        assert name in _tests_in(file), test


def test_every_test_with_a_number_is_in_the_row_of_its_number() -> None:
    listed = {(each.number, test) for each in SCENARIOS for test in each.tests}
    numbered = [
        (int(name.split("_")[1]), f"{file}::{name}")
        for file in ("mesh/test_scenarios.py", "story/test_scenarios.py", "story/test_bad_days.py")
        for name in _tests_in(file)
        if name.startswith("test_") and name.split("_")[1].isdigit()
    ]

    assert [each for each in numbered if each not in listed] == []


def test_the_page_has_the_table() -> None:
    assert page() in (DOCS / "scenarios.md").read_text(), "python -m tests.scenes.table prints it"


@pytest.mark.parametrize("how", HOW)
def test_the_page_says_how_scenarios_are_tried(how: How) -> None:
    assert re.search(rf"^- \*{how}\*: {re.escape(HOW[how])}[.;]$", (DOCS / "scenarios.md").read_text(), re.MULTILINE)


def test_the_limits_lead_to_the_page() -> None:
    assert "(scenarios.md)" in (DOCS / "limits.md").read_text()


JUNIT = """\
<testsuites><testsuite tests="3">
<testcase classname="c" name="test_a" time="1.5"><properties>
<property name="cleaned_by" value="guard"/><property name="seconds" value="0.25"/><property name="exposure" value="1.0"/>
<property name="seed" value="7"/></properties></testcase>
<testcase classname="c" name="test_b" time="2"><failure message="assert 1 == 2&#10;more">x</failure></testcase>
<testcase classname="c" name="test_c" time="0"><skipped message="no jq"/></testcase>
</testsuite></testsuites>
"""


def test_what_the_tests_recorded_is_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(JUNIT)

    rows = rows_of(SCENARIOS[6], tmp_path / "x.xml", ended="")

    assert [(row.test, row.result) for row in rows] == [
        ("test_a", "clean"),
        ("test_b", "FAILED: assert 1 == 2"),
        ("test_c", "not played: no jq"),
    ]
    assert (rows[0].cleaned_by, rows[0].seconds, rows[0].exposure, rows[0].seed) == ("guard", "0.25", "1.0", "7")


def test_a_scenario_that_wrote_nothing_is_a_failure_with_what_ended_it(tmp_path: Path) -> None:
    [row] = rows_of(SCENARIOS[6], tmp_path / "none.xml", ended="after 300 s")

    assert row.result == "FAILED: after 300 s"


def test_what_a_test_says_itself_comes_before_what_its_fixtures_say(tmp_path: Path) -> None:
    later = '<property name="cleaned_by" value="run"/></properties>'
    (tmp_path / "x.xml").write_text(JUNIT.replace("</properties>", later))

    assert rows_of(SCENARIOS[6], tmp_path / "x.xml", ended="")[0].cleaned_by == "guard"


def test_the_report_says_how_many_failed_and_names_what_was_not_played() -> None:
    text = markdown([Row(7, "test_a", "clean", "guard", "0.2", "1.0", "7"), Row(9, "test_b", "FAILED: x")], took_s=61.0)

    assert "1 of 2 failed" in text
    assert "| 7 | kill -9 at every point | test_a | clean | guard | 0.20 | 1.0 | 7 |" in text
    assert "the node is lost" in text
