"""
From samples and evidence to a verdict, by tables of rules: the first that holds decides.

Laws:

1. No pass without proof that the fault fired, that control was untouched, that
   the generator kept time, and that the numbers carry the claim.
2. Samples are read in order of *due* time, up to the oldest undecided one:
   fast answers come back first, and judging by completion passes broken services.
3. Errors and timeouts are violations; they are never dropped. What the
   generator did wrong itself is never the service's fault.
4. A check that samples which violate everything would not fail proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from luff import stats
from luff.errors import LuffError, MeshError, NotFound, PlanRefused, RestoreNotVerified, RunAborted, StoreError
from luff.explain import GiveUp, give_up, sentence_for
from luff.model import (
    AnswerExpectation,
    Arm,
    AttemptsExpectation,
    ControlTripwire,
    ErrorsExpectation,
    Expectation,
    Experiment,
    FallbackExpectation,
    LatencyExpectation,
    NoWorseThanExpectation,
    Phase,
    RecoveryExpectation,
    Verdict,
)
from luff.outcome import CheckResult, Generator, Next
from luff.predicates import answers_of, observer, status_in
from luff.samples import ARMS, PHASES, Evidence, Failure, Flag, Samples
from luff.units import show_duration, show_percent

__all__ = [
    "NEXT",
    "RULES",
    "WARMUP_ERRORS_MOST",
    "Judge",
    "Judgement",
    "PlannedCheck",
    "Situation",
    "control_errors_most",
    "ended_early",
    "judge",
    "observer",
    "plan_checks",
]

BREACH_ALPHA = 0.001
"""The tripwire on control is wrong once in a thousand runs at most."""
DEPENDENT_FROM = 2.0
"""A design effect above this makes every sample size claim twice too good."""
NO_WORSE_FACTOR = 1.5
RECOVERY_WINDOW_NS = 1_000_000_000
RECOVERY_WINDOWS = 3
RECOVERY_ERRORS = 0.02
RECOVERY_FACTOR = 1.5
RECOVERY_SLACK_NS = 20_000_000
WARMUP_ERRORS_MOST = 0.05

Method = Literal["sequential", "fixed", "comparison", "windows"]


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """
    This is an expectation with its method fixed before anything is sent.

    *threshold* is the share of violations that is still fine; *sample_most*
    how many requests it can see at most, of which *tolerated* violations could
    still pass; *bit* its answer's place in `Samples.holds`, or ``None``.
    """

    id: str
    kind: str
    arm: Arm
    expectation: Expectation
    expression: str
    method: Method
    threshold: float
    alpha_pass: float
    alpha_fail: float
    sample_most: int
    tolerated: int
    bit: int | None = None
    file: str | None = None
    line: int | None = None


def plan_checks(experiment: Experiment, *, rate_hz: float, timeout_s: float) -> tuple[PlannedCheck, ...]:
    """Return a planned check for each expectation. *rate_hz* is per arm; *timeout_s* is kept for readers of the plan."""
    spec = experiment.spec
    alpha = 1.0 - spec.confidence_percent / 100
    most = max(1, int(rate_hz * spec.traffic.duration_s))
    answers = answers_of(experiment)
    planned = []
    for expectation in spec.expect:
        threshold, method = _claim(expectation)
        if method == "sequential" and not spec.stop_early:
            method = "fixed"
        bit = (
            answers.index(expectation.answer)
            if isinstance(expectation, AnswerExpectation | FallbackExpectation)
            else None
        )
        binomial = method in ("sequential", "fixed")
        planned.append(
            PlannedCheck(
                id=expectation.id,
                kind=expectation.kind,
                arm=expectation.arm,
                expectation=expectation,
                expression=_expression(expectation),
                method=method,
                threshold=threshold,
                alpha_pass=alpha,
                alpha_fail=stats.ALPHA_FAIL,
                sample_most=most,
                tolerated=max(
                    0,
                    stats.most_violations(
                        most, threshold, alpha=alpha, method="fixed" if method == "fixed" else "sequential"
                    ),
                )
                if binomial
                else 0,
                bit=bit,
                file=experiment.file or None,
                line=experiment.lines.get(expectation.id),
            )
        )
    return tuple(planned)


def _claim(expectation: Expectation) -> tuple[float, Method]:
    """Return the share of violations that is still fine, and the method that suits it."""
    if isinstance(expectation, LatencyExpectation):
        return 1.0 - expectation.quantile, "sequential"
    if isinstance(expectation, ErrorsExpectation):
        return max(1e-4, expectation.at_most_percent / 100), "sequential"
    if isinstance(expectation, AnswerExpectation | FallbackExpectation | AttemptsExpectation):
        return max(1e-4, 1.0 - expectation.at_least_percent / 100), "sequential"
    if isinstance(expectation, NoWorseThanExpectation):
        return expectation.by_percent / 100, "comparison"
    return 0.0, "windows"


def _expression(expectation: Expectation) -> str:
    if isinstance(expectation, LatencyExpectation):
        return f"p{expectation.quantile * 100:g}".replace(".", "") + f" ≤ {show_duration(expectation.limit_s)}"
    if isinstance(expectation, ErrorsExpectation):
        return f"errors ≤ {show_percent(expectation.at_most_percent)}"
    if isinstance(expectation, AttemptsExpectation):
        return f"attempts on {expectation.of} ≤ {expectation.at_most}"
    if isinstance(expectation, AnswerExpectation | FallbackExpectation):
        return f"{expectation.kind} ≥ {show_percent(expectation.at_least_percent)}"
    if isinstance(expectation, NoWorseThanExpectation):
        return f"no worse than {expectation.than} by {show_percent(expectation.by_percent)}"
    return f"recovers within {show_duration(expectation.within_s)}"


@dataclass(slots=True)
class Situation:
    """This is what befell the run, apart from its samples. Times are the samples' nanoseconds."""

    route_not_live: bool = False
    fault_removed: bool = False
    isolation_breach: bool = False
    control_unhealthy: str | None = None
    live_ns: int | None = None
    removed_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """This is what was learnt from a run."""

    verdict: Verdict
    reason: str | None
    explanation: str
    next: Next | None
    checks: tuple[CheckResult, ...] = ()
    rule: str = ""


