"""
Free ports on loopback, held until they are used.

Envoy listens with SO_REUSEPORT, so a port that it will use can stay held by a
socket that never listens; nobody else gets it meanwhile. A port for a local
program cannot be held like that and is let go just before the program starts.
"""

from __future__ import annotations

import socket

__all__ = ["LOOPBACK", "Ports"]

LOOPBACK = "127.0.0.1"


class Ports:
    """This hands out free ports and holds them."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Return a free port and hold it."""
        held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if hasattr(socket, "SO_REUSEPORT"):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((LOOPBACK, 0))
        port = int(held.getsockname()[1])
        self._held[port] = held
        return port

    def release(self, port: int) -> None:
        """Let go of *port*, so that a program without SO_REUSEPORT can listen on it."""
        self._held.pop(port).close()

    def close(self) -> None:
        """Let go of all of them."""
        for held in self._held.values():
            held.close()
        self._held.clear()
