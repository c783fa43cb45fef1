"""
HTTP/1.1 for measuring: httpx's request and response types over asyncio and httptools.

It waits in no queue: a request gets an idle connection or a new one at once,
so what is measured is the service and not a pool. A request that is cancelled
takes its connection with it and leaves nothing behind. The environment is
never read: a proxy named there has no business in a measurement.

A server may close an idle connection just as it is used. What may be repeated
is then sent again on a new one; what may not (POST, PATCH) takes only a
connection that was used a moment ago, and is never sent twice.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import httptools
import httpx

from luff.samples import Failure

__all__ = ["Address", "TrafficError", "Transport"]

CONNECT_WITHIN_S = 5.0
HEAD_MOST_BYTES = 256 * 1024
BODY_MOST_BYTES = 8 << 20
BODY_PART_BYTES = 64 << 10
"""A compressed body is handed on in such parts, so that it cannot grow a thousandfold in one step."""
FRESH_S = 1.0
"""For so long after its use a connection is trusted not to be closed by the server."""
IDLE_MOST = 512
"""Idle connections kept for each address; more are closed."""


class TrafficError(httpx.TransportError):
    """This is a request without a complete answer. *failure* says why, and *sent* whether it left."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Address:
    """This is where to dial."""

    host: str
    port: int


class _Connection(asyncio.Protocol):
    """This is one connection, carrying one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._parser: Any = None
        self._head_only = False
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.got_bytes = False
        self.used_s = 0.0
        self.keep_alive = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._until_close = False
        self._done = False
        self._surplus = False

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do what one does.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.got_bytes = True
        if self._waiter is None or self._waiter.done():
            # Bytes that nobody asked for: this connection cannot be trusted any more.
            self.close()
            return
        in_head = not self.status
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(Failure.PROTOCOL, "the server switched protocols")
        except httptools.HttpParserError as error:
            if not self._done:
                self._fail(Failure.PROTOCOL, f"what came is not HTTP: {error}")
        if in_head and not self.status:
            # Also what has no end, and is no header either: a reason that goes on and on, interim answers without number.
            self._head_bytes += len(data)
            self._limit_head()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
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
        self._limit_head()
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
        """Send *head* (with its body) and come back when the answer is complete; raises `TrafficError`."""
        self._reset()
        self._head_only = head_only
        self._parser = httptools.HttpResponseParser(self)
        assert self.transport is not None
        if self.closed or self.transport.is_closing():
            raise TrafficError(Failure.RESET, "the connection was closed while it was idle")
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(head)
        try:
            await self._waiter
        except BaseException:
            self.close()
            raise

    def _finish(self) -> None:
        self._done = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _limit_head(self) -> None:
        if self._head_bytes > HEAD_MOST_BYTES:
            self._fail(Failure.TOO_LARGE, f"the head is larger than {HEAD_MOST_BYTES} bytes")

    def _fail(self, failure: Failure, message: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TrafficError(failure, message))
        self.close()

    @property
    def reusable(self) -> bool:
        return self.keep_alive and self._done and not (self.closed or self._until_close or self._surplus)

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


class _Body(httpx.AsyncByteStream):
    """This is a body that is all here, in parts of a bounded size."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for begin in range(0, len(self._body), BODY_PART_BYTES):
            yield self._body[begin : begin + BODY_PART_BYTES]


class Transport(httpx.AsyncBaseTransport):
    """
    This sends one request at once, whatever else is in flight.

    *connect* says where to dial for a URL; the Host header stays the URL's.
    """

    def __init__(
        self,
        connect: Callable[[httpx.URL], Address],
        *,
        ssl_context: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        self._connect = connect
        self._ssl_context = ssl_context
        self._server_name = server_name
        self._idle: dict[tuple[Address, str], deque[_Connection]] = {}
        self._open: set[_Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the complete answer; raises `TrafficError`. Nothing is followed, decoded or retried but a stale connection."""
        address = self._connect(request.url)
        key = (address, request.url.scheme)
        wire = _wire(request, await request.aread())
        head_only = request.method == "HEAD"
        repeatable = request.method not in ("POST", "PATCH")
        connection = self._take_idle(key, within_s=None if repeatable else FRESH_S)
        if connection is not None:
            try:
                await connection.exchange(wire, head_only=head_only)
                return self._answer(request, connection, key)
            except TrafficError:
                # The server closed an idle connection just as it was used: not its fault, and nothing was answered.
                if connection.got_bytes or not repeatable:
                    raise
            finally:
                self._forget(connection)
        connection = await self._dial(address, request.url)
        try:
            await connection.exchange(wire, head_only=head_only)
            return self._answer(request, connection, key)
        finally:
            self._forget(connection)

    async def aclose(self) -> None:
        """Close every connection, used or idle."""
        for connection in list(self._open):
            connection.close()
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()

    def _take_idle(self, key: tuple[Address, str], *, within_s: float | None) -> _Connection | None:
        idle = self._idle.get(key)
        while idle:
            # The one used last is in front.
            connection = idle[-1]
            if connection.closed:
                idle.pop()
                continue
            if within_s is not None and time.monotonic() - connection.used_s > within_s:
                return None
            idle.pop()
            self._open.add(connection)
            return connection
        return None

    def _forget(self, connection: _Connection) -> None:
        self._open.discard(connection)

    async def _dial(self, address: Address, url: httpx.URL) -> _Connection:
        loop = asyncio.get_running_loop()
        tls = self._ssl_context or ssl.create_default_context() if url.scheme == "https" else None
        name = (self._server_name or url.host) if tls is not None else None
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                _, connection = await loop.create_connection(
                    _Connection, address.host, address.port, ssl=tls, server_hostname=name
                )
        except TimeoutError as error:
            raise TrafficError(
                Failure.CONNECT, f"{address.host}:{address.port} did not accept within {CONNECT_WITHIN_S:.0f} s"
            ) from error
        except ssl.SSLError as error:
            raise TrafficError(Failure.TLS, f"TLS with {address.host}:{address.port} failed: {error}") from error
        except socket.gaierror as error:
            raise TrafficError(Failure.RESOLVE, f"{address.host} has no address here: {error.strerror}") from error
        except UnicodeError as error:
            raise TrafficError(Failure.RESOLVE, f"{address.host!r} is no host name: {error}") from error
        except OSError as error:
            kind = Failure.POOL if error.errno in (23, 24, 99) else Failure.CONNECT
            raise TrafficError(kind, f"{address.host}:{address.port} could not be dialled: {error}") from error
        self._open.add(connection)
        return connection

    def _answer(self, request: httpx.Request, connection: _Connection, key: tuple[Address, str]) -> httpx.Response:
        response = httpx.Response(
            connection.status,
            headers=connection.headers,
            content=None,
            stream=_Body(b"".join(connection.body)),
            request=request,
        )
        idle = self._idle.setdefault(key, deque())
        if connection.reusable and len(idle) < IDLE_MOST:
            connection.used_s = time.monotonic()
            idle.append(connection)
        else:
            connection.close()
        return response


def _wire(request: httpx.Request, body: bytes) -> bytes:
    """Return *request* as bytes."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%b: %b" % (name, value) for name, value in request.headers.raw]
    if body and "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
