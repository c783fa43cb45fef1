"""
The open-loop driver: it has sent what is due when it is due, and keeps what happened.

What must stay true: a request is opened in `luff.samples.Samples` in order of
due time and closed exactly once; nothing is sent before it is due; latency
counts from the due time, so a generator that is late makes the service look
worse and never better, and then says so itself. All of this holds whoever
sends: this process, or several others that are told by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from luff.checks import USUAL_LATENESS, Lateness
from luff.clock import Clock, SystemClock
from luff.model import Arm, Phase
from luff.pacing import Arrival
from luff.samples import ARMS, Failure, Samples
from luff.stats import quantile
from luff.traffic.alarm import Alarm
from luff.traffic.crew import Crew, Spread
from luff.traffic.frames import Answered, Order
from luff.traffic.health import Health, Pulse, examine
from luff.traffic.sender import BURST_MOST, Sender, Work

__all__ = ["Driver", "Snapshot"]

WINDOW_NS = 5_000_000_000
"""How far back the figures for people look."""
LOOK_EVERY_NS = 50_000_000
"""How long it can take until somebody's wish to end is seen."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """This is how one arm does, over the last seconds, for people to watch."""

    rate_hz: float
    p50_ms: float | None
    p99_ms: float | None
    sent: int
    in_flight: int
    errors: int


@dataclass(slots=True)
class _Arm:
    recent: deque[tuple[int, float | None]] = field(default_factory=deque)
    sent: int = 0
    began_s: float = 0.0
    errors: int = 0
    open: set[int] = field(default_factory=set)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class _Senders(Protocol):
    """This is who sends. Orders are handed over *ahead_ns* before their time, those of *together_ns* in one go."""

    ahead_ns: int
    together_ns: int
    mistake: Exception | None
    lost: str | None

    @property
    def pulses(self) -> Sequence[Pulse]: ...
    async def begin(self) -> None: ...
    def send(self, order: Order) -> None: ...
    async def end(self, over: Callable[[], bool]) -> None: ...
    def halt(self) -> None: ...
    async def stop(self) -> None: ...


class _Here(Sender):
    """This is this process alone: what it is handed is due, and is sent at once."""

    ahead_ns = 0
    together_ns = 0
    lost: str | None = None
    pulses: Sequence[Pulse] = ()

    async def begin(self) -> None:
        """Do nothing: it is there."""

    async def end(self, over: Callable[[], bool]) -> None:
        """Do nothing: everything is sent."""

    def halt(self) -> None:
        """Do nothing: nothing is left to be sent."""

    async def stop(self) -> None:
        """Cut what is in flight."""
        await self.cut()


