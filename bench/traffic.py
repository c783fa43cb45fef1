"""
The generator beside others, on one real Envoy: how much a core sends, how late it is, and whether its times are true.

Printed, never asserted. The upstream answers after 50 ms (Envoy's own direct
response behind its fault filter). Peers that are not on this machine are left
out with a word: hey, wrk, and Locust, which lives in an environment of its own
(`make .venv-bench/.made`). Pairs are run in the order A B B A, so that a
machine that gets slower or faster favours neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import uvloop

from luff.model import Arm, Phase, Request, Traffic, Via
from luff.pacing import Arrival, arrivals
from luff.samples import Failure, Samples
from luff.scope import Scope
from luff.stats import quantile
from luff.traffic.crew import Spread
from luff.traffic.dial import Address
from luff.traffic.driver import Driver
from luff.traffic.sender import Work
from luff.traffic.transport import Transport
from luff.traffic.way import Way
from luff.words import HttpVersion

SECONDS = float(os.environ.get("LUFF_BENCH_SECONDS", "5"))
AT_ONCE = 64
SHARED_HZ = (6_000, 4_000, 2_000)
"""Asked of one process, of one other and of two. From about the first on luff shares, on cores like those of this table; it is what two still keep beside Envoy."""
ROUNDS = 2
HERE = Path(__file__).parent
LOCUST = HERE.parent / ".venv-bench" / "bin" / "locust"
LOCUST_FILE = """\
import resource
from locust import FastHttpUser, HttpUser, constant, events, task

class {name}({kind}):
    wait_time = constant(0)

    @task
    def page(self):
        self.client.get("/fast")

begun = []

@events.test_start.add_listener
def begins(**_):
    used = resource.getrusage(resource.RUSAGE_SELF)
    begun.append(used.ru_utime + used.ru_stime)

@events.test_stop.add_listener
def said(environment, **_):
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("LUFF", environment.stats.total.num_requests, used.ru_utime + used.ru_stime - begun[0])
"""


def line(name: str, figure: str) -> None:
    """Print one figure."""
    print(f"{name:<78} {figure:>24}", flush=True)


@contextlib.contextmanager
def envoy(folder: Path) -> Iterator[tuple[int, Path]]:
    """Run an Envoy with /fast (at once), /slow (50 ms) and /stuck (30 s), and yield its port and its access log."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    log = folder / "access.log"
    (folder / "envoy.json").write_text(json.dumps(_bootstrap(port, log)))
    program = os.environ.get("LUFF_ENVOY") or str(Path(sys.executable).parent / "envoy")
    command = [program, "-c", str(folder / "envoy.json"), "--disable-hot-restart", "--file-flush-interval-msec", "50",
               "--log-level", "error", "--concurrency", "1"]  # fmt: skip
    child = subprocess.Popen(command)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield port, log
    finally:
        child.terminate()
        child.wait(timeout=10)


def _bootstrap(port: int, log: Path) -> dict[str, object]:
    kind = "type.googleapis.com/envoy.extensions.filters"

    def route(path: str, delay_ms: int) -> dict[str, object]:
        fault = {"@type": f"{kind}.http.fault.v3.HTTPFault"} | (
            {"delay": {"fixed_delay": f"{delay_ms / 1000}s", "percentage": {"numerator": 100}}} if delay_ms else {}
        )
        return {
            "match": {"prefix": path},
            "direct_response": {"status": 200, "body": {"inline_string": "ok"}},
            "typed_per_filter_config": {"envoy.filters.http.fault": fault},
        }

    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {
                        "text_format_source": {
                            "inline_string": "%REQ(X-LUFF-RUN)% %COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%\n"
                        }
                    },
                },
            }
        ],
        "http_filters": [
            {"name": "envoy.filters.http.fault", "typed_config": {"@type": f"{kind}.http.fault.v3.HTTPFault"}},
            {"name": "router", "typed_config": {"@type": f"{kind}.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [route("/fast", 0), route("/slow", 50), route("/stuck", 30_000)],
                }
            ]
        },
    }
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener]}}


async def _closed(send: Callable[[], Awaitable[None]]) -> float:
    """Keep `AT_ONCE` requests going for `SECONDS`, and return how many a second of CPU that was."""
    end_s = time.monotonic() + SECONDS
    sent = 0

    async def one() -> None:
        nonlocal sent
        while time.monotonic() < end_s:
            await send()
            sent += 1

    begun_s = time.process_time()
    await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    return sent / (time.process_time() - begun_s)


async def luff_transport(port: int, protocol: HttpVersion = "http1") -> float:
    """Return the requests per second of CPU through httpx's types over luff's transport, a new request each."""
    transport = Transport(lambda _: Address("127.0.0.1", port), protocol=protocol)
    url = httpx.URL(f"http://127.0.0.1:{port}/fast")

    async def send() -> None:
        response = await transport.handle_async_request(httpx.Request("GET", url))
        await response.aread()

    try:
        return await _closed(send)
    finally:
        await transport.aclose()


