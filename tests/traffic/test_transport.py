"""The transport against small real servers on loopback, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from luff.samples import Failure
from luff.traffic.dial import Address, TrafficError
from luff.traffic.http1 import BODY_MOST_BYTES, HEAD_MOST_BYTES
from luff.traffic.transport import FRESH_S, REPEATED, Transport
from tests.traffic.asking import LOST, ask_and_lose, send
from tests.traffic.conftest import Run, Time

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter
Handler = Callable[[Reader, Writer], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """This is a server whose every connection is given to *handler*; it counts them."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._writers: set[Writer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self.port = 0

    async def _serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        self.begun.set()
        self._writers.add(writer)
        self._tasks.add(task) if (task := asyncio.current_task()) else None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._handler(reader, writer)
        writer.close()
        self.ended.set()

    @contextlib.asynccontextmanager
    async def up(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer in self._writers:
                writer.transport.abort()
            await server.wait_closed()


async def _head(reader: Reader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def _always(answer: bytes) -> Handler:
    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            await _head(reader)
            writer.write(answer)
            await writer.drain()

    return handler


def _once(answer: bytes, *, reset: bool = False) -> Handler:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(answer)
        await writer.drain()
        if reset:
            _reset(writer)

    return handler


def _reset(writer: Writer) -> None:
    """Close with RST instead of FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def _transport(port: int, **more: Any) -> AsyncIterator[Transport]:
    transport = Transport(lambda _: Address("127.0.0.1", port), **more)
    try:
        yield transport
    finally:
        await transport.aclose()


def _asked(
    handler: Handler, body: Callable[[Transport, Server], Awaitable[None]], **more: Any
) -> Coroutine[Any, Any, None]:
    """Return the work of asking a server, so that each test is its handler and its questions."""

    async def work() -> None:
        async with Server(handler).up() as server, _transport(server.port, **more) as transport:
            await body(transport, server)

    return work()


ANSWERS: list[tuple[str, bytes, int, bytes, bool]] = [
    ("with a length", OK, 200, b"ok", True),
    ("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", 200, b"abcde", True),
    ("chunked with a trailer", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-late: 1\r\n\r\n", 200, b"a", True),
    ("without a body", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b"", True),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    ("304 with the length of what it is not", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", 304, b"", True),
    ("after an interim answer", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, 200, b"ok", True),
    ("closing", b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
    ("of HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, b"ok", False),
    ("a redirect", b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", 302, b"", True),
    ("an error", b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy", 503, b"busy", True),
    ("two for one question", OK + b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\nx: y\r\n\r\nbad", 200, b"ok", False),
    ("with rubbish behind it", OK + b"\0\0\0rubbish", 200, b"ok", False),
]  # fmt: skip


@pytest.mark.parametrize(("what", "answer", "status", "body", "reused"), ANSWERS, ids=[what for what, *_ in ANSWERS])
def test_answers(run: Run, what: str, answer: bytes, status: int, body: bytes, *, reused: bool) -> None:
    async def ask(transport: Transport, server: Server) -> None:
        for _ in range(3):
            response = await send(transport)
            assert (response.status_code, response.content) == (status, body)
            assert "link" not in response.headers
            assert "x-late" not in response.headers
            assert "x" not in response.headers
        assert server.connections == (1 if reused else 3)

    run(_asked(_always(answer), ask))


def test_a_head_has_no_body_whatever_it_announces(run: Run) -> None:
    async def ask(transport: Transport, server: Server) -> None:
        for _ in range(3):
            response = await send(transport, "HEAD")
            assert (response.status_code, response.headers["content-length"], response.content) == (200, "9", b"")
        assert server.connections == 1

    run(_asked(_always(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), ask))


@pytest.mark.parametrize("reset", [False, True])
def test_a_body_may_last_until_the_connection_ends_but_not_until_it_breaks(run: Run, *, reset: bool) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall ")
        await writer.drain()
        await asyncio.sleep(0.02)
        if reset:
            _reset(writer)
        else:
            writer.write(b"of it")

    async def ask(transport: Transport, _: Server) -> None:
        if reset:
            assert await _failing(transport) is Failure.RESET
        else:
            assert (await send(transport)).content == b"all of it"
            assert (await send(transport)).content == b"all of it"

    run(_asked(handler, ask))


async def _failing(transport: Transport, method: str = "GET", url: str = "http://shop/", **more: Any) -> Failure:
    with pytest.raises(TrafficError) as caught:
        await send(transport, method, url, **more)
    assert str(caught.value)
    return caught.value.failure


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BROKEN: list[tuple[str, bytes, Failure]] = [
    ("nothing at all", b"", Failure.RESET),
    ("half a head", b"HTTP/1.1 200 OK\r\ncontent-le", Failure.RESET),
    ("half a body", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", Failure.RESET),
    ("half a chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf", Failure.RESET),
    ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n", Failure.PROTOCOL),
    ("a length that is none", b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", Failure.PROTOCOL),
    ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok", Failure.PROTOCOL),
    ("a chunk of no size", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", Failure.PROTOCOL),
    ("no status", b"HTTP/1.1 000 Nothing\r\ncontent-length: 0\r\n\r\n", Failure.PROTOCOL),
    ("another protocol from here on", b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n!", Failure.PROTOCOL),
    ("a large header", b"HTTP/1.1 200 OK\r\nx-large: " + b"x" * (HEAD_MOST_BYTES + 9) + b"\r\ncontent-length: 0\r\n\r\n", Failure.TOO_LARGE),
    ("many headers", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * HEAD_MOST_BYTES + b"\r\n", Failure.TOO_LARGE),
    ("interim answers without end", b"HTTP/1.1 100 Continue\r\nx: 123456789\r\n\r\n" * 20_000, Failure.TOO_LARGE),
    ("a large header behind the body", CHUNKED + b"1\r\na\r\n0\r\nx-large: " + b"x" * 4 * HEAD_MOST_BYTES, Failure.TOO_LARGE),
    ("headers behind the body without end", CHUNKED + b"1\r\na\r\n0\r\n" + b"x: y\r\n" * HEAD_MOST_BYTES, Failure.TOO_LARGE),
    ("a chunk whose size has no end", CHUNKED + b"1;x=" + b"x" * 4 * HEAD_MOST_BYTES, Failure.TOO_LARGE),
    ("10 MB", b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n" + bytes(10_000_000), Failure.TOO_LARGE),
    ("10 MB until the end", b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10_000_000), Failure.TOO_LARGE),
]  # fmt: skip


@pytest.mark.parametrize(("what", "answer", "failure"), BROKEN, ids=[what for what, *_ in BROKEN])
def test_broken_answers_have_a_class(run: Run, what: str, answer: bytes, failure: Failure) -> None:
    async def ask(transport: Transport, _: Server) -> None:
        assert await _failing(transport) is failure
        assert not failure.ours

    run(_asked(_once(answer), ask))


def test_a_reset_inside_the_answer_is_theirs(run: Run) -> None:
    async def ask(transport: Transport, _: Server) -> None:
        assert await _failing(transport) is Failure.RESET

    run(_asked(_once(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", reset=True), ask))


def test_the_largest_body_that_may_come_comes_with_its_head(run: Run) -> None:
    body = bytes(BODY_MOST_BYTES)

    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
        await writer.drain()
        await asyncio.sleep(0.02)
        # The rest of the head and as much body as fits come in one piece.
        writer.write(b"ngth: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await reader.read()

    async def ask(transport: Transport, _: Server) -> None:
        response = await send(transport)
        assert len(response.content) == BODY_MOST_BYTES

    run(_asked(handler, ask))


def test_a_head_that_comes_in_pieces_may_be_as_large_as_one_in_one_piece(run: Run) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(240):
            writer.write(b"x-%d: %b\r\n" % (number, b"x" * 1000))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"content-length: 2\r\n\r\nok")

    async def ask(transport: Transport, _: Server) -> None:
        assert (await send(transport)).content == b"ok"

    run(_asked(handler, ask))


def test_a_body_may_come_in_the_smallest_of_chunks(run: Run) -> None:
    async def ask(transport: Transport, _: Server) -> None:
        assert (await send(transport)).content == b"x" * HEAD_MOST_BYTES

    run(_asked(_once(CHUNKED + b"1\r\nx\r\n" * HEAD_MOST_BYTES + b"0\r\nx-late: 1\r\n\r\n"), ask))


def test_a_refused_connection_is_theirs(run: Run) -> None:
    async def ask() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with _transport(taken.getsockname()[1]) as transport:
                assert await _failing(transport) is Failure.CONNECT

    run(ask())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 80 + ".example", "a..b"])
def test_a_name_without_an_address_is_ours(run: Run, host: str) -> None:
    async def ask() -> None:
        transport = Transport(lambda _: Address(host, 80))
        assert await _failing(transport) is Failure.RESOLVE
        assert Failure.RESOLVE.ours
        await transport.aclose()

    run(ask())


class _Names(asyncio.SelectorEventLoop):
    """This is a loop whose name server says *numbers*, or nothing for ever, and on which *trouble* says how a number cannot be dialled."""

    def __init__(self, *numbers: str, trouble: dict[str, int] | None = None) -> None:
        super().__init__()
        self._numbers = numbers
        self._trouble = trouble or {}
        self._ahead_s = 0.0
        self.dialled: list[str] = []

    def time(self) -> float:
        return super().time() + self._ahead_s

    async def getaddrinfo(self, host: Any, port: Any, **more: Any) -> Any:
        if not self._numbers:
            self._ahead_s += 60
            await self.create_future()
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (number, port)) for number in self._numbers
        ]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.dialled.append(address[0])
        if (number := self._trouble.get(address[0])) is not None:
            raise OSError(number, os.strerror(number))
        await super().sock_connect(sock, address)


def _dialled(loop: _Names, port: int = 9) -> Failure | None:
    """Ask by a name on *loop*, and return why it failed."""

    async def work() -> Failure | None:
        transport = Transport(lambda _: Address("shop.example", port))
        try:
            await send(transport)
        except TrafficError as error:
            return error.failure
        finally:
            await transport.aclose()
        return None

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work())


def test_a_name_server_that_says_nothing_is_ours() -> None:
    loop = _Names()
    assert _dialled(loop) is Failure.RESOLVE
    assert loop.dialled == []


@pytest.mark.parametrize(
    ("trouble", "failure"),
    [
        ({"127.0.0.2": errno.ENETUNREACH, "127.0.0.3": errno.EADDRNOTAVAIL}, Failure.POOL),
        ({"127.0.0.2": errno.EMFILE, "127.0.0.3": errno.ECONNREFUSED}, Failure.POOL),
        ({"127.0.0.2": errno.ENETUNREACH, "127.0.0.3": errno.ECONNREFUSED}, Failure.CONNECT),
    ],
)
def test_of_several_addresses_none_is_left_out_and_what_this_machine_lacks_is_ours(
    trouble: dict[str, int], failure: Failure
) -> None:
    loop = _Names("127.0.0.2", "127.0.0.3", trouble=trouble)
    assert _dialled(loop) is failure
    assert loop.dialled == ["127.0.0.2", "127.0.0.3"]


def test_of_several_addresses_the_first_that_accepts_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: _answer_one(server)).start()
        loop = _Names("127.0.0.2", "127.0.0.1", "127.0.0.3", trouble={"127.0.0.2": errno.ENETUNREACH})
        assert _dialled(loop, server.getsockname()[1]) is None
    assert loop.dialled == ["127.0.0.2", "127.0.0.1"]


def _answer_one(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(OK)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome"])
def test_a_deadline_ends_waiting_and_the_connection(run: Run, answer: bytes) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(answer)
        await writer.drain()
        assert await reader.read() == b""

    async def ask(transport: Transport, server: Server) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await send(transport)
        await asyncio.wait_for(server.ended.wait(), 5)

    run(_asked(handler, ask))


def test_an_answer_that_drips_meets_the_deadline_too(run: Run) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.005)

    async def ask(transport: Transport, _: Server) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await send(transport)

    run(_asked(handler, ask))


def test_a_cancelled_request_takes_its_connection_with_it(run: Run) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        assert await reader.read() == b""

    async def ask(transport: Transport, server: Server) -> None:
        sending = asyncio.create_task(send(transport))
        await asyncio.wait_for(server.begun.wait(), 5)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(server.ended.wait(), 5)

    run(_asked(handler, ask))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("what", "idle_s", "lost_after_s", "method", "repeated"), LOST)
def test_only_a_loss_that_can_be_nothing_but_a_race_is_repeated(
    run: Run, what: str, idle_s: float, lost_after_s: float, method: str, *, repeated: bool, reset: bool
) -> None:
    clock, heads = Time(), list[bytes]()

    async def handler(reader: Reader, writer: Writer) -> None:
        heads.append(await _head(reader))
        writer.write(OK)
        if len(heads) == 1:
            # The second request is read, and not answered.
            heads.append(await _head(reader))
            clock.now_s += lost_after_s
            if reset:
                _reset(writer)
            return
        await reader.read()

    async def ask(transport: Transport, server: Server) -> None:
        await ask_and_lose(transport, method, clock=clock, idle_s=idle_s, repeated=repeated)
        assert (server.connections, len(heads)) == ((2, 3) if repeated else (1, 2))

    run(_asked(handler, ask, clock=clock))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_whose_end_is_here_already_is_not_used_and_nothing_is_sent_twice(run: Run, method: str) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with _transport(listener.getsockname()[1]) as transport:
                sending = asyncio.create_task(send(transport, method))
                peer, _ = await loop.run_in_executor(None, listener.accept)
                await loop.run_in_executor(None, peer.recv, 65536)
                peer.sendall(OK)
                await sending
                # It ends, and this event loop has had no time to see it.
                peer.close()
                request = httpx.Request(method, "http://shop/")
                sending_again = transport.handle_async_request(request)
                sending = asyncio.ensure_future(sending_again)
                second, _ = await loop.run_in_executor(None, listener.accept)
                with second:
                    await loop.run_in_executor(None, second.recv, 65536)
                    second.sendall(OK)
                    await sending
                assert REPEATED not in request.extensions

    run(work())


def test_a_service_that_dies_of_a_tenth_of_its_requests_is_seen_to(run: Run) -> None:
    chance, crashes, served = random.Random(1), 0, 0

    async def handler(reader: Reader, writer: Writer) -> None:
        nonlocal crashes, served
        while True:
            await _head(reader)
            served += 1
            await asyncio.sleep(0.02)
            if chance.random() < 0.1:
                crashes += 1
                writer.transport.abort()
                return
            writer.write(OK)

    async def ask(transport: Transport, _: Server) -> None:
        async def one() -> bool:
            async with at_once:
                try:
                    await send(transport)
                except TrafficError as error:
                    return error.failure is Failure.RESET
                return False

        at_once = asyncio.Semaphore(100)
        errors = sum(await asyncio.gather(*(one() for _ in range(2000))))
        assert (errors, served) == (crashes, 2000)
        assert 0.08 < errors / 2000 < 0.12

    run(_asked(handler, ask))


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_must_not_be_repeated_is_never_sent_twice(run: Run, method: str) -> None:
    heads: list[bytes] = []

    async def handler(reader: Reader, writer: Writer) -> None:
        heads.append(await _head(reader))
        writer.write(OK)
        heads.append(await _head(reader))

    async def ask(transport: Transport, server: Server) -> None:
        await send(transport, method)
        assert await _failing(transport, method) is Failure.RESET
        assert (server.connections, len(heads)) == (1, 2)

    run(_asked(handler, ask))


def test_what_must_not_be_repeated_takes_no_connection_that_was_idle_for_long(run: Run) -> None:
    clock = Time()

    async def ask(transport: Transport, server: Server) -> None:
        await send(transport, "POST")
        await send(transport, "POST")
        assert server.connections == 1
        clock.now_s += FRESH_S + 0.05
        await send(transport, "POST")
        assert server.connections == 2
        await send(transport)
        assert server.connections == 2
        # One that is passed over is let go of, or there would be ever more.
        await server.ended.wait()

    run(_asked(_always(OK), ask, clock=clock))


def test_a_service_that_resets_every_request_is_blamed(run: Run) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        _reset(writer)

    async def ask(transport: Transport, server: Server) -> None:
        assert await _failing(transport) is Failure.RESET
        # A new connection that breaks is no race: it is not tried again.
        assert server.connections == 1

    run(_asked(handler, ask))


def test_an_idle_connection_that_was_closed_is_not_used(run: Run) -> None:
    async def ask(transport: Transport, server: Server) -> None:
        for place in range(1, 4):
            assert (await send(transport)).content == b"ok"
            await asyncio.wait_for(server.ended.wait(), 5)
            await asyncio.sleep(0.01)
            assert server.connections == place

    run(_asked(_once(OK), ask))


def test_bytes_that_nobody_asked_for_end_an_idle_connection(run: Run) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await _head(reader)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
        await reader.read()

    async def ask(transport: Transport, server: Server) -> None:
        await send(transport)
        await asyncio.wait_for(server.ended.wait(), 5)
        assert (await send(transport)).status_code == 200
        assert server.connections == 2

    run(_asked(handler, ask))


def test_requests_wait_in_no_queue(run: Run) -> None:
    async def work() -> None:
        all_here = asyncio.Event()

        async def handler(reader: Reader, writer: Writer) -> None:
            await _head(reader)
            if server.connections == 60:
                all_here.set()
            await all_here.wait()
            writer.write(OK)
            await reader.read()

        async with Server(handler).up() as server, _transport(server.port) as transport:
            answers = await asyncio.gather(*(send(transport) for _ in range(60)))
            assert {answer.content for answer in answers} == {b"ok"}

    run(work())


def test_a_request_goes_out_as_it_was_made(run: Run) -> None:
    seen: list[bytes] = []

    async def handler(reader: Reader, writer: Writer) -> None:
        head = await _head(reader)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        seen.append(head + await reader.readexactly(length))
        writer.write(OK)

    async def ask(transport: Transport, _: Server) -> None:
        headers = {"x-name": "Zoë".encode(), "Accept": "application/json"}
        url = "http://shop.example:8080/cart/%C3%BC?q=a+b&q=%2F"
        await send(transport, "POST", url, headers=headers, content="Käse".encode())
        assert seen[0].split(b"\r\n") == [
            b"POST /cart/%C3%BC?q=a+b&q=%2F HTTP/1.1",
            b"Host: shop.example:8080",
            b"x-name: Zo\xc3\xab",
            b"Accept: application/json",
            b"Content-Length: 5",
            b"",
            b"K\xc3\xa4se",
        ]

    run(_asked(handler, ask))


def test_headers_in_any_letters_are_read(run: Run) -> None:
    answer = "HTTP/1.1 200 OK\r\nX-Name: Zoë\r\nX-Twice: 1\r\nx-twice: 2\r\ncontent-length: 0\r\n\r\n"

    async def ask(transport: Transport, _: Server) -> None:
        for encoding in ("utf-8", "latin-1"):
            texts.append(answer.encode(encoding))
            response = await send(transport)
            assert response.headers["x-name"] == "Zoë"
            assert response.headers["x-twice"] == "1, 2"

    texts: list[bytes] = []

    async def handler(reader: Reader, writer: Writer) -> None:
        while True:
            await _head(reader)
            writer.write(texts[-1])

    run(_asked(handler, ask))


def test_the_environment_is_never_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def ask(transport: Transport, _: Server) -> None:
        assert (await send(transport)).content == b"ok"

    run(_asked(_always(OK), ask))


def test_closing_ends_every_connection(run: Run) -> None:
    async def work() -> None:
        async def handler(reader: Reader, writer: Writer) -> None:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/slow" not in head:
                    writer.write(OK)

        async with Server(handler).up() as server:
            transport = Transport(lambda _: Address("127.0.0.1", server.port))
            await send(transport)
            waiting = asyncio.create_task(send(transport, url="http://shop/slow"))
            await send(transport)
            await asyncio.sleep(0.02)
            await transport.aclose()
            with pytest.raises(TrafficError):
                await waiting
            await transport.aclose()

    run(work())


TLS: list[tuple[str, str | None, str | None, str, Failure | None]] = [
    ("its CA and its name", "shop", None, "https://shop.example/", None),
    ("its CA and the name that was told", "shop", "shop.example", "https://127.0.0.1/", None),
    ("another name", "shop", None, "https://other.example/", Failure.TLS),
    ("another name told", "shop", "other.example", "https://shop.example/", Failure.TLS),
    ("a stranger's CA", "stranger", None, "https://shop.example/", Failure.TLS),
    ("no CA that knows it", None, None, "https://shop.example/", Failure.TLS),
]


@pytest.mark.parametrize(("what", "ca", "name", "url", "failure"), TLS, ids=[what for what, *_ in TLS])
def test_tls_peers_are_checked(
    run: Run, certificates: Path, what: str, ca: str | None, name: str | None, url: str, failure: Failure | None
) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificates / "shop.pem", certificates / "shop.key")
    trusted = None if ca is None else ssl.create_default_context(cafile=str(certificates / f"{ca}.pem"))

    async def work() -> None:
        async with (
            Server(_always(OK)).up(served) as server,
            _transport(server.port, ssl_context=trusted, server_name=name) as transport,
        ):
            if failure is not None:
                assert await _failing(transport, url=url) is failure
                return
            for _ in range(2):
                assert (await send(transport, url=url)).content == b"ok"
            assert server.connections == 1

    run(work())


@pytest.mark.parametrize("answer", [b"", OK])
def test_a_peer_that_speaks_no_tls_fails_the_handshake(run: Run, answer: bytes) -> None:
    async def handler(reader: Reader, writer: Writer) -> None:
        await reader.read(1)
        writer.write(answer)

    async def ask(transport: Transport, _: Server) -> None:
        assert await _failing(transport, url="https://shop.example/") in (Failure.TLS, Failure.CONNECT)

    run(_asked(handler, ask))


@pytest.mark.parametrize("together", [False, True])
def test_the_machines_cas_are_read_once_and_never_by_the_event_loop(
    run: Run, certificates: Path, monkeypatch: pytest.MonkeyPatch, *, together: bool
) -> None:
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificates / "shop.pem", certificates / "shop.key")
    read_by: list[threading.Thread] = []

    def read_cas() -> ssl.SSLContext:
        read_by.append(threading.current_thread())
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(ssl, "create_default_context", read_cas)

    async def work() -> None:
        async with Server(_always(OK)).up(served) as server, _transport(server.port) as transport:
            asking = [_failing(transport, url="https://shop.example/") for _ in range(3)]
            failures = await asyncio.gather(*asking) if together else [await each for each in asking]
            assert failures == [Failure.TLS] * 3

    run(work())
    assert len(read_by) == 1
    assert read_by[0] is not threading.current_thread()
