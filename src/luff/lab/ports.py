"""
Free ports on loopback, which no other lab takes for as long as this one lives.

They are taken below the range from which the system gives ports to outgoing
connections, so that none of those can slip in. A port is claimed by holding
the UDP port of the same number, which is given to one alone: so it is a lab's
also while no process of the lab listens there. Envoy listens with
SO_REUSEPORT, so a port that it will use can stay held by a socket that never
listens as well; a port for a local program cannot, and is let go just before
the program starts.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from luff.errors import LabError

__all__ = ["LOOPBACK", "Ports"]

LOOPBACK = "127.0.0.1"
TRIES = 100
_RANGE = range(12_000, 32_000)


class Ports:
    """This hands out free ports, of *among* while one of those is free, and keeps them from others."""

    def __init__(self, among: Sequence[int] = _RANGE) -> None:
        self._among = among
        self._claims: list[socket.socket] = []
        self._held: dict[int, socket.socket] = {}

    def take(self) -> int:
        """Return a free port and hold it; `LabError` where none is to be had."""
        for wanted in (*random.sample(self._among, min(TRIES, len(self._among))), *[0] * TRIES):
            try:
                port, sockets = _bound(wanted)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise LabError(
                        f"a lab holds two files for each of its ports, and after {len(self._held)} ports no more may be open",
                        next_step="raise the limit with `ulimit -n 8192`, or let the lab have fewer workloads",
                    ) from error
                continue
            self._held[port], claim = sockets
            self._claims.append(claim)
            return port
        raise LabError("there is no free port on this machine", next_step="end what listens on so many")

    def release(self, port: int) -> None:
        """Let go of *port*, so that a program without SO_REUSEPORT can listen on it. It stays claimed."""
        self._held.pop(port).close()

    def close(self) -> None:
        """Let go of all of them."""
        for each in (*self._held.values(), *self._claims):
            each.close()
        self._held.clear()
        self._claims.clear()


def _bound(wanted: int) -> tuple[int, tuple[socket.socket, socket.socket]]:
    """Return *wanted*, or any port for 0, with what holds and what claims it; `OSError` where it is not free."""
    with ExitStack() as on_failure:
        claim = on_failure.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        claim.bind((LOOPBACK, wanted))
        port = int(claim.getsockname()[1])
        # Without REUSEPORT first: a port on which an Envoy of somebody else listens must not look free.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as alone:
            alone.bind((LOOPBACK, port))
        held = on_failure.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        if hasattr(socket, "SO_REUSEPORT"):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((LOOPBACK, port))
        on_failure.pop_all()
        return port, (held, claim)
