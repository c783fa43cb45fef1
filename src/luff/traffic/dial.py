"""
Opening connections: where to, with which TLS, and what it means when that fails.

Building a TLS context reads every CA of the machine, which takes longer than
most requests: it is done once for a transport, in a thread, and never while
others wait for the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from luff.hosts import is_ip
from luff.samples import Failure

__all__ = ["FRESH_S", "Address", "Dialler", "NotProcessed", "TrafficError", "race_s"]

RESOLVE_WITHIN_S = 5.0
CONNECT_WITHIN_S = 5.0
FRESH_S = 1.0
"""For so long after its use no server closes a connection for being idle."""
RACE_LEAST_S = 0.002
RACE_ROUND_TRIPS = 1.5
_OUT_OF_SOMETHING = (errno.ENFILE, errno.EMFILE, errno.EADDRNOTAVAIL)
"""This machine has no file or no port left."""
_ACCEPTED_FIRST = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, ssl.SSLError)
"""How a connection ends in the TLS handshake: somebody was there, and no other address is tried."""
_RTT_AT = 68
"""Where Linux has ``tcpi_rtt``, microseconds, in its ``tcp_info``."""

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


class TrafficError(httpx.TransportError):
    """This is a request without a complete answer. *failure* says why."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure = failure


class NotProcessed(TrafficError):
    """
    This is a request that the peer has not processed: *surely*, as the peer itself says, or by all signs.

    It may be sent again: the former whatever its method, the latter where its method bears it.
    """

    def __init__(self, failure: Failure, message: str, *, surely: bool = False) -> None:
        super().__init__(failure, message)
        self.surely = surely


@dataclass(frozen=True, slots=True)
class Address:
    """This is where to dial."""

    host: str
    port: int


class Dialler:
    """
    This opens connections. *ssl_context* ``None`` means the machine's own CAs.

    *server_name* is verified instead of the URL's; *spoken* is offered in the
    TLS handshake (ALPN), the best first.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext | None = None, server_name: str | None = None, *, spoken: Sequence[str] = ()
    ) -> None:
        self._ssl_context = ssl_context
        self._server_name = server_name
        self._spoken = list(spoken)
        if ssl_context is not None and spoken:
            ssl_context.set_alpn_protocols(self._spoken)
        self._making: asyncio.Task[ssl.SSLContext] | None = None

    async def dial(self, address: Address, *, tls_name: str | None, made: Callable[[], ProtocolT]) -> ProtocolT:
        """
        Return what *made* makes, connected to *address*; with *tls_name* over TLS, for that name.

        Raises `TrafficError` with the kind of failure, within `RESOLVE_WITHIN_S` and `CONNECT_WITHIN_S`.
        """
        where = f"{address.host}:{address.port}"
        found = [Address(host, address.port) for host in await _resolved(address)]
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                tls = await self._context() if tls_name is not None else None
                name = (self._server_name or tls_name) if tls is not None else None
                return await _connected(found, made, tls, name)
        except TimeoutError as error:
            raise TrafficError(Failure.CONNECT, f"{where} did not accept within {CONNECT_WITHIN_S:.0f} s") from error
        except ssl.SSLError as error:
            raise TrafficError(Failure.TLS, f"TLS with {where} failed: {error}") from error
        except OSError as error:
            kind = Failure.POOL if error.errno in _OUT_OF_SOMETHING else Failure.CONNECT
            raise TrafficError(kind, f"{where} could not be dialled: {error}") from error

    async def _context(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            if self._making is None:
                self._making = asyncio.create_task(asyncio.to_thread(ssl.create_default_context))
            # Whoever gives up waiting leaves it to be made for the others.
            self._ssl_context = await asyncio.shield(self._making)
            self._making = None
            if self._spoken:
                self._ssl_context.set_alpn_protocols(self._spoken)
        return self._ssl_context

    async def aclose(self) -> None:
        """Wait for a context that is still being made: a thread cannot be called back."""
        if self._making is not None:
            await asyncio.gather(self._making, return_exceptions=True)
            self._making = None


async def _resolved(address: Address) -> Sequence[str]:
    """Return the numbers that the host of *address* stands for, the best first; a `TrafficError` of ours where none is found."""
    host = address.host
    if is_ip(host):
        return [host]
    try:
        async with asyncio.timeout(RESOLVE_WITHIN_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        why = f"no name server said within {RESOLVE_WITHIN_S:.0f} s which address {host} has"
        raise TrafficError(Failure.RESOLVE, why) from error
    except UnicodeError as error:
        raise TrafficError(Failure.RESOLVE, f"{host!r} is no host name: {error}") from error
    except OSError as error:
        kind = Failure.POOL if error.errno in _OUT_OF_SOMETHING else Failure.RESOLVE
        raise TrafficError(kind, f"{host} has no address here: {error.strerror}") from error
    return list(dict.fromkeys(_number_of(place) for *_, place in found))


def _number_of(place: tuple[Any, ...]) -> str:
    """Return the address in *place* as text, with the interface that a link-local one is on."""
    host, _, *rest = place
    return f"{host}%{rest[1]}" if rest and rest[1] else str(host)


async def _connected(
    found: Sequence[Address], made: Callable[[], ProtocolT], tls: ssl.SSLContext | None, name: str | None
) -> ProtocolT:
    """Dial one of *found* after the other, and raise for the first where none accepts; what this machine lacks comes before that."""
    errors: list[OSError] = []
    for each in found:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                made, each.host, each.port, ssl=tls, server_hostname=name
            )
        except _ACCEPTED_FIRST:
            raise
        except OSError as error:
            errors.append(error)
        else:
            return connection
    raise next((error for error in errors if error.errno in _OUT_OF_SOMETHING), errors[0])


def race_s(transport: asyncio.BaseTransport) -> float:
    """Return for how many seconds after a request was written its connection can end, and the peer not have seen it."""
    return max(RACE_LEAST_S, RACE_ROUND_TRIPS * _round_trip_s(transport))


def _round_trip_s(transport: asyncio.BaseTransport) -> float:
    """Return the kernel's own measure of the way to the peer and back in seconds, 0 where it does not tell."""
    option = getattr(socket, "TCP_INFO", None)
    sock = transport.get_extra_info("socket")
    if option is None or sock is None:
        return 0.0
    try:
        said = sock.getsockopt(socket.IPPROTO_TCP, option, _RTT_AT + 4)
    except OSError:
        return 0.0
    return float(struct.unpack_from("=I", said, _RTT_AT)[0]) / 1e6 if len(said) == _RTT_AT + 4 else 0.0