# --- one request against one check -------------------------------------------------------------------------------


def _violates(check: PlannedCheck, samples: Samples, number: int, attempts: int, baseline_ns: int) -> bool:
    """Return whether request *number* is a violation of *check*. *baseline_ns* is the warm-up p95 of its arm."""
    return _is_violation(
        check,
        latency_ns=samples.done_ns[number] - samples.due_ns[number],
        failed=samples.failure[number] != Failure.NONE,
        status=samples.status[number],
        holds=samples.holds[number],
        attempts=attempts,
        baseline_ns=baseline_ns,
    )


def _is_violation(
    check: PlannedCheck, *, latency_ns: int, failed: bool, status: int, holds: int, attempts: int, baseline_ns: int
) -> bool:
    expectation = check.expectation
    if isinstance(expectation, AttemptsExpectation):
        return attempts > expectation.at_most
    if failed:
        return True
    if isinstance(expectation, LatencyExpectation):
        return latency_ns > expectation.limit_s * 1e9
    if isinstance(expectation, ErrorsExpectation):
        return status_in(status, expectation.status)
    if check.bit is not None:
        return not holds >> check.bit & 1
    return status >= 500 or latency_ns > NO_WORSE_FACTOR * baseline_ns


def _can_fail(check: PlannedCheck) -> bool:
    """Return whether samples that violate everything would be seen as violations: law 4."""
    if check.method == "windows":
        return True
    listed = check.expectation.status[0] if isinstance(check.expectation, ErrorsExpectation) else "500"
    return _is_violation(
        check,
        latency_ns=1 << 62,
        failed=False,
        status=int(listed.lower().replace("xx", "00")),
        holds=0,
        attempts=1 << 30,
        baseline_ns=0,
    )


