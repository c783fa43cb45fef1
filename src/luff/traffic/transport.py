"""
HTTP for measuring: httpx's request and response types over connections of our own.

It waits in no queue: a request gets a connection with room or a new one at once,
so what is measured is the service and not a pool. A request that is cancelled
takes its connection with it (over HTTP/2 its stream) and leaves nothing behind.
The environment is never read: a proxy named there has no business in a
measurement. The arms of a run share no connection.

Over TLS the handshake decides between HTTP/2 and HTTP/1.1, as everywhere (ALPN).
In plain text nothing decides it: that is HTTP/1.1, unless HTTP/2 is asked for.

A server may close an idle connection just as it is used. A connection whose
end is here already is not used. Where the end can only have crossed the
request on its way, after a while of idleness, what may be repeated is sent
again on another connection, and says so in its extensions (`REPEATED`): it is no
measurement. Every other loss is the service's, which may have read the request
and died of it. What may not be repeated (POST, PATCH) takes only a connection
that was used a moment ago, and is never sent twice. An HTTP/2 peer can say that
it has not processed a request (GOAWAY, REFUSED_STREAM): that one is sent again
whatever its method, once.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import httpx

from luff.samples import Failure
from luff.traffic import http1, http2
from luff.traffic.dial import FRESH_S, Address, Dialler, NotProcessed, TrafficError
from luff.traffic.sharing import Shared
from luff.words import HttpVersion

__all__ = ["ARM", "FRESH_S", "REPEATED", "Transport"]

IDLE_MOST = 512
"""Idle connections kept for each address and arm; more are closed."""
ARM = "luff.arm"
"""What a request's extensions may have: the arm, with whose requests alone it shares connections."""
REPEATED = "luff.repeated"
"""What a request's extensions have, as true, once it was sent a second time."""
SPOKEN: dict[HttpVersion, tuple[str, ...]] = {
    "auto": ("h2", "http/1.1"),
    "http1": ("http/1.1",),
    "http2": ("h2",),
}
"""What is offered in a TLS handshake."""

Key = tuple[str, int, str, str]
"""
Host, port, scheme and arm: plain values, since it is looked up several times for each request.

What a faulted answer does to its connection must not befall a request of the other arm.
"""
Connection: TypeAlias = http1.Connection | http2.Connection


