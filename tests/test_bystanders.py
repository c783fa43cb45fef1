"""Who met the fault: what never can is told from what lost the scope, and never excuses it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luff.bystanders import BYSTANDER_FROM, Bystanders, bystanders_of
from luff.checks import plan_checks
from luff.model import Experiment
from luff.outcome import Generator
from luff.samples import Evidence, Failure, Samples
from luff.verdicts import Judgement, Situation, judge
from luff.words import Arm, Phase, Verdict

MS = 1_000_000
FALLBACK = {"id": "falls-back", "kind": "fallback", "answer": {"status": ["200"]}}
LATENCY = {"id": "in-time", "kind": "latency", "quantile": 0.95, "limit_s": 1.0}


def _add(
    samples: Samples, evidence: Evidence, count: int, request: int, *, met: bool, arm: Arm = Arm.FAULT, **row: Any
) -> None:
    for _ in range(count):
        due_ns = len(samples) * 25 * MS
        number = samples.open(arm, Phase.FAULT, request, due_ns)
        samples.sent_ns[number] = due_ns
        samples.close(number, done_ns=due_ns + 10 * MS, **({"status": 200, "holds": 1} | row))
        evidence.attempts.append(int(met))
        evidence.fired.append(int(met))
        evidence.attempts_total += met
    evidence.settled_through = len(samples)


def _weighted(count: int = 200, elsewhere: int = 800, *, met: bool = True, **row: Any) -> tuple[Samples, Evidence]:
    """Return *count* requests that meet the fault, and *elsewhere* that go somewhere else."""
    samples, evidence = Samples(), Evidence("lab-log", "request")
    _add(samples, evidence, count, 0, met=met)
    _add(samples, evidence, elsewhere, 1, met=False, **row)
    return samples, evidence


def _judged(samples: Samples, evidence: Evidence, *expect: dict[str, Any]) -> Judgement:
    requests = [{"url": "http://checkout/cart"}, {"url": "http://checkout/about", "weight": 4}]
    experiment = Experiment.model_validate(
        {
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"delay": {"duration": "3s"}},
                "traffic": {"requests": requests},
                "expect": expect or [LATENCY],
            },
        }
    )
    return judge(
        plan_checks(experiment, rate_hz=20.0),
        samples,
        evidence,
        experiment=experiment,
        situation=Situation(live_ns=0, removed_ns=60_000 * MS),
        generator=Generator(late_p99_ms=0.4, healthy=True),
    )


def test_weighted_requests_that_go_elsewhere_are_no_missing_exposure_and_are_named() -> None:
    judged = _judged(*_weighted())

    assert (judged.verdict, judged.reason) == (Verdict.PASSED, None), judged.explanation
    assert "200 of 200 requests" in judged.explanation
    assert "800 requests never reach the target, as bystanders: GET http://checkout/about" in judged.explanation


@pytest.mark.parametrize(
    ("story", "found"),
    [
        (_weighted(), Bystanders({1: 800})),
        (_weighted(status=503), Bystanders({1: 800}, hurt=800)),
        (_weighted(status=404), Bystanders({1: 800})),
        (_weighted(elsewhere=BYSTANDER_FROM - 1), Bystanders({})),
        (_weighted(elsewhere=BYSTANDER_FROM), Bystanders({1: 20})),
        (_weighted(failure=Failure.POOL, status=0), Bystanders({})),
        # Where nothing met the fault, nobody is a bystander to it.
        (_weighted(met=False), Bystanders({})),
    ],
)
def test_a_bystander_is_a_request_of_which_none_met_the_fault_while_others_did(
    story: tuple[Samples, Evidence], found: Bystanders
) -> None:
    assert bystanders_of(*story) == found


def test_who_met_it_once_is_no_bystander() -> None:
    samples, evidence = _weighted()
    evidence.attempts[999] = 1
    assert bystanders_of(samples, evidence) == Bystanders({})


def test_where_a_workload_lost_the_scope_nobody_is_taken_for_a_bystander() -> None:
    samples, evidence = _weighted()
    evidence.lost_at["checkout"] = 1

    judged = _judged(samples, evidence)

    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "fault_not_observed")
    assert "lost at checkout" in judged.explanation


def test_where_evidence_is_by_the_number_nobody_is_taken_for_a_bystander() -> None:
    samples, evidence = _weighted()
    evidence = replace(evidence, source="latency-shift", per="aggregate")
    assert bystanders_of(samples, evidence) == Bystanders({})


def test_bystanders_of_the_fault_arm_that_fail_are_a_breach_of_isolation() -> None:
    judged = _judged(*_weighted(status=503))

    assert (judged.verdict, judged.reason) == (Verdict.FAILED, "isolation_breach")
    assert "800 of 800 requests that never reach the target failed" in judged.explanation


def test_what_goes_elsewhere_on_control_does_not_make_a_fallback_that_is_always_served_look_needed() -> None:
    samples, evidence = _weighted(400)
    _add(samples, evidence, 400, 0, met=False, arm=Arm.CONTROL, holds=1)
    _add(samples, evidence, 800, 1, met=False, arm=Arm.CONTROL, holds=0)

    judged = _judged(samples, evidence, FALLBACK)

    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "not_discriminating")
