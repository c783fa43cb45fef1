"""The transport over HTTP/2, against small peers on loopback, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import h2.events
import httpx
import pytest

from luff.model import Arm
from luff.samples import Failure
from luff.traffic.dial import Address, TrafficError
from luff.traffic.http1 import BODY_MOST_BYTES, HEAD_MOST_BYTES
from luff.traffic.http2 import HEAD_DECODED_MOST_BYTES, STREAMS_MOST, TABLE_MOST_BYTES
from luff.traffic.sharing import Shared
from luff.traffic.transport import ARM, FRESH_S, REPEATED, Transport
from tests.traffic.asking import LOST, ask_and_lose, send
from tests.traffic.conftest import Run, Time
from tests.traffic.http2_peers import Link, Peer, frame

Ask = Callable[[Transport, Peer], Awaitable[None]]
OK_BLOCK = b"\x88"
"""``:status: 200``, compressed."""


@contextlib.asynccontextmanager
async def _transport(port: int, **more: Any) -> AsyncIterator[Transport]:
    transport = Transport(lambda _: Address("127.0.0.1", port), **{"protocol": "http2", **more})
    try:
        yield transport
    finally:
        await transport.aclose()


def _asked(peer: Callable[[], Peer], ask: Ask, **more: Any) -> Coroutine[Any, Any, None]:
    """Return the work of asking a peer, so that each test is its peer and its questions."""

    async def work() -> None:
        async with peer().up() as up, _transport(up.port, **more) as transport:
            await ask(transport, up)

    return work()


async def _failing(transport: Transport, method: str = "GET", url: str = "http://shop/", **more: Any) -> Failure:
    with pytest.raises(TrafficError) as caught:
        await send(transport, method, url, **more)
    assert str(caught.value)
    return caught.value.failure


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if true():
                return
            await asyncio.sleep(0)


async def _pinged(link: Link) -> None:
    """Ping, and wait for the answer: what was sent before is read then."""
    link.h2.ping(b"are you?")
    link.flush()
    await _until(lambda: any(isinstance(each, h2.events.PingAckReceived) for each in link.heard))


# --- requests and answers ------------------------------------------------------------------------------------------


def test_a_request_goes_out_as_it_was_made(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        headers = {"x-name": "Zoë".encode(), "Accept": " application/json ", "Connection": "keep-alive"}
        response = await send(
            transport, "POST", "http://shop.example:8080/cart/%C3%BC?q=a+b", headers=headers, content="Käse".encode()
        )
        assert (response.status_code, response.content, response.http_version) == (200, b"ok", "HTTP/2")
        assert peer.links[0].requests[1] == {
            b":method": b"POST",
            b":scheme": b"http",
            b":authority": b"shop.example:8080",
            b":path": b"/cart/%C3%BC?q=a+b",
            b"x-name": b"Zo\xc3\xab",
            b"accept": b"application/json",
            b"content-length": b"5",
        }
        assert peer.links[0].bodies[1] == "Käse".encode()

    run(_asked(Peer, ask))


def test_the_host_that_was_written_is_the_authority(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport, headers={"Host": "other.example"})
        assert peer.links[0].requests[1][b":authority"] == b"other.example"
        assert b"host" not in peer.links[0].requests[1]

    run(_asked(Peer, ask))


ANSWERS: list[tuple[str, str, list[tuple[str, str]], bytes, int]] = [
    ("with a body", "GET", [(":status", "200"), ("content-length", "2")], b"ok", 200),
    ("without a length", "GET", [(":status", "200")], b"ok", 200),
    ("without a body", "GET", [(":status", "200")], b"", 200),
    ("204", "GET", [(":status", "204")], b"", 204),
    ("304 with the length of what it is not", "GET", [(":status", "304"), ("content-length", "99")], b"", 304),
    ("to a HEAD", "HEAD", [(":status", "200"), ("content-length", "9")], b"", 200),
    ("a redirect", "GET", [(":status", "302"), ("location", "http://127.0.0.1:1/")], b"", 302),
    ("an error", "GET", [(":status", "503")], b"busy", 503),
    ("with a name in capital letters", "GET", [(":status", "200"), ("X-Old", "1")], b"ok", 200),
]


@pytest.mark.parametrize(("what", "method", "headers", "body", "status"), ANSWERS, ids=[what for what, *_ in ANSWERS])
def test_answers(run: Run, what: str, method: str, headers: list[tuple[str, str]], body: bytes, status: int) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        for _ in range(3):
            response = await send(transport, method)
            assert (response.status_code, response.content) == (status, body)
            assert [(name, response.headers[name]) for name, _ in headers[1:]] == headers[1:]
            assert ":status" not in response.headers
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(lambda link, stream: link.says(stream, body, headers)), ask))


def test_interim_answers_and_trailers_are_not_the_head(run: Run) -> None:
    def answer(link: Link, stream: int) -> None:
        link.h2.send_headers(stream, [(":status", "103"), ("link", "</a>")])
        link.h2.send_headers(stream, [(":status", "200"), ("x-a", "1")])
        link.h2.send_data(stream, b"ok")
        link.h2.send_headers(stream, [("x-late", "1")], end_stream=True)

    async def ask(transport: Transport, _: Peer) -> None:
        response = await send(transport)
        assert (response.content, dict(response.headers)) == (b"ok", {"x-a": "1"})

    run(_asked(lambda: Peer(answer), ask))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_answer_may_come_in_any_pieces(run: Run, size: int) -> None:
    block = b"\x88\x0f\x0d\x013"  # content-length: 3
    whole = frame(1, 4, 1, block) + frame(0, 0, 1, b"ab") + frame(0, 1, 1, b"c")

    async def dripping(link: Link) -> None:
        for begin in range(0, len(whole), size):
            link.transport.write(whole[begin : begin + size])
            await asyncio.sleep(0)

    async def ask(transport: Transport, peer: Peer) -> None:
        tasks: list[asyncio.Task[None]] = []
        peer.answer = lambda link, _: tasks.append(asyncio.create_task(dripping(link)))
        assert (await send(transport)).content == b"abc"
        await tasks[0]

    run(_asked(Peer, ask))


# --- many requests on a connection ---------------------------------------------------------------------------------


def _together(count: int) -> tuple[Callable[[Link, int], None], list[tuple[Link, int]]]:
    """Return an answer that is given once *count* requests are here, and who they are."""
    here: list[tuple[Link, int]] = []

    def answer(link: Link, stream: int) -> None:
        here.append((link, stream))
        if len(here) == count:
            for each, number in here:
                each.says(number, each.path(number))

    return answer, here


def test_requests_share_a_connection_and_each_gets_its_own_answer(run: Run) -> None:
    answer, _ = _together(60)

    async def ask(transport: Transport, peer: Peer) -> None:
        paths = [f"/{number}" for number in range(60)]
        answers = await asyncio.gather(*(send(transport, url=f"http://shop{path}") for path in paths))
        assert [each.text for each in answers] == paths
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


@pytest.mark.parametrize(
    ("allowed", "at_once", "connections"), [(10, 35, 4), (1, 3, 3), (100_000, STREAMS_MOST + 1, 2)]
)
def test_what_a_connection_does_not_take_goes_on_another_one_and_waits_for_nobody(
    run: Run, allowed: int, at_once: int, connections: int
) -> None:
    answer, here = _together(at_once + 1)

    async def ask(transport: Transport, peer: Peer) -> None:
        first = asyncio.create_task(send(transport))
        await _until(lambda: bool(peer.links) and len(peer.links[0].heard) > 2)
        requests = [httpx.Request("GET", "http://shop/") for _ in range(at_once)]
        answers = await asyncio.gather(*(transport.handle_async_request(each) for each in requests))
        await first
        assert {each.status_code for each in answers} == {200}
        assert not any(REPEATED in each.extensions for each in requests)
        assert len(peer.links) == connections + (allowed == 1)
        assert max(sum(each is link for each, _ in here) for link in peer.links) <= allowed

    run(_asked(lambda: Peer(answer, streams_most=allowed), ask))


def test_more_than_a_peer_takes_before_it_could_say_so_is_sent_again(run: Run) -> None:
    def answer(link: Link, stream: int) -> None:
        if link.number or stream > 9:
            link.says(stream)
        elif stream == 9:
            # All five are here. It has room for one at a time, and says so only now.
            link.transport.write(frame(4, 0, 0, b"\0\3\0\0\0\1"))
            for refused in (3, 5, 7, 9):
                link.h2.reset_stream(refused, 7)
            link.says(1)

    async def ask(transport: Transport, peer: Peer) -> None:
        requests = [httpx.Request("POST", "http://shop/") for _ in range(5)]
        answers = await asyncio.gather(*(transport.handle_async_request(each) for each in requests))
        assert {each.status_code for each in answers} == {200}
        assert [REPEATED in each.extensions for each in requests] == [False, True, True, True, True]
        assert len(peer.links) > 1

    run(_asked(lambda: Peer(answer), ask))


def test_a_refused_connection_is_the_failure_of_each_that_needed_one(run: Run) -> None:
    async def ask() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            async with _transport(taken.getsockname()[1]) as transport:
                failures = await asyncio.gather(*(_failing(transport) for _ in range(20)))
                assert failures == [Failure.CONNECT] * 20

    run(ask())


def test_who_waits_for_the_dial_of_one_that_gave_up_dials_for_itself(run: Run) -> None:
    async def work() -> None:
        async with Peer().up() as peer, _transport(peer.port) as transport:
            first = asyncio.create_task(send(transport))
            second = asyncio.create_task(send(transport))
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).content == b"ok"
            await asyncio.gather(first, return_exceptions=True)
            assert first.cancelled()

    run(work())


def test_a_dial_that_hangs_holds_up_its_own_request_alone(run: Run) -> None:
    async def work() -> None:
        shared, hanging = Shared(time.monotonic), asyncio.Event()
        dialling = asyncio.create_task(shared.dial(hanging.wait))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert await shared.find(within_s=None) is None
        assert not dialling.done()
        hanging.set()
        assert await dialling

    run(work())


# --- flow control --------------------------------------------------------------------------------------------------


def test_room_is_made_for_what_came(run: Run) -> None:
    body = random.Random(1).randbytes(1 << 20)
    waiting: dict[tuple[Link, int], bytes] = {}

    def pump(link: Link) -> None:
        for (each, stream), rest in list(waiting.items()):
            fits = 0
            while each is link and rest and (fits := min(link.h2.local_flow_control_window(stream), 16_384)) > 0:
                link.h2.send_data(stream, rest[:fits], end_stream=len(rest) <= fits)
                rest = rest[fits:]
            waiting[each, stream] = rest

    def answer(link: Link, stream: int) -> None:
        link.h2.send_headers(stream, [(":status", "200")])
        waiting[link, stream] = body
        pump(link)

    async def ask(transport: Transport, peer: Peer) -> None:
        peer.more_room = pump
        answers = await asyncio.gather(*(send(transport) for _ in range(24)))
        assert {each.content == body for each in answers} == {True}
        # So wide that it slows nobody down, from the beginning and after each answer.
        assert peer.links[0].h2.outbound_flow_control_window > len(body)
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


def test_a_body_is_sent_as_there_is_room_for_it(run: Run) -> None:
    body = random.Random(2).randbytes(300_000)

    def answer(link: Link, stream: int) -> None:
        link.says(stream, str(link.bodies[stream] == body).encode())

    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport)
        answers = await asyncio.gather(*(send(transport, "POST", content=body) for _ in range(3)))
        assert [each.text for each in answers] == ["True"] * 3
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer, window_bytes=5000), ask))


def test_a_peer_that_makes_no_room_holds_up_its_own_request_alone(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.gather(send(transport, "POST", content=bytes(100)), send(transport))
        await asyncio.wait_for(peer.given_up.wait(), 5)
        assert peer.links[0].bodies[3] == bytes(10)
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 1

    def answer(link: Link, stream: int) -> None:
        link.says(stream)

    run(_asked(lambda: Peer(answer, window_bytes=10, takes_body=False), ask))


def test_an_answer_before_the_whole_request_is_an_answer(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport)
        sending = asyncio.create_task(send(transport, "POST", content=bytes(100)))
        await _until(lambda: peer.links[0].bodies.get(3) == bytes(10))
        peer.links[0].says(3, b"no more", [(":status", "413")])
        assert (await sending).status_code == 413
        await asyncio.wait_for(peer.given_up.wait(), 5)
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(window_bytes=10, takes_body=False), ask))


# --- what ends a stream --------------------------------------------------------------------------------------------


RESETS = [
    ("INTERNAL_ERROR", 2, Failure.RESET),
    ("CANCEL", 8, Failure.RESET),
    ("ENHANCE_YOUR_CALM", 11, Failure.RESET),
    ("HTTP_1_1_REQUIRED", 13, Failure.PROTOCOL),
    ("what nobody knows", 0xBEEF, Failure.RESET),
]


@pytest.mark.parametrize(("what", "code", "failure"), RESETS, ids=[what for what, *_ in RESETS])
@pytest.mark.parametrize("begun", [False, True])
def test_a_stream_that_is_reset_fails_alone(run: Run, what: str, code: int, failure: Failure, *, begun: bool) -> None:
    def answer(link: Link, stream: int) -> None:
        if link.path(stream) == b"/ok":
            link.says(stream)
            return
        if begun:
            link.h2.send_headers(stream, [(":status", "200")])
            link.h2.send_data(stream, b"half")
        link.h2.reset_stream(stream, code)

    async def ask(transport: Transport, peer: Peer) -> None:
        found = await asyncio.gather(_failing(transport), send(transport, url="http://shop/ok"))
        assert found[0] is failure
        assert found[1].content == b"ok"
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_was_refused_unseen_is_sent_once_more(run: Run, method: str, times: int) -> None:
    seen: list[int] = []

    def answer(link: Link, stream: int) -> None:
        seen.append(stream)
        if len(seen) <= times:
            link.h2.reset_stream(stream, 7)
        else:
            link.says(stream)

    async def ask(transport: Transport, _: Peer) -> None:
        request = httpx.Request(method, "http://shop/")
        if times == 1:
            assert (await transport.handle_async_request(request)).status_code == 200
            assert request.extensions[REPEATED]
        else:
            with pytest.raises(TrafficError) as caught:
                await transport.handle_async_request(request)
            # That is how the service answers: it is to be judged.
            assert caught.value.failure is Failure.RESET
            assert REPEATED not in request.extensions
        assert len(seen) == 2

    run(_asked(lambda: Peer(answer), ask))


def test_a_deadline_ends_its_stream_and_not_the_connection(run: Run) -> None:
    def answer(link: Link, stream: int) -> None:
        if link.path(stream) == b"/":
            link.says(stream)

    async def ask(transport: Transport, peer: Peer) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.gather(send(transport, url="http://shop/never"), send(transport))
        await asyncio.wait_for(peer.given_up.wait(), 5)
        reset = next(each for each in peer.links[0].heard if isinstance(each, h2.events.StreamReset))
        assert (peer.links[0].path(reset.stream_id), reset.error_code) == (b"/never", 8)
        # What is still said on it hurts nobody.
        peer.links[0].transport.write(frame(1, 4, reset.stream_id, OK_BLOCK) + frame(0, 1, reset.stream_id, b"late"))
        await _pinged(peer.links[0])
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


def test_a_connection_on_which_nothing_came_until_the_deadline_is_not_used_again(run: Run) -> None:
    def answer(link: Link, stream: int) -> None:
        if link.number:
            link.says(stream)

    async def ask(transport: Transport, peer: Peer) -> None:
        waiting = asyncio.create_task(send(transport))
        await _until(lambda: bool(peer.links) and bool(peer.links[0].requests))
        await _until(lambda: any(isinstance(each, h2.events.SettingsAcknowledged) for each in peer.links[0].heard))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await send(transport)
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 2
        # What was under way on it may still be answered, and then it is over.
        peer.links[0].says(1)
        assert (await waiting).content == b"ok"
        await asyncio.wait_for(peer.links[0].over.wait(), 5)

    run(_asked(lambda: Peer(answer), ask))


LARGE = "x" * (HEAD_MOST_BYTES + 1)


def test_a_large_head_ends_its_stream_alone(run: Run) -> None:
    def with_trailers(link: Link, stream: int) -> None:
        link.h2.send_headers(stream, [(":status", "200")])
        link.h2.send_headers(stream, [("x-late", LARGE)], end_stream=True)

    def with_interim_answers(link: Link, stream: int) -> None:
        for _ in range(3000):
            link.h2.send_headers(stream, [(":status", "100"), ("x", "y" * 99)])

    kinds: dict[bytes, Callable[[Link, int], None]] = {
        b"/one": lambda link, stream: link.says(stream, b"", [(":status", "200"), ("x-large", LARGE)]),
        b"/many": lambda link, stream: link.says(stream, b"", [(":status", "200"), *[("x", "y" * 1000)] * 300]),
        b"/trailer": with_trailers,
        b"/interim": with_interim_answers,
        b"/": lambda link, stream: link.says(stream),
    }

    async def ask(transport: Transport, peer: Peer) -> None:
        for path in ("/one", "/many", "/trailer", "/interim"):
            found = await asyncio.gather(_failing(transport, url=f"http://shop{path}"), send(transport))
            assert (found[0], found[1].content) == (Failure.TOO_LARGE, b"ok"), path
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(lambda link, stream: kinds[link.path(stream)](link, stream)), ask))


def test_the_largest_body_that_may_come_comes_and_a_larger_one_ends_its_stream_alone(run: Run) -> None:
    def answer(link: Link, stream: int) -> None:
        size = int(link.path(stream)[1:])
        link.h2.send_headers(stream, [(":status", "200")])
        rest[link, stream] = size
        pump(link)

    def pump(link: Link) -> None:
        for (each, stream), left in list(rest.items()):
            if each is link:
                rest[each, stream] = _some(link, stream, left)

    def _some(link: Link, stream: int, left: int) -> int:
        with contextlib.suppress(Exception):  # the stream may be gone
            while left and (fits := min(link.h2.local_flow_control_window(stream), 16_384, left)) > 0:
                link.h2.send_data(stream, bytes(fits), end_stream=left == fits)
                left -= fits
        return left

    rest: dict[tuple[Link, int], int] = {}

    async def ask(transport: Transport, peer: Peer) -> None:
        peer.more_room = pump
        whole = await send(transport, url=f"http://shop/{BODY_MOST_BYTES}")
        assert len(whole.content) == BODY_MOST_BYTES
        assert await _failing(transport, url=f"http://shop/{BODY_MOST_BYTES + 1}") is Failure.TOO_LARGE
        assert (await send(transport, url="http://shop/5")).content == bytes(5)
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


STATUSES = ["", "0", "20", "2000", "abc", "099", "²00"]


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_that_is_none_ends_its_stream_alone(run: Run, status: str) -> None:
    def answer(link: Link, stream: int) -> None:
        if link.path(stream) == b"/":
            link.says(stream)
        else:
            link.says(stream, b"", [(":status", status)] if status else [("x", "y")])

    async def ask(transport: Transport, peer: Peer) -> None:
        found = await asyncio.gather(_failing(transport, url="http://shop/bad"), send(transport))
        assert (found[0], found[1].content) == (Failure.PROTOCOL, b"ok")
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


# --- what ends a connection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_a_peer_that_goes_away_has_not_seen_is_sent_again_and_it_answers_the_rest(run: Run, method: str) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        peer.answer = lambda link, stream: link.says(stream) if link.number else None
        requests = [httpx.Request(method, "http://shop/") for _ in range(4)]
        sending = [asyncio.create_task(transport.handle_async_request(each)) for each in requests]
        await _until(lambda: bool(peer.links) and len(peer.links[0].requests) == 4)
        peer.links[0].goes_away(last=3)
        assert {(await each).status_code for each in sending[2:]} == {200}
        assert not any(each.done() for each in sending[:2])
        for stream in (1, 3):
            peer.links[0].says(stream, b"at last")
        assert [await (await each).aread() for each in sending[:2]] == [b"at last"] * 2
        assert [REPEATED in each.extensions for each in requests] == [False, False, True, True]
        assert len(peer.links) == 2
        await asyncio.wait_for(peer.links[0].over.wait(), 5)
        assert not peer.links[1].over.is_set()

    run(_asked(Peer, ask))


@pytest.mark.parametrize("code", [0, 2, 11])
def test_what_it_has_seen_and_does_not_answer_is_its_failure(run: Run, code: int) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        peer.answer = lambda link, stream: link.says(stream) if link.number else None
        sending = [asyncio.create_task(send(transport)) for _ in range(3)]
        await _until(lambda: bool(peer.links) and len(peer.links[0].requests) == 3)
        peer.links[0].goes_away(last=3, code=code)
        peer.links[0].transport.close()
        found = await asyncio.gather(*sending, return_exceptions=True)
        assert [getattr(each, "failure", None) for each in found] == [Failure.RESET, Failure.RESET, None]
        assert len(peer.links) == 2

    run(_asked(Peer, ask))


def test_a_peer_that_goes_away_in_two_steps_is_understood(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        peer.answer = lambda link, stream: link.says(stream) if link.number else None
        requests = [httpx.Request("GET", "http://shop/") for _ in range(2)]
        sending = [asyncio.create_task(transport.handle_async_request(each)) for each in requests]
        await _until(lambda: bool(peer.links) and len(peer.links[0].requests) == 2)
        peer.links[0].goes_away(last=2**31 - 1)
        await _pinged(peer.links[0])
        # Meanwhile nothing new goes there.
        assert (await send(transport)).content == b"ok"
        peer.links[0].goes_away(last=1)
        assert (await sending[1]).status_code == 200
        peer.links[0].says(1)
        assert (await sending[0]).status_code == 200
        assert [REPEATED in each.extensions for each in requests] == [False, True]

    run(_asked(Peer, ask))


def test_a_peer_that_goes_away_at_once_has_seen_nothing(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        peer.greeted = lambda link: None if link.number else link.goes_away(last=0)
        requests = [httpx.Request("POST", "http://shop/") for _ in range(3)]
        answers = await asyncio.gather(*(transport.handle_async_request(each) for each in requests))
        assert {each.status_code for each in answers} == {200}
        assert len(peer.links) > 1

    run(_asked(Peer, ask))


def test_an_idle_connection_that_says_goodbye_is_not_used(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        for place in range(3):
            assert (await send(transport)).content == b"ok"
            peer.links[place].goes_away(last=1)
            await asyncio.wait_for(peer.links[place].over.wait(), 5)
        assert len(peer.links) == 3

    run(_asked(Peer, ask))


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_ends_ends_every_request_on_it(run: Run, *, reset: bool) -> None:
    def answer(link: Link, stream: int) -> None:
        if stream == 9:
            link.h2.send_headers(1, [(":status", "200")])
            link.h2.send_data(1, b"half")
            link.flush()
            if reset:
                linger = struct.pack("ii", 1, 0)
                link.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                link.transport.abort()
            else:
                link.transport.close()

    async def ask(transport: Transport, peer: Peer) -> None:
        requests = [httpx.Request("GET", "http://shop/") for _ in range(5)]
        found = await asyncio.gather(
            *(transport.handle_async_request(each) for each in requests), return_exceptions=True
        )
        assert [getattr(each, "failure", None) for each in found] == [Failure.RESET] * 5
        # A connection that breaks under requests is no race: they are not tried again.
        assert not any(REPEATED in each.extensions for each in requests)
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


@pytest.mark.parametrize(("what", "idle_s", "lost_after_s", "method", "repeated"), LOST)
def test_only_a_loss_that_can_be_nothing_but_a_race_is_repeated(
    run: Run, what: str, idle_s: float, lost_after_s: float, method: str, *, repeated: bool
) -> None:
    clock, seen = Time(), list[int]()

    def answer(link: Link, stream: int) -> None:
        seen.append(stream)
        if len(seen) == 2:
            clock.now_s += lost_after_s
            link.transport.close()
        else:
            link.says(stream)

    async def ask(transport: Transport, peer: Peer) -> None:
        await ask_and_lose(transport, method, clock=clock, idle_s=idle_s, repeated=repeated)
        assert (len(peer.links), len(seen)) == ((2, 3) if repeated else (1, 2))

    run(_asked(lambda: Peer(answer), ask, clock=clock))


def test_a_peer_that_would_remember_much_is_not_given_it(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport)
        # It would keep a megabyte of header fields, and our end would look through as much for each request.
        peer.links[0].transport.write(frame(4, 0, 0, b"\0\1\0\x10\0\0"))
        await _pinged(peer.links[0])
        token = "t" * 2000
        for number in range(5):
            await send(transport, headers={"x-number": f"{number}", "authorization": token})
        link = peer.links[0]
        assert [each[b"x-number"] for each in list(link.requests.values())[1:]] == [b"0", b"1", b"2", b"3", b"4"]
        assert {each.get(b"authorization") for each in list(link.requests.values())[1:]} == {token.encode()}
        assert link.h2.decoder.header_table_size == TABLE_MOST_BYTES
        assert len(peer.links) == 1

    def mends(link: Link) -> None:
        link.h2.decoder.max_allowed_table_size = 1 << 20

    def peer() -> Peer:
        made = Peer()
        made.greeted = mends
        return made

    run(_asked(peer, ask))


def test_what_must_not_be_repeated_takes_no_connection_that_was_idle_for_long(run: Run) -> None:
    clock = Time()

    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport, "POST")
        await send(transport, "POST")
        assert len(peer.links) == 1
        clock.now_s += FRESH_S + 0.05
        await send(transport, "POST")
        assert len(peer.links) == 2
        await send(transport)
        assert len(peer.links) == 2
        # One that is passed over is let go of, or there would be ever more.
        await peer.links[0].over.wait()
        assert not peer.links[1].over.is_set()

    run(_asked(Peer, ask, clock=clock))


def test_a_ping_is_answered(run: Run) -> None:
    async def ask(transport: Transport, peer: Peer) -> None:
        await send(transport)
        await _pinged(peer.links[0])
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 1

    run(_asked(Peer, ask))


HUGE = b"\x88\x40\x01x" + b"\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * (HEAD_DECODED_MOST_BYTES // 4000)
"""A header of 4000 bytes that is remembered, and then is said again in one byte each time."""
BROKEN: list[tuple[str, bytes, Failure, Failure]] = [
    ("HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", Failure.PROTOCOL, Failure.PROTOCOL),
    ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n", Failure.PROTOCOL, Failure.PROTOCOL),
    ("a frame that is too large", frame(0, 0, 1, bytes(16_385)), Failure.PROTOCOL, Failure.PROTOCOL),
    ("a body without a stream", frame(0, 0, 0, b"x"), Failure.PROTOCOL, Failure.PROTOCOL),
    ("a body before its head", frame(0, 0, 1, b"x"), Failure.PROTOCOL, Failure.RESET),
    ("settings of a wrong size", frame(4, 0, 0, b"x"), Failure.PROTOCOL, Failure.PROTOCOL),
    ("a goodbye of a wrong size", frame(7, 0, 0, b"x"), Failure.PROTOCOL, Failure.PROTOCOL),
    ("a window of no size", frame(8, 0, 0, bytes(4)), Failure.PROTOCOL, Failure.PROTOCOL),
    ("a push", frame(5, 4, 1, bytes((0, 0, 0, 2)) + OK_BLOCK), Failure.PROTOCOL, Failure.RESET),
    ("a head that cannot be decoded", frame(1, 5, 1, b"\xff\xff\xff\xff\xff"), Failure.PROTOCOL, Failure.RESET),
    ("a length that is none", frame(1, 4, 1, b"\x88\x0f\x0d\x01x"), Failure.PROTOCOL, Failure.RESET),
    ("a head without end", frame(1, 0, 1, OK_BLOCK) + frame(9, 0, 1, bytes(16_384)) * 65, Failure.TOO_LARGE, Failure.RESET),
    ("a head that grows a thousandfold", frame(1, 5, 1, HUGE), Failure.TOO_LARGE, Failure.RESET),
]  # fmt: skip


@pytest.mark.parametrize(("what", "sent", "first", "second"), BROKEN, ids=[what for what, *_ in BROKEN])
def test_broken_connections_have_a_class(run: Run, what: str, sent: bytes, first: Failure, second: Failure) -> None:
    def answer(link: Link, stream: int) -> None:
        if link.number:
            link.says(stream)
        elif stream == 3:
            link.transport.write(sent)

    async def ask(transport: Transport, peer: Peer) -> None:
        found = await asyncio.gather(_failing(transport), _failing(transport))
        assert list(found) == [first, second]
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 2

    run(_asked(lambda: Peer(answer), ask))


@pytest.mark.parametrize("body", [b"", b"o", b"oka", b"o" * 40_000])
def test_a_body_of_another_length_than_was_said_ends_its_stream_alone(run: Run, body: bytes) -> None:
    def answer(link: Link, stream: int) -> None:
        if stream == 3:
            link.says(1, body, [(":status", "200"), ("content-length", "2")])
        if stream > 1:
            link.says(stream)

    async def ask(transport: Transport, peer: Peer) -> None:
        failure, whole = await asyncio.gather(_failing(transport), send(transport))
        assert (failure, whole.content) == (Failure.PROTOCOL, b"ok")
        await _pinged(peer.links[0])
        assert (await send(transport)).content == b"ok"
        assert len(peer.links) == 1

    run(_asked(lambda: Peer(answer), ask))


def test_what_befalls_a_connection_of_one_arm_does_not_befall_the_other(run: Run) -> None:
    asked: dict[bytes, tuple[Link, int]] = {}

    def answer(link: Link, stream: int) -> None:
        asked[link.path(stream)] = (link, stream)
        if len(asked) == 2:
            asked[b"/fault"][0].transport.write(frame(0, 0, 0, b"bad"))
            control, number = asked[b"/control"]
            control.says(number)

    async def ask(transport: Transport, _: Peer) -> None:
        def of(arm: Arm) -> Awaitable[httpx.Response]:
            request = httpx.Request("GET", f"http://shop/{arm}", extensions={ARM: arm})
            return transport.handle_async_request(request)

        faulted, control = await asyncio.gather(of(Arm.FAULT), of(Arm.CONTROL), return_exceptions=True)
        assert isinstance(faulted, TrafficError)
        assert isinstance(control, httpx.Response)

    run(_asked(lambda: Peer(answer), ask))


def test_what_was_complete_before_a_bad_frame_is_an_answer(run: Run) -> None:
    def answer(link: Link, stream: int) -> None:
        if stream == 3:
            link.transport.write(frame(1, 4, 1, OK_BLOCK) + frame(0, 1, 1, b"whole") + frame(0, 0, 0, b"bad"))

    async def ask(transport: Transport, _: Peer) -> None:
        whole, failure = await asyncio.gather(send(transport), _failing(transport))
        assert (whole.content, failure) == (b"whole", Failure.PROTOCOL)

    run(_asked(lambda: Peer(answer), ask))


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_each_request_ends_and_nothing_is_left(run: Run, seed: int) -> None:
    chance = random.Random(seed)
    good = frame(4, 0, 0, b"") + frame(1, 4, 1, OK_BLOCK) + frame(0, 0, 1, b"abc") + frame(8, 0, 0, bytes((0, 0, 0, 9)))

    def answer(link: Link, stream: int) -> None:
        if stream != 5:
            return
        noise = bytearray(good * 3)
        for _ in range(chance.randrange(1, 6)):
            noise[chance.randrange(len(noise))] = chance.randrange(256)
        made = b"".join(
            frame(
                chance.randrange(12), chance.randrange(256), chance.randrange(8), chance.randbytes(chance.randrange(40))
            )
            for _ in range(5)
        )
        link.transport.write(bytes(noise) + made)
        link.transport.close()

    async def ask(transport: Transport, peer: Peer) -> None:
        while len(peer.links) < 12:
            found = await asyncio.gather(*(send(transport) for _ in range(3)), return_exceptions=True)
            for each in found:
                assert isinstance(each, httpx.Response) or (isinstance(each, TrafficError) and not each.failure.ours)

    run(_asked(lambda: Peer(answer), ask))


def test_closing_ends_every_connection(run: Run) -> None:
    async def work() -> None:
        async with Peer(lambda link, stream: None).up() as peer:
            transport = Transport(lambda _: Address("127.0.0.1", peer.port), protocol="http2")
            waiting = [asyncio.create_task(send(transport)) for _ in range(3)]
            await _until(lambda: bool(peer.links) and len(peer.links[0].requests) == 3)
            await transport.aclose()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(each) for each in found} == {TrafficError}
            await asyncio.wait_for(peer.links[0].over.wait(), 5)

    run(work())
