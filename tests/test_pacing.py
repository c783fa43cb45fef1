"""When requests fall due: the laws of arrival times."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.model import Request, Stage, Traffic
from luff.pacing import Arrival, Load, Pattern, arrivals, arrivals_of, load_of
from luff.words import Arm, Phase

LAW = settings(max_examples=100)
ONE = (Request(url="http://shop/"),)
RATES = st.floats(0.2, 300)
SECONDS = st.floats(0.05, 20)


PATTERNS: list[Pattern] = ["constant", "poisson"]
STAGES = st.lists(
    # By keys: a model's signature has the written name of a field or its own, depending on when it was built.
    st.fixed_dictionaries({"for_s": st.just(0.0) | st.floats(0.1, 5), "rate_hz": st.floats(0.5, 200)}).map(
        Stage.model_validate
    ),
    min_size=1,
    max_size=5,
).filter(lambda stages: sum(stage.for_s for stage in stages) > 0)
START = st.one_of(st.none(), st.floats(0.5, 200))


def _made(load: Load | float, duration_s: float, *, seed: int = 7, **more: Any) -> list[Arrival]:
    options: dict[str, Any] = {"requests": ONE, "rng": random.Random(seed), **more}
    return list(arrivals(load, duration_s, **options))


def _staged(stages: list[Stage], start_hz: float | None, **more: Any) -> Traffic:
    return Traffic(requests=ONE, stages=tuple(stages), rate_hz=start_hz, **more)


def _area(traffic: Traffic, until_s: float) -> float:
    """Return how many requests of each arm the stages have until *until_s*, as trapezoids."""
    rate_hz, area = traffic.rate_hz or 0.0, 0.0
    for stage in traffic.stages:
        spent_s = min(stage.for_s, max(0.0, until_s))
        if spent_s:
            reached_hz = rate_hz + (stage.rate_hz - rate_hz) * spent_s / stage.for_s
            area += spent_s * (rate_hz + reached_hz) / 2
        until_s -= stage.for_s
        rate_hz = stage.rate_hz
    return area


@LAW
@given(rate_hz=RATES, duration_s=SECONDS, ramp=st.floats(0, 1), seed=st.integers(), pattern=st.sampled_from(PATTERNS))
def test_arrivals_are_in_order_and_within_the_time(
    rate_hz: float, duration_s: float, ramp: float, seed: int, pattern: Pattern
) -> None:
    made = _made(Load.steady(rate_hz, ramp_s=ramp * duration_s), duration_s, seed=seed, pattern=pattern)
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
    made = _made(Load.steady(200, ramp_s=ramp_s), 6)
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


@LAW
@given(stages=STAGES, start_hz=START, seed=st.integers(), pattern=st.sampled_from(PATTERNS))
def test_whatever_the_load_each_block_has_both_arms_with_the_same_request(
    stages: list[Stage], start_hz: float | None, seed: int, pattern: Pattern
) -> None:
    load = load_of(_staged(stages, start_hz))
    requests = [Request(url="http://shop/a"), Request(url="http://shop/b")]
    duration_s = sum(stage.for_s for stage in stages)

    made = _made(load, duration_s, seed=seed, pattern=pattern, requests=requests)

    assert [each.due_s for each in made] == sorted(each.due_s for each in made)
    assert all(0 <= each.due_s < duration_s for each in made)
    for first, second in zip(made[::2], made[1::2], strict=False):
        assert {first.arm, second.arm} == set(Arm)
        assert first.request == second.request
    counts = Counter(each.arm for each in made)
    assert abs(counts[Arm.FAULT] - counts[Arm.CONTROL]) <= 1


@LAW
@given(stages=STAGES, start_hz=START, seed=st.integers())
def test_constant_arrivals_are_as_many_as_each_stage_has(
    stages: list[Stage], start_hz: float | None, seed: int
) -> None:
    traffic = _staged(stages, start_hz)
    ends_s = list(itertools.accumulate(stage.for_s for stage in stages))

    made = _made(load_of(traffic), ends_s[-1], seed=seed)

    for end_s in ends_s:
        area = _area(traffic, end_s)
        for arm in Arm:
            count = sum(each.due_s < end_s for each in made if each.arm is arm)
            assert abs(count - area) <= 1.01


@LAW
@given(stages=STAGES, start_hz=START)
def test_a_load_knows_its_mean_and_its_most(stages: list[Stage], start_hz: float | None) -> None:
    traffic = _staged(stages, start_hz)
    load, duration_s = load_of(traffic), sum(stage.for_s for stage in stages)

    assert load.mean_hz * duration_s == pytest.approx(_area(traffic, duration_s))
    begins_hz = [start_hz or 0.0, *(stage.rate_hz for stage in stages)]
    held_hz = [max(begins_hz[place], stage.rate_hz) for place, stage in enumerate(stages) if stage.for_s]
    # A stage of no time is a jump: what another jump follows at once was never sent.
    assert load.most_hz == max(*held_hz, stages[-1].rate_hz)


@pytest.mark.parametrize("stages", [[(10.0, 50.0)], [(5.0, 80.0), (0.0, 20.0), (5.0, 20.0)]])
def test_poisson_arrivals_come_by_themselves_at_the_rate(stages: list[tuple[float, float]]) -> None:
    traffic = _staged([Stage(for_s=seconds, rate_hz=rate_hz) for seconds, rate_hz in stages], 50.0)

    counts = [len(_made(load_of(traffic), 10, seed=seed, pattern="poisson")) / 2 for seed in range(200)]

    area = _area(traffic, 10)
    mean = sum(counts) / len(counts)
    assert mean == pytest.approx(area, rel=0.02)
    # As many as the mean is the variance of the two arms' sum: what nobody planned comes in bunches.
    assert sum((2 * count - 2 * mean) ** 2 for count in counts) / len(counts) == pytest.approx(2 * area, rel=0.35)


def test_the_gaps_between_poisson_arrivals_remember_nothing() -> None:
    made = _made(100, 200, pattern="poisson")
    gaps_s = [after.due_s - before.due_s for before, after in itertools.pairwise(made)]

    assert sum(gaps_s) / len(gaps_s) == pytest.approx(1 / 200, rel=0.03)
    for mean_gaps, share in ((0.1, 0.905), (1.0, 0.368), (3.0, 0.050)):
        assert sum(gap > mean_gaps / 200 for gap in gaps_s) / len(gaps_s) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("phase", [Phase.WARMUP, Phase.FAULT, Phase.RECOVERY])
def test_without_control_requests_there_are_none_in_any_phase(phase: Phase) -> None:
    traffic = Traffic(requests=ONE, control=False)

    due = list(arrivals_of(traffic, phase, rate_hz=20.0, duration_s=10.0, rng=random.Random(7)))

    assert {each.arm for each in due} == {Arm.FAULT}
    assert len(due) == pytest.approx(150 if phase is Phase.WARMUP else 200, abs=1)


def test_stages_are_for_the_time_with_the_fault() -> None:
    traffic = _staged([Stage(for_s=4.0, rate_hz=100.0)], None)

    def count(phase: Phase) -> float:
        made = arrivals_of(traffic, phase, rate_hz=50, duration_s=4, rng=random.Random(1))
        return len(list(made)) / 2

    assert count(Phase.FAULT) == pytest.approx(200, abs=1)
    assert count(Phase.RECOVERY) == pytest.approx(200, abs=1)
    assert count(Phase.WARMUP) == pytest.approx(150, abs=1)


def test_after_the_last_stage_its_rate_stays() -> None:
    made = _made(load_of(_staged([Stage(for_s=1.0, rate_hz=100.0)], None)), 3)

    assert len(made) / 2 == pytest.approx(50 + 200, abs=1)


def test_a_rate_that_was_given_is_not_taken_for_none() -> None:
    traffic = Traffic(requests=tuple(ONE), rate_hz=7.0)

    assert [load_of(traffic, rate_hz).most_hz for rate_hz in (None, 0.0, 3.0)] == [7, 0.0, 3.0]