class Transport(httpx.AsyncBaseTransport):
    """
    This sends one request at once, whatever else is in flight.

    *connect* says where to dial for a URL; the Host header stays the URL's.
    *ssl_context* ``None`` means the machine's own CAs; what is offered in its
    handshakes is set in it. *protocol* is what is spoken: ``auto`` leaves it
    to the handshake. *clock* tells how long a connection was idle.
    """

    def __init__(
        self,
        connect: Callable[[httpx.URL], Address],
        *,
        ssl_context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        protocol: HttpVersion = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._dialler = Dialler(ssl_context, server_name, spoken=SPOKEN[protocol])
        self._protocol = protocol
        self._clock = clock
        self._idle: dict[Key, deque[http1.Connection]] = {}
        self._open: set[http1.Connection] = set()
        self._shared: dict[Key, Shared] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the complete answer; raises `TrafficError`. Nothing is followed or decoded."""
        address = self._connect(request.url)
        key = (address.host, address.port, request.url.scheme, request.extensions.get(ARM, ""))
        body = await request.aread()
        repeatable = request.method not in ("POST", "PATCH")
        within_s = None if repeatable else FRESH_S
        shared = self._shared_at(key)
        connection: Connection | None = None if shared is None else await shared.find(within_s=within_s)
        if connection is None:
            connection = self._take_idle(key, within_s=within_s) or await self._dial(key, request.url)
        try:
            return await self._exchange(connection, request, body, key)
        except NotProcessed as error:
            if not (error.surely or repeatable):
                raise
        request.extensions[REPEATED] = True
        another = None if shared is None else await shared.find(within_s=FRESH_S)
        try:
            return await self._exchange(another or await self._dial(key, request.url), request, body, key)
        except NotProcessed:
            # Twice is no coincidence: that is how the service answers.
            del request.extensions[REPEATED]
            raise

    async def aclose(self) -> None:
        """Close every connection, used or idle."""
        for connection in list(self._open):
            connection.close()
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        for shared in self._shared.values():
            shared.close()
        await self._dialler.aclose()

    def _shared_at(self, key: Key) -> Shared | None:
        """Return what is shared at *key*, ``None`` where nobody has spoken HTTP/2 so far."""
        if self._protocol == "http2" and key not in self._shared:
            self._shared[key] = Shared(self._clock)
        return self._shared.get(key)

    def _take_idle(self, key: Key, *, within_s: float | None) -> http1.Connection | None:
        idle = self._idle.get(key)
        while idle:
            # The one used last is in front.
            if within_s is not None and self._clock() - idle[-1].idle_since_s > within_s:
                # Another is dialled in the place of the oldest: were it kept, there would be ever more.
                idle.popleft().close()
                return None
            connection = idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    async def _dial(self, key: Key, url: httpx.URL) -> Connection:
        shared = self._shared_at(key)
        if shared is None:
            return await self._dial_now(key, url)
        return await shared.dial(lambda: self._dial_now(key, url))

    async def _dial_now(self, key: Key, url: httpx.URL) -> Connection:
        address, scheme = Address(*key[:2]), key[2]
        if scheme == "https":
            agreed = await self._dialler.dial(
                address, tls_name=url.host, made=lambda: _Agreed(lambda spoken: self._new(key, spoken))
            )
            connection = agreed.connection
        else:
            plain = "h2" if self._protocol == "http2" else None
            connection = await self._dialler.dial(address, tls_name=None, made=lambda: self._new(key, plain))
        if isinstance(connection, http2.Connection):
            self._shared.setdefault(key, Shared(self._clock)).add(connection)
        elif self._protocol == "http2":
            connection.close()
            raise TrafficError(Failure.PROTOCOL, f"{address.host}:{address.port} does not speak HTTP/2")
        return connection

    def _new(self, key: Key, spoken: str | None) -> Connection:
        if spoken != "h2":
            return http1.Connection(self._clock)
        shared = self._shared.get(key)
        return http2.Connection(self._clock, streams_most=http2.STREAMS_MOST if shared is None else shared.streams_most)

    async def _exchange(self, connection: Connection, request: httpx.Request, body: bytes, key: Key) -> httpx.Response:
        if isinstance(connection, http2.Connection):
            stream = await connection.exchange(request, body)
            return _response(stream, request, {"http_version": b"HTTP/2"})
        self._open.add(connection)
        try:
            await connection.exchange(http1.wire(request, body), head_only=request.method == "HEAD")
        finally:
            self._open.discard(connection)
        response = _response(connection, request)
        idle = self._idle.setdefault(key, deque())
        if connection.reusable and len(idle) < IDLE_MOST:
            connection.idle_since_s = self._clock()
            idle.append(connection)
        else:
            connection.close()
        return response


class _Agreed(asyncio.Protocol):
    """This becomes what the handshake agreed on, before the first byte behind it is read."""

    def __init__(self, made: Callable[[str | None], Connection]) -> None:
        self._made = made
        self.connection: Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection = self._made(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        # uvloop's transports are no asyncio.Transport, but do what one does.
        cast("asyncio.Transport", transport).set_protocol(self.connection)
        self.connection.connection_made(transport)


def _response(
    answer: http1.Connection | http2.Stream, request: httpx.Request, extensions: dict[str, Any] | None = None
) -> httpx.Response:
    return httpx.Response(
        answer.status,
        headers=answer.headers,
        content=None,
        stream=http1.Body(b"".join(answer.body)),
        request=request,
        extensions=extensions,
    )
