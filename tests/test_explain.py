"""Sentences from what was measured: the give-up in the calls, and a check's numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from luff.checks import PlannedCheck, plan_checks
from luff.explain import give_up, pauses_on, sentence_for
from luff.model import Experiment
from luff.samples import Call
from luff.words import Verdict

TWIN = "luff.1.0123456789abcdef.1700000000.1700000600.0"


def _call(
    workload: str, destination: str, number: int, at_s: float, took_s: float, *, flags: str = "-", **more: Any
) -> Call:
    return Call(
        workload=workload,
        direction=more.get("direction", "outbound"),
        destination=destination,
        path="/",
        number=number,
        started_s=at_s,
        ended_s=at_s + took_s,
        status=0 if "DC" in flags else 200,
        flags=flags,
        route=more.get("route", "default"),
    )


def _impatient(number: int, *, wait_s: float = 3.0, times: int = 2, held_s: float = 7.0) -> list[Call]:
    """Return the calls of bookinfo's own story: productpage gives up on reviews, which still waits for ratings."""
    calls = [_call("productpage", "productpage", number, 100.0 * number, wait_s * times, direction="inbound")]
    for turn in range(times):
        at_s = 100.0 * number + turn * wait_s
        calls.append(_call("productpage", "reviews", number, at_s, wait_s, flags="DC"))
        calls.append(_call("reviews", "ratings", number, at_s + 0.01, held_s, flags="DI,DC", route=TWIN))
    return calls


def test_the_give_up_is_what_the_calls_show() -> None:
    seen = give_up([call for number in range(20) for call in _impatient(number)])
    assert seen is not None
    assert (seen.caller, seen.peer, seen.attempts, seen.seen) == ("productpage", "reviews", 2, 20)
    assert seen.waited_s == pytest.approx(3.0)
    assert (seen.inner, seen.inner_open) == (("reviews", "ratings"), True)
    assert seen.sentence() == (
        "productpage gave up on reviews after 3.0 s × 2, "
        "while the inner call reviews → ratings was still waiting when it was cut"
    )


@pytest.mark.parametrize(
    ("wait_s", "times", "said"), [(3.0, 1, "after 3.0 s,"), (0.25, 3, "after 250 ms × 3,"), (12.34, 1, "after 12.3 s,")]
)
def test_the_numbers_are_the_measured_ones(wait_s: float, times: int, said: str) -> None:
    seen = give_up([call for n in range(5) for call in _impatient(n, wait_s=wait_s, times=times, held_s=20)])
    assert seen is not None
    assert said in seen.sentence()


def test_an_inner_call_that_was_over_is_not_said_to_be_open() -> None:
    seen = give_up([call for number in range(5) for call in _impatient(number, times=1, held_s=1.0)])
    assert seen is not None
    assert not seen.inner_open
    assert seen.sentence() == "productpage gave up on reviews after 3.0 s"


def test_a_give_up_without_a_twin_below_it_names_no_inner_call() -> None:
    calls = [_call("productpage", "reviews", n, 100.0 * n, 3.0, flags="DC") for n in range(5)]
    seen = give_up(calls)
    assert seen is not None
    assert (seen.inner, seen.inner_open) == (None, False)
    assert seen.sentence() == "productpage gave up on reviews after 3.0 s"


@pytest.mark.parametrize(
    "calls",
    [
        [],
        # The direct caller of the twin that gives up in time is no give-up above it.
        [_call("reviews", "ratings", n, 100.0 * n, 2.5, flags="DI,DC", route=TWIN) for n in range(5)],
        [_call("productpage", "reviews", n, 100.0 * n, 3.0, flags="UT") for n in range(5)],
        [_call("productpage", "reviews", n, 100.0 * n, 3.0, flags="DC", direction="inbound") for n in range(5)],
        # Fewer than half of the requests.
        [*_impatient(0), *(_call("productpage", "reviews", n, 100.0 * n, 0.1) for n in range(1, 5))],
    ],
)
def test_what_is_no_give_up_is_not_called_one(calls: list[Call]) -> None:
    assert give_up(calls) is None


def test_the_most_frequent_give_up_is_told() -> None:
    often = [call for number in range(10) for call in _impatient(number)]
    seldom = [call for number in range(10, 13) for call in _impatient(number, times=1, wait_s=9.0, held_s=20)]
    seen = give_up([*seldom, *often])
    assert seen is not None
    assert (seen.attempts, seen.seen) == (2, 10)


def test_the_outermost_caller_is_named() -> None:
    calls = []
    for number in range(5):
        calls += [
            _call("gateway", "productpage", number, 100.0 * number, 3.0, flags="DC"),
            _call("productpage", "reviews", number, 100.0 * number + 0.01, 2.99, flags="DC"),
            _call("reviews", "ratings", number, 100.0 * number + 0.02, 7.0, flags="DI", route=TWIN),
        ]
    seen = give_up(calls)
    assert seen is not None
    assert (seen.caller, seen.peer) == ("gateway", "productpage")


def _check(**expectation: Any) -> PlannedCheck:
    experiment = Experiment.model_validate(
        {
            "metadata": {"name": "cart"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"delay": {"duration": "3s"}},
                "traffic": {"requests": [{"url": "http://checkout/"}]},
                "expect": [{"id": "a-check", **expectation}],
            },
        }
    )
    return plan_checks(experiment, rate_hz=20)[0]


LATENCY = {"kind": "latency", "quantile": 0.99, "limit_s": 1.0}
RECOVERY = {"kind": "recovery", "within_s": 10.0}
PASSED, FAILED, UNDECIDED = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE

