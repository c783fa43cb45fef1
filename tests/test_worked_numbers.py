"""
The numbers that the choice of our methods stands on, computed anew, and what the methods that we left would do.

Not used, so not here: McNemar's test and non-inferiority of pairs. Our arms are
interleaved and independent, and nothing pairs one request with another; a
comparison bounds each arm's share, whose sizes `tests/test_tallies.py` pins.
Bursts are in `tests/test_stats.py`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from luff import stats


def _fewest(violations: int, threshold: float) -> int:
    """Return the fewest requests of a fixed sample at which *violations* still pass, by SciPy."""
    low, high = violations + 1, 10**6
    while low < high:
        middle = (low + high) // 2
        bound = special.betaincinv(violations + 1, middle - violations, 0.95)
        low, high = (low, middle) if bound <= threshold else (middle + 1, high)
    return low


@pytest.mark.parametrize(
    ("rate", "requests"), [(0.001, 473), (0.002, 773), (0.003, 1049), (0.005, 2546), (0.007, 8094), (0.008, 19189)]
)
def test_a_good_service_passes_nine_times_in_ten_from_this_many_requests(rate: float, requests: int) -> None:
    tolerated = stats.most_violations(requests, 0.01, alpha=0.05, method="fixed")

    def power(violations: int, size: int) -> float:
        return float(special.bdtr(violations, size, rate))

    assert _fewest(tolerated, 0.01) == requests
    assert power(tolerated, requests) >= 0.9
    assert power(tolerated - 1, _fewest(tolerated - 1, 0.01)) < 0.9


def test_the_best_that_a_hundred_requests_can_prove_is_p97() -> None:
    assert stats.fewest_requests(0.03, alpha=0.05, method="fixed") <= 100
    assert stats.fewest_requests(0.02, alpha=0.05, method="fixed") > 100
    assert stats.upper_bound(0, 100, alpha=0.05) == pytest.approx(0.0295, abs=1e-4)


@pytest.mark.parametrize(
    ("alpha", "twenty", "forty"), [(0.05, 0.64, 0.87), (stats.ALPHA_FAIL, 0.095, 0.18), (0.001, 0.02, 0.039)]
)
def test_many_checks_without_holm_would_blame_this_often(alpha: float, twenty: float, forty: float) -> None:
    assert 1 - (1 - alpha) ** 20 == pytest.approx(twenty, abs=0.006)
    assert 1 - (1 - alpha) ** 40 == pytest.approx(forty, abs=0.006)


def _wilson_upper(violations: int, requests: int) -> float:
    z = float(special.ndtri(0.95))
    rate = violations / requests
    centre = rate + z * z / (2 * requests)
    spread = z * math.sqrt(rate * (1 - rate) / requests + z * z / (4 * requests**2))
    return (centre + spread) / (1 + z * z / requests)


def test_wilsons_bound_would_pass_too_soon_and_ours_does_not() -> None:
    wilson = next(n for n in range(1, 1000) if _wilson_upper(0, n) <= 0.01)
    ours = stats.fewest_requests(0.01, alpha=0.05, method="fixed")

    assert (wilson, ours) == (268, 299)
    assert 0.99**wilson == pytest.approx(0.068, abs=0.001)
    assert 0.99**ours == pytest.approx(0.0495, abs=0.001)


def test_looking_again_and_again_at_a_fixed_bound_errs_four_times_as_often_as_it_says_and_ours_does_not() -> None:
    looks = np.arange(10, 3001, 10)
    drawn = (np.random.default_rng(7).random((4000, 3000)) < 0.01).cumsum(axis=1)[:, looks - 1]
    counts = np.arange(0, 120)
    upper = special.betaincinv(counts[None, :] + 1, np.maximum(looks[:, None] - counts[None, :], 1e-9), 0.95)
    lower = np.where(counts > 0, special.betaincinv(counts[None, :], looks[:, None] - counts[None, :] + 1, 0.05), 0)
    at = np.arange(len(looks))
    passing, failing = upper[at, drawn] <= 0.01, lower[at, drawn] > 0.01
    never = len(looks)
    first_pass = np.where(passing.any(axis=1), passing.argmax(axis=1), never)
    first_fail = np.where(failing.any(axis=1), failing.argmax(axis=1), never)

    assert (first_pass < first_fail).mean() == pytest.approx(0.19, abs=0.03)
    assert (first_fail < first_pass).mean() == pytest.approx(0.25, abs=0.03)
    needed = {k: stats.passes_from(k, 0.01, 0.05) for k in range(50)}
    most = np.array([sum(size <= n for size in needed.values()) - 1 for n in looks])
    assert (drawn <= most[None, :]).any(axis=1).mean() <= 0.05


def test_three_errors_in_a_row_are_the_worked_evidence_against_control() -> None:
    assert math.exp(stats.guard_log_e(3, 3, 0.05)) == pytest.approx(2919, rel=0.01)
    assert stats.guard_log_e(3, 3, 0.05) > -math.log(0.001) > stats.guard_log_e(2, 2, 0.05)
