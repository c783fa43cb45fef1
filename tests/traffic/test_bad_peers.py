"""Peers that behave badly: each has a class and a sentence, nothing hangs, and nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine

from luff.model import Request, Traffic
from luff.pacing import Arrival
from luff.samples import Failure, Samples
from luff.scope import Scope
from luff.traffic.dial import Address
from luff.traffic.driver import Driver
from luff.traffic.http1 import HEAD_MOST_BYTES
from luff.traffic.sender import Work
from luff.traffic.transport import Transport
from luff.words import Arm, HttpVersion, Phase
from tests.traffic import http2_peers
from tests.traffic.http2_peers import Link

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


def _says(answer: bytes) -> Peer:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)
            await writer.drain()

    return peer


async def _resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD % 1_000_000)
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.01)


async def _never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    await asyncio.Event().wait()


async def _closes_what_is_idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(HEAD % 2 + b"ok")


def _served(peer: Peer) -> Peer:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await peer(reader, writer)
        writer.transport.abort()

    return serve


REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n"
PEERS: list[tuple[str, Peer | None, Failure, int]] = [
    ("refuses", None, Failure.CONNECT, 0),
    ("resets", _resets, Failure.RESET, 0),
    ("drips for ever", _drips, Failure.DEADLINE, 0),
    ("never answers", _never, Failure.DEADLINE, 0),
    ("answers 10 MB", _says(HEAD % 10_000_000 + bytes(10_000_000)), Failure.TOO_LARGE, 0),
    ("redirects in a circle", _says(REDIRECT), Failure.NONE, 302),
    ("sends broken HTTP", _says(b"HTTP/1.1 OK 200\r\n\r\n"), Failure.PROTOCOL, 0),
    ("ends inside the answer", _says(HEAD % 100 + b"half"), Failure.DEADLINE, 0),
    ("closes idle connections", _closes_what_is_idle, Failure.NONE, 200),
]


def _sockets() -> set[str]:
    """Which sockets this process has open, after what earlier tests left to the collector is gone."""
    gc.collect()
    names = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.add(str(each.readlink()))
    return {name for name in names if name.startswith("socket:")}


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")


@needs_proc
@pytest.mark.parametrize(("what", "peer", "failure", "status"), PEERS, ids=[what for what, *_ in PEERS])
def test_a_bad_peer_has_a_class_and_leaves_nothing_behind(
    what: str, peer: Peer | None, failure: Failure, status: int
) -> None:
    async def served() -> tuple[asyncio.Server, int]:
        server = await asyncio.start_server(_served(peer or _never), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if peer is None:
            server.close()
            await server.wait_closed()
        return server, port

    _behaves(served, "auto", failure, status)


LARGE = [(":status", "200"), ("x", "x" * (HEAD_MOST_BYTES + 1))]
LINKS: list[tuple[str, Callable[[Link, int], object] | None, Failure, int]] = [
    ("never greets", None, Failure.DEADLINE, 0),
    ("never answers", lambda link, stream: None, Failure.DEADLINE, 0),
    ("resets the stream", lambda link, stream: link.h2.reset_stream(stream, 2), Failure.RESET, 0),
    ("refuses the stream", lambda link, stream: link.h2.reset_stream(stream, 7), Failure.RESET, 0),
    ("goes away under it", lambda link, stream: link.leaves(stream), Failure.RESET, 0),
    ("goes away before it", lambda link, stream: link.leaves(0), Failure.RESET, 0),
    ("ends the connection", lambda link, stream: link.transport.abort(), Failure.RESET, 0),
    ("ends inside the answer", lambda link, stream: link.h2.send_headers(stream, [(":status", "200")]), Failure.DEADLINE, 0),
    ("answers with a large head", lambda link, stream: link.says(stream, b"", LARGE), Failure.TOO_LARGE, 0),
    ("speaks HTTP/1.1", lambda link, stream: link.transport.write(HEAD % 0), Failure.PROTOCOL, 0),
    ("redirects in a circle", lambda link, stream: link.says(stream, b"", [(":status", "302"), ("location", "/")]), Failure.NONE, 302),
]  # fmt: skip


@needs_proc
@pytest.mark.parametrize(("what", "answer", "failure", "status"), LINKS, ids=[what for what, *_ in LINKS])
def test_a_bad_peer_of_http2_has_a_class_and_leaves_nothing_behind(
    what: str, answer: Callable[[Link, int], object] | None, failure: Failure, status: int
) -> None:
    async def served() -> tuple[asyncio.Server, int]:
        peer = http2_peers.Peer(mute=True) if answer is None else http2_peers.Peer(answer)
        server = await asyncio.get_running_loop().create_server(lambda: Link(peer), "127.0.0.1", 0)
        return server, server.sockets[0].getsockname()[1]

    _behaves(served, "http2", failure, status)


def _behaves(
    served: Callable[[], Awaitable[tuple[asyncio.Server, int]]], protocol: HttpVersion, failure: Failure, status: int
) -> None:
    """Drive four requests to what *served* starts, and hold them to *failure* and *status*, and to leaving nothing behind."""
    samples = Samples()

    async def work() -> None:
        server, port = await served()
        before = asyncio.all_tasks()
        transport = Transport(lambda _: Address("127.0.0.1", port), protocol=protocol)
        traffic = Traffic(requests=(Request(url="http://shop/"),))
        scope = Scope("a" * 32, "b" * 32)
        driver = Driver(Work(traffic, scope, 0.6), samples, transport)
        for _ in range(2):
            await driver.drive([Arrival(0.0, arm, 0) for arm in Arm], phase=Phase.FAULT)
            await driver.drain(within_s=10)
        await driver.stop()
        await transport.aclose()
        server.close()
        await asyncio.sleep(0.01)
        while theirs := asyncio.all_tasks() - before:
            # What the peer still does; ours are over.
            for task in theirs:
                task.cancel()
            await asyncio.gather(*theirs, return_exceptions=True)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert driver.health().own_failures == 0

    before = _sockets()
    asyncio.run(work())
    assert {(sample.failure, sample.status) for sample in samples} == {(failure, status)}
    assert not failure.ours
    assert _sockets() <= before


def test_every_class_has_its_sentence() -> None:
    assert len({kind.words for kind in Failure}) == len(Failure)


def test_a_clock_that_jumps_changes_no_time_of_a_sample() -> None:
    samples = Samples()

    async def work(traveller: time_machine.Traveller) -> None:
        server = await asyncio.start_server(_served(_says(HEAD % 2 + b"ok")), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = Transport(lambda _: Address("127.0.0.1", port))
        traffic = Traffic(requests=(Request(url="http://shop/"),))
        driver = Driver(Work(traffic, Scope("a" * 32, "b" * 32), 20.0), samples, transport)
        due = [Arrival(place / 50, list(Arm)[place % 2], 0) for place in range(10)]
        driving = asyncio.create_task(driver.drive(due, phase=Phase.FAULT))
        for hours in (48, -96):
            await asyncio.sleep(0.05)
            traveller.shift(timedelta(hours=hours))
        await driving
        await driver.drain(within_s=10)
        await driver.stop()
        await transport.aclose()
        server.close()

    with time_machine.travel("2026-11-01T02:00:00Z", tick=True) as traveller:
        asyncio.run(work(traveller))
    assert [sample.status for sample in samples] == [200] * 10
    assert all(0 <= sample.lateness_s <= sample.latency_s < 60 for sample in samples)
