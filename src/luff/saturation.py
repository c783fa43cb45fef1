"""
What rate this machine would have kept up with, from how late its requests were sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from luff import stats
from luff.samples import PHASES, Samples
from luff.units import show_rate
from luff.words import Phase

__all__ = ["Saturation", "keeps_up_with", "saturation_of"]

WINDOW_NS = 1_000_000_000
HEADROOM = 0.7
"""A machine that sends this share of what it can at most still keeps time."""
_RECOVERY = PHASES.index(Phase.RECOVERY)


@dataclass(frozen=True, slots=True)
class Saturation:
    """
    This is how the generator did second by second. Rates are per arm.

    *in_time* of *seconds* under the fault kept time; *workable_hz* is the rate
    that would have worked, ``None`` where not even one request a second would.
    """

    seconds: int
    in_time: int
    workable_hz: float | None

    @property
    def advice(self) -> str:
        """Return what to do."""
        if 2 * self.in_time >= self.seconds > 0:
            said = f"it kept time in {self.in_time} of {self.seconds} s at this rate"
            return f"give luff a quieter machine: {said}, so something else had the processor in the others"
        if self.workable_hz is None:
            return "give luff a faster or a quieter machine: it did not keep time at any rate"
        return keeps_up_with(self.workable_hz)


def keeps_up_with(rate_hz: float) -> str:
    """Return the advice to send at *rate_hz* per arm, which this machine can."""
    return f"set traffic.rate to {show_rate(rate_hz)}, which this machine keeps up with, or give luff a quieter one"


def saturation_of(samples: Samples, *, late_most_s: float) -> Saturation:
    """
    Return how far the generator kept time, where a p99 lateness of *late_most_s* is the most that its checks bear.

    Of the seconds in time (the warm-up begins slowly) the busiest counts, and
    so does what it really sent when it was late, less some headroom.
    """
    windows: dict[tuple[bool, int], list[int]] = {}
    sent_ns: list[int] = []
    for number in range(len(samples)):
        if samples.phase[number] < _RECOVERY and samples.sent_ns[number] >= 0:
            faulted = samples.phase[number] == PHASES.index(Phase.FAULT)
            due_ns, sent = samples.due_ns[number], samples.sent_ns[number]
            windows.setdefault((faulted, due_ns // WINDOW_NS), []).append(sent - due_ns)
            if faulted:
                sent_ns.append(sent)
    in_time = {
        where: len(late) for where, late in windows.items() if stats.quantile(sorted(late), 0.99) <= late_most_s * 1e9
    }
    span_s = (max(sent_ns) - min(sent_ns)) / 1e9 if sent_ns else 0.0
    really_hz = len(sent_ns) / span_s if span_s >= 1 else 0.0
    arms = len(set(samples.arm)) or 1
    most_hz = max([*in_time.values(), HEADROOM * really_hz]) / arms
    seconds = sum(faulted for faulted, _ in windows)
    return Saturation(seconds, sum(faulted for faulted, _ in in_time), _rounded_down(most_hz))


def _rounded_down(rate_hz: float) -> float | None:
    if rate_hz < 1:
        return None
    step = 10.0 ** max(0, math.floor(math.log10(rate_hz)) - 1)
    return math.floor(rate_hz / step) * step
