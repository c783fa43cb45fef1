"""What people elsewhere are told by a server, over a real socket."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from luff.gameday_files import GameDays
from luff.notify import Channel, Channels, Shape
from luff.parse import parse_documents
from luff.policy import Hours
from luff.store import Store
from luff.testing import SetClock
from luff.web.telling import Teller
from tests.notify.conftest import Receiver, receiving
from tests.test_tidings import DOCUMENTS, DUE
from tests.web.conftest import Server, serving

SECRET = "a secret of enough length"


def channels(receiver: Receiver) -> Channels:
    return Channels({"ops": Channel("ops", Shape.JSON, receiver.url, SECRET)}, "https://luff.example")


async def run(server: Server, name: str) -> dict[str, Any]:
    answer = await server.client.post("/api/v1/runs", json={"experiment": name})
    assert answer.status_code == 202, answer.text
    return await server.until_ended(answer.headers["location"])


def test_a_verdict_is_told_when_it_is_another_and_not_when_it_is_the_same(store: Store, cluster: Any) -> None:

    async def whole() -> list[dict[str, Any]]:
        async with receiving() as receiver:
            async with serving(store, cluster, channels=channels(receiver)) as server:
                first = await run(server, "nowhere")
                await run(server, "nowhere")
                assert first["outcome"]["verdict"] == "error"
            # The server has left: what was to be told is told by now.
            return [json.loads(each.body) for each in receiver.got]

    told = asyncio.run(whole())

    (only,) = told
    assert only["event"] == "verdict"
    assert only["experiment"] == "nowhere"
    assert only["before"] is None
    assert only["url"] == f"https://luff.example/runs/{only['run']}"


def test_who_could_not_be_told_is_in_the_audit_and_the_verdict_stays(store: Store, cluster: Any) -> None:

    async def whole() -> dict[str, Any]:
        async with receiving([403]) as receiver, serving(store, cluster, channels=channels(receiver)) as server:
            return await run(server, "nowhere")

    ended = asyncio.run(whole())

    (row,) = [each for each in store.access.audits(limit=50) if each.action == "notify.failed"]
    assert (row.actor, row.object) == ("luff", "ops")
    assert "it answered 403" in (row.note or "")
    assert store.outcome(ended["outcome"]["run"]).verdict == ended["outcome"]["verdict"]


@dataclass(frozen=True)
class SlowHours(Hours):
    """These are hours that take until *answer* to be looked up, as a disk may; *asked* says that somebody began to."""

    asked: threading.Event = field(default_factory=threading.Event)
    answer: threading.Event = field(default_factory=threading.Event)

    def __contains__(self, at: datetime) -> bool:
        self.asked.set()
        return self.answer.wait(timeout=60)


def test_what_was_claimed_when_the_server_leaves_is_told_all_the_same(store: Store) -> None:
    hours = SlowHours(time(0), time(0), ZoneInfo("UTC"))
    read = parse_documents([("days.yaml", DOCUMENTS)])
    game_days = GameDays([], lambda: read, channels=["slack-shop"])
    game_days.load(DUE)
    game_days.hours = hours

    async def whole() -> list[dict[str, Any]]:
        async with receiving() as receiver:
            told = Channels({"slack-shop": Channel("slack-shop", Shape.JSON, receiver.url, SECRET)})
            teller = Teller(store, told, game_days, SetClock(DUE - timedelta(minutes=10)))
            looking = asyncio.create_task(teller.keep_looking())
            await asyncio.to_thread(hours.asked.wait, 60)
            looking.cancel()
            await asyncio.wait([looking])
            hours.answer.set()
            await teller.close()
            return [json.loads(each.body) for each in receiver.got]

    (only,) = asyncio.run(whole())

    assert only["text"].startswith("Game day monthly begins in 10 minutes")
