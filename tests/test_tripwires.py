"""Tripwires against small real servers: what trips, what does not, and what cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from luff.clock import SystemClock
from luff.errors import RunAborted, UsageError
from luff.model import Experiment
from luff.tripwires import LOOK_EVERY_S, MISSED_MOST, check_tripwires, tripwires

Said = bytes | None
"""What a server says to one look; ``None`` is nothing, ever."""


class Ticking:
    """This is a clock whose sleeps take no time."""

    def __init__(self, *, looks_most: int = 12) -> None:
        self.at_s = 0.0
        self.left = looks_most
        self.over = asyncio.Event()

    def monotonic_s(self) -> float:
        return self.at_s

    def now_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        self.at_s += seconds
        self.left -= 1
        if self.left <= 0:
            self.over.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)


def _said(body: Any, status: int = 200) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(text), text)


def _vector(*values: float | str) -> bytes:
    rows = [{"metric": {}, "value": [1_700_000_000.0, str(value)]} for value in values]
    return _said({"status": "success", "data": {"resultType": "vector", "result": rows}})


@contextlib.asynccontextmanager
async def _serving(answers: list[Said], asked: list[bytes]) -> AsyncIterator[int]:
    """Answer each look with the next of *answers*, the last of them for ever."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                said = answers[min(len(asked), len(answers)) - 1]
                if said is None:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                    while not reader.at_eof():
                        writer.write(b" ")
                        await writer.drain()
                        await asyncio.sleep(0.005)
                    break
                writer.write(said)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        # Handlers see the end of their connections before the loop goes.
        await asyncio.sleep(0.02)


def _experiment(*conditions: dict[str, Any]) -> Experiment:
    return Experiment.model_validate(
        {
            "metadata": {"name": "cart"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"abort": {"http": 503}},
                "traffic": {"requests": [{"url": "http://checkout/"}]},
                "abortOn": list(conditions),
            },
        }
    )


def _watched(
    condition: dict[str, Any], answers: list[Said], monkeypatch: pytest.MonkeyPatch, *, who: str = ""
) -> tuple[list[RunAborted], list[bytes], float]:
    """Return what stopped the run, what was asked, and when it was over."""
    stops: list[RunAborted] = []
    asked: list[bytes] = []

    async def work() -> float:
        clock = Ticking()
        async with _serving(answers, asked) as port:
            monkeypatch.setenv("LUFF_PROMETHEUS_URL", f"http://{who}127.0.0.1:{port}/prom/")
            given = {
                key: value.replace("PORT", str(port)) if key == "url" else value for key, value in condition.items()
            }
            made = tripwires(_experiment(given), clock, stops.append, answer_within_s=0.2)
            watching = [asyncio.create_task(each) for each in made]
            over = asyncio.create_task(clock.over.wait())
            await asyncio.wait([*watching, over], timeout=20, return_when=asyncio.FIRST_COMPLETED)
            for task in (*watching, over):
                task.cancel()
            results = await asyncio.gather(*watching, return_exceptions=True)
            assert [r for r in results if isinstance(r, Exception)] == []
        return clock.at_s

    at_s = asyncio.run(work())
    return stops, asked, at_s


HTTP = {"kind": "http", "url": "http://127.0.0.1:PORT/health"}
QUERY = {"kind": "prometheus", "query": "sum(rate(errors[1m]))", "above": 0.01}
HELD = {**QUERY, "for_s": 10.0}
NOTHING = _said({"status": "success", "data": {"resultType": "vector", "result": []}})
GOOD, BAD = _said(b"", 204), _said(b"", 503)
RUBBISH = _said(b"<html>")