async def httpx_client(port: int, *, http2: bool = False) -> float:
    """Return the same for the stock client."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, trust_env=False, http1=not http2, http2=http2) as client:

        async def send() -> None:
            await client.get(f"http://127.0.0.1:{port}/fast")

        return await _closed(send)


def locust(kind: str, port: int) -> float | None:
    """Return the same for a Locust user of *kind*, or ``None`` where there is no Locust."""
    if not LOCUST.exists():
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(LOCUST_FILE.format(name="Bench", kind=kind))
        file.flush()
        command = [str(LOCUST), "-f", file.name, "--headless", "--host", f"http://127.0.0.1:{port}", "-u", str(AT_ONCE),
                   "-r", str(AT_ONCE), "-t", f"{SECONDS:.0f}s", "--only-summary"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS + 60)
    said = [text for text in done.stdout.splitlines() if text.startswith("LUFF ")]
    if not said:
        return None
    _, requests, cpu_s = said[0].split()
    return float(requests) / float(cpu_s)


def program(name: str, port: int) -> float | None:
    """Return the same for hey or wrk, or ``None`` where it is not here."""
    path = shutil.which(name)
    if path is None:
        return None
    options = (
        ["-z", f"{SECONDS:.0f}s", "-c", str(AT_ONCE)]
        if name == "hey"
        else ["-d", f"{SECONDS:.0f}", "-c", str(AT_ONCE), "-t", "1"]
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([path, *options, f"http://127.0.0.1:{port}/fast"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = done.stdout.split()
    rate_hz = float(words[words.index("Requests/sec:") + 1])
    return rate_hz * SECONDS / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def bench_peers(port: int) -> None:
    """Print requests per second of CPU, ours beside each peer's in A B B A, with the ratio of the pairs."""
    peers: dict[str, Callable[[], float | None]] = {
        "luff over HTTP/2": lambda: uvloop.run(luff_transport(port, "http2")),
        "httpx.AsyncClient over HTTP/2": lambda: uvloop.run(httpx_client(port, http2=True)),
        "httpx.AsyncClient": lambda: uvloop.run(httpx_client(port)),
        "Locust HttpUser": lambda: locust("HttpUser", port),
        "Locust FastHttpUser": lambda: locust("FastHttpUser", port),
        "hey": lambda: program("hey", port),
        "wrk": lambda: program("wrk", port),
    }
    line(f"requests per second of CPU, {AT_ONCE} at once, no delay", "peer / luff = ratio")
    for name, peer in peers.items():
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(uvloop.run(luff_transport(port)))
            found = [peer(), peer()]
            ours.append(uvloop.run(luff_transport(port)))
            theirs += [each for each in found if each is not None]
            if not theirs:
                break
        if not theirs:
            line(f"  {name}", "not on this machine")
            continue
        ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
        line(f"  {name}", f"{statistics.median(theirs):,.0f} / {statistics.median(ours):,.0f} = {ratio:.2f}")


async def driven(
    port: int, path: str, due: list[Arrival] | Iterator[Arrival], *, timeout_s: float = 40.0, processes: int = 0
) -> tuple[Samples, Driver]:
    """Drive *due* to *path* with the real driver, from here or from *processes* others, and return what became of it."""
    transport = Transport(lambda _: Address("127.0.0.1", port))
    samples = Samples()
    traffic = Traffic(requests=(Request(url=f"http://127.0.0.1:{port}{path}"),))
    work = Work(traffic, Scope("a" * 32, "b" * 32), timeout_s)
    spread = Spread(processes, Way(Via(), sidecar=f"127.0.0.1:{port}")) if processes else None
    driver = Driver(work, samples, transport, spread=spread)
    await driver.drive(due, phase=Phase.FAULT)
    await driver.drain(within_s=timeout_s)
    await driver.stop()
    await transport.aclose()
    return samples, driver


def _due(rate_hz: float, seconds: float) -> Iterator[Arrival]:
    return arrivals(rate_hz / 2, seconds, requests=(Request(url="http://bench/"),), rng=random.Random(2))


