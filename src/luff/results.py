"""
What one check's numbers mean, by a table of rules: the first that holds decides, and its text is in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from luff import stats
from luff.checks import PlannedCheck, can_fail
from luff.explain import sentence_for
from luff.model import (
    AnswerExpectation,
    AttemptsExpectation,
    FallbackExpectation,
    LatencyExpectation,
    RecoveryExpectation,
)
from luff.outcome import CheckResult
from luff.samples import Evidence, Failure, Samples
from luff.tallies import Judge, Tally, recovery_time_ns
from luff.words import Arm, Phase, Verdict

__all__ = ["CHECK_RULES", "result_of"]

DEPENDENT_FROM = 2.0
"""A design effect above this makes every sample size claim twice too good."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """This is everything that a check's rules look at."""

    check: PlannedCheck
    tally: Tally
    other: Tally
    verdict: Literal["passed", "failed"] | None
    recovery_ns: int | None
    attempts_known: bool


CheckRule = tuple[str, Callable[[_Counted], bool], Verdict, str | None]

CHECK_RULES: tuple[CheckRule, ...] = (
    (
        "samples that violate everything would not fail it",
        lambda c: not can_fail(c.check),
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
    check: PlannedCheck, tally: Tally, other: Tally, recovery_ns: int | None
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


def _compared(check: PlannedCheck, tally: Tally, other: Tally) -> Literal["passed", "failed"] | None:
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


def result_of(
    check: PlannedCheck, judge: Judge, samples: Samples, evidence: Evidence, *, removed_ns: int | None
) -> CheckResult:
    tally = judge.tallies.get(check.id, Tally())
    other = judge.controls.get(check.id, Tally())
    recovery_ns = None
    if isinstance(check.expectation, RecoveryExpectation) and removed_ns is not None:
        recovery_ns = recovery_time_ns(samples, removed_ns=removed_ns, within_s=check.expectation.within_s)
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
    check: PlannedCheck, samples: Samples, evidence: Evidence, tally: Tally, recovery_ns: int | None
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
