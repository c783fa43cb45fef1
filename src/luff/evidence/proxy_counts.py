"""
Evidence from what the callers' proxies count: aggregate, so attempts and not requests.

A reader brings the counts, from the pods or from Prometheus. Reading goes on
beside the run, so that a slow server never holds up who watches the fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from luff.evidence.istio_metrics import Labels, Tally
from luff.samples import ARMS, PHASES, Evidence, Samples
from luff.words import Arm, Phase

__all__ = ["ProxyCounts", "Reader", "Reading", "Unreadable"]

COUNTED_WITHIN_S = 0.2
"""How long after its call a proxy may count it."""
_FAULT_ARM = ARMS.index(Arm.FAULT)
_FAULT_PHASE = PHASES.index(Phase.FAULT)


class Unreadable(Exception):
    """This is a source that cannot be read now: *why*, and what somebody could do about it."""

    def __init__(self, why: str, next_step: str) -> None:
        super().__init__(why)
        self.why = why
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Reading:
    """
    This is one look: the fault's counts by proxy, and which proxies are there and could not be read, with why.

    *blind* is why they would count no fault if there were one.
    """

    proxies: Mapping[str, Mapping[Labels, float]]
    unread: Mapping[str, str] = field(default_factory=dict)
    blind: Unreadable | None = None


class Reader(Protocol):
    """
    This is where counts come from.

    *every_s* is how often it may be asked; *late_s* how old an answer may be.
    """

    name: str
    every_s: float
    late_s: float

    async def read(self) -> Reading:
        """Return what the proxies have counted; raises `Unreadable` when nothing can be known."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(slots=True)
class ProxyCounts:
    """
    This is a `luff.evidence.Source` on *reader*.

    *delay_s* is the injected delay: a proxy counts a call when it ends.
    *zero_s* is the zero of the samples on the clock *monotonic_s*.
    *warmed_up* says that requests are sent before `begin`, so that proxies that count have counted something.
    """

    reader: Reader
    delay_s: float
    zero_s: float
    monotonic_s: Callable[[], float]
    evidence: Evidence = field(default_factory=lambda: Evidence("pod-metrics", "aggregate"))
    warmed_up: bool = True
    _tally: Tally = field(default_factory=Tally)
    _reading: asyncio.Task[Reading] | None = None
    _asked_s: float = 0.0

    @property
    def late_s(self) -> float:
        """Return how old an answer may be."""
        return self.reader.late_s

    async def begin(self) -> None:
        """Take what was counted before as zero. Raises `Unreadable`, also where nothing could be seen."""
        reading = await self.reader.read()
        if reading.blind is not None and self.warmed_up:
            raise reading.blind
        self.evidence.source, self.evidence.per = self.reader.name, "aggregate"
        self._asked_s = self.monotonic_s()
        self._tally.begin(reading.proxies, unread=frozenset(reading.unread))
        self._note_unread(reading)

    async def poll(self, samples: Samples) -> None:
        if self._reading is not None and self._reading.done():
            self._take(self._reading, samples)
            self._reading = None
        if self._reading is None and self.monotonic_s() - self._asked_s >= self.reader.every_s:
            if self._tells_nothing_new(samples):
                return
            self._asked_s = self.monotonic_s()
            self._reading = asyncio.create_task(self.reader.read())

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        await self.reader.close()

    def _take(self, done: asyncio.Task[Reading], samples: Samples) -> None:
        try:
            reading = done.result()
        except Unreadable as error:
            # It has answered before, at `begin`: the next answer holds all that was missed.
            self.evidence.note = error.why
            return
        self._note_unread(reading)
        for proxy, series in reading.proxies.items():
            self._tally.add(proxy, series)
        evidence = self.evidence
        evidence.callers = self._tally.callers
        evidence.attempts_total = evidence.fired_total = self._tally.total
        if self._asked_s >= self._over_s(samples) and not reading.unread:
            evidence.settled_through = len(samples)

    def _note_unread(self, reading: Reading) -> None:
        silent = [f"{proxy}: {why}" for proxy, why in sorted(reading.unread.items())]
        self.evidence.note = f"{len(silent)} of the callers' proxies could not be read ({silent[0]})" if silent else ""

    def _tells_nothing_new(self, samples: Samples) -> bool:
        return bool(len(samples)) and self.evidence.settled_through >= len(samples)

    def _over_s(self, samples: Samples) -> float:
        """Return from when on a look shows every call that a request of the fault arm has caused."""
        for number in range(len(samples) - 1, -1, -1):
            if samples.arm[number] == _FAULT_ARM and samples.phase[number] == _FAULT_PHASE:
                over_ns = max(samples.done_ns[number], samples.due_ns[number] + int(self.delay_s * 1e9))
                return self.zero_s + over_ns / 1e9 + COUNTED_WITHIN_S + self.late_s
        return self.zero_s
