"""
Bounds and e-processes on exact counts: *n* requests, *k* of them violations.

Everything is pure Python on logarithms, so nothing is imported that costs half
a second. Sources: Clopper and Pearson 1934 for the bounds; Ville's inequality
for the e-processes, which are mixtures (Beta(1/4, 1/p0) cut to rates below the
threshold, Beta(1/2, 1/2) cut to rates above it) against the threshold itself,
so that they hold at any stopping time. Counts that cannot be, and thresholds
outside of 0 to 1, are a `ValueError`: nonsense must not come out as a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

__all__ = [
    "ALPHA_FAIL", "FAIL_FLOOR", "burst_effect", "design_effect", "fewest_requests", "guard_log_e", "holm", "log_e_fail", "log_e_pass",
    "log_incomplete_beta", "lower_bound", "most_log_e", "most_violations", "passes_from", "quantile",
    "smallest_visible_difference", "smallest_visible_excess", "upper_bound", "within_dose",
]  # fmt: skip

ALPHA_FAIL = 0.005
"""A fail needs 99.5 % confidence: blaming a healthy service costs more than another run."""
FAIL_FLOOR = 20
"""Nothing is failed on fewer requests."""
_MIX_A = 0.25
_TERMS_MOST = 500
_EPSILON = 1e-15
_TINY = 1e-300


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_incomplete_beta(x: float, a: float, b: float) -> float:
    """Return ln I_x(a, b), the regularised incomplete beta function; -inf at x = 0."""
    if x <= 0.0:
        return -math.inf
    if x >= 1.0:
        return 0.0
    if x > (a + 1.0) / (a + b + 2.0):
        other = log_incomplete_beta(1.0 - x, b, a)
        return math.log(-math.expm1(other)) if other < 0.0 else -math.inf
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a) - _log_beta(a, b)
    return front + math.log(_continued_fraction(x, a, b))


def _continued_fraction(x: float, a: float, b: float) -> float:
    """Evaluate the incomplete beta's continued fraction by Lentz's method."""
    c, d = 1.0, 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    result = d
    for m in range(1, _TERMS_MOST * 20):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 + numerator * d
            d = 1.0 / (d if abs(d) > _TINY else _TINY)
            c = 1.0 + numerator / (c if abs(c) > _TINY else _TINY)
            result *= c * d
        if abs(c * d - 1.0) < _EPSILON:
            break
    return result


@lru_cache(maxsize=4096)
def _beta_quantile(share: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    wanted = math.log(share)
    for _ in range(200):
        middle = (low + high) / 2
        if log_incomplete_beta(middle, a, b) < wanted:
            low = middle
        else:
            high = middle
        if high - low < 1e-14:
            break
    return (low + high) / 2


def _check(violations: int, requests: int, share: float) -> None:
    """Refuse counts that cannot be, and a *share* (an alpha, a threshold) that says nothing. NaN fails every comparison."""
    if not 0 <= violations <= requests:
        raise ValueError(f"{violations} of {requests} requests cannot be")
    if not 0.0 < share < 1.0:
        raise ValueError(f"{share} is not between 0 and 1")


def upper_bound(violations: int, requests: int, *, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson upper bound on the rate, at confidence 1 - *alpha*; 1 without requests."""
    _check(violations, requests, alpha)
    if violations >= requests:
        return 1.0
    return _beta_quantile(1.0 - alpha, violations + 1, requests - violations)


