"""The open-loop driver: what is sent when, what is kept of it, and what is said of the generator itself."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.checks import Lateness
from luff.decide import Proxy, RequestFacts, decide
from luff.errors import UsageError
from luff.model import Traffic
from luff.pacing import Arrival, Load, arrivals
from luff.patches import apply
from luff.samples import Failure, Flag, Samples
from luff.scope import Scope
from luff.stats import quantile
from luff.testing import SimClock, virtual_time
from luff.traffic.dial import Address, TrafficError
from luff.traffic.driver import Driver
from luff.traffic.sender import Work
from luff.traffic.transport import ARM, Transport
from luff.words import Arm, Carrier, Object, Phase
from tests.factories import injection

SCOPE = Scope(secret="0123456789abcdef" * 2, decoy="fedcba9876543210" * 2)
Answer = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Peer(httpx.AsyncBaseTransport):
    """This is a service in this process: it keeps what was asked, when, and answers as it is told."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.asked: list[tuple[int, httpx.Request]] = []
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((time.perf_counter_ns(), request))
        return await self._answer(request) if self._answer is not None else httpx.Response(200, content=b"ok")


def _traffic(**request: Any) -> Traffic:
    return Traffic.model_validate({"requests": [{"url": "http://shop/cart", **request}]})


def _driver(
    peer: httpx.AsyncBaseTransport,
    samples: Samples,
    *,
    traffic: Traffic | None = None,
    scope: Scope = SCOPE,
    timeout_s: float = 5.0,
    **more: Any,
) -> Driver:
    return Driver(Work(traffic or _traffic(), scope, timeout_s, **more), samples, peer)


def _due(rate_hz: float, duration_s: float, **more: Any) -> Iterator[Arrival]:
    return arrivals(rate_hz, duration_s, requests=_traffic().requests, rng=random.Random(3), **more)


async def _driven(driver: Driver, due: Iterator[Arrival] | list[Arrival], **more: Any) -> None:
    await driver.drive(due, phase=Phase.FAULT, **more)
    await driver.drain(within_s=10)
    await driver.stop()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_nothing_is_sent_before_it_is_due(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    samples, peer = Samples(), Peer()

    async def work() -> None:
        driver = _driver(peer, samples)
        zero_ns = time.perf_counter_ns() - driver.now_ns()
        await _driven(driver, _due(150, 0.6))
        assert [at - zero_ns >= samples.due_ns[n] - 1000 for n, (at, _) in enumerate(peer.asked)] == [True] * len(
            samples
        )

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())
    assert len(samples) == len(peer.asked) == 180
    assert list(samples.due_ns) == sorted(samples.due_ns)
    for sample in samples:
        assert sample.due_ns <= sample.sent_ns <= sample.done_ns
        assert (sample.status, sample.failure, sample.phase) == (200, Failure.NONE, Phase.FAULT)


def test_both_arms_get_the_same_interleaved() -> None:
    samples = Samples()
    traffic = Traffic.model_validate(
        {"requests": [{"url": "http://shop/a", "weight": 3.0}, {"url": "http://shop/b", "weight": 1.0}]}
    )
    due = arrivals(200, 0.5, requests=traffic.requests, rng=random.Random(3))
    asyncio.run(_driven(_driver(Peer(), samples, traffic=traffic), due))
    for first, second in zip(range(0, len(samples), 2), range(1, len(samples), 2), strict=True):
        assert {samples[first].arm, samples[second].arm} == set(Arm)
        assert samples[first].request == samples[second].request
    assert Counter(sample.arm for sample in samples) == {Arm.FAULT: 100, Arm.CONTROL: 100}
    first_arms = Counter(samples[first].arm for first in range(0, len(samples), 2))
    assert min(first_arms.values()) > 20


def test_the_transport_is_told_the_arm_of_each_request() -> None:
    samples, peer = Samples(), Peer()
    asyncio.run(_driven(_driver(peer, samples), _due(100, 0.2)))
    assert [request.extensions[ARM] for _, request in peer.asked] == [sample.arm for sample in samples]


