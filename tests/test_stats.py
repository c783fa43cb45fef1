"""Bounds and e-processes: the worked numbers, SciPy beside them, and error rates by simulation."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from luff import stats
from tests.factories import first_decision

LAW = settings(max_examples=150)
CAP = 2000
RUNS = 2000


def _fewest(violations: int, threshold: float, alpha: float = 0.05) -> int:
    """Return the fewest requests of a fixed sample at which *violations* still pass."""
    low, high = violations + 1, 10**6
    while low < high:
        middle = (low + high) // 2
        if stats.upper_bound(violations, middle, alpha=alpha) <= threshold:
            high = middle
        else:
            low = middle + 1
    return low


@pytest.mark.parametrize(
    ("threshold", "fewest"),
    [
        (0.1, (29, 46, 61, 76, 103, 167, 286)),
        (0.05, (59, 93, 124, 153, 208, 336, 577)),
        (0.01, (299, 473, 628, 773, 1049, 1693, 2902)),
        (0.001, (2995, 4742, 6294, 7752, 10511, 16959, 29058)),
    ],
)
def test_fixed_sample_sizes_are_the_worked_ones(threshold: float, fewest: tuple[int, ...]) -> None:
    assert tuple(_fewest(k, threshold) for k in (0, 1, 2, 3, 5, 10, 20)) == fewest


def test_fixed_sample_sizes_at_99_percent_are_the_worked_ones() -> None:
    assert tuple(_fewest(k, 0.01, 0.01) for k in (0, 1, 2, 3, 5)) == (459, 662, 838, 1001, 1307)


@pytest.mark.parametrize(("requests", "fails_from"), [(50, 3), (100, 4), (299, 7), (500, 10), (1000, 16), (2000, 29)])
def test_fixed_samples_fail_from_the_worked_numbers(requests: int, fails_from: int) -> None:
    bounds = [stats.lower_bound(k, requests, alpha=0.05) for k in (fails_from - 1, fails_from)]
    assert bounds[0] <= 0.01 < bounds[1]


@pytest.mark.parametrize(("requests", "most"), [(298, -1), (299, 0), (472, 0), (473, 1), (1000, 4), (2000, 12)])
def test_fixed_samples_tolerate_the_worked_numbers(requests: int, most: int) -> None:
    assert stats.most_violations(requests, 0.01, alpha=0.05, method="fixed") == most


@pytest.mark.parametrize("violations", range(3))
def test_sequential_passes_cost_the_worked_numbers(violations: int) -> None:
    assert stats.passes_from(violations, 0.01, 0.05) == (328, 687, 931)[violations]


@pytest.mark.parametrize(("requests", "most"), [(327, -1), (328, 0), (687, 1), (930, 1), (931, 2)])
def test_sequential_samples_tolerate_the_worked_numbers(requests: int, most: int) -> None:
    assert stats.most_violations(requests, 0.01, alpha=0.05, method="sequential") == most


def test_fewest_requests_are_those_at_which_none_passes() -> None:
    assert stats.fewest_requests(0.01, alpha=0.05, method="fixed") == 299
    assert stats.fewest_requests(0.01, alpha=0.05, method="sequential") == 328
    assert stats.fewest_requests(0.5, alpha=0.5, method="fixed") == 1


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
def test_the_smallest_visible_excess_is_the_worked_one(share: float) -> None:
    z = special.ndtri(0.95) + special.ndtri(0.8)
    assert stats.smallest_visible_excess(share, 1000, alpha=0.05) == pytest.approx(
        z * math.sqrt(share * (1 - share) / 1000)
    )
    assert stats.smallest_visible_excess(share, 0, alpha=0.05) is None


GRID = list(itertools.product((0.25, 0.5, 1.0, 3.0, 20.0, 500.0, 40_000.0), repeat=2))


@pytest.mark.parametrize(("a", "b"), GRID)
def test_the_incomplete_beta_is_scipys(a: float, b: float) -> None:
    mean = a / (a + b)
    for x in (1e-9, 1e-4, 0.01, mean * 0.9, mean, min(0.999, mean * 1.1), 0.3, 0.7, 0.99, 1 - 1e-9):
        theirs = float(special.betainc(a, b, x))
        if theirs > 1e-290:
            assert stats.log_incomplete_beta(x, a, b) == pytest.approx(math.log(theirs), rel=1e-7, abs=1e-7)


@LAW
@given(x=st.floats(1e-6, 1 - 1e-6), a=st.floats(0.25, 5000), b=st.floats(0.25, 5000))
def test_the_incomplete_beta_is_scipys_anywhere(x: float, a: float, b: float) -> None:
    theirs = float(special.betainc(a, b, x))
    if theirs > 1e-290:
        assert stats.log_incomplete_beta(x, a, b) == pytest.approx(math.log(theirs), rel=1e-6, abs=1e-6)


def test_the_incomplete_beta_has_ends() -> None:
    assert stats.log_incomplete_beta(0.0, 2, 3) == -math.inf
    assert stats.log_incomplete_beta(1.0, 2, 3) == 0.0
    # All but certain, to the last bit: no logarithm of nothing.
    assert stats.log_incomplete_beta(0.9999, 2, 40_000) == pytest.approx(0.0, abs=1e-12)


@st.composite
def _counts(draw: Callable[..., int], most: int = 20_000) -> tuple[int, int]:
    requests = draw(st.integers(1, most))
    return draw(st.integers(0, requests)), requests


@LAW
@given(counts=_counts(), alpha=st.sampled_from([0.001, 0.005, 0.05, 0.5]))
def test_bounds_are_those_of_clopper_and_pearson(counts: tuple[int, int], alpha: float) -> None:
    k, n = counts
    upper = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - alpha))
    lower = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, alpha))
    assert stats.upper_bound(k, n, alpha=alpha) == pytest.approx(upper, rel=1e-6, abs=1e-10)
    assert stats.lower_bound(k, n, alpha=alpha) == pytest.approx(lower, rel=1e-6, abs=1e-10)


@LAW
@given(counts=_counts(), alpha=st.floats(1e-6, 0.5))
def test_bounds_enclose_what_was_seen(counts: tuple[int, int], alpha: float) -> None:
    k, n = counts
    assert stats.lower_bound(k, n, alpha=alpha) <= k / n <= stats.upper_bound(k, n, alpha=alpha)


def test_without_requests_anything_is_possible() -> None:
    assert stats.upper_bound(0, 0, alpha=0.05) == 1.0
    assert stats.lower_bound(0, 0, alpha=0.05) == 0.0


NONSENSE: list[tuple[str, Callable[[], object]]] = [
    ("no values", lambda: stats.quantile([], 0.5)),
    ("a value that is no number", lambda: stats.quantile([1.0, math.nan, 2.0], 0.5)),
    ("more violations than requests", lambda: stats.upper_bound(3, 2, alpha=0.05)),
    ("more violations than none", lambda: stats.lower_bound(1, 0, alpha=0.05)),
    ("fewer than no violations", lambda: stats.lower_bound(-1, 2, alpha=0.05)),
    ("an alpha that is no number", lambda: stats.upper_bound(0, 10, alpha=math.nan)),
    ("an alpha of nothing", lambda: stats.upper_bound(0, 10, alpha=0.0)),
    ("an alpha of everything", lambda: stats.lower_bound(1, 10, alpha=1.0)),
    ("a threshold of nothing", lambda: stats.log_e_pass(0, 10, 0.0)),
    ("a threshold of everything", lambda: stats.log_e_fail(0, 10, 1.0)),
    ("a threshold that is no number", lambda: stats.log_e_pass(0, 10, math.nan)),
    ("more violations than requests in a process", lambda: stats.log_e_fail(11, 10, 0.1)),
]


@pytest.mark.parametrize(("what", "call"), NONSENSE, ids=[what for what, _ in NONSENSE])
def test_nonsense_is_refused(what: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        call()


@LAW
@given(counts=_counts(3000), threshold=st.sampled_from([0.001, 0.01, 0.05, 0.3]))
def test_a_good_request_helps_to_pass_and_a_violation_to_fail(counts: tuple[int, int], threshold: float) -> None:
    k, n = counts
    assert stats.log_e_pass(k, n + 1, threshold) > stats.log_e_pass(k, n, threshold) - 1e-9
    assert stats.log_e_pass(k + 1, n + 1, threshold) < stats.log_e_pass(k, n, threshold) + 1e-9
    assert stats.log_e_fail(k + 1, n + 1, threshold) > stats.log_e_fail(k, n, threshold) - 1e-9
    assert stats.log_e_fail(k, n + 1, threshold) < stats.log_e_fail(k, n, threshold) + 1e-9


@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.05, 0.5])
@pytest.mark.parametrize("process", [stats.log_e_pass, stats.log_e_fail])
def test_evidence_is_fair_at_the_threshold(process: Callable[[int, int, float], float], threshold: float) -> None:
    # What makes Ville's inequality hold: at the threshold itself the next request is expected to change nothing.
    for n in (0, 1, 10, 200):
        for k in {0, n // 3, n}:
            now = process(k, n, threshold)
            up, down = process(k + 1, n + 1, threshold) - now, process(k, n + 1, threshold) - now
            assert threshold * math.exp(up) + (1 - threshold) * math.exp(down) == pytest.approx(1.0, rel=1e-6)


def _positions(rng: random.Random, rate: float, requests: int) -> Iterator[int]:
    """Yield the places of independent violations at *rate*."""
    at = 0
    while rate:
        at += 1 + (math.floor(math.log(rng.random()) / math.log1p(-rate)) if rate < 1 else 0)
        if at > requests:
            return
        yield at


def _simulate(rate: float, *, seed: int = 7) -> tuple[float, float, float]:
    """Return the mean size, and the shares of passes and of fails, of `RUNS` runs at a true *rate* against 1 %."""
    rng = random.Random(seed)
    sizes, passed, failed = 0, 0, 0
    for _ in range(RUNS):
        decided = first_decision(list(_positions(rng, rate, CAP)), CAP, 0.01)
        sizes += CAP if decided is None else decided[1]
        passed += decided is not None and decided[0] == "passed"
        failed += decided is not None and decided[0] == "failed"
    return sizes / RUNS, passed / RUNS, failed / RUNS


SIMULATED = [
    (0.0, 328, 1.0, 0.0),
    (0.001, 468, 1.0, 0.0),
    (0.002, 680, 0.98, 0.0),
    (0.003, 954, 0.86, 0.0),
    (0.005, 1469, 0.46, 0.0),
    (0.01, 1928, 0.045, 0.001),
    (0.02, 1628, 0.002, 0.47),
    (0.03, 642, 0.0, 0.996),
    (0.05, 198, 0.0, 1.0),
    (0.1, 55, 0.0, 1.0),
    (0.3, 20, 0.0, 1.0),
    (1.0, 20, 0.0, 1.0),
]


@pytest.mark.parametrize(("rate", "size", "passes", "fails"), SIMULATED)
def test_simulated_runs_end_as_worked_out(rate: float, size: float, passes: float, fails: float) -> None:
    mean, passed, failed = _simulate(rate)
    # Four standard errors of each share, and a tenth of each size.
    assert mean == pytest.approx(size, rel=0.1)
    assert passed == pytest.approx(passes, abs=4 * math.sqrt(max(passes * (1 - passes), 0.005) / RUNS) + 0.005)
    assert failed == pytest.approx(fails, abs=4 * math.sqrt(max(fails * (1 - fails), 0.005) / RUNS) + 0.005)
    if rate >= 0.01:
        assert passed <= 0.05
    if rate <= 0.01:
        assert failed <= 0.005


@pytest.mark.parametrize(
    ("p_values", "failing"),
    [
        ((), ()),
        ((0.004,), (True,)),
        ((0.006,), (False,)),
        ((0.001, 0.004, 1.0), (True, False, False)),
        ((0.001, 0.002, 1.0), (True, True, False)),
        ((0.002, 0.0001), (True, True)),
        ((0.004, 0.004), (False, False)),
    ],
)
def test_holm_lets_stand_what_stands_among_all(p_values: tuple[float, ...], failing: tuple[bool, ...]) -> None:
    assert stats.holm(p_values, alpha=0.005) == failing


def test_holm_seldom_blames_among_many_healthy_checks() -> None:
    rng = random.Random(3)
    blamed = sum(any(stats.holm([rng.random() for _ in range(20)], alpha=0.05)) for _ in range(RUNS))
    assert blamed / RUNS <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / RUNS)


def test_the_design_effect_of_independent_violations_is_one() -> None:
    rng = random.Random(5)
    found = [stats.design_effect(list(_positions(rng, 0.02, 2000)), 2000) for _ in range(200)]
    assert sum(found) / len(found) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("length", [2, 5, 10])
def test_the_design_effect_of_bursts_is_their_length(length: int) -> None:
    rng = random.Random(5)
    found = []
    for _ in range(200):
        starts = _positions(rng, 0.02 / length, 4000)
        bursts = sorted({place for start in starts for place in range(start, min(4001, start + length))})
        found.append(stats.design_effect(bursts, 4000))
    assert sum(found) / len(found) == pytest.approx(length, rel=0.25)


@pytest.mark.parametrize(("positions", "requests"), [([], 100), ([1, 2, 3, 4], 100), ([1, 2, 3, 4, 5], 30)])
def test_what_cannot_be_told_is_taken_for_independent(positions: list[int], requests: int) -> None:
    assert stats.design_effect(positions, requests) == 1.0
    assert stats.design_effect(range(1, 101), 100) == 1.0


@pytest.mark.parametrize(
    ("fired", "requests", "within"),
    [(25, 100, True), (44, 100, False), (9, 100, False), (0, 10, True), (0, 100, False), (0, 0, False)],
)
def test_a_dose_has_an_interval(fired: int, requests: int, *, within: bool) -> None:
    assert stats.within_dose(fired, requests, 25.0) is within


@LAW
@given(values=st.lists(st.floats(-1e9, 1e9), min_size=1), share=st.floats(0.001, 0.999))
def test_a_quantile_is_the_nearest_rank(values: list[float], share: float) -> None:
    found = stats.quantile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6


def _bursts(rng: random.Random, rate: float, length: int, most: int) -> list[int]:
    """Return the places of violations at *rate*, in bursts of mean *length*."""
    found: list[int] = []
    at = 0
    while True:
        at += 1 + math.floor(math.log(rng.random()) / math.log1p(-rate / length))
        count = 1 + (math.floor(math.log(rng.random()) / math.log1p(-1 / length)) if length > 1 else 0)
        found += range(at, at + count)
        at += count
        if at > most:
            return [place for place in found if place <= most]


def _passes(positions: list[int], most: int, needed: dict[int, int], *, guarded: bool) -> int | None:
    """Return with how many violations a service that is at 1 % is passed, judged at every moment; ``None`` when it is not."""
    for k in range(len(positions) + 1):
        until = positions[k] - 1 if k < len(positions) else most
        if k not in needed:
            needed[k] = stats.passes_from(k, 0.01, 0.05)
        if until >= needed[k]:
            effect = stats.burst_effect(positions[:k], until) if guarded else 1.0
            if effect == 1.0 or stats.log_e_pass(k, until, 0.01) >= effect * math.log(20):
                return k
    return None


@pytest.mark.parametrize(
    ("length", "blind", "most"), [(1, 0.003, 0.02), (2, 0.06, 0.07), (5, 0.08, 0.065), (10, 0.04, 0.04)]
)
def test_few_services_at_their_limit_are_passed_on_violations_that_come_in_bursts(
    length: int, blind: float, most: float
) -> None:
    rng, runs, needed = random.Random(11), 2000, {}  # type: ignore[var-annotated]  # places by count
    found = [_bursts(rng, 0.01, length, 2000) for _ in range(runs)]
    before = sum(bool(_passes(each, 2000, needed, guarded=False)) for each in found) / runs
    after = sum(bool(_passes(each, 2000, needed, guarded=True)) for each in found) / runs
    unseen = sum(_passes(each, 2000, needed, guarded=True) == 0 for each in found) / runs

    assert before >= blind
    assert after <= most
    assert after < before or length == 1
    # What shows no violation cannot be helped, and is as likely as is said.
    assert unseen == pytest.approx(math.exp(-328 * 0.01 / length), abs=0.04)


@pytest.mark.parametrize(
    ("positions", "requests", "effect"),
    [
        ([], 400, 1.0),
        ([7], 400, 1.0),
        ([7, 300], 400, 1.0),
        ([7, 8], 400, 3.0),
        ([7, 10], 400, 3.0),
        ([7, 11], 400, 1.0),
        (list(range(1, 400)), 400, 1.0),
        ([1, 2], 2, 1.0),
    ],
)
def test_violations_in_a_row_lessen_evidence_where_they_are_rare(
    positions: list[int], requests: int, effect: float
) -> None:
    assert stats.burst_effect(positions, requests) == pytest.approx(effect, rel=0.05)


def test_independent_violations_hardly_ever_lessen_evidence() -> None:
    rng = random.Random(5)
    found = [
        stats.burst_effect(list(_positions(rng, rate, 2000)), 2000)
        for rate in (0.003, 0.01, 0.1, 0.5)
        for _ in range(100)
    ]
    assert sum(each > 1 for each in found) <= 0.06 * len(found)