def lower_bound(violations: int, requests: int, *, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson lower bound on the rate; 0 without violations."""
    _check(violations, requests, alpha)
    if violations == 0:
        return 0.0
    return _beta_quantile(alpha, violations, requests - violations + 1)


def _log_mass(x: float, a: float, b: float) -> float:
    """Return ln of the incomplete beta function itself, not regularised."""
    return _log_beta(a, b) + log_incomplete_beta(x, a, b)


_log_prior = lru_cache(maxsize=256)(_log_mass)
"""The same, of a mixture before anything was seen: it belongs to the threshold, and each request asks for it."""


def log_e_pass(violations: int, requests: int, threshold: float) -> float:
    """Return ln of the evidence that the violation rate is below *threshold*."""
    _check(violations, requests, threshold)
    k, good = violations, requests - violations
    a, b = _MIX_A, 1.0 / threshold
    mixed = _log_mass(threshold, k + a, good + b)
    return mixed - _log_prior(threshold, a, b) - k * math.log(threshold) - good * math.log1p(-threshold)


def log_e_fail(violations: int, requests: int, threshold: float) -> float:
    """Return ln of the evidence that the violation rate is above *threshold*."""
    _check(violations, requests, threshold)
    k, good = violations, requests - violations
    above = 1.0 - threshold
    mixed = _log_mass(above, good + 0.5, k + 0.5)
    return mixed - _log_prior(above, 0.5, 0.5) - k * math.log(threshold) - good * math.log1p(-threshold)


guard_log_e = log_e_fail
"""The tripwire on the control arm: the same process against the declared rate, and it never accepts."""


def most_log_e(violations: int, requests: int, threshold: float) -> float:
    """
    Return ln of what no process of either kind can go beyond, whatever rates it mixes: the largest likelihood ratio.

    It costs a hundredth of the evidence itself, which is worth computing only
    where this is large. Evidence to pass is nothing above the threshold, and
    evidence to fail nothing below it.
    """
    if not requests:
        return 0.0
    k, good = violations, requests - violations
    ratio = k * math.log(k / (requests * threshold)) if k else 0.0
    return ratio + (good * math.log(good / (requests * (1.0 - threshold))) if good else 0.0)


def passes_from(violations: int, threshold: float, alpha: float) -> int:
    """Return the fewest requests at which *violations* of them are evidence enough to pass."""
    wanted = -math.log(alpha)
    high = max(1, violations)
    while log_e_pass(violations, high, threshold) < wanted:
        high *= 2
    low = max(violations, high // 2)
    while low < high:
        middle = (low + high) // 2
        if log_e_pass(violations, middle, threshold) >= wanted:
            high = middle
        else:
            low = middle + 1
    return high


def fewest_requests(threshold: float, *, alpha: float, method: Literal["sequential", "fixed"]) -> int:
    """Return the fewest requests without any violation that could pass a claim of at most *threshold* violations."""
    if method == "sequential":
        return passes_from(0, threshold, alpha)
    return math.ceil(math.log(alpha) / math.log1p(-threshold) - 1e-9)


def most_violations(requests: int, threshold: float, *, alpha: float, method: Literal["sequential", "fixed"]) -> int:
    """Return how many violations among *requests* could still pass; -1 when not even none could."""
    low, high = -1, min(requests, math.floor(threshold * requests))
    while low < high:
        middle = (low + high + 1) // 2
        if _could_pass(middle, requests, threshold, alpha, method):
            low = middle
        else:
            high = middle - 1
    return low


def _could_pass(violations: int, requests: int, threshold: float, alpha: float, method: str) -> bool:
    if method == "sequential":
        return log_e_pass(violations, requests, threshold) >= -math.log(alpha)
    return upper_bound(violations, requests, alpha=alpha) <= threshold


def smallest_visible_excess(threshold: float, requests: int, *, alpha: float) -> float | None:
    """Return the excess over *threshold* that this many requests would have shown four times in five; ``None`` without any."""
    if not requests:
        return None
    z = _normal_quantile(1.0 - alpha) + _normal_quantile(0.8)
    return z * math.sqrt(threshold * (1.0 - threshold) / requests)


def smallest_visible_difference(rate: float, requests: int, *, alpha: float) -> float | None:
    """Return the difference between two arms at about *rate*, each of *requests*, that would have shown four times in five."""
    if not requests:
        return None
    z = _normal_quantile(1.0 - alpha) + _normal_quantile(0.8)
    return z * math.sqrt(2.0 * rate * (1.0 - rate) / requests)


def _normal_quantile(share: float) -> float:
    low, high = -40.0, 40.0
    for _ in range(100):
        middle = (low + high) / 2
        if 0.5 * math.erfc(-middle / math.sqrt(2)) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def holm(p_values: Sequence[float], *, alpha: float) -> tuple[bool, ...]:
    """Return which of several tests fail when all are looked at together (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    failing = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        failing[index] = True
    return tuple(failing)


def design_effect(positions: Sequence[int], requests: int, *, blocks: int = 20) -> float:
    """
    Return by how much violations cluster: the variance of their counts in blocks over that of independent ones.

    1 means independent; 3 means that every sample size claim is three times
    too good. With fewer than five violations it cannot be told, and 1 is returned.
    """
    if len(positions) < 5 or requests < 2 * blocks or len(positions) == requests:
        return 1.0
    size = requests / blocks
    counts = [0] * blocks
    for position in positions:
        counts[min(blocks - 1, int((position - 1) / size))] += 1
    mean = len(positions) / blocks
    rate = len(positions) / requests
    variance = sum((count - mean) ** 2 for count in counts) / (blocks - 1)
    return variance / (size * rate * (1 - rate))


def burst_effect(positions: Sequence[int], requests: int) -> float:
    """
    Return by how much violations that follow each other closely lessen evidence to pass; 1 where that may be chance.

    It sees what `design_effect` cannot: two in a row are enough where they are
    rare. Violations are counted of which the one before is at most three
    requests away; so many as that by chance less than once in 20 count. For
    bursts of mean length L (geometric) the variance of a count is 2 L - 1 times
    that of independent violations.
    """
    k = len(positions)
    if k < 2 or requests <= k:
        return 1.0
    near = sum(1 for one, next_ in pairwise(positions) if next_ - one <= _NEAR)
    by_chance = -math.expm1(_NEAR * math.log1p(-(k - 1) / requests))
    if not near or log_incomplete_beta(by_chance, near, k - near) > math.log(0.05):
        return 1.0
    length = k / (k - (near - (k - 1) * by_chance))
    return 2.0 * length - 1.0


_NEAR = 3


def within_dose(fired: int, requests: int, percent: float, *, alpha: float = 0.001) -> bool:
    """Return whether *fired* of *requests* is in the 99.9 % binomial interval of a dose of *percent*."""
    share = percent / 100
    return (
        lower_bound(fired, requests, alpha=alpha / 2) <= share <= upper_bound(fired, requests, alpha=alpha / 2)
        if requests
        else False
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile of sorted values by nearest rank; ValueError without any, or with one that is no number."""
    if not ordered:
        raise ValueError("no values have no quantile")
    if any(map(math.isnan, ordered)):
        raise ValueError("what is no number has no place in an order")
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
