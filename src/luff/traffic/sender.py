"""
Sending one request now, and what became of it.

What must stay true: every order is answered for exactly once, whatever happens
to it; the deadline counts from the due time, so a late start does not lengthen
a caller's patience; what luff does wrong itself looks like nothing that a
service could have done.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from luff.model import Arm, Traffic
from luff.samples import PENDING, Failure, Flag
from luff.scope import FLAGS_HEADER, Scope
from luff.traffic.dial import TrafficError
from luff.traffic.frames import Answered, Order
from luff.traffic.http1 import BODY_MOST_BYTES, Body
from luff.traffic.templates import Template
from luff.traffic.transport import ARM, REPEATED

__all__ = ["BURST_MOST", "Job", "Observe", "Sender", "Work", "sees_nothing"]

BURST_MOST = 16
"""Requests started in one go when they are overdue."""
DECODED = ("gzip", "deflate", "br", "zstd")
"""The content-encodings that httpx knows, given what they need; others it leaves as they are."""
NO_ROUTE_STATUSES = (404, 502)
"""How Envoy answers for a host that it does not know: at a gateway, and in a sidecar that knows the mesh alone."""

Observe = Callable[[int, "httpx.Headers", bytes], int]
"""What turns a response (status, headers, body) into the bits that `luff.samples.Samples.holds` keeps."""


def sees_nothing(_status: int, _headers: httpx.Headers, _body: bytes) -> int:
    """Observe nothing of a response."""
    return 0


@dataclass(frozen=True, slots=True)
class Work:
    """
    This is what all requests of a run have in common.

    The secrets of *traffic* are revealed; a request may take *timeout_s* from
    its due time on. *observe* makes the bits that are kept of an answer, and
    *seed* decides what placeholders are filled with.
    """

    traffic: Traffic
    scope: Scope
    timeout_s: float
    observe: Observe = sees_nothing
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """
    This is what one process is told first: *work*, the *way* in, and the samples' zero on the clock.

    That clock is `time.perf_counter_ns`, which Python promises to be one for
    all processes of a machine; the parent looks whether it is.
    """

    work: Work
    way: Callable[[], httpx.AsyncBaseTransport]
    zero_ns: int


class Sender:
    """
    This sends what it is told, at once, and calls *tell* for each when it is over.

    *now_ns* is the samples' time. The first mistake of luff's own is kept in *mistake*.
    """

    def __init__(
        self,
        work: Work,
        transport: httpx.AsyncBaseTransport,
        *,
        now_ns: Callable[[], int],
        tell: Callable[[Answered], None],
    ) -> None:
        self._work = work
        self._templates = [Template(request) for request in work.traffic.requests]
        self._rng = random.Random(work.seed)
        self._transport = transport
        self._now_ns = now_ns
        self._tell = tell
        self._tasks: dict[asyncio.Task[None], int] = {}
        self.mistake: Exception | None = None

    def send(self, order: Order) -> None:
        """Start to carry out *order*; it is on its way once the event loop has its turn."""
        task = asyncio.create_task(self._send(order))
        self._tasks[task] = order.number
        task.add_done_callback(self._ended)

    async def cut(self) -> None:
        """Cut what is in flight: it is answered for as `Failure.CUT`."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Come back when nothing is in flight."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _ended(self, task: asyncio.Task[None]) -> None:
        number = self._tasks.pop(task)
        if task.cancelled():
            # Before its first step, when no line of it ran.
            self._tell(Answered(number, PENDING, self._now_ns(), failure=Failure.CUT))

    async def _send(self, order: Order) -> None:
        failure, status, flags, holds, sent_ns = Failure.NONE, 0, 0, 0, PENDING
        request: httpx.Request | None = None
        try:
            request = self._request(order)
            left_s = self._work.timeout_s - (self._now_ns() - order.due_ns) / 1e9
            async with asyncio.timeout(max(0.0, left_s)):
                sent_ns = self._now_ns()
                response = await self._transport.handle_async_request(request)
                body = await _whole(response)
            status, flags = response.status_code, _flags_of(response, body)
            done_ns = self._now_ns()
            holds = self._work.observe(status, response.headers, body)
        except (Exception, asyncio.CancelledError) as error:
            failure, status, flags, done_ns = _failure_of(error), 0, 0, self._now_ns()
            if failure is Failure.BUG and isinstance(error, Exception):
                # A mistake of ours must end the run, and not look like the service's silence.
                self.mistake = self.mistake or error
        if request is not None and REPEATED in request.extensions:
            flags |= Flag.REPEATED
        self._tell(Answered(order.number, sent_ns, done_ns, status, failure, int(flags), holds))

    def _request(self, order: Order) -> httpx.Request:
        scope = self._work.scope
        mark = scope.headers if order.arm is Arm.FAULT else scope.control_headers
        request = self._templates[order.request].request(mark(order.number), number=order.number, rng=self._rng)
        request.extensions[ARM] = order.arm
        return request


_FAILURES: tuple[tuple[type[BaseException], Failure], ...] = (
    (asyncio.CancelledError, Failure.CUT),
    (TimeoutError, Failure.DEADLINE),
    # What came is not what its content-encoding says.
    (httpx.DecodingError, Failure.PROTOCOL),
    (BaseException, Failure.BUG),
)


def _failure_of(error: BaseException) -> Failure:
    if isinstance(error, TrafficError):
        return error.failure
    return next(failure for kind, failure in _FAILURES if isinstance(error, kind))


async def _whole(response: httpx.Response) -> bytes:
    """Return the body, decoded; one that decodes to more than may come is refused like one that came so large."""
    if isinstance(response.stream, Body) and "content-encoding" not in response.headers:
        # It is here already, within its bounds, and there is nothing to decode.
        return response.stream.whole
    codings = response.headers.get_list("content-encoding", split_commas=True)
    if sum(each.strip().lower() in DECODED for each in codings) > 1:
        # Each coding can make a part a thousand times as large, and only what comes out of the last is counted.
        raise TrafficError(Failure.TOO_LARGE, "the body is encoded more than once")
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > BODY_MOST_BYTES:
            raise TrafficError(Failure.TOO_LARGE, f"the body decodes to more than {BODY_MOST_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _flags_of(response: httpx.Response, body: bytes) -> Flag:
    found = _flags(response.headers.get(FLAGS_HEADER))
    if response.status_code in NO_ROUTE_STATUSES and not body and _is_from_a_proxy(response.headers):
        found |= Flag.NO_ROUTE
    return found


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
