"""From lateness to the rate that would have worked."""

from __future__ import annotations

import pytest

from luff.samples import Samples
from luff.saturation import saturation_of
from luff.words import Arm, Phase

MS = 1_000_000
S = 1000 * MS


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
    assert "set traffic.rate to" in found.advice


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
    assert "quieter machine" in found.advice
    assert "traffic.rate" not in found.advice


def test_nothing_sent_is_no_rate() -> None:
    found = saturation_of(Samples(), late_most_s=0.02)
    assert (found.seconds, found.workable_hz) == (0, None)
    assert "at any rate" in found.advice
