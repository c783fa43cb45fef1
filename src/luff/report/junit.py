"""
Outcomes as JUnit XML: a suite for each run, a case for each expectation.

What must stay true:

1. A run that counts against the exit code has a case that did not pass, also
   where no expectation of its own says why.
2. The XML can be read whatever an outcome holds: control characters are shown,
   not written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any
from xml.etree import ElementTree

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from luff.exit_codes import FAIL_ON, Standing, is_unrestored, standing
from luff.outcome import CheckResult, Outcome
from luff.report.words import (
    bound_words,
    duration_s,
    edge_words,
    fault_words,
    measured_words,
    restore_words,
    sample_words,
    visible,
    who_words,
)
from luff.words import Verdict

__all__ = ["junit"]

_WORDS = {
    Verdict.FAILED: "fail",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.ABORTED: "aborted",
    Verdict.ERROR: "error",
}


def junit(
    outcomes: Sequence[Outcome],
    *,
    today: date,
    fail_on: Collection[str] = FAIL_ON,
    excused: Mapping[str, str] | None = None,
) -> str:
    """
    Return the XML. What *fail_on* does not list is skipped in it, and so is a known failure.

    *excused* says of further runs, by their ids, why they do not count; those are skipped as well.
    """
    # Half of the library's methods have no types; its results are what the tests look at.
    document: Any = JUnitXml("luff")
    for outcome in outcomes:
        suite: Any = TestSuite(visible(outcome.experiment))
        suite.hostname = visible(outcome.mesh.name)
        suite.timestamp = visible(outcome.started_at)
        for name, value in _properties(outcome):
            suite.add_property(name, visible(value))
        why = (excused or {}).get(outcome.run)
        counted = standing(outcome, today=today) if why is None else Standing(Verdict.PASSED, excused=True, note=why)
        suite.add_testcases(list(_cases(outcome, counted, fail_on)))
        document.append(suite)
    document.update_statistics()
    # Of the expectations of a run none has a time of its own: only the whole run has.
    for outcome, suite in zip(outcomes, document, strict=True):
        suite.time = round(duration_s(outcome) or 0.0, 3)
    document.time = round(sum(suite.time for suite in document), 3)
    ElementTree.indent(document._elem)
    return f"<?xml version='1.0' encoding='utf-8'?>\n{ElementTree.tostring(document._elem, encoding='unicode')}\n"


def _properties(outcome: Outcome) -> Iterator[tuple[str, str]]:
    context = outcome.context
    yield from (
        (name, value)
        for name, value in (
            ("run", outcome.run),
            ("verdict", outcome.verdict),
            ("reason", outcome.reason),
            ("phase", outcome.phase),
            ("mesh", f"{outcome.mesh.kind} {outcome.mesh.name}"),
            ("edge", edge_words(outcome)),
            ("fault", fault_words(outcome)),
            ("actor", outcome.actor),
            ("commit", context.commit),
            ("ci_url", context.ci_url),
            ("trace_id", context.trace_id),
            ("spec_sha256", outcome.spec_sha256),
            ("seed", str(outcome.seed)),
        )
        if value
    )


def _cases(outcome: Outcome, counted: Standing, fail_on: Collection[str]) -> Iterator[TestCase]:
    for check in outcome.checks:
        case = _case(outcome, check.id)
        if check.file is not None:
            # GitLab and others link from here to the line of the expectation.
            case._elem.set("file", visible(check.file))
            if check.line is not None:
                case._elem.set("line", str(check.line))
        if check.verdict is not Verdict.PASSED:
            message = f"{check.expression}: {measured_words(check)}, {sample_words(check)}"
            case.result = [_result(check.verdict, message, _details(outcome, check), counted, fail_on)]
        yield case
    if all(check.verdict is not outcome.verdict for check in outcome.checks) and outcome.verdict is not Verdict.PASSED:
        case = _case(outcome, "verdict")
        message = outcome.verdict if outcome.reason is None else f"{outcome.verdict}: {outcome.reason}"
        case.result = [_result(outcome.verdict, message, _details(outcome, None), counted, fail_on)]
        yield case
    if counted.surprising:
        case = _case(outcome, "known-failure")
        case.result = [_result(Verdict.FAILED, counted.note or "", "", counted, fail_on)]
        yield case
    if outcome.restore is not None or is_unrestored(outcome):
        case = _case(outcome, "restored")
        if is_unrestored(outcome):
            error = Error(visible(restore_words(outcome)), "restore_not_verified")
            error.text = visible(_details(outcome, None), keep_newlines=True)
            case.result = [error]
        yield case


def _case(outcome: Outcome, name: str) -> TestCase:
    return TestCase(visible(name), visible(outcome.experiment))


def _details(outcome: Outcome, check: CheckResult | None) -> str:
    lines = [] if check is None else [check.explanation, bound_words(check)]
    lines.append(outcome.explanation)
    if outcome.next is not None:
        lines.append(f"next ({who_words(outcome.next.who)}): {outcome.next.do}")
    return "\n".join(line for line in lines if line)


def _result(
    verdict: Verdict, message: str, details: str, counted: Standing, fail_on: Collection[str]
) -> Failure | Error | Skipped:
    made: Failure | Error | Skipped
    if counted.excused:
        made = Skipped(visible(counted.note or ""), "known_failure")
    elif _WORDS[verdict] not in fail_on:
        made = Skipped(visible(f"{verdict}: {message}"), verdict)
    elif verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE):
        made = Failure(visible(message), verdict)
    else:
        made = Error(visible(message), verdict)
    made.text = visible(details, keep_newlines=True)
    return made
