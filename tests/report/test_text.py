"""The console block, Markdown, JUnit and JSON: the same facts, readable by those who read each."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from luff.errors import UsageError
from luff.outcome import Next, Outcome
from luff.report.console import console
from luff.report.document import read_outcomes, render, report
from luff.report.junit import junit
from luff.report.markdown import markdown
from luff.schema import schema_for
from tests.factories import aborted, errored, failed, inconclusive, passed, stranded

TODAY = date(2026, 11, 24)
ALL: list[Callable[[], Outcome]] = [passed, failed, inconclusive, aborted, errored, stranded]


@pytest.mark.parametrize("make", ALL)
def test_the_console_block_has_verdict_figures_place_and_next_step(make: Callable[[], Outcome]) -> None:
    outcome = make()

    text = console([outcome], today=TODAY).plain

    assert outcome.verdict.upper() in text
    assert outcome.experiment in text
    assert outcome.run in text
    assert outcome.explanation in text
    for check in outcome.checks:
        assert check.expression in text
        if check.file is not None:
            assert f"{check.file}:{check.line}" in text
    if outcome.next is not None:
        assert outcome.next.do in text


def test_the_console_block_can_do_without_unicode() -> None:
    text = console([make() for make in ALL], today=TODAY, ascii_only=True).plain

    assert text.isascii()


def test_a_route_that_may_not_be_back_is_said_first_and_with_the_command() -> None:
    text = console([stranded()], today=TODAY).plain

    [line] = [line for line in text.splitlines() if "NOT RESTORED" in line]
    assert stranded().next is not None
    assert stranded().next.do in line  # type: ignore[union-attr]


@pytest.mark.parametrize("width", [None, 100])
def test_what_is_to_be_committed_can_be_pasted_from_the_console(width: int | None) -> None:
    document = "apiVersion: networking.istio.io/v1\nmetadata:\n  name: stock\nspec:\n  http:\n    - route: []\n"
    next_ = Next(who="experiment", retryable=False, do=f"commit this one and run again:\n{document}")

    text = console([errored(next=next_)], today=TODAY, width=width).plain

    label, block = text.split("  next: ")[1].split("\n", 1)
    assert label == "commit this one and run again: (the author of the experiment)"
    assert yaml.safe_load(block) == yaml.safe_load(document)


def test_the_headline_says_what_the_exit_code_means() -> None:
    known = {"reason": "no timeout yet", "until": "2027-01-31"}

    as_known = console([failed(known_failure=known)], today=TODAY).plain
    surprise = console([passed(known_failure=known)], today=TODAY).plain
    over = console([failed(known_failure=known)], today=date(2027, 2, 1)).plain

    assert as_known.startswith("✓ FAILED AS KNOWN (until 2027-01-31)")
    assert "no timeout yet" in as_known
    assert "next:" not in as_known
    assert surprise.startswith("✗ PASSED, BUT KNOWN TO FAIL")
    assert "remove knownFailure" in surprise
    assert over.startswith("✗ FAILED")


@pytest.mark.parametrize("make", ALL)
def test_json_is_of_its_schema_and_reads_back(make: Callable[[], Outcome]) -> None:
    document = report([make()], exit_code=1)

    text = render(document)

    jsonschema.Draft7Validator(schema_for("report")).validate(json.loads(text))
    jsonschema.Draft7Validator(schema_for("outcome")).validate(json.loads(text)["outcomes"][0])
    assert read_outcomes(text, "r.json") == [make()]


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"schema": "luff.dev/report/v9"}', '{"schema": "other"}', "{"])
def test_json_that_is_not_ours_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"r\.json"):
        read_outcomes(text, "r.json")


def test_junit_has_a_case_for_every_expectation() -> None:
    outcomes = [passed(), failed(), inconclusive(), stranded()]

    root = ElementTree.fromstring(junit(outcomes, today=TODAY))

    suites = root.findall(".//testsuite")
    assert [suite.get("name") for suite in suites] == [outcome.experiment for outcome in outcomes]
    for suite, outcome in zip(suites, outcomes, strict=True):
        names = {case.get("name") for case in suite.findall("testcase")}
        assert {check.id for check in outcome.checks} <= names
    assert not suites[0].findall(".//failure") + suites[0].findall(".//error")
    assert suites[1].findall(".//failure")
    assert suites[3].findall(".//error") + suites[3].findall(".//failure")


@given(st.text(max_size=200))
def test_junit_can_be_read_whatever_an_outcome_holds(text: str) -> None:
    outcome = failed(explanation=text, actor=text)

    ElementTree.fromstring(junit([outcome], today=TODAY).encode("utf-8", "surrogatepass"))


@given(st.text(max_size=100))
def test_markdown_stays_a_table_whatever_an_outcome_holds(text: str) -> None:
    outcome = failed(explanation=text, experiment="e")

    said = markdown([outcome], today=TODAY)

    assert "\x00" not in said
    tables = [line for line in said.splitlines() if line.startswith("|")]
    assert tables


def test_markdown_stays_below_the_limit_of_a_job_summary() -> None:
    said = markdown([failed() for _ in range(3000)], today=TODAY)

    assert len(said.encode()) < 1 << 20


def _on_a_console(outcome: Outcome) -> str:
    return console([outcome], today=TODAY).plain


def _in_markdown(outcome: Outcome) -> str:
    return markdown([outcome], today=TODAY)


@pytest.mark.parametrize("show", [_on_a_console, _in_markdown])
def test_defaults_are_shown_as_such_with_the_block_to_paste(show: Callable[[Outcome], str]) -> None:
    block = "expect:\n- id: answers\n  errors:\n    atMost: 1%\n"
    written, defaulted = passed(), passed(default_expect=block)

    assert "defaults" not in show(written).lower()
    assert "these checks are luff's defaults" in show(defaulted)
    assert "- id: answers" in show(defaulted)
    assert "    atMost: 1%" in show(defaulted)
