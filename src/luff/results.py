"""
What one check's numbers mean, by a table of rules: the first that holds decides, and its text is in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from luff import stats
from luff.checks import PlannedCheck, speaks_unexposed, violations
from luff.explain import pauses_on, sentence_for
from luff.model import (
    AnswerExpectation,
    AttemptsExpectation,
    ErrorsExpectation,
    FallbackExpectation,
    LatencyExpectation,
    NoWorseThanExpectation,
    RecoveryExpectation,
)
from luff.outcome import CheckResult
from luff.recovery import WINDOW_NS, Recovery, recovery_of
from luff.samples import ARMS, Evidence, Failure, Samples
from luff.tallies import Judge, Tally, attempts_on, passes_among, sequential_verdict
from luff.words import Arm, Phase, Verdict

__all__ = [
    "CHECK_RULES",
    "RECOVERY_BY_CHANCE",
    "WARMUP_TOO_SHORT",
    "can_fail",
    "p_value",
    "recovery_for",
    "result_of",
]

DEPENDENT_FROM = 2.0
"""A design effect above this makes every sample size claim twice too good."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """This is everything that a check's rules look at."""

    check: PlannedCheck
    tally: Tally
    other: Tally
    verdict: Literal["passed", "failed"] | None
    attempts_known: bool
    baseline_known: bool
    recovery: Recovery | None = None
    met: int | None = None
    """How many requests are known to have met the fault, where those are fewer than were judged and nobody knows which."""


CheckRule = tuple[str, Callable[[_Counted], bool], Verdict, str | None]

WARMUP_TOO_SHORT = "the warm-up was too short to know what is usual"
DILUTED = "it could not be judged among those that met the fault"
TOO_FEW_MET = "too few are known to have met the fault"
RECOVERY_BY_CHANCE = "it was not seen to recover, and that may be chance"

