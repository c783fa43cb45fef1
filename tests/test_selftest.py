"""The matrix of planted defects: it is whole, and its rules tell a caught defect from one that got away."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

import pytest

from luff.checks import Method, plan_checks
from luff.lab.fleet.__main__ import BACKEND, HABITS
from luff.model import Expectation, Experiment
from luff.outcome import CheckResult, MeshIdentity, Next, Outcome
from luff.selftest import CASES, CONTROL, EXPOSURE, Case, documents_for, finding_for
from luff.words import Verdict

BY_NAME = {case.name: case for case in CASES}
DOCUMENTS = documents_for(CASES)
EXPERIMENTS = {experiment.name: experiment for experiment in DOCUMENTS.experiments}
RUN_LEVEL = {EXPOSURE, CONTROL}
PLANTED = [
    "no-timeout", "timeout-too-long", "retries-without-end", "retries-without-pause", "breaker-never-opens",
    "breaker-never-closes", "never-recovers", "wrong-fallback", "error-status", "pool-makes-all-wait", "lost-header",
]  # fmt: skip


def _kinds(experiment: Experiment, ids: Collection[str]) -> set[str]:
    return {each.kind for each in experiment.spec.expect if each.id in ids}


def _check(check_id: str, verdict: Verdict, reason: str | None = None) -> CheckResult:
    return CheckResult(
        id=check_id,
        kind="answer",
        arm="fault",
        expression="",
        verdict=verdict,
        reason=reason,
        method="sequential",
        rule="",
        explanation="",
    )


def _outcome(name: str, verdict: Verdict, reason: str | None = None, *checks: CheckResult, **more: Any) -> Outcome:
    return Outcome.model_validate(
        {
            "run": "0" * 16,
            "experiment": name,
            "actor": "me",
            "mesh": MeshIdentity(kind="lab", name="lab"),
            "verdict": verdict,
            "reason": reason,
            "explanation": "first; second",
            "phase": "clean",
            "spec_sha256": "",
            "checks": checks,
            "seed": 1,
            "started_at": "",
            "ended_at": "",
            "luff": "0",
        }
        | more
    )


def test_every_case_is_an_experiment_with_a_service_of_the_fleet() -> None:
    assert list(EXPERIMENTS) == [case.name for case in CASES]
    assert {case.service for case in CASES} == set(HABITS)
    assert {workload.spec.service for workload in DOCUMENTS.workloads} == {*HABITS, BACKEND}
    assert {name: e.metadata.annotations["luff.dev/expected"] for name, e in EXPERIMENTS.items()} == {
        case.name: case.expected for case in CASES
    }


@pytest.mark.parametrize("name", PLANTED)
def test_every_defect_that_was_asked_for_is_planted(name: str) -> None:
    assert BY_NAME[name].defect is not None
    assert BY_NAME[name].caught_by


def test_healthy_services_have_no_defect_and_pass() -> None:
    healthy = [case for case in CASES if case.defect is None]

    assert {case.service for case in healthy} == {name for name in HABITS if name.startswith("healthy")}
    assert {(case.expected, case.caught_by) for case in healthy} == {("passed", frozenset())}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_must_catch_a_defect_is_expected_of_the_service(case: Case) -> None:
    ids = {each.id for each in EXPERIMENTS[case.name].spec.expect}

    assert case.caught_by <= ids | RUN_LEVEL


@pytest.mark.parametrize("kind", [kind.model_fields["kind"].default for kind in get_args(Expectation)])
def test_every_kind_of_expectation_has_a_defect_that_only_it_catches(kind: str) -> None:
    alone = [
        case.name
        for case in CASES
        if case.defect is not None and not case.caught_by & RUN_LEVEL and len(case.caught_by) == 1
        if _kinds(EXPERIMENTS[case.name], case.caught_by) == {kind}
    ]
    healthy = [case for case in CASES if case.defect is None]

    assert alone
    assert any(kind in _kinds(e, {x.id for x in e.spec.expect}) for e in (EXPERIMENTS[c.name] for c in healthy))


def test_every_method_has_a_defect_to_catch_and_a_healthy_service_to_pass() -> None:
    methods = {
        case.name: {
            check.method
            for check in plan_checks(EXPERIMENTS[case.name], rate_hz=40.0)
            if case.defect is None or check.id in case.caught_by
        }
        for case in CASES
    }

    for healthy in (True, False):
        found = {method for case in CASES if (case.defect is None) is healthy for method in methods[case.name]}
        assert found == set(get_args(Method))


def test_the_fault_and_the_answers_of_defect_and_healthy_twin_are_the_same() -> None:
    spoken = {
        tuple(each.id for each in e.spec.expect if each.kind in ("latency", "errors", "answer", "fallback"))[:4]
        for e in EXPERIMENTS.values()
    }

    assert spoken == {("in-time", "few-errors", "keeps-the-name", "falls-back")}


def test_a_defect_is_caught_only_by_what_must_catch_it() -> None:
    case = BY_NAME["timeout-too-long"]
    failed = Verdict.FAILED
    right = finding_for(case, _outcome(case.name, failed, None, _check("in-time", failed)))
    other = finding_for(case, _outcome(case.name, failed, None, _check("few-errors", failed)))
    both = finding_for(case, _outcome(case.name, failed, None, _check("in-time", failed), _check("few-errors", failed)))

    assert (right.ok, right.caught_by, right.sentence) == (True, ("in-time",), "first")
    assert (other.ok, other.trouble) == (False, "NOT CAUGHT")
    assert not both.ok


def test_a_defect_that_passes_is_not_caught() -> None:
    finding = finding_for(BY_NAME["no-timeout"], _outcome("no-timeout", Verdict.PASSED))

    assert (finding.ok, finding.trouble, finding.may_be_chance) == (False, "NOT CAUGHT", False)


def test_a_healthy_service_that_fails_was_blamed() -> None:
    case = BY_NAME["healthy-when-slow"]
    finding = finding_for(case, _outcome(case.name, Verdict.FAILED, None, _check("in-time", Verdict.FAILED)))

    assert (finding.ok, finding.trouble) == (False, "BLAMED")


def test_a_fallback_without_need_is_caught_although_nothing_failed() -> None:
    case = BY_NAME["fallback-without-need"]
    check = _check("falls-back", Verdict.INCONCLUSIVE, "not_discriminating")

    assert finding_for(case, _outcome(case.name, Verdict.INCONCLUSIVE, "not_discriminating", check)).ok


@pytest.mark.parametrize(
    ("name", "verdict", "reason", "by"),
    [
        ("lost-header", Verdict.INCONCLUSIVE, "fault_not_observed", EXPOSURE),
        ("pool-refuses-all", Verdict.FAILED, "isolation_breach", CONTROL),
    ],
)
def test_the_run_itself_catches_what_no_expectation_can(name: str, verdict: Verdict, reason: str, by: str) -> None:
    finding = finding_for(BY_NAME[name], _outcome(name, verdict, reason))

    assert (finding.ok, finding.caught_by) == (True, (by,))


def test_what_a_busy_machine_spoilt_may_be_run_again_and_what_is_ok_is_not() -> None:
    case = BY_NAME["healthy-pool"]
    again = Next(who="runner", retryable=True, do="")
    spoilt = finding_for(case, _outcome(case.name, Verdict.INCONCLUSIVE, "generator_saturated", next=again))
    fine = finding_for(case, _outcome(case.name, Verdict.PASSED))

    assert (spoilt.ok, spoilt.may_be_chance, spoilt.trouble) == (False, True, "NOT PASSED")
    assert (fine.ok, fine.may_be_chance) == (True, False)


def test_what_did_not_run_is_not_ok() -> None:
    finding = finding_for(CASES[0], None)

    assert (finding.ok, finding.verdict, finding.sentence) == (False, "did not run", "")
