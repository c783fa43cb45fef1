"""Small HTTP/2 peers on loopback, made with the h2 library: each test says what its peer does with a request."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import hpack


class _Encoder(hpack.Encoder):
    """This compresses without Huffman's code, which takes seconds for what is large."""

    def encode(self, headers: Iterable[Any], huffman: bool = False) -> bytes:
        return super().encode(headers, huffman=False)


class Link(asyncio.Protocol):
    """This is one connection of a peer."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.number = len(peer.links)
        self.requests: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.heard: list[h2.events.Event] = []
        self.over = asyncio.Event()
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )

        self.h2.encoder = _Encoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peer.links.append(self)
        self.peer.begun.set()
        if self.peer.mute:
            return
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=self.peer.settings)
        self.h2.initiate_connection()
        self.flush()
        self.peer.greeted(self)

    def data_received(self, data: bytes) -> None:
        if self.peer.mute:
            return
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            # After what a test had it send, it may not understand the answer.
            return
        for event in events:
            self.heard.append(event)
            self._take(event)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.requests[event.stream_id] = {bytes(name): bytes(value) for name, value in event.headers}
            self.bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            if self.peer.takes_body:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.peer.answer(self, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.peer.given_up.set()
        elif isinstance(event, h2.events.WindowUpdated):
            self.peer.more_room(self)

    def path(self, stream: int) -> bytes:
        return self.requests[stream][b":path"]

    def says(self, stream: int, body: bytes = b"ok", headers: list[tuple[str, str]] | None = None) -> None:
        """Answer *stream*, as long as the windows are wide enough for *body*."""
        default = [(":status", "200"), ("content-length", str(len(body)))]
        self.h2.send_headers(stream, headers or default, end_stream=not body)
        for begin in range(0, len(body), 16_384):
            part = body[begin : begin + 16_384]
            self.h2.send_data(stream, part, end_stream=begin + len(part) == len(body))
        self.flush()

    def goes_away(self, last: int, code: int = 0) -> None:
        """Say goodbye, having seen what is up to *last*, and go on answering: h2 itself would refuse to."""
        self.flush()
        self.transport.write(frame(7, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big")))

    def leaves(self, last: int) -> None:
        """Say goodbye, having seen what is up to *last*, and go."""
        self.goes_away(last)
        self.transport.close()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


def _ok(link: Link, stream: int) -> None:
    link.says(stream)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class Peer:
    """This is a server that does *answer* with each request; with *mute* it never says anything."""

    def __init__(
        self,
        answer: Callable[[Link, int], object] = _ok,
        *,
        streams_most: int = 1000,
        window_bytes: int = 65_535,
        takes_body: bool = True,
        mute: bool = False,
    ) -> None:
        codes = h2.settings.SettingCodes
        self.answer = answer
        self.settings: Any = {codes.MAX_CONCURRENT_STREAMS: streams_most, codes.INITIAL_WINDOW_SIZE: window_bytes}
        self.takes_body = takes_body
        self.mute = mute
        self.more_room: Callable[[Link], object] = lambda _: None
        self.greeted: Callable[[Link], object] = lambda _: None
        self.links: list[Link] = []
        self.begun = asyncio.Event()
        self.given_up = asyncio.Event()
        self.port = 0

    @contextlib.asynccontextmanager
    async def up(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Link(self), "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for link in self.links:
                link.transport.abort()
            await server.wait_closed()
