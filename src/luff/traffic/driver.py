"""
The open-loop driver: it sends what is due when it is due, and keeps what happened.

What must stay true: a request is opened in `luff.samples.Samples` in order of
due time and closed exactly once; nothing is sent before it is due; latency
counts from the due time, so a generator that is late makes the service look
worse and never better, and then says so itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx

from luff.clock import Clock, SystemClock
from luff.model import Arm, Phase, Traffic
from luff.pacing import Arrival
from luff.samples import Failure, Flag, Samples
from luff.scope import FLAGS_HEADER, Scope
from luff.stats import quantile
from luff.traffic.alarm import Alarm
from luff.traffic.dial import TrafficError
from luff.traffic.health import LATE_MOST_S, Health, Pulse, examine
from luff.traffic.http1 import BODY_MOST_BYTES, Body
from luff.traffic.templates import Template
from luff.traffic.transport import REPEATED

__all__ = ["Driver", "Snapshot"]

WINDOW_S = 5.0
"""How far back the figures for people look."""
LOOK_EVERY_NS = 50_000_000
"""How long it can take until somebody's wish to end is seen."""
BURST_MOST = 16
"""Requests started in one go when they are overdue."""
NO_ROUTE_STATUSES = (404, 502)
"""How Envoy answers for a host that it does not know: at a gateway, and in a sidecar that knows the mesh alone."""

