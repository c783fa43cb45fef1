"""
What the generator says of itself: was it on time, and which rate would have worked.

What must stay true: whatever the generator, or the process that it runs in, did
wrong is said here in one sentence, and a run with such a sentence judges nobody.
"""

from __future__ import annotations

import asyncio
import struct
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from luff.checks import USUAL_LATENESS, Lateness
from luff.outcome import Generator
from luff.samples import Failure, Flag, Samples
from luff.stats import quantile
from luff.units import round_rate_down_hz, show_duration, show_percent, show_rate

__all__ = ["Health", "Pulse", "examine"]

REPEATED_MOST = 0.01
"""More requests than this share must not have been sent twice: those that are left out are no random ones."""
BUSY_MOST = 0.7
"""What of a core a generator can use and still be on time."""
LAG_EVERY_S = 0.02
_TIMES = struct.Struct("<ddd")
OWN: tuple[Failure, ...] = tuple(kind for kind in Failure if kind.ours and kind is not Failure.CUT)
"""The failures that are ours. What is cut at the end of a run is not one."""


@dataclass(frozen=True, slots=True)
class Health:
    """
    This is how well the generator kept time.

    *late_p99_s* is over every request sent, *lag_p99_s* and *lag_max_s* over
    looks at the event loop, *stalled_ratio* for how long it stood still longer
    than the samples can bear, as a share of the time of sending; *cpu_ratio* is
    in cores.
    *repeated* counts requests that were sent twice.

    Where *processes* others sent, the event loop is the worst of theirs: ours
    only hands over, ahead of time. *cpu_ratio* is of all of them and ours
    together, *busiest_ratio* of the one that used most.

    *trouble* says what was wrong, and *sustainable_hz* which rate per arm would
    have worked, where that can be told: ``None`` otherwise.
    """

    late_p99_s: float | None = None
    lag_p99_s: float | None = None
    lag_max_s: float = 0.0
    stalled_ratio: float = 0.0
    cpu_ratio: float | None = None
    busiest_ratio: float | None = None
    processes: int = 1
    own_failures: int = 0
    repeated: int = 0
    trouble: str | None = None
    sustainable_hz: float | None = None

    @property
    def healthy(self) -> bool:
        """Return whether the samples can be believed."""
        return self.trouble is None

    def summary(self) -> Generator:
        """Return it as an outcome shows it."""
        return Generator(
            late_p99_ms=_ms(self.late_p99_s),
            lag_p99_ms=_ms(self.lag_p99_s),
            lag_max_ms=_ms(self.lag_max_s),
            cpu=None if self.cpu_ratio is None else round(self.cpu_ratio, 3),
            processes=self.processes,
            own_failures=self.own_failures,
            repeated=self.repeated,
            trouble=self.trouble,
            sustainable_hz=self.sustainable_hz,
            healthy=self.healthy,
        )


