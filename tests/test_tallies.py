"""Counting while traffic runs: the order of reading, who is judged, the tripwire on control, and recovery."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff import stats
from luff.checks import PlannedCheck, plan_checks
from luff.model import Experiment
from luff.recovery import Recovery, recovery_of
from luff.samples import Evidence, Failure, Flag, Samples
from luff.tallies import READ_MOST, WEIGHED_MOST, Judge, Tally, comparison_size, sequential_verdict
from luff.words import Arm, Phase
from tests.factories import first_decision

MS = 1_000_000
S = 1000 * MS
LATENCY = {"kind": "latency", "quantile": 0.99, "limit_s": 1.0}
FALLBACK = {"kind": "fallback", "answer": {"status": ["200"]}}


def _checks(*expect: dict[str, Any], **spec: Any) -> tuple[PlannedCheck, ...]:
    experiment = Experiment.model_validate(
        {
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"delay": {"duration": "3s"}},
                "traffic": {"requests": [{"url": "http://checkout/cart/42"}], "duration": "100s"},
                "expect": [{"id": f"check-{place}", **each} for place, each in enumerate(expect)],
                **spec,
            },
        }
    )
    return plan_checks(experiment, rate_hz=20.0)


def _add(
    samples: Samples,
    count: int = 1,
    *,
    arm: Arm = Arm.FAULT,
    phase: Phase = Phase.FAULT,
    latency_ms: float = 10,
    every_ms: float = 5,
    at_ms: float | None = None,
    **row: Any,
) -> None:
    """Add decided requests, the first at *at_ms* or right after the last one."""
    for step in range(count):
        last_ms = samples.due_ns[-1] / MS if len(samples) else -every_ms
        due_ms = last_ms + every_ms if at_ms is None else at_ms + step * every_ms
        number = samples.open(arm, phase, 0, round(due_ms * MS))
        samples.sent_ns[number] = samples.due_ns[number]
        samples.close(number, done_ns=round((due_ms + latency_ms) * MS), **({"status": 200, "holds": 1} | row))


def _evidence(samples: Samples, **changes: Any) -> Evidence:
    """Return evidence that every request took the twin as often as it should."""
    evidence = Evidence("lab-log", "request", settled_through=len(samples))
    evidence.attempts.extend(int(samples.arm[n] == 0) for n in range(len(samples)))
    evidence.fired.extend([0] * len(samples))
    for name, value in changes.items():
        setattr(evidence, name, value)
    return evidence


def _fed(checks: Sequence[PlannedCheck], samples: Samples, **changes: Any) -> Judge:
    judge = Judge(tuple(checks))
    judge.feed(samples, _evidence(samples, **changes))
    return judge


def test_nothing_is_read_past_the_oldest_undecided_request() -> None:
    samples = Samples()
    _add(samples, 10)
    samples.open(Arm.FAULT, Phase.FAULT, 0, samples.due_ns[-1] + MS)
    _add(samples, 400)
    judge = Judge(_checks(LATENCY))
    assert not judge.feed(samples, _evidence(samples))
    assert judge.tallies["check-0"].n == 10
    samples.close(10, done_ns=samples.due_ns[10] + 3 * S, status=200)
    assert judge.feed(samples, _evidence(samples)) is False
    assert (judge.tallies["check-0"].n, judge.tallies["check-0"].positions) == (411, [11])


def test_nothing_is_read_before_its_evidence_is_in() -> None:
    samples = Samples()
    _add(samples, 400)
    judge = Judge(_checks(LATENCY))
    assert not judge.feed(samples, _evidence(samples, settled_through=327))
    assert judge.tallies["check-0"].n == 327
    assert judge.feed(samples, _evidence(samples, settled_through=328))
    # Where there is evidence by the number only, there is nothing to wait for.
    assert Judge(_checks(LATENCY)).feed(samples, Evidence("istio", "aggregate"))


def test_each_request_is_read_once() -> None:
    samples = Samples()
    _add(samples, 50)
    judge = Judge(_checks(LATENCY))
    for _ in range(3):
        judge.feed(samples, _evidence(samples))
    assert judge.tallies["check-0"].n == 50


def _broken(rng: random.Random, slow: float, *, rate_hz: float = 200.0, count: int = 3000) -> list[tuple[int, int]]:
    """Return the due and done times of a service without a timeout, of whose answers a share takes 3 s."""
    due = [round(place * S / rate_hz) for place in range(count)]
    return [(at, at + (3 * S if rng.random() < slow else 10 * MS)) for at in due]


@pytest.mark.parametrize("slow", [0.02, 0.05, 0.2])
def test_completion_order_would_pass_a_broken_service_and_due_order_does_not(slow: float) -> None:
    rng = random.Random(7)
    check = _checks(LATENCY)[0]
    passed_by_completion = passed_by_due = 0
    for _ in range(20):
        rows = _broken(rng, slow)
        by_completion = [done - due > S for due, done in sorted(rows, key=lambda row: row[1])]
        places = [place for place, violates in enumerate(by_completion, start=1) if violates]
        decided = first_decision(places, len(rows), 0.01)
        passed_by_completion += decided is not None and decided[0] == "passed"
        # Ours reads while it happens: after each half second only what is decided by then.
        samples = Samples()
        for due, _done in rows:
            samples.open(Arm.FAULT, Phase.FAULT, 0, due)
        judge, opened, now = Judge((check,)), list(enumerate(rows)), 0
        while opened:
            now += S // 2
            for number, (_due, done) in [row for row in opened if row[1][1] <= now]:
                samples.close(number, done_ns=done, status=200)
            opened = [row for row in opened if row[1][1] > now]
            if judge.feed(samples, _evidence(samples)):
                break
        tally = judge.tallies[check.id]
        ours = first_decision(tally.positions, tally.n, 0.01)
        passed_by_due += ours is not None and ours[0] == "passed"
    assert passed_by_completion == 20
    assert passed_by_due == 0


@pytest.mark.parametrize("failure", [failure for failure in Failure if failure.ours])
def test_what_the_generator_did_itself_is_judged_by_nobody(failure: Failure) -> None:
    samples = Samples()
    _add(samples, 30)
    _add(samples, 30, failure=failure, status=0, holds=0)
    _add(samples, 30, arm=Arm.CONTROL, failure=failure, status=0, holds=0)
    judge = _fed(_checks(LATENCY, {**LATENCY, "arm": "control"}), samples)
    assert (judge.tallies["check-0"].n, judge.tallies["check-0"].positions) == (30, [])
    assert "check-1" not in judge.tallies
    assert not judge.breached


def test_only_requests_that_took_the_twin_are_judged() -> None:
    samples = Samples()
    _add(samples, 100)
    evidence = _evidence(samples)
    evidence.attempts[3] = 0
    judge = Judge(_checks(LATENCY))
    judge.feed(samples, evidence)
    assert judge.tallies["check-0"].n == 99
    # Where nobody can tell which ones did, all are.
    judge = _fed(_checks(LATENCY), samples, per="aggregate")
    assert judge.tallies["check-0"].n == 100


@pytest.mark.parametrize(
    ("row", "counted"),
    [
        ({"status": 503}, True),
        ({"failure": Failure.DEADLINE, "status": 0, "latency_ms": 11_000}, True),
        ({"failure": Failure.RESET, "status": 0}, True),
        ({"failure": Failure.POOL, "status": 0}, False),
        ({"failure": Failure.RESOLVE, "status": 0}, False),
        ({"failure": Failure.CUT, "status": 0}, False),
        ({"status": 200}, False),
        ({"status": 404}, False),
    ],
)
def test_an_error_counts_wherever_it_comes_from_and_what_the_generator_did_never(
    row: dict[str, Any], *, counted: bool
) -> None:
    samples = Samples()
    _add(samples, 30)
    _add(samples, 5, **row)
    evidence = _evidence(samples)
    evidence.attempts[30:] = array("H", [0] * 5)
    judge = Judge(_checks({"kind": "errors", "at_most_percent": 1.0}))
    judge.feed(samples, evidence)
    tally = judge.tallies["check-0"]
    assert (tally.n, tally.positions) == ((35, [31, 32, 33, 34, 35]) if counted else (30, []))


def test_a_whole_answer_in_place_of_a_fallback_is_fine_where_no_fault_was_met() -> None:
    samples = Samples()
    _add(samples, 100)
    _add(samples, 50, holds=0)
    evidence = _evidence(samples)
    evidence.attempts[100:] = array("H", [0] * 50)
    judge = Judge(_checks(FALLBACK))
    judge.feed(samples, evidence)
    assert (judge.tallies["check-0"].n, judge.tallies["check-0"].positions) == (100, [])


STREAM = st.lists(st.sampled_from(["holds", "violates", "unexposed error", "left out"]), max_size=400)


@settings(max_examples=150)
@given(stream=STREAM, threshold=st.sampled_from([0.05, 0.1, 0.3, 0.5]), every=st.integers(1, 50))
def test_the_evidence_kept_is_the_strongest_of_every_moment(stream: list[str], threshold: float, every: int) -> None:
    tally, most_pass, most_fail = Tally(threshold), 0.0, 0.0
    k = n = left_out = unexposed = 0
    for place, kind in enumerate(stream, start=1):
        if kind in ("holds", "violates"):
            tally.add_all((0,) if kind == "violates" else (), 1)
        else:
            tally.add_unexposed(counts=kind == "unexposed error")
        if place % every == 0:
            tally.weigh()
        k += kind in ("violates", "unexposed error")
        n += kind != "left out"
        unexposed += kind == "unexposed error"
        left_out += kind == "left out"
        most_pass = max(most_pass, stats.log_e_pass(k, n, threshold))
        among = [(k - unexposed, n - unexposed), (k, n + left_out)]
        found = [
            math.exp(stats.log_e_fail(*each, threshold))
            if each[1] >= stats.FAIL_FLOOR and n >= stats.FAIL_FLOOR
            else 0.0
            for each in among
        ]
        most_fail = max(most_fail, math.log(sum(found) / 2)) if sum(found) else most_fail
    tally.weigh()
    for kept, most, worth in (
        (tally.log_e_pass, most_pass, math.log(20)),
        (tally.log_e_fail, most_fail, -math.log(0.005)),
    ):
        assert (kept >= worth) is (most >= worth - 1e-9) or kept == pytest.approx(most, abs=1e-6)
        if worth <= most < 40:
            assert kept == pytest.approx(most, abs=1e-6)


def test_usual_errors_where_nothing_fires_do_not_blame_the_few_that_met_the_fault() -> None:
    # A breaker lets one request in 20 through; half a percent of everything fails, as it always does.
    failed = 0
    for seed in range(200):
        rng, samples, attempts = random.Random(seed), Samples(), array("H")
        for _ in range(3000):
            attempts.append(rng.random() < 0.05)
            _add(samples, status=500 if rng.random() < 0.005 else 200)
        judge = Judge(_checks({"kind": "errors", "at_most_percent": 1.0}))
        judge.feed_all(samples, _evidence(samples, attempts=attempts))
        check = judge.checks[0]
        failed += sequential_verdict(check, judge.tallies[check.id], alpha_fail=check.alpha_fail) == "failed"
    assert failed <= 2


def test_what_meets_the_fault_and_fails_is_not_excused_by_what_never_met_it() -> None:
    samples = Samples()
    for _ in range(60):
        _add(samples, status=500)
        _add(samples, 99)
    evidence = _evidence(samples)
    for number in range(len(samples)):
        evidence.attempts[number] = samples.status[number] == 500
    judge = Judge(_checks({"kind": "errors", "at_most_percent": 2.0}))
    judge.feed_all(samples, evidence)
    assert sequential_verdict(judge.checks[0], judge.tallies["check-0"], alpha_fail=0.005) == "failed"


def test_a_look_reads_and_weighs_no_more_than_its_most_and_the_rest_comes_later() -> None:
    rng, samples = random.Random(3), Samples()
    for _ in range(3 * READ_MOST):
        _add(samples, latency_ms=2000 if rng.random() < 0.55 else 10)
    judge = Judge(_checks({**LATENCY, "quantile": 0.5}, {"kind": "errors", "at_most_percent": 1.0}))
    evidence, looks = _evidence(samples), 0
    read = weighed = 0
    while looks == 0 or judge.behind:
        judge.feed(samples, evidence)
        looks += 1
        now = sum(tally.weighed for tally in judge.tallies.values())
        assert judge.read - read <= READ_MOST
        assert now - weighed <= 2 * WEIGHED_MOST
        read, weighed = judge.read, now
    whole = Judge(judge.checks)
    whole.feed_all(samples, evidence)
    assert read == len(samples)
    assert looks > 3
    assert [t.positions for t in whole.tallies.values()] == [t.positions for t in judge.tallies.values()]
    for ours, all_at_once in zip(judge.tallies.values(), whole.tallies.values(), strict=True):
        assert ours.log_e_fail == pytest.approx(all_at_once.log_e_fail)


def test_evidence_of_a_service_near_its_threshold_is_hardly_ever_computed() -> None:
    rng, samples = random.Random(3), Samples()
    _add(samples, 20_000)
    for number in range(len(samples)):
        samples.status[number] = 500 if rng.random() < 0.5 else 200
    judge = Judge(_checks({"kind": "errors", "at_most_percent": 50.0}))
    judge.feed_all(samples, _evidence(samples))
    tally = judge.tallies["check-0"]
    assert len(tally.positions) > 9000
    assert tally.weighed < 200


@pytest.mark.parametrize("phase", [Phase.WARMUP, Phase.RECOVERY])
def test_warm_up_and_recovery_are_not_judged(phase: Phase) -> None:
    samples = Samples()
    _add(samples, 100, phase=phase, latency_ms=5000)
    assert not _fed(_checks(LATENCY), samples).tallies


def test_a_check_counts_its_own_arm_and_a_comparison_the_other_too() -> None:
    samples = Samples()
    _add(samples, 5, phase=Phase.WARMUP)
    _add(samples, 5, phase=Phase.WARMUP, arm=Arm.CONTROL)
    _add(samples, 40, holds=1)
    _add(samples, 30, arm=Arm.CONTROL, holds=0)
    judge = _fed(
        _checks(LATENCY, {**LATENCY, "arm": "control"}, FALLBACK, {"kind": "noWorseThan"}),
        samples,
    )
    assert [judge.tallies[f"check-{place}"].n for place in range(4)] == [40, 30, 40, 40]
    assert {name: tally.n for name, tally in judge.controls.items()} == {"check-2": 30, "check-3": 30}
    assert len(judge.controls["check-2"].positions) == 30


def test_who_is_compared_with_itself_is_compared_with_its_warm_up_and_not_with_the_other_arm() -> None:
    samples = Samples()
    _add(samples, 20, phase=Phase.WARMUP, arm=Arm.CONTROL, latency_ms=10)
    _add(samples, 20, phase=Phase.WARMUP, latency_ms=1000)
    for _ in range(100):
        _add(samples, arm=Arm.CONTROL, latency_ms=40)
        _add(samples, latency_ms=3000)
    judge = _fed(_checks({"kind": "noWorseThan", "arm": "control", "than": "control"}), samples)
    assert len(judge.tallies["check-0"].positions) == 100
    assert not judge.controls


BESIDE_ITSELF = {"kind": "noWorseThan", "arm": "control", "than": "control", "by_percent": 5.0}


def _beside_itself(
    rng: random.Random, usual: Callable[[random.Random], float], warm: int, *, slower: float = 1
) -> Judge:
    """Return what was counted of bystanders that are compared with *warm* requests, and by now are *slower* by a factor."""
    samples = Samples()
    for _ in range(warm):
        _add(samples, phase=Phase.WARMUP, arm=Arm.CONTROL, latency_ms=usual(rng))
    for _ in range(400):
        _add(samples, arm=Arm.CONTROL, latency_ms=slower * usual(rng))
    judge = Judge(_checks(BESIDE_ITSELF))
    judge.feed_all(samples, _evidence(samples))
    return judge


def _failed(judge: Judge) -> bool:
    return (
        sequential_verdict(judge.checks[0], judge.tallies["check-0"], alpha_fail=judge.checks[0].alpha_fail) == "failed"
    )


def _now_and_then(share: float) -> Callable[[random.Random], float]:
    return lambda rng: (200 if rng.random() < share else 20) * rng.uniform(0.8, 1.2)


def _long_tailed(rng: random.Random) -> float:
    return 20 * rng.lognormvariate(0, 1)


@pytest.mark.parametrize(
    ("usual", "warm"),
    [
        (_now_and_then(0.08), 45), (_now_and_then(0.1), 45), (_now_and_then(0.2), 5), (_now_and_then(0.06), 104),
        (_long_tailed, 45), (_long_tailed, 22), (_long_tailed, 11), (_long_tailed, 5),
    ],
)  # fmt: skip
def test_who_is_as_before_is_not_failed_for_a_short_warm_up(usual: Callable[[random.Random], float], warm: int) -> None:
    rng = random.Random(7)
    assert sum(_failed(_beside_itself(rng, usual, warm)) for _ in range(100)) <= 1


@pytest.mark.parametrize("warm", [2, 5, 45, 104])
def test_who_is_ten_times_slower_is_failed_however_short_the_warm_up(warm: int) -> None:
    rng = random.Random(7)
    assert all(_failed(_beside_itself(rng, lambda rng: rng.uniform(15, 25), warm, slower=10)) for _ in range(20))


def test_the_baseline_is_the_warm_up_of_each_arm() -> None:
    samples = Samples()
    _add(samples, 19, phase=Phase.WARMUP, latency_ms=100)
    _add(samples, 1, phase=Phase.WARMUP, latency_ms=5000)
    _add(samples, 3, phase=Phase.WARMUP, failure=Failure.DEADLINE, status=0, latency_ms=9000)
    _add(samples, 20, phase=Phase.WARMUP, arm=Arm.CONTROL, latency_ms=10)
    _add(samples, 10, latency_ms=150)
    _add(samples, 10, latency_ms=151)
    _add(samples, 10, arm=Arm.CONTROL, latency_ms=16)
    judge = _fed(_checks({"kind": "noWorseThan"}), samples)
    assert judge.tallies["check-0"].positions == list(range(11, 21))
    assert len(judge.controls["check-0"].positions) == 10


def test_feeding_ends_when_every_check_has_decided() -> None:
    samples = Samples()
    _add(samples, 328)
    control = {**LATENCY, "arm": "control"}
    assert Judge(_checks(LATENCY)).feed(samples, _evidence(samples))
    assert not Judge(_checks(LATENCY, control)).feed(samples, _evidence(samples))
    _add(samples, 328, arm=Arm.CONTROL)
    assert Judge(_checks(LATENCY, control)).feed(samples, _evidence(samples))
    # A fixed sample has its size, and recovery its own time.
    assert not Judge(_checks(LATENCY, stop_early=False)).feed(samples, _evidence(samples))
    assert Judge(_checks(LATENCY, {"kind": "recovery", "within_s": 5.0})).feed(samples, _evidence(samples))
    assert not Judge(()).feed(samples, _evidence(samples))


def test_where_only_calls_are_counted_a_pass_is_waited_for_until_it_holds_for_those_that_met_the_fault() -> None:
    samples = Samples()
    judge = Judge(_checks(LATENCY), met_least=0.5)
    decided = []
    for _ in range(7):
        _add(samples, 100)
        decided.append(judge.feed(samples, Evidence("pod-metrics", "aggregate")))
    assert decided == [False] * 6 + [True]


def test_a_service_without_a_timeout_is_failed_within_30_requests() -> None:
    samples = Samples()
    judge = Judge(_checks(LATENCY, FALLBACK, {"kind": "errors", "at_most_percent": 1.0}))
    while not judge.feed(samples, _evidence(samples)):
        _add(samples, latency_ms=3000, status=500, holds=0)
    assert len(samples) <= 30


def test_a_failure_that_would_not_stand_among_many_checks_is_waited_for() -> None:
    one, many = _checks(LATENCY), _checks(LATENCY, *[{"kind": "recovery", "within_s": 5.0}] * 300)
    counted = next(n for n in range(1, 7) if stats.log_e_fail(n, 20 + n, 0.01) >= -math.log(0.005))
    samples = Samples()
    _add(samples, 20)
    _add(samples, counted, latency_ms=2000)
    assert Judge(one).feed(samples, _evidence(samples))
    assert not Judge(many).feed(samples, _evidence(samples))


def test_a_comparison_is_made_at_its_size() -> None:
    check = _checks({"kind": "noWorseThan"})[0]
    assert comparison_size(check) == 4 * 72
    assert comparison_size(_checks({"kind": "noWorseThan", "by_percent": 0.5})[0]) == 2000
    samples = Samples()
    _add(samples, 20, phase=Phase.WARMUP)
    _add(samples, 20, phase=Phase.WARMUP, arm=Arm.CONTROL)
    _add(samples, 288)
    _add(samples, 287, arm=Arm.CONTROL)
    judge = Judge((check,))
    assert not judge.feed(samples, _evidence(samples))
    _add(samples, 1, arm=Arm.CONTROL)
    assert judge.feed(samples, _evidence(samples))


@pytest.mark.parametrize("chunk", [1, 7, 2000])
def test_what_comes_after_a_comparison_has_its_size_is_not_compared_however_long_other_checks_take(chunk: int) -> None:
    samples, attempts = Samples(), array("H")
    _add(samples, 20, phase=Phase.WARMUP)
    _add(samples, 20, phase=Phase.WARMUP, arm=Arm.CONTROL)
    attempts.extend([0] * 40)
    for place in range(600):
        # One request in six is kept from the fault, and its errors count.
        attempts.extend([place % 6 != 0, 0])
        _add(samples, status=500 if place % 12 == 0 or place > 400 else 200)
        _add(samples, arm=Arm.CONTROL, status=500 if place > 300 else 200)
    judge = Judge(_checks({"kind": "noWorseThan"}))
    for settled in range(0, len(samples) + chunk, chunk):
        judge.feed(samples, _evidence(samples, attempts=attempts, settled_through=min(settled, len(samples))))
    tally, other = judge.tallies["check-0"], judge.controls["check-0"]

    assert (tally.met, other.n) == (288, 288)
    assert (tally.unexposed, len(tally.positions)) == (29, 29)
    assert not other.positions


@pytest.mark.parametrize(
    "row", [{"status": 503}, {"failure": Failure.DEADLINE, "status": 0}, {"failure": Failure.RESET, "status": 0}]
)
def test_control_that_errs_more_than_declared_trips(row: dict[str, Any]) -> None:
    samples = Samples()
    _add(samples, 20, arm=Arm.CONTROL)
    assert not _fed(_checks(LATENCY), samples).breached
    _add(samples, 12, arm=Arm.CONTROL, **row)
    assert _fed(_checks(LATENCY), samples).breached


def test_the_tripwire_knows_what_is_normal_and_never_stops_watching() -> None:
    samples = Samples()
    for _ in range(50):
        _add(samples, 19, arm=Arm.CONTROL)
        _add(samples, 1, arm=Arm.CONTROL, status=500)
    assert not _fed(_checks(LATENCY), samples).breached
    judge = _fed(_checks(LATENCY), samples)
    _add(samples, 100, arm=Arm.CONTROL, status=500)
    judge.feed(samples, _evidence(samples))
    assert judge.breached
    _add(samples, 1000, arm=Arm.CONTROL)
    judge.feed(samples, _evidence(samples))
    assert judge.breached


def test_a_client_error_or_a_broken_fault_arm_does_not_trip_it() -> None:
    samples = Samples()
    _add(samples, 200, arm=Arm.CONTROL, status=404)
    _add(samples, 200, status=500)
    assert not _fed(_checks(LATENCY), samples).breached


def _undecided_before_failing_control(arm: Arm | None) -> Samples:
    """Return a control arm that fails at once, behind a request of *arm* that hangs."""
    samples = Samples()
    if arm is not None:
        samples.open(arm, Phase.FAULT, 0, 0)
    _add(samples, 20, arm=Arm.CONTROL, status=503, every_ms=50)
    return samples


@pytest.mark.parametrize("hanging", [None, Arm.FAULT, Arm.CONTROL])
@pytest.mark.parametrize("settled", [0, 1 << 40])
def test_neither_a_hanging_request_nor_evidence_to_come_blinds_the_tripwire(hanging: Arm | None, settled: int) -> None:
    samples = _undecided_before_failing_control(hanging)
    judge = Judge(_checks(LATENCY))
    for _ in range(2):
        judge.feed(samples, _evidence(samples, settled_through=settled))
        assert judge.breached


def test_errors_that_come_sooner_than_answers_do_not_trip_what_is_usual() -> None:
    tripped = 0
    for seed in range(100):
        rng, samples, judge = random.Random(seed), Samples(), Judge(_checks(LATENCY))
        waiting: list[tuple[int, int]] = []
        for place in range(600):
            at = place * 50 * MS
            number = samples.open(Arm.CONTROL, Phase.FAULT, 0, at)
            if rng.random() < 0.05:
                samples.close(number, done_ns=at + MS, status=503)
            else:
                waiting.append((at + 5 * S, number))
            while waiting and waiting[0][0] <= at:
                done_ns, answered = waiting.pop(0)
                samples.close(answered, done_ns=done_ns, status=200)
            if place % 5 == 0:
                judge.feed(samples, Evidence("lab-log", "request"))
        tripped += judge.breached
    assert tripped <= 1


def test_the_tripwire_sees_the_same_in_many_looks_as_in_one() -> None:
    rng, samples, many = random.Random(5), Samples(), Judge(_checks(LATENCY))
    hanging: list[int] = []
    for place in range(400):
        number = samples.open(Arm.CONTROL, Phase.FAULT, 0, place * 50 * MS)
        if rng.random() < 0.1:
            hanging.append(number)
        else:
            samples.close(number, done_ns=place * 50 * MS + MS, status=500 if rng.random() < 0.04 else 200)
        if len(hanging) > 3:
            samples.close(hanging.pop(0), done_ns=place * 50 * MS, failure=Failure.CUT)
        many.feed(samples, Evidence("lab-log", "request"))
    for number in hanging:
        samples.close(number, done_ns=30 * S, status=200)
    while not many.breached:
        _add(samples, arm=Arm.CONTROL, status=500)
        many.feed(samples, Evidence("lab-log", "request"))
        once = Judge(_checks(LATENCY))
        once.feed_all(samples, Evidence("lab-log", "request"))
        assert once.breached is many.breached


Window = Callable[[Samples, int], None]


def _like_before(samples: Samples, at_ms: int) -> None:
    for step in range(0, 1000, 100):
        _add(samples, arm=Arm.CONTROL, phase=Phase.RECOVERY, at_ms=at_ms + step, latency_ms=20)
        _add(samples, phase=Phase.RECOVERY, at_ms=at_ms + step, latency_ms=25)


def _slow(samples: Samples, at_ms: int) -> None:
    for step in range(0, 1000, 100):
        _add(samples, arm=Arm.CONTROL, phase=Phase.RECOVERY, at_ms=at_ms + step, latency_ms=20)
        _add(samples, phase=Phase.RECOVERY, at_ms=at_ms + step, latency_ms=51)


def _failing(share: int, **row: Any) -> Window:
    def window(samples: Samples, at_ms: int) -> None:
        for step in range(0, 1000, 10):
            _add(samples, arm=Arm.CONTROL, phase=Phase.RECOVERY, at_ms=at_ms + step)
            _add(samples, phase=Phase.RECOVERY, at_ms=at_ms + step, **(row if step < share * 10 else {}))

    return window


def _both_failing(samples: Samples, at_ms: int) -> None:
    for step in range(0, 1000, 100):
        for arm in Arm:
            _add(samples, arm=arm, phase=Phase.RECOVERY, at_ms=at_ms + step, status=500 if step < 300 else 200)


def _one_arm(arm: Arm) -> Window:
    return lambda samples, at_ms: _add(samples, 10, arm=arm, phase=Phase.RECOVERY, at_ms=at_ms, every_ms=100)


def _hanging(samples: Samples, at_ms: int) -> None:
    _like_before(samples, at_ms)
    samples.open(Arm.FAULT, Phase.RECOVERY, 0, (at_ms + 999) * MS)


def _cut(samples: Samples, at_ms: int) -> None:
    _like_before(samples, at_ms)
    _add(samples, phase=Phase.RECOVERY, at_ms=at_ms + 999, failure=Failure.CUT, status=0)


RECOVERIES: list[tuple[str, list[Window], float | None]] = [
    ("at once", [_like_before] * 4, 0),
    ("after two seconds", [_slow, _slow, *[_like_before] * 4], 2),
    ("three in a row, not three in all", [_like_before, _slow, _like_before, _like_before, _slow, _slow], None),
    ("interrupted, and then for good", [_like_before, _slow, *[_like_before] * 4], 2),
    ("the third window is not over", [_like_before] * 3, None),
    ("never", [_slow] * 12, None),
    ("too late", [*[_slow] * 3, *[_like_before] * 4], None),
    ("errors as before", [_both_failing] * 4, 0),
    ("two points more errors than control", [_failing(2, status=500)] * 4, 0),
    ("three points more errors than control", [_failing(3, status=500)] * 4, None),
    ("failures are errors", [_failing(3, status=0, failure=Failure.CONNECT)] * 4, None),
    ("client errors are none", [_failing(50, status=404)] * 4, 0),
    ("the generator's own failures are nobody's", [_failing(50, status=0, failure=Failure.POOL)] * 4, 0),
    ("nothing on the fault arm", [_one_arm(Arm.CONTROL)] * 4, None),
    ("nothing to compare with", [_one_arm(Arm.FAULT)] * 4, None),
    ("a request that still hangs", [_hanging] * 4, None),
    ("a request that was cut", [_cut] * 4, None),
]


@pytest.mark.parametrize(("what", "windows", "after_s"), RECOVERIES, ids=[what for what, *_ in RECOVERIES])
def test_recovery_is_three_windows_in_a_row(what: str, windows: list[Window], after_s: float | None) -> None:
    samples = Samples()
    removed_ms = 7300
    _add(samples, phase=Phase.RECOVERY, at_ms=removed_ms - 100, latency_ms=5000)
    for index, window in enumerate(windows):
        window(samples, removed_ms + 1000 * index)
    found = recovery_of(samples, removed_ns=removed_ms * MS, within_s=5.9).time_ns
    assert found == (None if after_s is None else after_s * S)
    judge = Judge(_checks({"kind": "recovery", "within_s": 5.9}))
    assert judge.recovered(samples, removed_ns=removed_ms * MS) is (after_s is not None)
    assert judge.recovery_most_s == 5.9


@pytest.mark.parametrize("errors", [0.02, 0.05, 0.2])
def test_arms_that_err_alike_are_hardly_ever_failed_for_not_recovering(errors: float) -> None:
    rng, failed = random.Random(7), 0
    for _ in range(100):
        samples = Samples()
        for place in range(11 * 20):
            for arm in Arm:
                status = 503 if rng.random() < errors else 200
                _add(
                    samples,
                    arm=arm,
                    phase=Phase.RECOVERY,
                    at_ms=50 * place,
                    latency_ms=rng.uniform(5, 50),
                    status=status,
                )
        failed += recovery_of(samples, removed_ns=0, within_s=10).disproved(stats.ALPHA_FAIL)
    assert failed <= 1


@pytest.mark.parametrize(
    ("windows", "disproved"),
    [
        ([_slow] * 6, True),
        ([_failing(20, status=500)] * 6, True),
        ([_failing(3, status=500)] * 6, False),
        ([_like_before, _like_before, _slow, _like_before, _like_before, _slow], True),
        ([_slow, _slow, *[_like_before] * 4], False),
        ([_both_failing] * 6, False),
        ([_one_arm(Arm.FAULT)] * 6, False),
        ([_slow] * 3, False),
    ],
)
def test_what_is_worse_than_control_by_more_than_chance_did_not_recover(
    windows: list[Window], *, disproved: bool
) -> None:
    samples = Samples()
    for index, window in enumerate(windows):
        window(samples, 1000 * index)
    assert recovery_of(samples, removed_ns=0, within_s=5).disproved(stats.ALPHA_FAIL) is disproved


def test_recovery_has_to_come_within_its_time() -> None:
    samples = Samples()
    for index, window in enumerate([_slow, _slow, *[_like_before] * 4]):
        window(samples, 1000 * index)
    assert recovery_of(samples, removed_ns=0, within_s=5.0).time_ns == 2 * S
    assert recovery_of(samples, removed_ns=0, within_s=4.9).time_ns is None


def test_recovery_is_watched_when_nothing_unseen_could_have_been_it() -> None:
    samples = Samples()
    assert not recovery_of(samples, removed_ns=0, within_s=3).watched
    for index in range(3):
        _slow(samples, 1000 * index)
    assert recovery_of(samples, removed_ns=0, within_s=4.9).watched
    assert not recovery_of(samples, removed_ns=0, within_s=5).watched
    # Three seconds before the traffic began.
    assert not recovery_of(samples, removed_ns=-3 * S, within_s=3).watched
    assert recovery_of(samples, removed_ns=-2 * S, within_s=4).watched


@pytest.mark.parametrize("window", [_hanging, _cut, _one_arm(Arm.FAULT), _one_arm(Arm.CONTROL)])
def test_what_is_not_known_is_no_recovery_and_no_failure(window: Window) -> None:
    samples = Samples()
    for index in range(4):
        window(samples, 1000 * index)
    assert recovery_of(samples, removed_ns=0, within_s=3).time_ns is None
    assert not recovery_of(samples, removed_ns=0, within_s=3).watched


def test_a_look_at_recovery_takes_in_only_what_is_new_and_ends_where_one_look_would() -> None:
    samples, looks = Samples(), Recovery(0, 5.9)
    _add(samples, 500, at_ms=-10_000)
    for index, window in enumerate([_slow, _hanging, *[_like_before] * 4]):
        looks.look(samples)
        window(samples, 1000 * index)
        if window is _hanging:
            hanging = len(samples) - 1
    looks.look(samples)
    assert looks.time_ns is None or looks.time_ns == 2 * S
    samples.close(hanging, done_ns=samples.due_ns[hanging] + 20 * MS, status=200)
    looks.look(samples)
    whole = recovery_of(samples, removed_ns=0, within_s=5.9)
    assert (looks.time_ns, looks.watched, looks.windows) == (whole.time_ns, whole.watched, whole.windows)
    assert whole.windows == (5, 1)
    assert whole.time_ns == 1 * S


def test_nobody_asked_for_recovery() -> None:
    judge = Judge(_checks(LATENCY))
    assert judge.recovery_most_s == 0.0
    assert judge.recovered(Samples(), removed_ns=0)


def test_what_was_sent_twice_is_no_measurement() -> None:
    checks = _checks(LATENCY, {**FALLBACK, "arm": "fault"})
    samples = Samples()
    for arm in Arm:
        _add(samples, 20, arm=arm)
        _add(samples, 20, arm=arm, flags=int(Flag.REPEATED), status=500, latency_ms=5000)

    judge = _fed(checks, samples)

    assert {tally.n for tally in (*judge.tallies.values(), *judge.controls.values())} == {20}
    assert not any(tally.positions for tally in judge.tallies.values())
    assert not judge.breached
