"""One run whose traffic is sent by several real processes: it learns the same, and survives their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from luff.clock import SystemClock
from luff.errors import RunAborted
from luff.lifecycle import Phase
from luff.model import Experiment, Via
from luff.outcome import Outcome
from luff.plan import Plan
from luff.traffic.crew import Spread
from luff.traffic.transport import Transport
from luff.traffic.way import Way
from luff.words import Verdict
from tests.test_run import EXPERIMENT, REF, SLOW, Setting

PROCESSES = 2
FAULTS = 5
"""So many faults have fired before anything else happens."""


class ByMany(Setting):
    """This is a setting whose service can be dialled, and whose traffic is sent by `PROCESSES` processes."""

    def __init__(self, text: str) -> None:
        super().__init__(warmup="0.5s", text=text.replace("200/s", "50/s"))
        self.asked = asyncio.Event()
        self.faulted = asyncio.Event()
        self.time = self._real_time
        self.outside = {"clock": SystemClock(), "transport": self._transport, "spread": self._spread}
        self._port = 0
        self.faults = 0

    def run_by_many(self, during: Callable[[], Awaitable[Any]] | None = None) -> Outcome:
        """Run the experiment; *during* is done beside it."""

        async def beside(_: Callable[[RunAborted], None]) -> None:
            if during is not None:
                await during()

        return self.run(before=self._listen, during=beside)

    def kill_one(self) -> None:
        """Kill one of the processes that send."""
        children = (Path(f"/proc/self/task/{os.getpid()}/children")).read_text().split()
        workers = [one for one in children if b"luff.traffic.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]
        assert len(workers) == PROCESSES
        os.kill(int(workers[-1]), signal.SIGKILL)

    @contextlib.contextmanager
    def _real_time(self) -> Iterator[Callable[[Awaitable[Any]], Any]]:
        async def whole(work: Awaitable[Any]) -> Any:
            try:
                return await work
            finally:
                self._server.close()

        with asyncio.Runner() as runner:
            yield lambda work: runner.run(whole(work))

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                _, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                answer = self.answer(httpx.Request("GET", "http://stock/", headers=headers))
                said = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
                length = "" if "content-length" in answer.headers else "content-length: 0\r\n"
                writer.write(f"HTTP/1.1 {answer.status_code} x\r\n{said}{length}\r\n".encode())
                self.asked.set()
                self.faults += answer.status_code == 503
                if self.faults == FAULTS:
                    self.faulted.set()

    @property
    def _way(self) -> Way:
        return Way(Via(connect=f"127.0.0.1:{self._port}"))

    def _transport(self, _: Experiment) -> Transport:
        return self._way()

    async def _spread(self, _: Plan) -> Spread:
        return Spread(PROCESSES, self._way)


def test_a_run_that_several_processes_send_for_learns_what_one_would() -> None:
    setting = ByMany(EXPERIMENT)

    outcome = setting.run_by_many()

    assert (outcome.verdict, outcome.phase) == (Verdict.FAILED, Phase.CLEAN), outcome.explanation
    assert outcome.generator is not None
    assert outcome.generator.processes == PROCESSES
    assert outcome.evidence is not None
    assert outcome.evidence.exposure == 1.0
    # What was called back when it was enough was never sent.
    assert outcome.arms["fault"].sent == setting.faults
    assert "traffic" in setting.steps
    assert setting.routes == ["all"]


def test_one_that_is_killed_under_the_fault_makes_a_run_say_nothing_of_the_service() -> None:
    setting = ByMany(SLOW)

    async def kill() -> None:
        await setting.faulted.wait()
        setting.kill_one()

    outcome = setting.run_by_many(kill)

    assert (outcome.verdict, outcome.reason) == (Verdict.INCONCLUSIVE, "generator_saturated"), outcome.explanation
    assert "a process of luff's that was sending ended with -9" in outcome.explanation
    assert outcome.phase is Phase.CLEAN
    assert setting.routes == ["all"]


def test_one_that_is_killed_before_there_is_a_fault_leaves_everything_untouched() -> None:
    setting = ByMany(SLOW)

    async def kill() -> None:
        await setting.asked.wait()
        setting.kill_one()

    outcome = setting.run_by_many(kill)

    assert (outcome.verdict, outcome.reason) == (Verdict.ERROR, "plan_refused:traffic_process_failed")
    assert len(setting.cluster.history[REF]) == 1