def test_a_stall_does_not_slow_the_load_and_is_in_the_figures() -> None:
    samples = Samples()
    begun_s = time.monotonic()

    async def stalls(_: httpx.Request) -> httpx.Response:
        # For the middle third of the run nobody is answered.
        at_s = time.monotonic() - begun_s
        if 0.4 <= at_s < 0.8:
            await asyncio.sleep(0.8 - at_s)
        return httpx.Response(200)

    async def closed_loop() -> list[float]:
        """Return what a client would have said that sends its next request when the last one came back."""
        said = []
        while time.monotonic() - begun_s < 1.2:
            sent_s = time.monotonic()
            await stalls(httpx.Request("GET", "http://shop"))
            said.append(time.monotonic() - sent_s)
            await asyncio.sleep(0.005)
        return sorted(said)

    async def work() -> list[float]:
        naive = asyncio.create_task(closed_loop())
        await _driven(_driver(Peer(stalls), samples), _due(100, 1.2))
        return await naive

    naive = asyncio.run(work())
    latencies = sorted(sample.latency_s for sample in samples)
    assert len(samples) == 240
    # A third of the requests fell due in it, and waited: for the closed loop it is one bad request.
    assert quantile(latencies, 0.99) > 0.3
    assert quantile(latencies, 0.75) > 0.05
    assert quantile(naive, 0.9) < 0.05
    sent = [sample for sample in samples if 0.45e9 < sample.due_ns < 0.75e9]
    assert len(sent) > 50
    assert quantile(sorted(sample.lateness_s for sample in sent), 0.5) < 0.1


def test_many_can_be_in_flight() -> None:
    samples = Samples()

    async def work() -> None:
        release = asyncio.Event()

        async def holds(_: httpx.Request) -> httpx.Response:
            await release.wait()
            return httpx.Response(200)

        driver = _driver(Peer(holds), samples)
        await driver.drive(_due(500, 0.4), phase=Phase.FAULT)
        await asyncio.sleep(0)
        assert driver.snapshot(Arm.FAULT).in_flight == driver.snapshot(Arm.CONTROL).in_flight == 200
        release.set()
        await driver.drain(within_s=5)
        await driver.stop()

    asyncio.run(work())
    assert {sample.failure for sample in samples} == {Failure.NONE}


def test_the_deadline_counts_from_the_due_time() -> None:
    samples = Samples()

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        driver = _driver(Peer(never), samples, timeout_s=0.6)
        # The second falls due while this process is busy with something else, and starts late.
        driving = asyncio.create_task(
            driver.drive([Arrival(0.0, Arm.FAULT, 0), Arrival(0.05, Arm.FAULT, 0)], phase=Phase.FAULT)
        )
        await asyncio.sleep(0.02)
        time.sleep(0.5)  # noqa: ASYNC251
        await driving
        await driver.drain(within_s=5)
        await driver.stop()

    asyncio.run(work())
    assert [sample.failure for sample in samples] == [Failure.DEADLINE] * 2
    # Had it counted from the sending, the second would have taken more than a second.
    assert samples[1].lateness_s > 0.4
    assert all(0.59 <= sample.latency_s < 0.95 for sample in samples)


