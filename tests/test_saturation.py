"""From lateness to the rate that would have worked."""

from __future__ import annotations

import pytest

from luff.model import Request, Stage, Traffic
from luff.outcome import Generator
from luff.samples import Failure, Flag, Samples
from luff.saturation import advice, saturation_of
from luff.words import Arm, Phase

MS = 1_000_000
S = 1000 * MS
STEADY = Traffic(requests=(Request(url="http://cart/"),))
STAGED = STEADY.model_copy(update={"stages": (Stage.model_validate({"for": "10s", "rate": "50/s"}),)})
LATE = Generator(healthy=False, late_p99_ms=900.0)


def _advice(samples: Samples, generator: Generator = LATE, traffic: Traffic = STEADY) -> str:
    return advice(generator, samples, late_most_s=0.02, traffic=traffic)


def _sent(samples: Samples, second: int, rate_hz: int, *, can_hz: float, phase: Phase = Phase.FAULT) -> Samples:
    """Add a second in which each arm is due *rate_hz* requests, on a machine that sends *can_hz* of both at most."""
    for place in range(2 * rate_hz):
        due_ns = second * S + place * S // (2 * rate_hz)
        number = samples.open(Arm.FAULT if place % 2 else Arm.CONTROL, phase, 0, due_ns)
        earliest = samples.sent_ns[number - 1] + round(S / can_hz) if number else 0
        samples.sent_ns[number] = max(due_ns + MS // 10, earliest)
    return samples


@pytest.mark.parametrize(("asked", "can", "workable"), [(1000, 1000.0, 350.0), (100, 120.0, 42.0), (300, 40.0, 14.0)])
def test_what_it_really_sent_less_headroom_would_have_worked(asked: int, can: float, workable: float) -> None:
    samples = Samples()
    for second in range(8):
        _sent(samples, second, asked, can_hz=can)

    found = saturation_of(samples, late_most_s=0.02)

    assert found.in_time <= 1
    assert found.workable_hz == pytest.approx(workable, rel=0.05)
    assert "set traffic.rate to" in _advice(samples)
    assert _advice(samples, traffic=STAGED).startswith("keep every rate in traffic.stages at or below")


def test_the_warm_ups_slow_seconds_show_what_it_kept_up_with() -> None:
    samples = _sent(Samples(), 0, 400, can_hz=1000.0, phase=Phase.WARMUP)
    for second in range(1, 5):
        _sent(samples, second, 900, can_hz=1000.0)

    assert saturation_of(samples, late_most_s=0.02).workable_hz == 400.0


def test_a_machine_that_was_only_disturbed_is_not_told_to_send_less() -> None:
    samples = Samples()
    for second in range(10):
        _sent(samples, second, 50, can_hz=20.0 if second == 7 else 1e6)

    found = saturation_of(samples, late_most_s=0.02)

    assert found.seconds == 10
    assert found.in_time >= 5
    assert "quieter machine" in _advice(samples)
    assert "traffic.rate" not in _advice(samples)


def test_nothing_sent_is_no_rate() -> None:
    found = saturation_of(Samples(), late_most_s=0.02)
    assert (found.seconds, found.workable_hz) == (0, None)
    assert "at any rate" in _advice(Samples())


@pytest.mark.parametrize(
    ("failure", "flags", "words"),
    [
        (Failure.WORKER, 0, "a process of luff's"),
        (Failure.RESOLVE, 0, "no address for the name"),
        (Failure.POOL, 0, "ulimit -n"),
        (Failure.NONE, Flag.REPEATED, "keep idle connections open for longer"),
        (Failure.NONE, 0, "quieter machine"),
    ],
)
def test_who_was_on_time_and_lacked_something_else_is_not_told_to_send_less(
    failure: Failure, flags: int, words: str
) -> None:
    samples = _sent(Samples(), 0, 50, can_hz=1e6)
    samples.close(0, done_ns=S, failure=failure, flags=int(flags))

    said = _advice(samples, Generator(healthy=False, late_p99_ms=0.4))

    assert words in said
    assert "traffic.rate" not in said


def test_the_rate_that_the_generator_names_comes_first() -> None:
    samples = _sent(Samples(), 0, 50, can_hz=1e6)

    assert _advice(samples, Generator(healthy=False, sustainable_hz=70.0)).startswith("set traffic.rate to 70/s,")
