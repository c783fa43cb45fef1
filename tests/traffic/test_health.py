"""What the generator says of itself."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest

from luff.checks import Lateness
from luff.samples import Failure, Flag, Samples
from luff.traffic.health import Health, Pulse, examine
from luff.words import Arm, Phase


def _samples(count: int, *, late_ms: float = 0.1, failure: Failure = Failure.NONE, flags: int = 0) -> Samples:
    samples = Samples()
    for place in range(count):
        number = samples.open(list(Arm)[place % 2], Phase.FAULT, 0, place * 1_000_000)
        samples.sent_ns[number] = samples.due_ns[number] + round(late_ms * 1e6)
        status = 200 if failure is Failure.NONE else 0
        samples.close(number, done_ns=samples.due_ns[number] + 10**9, status=status, failure=failure, flags=flags)
    return samples


def _pulse(
    *, wall_s: float = 10.0, waited_s: float = 0.0, busy_s: float = 1.0, lags_s: Sequence[float] = (0.0001,) * 500
) -> Pulse:
    pulse = Pulse()
    pulse.wall_s, pulse.busy_s, pulse.lags_s = wall_s, busy_s, array("d", lags_s)
    pulse.watched_s = wall_s + waited_s
    return pulse


def _examined(samples: Samples, pulse: Pulse | None = None) -> Health:
    return examine(samples, pulse or _pulse())


def _joined(*parts: Samples) -> Samples:
    joined = Samples()
    for part in parts:
        for sample in part:
            number = joined.open(sample.arm, sample.phase, 0, sample.due_ns)
            joined.sent_ns[number] = sample.sent_ns
            joined.close(
                number, done_ns=sample.done_ns, status=sample.status, failure=sample.failure, flags=int(sample.flags)
            )
    return joined


def test_one_that_kept_time_has_no_trouble_and_names_no_other_rate() -> None:
    health = _examined(_samples(1000))

    assert (health.trouble, health.sustainable_hz, health.healthy) == (None, None, True)


def test_a_core_that_was_full_says_which_rate_would_have_worked() -> None:
    # 1,000 a second per arm took a whole core, of which 0.7 can be used.
    health = _examined(_samples(20_000, late_ms=300), _pulse(busy_s=10.0))

    assert health.sustainable_hz == 700
    assert health.trouble == (
        "1 % of the requests left 300 ms or more after their due time, and these claims bear 20 ms "
        "(its process used 100% of a core); 700/s would have worked"
    )


def test_a_busy_machine_names_no_rate_since_it_was_not_the_rate() -> None:
    health = _examined(_samples(1000, late_ms=300), _pulse(busy_s=0.5))

    assert health.sustainable_hz is None
    assert health.trouble is not None
    assert "5% of a core" in health.trouble


def test_an_event_loop_that_stood_still_is_ours_though_every_request_left_in_time() -> None:
    # Answers that came meanwhile were seen late.
    health = _examined(_samples(100), _pulse(lags_s=[0.0001] * 400 + [0.3]))

    assert not health.healthy
    assert health.stalled_ratio == pytest.approx(0.03)
    assert health.trouble is not None
    assert health.trouble.startswith("luff's own event loop stood still for 3 % of the time, up to 300 ms at once")


@pytest.mark.parametrize("lags_s", [[0.0001] * 400 + [0.05], [0.015] * 400])
def test_short_pauses_of_the_event_loop_are_no_trouble(lags_s: list[float]) -> None:
    assert _examined(_samples(100), _pulse(lags_s=lags_s)).healthy


@pytest.mark.parametrize(("repeated", "healthy"), [(10, True), (11, False)])
def test_more_than_one_in_a_hundred_sent_twice_is_too_much(repeated: int, *, healthy: bool) -> None:
    health = _examined(_joined(_samples(1000 - repeated), _samples(repeated, flags=int(Flag.REPEATED))))

    assert (health.repeated, health.healthy) == (repeated, healthy)
    assert (health.trouble is None) is healthy


def test_requests_that_found_no_place_say_how_many_would_have_fitted() -> None:
    health = _examined(_joined(_samples(15_000), _samples(5_000, failure=Failure.POOL)))

    # 1,000 a second per arm, three quarters of it found a place, and a margin stays.
    assert health.sustainable_hz == 520
    assert health.trouble == (
        "of 20000 requests 5000 found no free file or port on this machine; 520/s would have worked"
    )


@pytest.mark.parametrize("failure", [kind for kind in Failure if kind.ours and kind is not Failure.CUT])
def test_every_failure_of_ours_has_words(failure: Failure) -> None:
    health = _examined(_joined(_samples(999), _samples(1, failure=failure)))

    assert (health.own_failures, health.healthy) == (1, False)
    assert health.trouble is not None
    assert health.trouble.startswith("of 1000 requests 1 ")


def test_a_rare_claim_bears_no_more_late_requests_than_it_bears_violations() -> None:
    # One in two hundred would fail a healthy service at a p999, and nobody would see it in a p99.
    samples = _joined(_samples(995), _samples(5, late_ms=300))
    stalls = _pulse(lags_s=[0.0001] * 400 + [0.08])

    assert _examined(samples).healthy
    assert _examined(_samples(1000), stalls).healthy
    strict = Lateness(0.02, 0.0005)
    late, stalled = examine(samples, _pulse(), bears=strict), examine(_samples(1000), stalls, bears=strict)
    assert late.trouble is not None
    assert late.trouble.startswith("0.05 % of the requests left 300 ms or more")
    assert stalled.trouble is not None
    assert stalled.trouble.startswith("luff's own event loop stood still for 0.8 % of the time")


def test_what_is_cut_at_the_end_is_no_trouble() -> None:
    assert _examined(_joined(_samples(10), _samples(10, failure=Failure.CUT))).healthy


def test_of_several_processes_the_worst_event_loop_counts_and_the_cpu_of_all() -> None:
    ours = _pulse(busy_s=2.0, lags_s=[0.5] * 400)
    others = [_pulse(busy_s=3.0), _pulse(busy_s=4.0, lags_s=[0.0001] * 400 + [0.015])]

    health = examine(_samples(100), ours, senders=others)

    assert (health.processes, health.busiest_ratio) == (2, 0.4)
    assert health.cpu_ratio == pytest.approx(0.9)
    # Ours only hands over, ahead of time.
    assert (health.lag_max_s, health.stalled_ratio, health.trouble) == (0.015, 0.0, None)


def test_the_stall_of_one_of_several_is_ours_and_the_rate_is_by_the_busiest() -> None:
    stalled = examine(_samples(100), _pulse(), senders=[_pulse(), _pulse(lags_s=[0.0001] * 400 + [0.3])])
    late = examine(_samples(20_000, late_ms=300), _pulse(), senders=[_pulse(), _pulse(busy_s=10.0)])

    assert stalled.stalled_ratio == pytest.approx(0.03)
    assert not stalled.healthy
    assert late.sustainable_hz == 700
    assert late.trouble is not None
    assert "its busiest process used 100% of a core" in late.trouble


def test_what_was_lost_is_said_before_anything_else_and_names_no_rate() -> None:
    lost = "a process of luff's that was sending ended with -9"

    health = examine(_samples(20_000, late_ms=300), _pulse(busy_s=10.0), lost=lost)

    assert (health.trouble, health.sustainable_hz) == (lost, None)


def test_a_pulse_that_was_taken_elsewhere_adds_up() -> None:
    pulse = _pulse(lags_s=[0.1])

    pulse.add(_pulse(wall_s=2.0, waited_s=3.0, busy_s=0.5, lags_s=[0.2, 0.3]).packed())

    assert (pulse.wall_s, pulse.watched_s, pulse.busy_s, list(pulse.lags_s)) == (12.0, 15.0, 1.5, [0.1, 0.2, 0.3])


def test_a_loop_that_stood_still_did_so_in_the_time_of_waiting_as_well() -> None:
    bears = Lateness(0.02, 0.005)
    short = examine(_samples(1000), _pulse(lags_s=[0.06]), bears=bears)
    long = examine(_samples(1000), _pulse(waited_s=10.0, lags_s=[0.06]), bears=bears)

    assert not short.healthy
    assert long.healthy


def test_an_outcome_shows_all_of_it() -> None:
    summary = _examined(_samples(20_000, late_ms=300), _pulse(busy_s=10.0, lags_s=[0.001, 0.25])).summary()

    assert summary.late_p99_ms == 300
    assert (summary.lag_p99_ms, summary.lag_max_ms, summary.cpu) == (250, 250, 1.0)
    assert (summary.own_failures, summary.repeated, summary.sustainable_hz) == (0, 0, 700)
    assert summary.trouble is not None
    assert not summary.healthy