# --- counting in due order ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """This is one check's count so far: *n* judged requests, and where among them the violations stand (from 1)."""

    n: int = 0
    positions: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Judge:
    """
    This reads samples while traffic runs, in due order, each once.

    `feed` returns whether every check has decided. *breached* turns true when
    the control arm errs more often than declared; it never stops watching.
    """

    checks: tuple[PlannedCheck, ...]
    control_errors_most: float = 0.05
    tallies: dict[str, _Tally] = field(default_factory=dict)
    controls: dict[str, _Tally] = field(default_factory=dict)
    breached: bool = False
    _at: int = 0
    _control_n: int = 0
    _control_errors: int = 0
    _baseline_ns: dict[int, int] = field(default_factory=dict)

    @property
    def recovery_most_s(self) -> float:
        """Return for how long recovery has to be watched, 0 when nobody asked."""
        return max(
            (c.expectation.within_s for c in self.checks if isinstance(c.expectation, RecoveryExpectation)), default=0.0
        )

    def feed(self, samples: Samples, evidence: Evidence) -> bool:
        """Read on as far as everything is known, and return whether every check of this phase has decided."""
        fault_phase = PHASES.index(Phase.FAULT)
        end = len(samples)
        if evidence.per == "request":
            end = min(end, evidence.settled_through)
        number = self._at
        while number < end and samples.decided(number):
            if samples.phase[number] == fault_phase and not Failure(samples.failure[number]).ours:
                self._take(samples, evidence, number)
            number += 1
        self._at = number
        return bool(self.checks) and all(self._decided(check) for check in self.checks)

    def _take(self, samples: Samples, evidence: Evidence, number: int) -> None:
        arm = ARMS[samples.arm[number]]
        attempts = evidence.attempts[number] if number < len(evidence.attempts) else 0
        if arm is Arm.CONTROL:
            self._watch_control(samples, number)
        exposed = arm is Arm.CONTROL or evidence.per == "aggregate" or attempts > 0
        for check in self.checks:
            if check.method == "windows":
                continue
            compared = isinstance(check.expectation, NoWorseThanExpectation | FallbackExpectation)
            if arm is check.arm and exposed:
                self._count(self.tallies, check, samples, number, attempts)
            elif compared and arm is not check.arm:
                self._count(self.controls, check, samples, number, attempts)

    def _count(
        self, into: dict[str, _Tally], check: PlannedCheck, samples: Samples, number: int, attempts: int
    ) -> None:
        tally = into.setdefault(check.id, _Tally())
        tally.n += 1
        if _violates(check, samples, number, attempts, self._baseline(samples, samples.arm[number])):
            tally.positions.append(tally.n)

    def _baseline(self, samples: Samples, arm: int) -> int:
        if arm not in self._baseline_ns:
            warm = sorted(
                samples.done_ns[n] - samples.due_ns[n]
                for n in samples.rows(arm=ARMS[arm], phase=Phase.WARMUP)
                if samples.decided(n) and samples.failure[n] == Failure.NONE
            )
            self._baseline_ns[arm] = int(stats.quantile(warm, 0.95)) if warm else 0
        return self._baseline_ns[arm]

    def _watch_control(self, samples: Samples, number: int) -> None:
        self._control_n += 1
        if samples.failure[number] != Failure.NONE or samples.status[number] >= 500:
            self._control_errors += 1
            log_e = stats.guard_log_e(self._control_errors, self._control_n, self.control_errors_most)
            self.breached = self.breached or log_e >= -math.log(BREACH_ALPHA)

    def _decided(self, check: PlannedCheck) -> bool:
        if check.method == "windows":
            return True
        tally = self.tallies.get(check.id, _Tally())
        if check.method == "comparison":
            enough = _comparison_size(check)
            return min(tally.n, self.controls.get(check.id, _Tally()).n) >= enough
        if check.method == "fixed":
            return False
        decided = stats.decide_sequentially(
            tally.positions, tally.n, check.threshold, alpha_pass=check.alpha_pass, alpha_fail=check.alpha_fail
        )
        return decided is not None

    def recovered(self, samples: Samples, *, removed_ns: int) -> bool:
        """Return whether every recovery check has what it waits for."""
        return all(
            recovery_time_ns(samples, removed_ns=removed_ns, within_s=c.expectation.within_s) is not None
            for c in self.checks
            if isinstance(c.expectation, RecoveryExpectation)
        )


