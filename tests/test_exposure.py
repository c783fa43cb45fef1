"""How many requests met the fault: per request by counting, from calls only as many as is certain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.exposure import Exposure, dose_percent, exposure
from luff.model import Experiment
from luff.samples import Evidence, Failure, Samples
from luff.words import Arm, Phase

MS = 1_000_000
ABORT = {"abort": {"http": 503}}


def experiment(fault: dict[str, Any] | None = None, **evidence: Any) -> Experiment:
    spec = {
        "target": {"host": "stock"},
        "fault": ABORT if fault is None else fault,
        "traffic": {"requests": [{"name": "r", "url": "http://cart/"}]},
        "expect": [{"id": "e", "kind": "errors", "at_most_percent": 1.0}],
        "evidence": evidence,
    }
    return Experiment.model_validate({"metadata": {"name": "e"}, "spec": spec})


def samples(fault: list[tuple[int, int]], control: list[tuple[int, int]] | None = None) -> Samples:
    """Return samples whose requests took so many ms and held so many answers, by arm."""
    made = Samples()
    for arm, rows in ((Arm.FAULT, fault), (Arm.CONTROL, [(5, 0)] * 100 if control is None else control)):
        for took_ms, holds in rows:
            number = made.open(arm, Phase.FAULT, 0, len(made) * MS)
            made.close(number, done_ns=made.due_ns[number] + took_ms * MS, status=200, holds=holds)
    return made


def calls(fired: int) -> Evidence:
    return Evidence("pod-metrics", "aggregate", attempts_total=fired, fired_total=fired)


def test_a_hundred_calls_of_fifty_requests_are_not_a_hundred_requests() -> None:
    # Half of the callers lose the scope; the others try each call twice and answer like their fallback.
    half = samples([(5, 0)] * 50 + [(5, 1)] * 50)
    assert exposure(half, calls(100), experiment()) == Exposure(sent=100, least=50, most=100, fired=100, calls=100)


def test_calls_of_requests_that_all_look_unlike_control_prove_all_of_them() -> None:
    for rows in ([(5, 1)] * 100, [(900, 0)] * 100):
        assert exposure(samples(rows), calls(100), experiment()).least == 100
        assert exposure(samples(rows), calls(300), experiment()).least == 100


def test_no_more_requests_than_calls_met_the_fault_however_different_they_look() -> None:
    assert exposure(samples([(900, 1)] * 100), calls(30), experiment()).least == 30
    assert exposure(samples([(900, 1)] * 100), calls(0), experiment()).least == 0


def test_calls_alone_prove_no_request_where_nothing_differs() -> None:
    met = exposure(samples([(5, 0)] * 100), calls(100), experiment())
    assert (met.least, met.most) == (0, 100)


def test_what_a_request_causes_at_most_makes_calls_into_requests() -> None:
    same = samples([(5, 0)] * 100)
    assert exposure(same, calls(100), experiment(calls_per_request=1)).least == 100
    assert exposure(same, calls(100), experiment(calls_per_request=2)).least == 50
    assert exposure(same, calls(199), experiment(calls_per_request=2)).least == 99


def test_without_control_nothing_differs_from_it() -> None:
    assert exposure(samples([(900, 1)] * 10, []), calls(10), experiment()).least == 0


def test_what_is_luffs_own_fault_is_not_counted() -> None:
    made = samples([(5, 1)] * 2)
    made.close(made.open(Arm.FAULT, Phase.FAULT, 0, 0), done_ns=1, failure=Failure.POOL)
    made.close(made.open(Arm.FAULT, Phase.WARMUP, 0, 0), done_ns=1, status=200)
    made.open(Arm.FAULT, Phase.FAULT, 0, 0)
    assert exposure(made, calls(9), experiment()).sent == 2


@pytest.mark.parametrize(("fired", "least"), [(30, 100), (25, 100), (36, 100), (5, 16), (0, 0)])
def test_with_a_dose_the_count_stands_for_all_requests_when_it_is_what_the_dose_makes(fired: int, least: int) -> None:
    dosed = experiment({"abort": {"http": 503, "percent": 30}})
    assert exposure(samples([(5, 0)] * 100), calls(fired), dosed).least == least


def test_delay_and_abort_draw_apart() -> None:
    both = {"delay": {"duration": "1s", "percent": 50}, "abort": {"http": 503, "percent": 50}}
    assert dose_percent(experiment(both)) == pytest.approx(75)
    assert dose_percent(experiment()) == 100


def test_the_last_resort_counts_what_took_most_of_the_delay_longer_or_came_back_with_the_status() -> None:
    made = samples([(5, 0), (804, 0), (805, 0), (2000, 0)])
    shift = Evidence("latency-shift", "aggregate")
    assert exposure(made, shift, experiment({"delay": {"duration": "1s"}})) == Exposure(4, 2, 2, 2)
    made.close(made.open(Arm.FAULT, Phase.FAULT, 0, 0), done_ns=1, status=503)
    assert exposure(made, shift, experiment()).least == 1


def _aborted(fault: int, control: int, of: int = 100) -> Samples:
    """Return samples of which so many of each arm came back with a 404."""
    made = Samples()
    for arm, count in ((Arm.FAULT, fault), (Arm.CONTROL, control)):
        for place in range(of):
            status = 404 if place < count else 200
            made.close(made.open(arm, Phase.FAULT, 0, 0), done_ns=5 * MS, status=status)
    return made


@pytest.mark.parametrize(
    ("fault", "control", "fired"),
    [(100, 0, 100), (100, 100, 0), (100, 40, 60), (40, 40, 0), (12, 10, 0), (10, 12, 0), (0, 0, 0)],
)
def test_the_last_resort_takes_no_more_for_the_faults_doing_than_control_leaves_over(
    fault: int, control: int, fired: int
) -> None:
    shift = Evidence("latency-shift", "aggregate")
    met = exposure(_aborted(fault, control), shift, experiment({"abort": {"http": 404}}))
    assert (met.least, met.fired) == (fired, fired)


def test_a_service_that_is_slow_by_itself_as_often_as_the_dose_says_met_no_fault() -> None:
    usual = [(300, 0)] * 10 + [(5, 0)] * 90
    dosed = experiment({"delay": {"duration": "200ms", "percent": 10}})
    assert exposure(samples(usual, usual), Evidence("latency-shift", "aggregate"), dosed).least == 0


def test_without_control_the_last_resort_proves_nothing() -> None:
    made = samples([(2000, 0)] * 10, [])
    assert exposure(made, Evidence("latency-shift", "aggregate"), experiment({"delay": {"duration": "1s"}})).least == 0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 4), st.booleans())
def test_no_more_is_claimed_than_met_it(met: list[bool], tries: int, visible: bool) -> None:
    # Requests that the fault missed look exactly like control.
    rows = [(700, 1) if hit and visible else (5, 0) for hit in met]
    counted = calls(sum(met) * tries)
    for each in (None, tries, tries + 1):
        assert exposure(samples(rows), counted, experiment(calls_per_request=each)).least <= sum(met)


def test_the_mean_number_of_calls_is_over_all_that_were_sent() -> None:
    made = samples([(5, 0)] * 4)
    seen = Evidence("lab-log", "request")
    seen.attempts.extend([0, 3, 3, 4])

    assert exposure(made, calls(10), experiment()).calls_per_request == 2.5
    assert exposure(made, seen, experiment()).calls_per_request == 2.5


def test_requests_that_never_reach_the_target_are_in_no_mean() -> None:
    made = samples([(5, 0)] * 40)
    for number in range(20, 40):
        made.request[number] = 1
    seen = Evidence("lab-log", "request")
    seen.attempts.extend([2] * 20 + [0] * 20)

    assert exposure(made, seen, experiment()).calls_per_request == 2.0


@pytest.mark.parametrize(
    ("fault", "evidence"),
    [
        ({"abort": {"http": 503, "percent": 50.0}}, calls(10)),
        (ABORT, Evidence("latency-shift", "aggregate", fired_total=10)),
    ],
    ids=["those that a percentage drew", "no calls"],
)
def test_where_not_every_call_is_counted_there_is_no_mean(fault: dict[str, Any], evidence: Evidence) -> None:
    assert exposure(samples([(5, 0)] * 4), evidence, experiment(fault)).calls_per_request is None


def test_more_calls_than_requests_are_no_mistake_where_a_percentage_draws() -> None:
    met = exposure(samples([(5, 0)] * 4), calls(10), experiment({"abort": {"http": 503, "percent": 50.0}}))

    assert (met.sent, met.least, met.fired) == (4, 4, 10)


def test_of_no_request_there_is_no_mean() -> None:
    assert exposure(samples([]), calls(0), experiment()).calls_per_request is None
