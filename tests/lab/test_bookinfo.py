"""The sample behaves as the real bookinfo does: what it forwards, what its versions show, when it gives up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.lab.bookinfo import __main__ as bookinfo
from luff.lab.bookinfo.server import Answer, Handler, Incoming
from luff.lab.state import LabState
from tests.lab.conftest import Home, until

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SENT = {
    "traceparent": TRACEPARENT,
    "tracestate": "a=1",
    "x-request-id": "r-1",
    "user-agent": "tester",
    "baggage": "luff-run=abc.1",
    "x-luff-run": "abc.1",
    "end-user": "mallory",
    "cookie": "lang=en; user=jason",
}
FORWARDED = {key: SENT[key] for key in ("traceparent", "tracestate", "x-request-id", "user-agent", "cookie")}
STARS = {"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}


class Peer:
    """This is a peer that remembers what it was asked, and answers as told or, with ``None``, never."""

    def __init__(self, content: Any, status: int = 200) -> None:
        self.answer: tuple[int, Any] | None = None if content is None else (status, content)
        self.asked: list[Mapping[str, str]] = []
        self.came_s: list[float] = []

    async def get(self, url: str, headers: Mapping[str, str], *, within_s: float) -> tuple[int, Any] | None:
        self.asked.append(dict(headers))
        self.came_s.append(within_s)
        return self.answer


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Peer]:
    """Let the sample's services ask a peer of the test's instead of one on the network."""

    def make(content: Any, status: int = 200) -> Peer:
        made = Peer(content, status)
        monkeypatch.setattr(bookinfo, "Client", lambda: made)
        return made

    return make


def _ask(handler: Handler, path: str, **headers: str) -> Answer:
    return asyncio.run(_awaited(handler(Incoming("GET", path, dict(headers) or dict(SENT)))))


async def _awaited(work: Awaitable[Answer]) -> Answer:
    return await work


URLS = {"DETAILS_URL": "http://details", "REVIEWS_URL": "http://reviews", "RATINGS_URL": "http://ratings"}


def test_the_page_forwards_tracing_but_no_baggage_and_no_header_of_ones_own(peer: Callable[..., Peer]) -> None:
    made = peer({"reviews": []})
    _ask(bookinfo.productpage(URLS), "/api/v1/products/0/reviews")
    # Who is logged in comes from the cookie alone, not from a header that somebody sends.
    assert made.asked == [{**FORWARDED, "end-user": "jason"}]
    made.asked.clear()
    _ask(bookinfo.productpage(URLS), "/api/v1/products/0/reviews", **{"end-user": "mallory"})
    assert made.asked == [{}]


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_reviews_forwards_who_is_logged_in(peer: Callable[..., Peer], version: str) -> None:
    made = peer(STARS)
    _ask(bookinfo.reviews({**URLS, "SERVICE_VERSION": version}), "/reviews/0")
    assert made.asked == [{**FORWARDED, "end-user": "mallory"}]


@pytest.mark.parametrize(
    ("version", "color", "within_s"), [("v1", None, []), ("v2", "black", [10.0]), ("v3", "red", [2.5])]
)
def test_versions_of_reviews(peer: Callable[..., Peer], version: str, color: str | None, within_s: list[float]) -> None:
    made = peer(STARS)
    answer = _ask(bookinfo.reviews({**URLS, "SERVICE_VERSION": version}), "/reviews/0")
    assert answer.status == 200
    assert answer.content["podname"] == f"reviews-{version}"
    ratings = [review.get("rating") for review in answer.content["reviews"]]
    assert ratings == [None, None] if color is None else [{"stars": n, "color": color} for n in (5, 4)]
    assert made.came_s == within_s


@pytest.mark.parametrize(("content", "status"), [(None, 200), ({"error": "x"}, 503)], ids=["silent", "503"])
def test_without_ratings_there_are_no_stars(peer: Callable[..., Peer], content: Any, status: int) -> None:
    peer(content, status)
    answer = _ask(bookinfo.reviews({**URLS, "SERVICE_VERSION": "v3"}), "/reviews/0")
    assert answer.status == 200
    assert all(
        review["rating"] == {"error": "Ratings service is currently unavailable"}
        for review in answer.content["reviews"]
    )


def test_the_page_asks_reviews_twice_for_three_seconds_each(peer: Callable[..., Peer]) -> None:
    made = peer(None)
    answer = _ask(bookinfo.productpage(URLS), "/api/v1/products/0/reviews")
    assert made.came_s == [3.0, 3.0]
    assert answer.status == 500
    assert "reviews are currently unavailable" in answer.content["error"]


@asynccontextmanager
async def _silent() -> AsyncIterator[int]:
    """Listen, take requests and never answer; yields the port."""
    writers = []

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()


def test_it_really_gives_up_on_a_peer_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookinfo, "REVIEWS_WITHIN_S", 0.2)

    async def ask() -> tuple[Answer, float]:
        async with _silent() as port:
            handler = bookinfo.productpage({**URLS, "REVIEWS_URL": f"http://127.0.0.1:{port}"})
            start_s = time.monotonic()
            answer = await handler(Incoming("GET", "/api/v1/products/0/reviews", {}))
            return answer, time.monotonic() - start_s

    answer, took_s = asyncio.run(ask())
    assert answer.status == 500
    assert 0.4 <= took_s < 5


def test_the_shipped_lab(home: Home) -> None:
    up = home.luff("lab", "up", "--detach", "--dir", home.folder / "lab")
    assert up.code == 0, up
    state = home.note(home.folder / "lab")
    with httpx.Client(base_url=f"http://{state.ingress}", trust_env=False, timeout=20) as client:
        # Everybody else gets reviews v3, jason v2; by way of the gateway, whatever the host.
        page = client.get("/productpage")
        assert page.status_code == 200
        assert "William Shakespeare" in page.text
        assert "color:red" in page.text
        assert "color:black" not in page.text
        assert "color:black" in client.get("/productpage", headers={"cookie": "user=jason"}).text
        assert client.get("/nowhere").status_code == 404

        client.get("/productpage", headers={"traceparent": TRACEPARENT, "baggage": "a=1", "x-luff-run": "abc.1"})
        came, went = _logged(state, "productpage-v1", "inbound"), _logged(state, "productpage-v1", "outbound")
        assert {line["baggage"] for line in came} == {"a=1"}
        assert {line["baggage"] for line in went} == {None}
        at_ratings = _logged(state, "ratings-v1", "inbound")
        assert {line["scope"]["x-luff-run"] for line in at_ratings} == {None}

        # With reviews down the page says so, at once.
        [reviews] = [each for each in state.workloads if each.name == "reviews-v3"]
        assert reviews.pid is not None
        os.kill(reviews.pid, signal.SIGKILL)
        page = until(lambda: "reviews are" in (page := client.get("/productpage")).text and page)
        sorry = page.text
        assert "Error fetching product reviews" in sorry
        assert "William Shakespeare" in sorry
        assert "color:black" in client.get("/productpage", headers={"cookie": "user=jason"}).text
    assert home.luff("lab", "down").code == 0


def _logged(state: LabState, workload: str, direction: str) -> list[dict[str, Any]]:
    """Return the lines of a workload's access log for the trace in one *direction*, once there are some."""
    [one] = [each for each in state.workloads if each.name == workload]

    def found() -> list[dict[str, Any]]:
        lines = Path(one.access_log).read_text().splitlines()
        return [
            line
            for line in map(json.loads, lines)
            if (line["traceparent"], line["direction"]) == (TRACEPARENT, direction)
        ]

    lines: list[dict[str, Any]] = until(found, what="a line in the access log")
    return lines
