"""
Connections whose answers have an end.

A socket's time limit is for one read: a server or proxy that sends a byte now
and then would hold a thread for ever. Here the whole answer has a limit too,
in seconds and in bytes.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

import urllib3

__all__ = ["bind"]

READ_AT_ONCE_BYTES = 65536
HEADERS_MOST = 10_000
"""Every warning of every webhook is a header of its own."""

# It is the only way to say so, and counts for the whole process; luff uses http.client for nothing else.
http.client._MAXHEADERS = HEADERS_MOST  # type: ignore[attr-defined]  # not public; without it 101 headers lose an answer


class _Until(io.RawIOBase):
    """This reads from a socket until a time, and so much at most."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, *, within_s: float, most_bytes: int) -> None:
        self._raw, self._sock = raw, sock
        self._until_s = time.monotonic() + within_s
        self._left = most_bytes

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        left_s = self._until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer was not whole in time")
        if self._left <= 0:
            raise ConnectionError("the answer is too large")
        usual_s = self._sock.gettimeout()
        self._sock.settimeout(left_s if usual_s is None else min(usual_s, left_s))
        try:
            count = self._raw.readinto(buffer)
        finally:
            # The next request on this connection starts with the usual limit.
            self._sock.settimeout(usual_s)
        self._left -= count or 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """This is an answer that is whole in time, or an error."""

    within_s: float
    most_bytes: int

    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Until(self.fp.detach(), sock, within_s=self.within_s, most_bytes=self.most_bytes))


def _bounded(pool: type[urllib3.HTTPConnectionPool], answer: type[_Answer]) -> type[urllib3.HTTPConnectionPool]:
    connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": answer})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


def bind(pools: urllib3.PoolManager, *, within_s: float, most_bytes: int) -> None:
    """Let every answer on connections that *pools* opens from now on, through a proxy or not, be whole *within_s*."""
    answer = type("_Answer", (_Answer,), {"within_s": within_s, "most_bytes": most_bytes})
    pools.pool_classes_by_scheme = {
        scheme: _bounded(pool, answer) for scheme, pool in pools.pool_classes_by_scheme.items()
    }
