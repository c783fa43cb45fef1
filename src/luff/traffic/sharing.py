"""
The HTTP/2 connections to one address, which requests share.

No request waits for another's end: above what the connections take, one more
is dialled. It waits a little for a dial that is under way already, which is over
sooner than its own would be. Should that one fail, or hang, it dials for itself,
so that one refused connection is one failure, and one lost packet one slow
request, and not many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from luff.traffic import http2

__all__ = ["JOIN_WITHIN_S", "Shared"]

JOIN_WITHIN_S = 0.25
"""How long a request waits for the dial of another: well below the second after which a lost packet is sent again."""

ConnectionT = TypeVar("ConnectionT")


class Shared:
    """These are the HTTP/2 connections to one address, the oldest first, and the dials that others may wait for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connections: list[http2.Connection] = []
        self._dials: list[_Dial] = []
        self.streams_most = http2.STREAMS_MOST
        """How many the peer let be sent on its latest connection: what the next one takes, until it says."""

    def add(self, connection: http2.Connection) -> None:
        """Let others use *connection* as well."""
        self._connections.append(connection)

    async def find(self, *, within_s: float | None) -> http2.Connection | None:
        """
        Return a connection with room, also one that is just being dialled; ``None`` where there is none.

        With *within_s* it is none that was idle for longer; such are closed.
        """
        if self._connections:
            self.streams_most = self._connections[-1].streams_most
        if any(each.over for each in self._connections):
            self._connections = [each for each in self._connections if not each.over]
        for connection in self._connections:
            if not connection.has_room():
                continue
            if not connection.idle:
                return connection
            if within_s is not None and self._clock() - connection.idle_since_s > within_s:
                # Another is dialled in its place: were it kept, there would be ever more.
                connection.close()
            elif not connection.is_stale():
                return connection
        return await self._join()

    async def _join(self) -> http2.Connection | None:
        # The newest: an older one may hang.
        dial = next((each for each in reversed(self._dials) if each.promised < self.streams_most), None)
        if dial is None:
            return None
        dial.promised += 1
        done, _ = await asyncio.wait([dial.connection], timeout=JOIN_WITHIN_S)
        if not done:
            dial.promised -= 1
            return None
        connection = dial.connection.result()
        return connection if connection is not None and connection.has_room() else None

    async def dial(self, dial: Callable[[], Awaitable[ConnectionT]]) -> ConnectionT:
        """Return what *dial* does, which others may wait for meanwhile."""
        under_way = _Dial()
        self._dials.append(under_way)
        connection: ConnectionT | None = None
        try:
            connection = await dial()
            return connection
        finally:
            self._dials.remove(under_way)
            under_way.connection.set_result(connection if isinstance(connection, http2.Connection) else None)

    def close(self) -> None:
        """Close every connection, whatever is under way on it."""
        for connection in self._connections:
            connection.close()


class _Dial:
    """This is a dial that is under way. *promised* counts the requests that the connection is for."""

    def __init__(self) -> None:
        self.promised = 1
        self.connection: asyncio.Future[http2.Connection | None] = asyncio.get_running_loop().create_future()
