"""The socket and uvicorn on it, without uvicorn's own idea of signals: who ends the server restores first."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from luff.errors import UsageError

__all__ = ["Listener", "bound_socket"]

BACKLOG = 256
KEEP_ALIVE_S = 30
CONNECTIONS_MOST = 500


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to *host* and *port*; raises `UsageError` when it cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise _cannot_listen(f"{host}:{port}", error) from error
    return made


def _cannot_listen(where: str, error: OSError) -> UsageError:
    return UsageError(f"it cannot listen on {where}: {error.strerror or error}", next_step="choose another --listen")


class Listener:
    """
    This answers on *listening* until `leave`; then it takes no more and waits at most *grace_s* for what is open.

    Who connects before `serve` is answered then. Raises `UsageError` when another listens there already.
    """

    def __init__(self, app: ASGIApp, listening: socket.socket, *, grace_s: int) -> None:
        try:
            listening.listen(BACKLOG)
        except OSError as error:
            host, port = listening.getsockname()[:2]
            raise _cannot_listen(f"{host}:{port}", error) from error
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            lifespan="off",
            backlog=BACKLOG,
            limit_concurrency=CONNECTIONS_MOST,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace_s,
            server_header=False,
        )
        self._server = _Server(config)
        self._socket = listening

    async def serve(self) -> None:
        """Answer until `leave`."""
        await self._server.serve(sockets=[self._socket])

    def leave(self) -> None:
        """Take no more connections, and come back from `serve` soon."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
