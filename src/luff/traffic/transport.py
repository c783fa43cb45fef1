"""
HTTP for measuring: httpx's request and response types over connections of our own.

It waits in no queue: a request gets an idle connection or a new one at once,
so what is measured is the service and not a pool. A request that is cancelled
takes its connection with it and leaves nothing behind. The environment is
never read: a proxy named there has no business in a measurement.

A server may close an idle connection just as it is used. A connection whose
end is here already is not used. Where the end can only have crossed the
request on its way, after a while of idleness, what may be repeated is sent
again on a new connection, and says so in its extensions (`REPEATED`): it is no
measurement. Every other loss is the service's, which may have read the request
and died of it. What may not be repeated (POST, PATCH) takes only a connection
that was used a moment ago, and is never sent twice.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable

import httpx

from luff.traffic.dial import Address, Dialler, TrafficError
from luff.traffic.http1 import Body, Connection, wire

__all__ = ["FRESH_S", "REPEATED", "Transport"]

FRESH_S = 1.0
"""For so long after its use no server closes a connection for being idle."""
IDLE_MOST = 512
"""Idle connections kept for each address; more are closed."""
REPEATED = "luff.repeated"
"""What a request's extensions have, as true, once it was sent a second time."""

Key = tuple[Address, str]


class Transport(httpx.AsyncBaseTransport):
    """
    This sends one request at once, whatever else is in flight.

    *connect* says where to dial for a URL; the Host header stays the URL's.
    *clock* tells how long a connection was idle.
    """

    def __init__(
        self,
        connect: Callable[[httpx.URL], Address],
        *,
        ssl_context: ssl.SSLContext | None = None,
        server_name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._dialler = Dialler(ssl_context, server_name)
        self._clock = clock
        self._idle: dict[Key, deque[Connection]] = {}
        self._open: set[Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the complete answer; raises `TrafficError`. Nothing is followed or decoded."""
        address = self._connect(request.url)
        key = (address, request.url.scheme)
        data = wire(request, await request.aread())
        repeatable = request.method not in ("POST", "PATCH")
        connection = self._take_idle(key, within_s=None if repeatable else FRESH_S)
        if connection is not None:
            was_idle = self._clock() - connection.idle_since_s > FRESH_S
            try:
                return await self._exchange(connection, request, data, key)
            except TrafficError:
                if not (repeatable and was_idle and connection.lost_in_the_race()):
                    raise
                request.extensions[REPEATED] = True
        return await self._exchange(await self._dial(address, request.url), request, data, key)

    async def aclose(self) -> None:
        """Close every connection, used or idle."""
        for connection in list(self._open):
            connection.close()
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        await self._dialler.aclose()

    def _take_idle(self, key: Key, *, within_s: float | None) -> Connection | None:
        idle = self._idle.get(key)
        while idle:
            # The one used last is in front.
            if within_s is not None and self._clock() - idle[-1].idle_since_s > within_s:
                return None
            connection = idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return None

    async def _dial(self, address: Address, url: httpx.URL) -> Connection:
        tls_name = url.host if url.scheme == "https" else None
        return await self._dialler.dial(address, tls_name=tls_name, made=lambda: Connection(self._clock))

    async def _exchange(self, connection: Connection, request: httpx.Request, data: bytes, key: Key) -> httpx.Response:
        self._open.add(connection)
        try:
            await connection.exchange(data, head_only=request.method == "HEAD")
        finally:
            self._open.discard(connection)
        response = httpx.Response(
            connection.status,
            headers=connection.headers,
            content=None,
            stream=Body(b"".join(connection.body)),
            request=request,
        )
        idle = self._idle.setdefault(key, deque())
        if connection.reusable and len(idle) < IDLE_MOST:
            connection.idle_since_s = self._clock()
            idle.append(connection)
        else:
            connection.close()
        return response
