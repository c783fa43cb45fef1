"""
One HTTP/1.1 connection, carrying one request at a time, over asyncio and httptools.

What must stay true: whatever the peer sends, in whatever pieces, a request ends
in exactly one answer or one `TrafficError`; and a connection whose state is in
doubt is closed, never used again.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import httptools
import httpx

from luff.samples import Failure
from luff.traffic.dial import FRESH_S, NotProcessed, TrafficError, race_s

__all__ = ["BODY_MOST_BYTES", "HEAD_MOST_BYTES", "Body", "Connection", "wire"]

HEAD_MOST_BYTES = 256 * 1024
BODY_MOST_BYTES = 8 << 20
BODY_PART_BYTES = 64 << 10
"""A compressed body is handed on in such parts, so that it cannot grow a thousandfold in one step."""


class Connection(asyncio.Protocol):
    """This is one connection, carrying one request at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.idle_since_s = 0.0
        self._clock = clock
        self._race_s = 0.0
        self._written_s = 0.0
        self._lost_s = 0.0
        self._readable = select.poll()
        self._waiter: asyncio.Future[None] | None = None
        self._parser: Any = None
        self._head_only = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.got_bytes = False
        self.keep_alive = False
        self._head_bytes = 0
        self._bodiless_bytes = 0
        self._body_bytes = 0
        self._until_close = False
        self._done = False
        self._surplus = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do what one does.
        self.transport = cast("asyncio.Transport", transport)
        self.idle_since_s = self._clock()
        self._race_s = race_s(transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self.got_bytes = True
        if self._waiter is None or self._waiter.done():
            # Bytes that nobody asked for: this connection cannot be trusted any more.
            self.close()
            return
        body_bytes = self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Failure.PROTOCOL, "the server switched protocols")
        except httptools.HttpParserError as error:
            if not self._done:
                self._fail(Failure.PROTOCOL, f"what came is not HTTP: {error}")
        # Also what has no end, and is no header either: a reason that goes on and on, interim answers without number,
        # and what is behind the body or between its chunks, which the parser takes the longer for the more there is.
        self._bodiless_bytes = 0 if self._body_bytes > body_bytes else self._bodiless_bytes + len(data)
        if not self._done:
            self._limit(self._bodiless_bytes)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._lost_s = self._clock()
        if self._waiter is None or self._waiter.done():
            return
        if self._until_close and self.status and exc is None:
            self._finish()
        else:
            self._fail(Failure.RESET, "the connection ended before the answer did")

    # httptools callbacks
    def on_message_begin(self) -> None:
        # A second answer, to no request: this connection cannot be trusted any more.
        self._surplus = self._done

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            # Behind the body or in a surplus answer; what is judged is the head.
            return
        self._head_bytes += len(name) + len(value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._done:
            return
        self._limit(self._head_bytes)
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers = []
            return
        if not 200 <= status <= 999:
            self._fail(Failure.PROTOCOL, f"the status is {status}")
            return
        self.status = status
        self.keep_alive = self._parser.should_keep_alive()
        names = {name.lower(): value for name, value in self.headers}
        bodiless = self._head_only or status in (204, 304)
        framed = b"content-length" in names or b"chunked" in names.get(b"transfer-encoding", b"").lower()
        self._until_close = not bodiless and not framed
        if self._head_only:
            # The parser would wait for the body that the headers announce.
            self._finish()

    def on_body(self, body: bytes) -> None:
        if self._done:
            return
        self._body_bytes += len(body)
        if self._body_bytes > BODY_MOST_BYTES:
            self._fail(Failure.TOO_LARGE, f"the body is larger than {BODY_MOST_BYTES} bytes")
            return
        self.body.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._finish()

    # one request
    async def exchange(self, head: bytes, *, head_only: bool) -> None:
        """
        Send *head* (with its body) and come back when the answer is complete.

        Raises `TrafficError`, and `NotProcessed` where an idle connection was lost in a race.
        """
        self._reset()
        self._head_only = head_only
        self._parser = httptools.HttpResponseParser(self)
        assert self.transport is not None
        if self.closed or self.transport.is_closing():
            raise TrafficError(Failure.RESET, "the connection was closed while it was idle")
        self._waiter = asyncio.get_running_loop().create_future()
        self._written_s = self._clock()
        self.transport.write(head)
        try:
            await self._waiter
        except TrafficError as error:
            self.close()
            if self._written_s - self.idle_since_s > FRESH_S and self._lost_in_the_race():
                raise NotProcessed(error.failure, str(error)) from error
            raise
        except BaseException:
            self.close()
            raise

    def _finish(self) -> None:
        self._done = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _limit(self, size: int) -> None:
        if size > HEAD_MOST_BYTES:
            self._fail(Failure.TOO_LARGE, f"what is beside the body is larger than {HEAD_MOST_BYTES} bytes")

    def _fail(self, failure: Failure, message: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TrafficError(failure, message))
        self.close()

    def is_stale(self) -> bool:
        """Return whether something waits to be read on this idle connection: its end, or what nobody asked for."""
        return self.closed or bool(self._readable.poll(0))

    def _lost_in_the_race(self) -> bool:
        """
        Return whether the peer can only have closed this connection before it saw the request.

        Its end was then on the way while the request was, so it came within
        one round trip of the writing. What comes later may be a service that
        read the request and died of it.
        """
        return not self.got_bytes and 0.0 <= self._lost_s - self._written_s <= self._race_s

    @property
    def reusable(self) -> bool:
        return self.keep_alive and self._done and not (self.closed or self._until_close or self._surplus)

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


class Body(httpx.AsyncByteStream):
    """This is a body that is all here, in parts of a bounded size."""

    def __init__(self, whole: bytes) -> None:
        self.whole = whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self.whole), BODY_PART_BYTES):
            yield self.whole[begin : begin + BODY_PART_BYTES]


def wire(request: httpx.Request, body: bytes) -> bytes:
    """Return *request* as bytes."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % (name, value) for name, value in request.headers.raw]
    if body and "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