SENTENCES: list[tuple[dict[str, Any], Verdict, str | None, dict[str, Any], str]] = [
    (LATENCY, PASSED, None, {"measured": 912.0}, "p99 ≤ 1 s: measured 912 ms, none of 400 requests was against it; this is for violations that come singly: of a service at this limit that has ten in a row, 67 % of such runs would show none"),
    (LATENCY, PASSED, None, {"measured": 912.0, "n": 4000}, "p99 ≤ 1 s: measured 912 ms, none of 4000 requests was against it"),
    (LATENCY, PASSED, None, {"measured": 912.0, "violations": 1}, "p99 ≤ 1 s: measured 912 ms, 1 of 400 requests were against it"),
    (LATENCY, FAILED, None, {"measured": 6021.0, "violations": 400}, "p99 ≤ 1 s: measured 6.02 s, 400 of 400 requests were against it"),
    (LATENCY, FAILED, None, {"violations": 400}, "p99 ≤ 1 s: measured no answer, 400 of 400 requests were against it"),
    (LATENCY, UNDECIDED, "not_enough_samples", {"measured": 9.0, "n": 90}, "p99 ≤ 1 s: measured 9 ms, none of 90 requests was against it; that is not enough to say either way"),
    (LATENCY, UNDECIDED, "not_enough_samples", {"n": 0}, "p99 ≤ 1 s: no request was judged"),
    (LATENCY, UNDECIDED, "dependent_samples", {"violations": 9}, "p99 ≤ 1 s: the 9 violations of 400 come in bursts, so this sample says less than its size"),
    ({"kind": "fallback", "answer": {"status": ["200"]}}, UNDECIDED, "not_discriminating", {}, "fallback ≥ 99 % holds without the fault as well, so it proves nothing"),
    ({"kind": "errors", "at_most_percent": 1.0}, PASSED, None, {"measured": 0.25, "unit": "%", "violations": 1}, "errors ≤ 1 %: measured 0.25 %, 1 of 400 requests were against it"),
    ({"kind": "attempts", "of": "inventory", "at_most": 2}, FAILED, None, {"measured": 7.0, "unit": "attempts", "violations": 400}, "attempts on inventory ≤ 2: measured 7 attempts, 400 of 400 requests were against it"),
    (RECOVERY, PASSED, None, {"measured": 2.0, "unit": "s", "n": 0}, "recovers within 10 s: normal again 2 s after the fault was gone"),
    (RECOVERY, FAILED, None, {"n": 0}, "recovers within 10 s: it was not back to normal in time"),
    (RECOVERY, UNDECIDED, "not_enough_samples", {"n": 0}, "recovers within 10 s: it was not watched for that long"),
]  # fmt: skip


@pytest.mark.parametrize(("expectation", "verdict", "reason", "numbers", "sentence"), SENTENCES)
def test_a_check_is_said_in_one_sentence(
    expectation: dict[str, Any], verdict: Verdict, reason: str | None, numbers: dict[str, Any], sentence: str
) -> None:
    given: dict[str, Any] = {"n": 400, "violations": 0, "measured": None, "unit": "ms", **numbers}
    assert sentence_for(_check(**expectation), verdict, reason, **given) == sentence


def _tries(number: int, *, pause_s: float, times: int = 3, **more: Any) -> list[Call]:
    return [_call("cart", "stock", number, number + turn * (0.2 + pause_s), 0.2, **more) for turn in range(times)]


@pytest.mark.parametrize(
    ("pause_s", "said"),
    [
        (0.0, "again at once (pauses seen: 20, median 0 ms, least 0 ms)"),
        (-0.1, "again at once (pauses seen: 20, median 0 ms, least 0 ms)"),
        (0.009, "again at once (pauses seen: 20, median 9 ms, least 9 ms)"),
        (0.1, "again after 100 ms (pauses seen: 20, median 100 ms, least 100 ms)"),
    ],
)
def test_calls_that_are_made_again_without_a_pause_are_told_from_those_that_back_off(pause_s: float, said: str) -> None:
    seen = pauses_on([call for number in range(10) for call in _tries(number, pause_s=pause_s, route=TWIN)], None)

    assert seen is not None
    assert said in seen.sentence()


def test_the_median_and_the_least_pause_are_the_measured_ones() -> None:
    growing = [_call("cart", "stock", 1, at_s, 0.1, route=TWIN) for at_s in (1.7, 0.0, 0.2, 0.5)]

    seen = pauses_on(growing, None)

    assert seen is not None
    assert seen.seen == 3
    assert (seen.least_s, seen.median_s) == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize(
    "other",
    [
        _call("cart", "stock", 2, 1.0, 0.2, route=TWIN),
        _call("till", "stock", 1, 1.0, 0.2, route=TWIN),
        replace(_call("cart", "stock", 1, 1.0, 0.2, route=TWIN), path="/other"),
        _call("cart", "till", 1, 1.0, 0.2),
    ],
    ids=["of another request", "of another workload", "of another path", "on another hop"],
)
def test_a_call_that_stands_for_itself_is_no_further_try(other: Call) -> None:
    assert pauses_on([_call("cart", "stock", 1, 0.0, 0.2, route=TWIN), other], None) is None


def test_pauses_on_another_hop_are_those_of_its_callers() -> None:
    calls = [*_tries(1, pause_s=0.5), *_tries(1, pause_s=0.1, direction="inbound"), *_tries(2, pause_s=0.0)[:1]]

    seen = pauses_on(calls, "stock.shop")

    assert seen is not None
    assert seen.seen == 2
    assert seen.median_s == pytest.approx(0.5)
