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
    NoWorseThanExpectation,
    RecoveryExpectation,
)
from luff.outcome import CheckResult
from luff.samples import Evidence, Failure, Samples
from luff.tallies import Judge, Tally, recovery_time_ns, recovery_watched, sequential_verdict
from luff.words import Arm, Phase, Verdict

__all__ = ["CHECK_RULES", "p_value", "result_of"]

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
    baseline_known: bool


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
        "there was no warm-up to compare with",
        lambda c: not c.baseline_known,
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
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
    check: PlannedCheck, tally: Tally, other: Tally, recovery_ns: int | None, *, watched: bool
) -> Literal["passed", "failed"] | None:
    if check.threshold >= 1.0:
        return None
    if check.method == "windows":
        return "passed" if recovery_ns is not None else "failed" if watched else None
    k, n = len(tally.positions), tally.n
    if check.method == "comparison":
        return _compared(check, tally, other)
    if check.method == "fixed":
        if n and stats.upper_bound(k, n, alpha=check.alpha_pass) <= check.threshold:
            return "passed"
        failed = n >= stats.FAIL_FLOOR and stats.lower_bound(k, n, alpha=check.alpha_fail) > check.threshold
        return "failed" if failed else None
    return sequential_verdict(check, tally, alpha_fail=check.alpha_fail)


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
    return "failed" if _shown_worse(check, tally, other, check.alpha_fail) else None


def _shown_worse(check: PlannedCheck, tally: Tally, other: Tally, alpha: float) -> bool:
    least = stats.lower_bound(len(tally.positions), tally.n, alpha=alpha / 2)
    return least - stats.upper_bound(len(other.positions), other.n, alpha=alpha / 2) > check.threshold


_ALPHA_LEAST = 1e-9


def p_value(check: PlannedCheck, judge: Judge) -> float:
    """Return how likely a service that keeps *check* would look at least as bad: what Holm's procedure orders."""
    tally = judge.tallies.get(check.id, Tally())
    if check.method == "windows":
        # No sample stands for anything here: either it was back in time or it was not.
        return 0.0
    k, n = len(tally.positions), tally.n
    if not k:
        return 1.0
    if check.method == "sequential":
        return math.exp(-max(0.0, stats.most_log_e_fail(tally.positions, n, check.threshold)))
    if check.method == "fixed":
        return math.exp(stats.log_incomplete_beta(check.threshold, k, n - k + 1))
    other = judge.controls.get(check.id, Tally())
    low, high = math.log(_ALPHA_LEAST), 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if _shown_worse(check, tally, other, math.exp(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def result_of(
    check: PlannedCheck, judge: Judge, samples: Samples, evidence: Evidence, *, removed_ns: int | None
) -> CheckResult:
    tally = judge.tallies.get(check.id, Tally())
    other = judge.controls.get(check.id, Tally())
    recovery_ns, watched = None, False
    if isinstance(check.expectation, RecoveryExpectation) and removed_ns is not None:
        within_s = check.expectation.within_s
        recovery_ns = recovery_time_ns(samples, removed_ns=removed_ns, within_s=within_s)
        watched = recovery_watched(samples, removed_ns=removed_ns, within_s=within_s)
    decided = _count_verdict(check, tally, other, recovery_ns, watched=watched)
    # Only what takes the twin is counted by attempts, and control does not.
    countable = evidence.per == "request" and check.arm is Arm.FAULT
    known = countable or not isinstance(check.expectation, AttemptsExpectation)
    warm = not isinstance(check.expectation, NoWorseThanExpectation) or _has_baseline(check.expectation, samples)
    counted = _Counted(check, tally, other, decided, recovery_ns, known, warm)
    rule, verdict, reason = next((text, v, r) for text, holds, v, r in CHECK_RULES if holds(counted))
    k, n = len(tally.positions), tally.n
    failed = verdict is Verdict.FAILED
    alpha = check.alpha_fail if failed else check.alpha_pass
    binomial = check.method in ("sequential", "fixed") and n > 0 and check.threshold < 1.0
    bound = (stats.lower_bound if failed else stats.upper_bound)(k, n, alpha=alpha) if binomial else None
    log_e = _log_e(check, tally, failed=failed) if binomial and check.method == "sequential" else None
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


def _log_e(check: PlannedCheck, tally: Tally, *, failed: bool) -> float:
    """Return ln of the evidence that decided, which later requests may have weakened but not undone."""
    if failed:
        return stats.most_log_e_fail(tally.positions, tally.n, check.threshold)
    decided = stats.decide_sequentially(
        tally.positions, tally.n, check.threshold, alpha_pass=check.alpha_pass, alpha_fail=check.alpha_fail
    )
    at_end = stats.log_e_pass(len(tally.positions), tally.n, check.threshold)
    if decided is None or decided[0] == "failed":
        return at_end
    return max(at_end, stats.log_e_pass(decided[2], decided[1], check.threshold))


def _has_baseline(expectation: NoWorseThanExpectation, samples: Samples) -> bool:
    return all(
        any(samples.failure[n] == Failure.NONE for n in samples.rows(arm=arm, phase=Phase.WARMUP) if samples.decided(n))
        for arm in {expectation.arm, expectation.than}
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
        found = stats.quantile(latencies, check.expectation.quantile) if latencies else math.inf
        return (None, None) if math.isinf(found) else (round(found, 3), "ms")
    if isinstance(check.expectation, AttemptsExpectation):
        counts = sorted(float(a) for a in evidence.attempts if a)
        return (counts[-1], "attempts") if counts else (None, None)
    share = 100 * len(tally.positions) / tally.n
    good = isinstance(check.expectation, AnswerExpectation | FallbackExpectation)
    return round(100 - share if good else share, 3), "%"


def _latencies_ms(samples: Samples, evidence: Evidence, arm: Arm) -> list[float]:
    """
    Return the latencies of judged requests.

    One given up at its deadline took at least that long; one that was refused
    or broken off, however soon, has no time in which it was answered.
    """
    timed = (Failure.NONE, Failure.DEADLINE)
    return [
        (samples.done_ns[n] - samples.due_ns[n]) / 1e6 if samples.failure[n] in timed else math.inf
        for n in samples.rows(arm=arm, phase=Phase.FAULT)
        if samples.judged(n)
        and (arm is Arm.CONTROL or evidence.per == "aggregate" or (n < len(evidence.attempts) and evidence.attempts[n]))
    ]