CHECK_RULES: tuple[CheckRule, ...] = (
    (
        "the attempts on that edge cannot be counted",
        lambda c: not c.attempts_known,
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        "samples that violate everything would not fail it",
        lambda c: not can_fail(c.check),
        Verdict.INCONCLUSIVE,
        "not_discriminating",
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
        lambda c: _lessened(c) if c.verdict is None else _dependent(c),
        Verdict.INCONCLUSIVE,
        "dependent_samples",
    ),
    ("it was disproved", lambda c: c.verdict == "failed", Verdict.FAILED, None),
    (
        WARMUP_TOO_SHORT,
        lambda c: c.verdict is None and _doubted(c),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        RECOVERY_BY_CHANCE,
        lambda c: c.verdict is None and c.recovery is not None and c.recovery.watched,
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
    (
        DILUTED,
        lambda c: c.met is not None and _diluted(c) and len(c.tally.positions) > c.check.threshold * c.met,
        Verdict.INCONCLUSIVE,
        "fault_not_observed",
    ),
    (
        TOO_FEW_MET,
        lambda c: _diluted(c),
        Verdict.INCONCLUSIVE,
        "not_enough_samples",
    ),
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
    """Return whether violations come in bursts, and its verdict would be another of as much fewer requests."""
    check, tally = counted.check, counted.tally
    share = len(tally.positions) / tally.n if tally.n else 0.0
    # Far from the threshold nothing hangs on independence.
    near = check.threshold / 4 < share < check.threshold * 4
    fewer = stats.design_effect(tally.positions, tally.n) if near else 1.0
    return fewer > DEPENDENT_FROM and not (counted.verdict == "failed" and _stands(counted, fewer))


def _stands(counted: _Counted, fewer: float) -> bool:
    """Return whether it is disproved of *fewer* times fewer requests as well, as of a service that breaks after a while."""
    check = counted.check
    if check.method == "comparison":
        return _excess_least(counted.tally, counted.other, check.alpha_fail, fewer) > check.threshold
    return _least(counted.tally, check.alpha_fail, fewer) > _borne(check, counted.tally)


def _lessened(counted: _Counted) -> bool:
    """Return whether as many violations would have passed it, had they not come in bursts."""
    check, k, n = counted.check, len(counted.tally.positions), counted.tally.n
    if check.method not in ("sequential", "fixed") or stats.burst_effect(counted.tally.positions, n) <= 1:
        return False
    if check.method == "fixed":
        return stats.upper_bound(k, n, alpha=check.alpha_pass) <= check.threshold
    return counted.tally.log_e_pass >= -math.log(check.alpha_pass) and k <= check.threshold * n


def _diluted(counted: _Counted) -> bool:
    """Return whether it passed, but would not if all the violations were of those that are known to have met the fault."""
    check, met = counted.check, counted.met
    if counted.verdict != "passed" or met is None or check.arm is not Arm.FAULT or check.method == "windows":
        return False
    return not passes_among(check, counted.tally, met, other=counted.other)


def _holds_anyway(counted: _Counted) -> bool:
    """Return whether a fallback was served to the control arm as well: then it is no fallback."""
    if counted.check.kind != "fallback":
        return False
    n, held = counted.other.n, counted.other.n - len(counted.other.positions)
    return not n or stats.upper_bound(held, n, alpha=0.05) > 0.5


def _count_verdict(check: PlannedCheck, judge: Judge, recovery: Recovery | None) -> Literal["passed", "failed"] | None:
    if check.threshold >= 1.0:
        return None
    if check.method == "windows":
        if recovery is None:
            return None
        return "passed" if recovery.time_ns is not None else "failed" if recovery.disproved(check.alpha_fail) else None
    tally = judge.tallies.get(check.id, Tally())
    k, n = len(tally.positions), tally.n
    if check.method == "comparison":
        return _compared(check, judge.pairs(check))
    if check.method == "fixed":
        # Of violations in bursts, as of fewer requests, each says less.
        fewer = stats.burst_effect(tally.positions, n)
        if (
            n
            and stats.upper_bound(math.ceil(k / fewer), math.floor(n / fewer), alpha=check.alpha_pass)
            <= check.threshold
        ):
            return "passed"
        return "failed" if _least(tally, check.alpha_fail) > _borne(check, tally) else None
    return sequential_verdict(check, tally, alpha_fail=check.alpha_fail)


def _borne(check: PlannedCheck, tally: Tally) -> float:
    """Return the share of violations beyond which *check* is failed."""
    return max(check.threshold, tally.doubt)


def _doubted(counted: _Counted) -> bool:
    """Return whether it would have been failed, were it known for certain what is usual."""
    check, tally = counted.check, counted.tally
    if check.method == "comparison":
        return _excess_least(tally, counted.other, check.alpha_fail) > check.threshold
    return tally.doubt > check.threshold and _least(tally, check.alpha_fail) > check.threshold


def _least(tally: Tally, alpha: float, fewer: float = 1.0) -> float:
    """
    Return the lower bound on the rate, of those that took the twin or of everybody, whichever says more; 0 below the floor.

    It is that of *fewer* times fewer requests and violations.
    """
    among = [(math.floor(k / fewer), math.ceil(n / fewer)) for k, n in tally.populations()]
    return max(stats.lower_bound(k, n, alpha=alpha / len(among)) if n >= stats.FAIL_FLOOR else 0.0 for k, n in among)


def _compared(check: PlannedCheck, pairs: Sequence[tuple[Tally, Tally]]) -> Literal["passed", "failed"] | None:
    """Compare two shares by one-sided bounds on each, at half the error: valid for any pair of rates."""
    tally, other = pairs[0]
    if not tally.n or not other.n:
        return None
    if _excess_most(tally, other, check.alpha_pass) <= check.threshold:
        return "passed"
    tally, other = _deciding(check, pairs)
    return "failed" if _excess_least(tally, other, check.alpha_fail) > check.threshold else None


def _deciding(check: PlannedCheck, pairs: Sequence[tuple[Tally, Tally]]) -> tuple[Tally, Tally]:
    """Return those of *pairs* that speak least against a comparison."""
    return min(pairs, key=lambda pair: _excess_least(pair[0], pair[1], check.alpha_fail))


def _excess_most(tally: Tally, other: Tally, alpha: float) -> float:
    most = stats.upper_bound(len(tally.positions), tally.n, alpha=alpha / 2)
    return most - stats.lower_bound(len(other.positions), other.n, alpha=alpha / 2)


def _excess_least(tally: Tally, other: Tally, alpha: float, fewer: float = 1.0) -> float:
    return _least(tally, alpha / 2, fewer) - stats.upper_bound(len(other.positions), other.n, alpha=alpha / 2)


_ALPHA_LEAST = 1e-9


def p_value(check: PlannedCheck, judge: Judge, recovery: Recovery | None = None) -> float:
    """Return how likely a service that keeps *check* would look at least as bad: what Holm's procedure orders."""
    tally = judge.tallies.get(check.id, Tally())
    if check.method == "windows":
        return 1.0 if recovery is None else _least_alpha(recovery.disproved)
    if not tally.positions:
        return 1.0
    if check.method == "sequential":
        return math.exp(-tally.log_e_fail)
    if check.method == "fixed":
        among = tally.populations()
        logs = [stats.log_incomplete_beta(_borne(check, tally), k, n - k + 1) for k, n in among if k]
        return min(1.0, len(among) * math.exp(min(logs, default=0.0)))
    tally, other = _deciding(check, judge.pairs(check))
    return _least_alpha(lambda alpha: _excess_least(tally, other, alpha) > check.threshold)


def _least_alpha(fails: Callable[[float], bool]) -> float:
    """Return at how small an alpha it still *fails*; 1 when it does at none."""
    low, high = math.log(_ALPHA_LEAST), 0.0
    for _ in range(30):
        middle = (low + high) / 2
        if fails(math.exp(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def recovery_for(check: PlannedCheck, samples: Samples, *, removed_ns: int | None) -> Recovery | None:
    """Return what was seen of recovery, where *check* is about that and the fault was gone at *removed_ns*."""
    if not isinstance(check.expectation, RecoveryExpectation) or removed_ns is None:
        return None
    return recovery_of(samples, removed_ns=removed_ns, within_s=check.expectation.within_s)


def result_of(
    check: PlannedCheck,
    judge: Judge,
    samples: Samples,
    evidence: Evidence,
    *,
    removed_ns: int | None,
    met: int | None = None,
) -> CheckResult:
    """
    Return *check* as its numbers decide it. *removed_ns* is when the fault was gone, ``None`` when it never was there.

    *met* is how many requests of the fault arm are known to have met the fault,
    where those are fewer than were sent and nobody knows which.
    """
    tally = judge.tallies.get(check.id, Tally())
    other = judge.controls.get(check.id, Tally())
    recovery = recovery_for(check, samples, removed_ns=removed_ns)
    decided = _count_verdict(check, judge, recovery)
    # Only what takes the twin is counted by attempts, and control does not.
    countable = evidence.per == "request" and check.arm is Arm.FAULT
    known = countable or not isinstance(check.expectation, AttemptsExpectation)
    warm = not isinstance(check.expectation, NoWorseThanExpectation) or _has_baseline(check.expectation, samples)
    rule, verdict, reason = next(
        (text, v, r)
        for text, holds, v, r in CHECK_RULES
        if holds(_Counted(check, tally, other, decided, known, warm, recovery, met))
    )
    failed = verdict is Verdict.FAILED
    if failed and check.method == "comparison":
        tally, other = _deciding(check, judge.pairs(check))
    k, n = _shown(check, tally, recovery, failed=failed)
    alpha = check.alpha_fail if failed else check.alpha_pass
    claims = n > 0 and check.threshold < 1.0 and check.method != "windows"
    log_e = _log_e(tally, verdict) if claims and check.method == "sequential" else None
    measured, unit = _measured(check, samples, evidence, (k, n), recovery)
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
        threshold=None if check.method == "windows" else round(_borne(check, tally) if failed else check.threshold, 6),
        bound=_rounded(_bound(check, tally, other, alpha, failed=failed)) if claims else None,
        e_value=None if log_e is None else float(f"{math.exp(min(log_e, 300.0)):.4g}"),
        alpha=round(alpha, 6),
        mde=_rounded(_visible(check, tally, other, alpha)) if claims else None,
        measured=measured,
        unit=unit,
        rule=rule,
        file=check.file,
        line=check.line,
        explanation=_said(rule, check, n=n, violations=k, met=met)
        or sentence_for(check, verdict, reason, n=n, violations=k, measured=measured, unit=unit)
        + _paused(check, evidence)
        + (f"; {rule}" if rule == WARMUP_TOO_SHORT else ""),
    )


def _said(rule: str, check: PlannedCheck, *, n: int, violations: int, met: int | None) -> str | None:
    """Return the whole of what there is to say where what was measured does not say it."""
    if rule == RECOVERY_BY_CHANCE:
        return f"{check.expression}: {rule}"
    if rule in (DILUTED, TOO_FEW_MET):
        return (
            f"{check.expression}: {violations} of {n} requests were against it, and only {met} are known to have met the fault; "
            + (rule if rule == DILUTED else "that is not enough to say either way")
        )
    return None


def _paused(check: PlannedCheck, evidence: Evidence) -> str:
    """Return how soon calls were made again, where attempts are judged and the times of calls are known."""
    if not isinstance(check.expectation, AttemptsExpectation):
        return ""
    host = check.expectation.of
    seen = pauses_on(evidence.calls, host if host in evidence.edges else None)
    return "" if seen is None else f"; {seen.sentence()}"


def _shown(check: PlannedCheck, tally: Tally, recovery: Recovery | None, *, failed: bool) -> tuple[int, int]:
    """Return violations and requests as the result shows them: those among whom it was disproved, else those judged."""
    if check.method == "windows":
        known, bad = (0, 0) if recovery is None else recovery.windows
        return bad, known
    if failed:
        return max(tally.populations(), key=lambda each: stats.lower_bound(*each, alpha=check.alpha_fail))
    return len(tally.positions), tally.n


def _bound(check: PlannedCheck, tally: Tally, other: Tally, alpha: float, *, failed: bool) -> float | None:
    """Return the bound that decided, on the rate of violations; of a comparison, on by how much the rate is higher."""
    if check.method == "comparison":
        if not other.n:
            return None
        return (_excess_least if failed else _excess_most)(tally, other, alpha)
    k, n = _shown(check, tally, None, failed=failed)
    return (stats.lower_bound if failed else stats.upper_bound)(k, n, alpha=alpha)


def _visible(check: PlannedCheck, tally: Tally, other: Tally, alpha: float) -> float | None:
    if check.method != "comparison":
        return stats.smallest_visible_excess(check.threshold, tally.n, alpha=alpha)
    usual = len(other.positions) / other.n if other.n else 0.0
    return stats.smallest_visible_difference(max(usual, check.threshold), min(tally.n, other.n), alpha=alpha / 2)


def _log_e(tally: Tally, verdict: Verdict) -> float:
    """Return ln of the evidence that decided, which later requests may have weakened but not undone."""
    assert tally.threshold is not None
    if verdict is Verdict.FAILED:
        most = max(tally.threshold, tally.doubt)
        return max(tally.log_e_fail, stats.log_e_fail(len(tally.positions), tally.n, most))
    at_end = stats.log_e_pass(len(tally.positions), tally.n, tally.threshold)
    return max(at_end, tally.log_e_pass) if verdict is Verdict.PASSED else at_end


def can_fail(check: PlannedCheck) -> bool:
    """
    Return whether a run in which everything violates *check* fails it, by the same counting as any other.

    What holds whatever happens proves nothing when it holds.
    """
    return any(_fails(check, size) for size in _MUTANT_SIZES)


def _fails(check: PlannedCheck, size: int) -> bool:
    samples, evidence = _mutant(check, size)
    counting = Judge((check,))
    counting.feed_all(samples, evidence)
    recovery = recovery_for(check, samples, removed_ns=0)
    return _count_verdict(check, counting, recovery) == "failed"


_MUTANT_SIZES, _PER_WINDOW = (100, 2000), 20
"""What nearly every check fails on, and what is enough for those that allow nearly everything."""
_AT_ONCE_NS, _NEVER_NS = 1_000_000, 1 << 60


def _mutant(check: PlannedCheck, faulted: int) -> tuple[Samples, Evidence]:
    """Return a run of *faulted* requests on each arm that is well in all but what *check* looks at, which is as bad as can be."""
    samples, evidence = Samples(), Evidence("mutant", "request", settled_through=1 << 60)
    expectation = check.expectation
    listed = expectation.status[0] if isinstance(expectation, ErrorsExpectation) else "500"
    status = int(listed.lower().replace("xx", "00"))

    def add(arm: Arm, phase: Phase, count: int, every_ns: int) -> None:
        bad = arm is check.arm and phase is not Phase.WARMUP
        for place in range(count):
            number = samples.open(arm, phase, 0, place * every_ns)
            done_ns = place * every_ns + (_NEVER_NS if bad else _AT_ONCE_NS)
            samples.close(number, done_ns=done_ns, status=status if bad else 200, holds=0 if bad else -1 & 0xFFFFFFFF)
            evidence.attempts.append(0 if arm is Arm.CONTROL else _ATTEMPTS if bad else 1)

    for phase, size in ((Phase.WARMUP, 20), (Phase.FAULT, faulted)):
        for arm in ARMS:
            add(arm, phase, size, 0)
    if isinstance(expectation, RecoveryExpectation):
        for arm in ARMS:
            add(arm, Phase.RECOVERY, _PER_WINDOW * math.ceil(expectation.within_s + 2), WINDOW_NS // _PER_WINDOW)
    return samples, evidence


_ATTEMPTS = 1 << 15


def _has_baseline(expectation: NoWorseThanExpectation, samples: Samples) -> bool:
    return all(
        any(samples.failure[n] == Failure.NONE for n in samples.rows(arm=arm, phase=Phase.WARMUP) if samples.decided(n))
        for arm in {expectation.arm, expectation.than}
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _measured(
    check: PlannedCheck, samples: Samples, evidence: Evidence, shown: tuple[int, int], recovery: Recovery | None
) -> tuple[float | None, str | None]:
    if check.method == "windows":
        time_ns = None if recovery is None else recovery.time_ns
        return (None, None) if time_ns is None else (time_ns / 1e9, "s")
    k, n = shown
    if not n:
        return None, None
    if isinstance(check.expectation, LatencyExpectation):
        latencies = sorted(_latencies_ms(check, samples, evidence))
        found = stats.quantile(latencies, check.expectation.quantile) if latencies else math.inf
        return (None, None) if math.isinf(found) else (round(found, 3), "ms")
    if isinstance(check.expectation, AttemptsExpectation):
        counts, known = attempts_on(check, evidence), evidence.attempts
        exposed = (counts[n] for n in range(min(len(counts), len(known))) if known[n])
        return float(max(exposed, default=0)), "attempts"
    share = 100 * k / n
    good = isinstance(check.expectation, AnswerExpectation | FallbackExpectation)
    return round(100 - share if good else share, 3), "%"


def _latencies_ms(check: PlannedCheck, samples: Samples, evidence: Evidence) -> list[float]:
    """
    Return the latencies of judged requests.

    One given up at its deadline took at least that long; one that was refused
    or broken off, however soon, has no time in which it was answered.
    """
    failure, due, done = samples.failure, samples.due_ns, samples.done_ns
    rows = [n for n in samples.judged_rows(check.arm, begin=0, end=len(samples)) if done[n] >= 0]
    if check.arm is Arm.FAULT and evidence.per == "request":
        attempts, known = evidence.attempts, len(evidence.attempts)
        absent = [n for n in rows if n >= known or not attempts[n]]
        if absent:
            bad = {absent[place] for place in violations(check, samples, absent, attempts, 0)}
            dropped = {n for n in absent if n not in bad or not speaks_unexposed(check, samples, n)}
            rows = [n for n in rows if n not in dropped]
    deadline = int(Failure.DEADLINE)
    return [(done[n] - due[n]) / 1e6 if not failure[n] or failure[n] == deadline else math.inf for n in rows]
