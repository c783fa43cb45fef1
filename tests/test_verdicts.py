"""From samples and evidence to verdicts: each rule is the first that holds for somebody."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pytest
from scipy import special

from luff import stats
from luff.checks import plan_checks
from luff.endings import ERRORS, ended_early
from luff.errors import (
    Conflict,
    InternalError,
    InvalidFile,
    LabError,
    LockHeld,
    LuffError,
    MeshDenied,
    MeshUnreachable,
    NoGuard,
    NotFound,
    PlanRefused,
    RestoreNotVerified,
    RunAborted,
    StoreError,
)
from luff.exposure import Exposure
from luff.model import Experiment
from luff.outcome import CheckResult, Generator, Next, Who
from luff.results import CHECK_RULES, p_value, recovery_for, result_of
from luff.samples import Call, Evidence, Failure, Flag, Samples
from luff.tallies import Judge
from luff.verdicts import (
    NEXT,
    RULES,
    Judgement,
    Situation,
    control_errors_most,
    judge,
    second_try,
    worth_another_try,
)
from luff.words import Arm, Phase, Verdict
from tests.factories import passed, stranded, valid

MS = 1_000_000
S = 1000 * MS
LATENCY = {"kind": "latency", "quantile": 0.99, "limit_s": 1.0}
FALLBACK = {"kind": "fallback", "answer": {"status": ["200"]}}
ATTEMPTS = {"kind": "attempts", "of": "inventory", "at_most": 2}
RECOVERY = {"kind": "recovery", "within_s": 5.0}
NO_WORSE = {"kind": "noWorseThan"}
BYSTANDERS = {"kind": "noWorseThan", "arm": "control", "than": "control"}
REASONS = {
    "not_enough_samples",
    "fault_not_observed",
    "route_not_live",
    "fault_removed",
    "control_unhealthy",
    "generator_saturated",
    "dependent_samples",
    "dose_too_low",
    "not_discriminating",
}
"""The reasons of an inconclusive outcome, as the contract lists them."""


BROKEN = Generator(healthy=False, trouble="a process of luff's that was sending ended with -9")


@dataclass
class Story:
    """This is a run that went well, to be changed in one thing."""

    expect: tuple[dict[str, Any], ...] = (LATENCY,)
    spec: dict[str, Any] = field(default_factory=dict)
    samples: Samples = field(default_factory=Samples)
    evidence: Evidence = field(default_factory=lambda: Evidence("lab-log", "request"))
    situation: Situation = field(default_factory=lambda: Situation(live_ns=0, removed_ns=60 * S))
    generator: Generator | None = field(default_factory=lambda: Generator(late_p99_ms=0.4, healthy=True))

    @property
    def experiment(self) -> Experiment:
        return Experiment.model_validate(
            {
                "metadata": {"name": "cart", "namespace": "shop"},
                "spec": {
                    "target": {"host": "inventory"},
                    "fault": {"delay": {"duration": "3s"}},
                    "traffic": {"requests": [{"url": "http://checkout/cart/42"}]},
                    "expect": [{"id": f"check-{place}", **each} for place, each in enumerate(self.expect)],
                    **self.spec,
                },
            }
        )

    def add(
        self,
        count: int,
        arm: Arm = Arm.FAULT,
        phase: Phase = Phase.FAULT,
        *,
        latency_ms: float = 10,
        attempts: int = 1,
        fired: int = 1,
        at_ms: float | None = None,
        **row: Any,
    ) -> Story:
        samples, evidence = self.samples, self.evidence
        for step in range(count):
            due_ns = round((25 * len(samples) if at_ms is None else at_ms + 100 * step) * MS)
            number = samples.open(arm, phase, 0, due_ns)
            samples.sent_ns[number] = due_ns
            samples.close(number, done_ns=due_ns + round(latency_ms * MS), **({"status": 200, "holds": 1} | row))
            took = attempts if arm is Arm.FAULT and phase is Phase.FAULT else 0
            hit = min(took, fired)
            evidence.attempts.append(took)
            evidence.fired.append(int(Flag.TWIN | Flag.DELAY_INJECTED) if hit else int(Flag.TWIN) if took else 0)
            evidence.attempts_total += took
            evidence.fired_total += hit
        evidence.settled_through = len(samples)
        return self

    def judged(self) -> Judgement:
        experiment = self.experiment
        checks = plan_checks(experiment, rate_hz=20.0)
        return judge(
            checks,
            self.samples,
            self.evidence,
            experiment=experiment,
            situation=self.situation,
            generator=self.generator,
        )


def _warm(story: Story) -> Story:
    return story.add(20, phase=Phase.WARMUP).add(20, Arm.CONTROL, Phase.WARMUP)


def _good(*expect: dict[str, Any], **spec: Any) -> Story:
    """Return a run in which both arms answer well, 400 requests each."""
    story = _warm(Story(expect or (LATENCY,), spec))
    return story.add(400).add(400, Arm.CONTROL, holds=0)


def _recovering(story: Story, *, fault_ms: float) -> Story:
    for second in range(7):
        story.add(10, Arm.CONTROL, Phase.RECOVERY, at_ms=60_000 + 1000 * second)
        story.add(10, Arm.FAULT, Phase.RECOVERY, at_ms=60_000 + 1000 * second, latency_ms=fault_ms)
    return story


def _not_quite_recovering() -> Story:
    """Return a run in which single errors, as control has them too, leave no three windows in a row like control."""
    story = _good(RECOVERY)
    for second in range(7):
        at_ms = 60_000 + 1000 * second
        story.add(9, Arm.CONTROL, Phase.RECOVERY, at_ms=at_ms).add(9, Arm.FAULT, Phase.RECOVERY, at_ms=at_ms)
        hit = Arm.FAULT if second % 2 else Arm.CONTROL
        for arm in Arm:
            story.add(1, arm, Phase.RECOVERY, at_ms=at_ms + 950, status=503 if arm is hit else 200)
    return story


def _counted(met: int, *, slow: int, **spec: Any) -> Story:
    """Return a run of 600 requests of which *met* met the fault, as calls were counted, and *slow* waited it out."""
    expect = {"kind": "latency", "quantile": 0.9, "limit_s": 1.0}
    story = _warm(Story((expect,), {"evidence": {"atLeast": "4%", "callsPerRequest": 1}, **spec}))
    for place in random.Random(7).sample(range(600), 600):
        story.add(1, latency_ms=3010 if place < slow else 10)
    story.add(600, Arm.CONTROL)
    story.evidence = Evidence("pod-metrics", "aggregate", attempts_total=met, fired_total=met)
    return story


def _bursts() -> Story:
    """Return a run whose violations, near the threshold, come all at once."""
    story = _warm(Story()).add(2900)
    return story.add(20, latency_ms=2000).add(1500)


def _broken_after_a_while(share: float, **spec: Any) -> Story:
    """Return a run of 2000 requests, of which none is slow in the first half and *share* in the second."""
    story, rng = _warm(Story(spec=spec)).add(1000), random.Random(7)
    for _ in range(1000):
        story.add(1, latency_ms=2000 if rng.random() < share else 10)
    return story


def _one_burst(length: int, **spec: Any) -> Story:
    """Return a run of a thousand requests, of which *length* in a row are slow."""
    return _warm(Story(spec=spec)).add(500).add(length, latency_ms=2000).add(500 - length)


def _twice(apart: int, **spec: Any) -> Story:
    """Return a run with two violations, *apart* from each other, that would just pass if they are independent."""
    story = _warm(Story(spec=spec)).add(200).add(1, latency_ms=2000)
    return story.add(apart - 1).add(1, latency_ms=2000).add(750)


CHECKED: list[tuple[str, Story, Verdict, str | None]] = [
    (
        "samples that violate everything would not fail it",
        _good({"kind": "errors", "at_most_percent": 100.0}),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    (
        "samples that violate everything would not fail it",
        _good({"kind": "noWorseThan", "by_percent": 100.0}),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    (
        "the attempts on that edge cannot be counted",
        replace(_good(ATTEMPTS), evidence=Evidence("istio", "aggregate", attempts_total=400)),
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "the attempts on that edge cannot be counted",
        _good({**ATTEMPTS, "arm": "control"}),
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "there was no warm-up to compare with",
        Story((BYSTANDERS,)).add(400).add(400, Arm.CONTROL),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "there was no warm-up to compare with",
        Story((NO_WORSE,)).add(20, phase=Phase.WARMUP).add(400).add(400, Arm.CONTROL),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "no request was judged",
        Story(({**LATENCY, "arm": "control"},)).add(400),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    ("violations come in bursts", _bursts(), Verdict.INCONCLUSIVE, "dependent_samples"),
    ("violations come in bursts", _twice(1), Verdict.INCONCLUSIVE, "dependent_samples"),
    ("violations come in bursts", _twice(1, stopEarly=False), Verdict.INCONCLUSIVE, "dependent_samples"),
    ("it was proved", _twice(60), Verdict.PASSED, None),
    ("it was proved", _twice(60, stopEarly=False), Verdict.PASSED, None),
    ("it was proved", _twice(1).add(1500), Verdict.PASSED, None),
    ("it was proved", _twice(1, stopEarly=False).add(1500), Verdict.PASSED, None),
    ("it was disproved", _broken_after_a_while(0.06), Verdict.FAILED, None),
    ("it was disproved", _broken_after_a_while(0.06, stopEarly=False), Verdict.FAILED, None),
    ("violations come in bursts", _one_burst(30), Verdict.INCONCLUSIVE, "dependent_samples"),
    ("violations come in bursts", _one_burst(30, stopEarly=False), Verdict.INCONCLUSIVE, "dependent_samples"),
    ("it was disproved", _good().add(400, latency_ms=3000), Verdict.FAILED, None),
    ("it was disproved", _warm(Story()).add(30, latency_ms=10_000, failure=Failure.DEADLINE, status=0), Verdict.FAILED, None),
    ("it was disproved", _good(stopEarly=False).add(400, latency_ms=3000), Verdict.FAILED, None),
    ("it was disproved", _warm(Story((NO_WORSE,))).add(400, latency_ms=3000).add(400, Arm.CONTROL), Verdict.FAILED, None),
    ("it was disproved", _good(BYSTANDERS).add(400, Arm.CONTROL, latency_ms=3000), Verdict.FAILED, None),
    (
        "the warm-up was too short to know what is usual",
        _warm(Story((BYSTANDERS,))).add(360, Arm.CONTROL).add(40, Arm.CONTROL, latency_ms=100),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "the warm-up was too short to know what is usual",
        _warm(Story((BYSTANDERS,), {"stopEarly": False})).add(360, Arm.CONTROL).add(40, Arm.CONTROL, latency_ms=100),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "it was not seen to recover, and that may be chance",
        _not_quite_recovering(),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    ("it was disproved", _recovering(_good(RECOVERY), fault_ms=3000), Verdict.FAILED, None),
    (
        "it could not be judged among those that met the fault",
        _counted(34, slow=34),
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "it could not be judged among those that met the fault",
        _counted(34, slow=34, stopEarly=False),
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "too few are known to have met the fault",
        _counted(25, slow=0),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    ("it was proved", _counted(200, slow=5), Verdict.PASSED, None),
    ("it was proved", _counted(600, slow=34), Verdict.PASSED, None),
    (
        "it holds without the fault too",
        _warm(Story((FALLBACK,))).add(400).add(400, Arm.CONTROL, holds=1),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    (
        "it holds without the fault too",
        _warm(Story((FALLBACK,))).add(400),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    ("it was proved", _good(), Verdict.PASSED, None),
    ("it was proved", _good(FALLBACK), Verdict.PASSED, None),
    ("it was proved", _good(ATTEMPTS), Verdict.PASSED, None),
    ("it was proved", _good(NO_WORSE), Verdict.PASSED, None),
    ("it was proved", _good(BYSTANDERS), Verdict.PASSED, None),
    ("it was proved", _good(stopEarly=False), Verdict.PASSED, None),
    ("it was proved", _recovering(_good(RECOVERY), fault_ms=12), Verdict.PASSED, None),
    (
        "the samples carry no claim either way",
        _warm(Story()).add(200),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "the samples carry no claim either way",
        _warm(Story(spec={"stopEarly": False})).add(298),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "the samples carry no claim either way",
        _warm(Story()).add(5, latency_ms=3000),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    ("the samples carry no claim either way", _good(RECOVERY), Verdict.INCONCLUSIVE, "not_enough_samples"),
    (
        "the samples carry no claim either way",
        replace(_recovering(_good(RECOVERY), fault_ms=12), situation=Situation()),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "story", "verdict", "reason"), CHECKED, ids=[f"{n}-{rule}" for n, (rule, *_) in enumerate(CHECKED)]
)
def test_the_first_rule_of_a_check_decides(rule: str, story: Story, verdict: Verdict, reason: str | None) -> None:
    found = story.judged().checks[0]
    assert (found.rule, found.verdict, found.reason) == (rule, verdict, reason)


def test_every_rule_of_a_check_decides_somewhere() -> None:
    assert {rule for rule, *_ in CHECKED} == {rule for rule, *_ in CHECK_RULES}


RAN: list[tuple[str, Story, Verdict, str | None]] = [
    (
        "the twins never reached the proxies",
        replace(_good(), situation=Situation(route_not_live=True, control_unhealthy="503", isolation_breach=True)),
        Verdict.INCONCLUSIVE,
        "route_not_live",
    ),
    (
        "control was not healthy before the fault",
        replace(_good(), situation=Situation(control_unhealthy="503", isolation_breach=True)),
        Verdict.INCONCLUSIVE,
        "control_unhealthy",
    ),
    (
        "requests that should not took the twin",
        replace(
            _good(),
            evidence=replace(_good().evidence, breaches=1),
            situation=Situation(isolation_breach=True, fault_removed=True),
        ),
        Verdict.FAILED,
        "isolation_breach",
    ),
    (
        "bystanders were hurt",
        replace(_good(), situation=Situation(isolation_breach=True, fault_removed=True)),
        Verdict.FAILED,
        "isolation_breach",
    ),
    # Nobody saw it while it ran: the last answers of control came after the end.
    ("bystanders were hurt", _good().add(150, Arm.CONTROL, status=503), Verdict.FAILED, "isolation_breach"),
    (
        "somebody else took the twins out",
        replace(Story(), situation=Situation(fault_removed=True)),
        Verdict.INCONCLUSIVE,
        "fault_removed",
    ),
    ("no request was sent", Story(), Verdict.INCONCLUSIVE, "not_enough_samples"),
    (
        "no request was sent",
        Story().add(40, Arm.FAULT, failure=Failure.CUT, status=0),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    # It broke before the first answer: that is why there is none.
    (
        "the generator ran late",
        replace(Story().add(40, failure=Failure.WORKER, status=0), generator=BROKEN),
        Verdict.INCONCLUSIVE,
        "generator_saturated",
    ),
    # While it stood still, the deadlines of both arms passed: that is nobody's failure but its own.
    (
        "the generator ran late",
        replace(_good().add(150, Arm.CONTROL, failure=Failure.DEADLINE, status=0), generator=BROKEN),
        Verdict.INCONCLUSIVE,
        "generator_saturated",
    ),
    (
        "the generator ran late",
        replace(_good().add(100, attempts=0), generator=Generator(late_p99_ms=90.0, healthy=False)),
        Verdict.INCONCLUSIVE,
        "generator_saturated",
    ),
    ("the generator ran late", replace(_good(), generator=None), Verdict.INCONCLUSIVE, "generator_saturated"),
    (
        "too few requests took the twin",
        _good(fault={"abort": {"http": 503, "percent": 25.0}}).add(5, attempts=0),
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "the fault fired for another share than asked",
        _good(fault={"abort": {"http": 503, "percent": 25.0}}).add(400, latency_ms=3000),
        Verdict.INCONCLUSIVE,
        "dose_too_low",
    ),
    (
        "an expectation failed",
        _good(LATENCY, ATTEMPTS).add(200, attempts=4, fired=4),
        Verdict.FAILED,
        None,
    ),
    (
        "an expectation failed",
        _good({**LATENCY, "quantile": 0.999}, ATTEMPTS).add(200, attempts=4, fired=4),
        Verdict.FAILED,
        None,
    ),
    (
        "an expectation could not be decided",
        _good(LATENCY, {**LATENCY, "quantile": 0.999}),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "an expectation could not be decided",
        _warm(Story((LATENCY, FALLBACK))).add(400),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    ("there was nothing to expect", replace(_good(), expect=()), Verdict.INCONCLUSIVE, "not_enough_samples"),
    ("every expectation held", _good(LATENCY, FALLBACK), Verdict.PASSED, None),
]


@pytest.mark.parametrize(
    ("rule", "story", "verdict", "reason"), RAN, ids=[f"{n}-{rule}" for n, (rule, *_) in enumerate(RAN)]
)
def test_the_first_rule_of_a_run_decides(rule: str, story: Story, verdict: Verdict, reason: str | None) -> None:
    found = story.judged()
    assert (found.rule, found.verdict, found.reason) == (rule, verdict, reason)
    assert (found.next is None) is (verdict is Verdict.PASSED)
    assert found.explanation


def test_every_rule_of_a_run_decides_somewhere() -> None:
    assert {rule for rule, *_ in RAN} == {rule for rule, *_ in RULES}


def test_every_reason_of_the_contract_says_who_can_act() -> None:
    assert set(NEXT) == {*REASONS, "isolation_breach", None}
    decided = {reason for _, _, verdict, reason in [*RULES, *CHECK_RULES] if verdict is Verdict.INCONCLUSIVE}
    assert decided - {"of the check"} == REASONS
    for reason, advice in NEXT.items():
        assert advice.who in get_args(Who)
        assert advice.do
        assert advice.retryable or reason not in {
            "not_enough_samples",
            "generator_saturated",
            "control_unhealthy",
            "dependent_samples",
        }


# Numbers


def _checked(story: Story) -> CheckResult:
    return story.judged().checks[0]


def test_a_passed_check_shows_its_numbers() -> None:
    found = _checked(_good())
    assert (found.n, found.violations, found.threshold, found.alpha) == (400, 0, 0.01, 0.05)
    assert found.bound == pytest.approx(stats.upper_bound(0, 400, alpha=0.05), abs=1e-6)
    assert found.e_value is not None
    assert found.e_value > 20
    assert (found.measured, found.unit, found.expression) == (10.0, "ms", "p99 ≤ 1 s")
    assert found.mde is not None


def test_a_failed_check_shows_the_bound_that_it_broke() -> None:
    found = _checked(_good().add(400, latency_ms=3000))
    assert (found.n, found.violations, found.alpha) == (800, 400, 0.005)
    assert found.bound == pytest.approx(stats.lower_bound(400, 800, alpha=0.005), abs=1e-6)
    assert found.bound is not None
    assert found.bound > 0.01
    assert found.measured == 3000.0


def test_what_was_disproved_stays_so_however_many_good_ones_follow() -> None:
    story = _warm(Story()).add(20).add(6, latency_ms=3000)
    assert _checked(story).verdict is Verdict.FAILED
    found = _checked(story.add(2480))
    assert stats.log_e_fail(6, 2506, 0.01) < 0
    assert (found.verdict, found.rule) == (Verdict.FAILED, "it was disproved")
    assert found.e_value is not None
    assert found.e_value >= 200


@pytest.mark.parametrize("failure", [Failure.CONNECT, Failure.RESET, Failure.PROTOCOL, Failure.TLS])
def test_a_refusal_is_no_quick_answer(failure: Failure) -> None:
    found = _checked(_warm(Story()).add(30, latency_ms=1, failure=failure, status=0))
    assert (found.verdict, found.measured) == (Verdict.FAILED, None)
    assert "measured no answer, 30 of 30 requests were against it" in found.explanation


def test_a_deadline_is_a_time_that_it_took_at_least() -> None:
    found = _checked(_warm(Story()).add(30, latency_ms=10_000, failure=Failure.DEADLINE, status=0))
    assert found.measured == 10_000.0


def test_the_worst_attempts_are_measured() -> None:
    found = _checked(_good(ATTEMPTS).add(200, attempts=7, fired=7))
    assert (found.verdict, found.measured, found.unit, found.violations) == (Verdict.FAILED, 7.0, "attempts", 200)


@pytest.mark.parametrize(("kind", "good"), [("answer", 50.0), ("fallback", 50.0)])
def test_a_share_that_is_wanted_is_shown_and_of_errors_the_share_that_is_not(kind: str, good: float) -> None:
    story = _good({**FALLBACK, "kind": kind}).add(400, holds=0)
    assert (_checked(story).measured, _checked(story).unit) == (good, "%")
    story = _good({"kind": "errors", "at_most_percent": 1.0}).add(100, status=500)
    assert _checked(story).measured == 20.0


def test_a_recovery_shows_when_it_came() -> None:
    story = _good(RECOVERY)
    for second, latency_ms in enumerate([900, 900, 12, 12, 12, 12]):
        story.add(10, Arm.CONTROL, Phase.RECOVERY, at_ms=60_000 + 1000 * second)
        story.add(10, Arm.FAULT, Phase.RECOVERY, at_ms=60_000 + 1000 * second, latency_ms=latency_ms)
    found = _checked(story)
    assert (found.verdict, found.measured, found.unit) == (Verdict.PASSED, 2.0, "s")
    assert found.explanation == "recovers within 5 s: normal again 2 s after the fault was gone"


def test_what_was_not_judged_yet_while_it_ran_is_judged_at_the_end() -> None:
    story = _good()
    story.evidence.settled_through = 0
    assert story.judged().verdict is Verdict.PASSED
    assert story.evidence.settled_through == 0


def test_a_pass_does_not_outlive_a_service_that_gets_worse() -> None:
    good = _warm(Story()).add(350)
    assert _checked(good).verdict is Verdict.PASSED
    slipping = _checked(_warm(Story()).add(350).add(5, latency_ms=3000))
    assert (slipping.verdict, slipping.reason) == (Verdict.INCONCLUSIVE, "not_enough_samples")
    assert _checked(_warm(Story()).add(350).add(60, latency_ms=3000)).verdict is Verdict.FAILED
    assert _checked(_warm(Story()).add(350).add(60, latency_ms=3000).add(9000)).verdict is not Verdict.PASSED


# Bursts


def test_bursts_far_from_the_threshold_change_nothing() -> None:
    story = _warm(Story()).add(200).add(200, latency_ms=2000).add(200)
    assert _checked(story).verdict is Verdict.FAILED


def test_independent_violations_near_the_threshold_are_believed() -> None:
    rng = random.Random(3)
    story = _warm(Story())
    for _ in range(4000):
        story.add(1, latency_ms=2000 if rng.random() < 0.004 else 10)
    assert _checked(story).rule == "it was proved"


# Holm


def _marginal(checks: int) -> Story:
    """Return a run in which one check is disproved just so, and *checks* others cannot be."""
    others = tuple({**LATENCY, "limit_s": 5.0 + place} for place in range(checks))
    counted = next(n for n in range(1, 20) if stats.log_e_fail(n, 60 + n, 0.01) >= -math.log(stats.ALPHA_FAIL))
    return _warm(Story((LATENCY, *others))).add(60).add(counted, latency_ms=2000)


def test_a_failure_stands_alone_and_not_among_very_many() -> None:
    assert _checked(_marginal(0)).verdict is Verdict.FAILED
    judged = _marginal(300).judged()
    found = judged.checks[0]
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "not_enough_samples")
    assert found.rule == "among this many checks it may be chance"
    assert "among 301 checks that may be chance" in found.explanation
    assert judged.verdict is Verdict.INCONCLUSIVE


def test_a_clear_failure_stands_among_very_many_and_passing_needs_no_correction() -> None:
    others = tuple({**LATENCY, "limit_s": 5.0 + place} for place in range(100))
    judged = _warm(Story((LATENCY, *others))).add(400, latency_ms=2000).judged()
    assert judged.checks[0].verdict is Verdict.FAILED
    assert {check.verdict for check in judged.checks[1:]} == {Verdict.PASSED}


@pytest.mark.parametrize("method", ["sequential", "fixed", "comparison"])
def test_a_p_value_falls_as_violations_rise(method: str) -> None:
    expect = NO_WORSE if method == "comparison" else dict(LATENCY)
    found = []
    for bad in (0, 10, 40, 200):
        story = _warm(Story((expect,), {"stopEarly": method != "fixed"}))
        story.add(bad, latency_ms=3000).add(400).add(400, Arm.CONTROL)
        check = plan_checks(story.experiment, rate_hz=20.0)[0]
        assert check.method == method
        counting = Judge((check,))
        counting.feed_all(story.samples, story.evidence)
        found.append(p_value(check, counting))
    assert found == sorted(found, reverse=True)
    assert found[0] == 1.0
    assert found[-1] < 1e-6


def test_the_p_value_of_a_recovery_is_small_where_it_clearly_never_came() -> None:
    check = plan_checks(_good(RECOVERY).experiment, rate_hz=20.0)[0]
    found = []
    for fault_ms in (3000, 12):
        story = _recovering(_good(RECOVERY), fault_ms=fault_ms)
        recovery = recovery_for(check, story.samples, removed_ns=60 * S)
        found.append(p_value(check, Judge((check,)), recovery))
    assert found[0] < 1e-6
    assert [found[1], p_value(check, Judge((check,)))] == [1.0, 1.0]


def test_a_fixed_samples_p_value_is_the_binomials() -> None:
    story = _good(stopEarly=False).add(10, latency_ms=3000)
    check = plan_checks(story.experiment, rate_hz=20.0)[0]
    counting = Judge((check,))
    counting.feed_all(story.samples, story.evidence)
    assert p_value(check, counting) == pytest.approx(float(special.bdtrc(9, 410, 0.01)), rel=1e-6)


# The dose


@pytest.mark.parametrize(("fired", "fits"), [(100, True), (120, True), (160, False), (50, False), (0, False)])
def test_the_dose_has_to_be_the_one_that_was_asked_for(fired: int, *, fits: bool) -> None:
    story = _warm(Story(spec={"fault": {"abort": {"http": 503, "percent": 25.0}}}))
    story.add(fired).add(400 - fired, fired=0).add(400, Arm.CONTROL)
    assert (story.judged().reason == "dose_too_low") is not fits


def test_who_retries_is_hit_more_often_and_the_dose_is_still_right() -> None:
    rng = random.Random(5)
    story = _warm(Story(spec={"fault": {"abort": {"http": 503, "percent": 50.0}}}))
    for _ in range(400):
        tries = next(place for place in range(1, 6) if place == 5 or rng.random() < 0.5)
        story.add(1, attempts=tries, fired=tries - 1)
    assert story.add(400, Arm.CONTROL).judged().verdict is Verdict.PASSED


@pytest.mark.parametrize(
    "fault",
    [
        {"abort": {"http": 503, "percent": 1.0}},
        {"delay": {"duration": "1s", "percent": 1.0}, "abort": {"http": 503, "percent": 1.0}},
    ],
    ids=["one dose", "two doses"],
)
def test_a_dose_that_fired_for_nobody_proves_nothing(fault: dict[str, Any]) -> None:
    story = _warm(Story(spec={"fault": fault})).add(400, fired=0).add(400, Arm.CONTROL)
    judged = story.judged()
    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "dose_too_low")
    assert judged.next is not None
    assert "percentage" in judged.next.do


def test_calls_beyond_a_percentage_say_that_callers_tried_again_and_what_would_tell() -> None:
    story = _good(fault={"abort": {"http": 503, "percent": 50.0}})
    for fired, again in ((300, True), (100, False)):
        story.evidence = Evidence("pod-metrics", "aggregate", attempts_total=fired, fired_total=fired)
        judged = replace(story, spec={**story.spec, "evidence": {"atLeast": "10%"}}).judged()

        assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "dose_too_low")
        assert (
            "injected the fault into 300 calls, more than 50 % of 400 requests: callers tried again"
            in judged.explanation
        ) is again
        assert judged.next is not None
        assert ("--lab" in judged.next.do) is again


def test_a_full_dose_and_two_doses_are_not_counted() -> None:
    assert _good().add(10, fired=0).judged().reason is None
    two: dict[str, Any] = {
        "fault": {"abort": {"http": 503, "percent": 5.0}, "delay": {"duration": "3s", "percent": 50.0}}
    }
    assert _good(**two).judged().reason is None


# Words


def _given_up(number: int, *, waits_s: tuple[float, ...] = (3.0, 3.0), inner_s: float = 7.0) -> list[Call]:
    def call(workload: str, destination: str, at_s: float, took_s: float, flags: str, route: str) -> Call:
        return Call(workload, "outbound", destination, "/", number, at_s, at_s + took_s, 0, flags, route)

    calls, at_s = [], 100.0 * number
    for wait_s in waits_s:
        calls.append(call("productpage", "reviews", at_s, wait_s, "DC", "default"))
        calls.append(call("reviews", "ratings", at_s + 0.01, inner_s, "DI,DC", "luff.1.0123456789abcdef.1.2.0"))
        at_s += wait_s
    return calls


def test_a_failure_names_the_give_up_that_was_measured() -> None:
    story = _warm(Story()).add(30, latency_ms=6000)
    for number in range(40, 70):
        story.evidence.calls += _given_up(number)
    assert story.judged().explanation == (
        "p99 ≤ 1 s: measured 6 s, 30 of 30 requests were against it; productpage gave up on reviews after 3.0 s × 2, "
        "while the inner call reviews → ratings was still waiting when it was cut"
    )


def test_a_lost_scope_names_where_it_was_lost() -> None:
    story = _good().add(400, attempts=0)
    story.evidence.lost_at.update({"storefront": 398, "gateway": 2})
    found = story.judged()
    assert (
        found.explanation == "400 of 800 requests reached the fault: every carrier of the scope was lost at storefront"
    )


def test_a_call_that_was_left_out_is_no_lost_scope() -> None:
    found = _good().add(400, attempts=0).judged()
    assert found.next is not None
    assert (
        found.explanation == "400 of 800 requests reached the fault: no workload lost the scope, "
        "so the others did without that call (a breaker, a cache) or took another route"
    )
    assert found.next.who == "experiment"
    assert "evidence.atLeast" in found.next.do


def test_a_breach_of_isolation_says_how_many_were_hurt() -> None:
    found = _good().add(150, Arm.CONTROL, status=503).judged()
    assert found.explanation == "bystanders were hurt: 150 of 550 requests of the control arm failed"


def test_a_pass_says_for_how_many_the_fault_was_live() -> None:
    assert _good().judged().explanation == "with the fault live for 400 of 400 requests, its one expectation held"
    assert _good(LATENCY, FALLBACK).judged().explanation.endswith("all 2 expectations held")


def test_a_pass_without_control_requests_says_what_nobody_saw() -> None:
    traffic = {"requests": [{"url": "http://checkout/cart/42"}], "control": False}
    found = Story(spec={"traffic": traffic}).add(400).judged()
    assert found.verdict is Verdict.PASSED
    assert found.explanation.endswith("; without control requests nobody saw whether bystanders were hurt")


def test_a_judgement_hands_on_how_many_met_the_fault_so_that_it_is_counted_once() -> None:
    assert _good().judged().met == Exposure(sent=400, least=400, most=400, fired=400, calls=400)


def test_a_generator_that_ran_late_says_what_would_have_worked() -> None:
    story = _warm(Story(generator=Generator(late_p99_ms=900.0, healthy=False, trouble="it was late"))).add(400)
    for number in range(40, 440):
        # It sends 20 a second where 40 are due.
        story.samples.sent_ns[number] = story.samples.due_ns[40] + (number - 40) * 50 * MS
    found = story.judged()
    assert found.reason == "generator_saturated"
    assert found.explanation == "it was late"
    assert found.next is not None
    assert found.next.do.startswith("set traffic.rate to 20/s, ")


def test_a_generator_that_was_on_time_and_broke_says_what_broke() -> None:
    found = replace(_good(), generator=BROKEN).judged()
    assert (found.reason, found.explanation) == ("generator_saturated", BROKEN.trouble)


def test_what_looks_like_hurt_bystanders_is_said_of_a_generator_that_broke() -> None:
    hurt = _good().add(150, Arm.CONTROL, failure=Failure.DEADLINE, status=0)
    found = replace(hurt, generator=BROKEN).judged()
    assert found.next is not None
    assert not found.next.retryable
    assert (
        found.explanation == f"{BROKEN.trouble}; 150 of 550 requests of the control arm failed, which may come of that"
    )


def test_with_stages_nobody_is_told_to_raise_a_rate_that_is_not_there() -> None:
    staged = {"traffic": {"requests": [{"url": "http://cart/"}], "stages": [{"for": "10s", "rate": "20/s"}]}}
    for story in (_warm(Story(spec=staged)).add(200), _twice(1, **staged)):
        found = story.judged()
        assert found.next is not None
        assert "make traffic.stages longer" in found.next.do
        assert "traffic.rate" not in found.next.do


def test_a_warm_up_that_was_too_short_is_said_and_what_to_do_about_it() -> None:
    story = _warm(Story((BYSTANDERS,))).add(400).add(360, Arm.CONTROL).add(40, Arm.CONTROL, latency_ms=100)

    judged = story.judged()

    assert judged.reason == "not_enough_samples"
    assert "40 of 400 requests were against it" in judged.explanation
    assert judged.explanation.endswith("; the warm-up was too short to know what is usual")
    assert judged.next is not None
    assert "traffic.warmup" in judged.next.do


@pytest.mark.parametrize(
    ("warm", "usual"),
    [
        (5, lambda rng: rng.choice([20, 20, 20, 20, 200])),
        (45, lambda rng: 200 if rng.random() < 0.15 else 20),
        (11, lambda rng: 20 * rng.lognormvariate(0, 1)),
        (5, lambda rng: 20 * rng.lognormvariate(0, 1)),
    ],
)
def test_arms_that_are_alike_are_not_failed_for_a_short_warm_up(
    warm: int, usual: Callable[[random.Random], float]
) -> None:
    rng, verdicts = random.Random(7), []
    for slower in [1] * 60 + [20] * 3:
        story = Story((NO_WORSE,))
        for arm in Arm:
            for _ in range(warm):
                story.add(1, arm, Phase.WARMUP, latency_ms=usual(rng))
        for arm in Arm:
            for _ in range(400):
                story.add(1, arm, latency_ms=usual(rng) * (slower if arm is Arm.FAULT else 1))
        verdicts.append(story.judged().checks[0].verdict)
    assert verdicts[:60].count(Verdict.FAILED) == 0
    assert verdicts[60:].count(Verdict.FAILED) >= 2


def test_a_recovery_that_chance_hid_is_said_and_what_to_do_about_it() -> None:
    judged = _not_quite_recovering().judged()

    assert judged.reason == "not_enough_samples"
    assert judged.explanation == "recovers within 5 s: it was not seen to recover, and that may be chance"
    assert judged.next is not None
    assert judged.next.do.startswith("raise the rate")


def test_who_counted_no_call_names_no_workload() -> None:
    judged = _counted(0, slow=0).judged()

    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "fault_not_observed")
    assert judged.next is not None
    assert "named above" not in judged.next.do
    assert "--lab" in judged.next.do


def test_who_met_the_fault_and_waited_it_out_is_not_hidden_by_those_who_did_not_meet_it() -> None:
    judged = _counted(34, slow=34).judged()

    assert (judged.verdict, judged.reason) == (Verdict.INCONCLUSIVE, "fault_not_observed")
    assert judged.explanation == (
        "p90 ≤ 1 s: 34 of 600 requests were against it, and only 34 are known to have met the fault; "
        "it could not be judged among those that met the fault"
    )
    assert judged.next is not None
    assert "--lab" in judged.next.do


def test_an_undecided_check_says_why() -> None:
    found = _good(LATENCY, {**LATENCY, "quantile": 0.999}).judged()
    assert found.explanation == (
        "p999 ≤ 1 s: measured 10 ms, none of 400 requests was against it; that is not enough to say either way"
    )


# What was declared


@pytest.mark.parametrize(
    ("tripwires", "most"),
    [([], 0.05), ([1.0], 0.01), ([9.0, 2.0], 0.02), ([0.0], 0.001)],
)
def test_the_control_errors_that_are_normal_are_declared(tripwires: list[float], most: float) -> None:
    declared = [{"kind": "control", "above_percent": percent} for percent in tripwires]
    assert control_errors_most(Story(spec={"abortOn": declared}).experiment) == pytest.approx(most)


# Early ends

EARLY: list[tuple[LuffError | None, Verdict, str, str, bool]] = [
    (PlanRefused("no_route_to_target", "no route"), Verdict.ERROR, "plan_refused:no_route_to_target", "experiment", False),
    (LockHeld("another run has it"), Verdict.ERROR, "plan_refused:locked", "runner", True),
    (NoGuard("nobody could clean up"), Verdict.ERROR, "plan_refused:no_guard", "runner", True),
    (Conflict("somebody else writes"), Verdict.ERROR, "plan_refused:overtaken", "mesh", True),
    (NotFound("it is gone"), Verdict.ERROR, "target_not_found", "experiment", False),
    (StoreError("the disk is full"), Verdict.ERROR, "store_unreachable", "runner", True),
    (InternalError("KeyError: 'bug'"), Verdict.ERROR, "internal", "runner", False),
    (RestoreNotVerified("it may be there still"), Verdict.ERROR, "restore_not_verified", "runner", False),
    (MeshUnreachable("no answer"), Verdict.ERROR, "mesh_unreachable", "mesh", True),
    (MeshDenied("403"), Verdict.ERROR, "mesh_unreachable", "mesh", True),
    (LabError("it did not start"), Verdict.ERROR, "mesh_unreachable", "mesh", True),
    (InvalidFile([]), Verdict.ERROR, "mesh_unreachable", "mesh", True),
    (RunAborted("operator", "stopped"), Verdict.ABORTED, "operator", "runner", True),
    (RunAborted("lever", "pulled"), Verdict.ABORTED, "lever", "runner", True),
    (RunAborted("tripwire", "tripped"), Verdict.ABORTED, "tripwire", "runner", True),
    (RunAborted("bound", "over"), Verdict.ABORTED, "bound", "runner", True),
    (None, Verdict.INCONCLUSIVE, "not_enough_samples", "experiment", True),
]  # fmt: skip


@pytest.mark.parametrize(("error", "verdict", "reason", "who", "retryable"), EARLY)
def test_an_early_end_says_what_it_means(
    error: LuffError | None, verdict: Verdict, reason: str, who: str, *, retryable: bool
) -> None:
    found = ended_early(error, Situation())
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.next is not None
    assert (found.next.who, found.next.retryable) == (who, retryable)
    assert found.next.do
    assert found.explanation == (error.message if error is not None else "nothing was sent")


def test_every_error_of_the_table_is_met() -> None:
    met = {next(kind for kind, *_ in ERRORS if isinstance(error, kind)) for error, verdict, *_ in EARLY if verdict is Verdict.ERROR and error is not None}  # fmt: skip
    assert met == {kind for kind, *_ in ERRORS}


def test_an_errors_own_next_step_comes_first() -> None:
    for error in (LockHeld("held", next_step="wait for ada"), RunAborted("bound", "over", next_step="raise it")):
        found = ended_early(error, Situation())
        assert found.next is not None
        assert found.next.do == error.next_step


def test_an_early_end_without_an_error_is_of_the_situation() -> None:
    unwell = ended_early(None, Situation(control_unhealthy="12 % of the warm-up failed", route_not_live=True))
    assert (unwell.reason, unwell.explanation) == ("control_unhealthy", "12 % of the warm-up failed")
    unseen = ended_early(None, Situation(route_not_live=True))
    assert (unseen.reason, unseen.next) == ("route_not_live", NEXT["route_not_live"])


@pytest.mark.parametrize("error", [error for error, *_ in EARLY])
def test_what_to_do_about_a_fault_that_may_be_live_comes_before_whatever_ended_the_run(error: LuffError | None) -> None:
    unrestored = RestoreNotVerified("shop/stock may still carry it", next_step="run `luff restore abc -n shop`")
    alone = ended_early(error or unrestored, Situation())
    found = ended_early(error, Situation(), unrestored=unrestored)
    assert (found.verdict, found.reason) == (alone.verdict, alone.reason)
    assert found.explanation.endswith(unrestored.message)
    assert found.explanation.startswith(alone.explanation)
    assert found.next is not None
    assert (found.next.do, found.next.retryable) == ("run `luff restore abc -n shop`", False)


def test_a_check_can_be_judged_for_itself() -> None:
    story = _good()
    check = plan_checks(story.experiment, rate_hz=20.0)[0]
    nothing = result_of(check, Judge((check,)), story.samples, story.evidence, removed_ns=None)
    assert (nothing.rule, nothing.n, nothing.bound, nothing.e_value) == ("no request was judged", 0, None, None)
    assert nothing.explanation == "p99 ≤ 1 s: no request was judged"


def test_attempts_on_another_hop_are_judged_by_what_was_counted_there() -> None:
    story = _good({**ATTEMPTS, "of": "till"}).add(200, attempts=1, fired=1)
    story.evidence.edges["till"] = array("H", [5] * len(story.samples))

    found = _checked(story)

    assert found.verdict is Verdict.FAILED
    assert (found.measured, found.unit) == (5.0, "attempts")


# A second try


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_bad_luck_is_tried_again_once_and_nothing_else_is(reason: str) -> None:
    first = passed().model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": reason})
    again = {"not_enough_samples", "generator_saturated", "control_unhealthy", "dependent_samples"}
    assert worth_another_try(first) is (reason in again)
    assert not worth_another_try(second_try(first, first))


def test_what_ended_and_what_left_something_behind_is_not_tried_again() -> None:
    doubtful = {"verdict": Verdict.INCONCLUSIVE, "reason": "not_enough_samples"}
    assert not worth_another_try(passed())
    assert not worth_another_try(stranded().model_copy(update=doubtful))
    receipt = passed().restore
    assert receipt is not None
    for change in ({"data_plane": "stale"}, {"api": "unverified"}):
        left = passed().model_copy(update={**doubtful, "restore": receipt.model_copy(update=change)})
        assert not worth_another_try(left)
    hurtful = Next(who="runner", retryable=False, do="give luff a quieter machine")
    assert not worth_another_try(passed().model_copy(update={**doubtful, "next": hurtful}))


def test_the_second_try_decides_and_names_the_first() -> None:
    first = passed().model_copy(update={"verdict": Verdict.INCONCLUSIVE, "reason": "generator_saturated"})
    found = valid(second_try(first, passed()))
    assert found.verdict is Verdict.PASSED
    assert found.first_try is not None
    assert (found.first_try.run, found.first_try.reason) == (first.run, "generator_saturated")
    assert f"the second try: run {first.run} was inconclusive, generator_saturated" in found.explanation


def test_how_soon_calls_were_made_again_is_said_where_attempts_are_judged_and_nowhere_else() -> None:
    story = _good(ATTEMPTS, LATENCY)
    twin = "luff.1.0123456789abcdef.1700000000.1700000600.0"
    story.evidence.calls += [
        Call("checkout", "outbound", "inventory", "/", 30, start_s, start_s + 0.1, 503, "FI", twin)
        for start_s in (0.0, 0.3)
    ]

    attempts, latency = story.judged().checks

    assert attempts.explanation.endswith(
        "calls were made again after 200 ms (pauses seen: 1, median 200 ms, least 200 ms)"
    )
    assert "made again" not in latency.explanation
