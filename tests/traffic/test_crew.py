"""Sending from several processes: the same samples as from one, and what becomes of them when a process ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, cast

import httpx
import pytest
import uvloop

from luff.checks import Lateness
from luff.errors import PlanRefused, UsageError
from luff.model import TLS, Traffic, Via
from luff.pacing import Arrival, arrivals
from luff.parse import parse_documents
from luff.predicates import observer
from luff.samples import PENDING, Failure, Samples
from luff.scope import Scope
from luff.traffic.crew import IN_A_ROW, Spread
from luff.traffic.driver import Driver
from luff.traffic.sender import Observe, Work
from luff.traffic.way import Way
from luff.words import Arm, Phase

SCOPE = Scope(secret="0123456789abcdef" * 2, decoy="fedcba9876543210" * 2)
TIMEOUT_S = 2.0
ENDED_WITHIN_S = 10.0
EXPERIMENT = """
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: shop, namespace: shop}
spec:
  target: stock
  fault: {delay: 1s}
  traffic: GET http://shop/cart
  expect: [{id: even, answer: {body: {contains: even}}}, {id: ok, answer: {status: 200}}]
"""
OBSERVE = observer(parse_documents([("e.yaml", EXPERIMENT)]).experiments[0])


class Seen(dict[int, int]):
    """This is the numbers of the requests that came, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: set[bytes] = set()
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def add(self, number: int) -> None:
        """Take note of a request."""
        self[number] = time.perf_counter_ns()
        for count, event in self._waiting:
            if len(self) >= count:
                event.set()

    async def at_least(self, count: int) -> None:
        """Come back when so many came."""
        event = asyncio.Event()
        self._waiting.append((count, event))
        if len(self) < count:
            await event.wait()


class Shop(asyncio.Protocol):
    """This is a service that answers by the number of the request alone, or not at all if it is *silent*."""

    def __init__(self, seen: Seen, *, silent: bool) -> None:
        self._seen = seen
        self._silent = silent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        found = re.search(rb"x-luff-run: [0-9a-f]{32}\.([0-9]+)", data, re.IGNORECASE)
        assert found is not None
        number = int(found[1])
        self._seen.add(number)
        self._seen.paths.add(data.split(b" ")[1])
        if self._silent or number % 31 == 3:
            return
        if number % 29 == 5:
            self._transport.abort()
            return
        status = (200, 200, 404, 503)[number % 4]
        body = b"even" if number % 2 == 0 else b"odd"
        self._transport.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))


@contextlib.asynccontextmanager
async def _shop(*, silent: bool = False) -> AsyncIterator[tuple[int, Seen]]:
    """Yield a shop's port, and what it has seen."""
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Shop(seen, silent=silent), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()


class Driven:
    """This is a driver whose traffic goes to *port*, from *processes* others, or from this one with none."""

    def __init__(self, port: int, processes: int, *, observe: Observe = OBSERVE) -> None:
        traffic = Traffic.model_validate({"requests": [{"url": f"http://127.0.0.1:{port}/cart/{{{{uuid}}}}"}]})
        way = Way(Via())
        self.samples = Samples()
        self.transport = way()
        self.rng = random.Random(11)
        self.requests = traffic.requests
        work = Work(traffic, SCOPE, TIMEOUT_S, observe, seed=f"{self.rng.getrandbits(64):x}")
        spread = Spread(processes, way) if processes else None
        self.driver = Driver(work, self.samples, self.transport, spread=spread)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.driver.stop()
        await self.transport.aclose()

    async def drive(
        self, rate_hz: float, duration_s: float, *, phase: Phase = Phase.FAULT, until: asyncio.Event | None = None
    ) -> None:
        due = arrivals(rate_hz, duration_s, requests=self.requests, rng=self.rng)
        await self.driver.drive(due, phase=phase, until=until)


def _workers() -> list[int]:
    """Return the processes that send for this one."""
    children = [(task / "children").read_text().split() for task in Path("/proc/self/task").iterdir()]
    ids = [int(child) for each in children for child in each]
    return [child for child in ids if b"luff.traffic.worker" in _readable(child, "cmdline")]


def _readable(process: int, what: str) -> bytes:
    return Path(f"/proc/{process}/{what}").read_bytes()