Observe = Callable[[int, "httpx.Headers", bytes], int]


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
    recent: deque[tuple[float, float | None]] = field(default_factory=deque)
    sent: int = 0
    began_s: float = 0.0
    errors: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Driver:
    """
    This drives one run's traffic. Use `drive` once a phase, then `drain`, and `stop` at the end.

    *clock* is for simulations, whose event loop goes by it; the machine's own is read to the nanosecond.
    """

    def __init__(
        self,
        traffic: Traffic,
        scope: Scope,
        samples: Samples,
        transport: httpx.AsyncBaseTransport,
        *,
        timeout_s: float,
        rng: random.Random,
        observe: Observe = lambda _status, _headers, _body: 0,
        late_most_s: float = LATE_MOST_S,
        clock: Clock | None = None,
    ) -> None:
        self._templates = [Template(request) for request in traffic.requests]
        self._scope = scope
        self._samples = samples
        self._transport = transport
        self._timeout_s = timeout_s
        self._rng = rng
        self._observe = observe
        self._late_most_s = late_most_s
        self._arms = {arm: _Arm() for arm in Arm}
        self._clock_ns = _nanoseconds(clock)
        self._zero_ns = self._clock_ns()
        self._pulse = Pulse()
        self._mistake: Exception | None = None

    def now_ns(self) -> int:
        """Return the samples' time now: nanoseconds since this driver was made."""
        return self._clock_ns() - self._zero_ns

    async def drive(self, due: Iterable[Arrival], *, phase: Phase, until: asyncio.Event | None = None) -> None:
        """Send every arrival of *due* at its time, until they end or *until* is set. Answers may still be out."""
        start_ns = self.now_ns()
        since_pause = 0
        with Alarm(self._clock_ns) as alarm, self._pulse:
            for arrival in due:
                due_ns = start_ns + round(arrival.due_s * 1e9)
                since_pause = 0 if await self._wait(alarm, due_ns, until) else since_pause + 1
                if since_pause == BURST_MOST:
                    # Behind as it is, it must let the requests begin that it has started, and see the answers.
                    await asyncio.sleep(0)
                    since_pause = 0
                if until is not None and until.is_set():
                    return
                self._confess()
                number = self._samples.open(arrival.arm, phase, arrival.request, due_ns)
                self._start(number, arrival)
        self._confess()

    async def _wait(self, alarm: Alarm, due_ns: int, until: asyncio.Event | None) -> bool:
        """Come back at *due_ns*, or when *until* is set. Return whether there was anything to wait for."""
        waited = False
        while (left_ns := due_ns - self.now_ns()) > 0 and not (until is not None and until.is_set()):
            await alarm.wait(self._zero_ns + due_ns - max(0, left_ns - LOOK_EVERY_NS))
            waited = True
        return waited

    def _confess(self) -> None:
        if self._mistake is not None:
            raise self._mistake

    async def drain(self, *, arm: Arm | None = None, within_s: float) -> None:
        """Wait for what is in flight, of *arm* or of both, at most *within_s*. A mistake of ours is raised here at last."""
        tasks = [task for each, state in self._arms.items() if arm in (None, each) for task in state.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        self._confess()

    async def stop(self) -> None:
        """Cut what is in flight; it is closed as `Failure.CUT` and judged by nobody."""
        tasks = [task for state in self._arms.values() for task in state.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def snapshot(self, arm: Arm) -> Snapshot:
        """Return how *arm* does now."""
        state = self._arms[arm]
        now_s = time.monotonic()
        while state.recent and state.recent[0][0] < now_s - WINDOW_S:
            state.recent.popleft()
        latencies = sorted(latency for _, latency in state.recent if latency is not None)
        return Snapshot(
            rate_hz=len(state.recent) / min(WINDOW_S, max(0.5, self.now_ns() / 1e9 - state.began_s)),
            p50_ms=quantile(latencies, 0.5) * 1000 if latencies else None,
            p99_ms=quantile(latencies, 0.99) * 1000 if latencies else None,
            sent=state.sent,
            in_flight=len(state.tasks),
            errors=state.errors,
        )

    def health(self) -> Health:
        """Return how well this generator kept time so far."""
        return examine(self._samples, self._pulse, late_most_s=self._late_most_s)

    def _start(self, number: int, arrival: Arrival) -> None:
        state = self._arms[arrival.arm]
        if not state.sent:
            state.began_s = self.now_ns() / 1e9
        state.sent += 1
        task = asyncio.create_task(self._send(number, arrival))
        state.tasks.add(task)
        task.add_done_callback(lambda task: self._ended(task, number, state))

    def _ended(self, task: asyncio.Task[None], number: int, state: _Arm) -> None:
        state.tasks.discard(task)
        if not self._samples.decided(number):
            # Cancelled before its first step, when no line of it ran.
            self._samples.close(number, done_ns=self.now_ns(), failure=Failure.CUT)

    async def _send(self, number: int, arrival: Arrival) -> None:
        samples, state = self._samples, self._arms[arrival.arm]
        failure, status, flags, holds = Failure.NONE, 0, 0, 0
        request: httpx.Request | None = None
        try:
            request = self._request(number, arrival)
            # The deadline counts from the due time: a late start must not lengthen a caller's patience.
            left_s = self._timeout_s - (self.now_ns() - samples.due_ns[number]) / 1e9
            async with asyncio.timeout(max(0.0, left_s)):
                samples.sent_ns[number] = self.now_ns()
                response = await self._transport.handle_async_request(request)
                body = await _whole(response)
            status = response.status_code
            flags = int(_flags(response.headers.get(FLAGS_HEADER)))
            if status in NO_ROUTE_STATUSES and not body and _is_from_a_proxy(response.headers):
                flags |= Flag.NO_ROUTE
            done_ns = self.now_ns()
            holds = self._observe(status, response.headers, body)
        except TimeoutError:
            failure, done_ns = Failure.DEADLINE, self.now_ns()
        except TrafficError as error:
            failure, done_ns = error.failure, self.now_ns()
        except httpx.DecodingError:
            # What came is not what its content-encoding says.
            failure, done_ns = Failure.PROTOCOL, self.now_ns()
        except asyncio.CancelledError:
            samples.close(number, done_ns=self.now_ns(), failure=Failure.CUT)
            raise
        except Exception as error:  # a mistake of ours must end the run, and not look like the service's silence
            self._mistake = self._mistake or error
            failure, done_ns = Failure.BUG, self.now_ns()
        if request is not None and REPEATED in request.extensions:
            flags |= Flag.REPEATED
        samples.close(number, done_ns=done_ns, status=status, failure=failure, flags=flags, holds=holds)
        latency_s = (done_ns - samples.due_ns[number]) / 1e9 if failure is Failure.NONE else None
        state.recent.append((time.monotonic(), latency_s))
        state.errors += failure is not Failure.NONE or status >= 500

    def _request(self, number: int, arrival: Arrival) -> httpx.Request:
        template = self._templates[arrival.request]
        mark = self._scope.headers if arrival.arm is Arm.FAULT else self._scope.control_headers
        return template.request(mark(number), number=number, rng=self._rng)


def _nanoseconds(clock: Clock | None) -> Callable[[], int]:
    if clock is None or isinstance(clock, SystemClock):
        return time.perf_counter_ns
    return lambda: round(clock.monotonic_s() * 1e9)


async def _whole(response: httpx.Response) -> bytes:
    """Return the body, decoded; one that decodes to more than may come is refused like one that came so large."""
    if isinstance(response.stream, Body) and "content-encoding" not in response.headers:
        # It is here already, within its bounds, and there is nothing to decode.
        return response.stream.whole
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > BODY_MOST_BYTES:
            raise TrafficError(Failure.TOO_LARGE, f"the body decodes to more than {BODY_MOST_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _is_from_a_proxy(headers: httpx.Headers) -> bool:
    """Return whether Envoy made this answer itself: it notes on every other how long the service took."""
    return headers.get("server") in ("envoy", "istio-envoy") and "x-envoy-upstream-service-time" not in headers


def _flags(text: str | None) -> Flag:
    if text is None:
        return Flag(0)
    found = Flag.TWIN
    words = text.split(",")
    if "DI" in words:
        found |= Flag.DELAY_INJECTED
    if "FI" in words:
        found |= Flag.FAULT_INJECTED
    return found
