"""When requests fall due: the laws of arrival times."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.model import Request
from luff.pacing import Arrival, arrivals
from luff.words import Arm

LAW = settings(max_examples=100, deadline=None)
ONE = (Request(url="http://shop/"),)
RATES = st.floats(0.2, 300)
SECONDS = st.floats(0.05, 20)


def _made(rate_hz: float, duration_s: float, *, seed: int = 7, **more: Any) -> list[Arrival]:
    options: dict[str, Any] = {"requests": ONE, "rng": random.Random(seed), **more}
    return list(arrivals(rate_hz, duration_s, **options))


@LAW
@given(rate_hz=RATES, duration_s=SECONDS, ramp=st.floats(0, 1), seed=st.integers())
def test_arrivals_are_in_order_and_within_the_time(rate_hz: float, duration_s: float, ramp: float, seed: int) -> None:
    made = _made(rate_hz, duration_s, seed=seed, ramp_s=ramp * duration_s)
    assert [each.due_s for each in made] == sorted(each.due_s for each in made)
    assert all(0 <= each.due_s < duration_s for each in made)


@LAW
@given(rate_hz=RATES, duration_s=SECONDS, seed=st.integers())
def test_each_arm_gets_the_rate(rate_hz: float, duration_s: float, seed: int) -> None:
    counts = Counter(each.arm for each in _made(rate_hz, duration_s, seed=seed))
    for arm in Arm:
        assert abs(counts[arm] - rate_hz * duration_s) <= 1.01


@LAW
@given(rate_hz=RATES, duration_s=SECONDS, seed=st.integers())
def test_the_arms_are_interleaved_in_blocks(rate_hz: float, duration_s: float, seed: int) -> None:
    made = _made(rate_hz, duration_s, seed=seed)
    for first, second in itertools.islice(zip(made[::2], made[1::2], strict=False), len(made) // 2):
        assert {first.arm, second.arm} == set(Arm)
        assert first.request == second.request
        # Each has its own half of the block: they never bunch up.
        block = int(first.due_s * rate_hz + 1e-9)
        assert block / rate_hz - 1e-9 <= first.due_s <= (block + 0.5) / rate_hz + 1e-9
        assert (block + 0.5) / rate_hz - 1e-9 <= second.due_s <= (block + 1) / rate_hz + 1e-9


def test_neither_arm_is_always_first_and_no_timer_falls_in_step() -> None:
    made = _made(100, 20)
    assert Counter(each.arm for each in made[::2])[Arm.FAULT] == pytest.approx(1000, abs=150)
    gaps = {round(b.due_s - a.due_s, 4) for a, b in itertools.pairwise(made)}
    assert len(gaps) > 80


def test_a_seed_decides() -> None:
    assert _made(50, 5, seed=3) == _made(50, 5, seed=3)
    assert _made(50, 5, seed=3) != _made(50, 5, seed=4)


def test_requests_are_drawn_by_weight() -> None:
    requests = [Request(url="http://shop/a", weight=3), Request(url="http://shop/b", weight=1)]
    drawn = Counter(each.request for each in _made(100, 40, requests=requests))
    assert drawn[0] / drawn.total() == pytest.approx(0.75, abs=0.04)
    # What both arms are asked is the same.
    by_arm = [Counter(e.request for e in _made(100, 40, requests=requests) if e.arm is arm) for arm in Arm]
    assert by_arm[0] == by_arm[1]


def test_one_arm_can_go_alone() -> None:
    assert {each.arm for each in _made(10, 5, arms=(Arm.FAULT,))} == {Arm.FAULT}
    assert len(_made(10, 5, arms=(Arm.FAULT,))) == 50


@pytest.mark.parametrize("ramp_s", [1.0, 4.0])
def test_a_ramp_rises_in_a_straight_line(ramp_s: float) -> None:
    made = _made(200, 6, ramp_s=ramp_s)
    assert len(made) / 2 == pytest.approx(200 * (6 - ramp_s / 2), abs=3)
    half = sum(each.due_s < ramp_s / 2 for each in made) / 2
    assert half == pytest.approx(200 * ramp_s / 8, abs=3)
    last_second = sum(each.due_s >= 5 for each in made) / 2
    assert last_second == pytest.approx(200, abs=3)


def test_no_time_is_no_request() -> None:
    assert _made(100, 0.0) == []


def test_arrivals_are_made_as_they_are_asked_for() -> None:
    endless = arrivals(1000, 1e9, requests=ONE, rng=random.Random(1))
    assert len(list(itertools.islice(endless, 10))) == 10