def test_a_request_that_can_only_be_late_is_given_up_at_once() -> None:
    samples = Samples()

    async def work() -> None:
        async def slow(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(1)
            return httpx.Response(200)

        await _driven(_driver(Peer(slow), samples, timeout_s=0.1), [Arrival(-0.5, Arm.FAULT, 0)])

    asyncio.run(work())
    assert samples[0].failure is Failure.DEADLINE


FAILING = [
    (TrafficError(kind, "as a transport says"), kind)
    for kind in Failure
    if kind not in (Failure.NONE, Failure.BUG, Failure.CUT)
]


@pytest.mark.parametrize(("error", "failure"), FAILING)
def test_failures_are_kept_by_kind(error: TrafficError, failure: Failure) -> None:
    samples = Samples()

    async def fails(_: httpx.Request) -> httpx.Response:
        raise error

    driver = _driver(Peer(fails), samples)
    asyncio.run(_driven(driver, _due(100, 0.05)))
    assert {(sample.failure, sample.status) for sample in samples} == {(failure, 0)}
    assert driver.health().own_failures == (len(samples) if failure.ours else 0)
    assert driver.health(Lateness(60.0, 1.0)).healthy is not failure.ours


BODIES: list[tuple[str, str, bytes, Failure, bytes]] = [
    ("plain", "identity", b"ok", Failure.NONE, b"ok"),
    ("zipped", "gzip", gzip.compress(b"ok" * 100_000), Failure.NONE, b"ok" * 100_000),
    ("deflated", "deflate", zlib.compress(b"ok"), Failure.NONE, b"ok"),
    ("not what it says", "gzip", b"this is not gzip", Failure.PROTOCOL, b""),
    ("zipped, beside what says nothing", "aws-chunked, GZIP", gzip.compress(b"ok"), Failure.NONE, b"ok"),
    ("zipped twice", "gzip, gzip", gzip.compress(gzip.compress(b"ok")), Failure.TOO_LARGE, b""),
    ("a bomb", "gzip", gzip.compress(bytes(64 << 20)), Failure.TOO_LARGE, b""),
]


@pytest.mark.parametrize(("what", "encoding", "body", "failure", "seen"), BODIES, ids=[what for what, *_ in BODIES])
def test_bodies_are_decoded_within_bounds(what: str, encoding: str, body: bytes, failure: Failure, seen: bytes) -> None:
    samples, observed = Samples(), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-encoding: %b\r\n" % encoding.encode())
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    def observe(_status: int, _headers: httpx.Headers, content: bytes) -> int:
        observed.append(content)
        return 5

    async def work() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport = Transport(lambda _: Address("127.0.0.1", port))
        await _driven(_driver(transport, samples, observe=observe), [Arrival(0.0, Arm.FAULT, 0)])
        await transport.aclose()
        server.close()
        await server.wait_closed()

    asyncio.run(work())
    assert samples[0].failure is failure
    assert observed == ([seen] if failure is Failure.NONE else [])
    assert samples[0].holds == (5 if failure is Failure.NONE else 0)


@pytest.mark.parametrize("where", ["observe", "transport"])
@pytest.mark.parametrize("last", [False, True])
def test_a_mistake_of_ours_ends_the_run(where: str, *, last: bool) -> None:
    samples = Samples()

    async def broken(_: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    def observe(_status: int, _headers: httpx.Headers, _body: bytes) -> int:
        raise ZeroDivisionError

    driver = _driver(Peer(broken), samples) if where == "transport" else _driver(Peer(), samples, observe=observe)

    async def work() -> None:
        with pytest.raises(ZeroDivisionError):
            await _driven(driver, [Arrival(0.0, Arm.FAULT, 0)] if last else _due(50, 5))
        await driver.stop()

    asyncio.run(work())
    assert len(samples) < 20
    assert {sample.failure for sample in samples} <= {Failure.BUG, Failure.CUT}
    assert not driver.health().healthy


@pytest.mark.parametrize("begun", [False, True])
def test_stopping_cuts_what_is_in_flight(*, begun: bool) -> None:
    samples = Samples()

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        driver = _driver(Peer(never), samples)
        await driver.drive([Arrival(0.0, arm, 0) for arm in Arm], phase=Phase.FAULT)
        if begun:
            await asyncio.sleep(0.01)
        await driver.stop()
        await driver.stop()
        assert driver.snapshot(Arm.FAULT).in_flight == 0
        assert driver.health().own_failures == 0

    asyncio.run(work())
    assert [sample.failure for sample in samples] == [Failure.CUT] * 2
    assert [sample.sent_ns >= 0 for sample in samples] == [begun] * 2


def test_one_arm_can_be_drained_alone() -> None:
    samples = Samples()

    async def work() -> None:
        async def slow(request: httpx.Request) -> httpx.Response:
            if SCOPE.number_in(request.headers) is None:
                await asyncio.Event().wait()
            await asyncio.sleep(0.02)
            return httpx.Response(200)

        driver = _driver(Peer(slow), samples)
        await driver.drive(_due(50, 0.1), phase=Phase.FAULT)
        await driver.drain(arm=Arm.FAULT, within_s=5)
        assert {sample.failure for sample in samples if sample.arm is Arm.FAULT} == {Failure.NONE}
        assert driver.snapshot(Arm.FAULT).in_flight == 0
        assert driver.snapshot(Arm.CONTROL).in_flight == 5
        await driver.drain(within_s=0.01)
        await driver.stop()

    asyncio.run(work())
    assert {sample.failure for sample in samples if sample.arm is Arm.CONTROL} == {Failure.CUT}


def test_driving_ends_when_told() -> None:
    samples = Samples()

    async def work() -> None:
        enough = asyncio.Event()
        driver = _driver(Peer(), samples)
        driving = asyncio.create_task(driver.drive(_due(1, 600), phase=Phase.WARMUP, until=enough))
        await asyncio.sleep(0.1)
        enough.set()
        await asyncio.wait_for(driving, 2)
        await driver.stop()

    asyncio.run(work())
    assert len(samples) <= 2


def test_figures_for_people() -> None:
    samples = Samples()

    async def answers(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503 if SCOPE.number_in(request.headers) else 200)

    driver = _driver(Peer(answers), samples)
    empty = driver.snapshot(Arm.FAULT)
    assert (empty.sent, empty.p50_ms, empty.p99_ms, empty.rate_hz) == (0, None, None, 0.0)
    asyncio.run(_driven(driver, _due(100, 0.2)))
    fault, control = driver.snapshot(Arm.FAULT), driver.snapshot(Arm.CONTROL)
    assert (fault.sent, fault.errors, control.sent, control.errors) == (20, 20, 20, 0)
    assert fault.p50_ms is not None
    assert fault.p99_ms is not None
    assert fault.p50_ms <= fault.p99_ms
    assert 0 < fault.rate_hz <= 40


def test_figures_for_people_are_kept_no_longer_than_they_look_back_though_nobody_looks() -> None:
    async def work() -> None:
        driver = Driver(Work(_traffic(), SCOPE, 5.0), Samples(), Peer(), clock=SimClock())
        await _driven(driver, _due(20, 60))
        assert driver.snapshot(Arm.FAULT).sent == 1200
        assert driver.snapshot(Arm.FAULT).rate_hz == pytest.approx(20, rel=0.1)
        assert len(driver._arms[Arm.FAULT].recent) <= 110

    with virtual_time() as play:
        play(work())


# The generator's own health


def _health(lateness_ms: list[float], *failures: Failure) -> tuple[bool, float | None]:
    samples = Samples()
    driver = _driver(Peer(), samples)
    for late_ms in lateness_ms:
        number = samples.open(Arm.FAULT, Phase.FAULT, 0, 1_000_000_000)
        samples.sent_ns[number] = 1_000_000_000 + round(late_ms * 1e6)
        samples.close(number, done_ns=2_000_000_000, status=200)
    for failure in failures:
        samples.close(samples.open(Arm.FAULT, Phase.FAULT, 0, 0), done_ns=1, failure=failure)
    health = driver.health()
    assert health.summary().healthy is health.healthy
    return health.healthy, health.summary().late_p99_ms


@pytest.mark.parametrize(
    ("lateness_ms", "failures", "healthy", "p99_ms"),
    [
        ([], [], True, None),
        ([0.2] * 100, [], True, 0.2),
        ([0.2] * 99 + [500.0], [], True, 0.2),
        ([0.2] * 98 + [500.0] * 2, [], False, 500.0),
        ([19.0] * 100, [], True, 19.0),
        ([21.0] * 100, [], False, 21.0),
        ([0.2] * 1000, [Failure.POOL], False, 0.2),
        ([0.2] * 1000, [Failure.RESOLVE], False, 0.2),
        ([0.2] * 1000, [Failure.BUG], False, 0.2),
        ([0.2] * 1000, [Failure.CUT] * 50, True, 0.2),
        ([0.2] * 1000, [Failure.CONNECT, Failure.RESET, Failure.DEADLINE], True, 0.2),
    ],
)
def test_a_generator_that_is_late_or_lacks_something_says_so(
    lateness_ms: list[float], failures: list[Failure], p99_ms: float | None, *, healthy: bool
) -> None:
    assert _health(lateness_ms, *failures) == (healthy, p99_ms)


def test_a_busy_process_is_late_and_says_so() -> None:
    samples = Samples()

    async def work() -> None:
        driver = _driver(Peer(), samples)
        driving = asyncio.create_task(driver.drive(_due(100, 0.3), phase=Phase.FAULT))
        for _ in range(3):
            await asyncio.sleep(0.03)
            time.sleep(0.1)  # noqa: ASYNC251
        await driving
        await driver.drain(within_s=5)
        health = driver.health()
        assert not health.healthy
        assert health.late_p99_s is not None
        assert health.late_p99_s > 0.05
        assert health.lag_max_s > 0.02
        await driver.stop()

    asyncio.run(work())


def test_a_process_that_stands_still_while_answers_are_waited_for_says_so() -> None:
    samples, answering = Samples(), asyncio.Event()

    async def late(_: httpx.Request) -> httpx.Response:
        await answering.wait()
        return httpx.Response(200)

    async def work() -> None:
        driver = _driver(Peer(late), samples)
        await driver.drive([Arrival(0.0, Arm.FAULT, 0)], phase=Phase.FAULT)
        draining = asyncio.create_task(driver.drain(within_s=5))
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251
        answering.set()
        await draining
        await driver.stop()
        health = driver.health(Lateness(0.25, 0.01))
        assert health.lag_max_s > 0.25
        assert health.trouble is not None
        assert "stood still" in health.trouble

    asyncio.run(work())


# What a request carries


def _sent(traffic: Traffic, scope: Scope = SCOPE, *, count: int = 4) -> list[tuple[Arm, httpx.Request]]:
    samples, peer = Samples(), Peer()
    due = [Arrival(0.0, arm, 0) for _ in range(count // 2) for arm in Arm]
    asyncio.run(_driven(_driver(peer, samples, traffic=traffic, scope=scope), due))
    assert len(peer.asked) == count
    return [(samples[number].arm, request) for number, (_, request) in enumerate(peer.asked)]


def _numbers_in(scope: Scope, request: httpx.Request) -> tuple[int | None, int | None]:
    fault, control = scope.number_in(request.headers), scope.control_number_in(request.headers)
    return None if fault is None else fault[0], None if control is None else control[0]


@pytest.mark.parametrize("carriers", [tuple(Carrier), *((carrier,) for carrier in Carrier)])
def test_each_carrier_carries_the_number_of_its_request(carriers: tuple[Carrier, ...]) -> None:
    scope = Scope(SCOPE.secret, SCOPE.decoy, carriers=carriers)
    names = {Carrier.HEADER: "x-luff-run", Carrier.BAGGAGE: "baggage", Carrier.TRACEPARENT: "traceparent"}
    for number, (arm, request) in enumerate(_sent(_traffic(), scope)):
        assert _numbers_in(scope, request) == ((number, None) if arm is Arm.FAULT else (None, number))
        assert {name for name in names.values() if name in request.headers} == {names[each] for each in carriers}
        value = scope.secret if arm is Arm.FAULT else scope.decoy
        if Carrier.HEADER in carriers:
            assert request.headers["x-luff-run"] == f"{value}.{number}"
        if Carrier.BAGGAGE in carriers:
            assert request.headers["baggage"] == f"luff-run={value}.{number}"
        if Carrier.TRACEPARENT in carriers:
            assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", request.headers["traceparent"])


def _injected(scope: Scope) -> Object:
    plain: Object = {
        "metadata": {"name": "inventory", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        "spec": {"hosts": ["inventory"], "http": [{"route": [{"destination": {"host": "inventory"}}]}]},
    }
    return apply(plain, list(injection(plain, "inventory", scope=scope).operations))


@pytest.mark.parametrize("carriers", [tuple(Carrier), *((carrier,) for carrier in Carrier)])
def test_fault_requests_take_the_twin_and_control_requests_that_look_alike_do_not(
    carriers: tuple[Carrier, ...],
) -> None:
    scope = Scope(SCOPE.secret, SCOPE.decoy, carriers=carriers)
    object_ = _injected(scope)
    shapes = set()
    for arm, request in _sent(_traffic(), scope):
        facts = RequestFacts(path=request.url.path, headers=tuple(request.headers.items()), authority="inventory")
        assert decide(object_, facts, Proxy(namespace="shop")) == (0 if arm is Arm.FAULT else 1)
        shapes.add(tuple((name, len(value)) for name, value in request.headers.items()))
        # Any single carrier is enough, whichever arrives.
        for name in ("x-luff-run", "baggage", "traceparent"):
            if arm is Arm.FAULT and name in request.headers:
                alone = RequestFacts(headers=((name, request.headers[name]),), authority="inventory")
                assert decide(object_, alone, Proxy(namespace="shop")) == 0
    assert len(shapes) == 1


def test_placeholders_are_filled_in_everywhere() -> None:
    traffic = _traffic(
        method="POST",
        url="http://shop/cart/{{seq}}?id={{uuid}}",
        headers={"X-Request": "{{uuid}}-{{seq}}", "x-plain": "a"},
        body='{"seq": {{seq}}, "id": "{{uuid}}"}',
    )
    found = set()
    for number, (_, request) in enumerate(_sent(traffic)):
        uuid = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
        assert re.fullmatch(rf"http://shop/cart/{number}\?id={uuid}", str(request.url))
        assert re.fullmatch(rf"{uuid}-{number}", request.headers["x-request"])
        assert re.fullmatch(rf'{{"seq": {number}, "id": "{uuid}"}}', request.content.decode())
        assert request.headers["x-plain"] == "a"
        found.add(request.url.params["id"])
    assert len(found) == 4


def test_answers_from_a_cache_are_not_wanted_unless_they_are() -> None:
    assert all(request.headers["cache-control"] == "no-store" for _, request in _sent(_traffic()))
    traffic = _traffic(headers={"Cache-Control": "max-age=60"})
    assert all(request.headers.get_list("cache-control") == ["max-age=60"] for _, request in _sent(traffic))


def test_the_scope_cannot_be_overwritten_by_a_header_of_the_experiment() -> None:
    traffic = _traffic(headers={"X-Luff-Run": "mine", "Traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"})
    for number, (arm, request) in enumerate(_sent(traffic)):
        assert _numbers_in(SCOPE, request) == ((number, None) if arm is Arm.FAULT else (None, number))


def test_a_secret_is_revealed_in_requests_alone() -> None:
    traffic = _traffic(
        method="POST",
        headers={"authorization": {"from_env": "LUFF_SECRET_TOKEN"}},
        body={"from_env": "LUFF_SECRET_BODY"},
    )
    with pytest.raises(UsageError):
        traffic.revealed({"LUFF_SECRET_TOKEN": "Bearer hunter2"})
    revealed = traffic.revealed({"LUFF_SECRET_TOKEN": "Bearer hunter2", "LUFF_SECRET_BODY": "hunter3"})
    for _, request in _sent(revealed):
        assert request.headers["authorization"] == "Bearer hunter2"
        assert request.content == b"hunter3"
    assert "hunter" not in repr(revealed)
    assert "hunter" not in repr(traffic)


@pytest.mark.parametrize(
    ("header", "body"),
    [("Bearer hunter2\n", "hunter3"), ("hunter\r\n\r\nGET / HTTP/1.1", "x"), ("hünter2", "x"), ("x", "hunter\udcff")],
)
def test_a_secret_that_cannot_be_sent_is_refused_by_the_name_of_its_variable(header: str, body: str) -> None:
    traffic = _traffic(
        method="POST",
        headers={"authorization": {"from_env": "LUFF_SECRET_TOKEN"}},
        body={"from_env": "LUFF_SECRET_BODY"},
    )
    with pytest.raises(UsageError, match=r"the value of LUFF_SECRET_(TOKEN|BODY) has characters that") as caught:
        traffic.revealed({"LUFF_SECRET_TOKEN": header, "LUFF_SECRET_BODY": body})
    assert not re.search("h[uü]nter", f"{caught.value} {caught.value.next_step}")


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (None, Flag(0)),
        ("-", Flag.TWIN),
        ("DI", Flag.TWIN | Flag.DELAY_INJECTED),
        ("FI", Flag.TWIN | Flag.FAULT_INJECTED),
        ("DI,FI,UT", Flag.TWIN | Flag.DELAY_INJECTED | Flag.FAULT_INJECTED),
        ("DIX", Flag.TWIN),
    ],
)
def test_what_the_proxy_says_is_kept(header: str | None, flags: Flag) -> None:
    samples = Samples()

    async def answers(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={} if header is None else {"X-Luff-Flags": header})

    asyncio.run(_driven(_driver(Peer(answers), samples), [Arrival(0.0, Arm.FAULT, 0)]))
    assert samples[0].flags == flags


@settings(max_examples=40)
@given(
    rate_hz=st.floats(0.5, 500), duration_s=st.floats(0.1, 20), ramp_share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_a_seed_decides_all_arrivals(rate_hz: float, duration_s: float, ramp_share: float, seed: int) -> None:
    def made() -> list[Arrival]:
        requests, rng = _traffic().requests, random.Random(seed)
        load = Load.steady(rate_hz, ramp_s=duration_s * ramp_share)
        return list(arrivals(load, duration_s, requests=requests, rng=rng))

    assert made() == made()