def _rows(samples: Samples) -> list[tuple[Any, ...]]:
    """Return everything of *samples* but how long things took; due times are from the first of their phase."""
    zeros_ns = {phase: next((samples.due_ns[n] for n in samples.rows(phase=phase)), 0) for phase in Phase}
    return [
        (s.number, s.arm, s.phase, s.request, s.due_ns - zeros_ns[s.phase], s.status, s.failure, s.flags, s.holds)
        for s in samples
    ]


def _whole(processes: int) -> list[tuple[Any, ...]]:
    async def work() -> list[tuple[Any, ...]]:
        async with _shop() as (port, seen), Driven(port, processes) as driven:
            for phase, rate_hz in ((Phase.WARMUP, 100.0), (Phase.FAULT, 150.0)):
                await driven.drive(rate_hz, 0.6, phase=phase)
            await driven.driver.drain(within_s=10)
            # Nobody draws what another has drawn.
            assert len(seen.paths) == len(driven.samples)
            health = driven.driver.health(Lateness(60.0, 0.01))
            assert (health.trouble, health.processes, health.own_failures) == (None, max(1, processes), 0)
            assert health.lag_p99_s is not None
            assert health.cpu_ratio is not None
            assert health.busiest_ratio is not None
            assert health.busiest_ratio <= health.cpu_ratio
            return _rows(driven.samples)

    return uvloop.run(work())


def test_the_samples_are_the_same_however_many_processes_send() -> None:
    alone = _whole(0)

    assert len(alone) == 300
    assert {row[6] for row in alone} == {Failure.NONE, Failure.RESET, Failure.DEADLINE}
    assert {row[8] for row in alone} == {0b00, 0b01, 0b10, 0b11}
    for processes in (1, 3):
        assert _whole(processes) == alone


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_nothing_is_sent_before_it_is_due_by_the_one_clock(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def work() -> None:
        async with _shop() as (port, seen), Driven(port, 2) as driven:
            zero_ns = time.perf_counter_ns() - driven.driver.now_ns()
            await driven.drive(100, 0.5)
            await driven.driver.drain(within_s=10)
            for sample in driven.samples:
                assert sample.due_ns <= sample.sent_ns <= sample.done_ns
                assert sample.sent_ns - 1000 <= seen[sample.number] - zero_ns

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())


class _OneAfterTheOther(asyncio.SelectorEventLoop):
    """This is a loop that starts a process only when the one before has said something."""

    def __init__(self) -> None:
        super().__init__()
        self._started: list[Any] = []

    async def subprocess_exec(self, *args: Any, **more: Any) -> Any:
        for stdout in self._started:
            while not stdout._buffer:  # noqa: ASYNC110  # nothing tells it
                await asyncio.sleep(0.01)
        transport, protocol = await super().subprocess_exec(*args, **more)
        self._started.append(protocol.stdout)
        return transport, protocol


def test_a_process_that_is_ready_before_the_last_is_started_is_no_stranger() -> None:
    async def work() -> None:
        async with _shop() as (port, _), Driven(port, 2) as driven:
            await driven.drive(50, 0.1)
            await driven.driver.drain(within_s=10)
            assert len(driven.samples) == 10

    with asyncio.Runner(loop_factory=_OneAfterTheOther) as runner:
        runner.run(work())


def test_what_was_handed_over_is_called_back_when_it_is_enough() -> None:
    async def work() -> None:
        async with _shop() as (port, seen), Driven(port, 2) as driven:
            enough = asyncio.Event()
            driving = asyncio.create_task(driven.drive(100, 60, until=enough))
            await seen.at_least(10)
            enough.set()
            await driving
            await driven.driver.drain(within_s=10)
            samples = driven.samples
            never = {sample.number for sample in samples if sample.sent_ns == PENDING}
            assert never
            assert {samples[number].failure for number in never} == {Failure.CUT}
            assert set(seen) == set(range(len(samples))) - never
            # What comes next is numbered on, and sent.
            await driven.drive(50, 0.1)
            await driven.driver.drain(within_s=10)
            assert len(samples) == max(never) + 11
            assert all(samples[number].sent_ns != PENDING for number in range(max(never) + 1, len(samples)))
            assert driven.driver.health().own_failures == 0

    uvloop.run(work())


def test_being_cancelled_calls_back_as_well() -> None:
    async def work() -> None:
        async with _shop() as (port, seen), Driven(port, 2) as driven:
            driving = asyncio.create_task(driven.drive(100, 60))
            await seen.at_least(1)
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
            await driven.driver.drain(within_s=10)
            assert all(map(driven.samples.decided, range(len(driven.samples))))
            assert set(seen) == {sample.number for sample in driven.samples if sample.sent_ns != PENDING}

    uvloop.run(work())


