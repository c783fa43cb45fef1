"""What a violation is, by kind of expectation, and what a plan makes of each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from luff import stats
from luff.checks import PlannedCheck, lateness_of, plan_checks, speaks_unexposed, violations
from luff.model import Experiment
from luff.results import can_fail
from luff.samples import Failure, Samples
from luff.words import Arm, Phase

MS = 1_000_000
ANSWER = {"status": ["200"], "json": {"path": "$.stock", "equals": "unknown"}}
EXPECTATIONS: dict[str, dict[str, Any]] = {
    "latency": {"kind": "latency", "quantile": 0.99, "limit_s": 1.0},
    "errors": {"kind": "errors", "at_most_percent": 1.0},
    "answer": {"kind": "answer", "answer": ANSWER},
    "fallback": {"kind": "fallback", "answer": ANSWER},
    "attempts": {"kind": "attempts", "of": "inventory", "at_most": 2},
    "noWorseThan": {"kind": "noWorseThan"},
    "recovery": {"kind": "recovery", "within_s": 5.0},
}


def _experiment(*expect: dict[str, Any], **spec: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"delay": {"duration": "3s"}},
                "traffic": {"requests": [{"url": "http://checkout/cart/42"}]},
                "expect": [{"id": f"check-{place}", **each} for place, each in enumerate(expect)],
                **spec,
            },
        }
    )


def _check(expectation: dict[str, Any], **spec: Any) -> PlannedCheck:
    return plan_checks(_experiment(expectation, **spec), rate_hz=20.0)[0]


def _violates(
    kind: str, *, latency_ms: int = 10, attempts: int = 1, baseline_ms: int = 100, change: Any = None, **row: Any
) -> bool:
    samples = Samples()
    number = samples.open(Arm.FAULT, Phase.FAULT, 0, 5 * MS)
    samples.close(number, done_ns=(5 + latency_ms) * MS, **({"status": 200, "holds": 1} | row))
    check = _check({**EXPECTATIONS[kind], **(change or {})})
    return violations(check, samples, [number], [attempts], baseline_ms * MS) == [0]


JUDGED = [kind for kind in EXPECTATIONS if kind not in ("recovery", "attempts")]


@pytest.mark.parametrize("kind", [*JUDGED, "attempts"])
def test_a_quick_good_answer_violates_nothing(kind: str) -> None:
    assert not _violates(kind)


@pytest.mark.parametrize("kind", JUDGED)
@pytest.mark.parametrize("failure", [f for f in Failure if f is not Failure.NONE and not f.ours])
def test_errors_and_timeouts_are_violations(kind: str, failure: Failure) -> None:
    assert _violates(kind, failure=failure, status=0, holds=0)
    # Whatever is in the other columns.
    assert _violates(kind, failure=failure, status=200, holds=1)


VIOLATIONS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("latency is counted from the due time to the end", "latency", {"latency_ms": 1001}, True),
    ("latency at the limit is within it", "latency", {"latency_ms": 1000}, False),
    ("a fast error is an answer in time", "latency", {"status": 503}, False),
    ("a status that is listed", "errors", {"status": 500}, True),
    ("a status of the class that is listed", "errors", {"status": 504}, True),
    ("a status that is not listed", "errors", {"status": 404}, False),
    ("a slow answer is no error", "errors", {"latency_ms": 60_000}, False),
    ("a status that was listed by hand", "errors", {"status": 404, "change": {"status": ["404", "5xx"]}}, True),
    ("an answer that is not the one", "answer", {"holds": 0}, True),
    ("an answer with another's bit", "answer", {"holds": 2}, True),
    ("a slow answer is an answer", "answer", {"latency_ms": 60_000}, False),
    ("an answer that is no fallback", "fallback", {"holds": 0}, True),
    ("as many attempts as allowed", "attempts", {"attempts": 2}, False),
    ("more attempts than allowed", "attempts", {"attempts": 3}, True),
    ("attempts of a request that failed", "attempts", {"failure": Failure.DEADLINE, "status": 0}, False),
    ("an answer within one and a half of the baseline", "noWorseThan", {"latency_ms": 150}, False),
    ("an answer beyond one and a half of the baseline", "noWorseThan", {"latency_ms": 151}, True),
    ("a server's error", "noWorseThan", {"status": 500}, True),
    ("a client's error", "noWorseThan", {"status": 404}, False),
]


@pytest.mark.parametrize(("what", "kind", "row", "expected"), VIOLATIONS, ids=[what for what, *_ in VIOLATIONS])
def test_violations(what: str, kind: str, row: dict[str, Any], *, expected: bool) -> None:
    assert _violates(kind, **row) is expected


PLANNED = [
    ("latency", {}, "p99 ≤ 1 s", "sequential", 0.01),
    ("latency", {"quantile": 0.999}, "p999 ≤ 1 s", "sequential", 0.001),
    ("errors", {}, "errors ≤ 1 %", "sequential", 0.01),
    ("errors", {"at_most_percent": 0.0}, "errors ≤ 0 %", "sequential", 1e-4),
    ("answer", {"at_least_percent": 95.0}, "answer ≥ 95 %", "sequential", 0.05),
    ("fallback", {}, "fallback ≥ 99 %", "sequential", 0.01),
    ("attempts", {}, "attempts on inventory ≤ 2", "sequential", 0.01),
    ("noWorseThan", {}, "no worse than control by 5 %", "comparison", 0.05),
    ("noWorseThan", {"arm": "control"}, "no worse than before by 5 %", "sequential", 0.05),
    ("recovery", {}, "recovers within 5 s", "windows", 0.0),
]


@pytest.mark.parametrize(("kind", "change", "expression", "method", "threshold"), PLANNED)
def test_plans(kind: str, change: dict[str, Any], expression: str, method: str, threshold: float) -> None:
    check = _check({**EXPECTATIONS[kind], **change})
    assert (check.expression, check.method, check.kind) == (expression, method, kind)
    assert check.threshold == pytest.approx(threshold)
    assert check.alpha_pass == pytest.approx(0.05)
    assert check.alpha_fail == stats.ALPHA_FAIL
    assert check.sample_most == 1200


def test_a_fixed_sample_is_asked_for() -> None:
    assert _check(EXPECTATIONS["latency"], stop_early=False).method == "fixed"
    assert _check(EXPECTATIONS["noWorseThan"], stop_early=False).method == "comparison"
    assert _check(EXPECTATIONS["recovery"], stop_early=False).method == "windows"


def test_a_plan_says_how_many_violations_it_tolerates() -> None:
    assert _check(EXPECTATIONS["latency"]).tolerated == 3
    assert _check(EXPECTATIONS["latency"], stop_early=False).tolerated == 6
    assert _check(EXPECTATIONS["recovery"]).tolerated == 0


def test_equal_answers_share_a_bit() -> None:
    other = {"kind": "answer", "answer": {"status": ["404"]}}
    checks = plan_checks(
        _experiment(EXPECTATIONS["fallback"], other, EXPECTATIONS["answer"], EXPECTATIONS["latency"]),
        rate_hz=20.0,
    )
    assert [check.bit for check in checks] == [0, 1, 0, None]


@pytest.mark.parametrize("kind", EXPECTATIONS)
@pytest.mark.parametrize("arm", ["fault", "control"])
@pytest.mark.parametrize("stop_early", [True, False])
def test_a_run_that_violates_everything_is_failed(kind: str, arm: str, *, stop_early: bool) -> None:
    if kind != "recovery":
        assert can_fail(_check({**EXPECTATIONS[kind], "arm": arm}, stopEarly=stop_early)) is (
            (kind, arm) != ("attempts", "control")
        )


def test_a_run_that_never_recovers_is_failed() -> None:
    assert can_fail(_check(EXPECTATIONS["recovery"]))


@pytest.mark.parametrize(
    ("kind", "row", "speaks"),
    [
        ("errors", {"status": 429}, True),
        ("latency", {"status": 200}, False),
        ("noWorseThan", {"status": 200}, False),
        ("fallback", {"status": 200}, False),
        ("answer", {"status": 404}, False),
        ("answer", {"status": 500}, True),
        ("fallback", {"status": 0, "failure": Failure.DEADLINE}, True),
        ("fallback", {"status": 0, "failure": Failure.RESET}, True),
    ],
)
def test_without_the_fault_an_error_counts_and_a_slow_or_a_whole_answer_does_not(
    kind: str, row: dict[str, Any], *, speaks: bool
) -> None:
    samples = Samples()
    samples.close(samples.open(Arm.FAULT, Phase.FAULT, 0, 0), done_ns=MS, **row)
    assert speaks_unexposed(_check(EXPECTATIONS[kind]), samples, 0) is speaks


@pytest.mark.parametrize("status", ["404", "4xx", "5XX"])
def test_so_are_those_with_a_status_listed_by_hand(status: str) -> None:
    check = _check(EXPECTATIONS["errors"])
    changed = check.expectation.model_copy(update={"status": (status,)})
    assert can_fail(PlannedCheck(**{**{f: getattr(check, f) for f in check.__slots__}, "expectation": changed}))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("errors", {"at_most_percent": 100.0}),
        ("answer", {"at_least_percent": 0.0}),
        ("attempts", {"at_least_percent": 0.0}),
        ("noWorseThan", {"by_percent": 100.0}),
    ],
)
def test_a_claim_that_holds_whatever_happens_cannot_fail(kind: str, change: dict[str, Any]) -> None:
    assert not can_fail(_check({**EXPECTATIONS[kind], **change}))


@pytest.mark.parametrize(
    ("expect", "most_s"),
    [
        (["errors"], 0.25),
        (["errors", "latency"], 0.1),
        (["latency", "noWorseThan"], 0.02),
        (["answer", "recovery"], 0.25),
    ],
)
@pytest.mark.parametrize("than", ["control", "fault"])
def test_the_generator_has_to_be_as_exact_as_the_claims(expect: list[str], most_s: float, than: str) -> None:
    made = [{**EXPECTATIONS[kind], **({"than": than} if kind == "noWorseThan" else {})} for kind in expect]
    assert lateness_of(plan_checks(_experiment(*made), rate_hz=20.0), timeout_s=10.0).most_s == most_s


def test_the_generator_is_never_held_to_less_than_timers_can_do() -> None:
    tight = {**EXPECTATIONS["latency"], "limit_s": 0.05}
    assert lateness_of([_check(tight)], timeout_s=10.0).most_s == 0.02


@pytest.mark.parametrize(("timeout_s", "most_s"), [(0.1, 0.02), (0.3, 0.03), (2.0, 0.2), (10.0, 0.25)])
def test_a_generator_has_to_leave_nearly_all_of_the_timeout_to_the_service(timeout_s: float, most_s: float) -> None:
    for kind in ("errors", "answer"):
        assert lateness_of([_check(EXPECTATIONS[kind])], timeout_s=timeout_s).most_s == pytest.approx(most_s)


@pytest.mark.parametrize(
    ("kind", "change", "share"),
    [
        ("latency", {"quantile": 0.9}, 0.01),
        ("latency", {"quantile": 0.99}, 0.005),
        ("latency", {"quantile": 0.999}, 0.0005),
        ("errors", {"at_most_percent": 5.0}, 0.01),
        ("errors", {"at_most_percent": 1.0}, 0.005),
        ("answer", {"at_least_percent": 99.9}, 0.0005),
        ("attempts", {"at_least_percent": 99.9}, 0.01),
    ],
)
def test_half_of_the_violations_that_a_claim_bears_may_be_the_generators_own(
    kind: str, change: dict[str, Any], share: float
) -> None:
    check = _check({**EXPECTATIONS[kind], **change})
    assert lateness_of([check], timeout_s=10.0).share == pytest.approx(share)


@settings(max_examples=50)
@example(latencies_ms=[1001], limit_ms=1001)
@given(
    latencies_ms=st.lists(st.integers(0, 5000), min_size=1, max_size=30),
    limit_ms=st.integers(1, 5000),
)
def test_latency_violations_are_those_above_the_limit(latencies_ms: list[int], limit_ms: int) -> None:
    check = _check({**EXPECTATIONS["latency"], "limit_s": limit_ms / 1000})
    samples = Samples()
    for latency_ms in latencies_ms:
        number = samples.open(Arm.FAULT, Phase.FAULT, 0, 0)
        samples.close(number, done_ns=latency_ms * MS, status=200)
    found = len(violations(check, samples, range(len(samples)), [], 0))
    assert found == sum(latency_ms > limit_ms for latency_ms in latencies_ms)


def test_a_claim_that_allows_nearly_everything_fails_on_more_of_what_is_bad() -> None:
    for most, fails in ((5.0, True), (97.0, True), (99.9, False)):
        check = _check({**EXPECTATIONS["errors"], "at_most_percent": most})
        assert can_fail(check) is fails, most
