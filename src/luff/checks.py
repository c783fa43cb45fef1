"""
Expectations made into checks before anything is sent: what is claimed, by which method, and what one request says.

Errors and timeouts are violations; they are never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from luff import stats
from luff.model import (
    AnswerExpectation,
    AttemptsExpectation,
    ErrorsExpectation,
    Expectation,
    Experiment,
    FallbackExpectation,
    LatencyExpectation,
    NoWorseThanExpectation,
)
from luff.predicates import answers_of, status_in
from luff.samples import Failure, Samples
from luff.units import show_duration, show_percent
from luff.words import Arm

__all__ = [
    "USUAL_LATENESS",
    "Lateness",
    "Method",
    "PlannedCheck",
    "lateness_of",
    "plan_checks",
    "speaks_unexposed",
    "violations",
]

NO_WORSE_FACTOR = 1.5
LATE_LEAST_S = 0.02
LATE_ANYWAY_S = 0.25
LATE_SHARE_MOST = 0.01
_LATE_VIOLATES = (LatencyExpectation, ErrorsExpectation, AnswerExpectation, FallbackExpectation)
"""What a request violates that left so late that its answer is not here in time."""

Method = Literal["sequential", "fixed", "comparison", "windows"]


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """
    This is an expectation with its method fixed before anything is sent.

    *threshold* is the share of violations that is still fine; *sample_most*
    how many requests it can see at most, of which *tolerated* violations could
    still pass (-1 when not even none could); *bit* its answer's place in `Samples.holds`, or ``None``.
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


def plan_checks(experiment: Experiment, *, rate_hz: float) -> tuple[PlannedCheck, ...]:
    """Return a planned check for each expectation. *rate_hz* is per arm."""
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
        binomial = method in ("sequential", "fixed") and threshold < 1.0
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
                tolerated=stats.most_violations(
                    most, threshold, alpha=alpha, method="fixed" if method == "fixed" else "sequential"
                )
                if binomial
                else 0,
                bit=bit,
                file=experiment.file or None,
                line=experiment.lines.get(expectation.id),
            )
        )
    return tuple(planned)


@dataclass(frozen=True, slots=True)
class Lateness:
    """
    This is how late a generator may be: all requests but *share* (0 to 1) of them leave within *most_s*.

    For no larger a share of the time its event loop stands still for longer.
    """

    most_s: float
    share: float


USUAL_LATENESS = Lateness(LATE_LEAST_S, LATE_SHARE_MOST)
"""What is borne where nothing coarser or finer is claimed."""


def lateness_of(checks: Sequence[PlannedCheck], *, timeout_s: float) -> Lateness:
    """
    Return the lateness of the generator beyond which its samples cannot carry *checks*.

    Lateness only ever makes a service look slower, so it has to be small
    beside what is claimed: a tenth of the tightest latency limit, and 20 ms
    where arms are compared by their own usual latency. A request that left
    late has less of *timeout_s* as well, which is a limit like the others.
    Without a short one it is the offered load that has to be right: 250 ms.
    And it has to be rare beside the violations that a claim bears: half of
    them at most may be our own doing.
    """
    limits_s = [check.expectation.limit_s for check in checks if isinstance(check.expectation, LatencyExpectation)]
    share = min([LATE_SHARE_MOST, *(c.threshold / 2 for c in checks if isinstance(c.expectation, _LATE_VIOLATES))])
    if any(isinstance(check.expectation, NoWorseThanExpectation) for check in checks):
        return Lateness(LATE_LEAST_S, share)
    return Lateness(min(LATE_ANYWAY_S, max(LATE_LEAST_S, min([timeout_s, *limits_s]) / 10)), share)


def _claim(expectation: Expectation) -> tuple[float, Method]:
    """Return the share of violations that is still fine, and the method that suits it."""
    if isinstance(expectation, LatencyExpectation):
        return 1.0 - expectation.quantile, "sequential"
    if isinstance(expectation, ErrorsExpectation):
        return max(1e-4, expectation.at_most_percent / 100), "sequential"
    if isinstance(expectation, AnswerExpectation | FallbackExpectation | AttemptsExpectation):
        return max(1e-4, 1.0 - expectation.at_least_percent / 100), "sequential"
    if isinstance(expectation, NoWorseThanExpectation):
        if expectation.than is expectation.arm:
            # Compared with its own warm-up: that much of it may be worse.
            return max(1e-4, expectation.by_percent / 100), "sequential"
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
        than = "before" if expectation.than is expectation.arm else expectation.than
        return f"no worse than {than} by {show_percent(expectation.by_percent)}"
    return f"recovers within {show_duration(expectation.within_s)}"


def violations(
    check: PlannedCheck, samples: Samples, rows: Sequence[int], attempts: Sequence[int], baseline_ns: int
) -> list[int]:
    """
    Return which of *rows* violate *check*, as places in *rows*. They are decided, and by no fault of the generator.

    *attempts* are by request number, and may end early; *baseline_ns* is the
    warm-up p95 of their arm. One pass over columns: this is where a million
    samples spend their time.
    """
    expectation = check.expectation
    failure, status, due, done = samples.failure, samples.status, samples.due_ns, samples.done_ns
    if isinstance(expectation, AttemptsExpectation):
        most, known = expectation.at_most, len(attempts)
        return [place for place, n in enumerate(rows) if n < known and attempts[n] > most]
    if isinstance(expectation, LatencyExpectation):
        limit_ns = round(expectation.limit_s * 1e9)
        return [place for place, n in enumerate(rows) if failure[n] or done[n] - due[n] > limit_ns]
    if isinstance(expectation, ErrorsExpectation):
        listed = _listed(expectation.status)
        return [place for place, n in enumerate(rows) if failure[n] or status[n] in listed]
    if check.bit is not None:
        holds, bit = samples.holds, 1 << check.bit
        return [place for place, n in enumerate(rows) if failure[n] or not holds[n] & bit]
    slow_ns = NO_WORSE_FACTOR * baseline_ns
    return [place for place, n in enumerate(rows) if failure[n] or status[n] >= 500 or done[n] - due[n] > slow_ns]


@lru_cache(maxsize=64)
def _listed(statuses: tuple[str, ...]) -> frozenset[int]:
    return frozenset(code for code in range(1000) if status_in(code, statuses))


def speaks_unexposed(check: PlannedCheck, samples: Samples, number: int) -> bool:
    """
    Return whether request *number*, a violation that never took the twin, counts against the service all the same.

    No answer, and a 5xx, always do, and what is listed as an error. But a
    whole answer in place of a fallback is what a request that met no fault
    ought to get; and a slow answer is as usual where nothing fires, so that it
    would weigh more than it should among the few that met the fault.
    """
    if isinstance(check.expectation, ErrorsExpectation):
        return True
    return samples.failure[number] != Failure.NONE or samples.status[number] >= 500