def test_stopping_cuts_what_is_in_flight_and_leaves_no_process() -> None:
    async def work() -> None:
        async with _shop(silent=True) as (port, seen), Driven(port, 2) as driven:
            await driven.driver.drive([Arrival(0.0, arm, 0) for _ in range(IN_A_ROW) for arm in Arm], phase=Phase.FAULT)
            await seen.at_least(2 * IN_A_ROW)
            assert len(_workers()) == 2
            assert driven.driver.snapshot(Arm.FAULT).in_flight == IN_A_ROW
            await driven.driver.stop()
            assert _workers() == []
            assert {(sample.failure, sample.sent_ns >= 0) for sample in driven.samples} == {(Failure.CUT, True)}
            assert driven.driver.snapshot(Arm.FAULT).in_flight == 0
            assert driven.driver.lost is None

    uvloop.run(work())


def test_a_process_that_is_killed_is_luffs_own_failure_and_nobody_elses() -> None:
    async def work() -> None:
        async with _shop(silent=True) as (port, seen), Driven(port, 2) as driven:
            driving = asyncio.create_task(driven.drive(100, 60))
            await seen.at_least(3 * IN_A_ROW)
            os.kill(_workers()[0], signal.SIGKILL)
            await driving
            await driven.driver.drain(within_s=10)
            failures = Counter(sample.failure for sample in driven.samples)
            assert set(failures) == {Failure.WORKER, Failure.CUT, Failure.DEADLINE}
            assert not any(driven.samples.judged(sample.number) for sample in driven.samples if sample.failure.ours)
            # Of every so many requests in a row the others were its, as many of each arm.
            its = [sample for sample in driven.samples if sample.failure is Failure.WORKER]
            others = [sample for sample in driven.samples if sample.failure is not Failure.WORKER]
            turns = [{sample.number // IN_A_ROW % 2 for sample in each} for each in (its, others)]
            assert sorted(turns, key=min) == [{0}, {1}]
            assert Counter(sample.arm for sample in its[:IN_A_ROW]) == dict.fromkeys(Arm, IN_A_ROW // 2)
            assert driven.driver.lost == "a process of luff's that was sending ended with -9"
            health = driven.driver.health()
            assert (health.trouble, health.own_failures) == (driven.driver.lost, failures[Failure.WORKER])
            # Nothing more is sent: what is left of the processes is not the generator that was planned.
            count = len(driven.samples)
            await driven.drive(100, 60)
            assert len(driven.samples) == count

    uvloop.run(work())


def test_a_process_that_stands_still_holds_nobody_up() -> None:
    async def work() -> None:
        async with _shop() as (port, _), Driven(port, 1) as driven:
            pair = [Arrival(0.0, arm, 0) for arm in Arm]
            await driven.driver.drive(pair, phase=Phase.WARMUP)
            await driven.driver.drain(within_s=10)
            os.kill(_workers()[0], signal.SIGSTOP)
            await driven.driver.drive(pair, phase=Phase.FAULT)
            await driven.driver.drain(within_s=10)
            assert driven.driver.lost == "a process of luff's that was sending stood still"
            failures = [driven.samples[number].failure for number in driven.samples.rows(phase=Phase.FAULT)]
            assert failures == [Failure.WORKER] * 2

    uvloop.run(work())


def test_a_process_that_stood_still_while_answers_were_waited_for_says_so() -> None:
    async def work() -> None:
        async with _shop(silent=True) as (port, seen), Driven(port, 1) as driven:
            await driven.driver.drive([Arrival(0.0, arm, 0) for arm in Arm], phase=Phase.FAULT)
            await seen.at_least(2)
            [worker] = _workers()
            os.kill(worker, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(0.5, os.kill, worker, signal.SIGCONT)
            await driven.driver.drain(within_s=10)
            await driven.driver.stop()
            assert driven.driver.lost is None
            assert driven.driver.health().lag_max_s > 0.3

    uvloop.run(work())


def test_a_process_that_does_not_hear_is_ended_and_its_requests_are_luffs_own_failures() -> None:
    async def work() -> None:
        async with _shop(silent=True) as (port, seen), Driven(port, 1) as driven:
            await driven.driver.drive([Arrival(0.0, arm, 0) for arm in Arm], phase=Phase.FAULT)
            await seen.at_least(2)
            os.kill(_workers()[0], signal.SIGSTOP)
            await driven.driver.stop()
            assert _workers() == []
            assert {sample.failure for sample in driven.samples} == {Failure.WORKER}

    uvloop.run(work())


def test_polite_signals_are_not_for_a_process_that_sends() -> None:
    async def work() -> None:
        async with _shop() as (port, _), Driven(port, 1) as driven:
            await driven.driver.drive([Arrival(0.0, Arm.FAULT, 0)], phase=Phase.FAULT)
            [worker] = _workers()
            # A Ctrl-C reaches everybody in the terminal's session.
            assert os.getsid(worker) != os.getsid(0)
            for polite in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(worker, polite)
            await driven.drive(100, 0.2)
            await driven.driver.drain(within_s=10)
            assert driven.driver.lost is None
            assert not any(sample.failure.ours for sample in driven.samples)

    uvloop.run(work())


PARENT = """
import asyncio, json, random, sys
from tests.traffic.test_crew import Driven, _shop, _workers

async def main():
    async with _shop() as (port, seen), Driven(port, 2) as driven:
        driving = asyncio.create_task(driven.drive(50, 60))
        await seen.at_least(1)
        print(json.dumps(_workers()), flush=True)
        await driving

asyncio.run(main())
"""


def test_no_process_outlives_its_parent() -> None:
    root = Path(__file__).parent.parent.parent
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=root, stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        workers = [os.pidfd_open(worker) for worker in json.loads(parent.stdout.readline())]
        parent.kill()
    waiting = select.poll()
    for worker in workers:
        waiting.register(worker, select.POLLIN)
    ended = set[int]()
    while len(ended) < 2 and (found := waiting.poll(ENDED_WITHIN_S * 1000)):
        for worker, _ in found:
            waiting.unregister(worker)
            os.close(worker)
            ended.add(worker)

    assert ended == set(workers)


def test_the_secret_is_neither_in_its_arguments_nor_in_its_environment() -> None:
    async def work() -> None:
        async with _shop() as (port, seen), Driven(port, 1) as driven:
            await driven.driver.drive([Arrival(0.0, Arm.FAULT, 0)], phase=Phase.FAULT)
            await driven.driver.drain(within_s=10)
            assert list(seen) == [0]
            [worker] = _workers()
            for what in ("cmdline", "environ"):
                readable = _readable(worker, what)
                assert readable
                assert not any(value.encode() in readable for value in (SCOPE.secret, SCOPE.decoy))

    uvloop.run(work())


def test_a_mistake_in_one_of_them_ends_the_run_with_its_trace() -> None:
    async def work() -> None:
        # What is observed of an answer raises there: a number cannot be raised to headers.
        async with _shop() as (port, _), Driven(port, 2, observe=cast("Observe", pow)) as driven:
            with pytest.raises(RuntimeError, match="in a process that sends: TypeError") as raised:
                await driven.drive(50, 5)
            assert "sender.py" in str(raised.value.__cause__)
            await driven.driver.stop()
            assert Failure.BUG in {sample.failure for sample in driven.samples}
            assert not driven.driver.health().healthy

    uvloop.run(work())


def test_one_that_cannot_begin_is_a_refusal_with_its_own_words(tmp_path: Path) -> None:
    async def work() -> None:
        ca = tmp_path / "ca.pem"
        way = Way(Via(tls=TLS(ca=str(ca))))
        with pytest.raises(UsageError):
            way()
        traffic = Traffic.model_validate({"requests": [{"url": "http://shop/"}]})
        unused = httpx.MockTransport(lambda _: httpx.Response(200))
        samples = Samples()
        driver = Driver(Work(traffic, SCOPE, 1.0), samples, unused, spread=Spread(2, way))
        with pytest.raises(PlanRefused, match=r"ca\.pem cannot be used") as refused:
            await driver.drive([Arrival(0.0, Arm.FAULT, 0)], phase=Phase.FAULT)
        assert refused.value.rule == "traffic_process_failed"
        await driver.stop()
        assert len(samples) == 0
        assert _workers() == []

    uvloop.run(work())


def test_a_seed_decides_the_arrivals_whoever_sends() -> None:
    # They are drawn from the same numbers, after the driver has drawn its own.
    assert [Driven(1, processes).rng.random() for processes in (0, 1, 2)] == [Driven(1, 0).rng.random()] * 3
