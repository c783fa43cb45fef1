"""
Free ports on loopback, held until they are used.

They are taken below the range from which the system gives ports to outgoing
connections, so that none of those can slip in. Envoy listens with SO_REUSEPORT, so a port that it will use can stay held by a
socket that never listens; nobody else gets it meanwhile. A port for a local
program cannot be held like that and is let go just before the program starts.
"""

from __future__ import annotations

import random
import socket

from luff.errors import LabError

__all__ = ["LOOPBACK", "Ports"]

LOOPBACK = "127.0.0.1"
TRIES = 100
_RANGE = range(12_000, 32_000)


class Ports:
    """This hands out free ports and holds them."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Return a free port and hold it."""
        for wanted in (*random.sample(_RANGE, TRIES), 0):
            held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            if hasattr(socket, "SO_REUSEPORT"):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                # Without REUSEPORT first: a port that an Envoy of another lab shares must not look free.
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as alone:
                    alone.bind((LOOPBACK, wanted))
                    port = int(alone.getsockname()[1])
                held.bind((LOOPBACK, port))
            except OSError:
                held.close()
                continue
            self._held[port] = held
            return port
        raise LabError("there is no free port on this machine", next_step="end what listens on so many")

    def release(self, port: int) -> None:
        """Let go of *port*, so that a program without SO_REUSEPORT can listen on it."""
        self._held.pop(port).close()

    def close(self) -> None:
        """Let go of all of them."""
        for held in self._held.values():
            held.close()
        self._held.clear()
