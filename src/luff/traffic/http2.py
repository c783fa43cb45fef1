"""
One HTTP/2 connection, carrying many requests at a time, over asyncio and h2.

What must stay true: whatever the peer sends, in whatever pieces, each request
ends in exactly one answer or one `TrafficError`. What befalls one stream leaves
the others alone; what befalls the connection ends every stream on it, each with
a class of the peer's.

h2 gets one frame at a time: it throws away what it understood of all others
that came with a bad one. It never gets a GOAWAY, after which it reads nothing
more, while a peer that says goodbye still answers what it has begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack
import httpx

from luff.samples import Failure
from luff.traffic.dial import FRESH_S, NotProcessed, TrafficError, race_s
from luff.traffic.http1 import BODY_MOST_BYTES, HEAD_MOST_BYTES

__all__ = ["STREAMS_MOST", "Connection", "Stream", "head"]

STREAMS_MOST = 100
"""Requests on one connection at a time, also where the peer allows more: what is above it goes on another one."""
STREAM_NUMBER_MOST = 1 << 30
"""From here on the numbers of streams go to an end, and a new connection is opened in time."""
CONNECTION_WINDOW_BYTES = 2 * BODY_MOST_BYTES
"""What may be under way to us at once on all streams together; all that came is made room for at once."""
HEAD_DECODED_MOST_BYTES = 4 * HEAD_MOST_BYTES
"""A head that decodes to more ends the connection, since what it changed for later ones is not known any more."""
TABLE_MOST_BYTES = 4096
"""Header fields that are remembered to say them shorter; looking for them in more takes longer than it spares."""

_FRAME_HEAD_BYTES = 9
_FRAME_MOST_BYTES = 16_384
_GOAWAY = 7
_CONTINUATION = 9
_Errors = h2.errors.ErrorCodes


class Stream:
    """This is one request and what has come of its answer."""

    __slots__ = (
        "body",
        "body_bytes",
        "head_bytes",
        "headers",
        "heard_before",
        "length",
        "number",
        "status",
        "unsent",
        "waiter",
        "was_idle",
        "written_s",
    )

    def __init__(self, number: int, unsent: bytes, *, head_only: bool) -> None:
        self.number = number
        self.unsent = memoryview(unsent)
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.length = 0 if head_only else None
        self.head_bytes = 0
        self.body_bytes = 0
        self.written_s = 0.0
        self.was_idle = False
        self.heard_before = 0
        self.waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Connection(asyncio.Protocol):
    """This is one connection, carrying many requests. *streams_most* is how many, until the peer says."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, streams_most: int = STREAMS_MOST) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.retired = False
        self.streams_most = streams_most
        self.idle_since_s = 0.0
        self._clock = clock
        self._race_s = 0.0
        self._heard = 0
        self._unread = bytearray()
        self._readable = select.poll()
        self._streams: dict[int, Stream] = {}
        self._h2 = _client()

    # asyncio.Protocol
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but do what one does.
        self.transport = cast("asyncio.Transport", transport)
        self.idle_since_s = self._clock()
        self._race_s = race_s(transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW_BYTES - self._h2.inbound_flow_control_window)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard += 1
        self._unread += data
        while not self.closed and (frame := self._frame()) is not None:
            self._take(frame)
        self._flush()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        lost_s = self._clock()
        for stream in list(self._streams.values()):
            unheard = stream.was_idle and stream.heard_before == self._heard
            kind = NotProcessed if unheard and 0.0 <= lost_s - stream.written_s <= self._race_s else TrafficError
            self._end(stream, kind(Failure.RESET, "the connection ended before the answer did"))

    # what came
    def _frame(self) -> bytes | None:
        """Return the next whole frame, ``None`` where there is none yet."""
        if len(self._unread) < _FRAME_HEAD_BYTES:
            return None
        length = int.from_bytes(self._unread[:3])
        if length > _FRAME_MOST_BYTES:
            self._break(0, Failure.PROTOCOL, "what came is not HTTP/2")
            return None
        end = _FRAME_HEAD_BYTES + length
        if len(self._unread) < end:
            return None
        frame = bytes(self._unread[:end])
        del self._unread[:end]
        return frame

    def _take(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:
            self._say_goodbye(frame)
            return
        try:
            events = self._h2.receive_data(frame)
        except h2.exceptions.ProtocolError as error:
            number = int.from_bytes(frame[5:9]) & 0x7FFFFFFF
            if isinstance(error, h2.exceptions.DenialOfServiceError) or frame[3] == _CONTINUATION:
                self._break(number, Failure.TOO_LARGE, f"the head is larger than {HEAD_MOST_BYTES} bytes")
            else:
                self._break(number, Failure.PROTOCOL, f"what came is not HTTP/2: {error}")
            return
        for event in events:
            read = _READ.get(type(event))
            if read is not None:
                read(self, event)

    def _answered(self, event: h2.events.ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None or not self._heads(event):
            return
        status = next((value for name, value in event.headers if name == b":status"), b"")
        if not (len(status) == 3 and status.isdigit() and status >= b"200"):
            self._reject(stream, Failure.PROTOCOL, f"the status is {status.decode('latin-1')!r}")
            return
        stream.status = int(status)
        stream.headers = [(bytes(name), bytes(value)) for name, value in event.headers if name[:1] != b":"]
        if stream.length is None and stream.status not in (204, 304):
            stream.length = next((int(value) for name, value in stream.headers if name == b"content-length"), None)
        if (known := self._h2.streams.get(stream.number)) is not None:
            # What h2 thinks of another length would end every stream of the connection.
            known._expected_content_length = None

    def _heads(self, event: Any) -> bool:
        """Count what came beside the body: also interim answers, which may come without number, and what is behind the body."""
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return False
        stream.head_bytes += sum(len(name) + len(value) for name, value in event.headers)
        if stream.head_bytes > HEAD_MOST_BYTES:
            self._reject(stream, Failure.TOO_LARGE, f"the head is larger than {HEAD_MOST_BYTES} bytes")
            return False
        return True

    def _got_body(self, event: h2.events.DataReceived) -> None:
        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        stream.body_bytes += len(event.data)
        if stream.length is not None and stream.body_bytes > stream.length:
            self._reject(stream, Failure.PROTOCOL, f"the body is longer than the {stream.length} bytes that were said")
            return
        if stream.body_bytes > BODY_MOST_BYTES:
            self._reject(stream, Failure.TOO_LARGE, f"the body is larger than {BODY_MOST_BYTES} bytes")
            return
        stream.body.append(event.data)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        if stream.length is not None and stream.body_bytes < stream.length:
            self._reject(stream, Failure.PROTOCOL, f"the body ended after {stream.body_bytes} of {stream.length} bytes")
            return
        if stream.unsent:
            # It has answered and wants no more of the request.
            self._reset(stream, _Errors.NO_ERROR)
        self._end(stream, None)

    def _was_reset(self, event: h2.events.StreamReset) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        code = event.error_code
        why = f"the stream was reset: {code.name if isinstance(code, _Errors) else code}"
        if code == _Errors.REFUSED_STREAM:
            self._end(stream, NotProcessed(Failure.RESET, why, surely=True))
        else:
            self._end(stream, TrafficError(_RESET.get(code, Failure.RESET), why))

    def _say_goodbye(self, frame: bytes) -> None:
        """Take nothing new from here on. What the peer has not seen goes elsewhere, and what it has it may still answer."""
        self.retired = True
        if len(frame) < _FRAME_HEAD_BYTES + 8:
            self._break(0, Failure.PROTOCOL, "what came is not HTTP/2: a GOAWAY of a wrong size")
            return
        last = int.from_bytes(frame[9:13]) & 0x7FFFFFFF
        for stream in [each for number, each in self._streams.items() if number > last]:
            self._end(stream, NotProcessed(Failure.RESET, "the peer was just going away", surely=True))
        if not self._streams:
            self.close()

    def _may_send_more(self, event: h2.events.RemoteSettingsChanged | h2.events.WindowUpdated) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self.streams_most = min(STREAMS_MOST, self._h2.remote_settings.max_concurrent_streams)
            if self._h2.encoder.header_table_size > TABLE_MOST_BYTES:
                self._h2.encoder.header_table_size = TABLE_MOST_BYTES
        for stream in [each for each in self._streams.values() if each.unsent]:
            self._send_body(stream)

    # one request
    async def exchange(self, request: httpx.Request, body: bytes) -> Stream:
        """Send *request* and come back when the answer is complete; raises `TrafficError`."""
        stream = self._begin(request, body)
        try:
            await stream.waiter
        except asyncio.CancelledError:
            self._give_up(stream)
            raise
        return stream

    def _begin(self, request: httpx.Request, body: bytes) -> Stream:
        if self.retired:
            raise NotProcessed(Failure.RESET, "the peer was just going away", surely=True)
        if self.closed or self.transport is None or self.transport.is_closing():
            raise TrafficError(Failure.RESET, "the connection was closed while it was idle")
        stream = Stream(self._h2.get_next_available_stream_id(), body, head_only=request.method == "HEAD")
        stream.written_s = self._clock()
        stream.was_idle = not self._streams and stream.written_s - self.idle_since_s > FRESH_S
        stream.heard_before = self._heard
        try:
            self._h2.send_headers(stream.number, head(request, body), end_stream=not body)
        except h2.exceptions.TooManyStreamsError as error:
            raise TrafficError(Failure.RESET, "the peer takes no request on this connection") from error
        self._streams[stream.number] = stream
        self._send_body(stream)
        self._flush()
        return stream

    def _send_body(self, stream: Stream) -> None:
        """Send of the body what the peer has room for now."""
        while stream.unsent:
            fits = min(self._h2.local_flow_control_window(stream.number), self._h2.max_outbound_frame_size)
            if fits <= 0:
                return
            part, stream.unsent = stream.unsent[:fits], stream.unsent[fits:]
            self._h2.send_data(stream.number, part, end_stream=not stream.unsent)

    def _give_up(self, stream: Stream) -> None:
        """End *stream* as its own caller no longer waits for it: the connection stays, unless nothing came on it meanwhile."""
        if self._streams.pop(stream.number, None) is None or self.closed:
            return
        self._reset(stream, _Errors.CANCEL)
        self._flush()
        # A peer that fell silent is not given more, or one dead connection would be the end of every later request.
        self.retired = self.retired or stream.heard_before == self._heard
        self._rest()

    def _reject(self, stream: Stream, failure: Failure, message: str) -> None:
        """End *stream* for what came on it, and tell the peer."""
        self._reset(stream, _Errors.PROTOCOL_ERROR if failure is Failure.PROTOCOL else _Errors.CANCEL)
        self._end(stream, TrafficError(failure, message))

    def _reset(self, stream: Stream, code: h2.errors.ErrorCodes) -> None:
        with contextlib.suppress(h2.exceptions.StreamClosedError):
            self._h2.reset_stream(stream.number, code)
        # Counting lets h2 forget it. An interim answer to a stream that it knows to be closed would be its end.
        _ = self._h2.open_outbound_streams

    def _end(self, stream: Stream, error: TrafficError | None) -> None:
        del self._streams[stream.number]
        if not stream.waiter.done():
            stream.waiter.set_exception(error) if error is not None else stream.waiter.set_result(None)
        self._rest()

    def _rest(self) -> None:
        if not self._streams:
            self.idle_since_s = self._clock()
            if self.retired and not self.closed:
                self._flush()
                self.close()

    def _break(self, guilty: int, failure: Failure, message: str) -> None:
        """Close for what came in the stream *guilty*: it gets *failure*, the others lost their connection; all do where none did it."""
        known = guilty in self._streams
        self.close()
        for stream in list(self._streams.values()):
            self._end(stream, TrafficError(Failure.RESET if known and stream.number != guilty else failure, message))

    def _flush(self) -> None:
        if self.transport is None or self.closed or self.transport.is_closing():
            return
        if data := self._h2.data_to_send():
            self.transport.write(data)

    # the connection
    def has_room(self) -> bool:
        """Return whether one more request may be sent now."""
        return (
            len(self._streams) < self.streams_most
            and not (self.closed or self.retired or self.transport is None or self.transport.is_closing())
            and self._h2.highest_outbound_stream_id < STREAM_NUMBER_MOST
        )

    @property
    def idle(self) -> bool:
        """Return whether no request is under way."""
        return not self._streams

    def is_stale(self) -> bool:
        """Return whether something waits to be read on this idle connection, which may be its end."""
        return self.closed or bool(self._readable.poll(0))

    @property
    def over(self) -> bool:
        """Return whether nothing more will be sent here."""
        return self.closed or (self.retired and not self._streams)

    def close(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


_READ: dict[type, Callable[[Connection, Any], object]] = {
    h2.events.ResponseReceived: Connection._answered,
    h2.events.InformationalResponseReceived: Connection._heads,
    h2.events.TrailersReceived: Connection._heads,
    h2.events.DataReceived: Connection._got_body,
    h2.events.StreamEnded: Connection._ended,
    h2.events.StreamReset: Connection._was_reset,
    h2.events.RemoteSettingsChanged: Connection._may_send_more,
    h2.events.WindowUpdated: Connection._may_send_more,
}
_RESET: dict[int, Failure] = {_Errors.HTTP_1_1_REQUIRED: Failure.PROTOCOL}
"""What a stream is ended with by the peer, where it is not simply a reset."""


class _Encoder(hpack.Encoder):
    """This compresses without Huffman's code, for which hpack takes 5 ms with a token of 2 KB, and the more the longer."""

    def encode(self, headers: Iterable[Any], huffman: bool = False) -> bytes:
        return super().encode(headers, huffman=False)


def _client() -> h2.connection.H2Connection:
    """Return a connection that takes no pushes, and makes room for the largest body at once: its own window slows nobody down."""
    client = h2.connection.H2Connection(
        h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            # What it thinks of a header would end every stream of the connection.
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
        )
    )
    codes = h2.settings.SettingCodes
    client.local_settings = h2.settings.Settings(
        client=True,
        initial_values={
            codes.ENABLE_PUSH: 0,
            codes.INITIAL_WINDOW_SIZE: BODY_MOST_BYTES,
            codes.MAX_HEADER_LIST_SIZE: HEAD_MOST_BYTES,
        },
    )
    client.encoder = _Encoder()
    client.decoder.max_header_list_size = HEAD_DECODED_MOST_BYTES
    return client


def head(request: httpx.Request, body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the header fields of *request*, as h2 takes them: it lets go of those that only HTTP/1.1 knows."""
    url, headers = request.url, request.headers
    fields = [
        (b":method", request.method.encode("ascii")),
        (b":scheme", url.raw_scheme),
        (b":authority", headers["host"].encode() if "host" in headers else url.netloc),
        (b":path", url.raw_path),
    ]
    fields += [(name, value) for name, value in headers.raw if name.lower() != b"host"]
    if body and "content-length" not in headers:
        fields.append((b"content-length", b"%d" % len(body)))
    return fields