def bench_open_loop(port: int, log: Path) -> None:
    """Print lateness and CPU at 1,000 requests/s, and our times beside what Envoy says of the same requests."""
    log.write_text("")
    samples, driver = uvloop.run(driven(port, "/slow", _due(1000, SECONDS)))
    time.sleep(0.3)
    health = driver.health()
    line("1,000 requests/s open loop, 50 ms upstream: lateness p99", f"{(health.late_p99_s or 0) * 1000:.2f} ms")
    line("  CPU of one core", f"{health.cpu_ratio or 0:.0%}")
    line("  answered, of", f"{sum(status == 200 for status in samples.status)} of {len(samples)}")
    theirs_us = {
        int(mark.rpartition(".")[2]): float(took)
        for mark, _, took in (text.partition(" ") for text in log.read_text().splitlines())
        if took.strip().isdigit()
    }
    both = [n for n in range(len(samples)) if samples.failure[n] == Failure.NONE and n in theirs_us]
    if not both:
        line("  Envoy's access log", "says nothing of them")
        return
    ours = sorted((samples.done_ns[n] - samples.sent_ns[n]) / 1e6 for n in both)
    envoys = sorted(theirs_us[n] / 1000 for n in both)
    for share in (0.5, 0.99):
        mine, said = quantile(ours, share), quantile(envoys, share)
        line(
            f"  sent → done p{share * 100:.0f}, ours and Envoy's",
            f"{mine:.2f} / {said:.2f} ms ({mine / said - 1:+.1%})",
        )


def bench_processes(port: int, rate_hz: int) -> None:
    """Print what a request costs that two processes share, beside one that sends them all: told by this one, and this one itself."""
    spent: dict[int, list[float]] = {0: [], 1: [], 2: []}
    late_s: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for order in ((0, 1, 2), (2, 1, 0)):
        for processes in order:
            samples, driver = uvloop.run(driven(port, "/fast", _due(rate_hz, SECONDS), processes=processes))
            health = driver.health()
            assert all(status == 200 for status in samples.status), "not every request was answered"
            spent[processes].append((health.cpu_ratio or 0) / rate_hz * 1e6)
            late_s[processes].append(health.late_p99_s or 0.0)
    here, one, two = (statistics.median(spent[processes]) for processes in (0, 1, 2))
    line(
        f"CPU of a request at {rate_hz:,}/s: from here, one other process, two",
        f"{here:.0f} / {one:.0f} / {two:.0f} µs",
    )
    line("  two beside one", f"{two / one:.2f}")
    late_ms = (1000 * statistics.median(late_s[processes]) for processes in (0, 1, 2))
    line("  lateness p99", " / ".join(f"{each:.2f}" for each in late_ms) + " ms")


async def _stalling(stall_s: float) -> tuple[asyncio.Server, int, Callable[[], None]]:
    """Return a server that answers in 5 ms, but stands still for *stall_s* once it is told to."""
    free = asyncio.Event()
    free.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await free.wait()
                await asyncio.sleep(0.005)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    def stall() -> None:
        free.clear()
        asyncio.get_running_loop().call_later(stall_s, free.set)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1], stall


async def bench_stall() -> None:
    """Print the p99 that an upstream's stall of 1.4 s leaves, by an open and by a closed loop."""
    server, port, stall = await _stalling(1.4)
    asyncio.get_running_loop().call_later(SECONDS / 2, stall)
    transport = Transport(lambda _: Address("127.0.0.1", port))
    said: list[float] = []

    async def closed_loop() -> None:
        end_s = time.monotonic() + SECONDS
        while time.monotonic() < end_s:
            begun_s = time.monotonic()
            await transport.handle_async_request(httpx.Request("GET", f"http://127.0.0.1:{port}/"))
            said.append(time.monotonic() - begun_s)
            await asyncio.sleep(max(0.0, begun_s + 0.01 - time.monotonic()))

    closed = asyncio.create_task(closed_loop())
    samples, _ = await driven(port, "/", _due(100, SECONDS))
    await closed
    await transport.aclose()
    server.close()
    latencies = sorted(sample.latency_s for sample in samples)
    line(
        f"a stall of 1.4 s in {SECONDS:.0f} s at 100/s: p99, open loop / closed loop",
        f"{quantile(latencies, 0.99) * 1000:.0f} / {quantile(sorted(said), 0.99) * 1000:.0f} ms",
    )


def bench_in_flight(port: int) -> None:
    """Print what 3,000 requests in flight cost: false errors, and memory."""
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    due = [Arrival(place / 1000, list(Arm)[place % 2], 0) for place in range(3000)]
    samples, _ = uvloop.run(driven(port, "/stuck", due, timeout_s=60.0))
    errors = sum(failure != Failure.NONE for failure in samples.failure)
    line("3,000 in flight under a delay of 30 s: false errors", f"{errors}")
    after_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line("  process at its largest, before and after", f"{before_mb:.0f} / {after_mb:.0f} MB")


def main() -> None:
    """Print everything."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    with tempfile.TemporaryDirectory() as folder, envoy(Path(folder)) as (port, log):
        bench_open_loop(port, log)
        for rate_hz in SHARED_HZ:
            bench_processes(port, rate_hz)
        uvloop.run(bench_stall())
        bench_peers(port)
        bench_in_flight(port)


if __name__ == "__main__":
    main()
