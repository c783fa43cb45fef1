"""Counting while traffic runs: the order of reading, who is judged, the tripwire on control, and recovery."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from luff import stats
from luff.checks import PlannedCheck, plan_checks
from luff.model import Experiment
from luff.samples import Evidence, Failure, Flag, Samples
from luff.tallies import Judge, comparison_size, recovery_time_ns, recovery_watched
from luff.words import Arm, Phase

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
    return plan_checks(experiment, rate_hz=20.0, timeout_s=11.0)


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
        decided = stats.decide_sequentially(places, len(rows), 0.01, alpha_pass=0.05, alpha_fail=0.005)
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
        ours = stats.decide_sequentially(tally.positions, tally.n, 0.01, alpha_pass=0.05, alpha_fail=0.005)
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
    _add(samples, 100, latency_ms=5000)
    evidence = _evidence(samples)
    evidence.attempts[3] = 0
    judge = Judge(_checks(LATENCY))
    judge.feed(samples, evidence)
    assert judge.tallies["check-0"].n == 99
    # Where nobody can tell which ones did, all are.
    judge = _fed(_checks(LATENCY), samples, per="aggregate")
    assert judge.tallies["check-0"].n == 100


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


def test_a_service_without_a_timeout_is_failed_within_30_requests() -> None:
    samples = Samples()
    judge = Judge(_checks(LATENCY, FALLBACK, {"kind": "errors", "at_most_percent": 1.0}))
    while not judge.feed(samples, _evidence(samples)):
        _add(samples, latency_ms=3000, status=500, holds=0)
    assert len(samples) <= 30


def test_a_failure_that_would_not_stand_among_many_checks_is_waited_for() -> None:
    one, many = _checks(LATENCY), _checks(LATENCY, *[{"kind": "recovery", "within_s": 5.0}] * 300)
    counted = next(n for n in range(1, 7) if stats.fails_until(n, 0.01, 0.005) >= 20 + n)
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
    found = recovery_time_ns(samples, removed_ns=removed_ms * MS, within_s=5.9)
    assert found == (None if after_s is None else after_s * S)
    judge = Judge(_checks({"kind": "recovery", "within_s": 5.9}))
    assert judge.recovered(samples, removed_ns=removed_ms * MS) is (after_s is not None)
    assert judge.recovery_most_s == 5.9


def test_recovery_has_to_come_within_its_time() -> None:
    samples = Samples()
    for index, window in enumerate([_slow, _slow, *[_like_before] * 4]):
        window(samples, 1000 * index)
    assert recovery_time_ns(samples, removed_ns=0, within_s=5.0) == 2 * S
    assert recovery_time_ns(samples, removed_ns=0, within_s=4.9) is None


def test_recovery_is_watched_when_nothing_unseen_could_have_been_it() -> None:
    samples = Samples()
    assert not recovery_watched(samples, removed_ns=0, within_s=3)
    for index in range(3):
        _slow(samples, 1000 * index)
    assert recovery_watched(samples, removed_ns=0, within_s=4.9)
    assert not recovery_watched(samples, removed_ns=0, within_s=5)
    # Three seconds before the traffic began.
    assert not recovery_watched(samples, removed_ns=-3 * S, within_s=3)
    assert recovery_watched(samples, removed_ns=-2 * S, within_s=4)


@pytest.mark.parametrize("window", [_hanging, _cut, _one_arm(Arm.FAULT), _one_arm(Arm.CONTROL)])
def test_what_is_not_known_is_no_recovery_and_no_failure(window: Window) -> None:
    samples = Samples()
    for index in range(4):
        window(samples, 1000 * index)
    assert recovery_time_ns(samples, removed_ns=0, within_s=3) is None
    assert not recovery_watched(samples, removed_ns=0, within_s=3)


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