class Pulse:
    """
    This takes the pulse of a process that sends: looks at its event loop, and its CPU time.

    Use it as a context around the sending, as often as there is sending, and
    `waiting` around the time in which answers alone are waited for.
    """

    def __init__(self) -> None:
        self.lags_s = array("d")
        self.busy_s = 0.0
        self.wall_s = 0.0
        self.watched_s = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._looked_s = 0.0
        self._looking_since_s = 0.0
        self._began = (0.0, 0.0)

    def __enter__(self) -> None:
        self._began = (time.monotonic(), time.process_time())
        self._begin_looking()

    def __exit__(self, *_: object) -> None:
        wall_s, busy_s = self._began
        self.wall_s += time.monotonic() - wall_s
        self.busy_s += time.process_time() - busy_s
        self._end_looking()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Look at the event loop alone: an answer that it sees late makes the service look slow, and the CPU is for sending."""
        self._begin_looking()
        try:
            yield
        finally:
            self._end_looking()

    def _begin_looking(self) -> None:
        self._looking_since_s = self._looked_s = time.monotonic()
        self._looking = asyncio.create_task(self._look())

    def _end_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self.watched_s += time.monotonic() - self._looking_since_s
            # What the last look would have seen is seen here.
            if self._lag_s() > 0.0:
                self.lags_s.append(self._lag_s())

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LAG_EVERY_S)
            self.lags_s.append(max(0.0, self._lag_s()))
            self._looked_s = time.monotonic()

    def _lag_s(self) -> float:
        return time.monotonic() - self._looked_s - LAG_EVERY_S

    @property
    def cpu_ratio(self) -> float | None:
        """Return the share of one core that this process used while it was sending."""
        return self.busy_s / self.wall_s if self.wall_s else None

    def packed(self) -> bytes:
        """Return it as bytes, for `add` in another process of this machine."""
        return _TIMES.pack(self.busy_s, self.wall_s, self.watched_s) + self.lags_s.tobytes()

    def add(self, packed: bytes) -> None:
        """Add what was taken elsewhere meanwhile."""
        busy_s, wall_s, watched_s = _TIMES.unpack_from(packed)
        self.busy_s += busy_s
        self.wall_s += wall_s
        self.watched_s += watched_s
        self.lags_s.frombytes(packed[_TIMES.size :])


def examine(
    samples: Samples,
    pulse: Pulse,
    *,
    bears: Lateness = USUAL_LATENESS,
    senders: Sequence[Pulse] = (),
    lost: str | None = None,
) -> Health:
    """
    Return the health of the generator that made *samples*; *bears* is how late they may have left.

    *pulse* is this process's; *senders* are those of others, where they sent;
    *lost* says that one of them ended too soon.
    """
    late = sorted(sent - due for sent, due in zip(samples.sent_ns, samples.due_ns, strict=True) if sent >= 0)
    kinds = Counter(samples.failure)
    own: dict[Failure, int] = {kind: kinds[kind] for kind in OWN if kinds[kind]}
    used = [ratio for each in (pulse, *senders) if (ratio := each.cpu_ratio) is not None]
    found = replace(
        _worst(senders or (pulse,), bears.most_s),
        late_p99_s=quantile(late, 0.99) / 1e9 if late else None,
        cpu_ratio=sum(used) if used else None,
        busiest_ratio=max(used, default=None),
        processes=max(1, len(senders)),
        own_failures=sum(own.values()),
        repeated=sum(bool(flags & Flag.REPEATED) for flags in samples.flags),
    )
    late_s = quantile(late, 1.0 - bears.share) / 1e9 if late else 0.0
    trouble = lost or _lacking(own, len(samples)) or _slow(found, late_s, bears) or _repeating(found, len(samples))
    if trouble is None:
        return found
    rate_hz = None if lost else _sustainable_hz(samples, pulse.wall_s, found, kinds[Failure.POOL])
    advice = "" if rate_hz is None else f"; {show_rate(rate_hz)} would have worked"
    return replace(found, trouble=trouble + advice, sustainable_hz=rate_hz)


def _worst(pulses: Sequence[Pulse], late_most_s: float) -> Health:
    """Return how the event loop of the worst of *pulses* did."""
    lags = [sorted(pulse.lags_s) for pulse in pulses]
    return Health(
        lag_p99_s=max((quantile(each, 0.99) for each in lags if each), default=None),
        lag_max_s=max((each[-1] for each in lags if each), default=0.0),
        stalled_ratio=max(
            sum(lag for lag in each if lag > late_most_s) / pulse.watched_s if pulse.watched_s else 0.0
            for each, pulse in zip(lags, pulses, strict=True)
        ),
    )


def _lacking(own: dict[Failure, int], sent: int) -> str | None:
    return "; ".join(f"of {sent} requests {count} {kind.words}" for kind, count in own.items()) or None


def _slow(found: Health, late_s: float, bears: Lateness) -> str | None:
    whose = "process" if found.processes == 1 else "busiest process"
    used = "" if found.busiest_ratio is None else f" (its {whose} used {found.busiest_ratio:.0%} of a core)"
    if late_s > bears.most_s:
        return (
            f"{show_percent(100 * bears.share)} of the requests left {show_duration(late_s)} or more after their due time, "
            f"and these claims bear {show_duration(bears.most_s)}{used}"
        )
    if found.stalled_ratio > bears.share:
        return (
            f"luff's own event loop stood still for {show_percent(100 * found.stalled_ratio)} of the time, "
            f"up to {show_duration(found.lag_max_s)} at once, and these claims bear {show_percent(100 * bears.share)}{used}"
        )
    return None


def _repeating(found: Health, sent: int) -> str | None:
    if found.repeated <= REPEATED_MOST * sent:
        return None
    return (
        f"{found.repeated} of {sent} requests met a connection that was just being closed, or were refused unread, and were sent twice: "
        f"more than {show_percent(100 * REPEATED_MOST)} cannot be left out"
    )


def _sustainable_hz(samples: Samples, wall_s: float, found: Health, without_place: int) -> float | None:
    """
    Return the rate per arm that this generator could have kept, ``None`` where it was not the rate that was wrong.

    CPU grows with the rate, and so does what is in flight at once.
    """
    arms = len(set(samples.arm))
    if not wall_s or not arms:
        return None
    rate_hz = len(samples) / arms / wall_s
    used = found.busiest_ratio or 0.0
    fits = [rate_hz * BUSY_MOST / used] if used > BUSY_MOST else []
    if without_place:
        fits.append(rate_hz * BUSY_MOST * (1.0 - without_place / len(samples)))
    return round_rate_down_hz(min(fits)) or None if fits else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
