"""
What to do about a generator that did not keep up: which rate this machine would have kept up with, or what else was wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from luff import stats
from luff.model import Traffic
from luff.outcome import Generator
from luff.samples import PHASES, Failure, Flag, Samples
from luff.units import round_rate_down_hz, show_rate
from luff.words import Phase

__all__ = ["Saturation", "advice", "saturation_of"]

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


QUIETER = "give luff a quieter machine"
REMEDIES: tuple[tuple[Callable[[Samples], bool], str], ...] = (
    (
        lambda s: Failure.WORKER in s.failure,
        "see what ended or stopped a process of luff's (memory, an operator), and run it again",
    ),
    (lambda s: Failure.RESOLVE in s.failure, "see why this machine finds no address for the name, and run it again"),
    (lambda s: Failure.POOL in s.failure, "give luff more files (ulimit -n) and ports, or lower the rate"),
    (
        lambda s: any(flags & Flag.REPEATED for flags in s.flags),
        "let the peer keep idle connections open for longer, or do away with what makes it refuse requests unread",
    ),
)
"""What to do about what the generator lacked, where it was not late. The first that holds is said."""


def advice(generator: Generator | None, samples: Samples, *, late_most_s: float, traffic: Traffic) -> str:
    """
    Return what to do about *generator*, which did not keep up with *traffic*; nothing where it did.

    One outcome names one rate: where the generator knows what held it back,
    that counts; else it is read from how late its *samples* were sent.
    """
    if generator is not None and generator.healthy:
        return ""
    if generator is not None and generator.sustainable_hz is not None:
        return _keeps_up_with(generator.sustainable_hz, traffic)
    late_ms = None if generator is None else generator.late_p99_ms
    if late_ms is None or late_ms <= late_most_s * 1000:
        return next((do for holds, do in REMEDIES if holds(samples)), f"{QUIETER}: the load was not too much for it")
    found = saturation_of(samples, late_most_s=late_most_s)
    if 2 * found.in_time >= found.seconds > 0:
        said = f"it kept time in {found.in_time} of {found.seconds} s at this rate"
        return f"{QUIETER}: {said}, so something else had the processor in the others"
    if found.workable_hz is None:
        return "give luff a faster or a quieter machine: it did not keep time at any rate"
    return _keeps_up_with(found.workable_hz, traffic)


def _keeps_up_with(rate_hz: float, traffic: Traffic) -> str:
    """Return the advice to send *traffic* at *rate_hz* per arm, which this machine can."""
    what = "keep every rate in traffic.stages at or below" if traffic.stages else "set traffic.rate to"
    return f"{what} {show_rate(rate_hz)}, which this machine keeps up with, or give luff a quieter one"


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
    return Saturation(
        seconds, sum(faulted for faulted, _ in in_time), round_rate_down_hz(most_hz) if most_hz >= 1 else None
    )
