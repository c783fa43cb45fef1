"""
What looking at the server costs the runs in it: how late requests are sent while its pages are fetched.

A run shares its server's event loop with the pages. The traffic goes to a process of its own, and so do those who look;
printed, never asserted.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from luff.errors import RunAborted
from luff.model import Phase, Request, Traffic
from luff.pacing import arrivals
from luff.samples import Samples
from luff.scope import Scope
from luff.store import Store
from luff.testing import Cluster
from luff.traffic.dial import Address
from luff.traffic.driver import Driver
from luff.traffic.sender import Work
from luff.traffic.transport import Transport
from luff.web.listening import Listener, bound_socket
from tests.factories import failed, passed, run_id
from tests.web.conftest import IDENTITY, serving, virtual_service

RUNS = 300
RATE_HZ = 20.0
DURATION_S = 15.0
LOOKS_HZ = (0, 2, 10)
ANSWER = """
import asyncio
async def main():
    async def answer(reader, writer):
        try:
            while await reader.readuntil(b"\\r\\n\\r\\n"):
                writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nok")
        except asyncio.IncompleteReadError:
            writer.close()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
LOOK = """
import sys, time, urllib.request
address, rate = sys.argv[1], float(sys.argv[2])
pages = ["/", "/runs", "/calendar", "/banner", "/trends/quick", "/runs/" + sys.argv[3]]
began, number = time.monotonic(), 0
while True:
    request = urllib.request.Request(address + pages[number % len(pages)], headers={"accept": "text/html"})
    urllib.request.urlopen(request, timeout=30).read()
    number += 1
    time.sleep(max(0.0, began + number / rate - time.monotonic()))
"""


async def lateness(port: int) -> tuple[float, float]:
    """Send both arms of one run, and return the p99 lateness and the event loop's greatest lag, in ms."""
    traffic = Traffic(requests=(Request(url="http://answers.shop/"),))
    transport = Transport(connect=lambda _: Address("127.0.0.1", port))
    rng = random.Random(7)
    work = Work(traffic, Scope("0123456789abcdef" * 2, "fedcba9876543210" * 2), 10.0)
    driver = Driver(work, Samples(), transport)
    await driver.drive(arrivals(RATE_HZ, DURATION_S, requests=traffic.requests, rng=rng), phase=Phase.FAULT)
    await driver.drain(within_s=10)
    await driver.stop()
    await transport.aclose()
    health = driver.health()
    return (health.late_p99_s or 0) * 1000, health.lag_max_s * 1000


async def measure(store: Store, port: int) -> None:
    """Print the lateness without and with people who look."""
    cluster = Cluster()
    cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    cluster.add(virtual_service("stock"))
    listening = bound_socket("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with serving(store, cluster) as server:
        listener = Listener(server.app, listening, grace_s=1)
        answering = asyncio.create_task(listener.serve())
        for looks_hz in LOOKS_HZ:
            looking = None
            if looks_hz:
                command = (sys.executable, "-c", LOOK, address, str(looks_hz), run_id(0))
                looking = await asyncio.create_subprocess_exec(*command)
            late_ms, lag_ms = await lateness(port)
            if looking is not None:
                assert looking.returncode is None
                looking.kill()
                await looking.wait()
            what = f"{2 * RATE_HZ:.0f} requests/s, {looks_hz} pages/s: p99 late"
            print(f"{what:<58} {late_ms:9.2f} ms   (the loop's greatest lag {lag_ms:.1f} ms)")
        server.service.begin_closing(RunAborted("operator", "over"))
        listener.leave()
        await answering
    listening.close()


def main() -> None:
    """Measure on SQLite."""
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/luff.db") as store:
        for number in range(RUNS):
            make = failed if number % 9 == 0 else passed
            store.record(make(run=run_id(number), experiment="quick").model_copy(update={"mesh": IDENTITY}))
        answers = subprocess.Popen([sys.executable, "-c", ANSWER], stdout=subprocess.PIPE, text=True)
        assert answers.stdout is not None
        try:
            asyncio.run(measure(store, int(answers.stdout.readline())))
        finally:
            answers.kill()
            answers.wait()


if __name__ == "__main__":
    main()