WATCHED: list[tuple[str, dict[str, Any], list[Said], str | None]] = [
    ("a good answer", HTTP, [GOOD], None),
    ("a bad answer", HTTP, [GOOD, GOOD, BAD], "/health answers 503"),
    ("a redirect is no good answer", HTTP, [_said(b"", 302)], "/health answers 302"),
    ("the status that was asked for", {**HTTP, "status": ["503"]}, [BAD], None),
    ("no whole answer, twice", HTTP, [None, None, GOOD], None),
    ("no whole answer, ever", HTTP, [GOOD, None], "could not be read 3 times in a row: TimeoutError()"),
    ("no HTTP", HTTP, [b"SSH-2.0\r\n\r\n"], "could not be read 3 times in a row"),
    ("now and then", HTTP, [b"x\r\n\r\n", b"x\r\n\r\n", GOOD] * 5, None),
    ("no address", {**HTTP, "url": "http://127.0.0.1:1/"}, [GOOD], "could not be read 3 times in a row"),
    ("no URL", {**HTTP, "url": "http://[::1"}, [GOOD], "could not be read 3 times in a row"),
    ("below", QUERY, [_vector(0.01)], None),
    ("above", QUERY, [_vector(0.005), _vector(0.02)], "sum(rate(errors[1m])) is 0.02"),
    ("the highest of several", QUERY, [_vector(0.001, 0.5, 0.002)], "is 0.5"),
    ("nothing selected", QUERY, [NOTHING], None),
    ("no number", QUERY, [_vector("NaN")], None),
    ("no number among others", QUERY, [_vector("NaN", 0.7)], "is 0.7"),
    ("without end", QUERY, [_vector("+Inf")], "is inf"),
    ("a scalar", QUERY, [_said({"data": {"resultType": "scalar", "result": [1, "3"]}})], "is 3"),
    ("a matrix", QUERY, [_said({"data": {"resultType": "matrix", "result": [{"values": []}]}})], "could not be read"),
    ("a text", QUERY, [_said({"data": {"resultType": "string", "result": [1, "x"]}})], "could not be read"),
    ("not JSON", QUERY, [RUBBISH], "could not be read 3 times in a row: JSONDecodeError"),
    ("JSON of another kind", QUERY, [_said([1, 2])], "could not be read"),
    ("JSON too deep", QUERY, [_said(b"[" * 50_000)], "could not be read"),
    ("an error of its own", QUERY, [_said({"status": "error"}, 422)], "could not be read"),
    ("no whole answer of it", QUERY, [None], "could not be read 3 times in a row: TimeoutError()"),
    ("above for long enough", HELD, [_vector(1)], "is 1"),
    ("above, and not for long enough", HELD, [_vector(1), _vector(1), _vector(0)] * 8, None),
    ("above, interrupted by nothing", HELD, [_vector(1), NOTHING] * 8, None),
]  # fmt: skip


@pytest.mark.parametrize(("what", "condition", "answers", "said"), WATCHED, ids=[what for what, *_ in WATCHED])
def test_tripwires(
    what: str, condition: dict[str, Any], answers: list[Said], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops, _, _ = _watched(condition, answers, monkeypatch)
    if said is None:
        assert stops == []
        return
    assert len(stops) == 1
    assert stops[0].reason == "tripwire"
    assert said in stops[0].message


def test_it_takes_as_long_as_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _watched(QUERY, [_vector(1)], monkeypatch)[2] == 0.0
    assert _watched(HELD, [_vector(1)], monkeypatch)[2] == 10.0
    assert _watched(QUERY, [RUBBISH], monkeypatch)[2] == LOOK_EVERY_S * (MISSED_MOST - 1)


def test_the_password_of_a_prometheus_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    stops, asked, _ = _watched(QUERY, [_said(b"", 401)], monkeypatch, who="ada:s3cret@")

    assert b"authorization: basic" in asked[0].lower()
    assert "Prometheus answers 401" in stops[0].message
    assert "s3cret" not in stops[0].message


def test_a_query_is_asked_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    _, asked, _ = _watched(QUERY, [_vector(1)], monkeypatch)
    assert asked[0].startswith(b"GET /prom/api/v1/query?query=sum%28rate%28errors%5B1m%5D%29%29 HTTP/1.1\r\n")


def test_a_query_needs_a_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUFF_PROMETHEUS_URL", raising=False)
    with pytest.raises(UsageError) as caught:
        check_tripwires(_experiment(QUERY))
    assert caught.value.next_step == "set LUFF_PROMETHEUS_URL"
    check_tripwires(_experiment({"kind": "control"}, HTTP))
    monkeypatch.setenv("LUFF_PROMETHEUS_URL", "http://prometheus:9090")
    check_tripwires(_experiment(QUERY))


def test_the_tripwire_on_control_is_watched_elsewhere() -> None:
    stops: list[RunAborted] = []
    assert tripwires(_experiment({"kind": "control"}), SystemClock(), stops.append) == []
