"""What people elsewhere are told by a server, over a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from luff.notify import Channel, Channels, Shape
from luff.store import Store
from tests.notify.conftest import Receiver, receiving
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
