"""
What this machine has to send with: files, ports, cores, and how much a core sends in a short trial on loopback.

The trial drives the real driver and transport, so that what it finds is what a
run will have. It is made only where there is a question: little traffic any
core can send.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

from luff.model import Request, Traffic
from luff.pacing import Arrival, load_of
from luff.samples import Samples
from luff.scope import Scope
from luff.traffic.capacity import Demand, Machine, share
from luff.traffic.dial import Address
from luff.traffic.driver import Driver
from luff.traffic.sender import Work
from luff.traffic.transport import Transport
from luff.words import Arm, Phase

__all__ = ["cores_of", "look_at_machine", "may_be_http2", "processes_for"]

TRIAL_PAIRS = 200
TRIAL_WITHIN_S = 5.0
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PORTS_USUAL = 16_384
"""What IANA sets aside for it, where the system does not say."""
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_PREFACE_BYTES = 24
_FRAME_HEAD_BYTES = 9
_HEADERS = 1
_HTTP2_HEAD = b"\x00\x00\x05\x01\x04%b\x88\x0f\x0d\x012"
_HTTP2_BODY = b"\x00\x00\x02\x00\x01%bok"
"""The same answer in frames of HTTP/2, where the number of the stream goes."""


async def processes_for(traffic: Traffic, *, rate_hz: float, timeout_s: float) -> int:
    """
    Return how many processes it takes to send *traffic* in time, 1 where this one can; *rate_hz* is the plan's.

    Raises `PlanRefused`, with what would do, where this machine cannot.
    """
    written = "every rate in traffic.stages" if traffic.stages else "traffic.rate"
    demand = Demand(load_of(traffic, rate_hz).most_hz, timeout_s, arms=len(traffic.arms), written=written)
    return share(demand, await look_at_machine(demand, http2=may_be_http2(traffic)))


def may_be_http2(traffic: Traffic) -> bool:
    """Return whether *traffic* may go over HTTP/2, which takes a core longer; over TLS that is known only once it is sent."""
    over_tls = any(request.url.startswith("https:") for request in traffic.requests)
    return traffic.via.protocol == "http2" or (traffic.via.protocol == "auto" and over_tls)


async def look_at_machine(demand: Demand, *, http2: bool = False) -> Machine:
    """Return what this machine has for *demand*. The limit on open files is raised as far as it may be, if that is needed."""
    found = Machine(files=_files(demand), ports=_ports(), cores=_cores())
    return replace(found, core_hz=await _trial(http2=http2)) if demand.all_hz > found.sure_hz else found


def _files(demand: Demand) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 2 * demand.in_flight:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            # macOS says infinity and means less.
            return soft
        soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def _ports() -> int:
    try:
        first, last = _PORTS.read_text().split()
    except (OSError, ValueError):
        return _PORTS_USUAL
    return int(last) - int(first) + 1


def _cores() -> float:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, cores_of(_QUOTA) or count)


def cores_of(quota: Path) -> float | None:
    """Return the cores, and parts of one, that *quota*, a control group's ``cpu.max``, lets this container use; ``None`` for all."""
    try:
        most, period = (int(word) for word in quota.read_text().split())
    except (OSError, ValueError):
        # There is none, or it says "max".
        return None
    return most / period if most > 0 and period > 0 else None


class _Peer(asyncio.Protocol):
    """This answers whatever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


class _Http2Peer(asyncio.Protocol):
    """This answers whatever request comes over HTTP/2, and reads no more of it than where it ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._unread = bytearray()
        self._passed = _PREFACE_BYTES

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (begin := self._passed + _FRAME_HEAD_BYTES) <= len(self._unread):
            head = bytes(self._unread[self._passed : begin])
            end = begin + int.from_bytes(head[:3])
            if end > len(self._unread):
                return
            if head[3] == _HEADERS:
                self._transport.write(_HTTP2_HEAD % head[5:] + _HTTP2_BODY % head[5:])
            del self._unread[:end]
            self._passed = 0


async def _trial(*, http2: bool) -> float | None:
    """Return how many requests a second one core sends and answers here, by the CPU that they take; ``None`` if it failed."""
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(_Http2Peer if http2 else _Peer, "127.0.0.1", 0)
    except OSError:
        return None
    port = server.sockets[0].getsockname()[1]
    transport = Transport(lambda _: Address("127.0.0.1", port), protocol="http2" if http2 else "http1")
    traffic = Traffic(requests=(Request(url="http://trial/"),))
    # A few at a time: so many connections as a real run has, each used many times.
    pairs = [[Arrival(0.0, arm, 0) for arm in Arm] for _ in range(TRIAL_PAIRS)]
    samples = Samples()
    driver = Driver(Work(traffic, Scope("0" * 32, "1" * 32), TRIAL_WITHIN_S), samples, transport)
    try:
        begun_s = time.process_time()
        for at in range(0, len(pairs), 8):
            await driver.drive([each for pair in pairs[at : at + 8] for each in pair], phase=Phase.WARMUP)
            await driver.drain(within_s=TRIAL_WITHIN_S)
        spent_s = time.process_time() - begun_s
    finally:
        await driver.stop()
        await transport.aclose()
        server.close()
    answered = sum(status == 200 for status in samples.status)
    return answered / spent_s if answered == len(samples) and spent_s > 0 else None