class Driver:
    """
    This drives one run's traffic, *work*. Use `drive` once a phase, then `drain`, and `stop` at the end.

    Without *spread* this process sends all of it, over *transport*. *clock* is
    for simulations, whose event loop goes by it; the machine's own is read to
    the nanosecond.
    """

    def __init__(
        self,
        work: Work,
        samples: Samples,
        transport: httpx.AsyncBaseTransport,
        *,
        clock: Clock | None = None,
        spread: Spread | None = None,
    ) -> None:
        self._samples = samples
        self._arms = {arm: _Arm() for arm in Arm}
        self._clock_ns = _nanoseconds(clock)
        self._zero_ns = self._clock_ns()
        self._pulse = Pulse()
        self._senders: _Senders
        if spread is None:
            self._senders = _Here(work, transport, now_ns=self.now_ns, tell=self._close)
        else:
            self._senders = Crew(spread, work, zero_ns=self._zero_ns, now_ns=self.now_ns, tell=self._close)

    def now_ns(self) -> int:
        """Return the samples' time now: nanoseconds since this driver was made."""
        return self._clock_ns() - self._zero_ns

    @property
    def lost(self) -> str | None:
        """Return which process that was to send has ended, ``None`` when none has; nothing more is sent then."""
        return self._senders.lost

    async def drive(self, due: Iterable[Arrival], *, phase: Phase, until: asyncio.Event | None = None) -> None:
        """Send every arrival of *due* at its time, until they end or *until* is set. Answers may still be out."""

        def over() -> bool:
            return self._senders.lost is not None or (until is not None and until.is_set())

        await self._senders.begin()
        with Alarm(self._clock_ns) as alarm, self._pulse:
            try:
                await self._hand_over(due, phase, alarm, over)
                await self._senders.end(over)
            finally:
                self._senders.halt()
        self._confess()

    async def _hand_over(self, due: Iterable[Arrival], phase: Phase, alarm: Alarm, over: Callable[[], bool]) -> None:
        start_ns = self.now_ns() + self._senders.ahead_ns
        since_pause = 0
        for arrival in due:
            due_ns = start_ns + round(arrival.due_s * 1e9)
            since_pause = 0 if await self._wait(alarm, due_ns, over) else since_pause + 1
            if since_pause == BURST_MOST:
                # Behind as it is, it must let the requests begin that it has started, and see the answers.
                await asyncio.sleep(0)
                since_pause = 0
            if over():
                return
            self._confess()
            self._senders.send(self._open(arrival, phase, due_ns))

    async def _wait(self, alarm: Alarm, due_ns: int, over: Callable[[], bool]) -> bool:
        """Come back when what is due at *due_ns* is to be handed over, or all is *over*. Return whether there was a wait."""
        until_ns = due_ns - self._senders.ahead_ns
        if until_ns <= self.now_ns():
            return False
        until_ns += self._senders.together_ns
        while (left_ns := until_ns - self.now_ns()) > 0 and not over():
            await alarm.wait(self._zero_ns + until_ns - max(0, left_ns - LOOK_EVERY_NS))
        return True

    def _confess(self) -> None:
        if self._senders.mistake is not None:
            raise self._senders.mistake

    async def drain(self, *, arm: Arm | None = None, within_s: float) -> None:
        """Wait for what is in flight, of *arm* or of both, at most *within_s*. A mistake of ours is raised here at last."""
        waited_for = [state for each, state in self._arms.items() if arm in (None, each) and state.open]
        if waited_for:
            with contextlib.suppress(TimeoutError), self._pulse.waiting():
                async with asyncio.timeout(within_s):
                    for state in waited_for:
                        await state.idle.wait()
        self._confess()

    async def stop(self) -> None:
        """Cut what is in flight; it is closed as `Failure.CUT` and judged by nobody."""
        await self._senders.stop()

    def snapshot(self, arm: Arm) -> Snapshot:
        """Return how *arm* does now. Another thread may ask."""
        state = self._arms[arm]
        begin_ns = self.now_ns() - WINDOW_NS
        recent = [latency_s for done_ns, latency_s in state.recent.copy() if done_ns >= begin_ns]
        latencies = sorted(latency for latency in recent if latency is not None)
        return Snapshot(
            rate_hz=len(recent) / min(WINDOW_NS / 1e9, max(0.5, self.now_ns() / 1e9 - state.began_s)),
            p50_ms=quantile(latencies, 0.5) * 1000 if latencies else None,
            p99_ms=quantile(latencies, 0.99) * 1000 if latencies else None,
            sent=state.sent,
            in_flight=len(state.open),
            errors=state.errors,
        )

    def health(self, bears: Lateness = USUAL_LATENESS) -> Health:
        """Return how well this generator kept time so far, for claims that *bears* says how late it may be for."""
        return examine(self._samples, self._pulse, bears=bears, senders=self._senders.pulses, lost=self._senders.lost)

    def _open(self, arrival: Arrival, phase: Phase, due_ns: int) -> Order:
        state = self._arms[arrival.arm]
        if not state.sent:
            state.began_s = self.now_ns() / 1e9
        number = self._samples.open(arrival.arm, phase, arrival.request, due_ns)
        state.sent += 1
        state.open.add(number)
        state.idle.clear()
        return Order(number, due_ns, arrival.arm, arrival.request)

    def _close(self, answered: Answered) -> None:
        number, sent_ns, done_ns, status, failure, flags, holds = answered
        samples = self._samples
        samples.sent_ns[number] = sent_ns
        samples.close(number, done_ns=done_ns, status=status, failure=failure, flags=flags, holds=holds)
        state = self._arms[ARMS[samples.arm[number]]]
        state.open.discard(number)
        if not state.open:
            state.idle.set()
        if failure is not Failure.CUT:
            latency_s = (done_ns - samples.due_ns[number]) / 1e9 if failure is Failure.NONE else None
            state.recent.append((done_ns, latency_s))
            while state.recent[0][0] < done_ns - WINDOW_NS:
                state.recent.popleft()
            state.errors += failure is not Failure.NONE or status >= 500


def _nanoseconds(clock: Clock | None) -> Callable[[], int]:
    if clock is None or isinstance(clock, SystemClock):
        return time.perf_counter_ns
    return lambda: round(clock.monotonic_s() * 1e9)