def _comparison_size(check: PlannedCheck) -> int:
    """Return the requests per arm after which a comparison is made: four times what no violation at all would need."""
    fewest = stats.fewest_requests(max(check.threshold, 1e-3), alpha=check.alpha_pass / 2, method="fixed")
    return min(4 * fewest, check.sample_most)


def recovery_time_ns(samples: Samples, *, removed_ns: int, within_s: float) -> int | None:
    """Return how long after *removed_ns* three windows in a row began to be like control, or ``None``."""
    windows: dict[int, dict[int, list[int | None]]] = {}
    for number in samples.rows(phase=Phase.RECOVERY):
        since_ns = samples.due_ns[number] - removed_ns
        if not samples.decided(number) or since_ns < 0 or samples.failure[number] == Failure.CUT:
            continue
        failed = samples.failure[number] != Failure.NONE or samples.status[number] >= 500
        latency = None if failed else samples.done_ns[number] - samples.due_ns[number]
        windows.setdefault(since_ns // RECOVERY_WINDOW_NS, {}).setdefault(samples.arm[number], []).append(latency)
    good = 0
    for index in range(math.ceil(within_s)):
        good = good + 1 if _like_control(windows.get(index, {})) else 0
        if good == RECOVERY_WINDOWS:
            return (index + 1 - RECOVERY_WINDOWS) * RECOVERY_WINDOW_NS
    return None


def _like_control(window: dict[int, list[int | None]]) -> bool:
    fault, control = window.get(ARMS.index(Arm.FAULT), []), window.get(ARMS.index(Arm.CONTROL), [])
    if not fault or not control:
        return False
    errors = sum(x is None for x in fault) / len(fault) - sum(x is None for x in control) / len(control)
    fast, normal = sorted(x for x in fault if x is not None), sorted(x for x in control if x is not None)
    if errors > RECOVERY_ERRORS or not fast or not normal:
        return False
    return stats.quantile(fast, 0.5) <= RECOVERY_FACTOR * stats.quantile(normal, 0.5) + RECOVERY_SLACK_NS


# --- results -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Counted:
    """This is everything that a check's rules look at."""

    check: PlannedCheck
    tally: _Tally
    other: _Tally
    verdict: Literal["passed", "failed"] | None
    recovery_ns: int | None
    attempts_known: bool


CheckRule = tuple[str, Callable[[_Counted], bool], Verdict, str | None]

CHECK_RULES: tuple[CheckRule, ...] = (
    (
        "samples that violate everything would not fail it",
        lambda c: not _can_fail(c.check),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    (
        "the attempts on that edge cannot be counted",
        lambda c: not c.attempts_known,
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "no request was judged",
        lambda c: c.check.method != "windows" and not c.tally.n,
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        "violations come in bursts",
        lambda c: c.verdict is not None and _dependent(c),
        Verdict.INCONCLUSIVE,
        "dependent_samples",
    ),
    ("it was disproved", lambda c: c.verdict == "failed", Verdict.FAILED, None),
    (
        "it holds without the fault too",
        lambda c: c.verdict == "passed" and _holds_anyway(c),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
    ),
    ("it was proved", lambda c: c.verdict == "passed", Verdict.PASSED, None),
    ("the samples carry no claim either way", lambda _: True, Verdict.INCONCLUSIVE, "not_enough_samples"),
)
"""What a check's numbers mean. The first rule that holds decides, and its text is in the result."""


def _dependent(counted: _Counted) -> bool:
    share = len(counted.tally.positions) / counted.tally.n if counted.tally.n else 0.0
    # Far from the threshold nothing hangs on independence.
    near = counted.check.threshold / 4 < share < counted.check.threshold * 4
    return near and stats.design_effect(counted.tally.positions, counted.tally.n) > DEPENDENT_FROM


def _holds_anyway(counted: _Counted) -> bool:
    """Return whether a fallback was served to the control arm as well: then it is no fallback."""
    if counted.check.kind != "fallback":
        return False
    n, held = counted.other.n, counted.other.n - len(counted.other.positions)
    return not n or stats.upper_bound(held, n, alpha=0.05) > 0.5


def _count_verdict(
    check: PlannedCheck, tally: _Tally, other: _Tally, recovery_ns: int | None
) -> Literal["passed", "failed"] | None:
    if check.method == "windows":
        return "passed" if recovery_ns is not None else "failed"
    k, n = len(tally.positions), tally.n
    if check.method == "comparison":
        return _compared(check, tally, other)
    if check.method == "fixed":
        if n and stats.upper_bound(k, n, alpha=check.alpha_pass) <= check.threshold:
            return "passed"
        failed = n >= stats.FAIL_FLOOR and stats.lower_bound(k, n, alpha=check.alpha_fail) > check.threshold
        return "failed" if failed else None
    decided = stats.decide_sequentially(
        tally.positions, n, check.threshold, alpha_pass=check.alpha_pass, alpha_fail=check.alpha_fail
    )
    return None if decided is None else decided[0]


def _compared(check: PlannedCheck, tally: _Tally, other: _Tally) -> Literal["passed", "failed"] | None:
    """Compare two shares by one-sided bounds on each, at half the error: valid for any pair of rates."""
    if not tally.n or not other.n:
        return None
    k, m = len(tally.positions), len(other.positions)
    worst = stats.upper_bound(k, tally.n, alpha=check.alpha_pass / 2) - stats.lower_bound(
        m, other.n, alpha=check.alpha_pass / 2
    )
    if worst <= check.threshold:
        return "passed"
    best = stats.lower_bound(k, tally.n, alpha=check.alpha_fail / 2) - stats.upper_bound(
        m, other.n, alpha=check.alpha_fail / 2
    )
    return "failed" if best > check.threshold else None


def _result(
    check: PlannedCheck, judge_: Judge, samples: Samples, evidence: Evidence, situation: Situation
) -> CheckResult:
    tally = judge_.tallies.get(check.id, _Tally())
    other = judge_.controls.get(check.id, _Tally())
    recovery_ns = None
    if isinstance(check.expectation, RecoveryExpectation) and situation.removed_ns is not None:
        recovery_ns = recovery_time_ns(samples, removed_ns=situation.removed_ns, within_s=check.expectation.within_s)
    decided = _count_verdict(check, tally, other, recovery_ns)
    known = not isinstance(check.expectation, AttemptsExpectation) or evidence.per == "request"
    counted = _Counted(check, tally, other, decided, recovery_ns, known)
    rule, verdict, reason = next((text, v, r) for text, holds, v, r in CHECK_RULES if holds(counted))
    k, n = len(tally.positions), tally.n
    failed = verdict is Verdict.FAILED
    alpha = check.alpha_fail if failed else check.alpha_pass
    binomial = check.method in ("sequential", "fixed") and n > 0
    bound = (stats.lower_bound if failed else stats.upper_bound)(k, n, alpha=alpha) if binomial else None
    log_e = (
        (stats.log_e_fail if failed else stats.log_e_pass)(k, n, check.threshold)
        if binomial and check.method == "sequential"
        else None
    )
    measured, unit = _measured(check, samples, evidence, tally, recovery_ns)
    return CheckResult(
        id=check.id,
        kind=check.kind,
        arm=str(check.arm),
        expression=check.expression,
        verdict=verdict,
        reason=reason,
        method=check.method,
        n=n,
        violations=k,
        threshold=None if check.method == "windows" else round(check.threshold, 6),
        bound=None if bound is None else round(bound, 6),
        e_value=None if log_e is None else float(f"{math.exp(min(log_e, 300.0)):.4g}"),
        alpha=round(alpha, 6),
        mde=_rounded(stats.smallest_visible_excess(check.threshold, n, alpha=alpha)) if binomial else None,
        measured=measured,
        unit=unit,
        rule=rule,
        file=check.file,
        line=check.line,
        explanation=sentence_for(check, verdict, reason, n=n, violations=k, measured=measured, unit=unit),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _measured(
    check: PlannedCheck, samples: Samples, evidence: Evidence, tally: _Tally, recovery_ns: int | None
) -> tuple[float | None, str | None]:
    if check.method == "windows":
        return (None, None) if recovery_ns is None else (recovery_ns / 1e9, "s")
    if not tally.n:
        return None, None
    if isinstance(check.expectation, LatencyExpectation):
        latencies = sorted(_latencies_ms(samples, evidence, check.arm))
        return (round(stats.quantile(latencies, check.expectation.quantile), 3), "ms") if latencies else (None, None)
    if isinstance(check.expectation, AttemptsExpectation):
        counts = sorted(float(a) for a in evidence.attempts if a)
        return (counts[-1], "attempts") if counts else (None, None)
    share = 100 * len(tally.positions) / tally.n
    good = isinstance(check.expectation, AnswerExpectation | FallbackExpectation)
    return round(100 - share if good else share, 3), "%"


def _latencies_ms(samples: Samples, evidence: Evidence, arm: Arm) -> list[float]:
    """Return the latencies of judged requests. One without an answer took at least until it was given up."""
    return [
        (samples.done_ns[n] - samples.due_ns[n]) / 1e6
        for n in samples.rows(arm=arm, phase=Phase.FAULT)
        if samples.decided(n)
        and not Failure(samples.failure[n]).ours
        and (arm is Arm.CONTROL or evidence.per == "aggregate" or (n < len(evidence.attempts) and evidence.attempts[n]))
    ]


# --- the run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Facts:
    """This is everything that the run's rules look at."""

    experiment: Experiment
    situation: Situation
    evidence: Evidence
    generator: Generator | None
    sent: int
    exposed: int
    fired: int
    checks: tuple[CheckResult, ...]

    @property
    def exposure(self) -> float:
        return self.exposed / self.sent if self.sent else 0.0


RunRule = tuple[str, Callable[[_Facts], bool], Verdict, str | None]


def _first_reason(facts: _Facts) -> str | None:
    return next((c.reason for c in facts.checks if c.verdict is Verdict.INCONCLUSIVE), None)


def _off_dose(facts: _Facts) -> bool:
    fault = facts.experiment.spec.fault
    doses = [part.percent for part in (fault.delay, fault.abort) if part is not None]
    if len(doses) != 1 or doses[0] >= 100 or facts.evidence.per != "request" or not facts.exposed:
        return False
    return not stats.within_dose(facts.fired, facts.exposed, doses[0])


RULES: tuple[RunRule, ...] = (
    (
        "the twins never reached the proxies",
        lambda f: f.situation.route_not_live,
        Verdict.INCONCLUSIVE,
        "route_not_live",
    ),
    (
        "control was not healthy before the fault",
        lambda f: f.situation.control_unhealthy is not None,
        Verdict.INCONCLUSIVE,
        "control_unhealthy",
    ),
    ("requests that should not took the twin", lambda f: f.evidence.breaches > 0, Verdict.FAILED, "isolation_breach"),
    ("bystanders were hurt", lambda f: f.situation.isolation_breach, Verdict.FAILED, "isolation_breach"),
    ("somebody else took the twins out", lambda f: f.situation.fault_removed, Verdict.INCONCLUSIVE, "fault_removed"),
    ("no request was sent", lambda f: not f.sent, Verdict.INCONCLUSIVE, "not_enough_samples"),
    (
        "the generator ran late",
        lambda f: f.generator is None or not f.generator.healthy,
        Verdict.INCONCLUSIVE,
        "generator_saturated",
    ),
    (
        "too few requests took the twin",
        lambda f: f.exposure < f.experiment.spec.evidence.at_least_percent / 100,
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    ("the fault fired for another share than asked", _off_dose, Verdict.INCONCLUSIVE, "dose_too_low"),
    ("an expectation failed", lambda f: any(c.verdict is Verdict.FAILED for c in f.checks), Verdict.FAILED, None),
    (
        "an expectation could not be decided",
        lambda f: _first_reason(f) is not None,
        Verdict.INCONCLUSIVE,
        "of the check",
    ),
    ("there was nothing to expect", lambda f: not f.checks, Verdict.INCONCLUSIVE, "not_enough_samples"),
    ("every expectation held", lambda _: True, Verdict.PASSED, None),
)
"""What a run's facts mean. The first rule that holds decides."""

NEXT: dict[str | None, Next] = {
    "isolation_breach": Next(
        who="caller",
        retryable=False,
        do="find what the arms share in the caller (pool, breaker, cache) and part it; see the control arm",
    ),
    "not_enough_samples": Next(
        who="experiment",
        retryable=True,
        do="raise traffic.duration or traffic.rate, or ask for less; `luff plan` prints what each check tolerates",
    ),
    "fault_not_observed": Next(
        who="caller",
        retryable=False,
        do="make the workload named above forward one carrier: traceparent, baggage or the scope header",
    ),
    "route_not_live": Next(
        who="mesh",
        retryable=True,
        do="see that istiod pushes: `istioctl proxy-status`; check exportTo and a second VirtualService for the host",
    ),
    "fault_removed": Next(
        who="mesh", retryable=True, do="pause what rewrites the VirtualService (GitOps self-heal, Flagger) for the run"
    ),
    "control_unhealthy": Next(who="caller", retryable=True, do="make the service healthy without a fault first"),
    "generator_saturated": Next(who="runner", retryable=True, do="lower traffic.rate, or give luff a quieter machine"),
    "dependent_samples": Next(
        who="experiment",
        retryable=True,
        do="raise traffic.duration: violations come in bursts, so more of them have to be seen",
    ),
    "dose_too_low": Next(
        who="mesh", retryable=False, do="look for another fault or route that takes some of the requests"
    ),
    "not_discriminating": Next(
        who="experiment", retryable=False, do="choose an expectation that only a fallback can meet"
    ),
    None: Next(
        who="caller",
        retryable=False,
        do="fix the caller's timeout or fallback; the explanation names what was measured",
    ),
}
"""Who can act, whether trying again may help, and what to do, by reason."""


def judge(
    checks: Sequence[PlannedCheck],
    samples: Samples,
    evidence: Evidence,
    *,
    experiment: Experiment,
    situation: Situation,
    generator: Generator | None,
) -> Judgement:
    """Judge a finished run from the beginning, with all the evidence that there is. The routes are back already."""
    final = Judge(tuple(checks), control_errors_most=control_errors_most(experiment))
    settled = evidence.settled_through
    evidence.settled_through = len(samples)
    final.feed(samples, evidence)
    evidence.settled_through = settled
    results = _after_holm(tuple(_result(check, final, samples, evidence, situation) for check in checks))
    sent, exposed, fired = _exposed(samples, evidence)
    facts = _Facts(experiment, situation, evidence, generator, sent, exposed, fired, results)
    rule, verdict, reason = next((text, v, r) for text, holds, v, r in RULES if holds(facts))
    if reason == "of the check":
        reason = _first_reason(facts)
    seen = give_up(evidence.calls)
    next_ = None if verdict is Verdict.PASSED else NEXT.get(reason, NEXT[None])
    return Judgement(verdict, reason, _explain(facts, verdict, reason, rule, seen), next_, results, rule)


def control_errors_most(experiment: Experiment) -> float:
    """Return the share of errors on the control arm that the experiment declares as normal."""
    shares = [t.above_percent / 100 for t in experiment.spec.abort_on if isinstance(t, ControlTripwire)]
    return max(1e-3, min(shares, default=0.05))


def _after_holm(results: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    """Let a failure stand only if it stands among all the checks that were looked at (Holm). Passing needs no correction."""
    p_values = [
        1.0 / max(r.e_value, 1.0)
        if r.verdict is Verdict.FAILED and r.e_value
        else (0.0 if r.verdict is Verdict.FAILED else 1.0)
        for r in results
    ]
    standing = stats.holm(p_values, alpha=max(stats.ALPHA_FAIL, stats.ALPHA_FAIL * len(results)))
    return tuple(
        r
        if r.verdict is not Verdict.FAILED or stands
        else r.model_copy(
            update={
                "verdict": Verdict.INCONCLUSIVE,
                "reason": "not_enough_samples",
                "rule": "among this many checks it may be chance",
            }
        )
        for r, stands in zip(results, standing, strict=True)
    )


def _exposed(samples: Samples, evidence: Evidence) -> tuple[int, int, int]:
    """Return how many requests of the fault arm were sent, took the twin, and were hit by the fault."""
    sent = exposed = fired = 0
    for number in samples.rows(arm=Arm.FAULT, phase=Phase.FAULT):
        if (
            samples.failure[number] == Failure.CUT
            or not samples.decided(number)
            or Failure(samples.failure[number]).ours
        ):
            continue
        sent += 1
        if number < len(evidence.attempts) and evidence.attempts[number]:
            exposed += 1
            fired += bool(evidence.fired[number] & (Flag.DELAY_INJECTED | Flag.FAULT_INJECTED))
    if evidence.per == "aggregate":
        exposed, fired = min(sent, evidence.attempts_total), evidence.fired_total
    return sent, exposed, fired


def _explain(facts: _Facts, verdict: Verdict, reason: str | None, rule: str, seen: GiveUp | None) -> str:
    if reason == "fault_not_observed" and facts.exposure < facts.experiment.spec.evidence.at_least_percent / 100:
        lost = facts.evidence.lost_at.most_common(1)
        where = f": every carrier of the scope was lost at {lost[0][0]}" if lost else ""
        return f"{facts.exposed} of {facts.sent} requests reached the fault{where}"
    if verdict is Verdict.FAILED and reason is None:
        said = [c.explanation for c in facts.checks if c.verdict is Verdict.FAILED]
        return "; ".join([*said[:2], *([seen.sentence()] if seen else [])])
    if verdict is Verdict.INCONCLUSIVE and any(c.reason == reason for c in facts.checks):
        return next(c.explanation for c in facts.checks if c.reason == reason)
    if verdict is Verdict.PASSED:
        count = len(facts.checks)
        held = "its one expectation" if count == 1 else f"all {count} expectations"
        return f"with the fault live for {facts.exposed} of {facts.sent} requests, {held} held"
    return rule


def ended_early(error: LuffError | None, situation: Situation) -> Judgement:
    """Return the judgement of a run that ended before there was anything to judge."""
    if error is None:
        rule, reason = _early(situation)
        return Judgement(Verdict.INCONCLUSIVE, reason, rule, NEXT[reason])
    do = error.next_step or "see the message"
    if isinstance(error, RunAborted):
        next_ = Next(who="runner", retryable=True, do=error.next_step or _AFTER_ABORT[error.reason])
        return Judgement(Verdict.ABORTED, error.reason, error.message, next_)
    if isinstance(error, MeshError):
        next_ = Next(who="mesh", retryable=True, do=do)
    else:
        next_ = Next(who="experiment", retryable=False, do=do)
    return Judgement(Verdict.ERROR, _error_reason(error), error.message, next_)


_AFTER_ABORT = {
    "operator": "run it again when it suits; the routes are back",
    "lever": "see `luff lever status` for who pulled it and why",
    "tripwire": "look at what tripped before running it again",
    "bound": "remove what ran into the bound, then run it again",
}


def _early(situation: Situation) -> tuple[str, str]:
    if situation.control_unhealthy is not None:
        return situation.control_unhealthy, "control_unhealthy"
    if situation.route_not_live:
        return "the twins never reached the proxies", "route_not_live"
    return "nothing was sent", "not_enough_samples"


def _error_reason(error: LuffError) -> str:
    if isinstance(error, PlanRefused):
        return f"plan_refused:{error.rule}"
    if isinstance(error, StoreError):
        return "store_unreachable"
    if isinstance(error, NotFound):
        return "target_not_found"
    return "mesh_unreachable" if isinstance(error, MeshError | RestoreNotVerified) else "plan_refused:guard"
