"""
A TCP proxy that misbehaves on command: what lies between luff and an API server on a bad day.

``port = proxy.start((host, port))``, then `MisbehavingProxy.set` at any time: a toxic
is in force from the next bytes on, for connections that are open already as well.
It knows nothing of what it carries.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias

import yaml

__all__ = ["THREADS", "MisbehavingProxy", "Toxic", "kubeconfig_through"]

CHUNK = 64 * 1024
CONNECT_WITHIN_S = 5.0
STOP_WITHIN_S = 5.0
Kind: TypeAlias = Literal["latency", "reset", "half_close", "cut", "black_hole", "reply_lost", "refuse"]
Way: TypeAlias = Literal["request", "reply"]
_AFTER_BYTES: tuple[Kind, ...] = ("reset", "half_close", "cut")


@dataclass(frozen=True, slots=True)
class Toxic:
    """
    This is one way to misbehave, for the next *times* connections that it strikes; ``None`` for all until it is unset.

    - ``latency``: what goes *way* comes *seconds* later, piece by piece;
    - ``reset``: after *after_bytes* of what goes *way* both ends get a reset;
    - ``half_close``: after *after_bytes* of the reply the client reads an end, while its own side stays open;
    - ``cut``: after *after_bytes* of what goes *way* both ends are closed in good order;
    - ``black_hole``: nothing gets through any more, and nothing is closed;
    - ``reply_lost``: the request arrives, and when it is answered, the client's connection is reset;
    - ``refuse``: a new connection is reset at once, before anything of it reaches the other end.
    """

    kind: Kind
    way: Way = "reply"
    seconds: float = 0.0
    after_bytes: int = 0
    times: int | None = None


THREADS = "misbehaving proxy"
"""The name of every thread of one."""


class MisbehavingProxy:
    """This is the proxy; as a context manager it stops at the end, with every connection closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._toxic: Toxic | None = None
        self._struck: set[int] = set()
        self._struck_before = 0
        self._ended = threading.Event()
        self._changed = threading.Event()
        self._listener: socket.socket | None = None
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._upstream = ("127.0.0.1", 0)
        self.connections = 0
        """How many came in so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, upstream: tuple[str, int]) -> int:
        """Listen on 127.0.0.1 for connections to *upstream*, and return the port."""
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._spawn(self._accept, self._listener)
        return int(self._listener.getsockname()[1])

    def set(self, toxic: Toxic | None) -> None:
        """Misbehave like *toxic* from now on, or behave. What a black hole held back goes on its way then."""
        with self._lock:
            self._toxic = toxic
            self._struck_before += len(self._struck)
            self._struck = set()
            changed, self._changed = self._changed, threading.Event()
        changed.set()

    @property
    def struck(self) -> int:
        """How many connections were struck so far, by the toxic in force and by those before it."""
        with self._lock:
            return self._struck_before + len(self._struck)

    def drop(self) -> None:
        """Close every connection that is open, in good order."""
        with self._lock:
            open_ = list(self._sockets)
        for each in open_:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Close everything and return when no thread of it is left."""
        self._ended.set()
        self.set(None)
        if self._listener is not None:
            # A listener that is only closed leaves who accepts on it waiting.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(STOP_WITHIN_S)

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True, name=THREADS)  # type: ignore[arg-type]  # any callable
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._strikes(self.connections, "refuse"):
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._upstream, CONNECT_WITHIN_S)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            if self._ended.is_set():
                # It was stopped meanwhile, and may have looked at what is open before this was.
                _reset(client, server)
                return
            self._spawn(self._carry, self.connections, client, server)

    def _strikes(self, number: int, kind: Kind, way: Way | None = None) -> Toxic | None:
        """Return the toxic in force if it is a *kind* for connection *number*, and count that it struck."""
        with self._lock:
            toxic = self._toxic
            if toxic is None or toxic.kind != kind or way not in (None, toxic.way):
                return None
            if number not in self._struck and toxic.times is not None and len(self._struck) >= toxic.times:
                return None
            self._struck.add(number)
            return toxic

    def _carry(self, number: int, client: socket.socket, server: socket.socket) -> None:
        """Carry both ways until an end is gone or a toxic ends it; one thread, since a socket in use cannot be reset."""
        connection = _Connection(number, client, server)
        try:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while connection.open:
                for source in select.select(connection.open, [], [])[0]:
                    piece = source.recv(CHUNK)
                    self._hold(number)
                    self._pass(connection, "request" if source is client else "reply", piece)
        except _Reset:
            _reset(client, server)
        except (OSError, _Cut):
            pass
        finally:
            with self._lock:
                self._sockets -= {client, server}
            client.close()
            server.close()

    def _hold(self, number: int) -> None:
        while not self._ended.is_set():
            # Taken before the look, so that no change is missed between the two.
            changed = self._changed
            if not self._strikes(number, "black_hole"):
                return
            changed.wait()

    def _pass(self, connection: _Connection, way: Way, piece: bytes) -> None:
        """Hand *piece* on, as far as the toxic in force lets it; an empty one is the end of what goes *way*."""
        source, sink = (connection.client, connection.server)[:: 1 if way == "request" else -1]
        if not piece:
            connection.open.discard(source)
            sink.shutdown(socket.SHUT_WR)
            return
        late = self._strikes(connection.number, "latency", way)
        if late is not None:
            self._ended.wait(late.seconds)
        if way == "reply" and self._strikes(connection.number, "reply_lost"):
            raise _Reset
        before = connection.carried[way]
        connection.carried[way] += len(piece)
        toxic = self._limit(connection, way)
        if toxic is None:
            sink.sendall(piece)
            return
        if toxic.after_bytes > before:
            sink.sendall(piece[: toxic.after_bytes - before])
        if toxic.kind == "half_close":
            sink.shutdown(socket.SHUT_WR)
        else:
            raise _Reset if toxic.kind == "reset" else _Cut

    def _limit(self, connection: _Connection, way: Way) -> Toxic | None:
        """Return the toxic that ends *connection* now, if enough has been carried for it."""
        with self._lock:
            toxic = self._toxic
        if toxic is None or toxic.kind not in _AFTER_BYTES or connection.carried[way] < toxic.after_bytes:
            return None
        return self._strikes(connection.number, toxic.kind, way)


class _Connection:
    """This is one connection, and how much it has carried each way."""

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number, self.client, self.server = number, client, server
        self.open = {client, server}
        self.carried: dict[Way, int] = {"request": 0, "reply": 0}


class _Cut(Exception):
    """The connection is to be closed in good order."""


class _Reset(Exception):
    """The connection is to be reset."""


def _reset(*ends: socket.socket) -> None:
    for end in ends:
        # To linger for no time at all is how a reset is asked for.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()


def kubeconfig_through(port: int, kubeconfig: Path, to: Path) -> Path:
    """Write *kubeconfig* again to *to*, with every server behind the proxy at *port*; return *to*."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    for cluster in document["clusters"]:
        scheme = cluster["cluster"]["server"].partition("://")[0]
        cluster["cluster"]["server"] = f"{scheme}://127.0.0.1:{port}"
    to.touch(mode=0o600)
    to.write_text(yaml.safe_dump(document), encoding="utf-8")
    return to
