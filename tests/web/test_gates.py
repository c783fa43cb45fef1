"""A suite as a gate, and the webhooks of Flagger, over a simulated mesh."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from luff.gate import spec_sha256
from luff.outcome import MeshIdentity
from luff.parse import parse_documents
from luff.store import Keep, Role, Store
from tests.factories import LAB, passed
from tests.web.conftest import DOCUMENTS, IDENTITY, Server, begun, experiment, with_first_tries
from tests.web.test_api import is_problem
from tests.web.test_calendar import SUITE

Play = Callable[..., None]
TEXT = (
    DOCUMENTS
    + SUITE.format(name="shop", experiments="quick")
    + SUITE.format(name="wide", experiments="quick, nowhere")
    + SUITE.format(name="away", experiments="outside")
)


async def evaluate(server: Server, suite: str = "shop", *, key: str | None = None, **query: Any) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    return await server.client.post(f"/api/v1/gates/{suite}:evaluate", params=query, headers=headers)


async def decided(ask: Callable[[], Any]) -> Any:
    """Ask until it is not wait."""
    async with asyncio.timeout(60):
        while (answer := await ask()).json()["decision"] == "wait":  # noqa: ASYNC110  # it is at the other end of HTTP
            await asyncio.sleep(0.05)
    return answer


def flagger(checksum: str, **metadata: str) -> dict[str, Any]:
    """Return what Flagger sends."""
    said = {"suite": "shop", **metadata}
    return {"name": "cart", "namespace": "shop", "phase": "Progressing", "checksum": checksum, "metadata": said}


def proof(age: timedelta, run: str, *, mesh: MeshIdentity = IDENTITY, **how: Any) -> Any:
    """Return a pass of `quick` on *mesh* as it is defined, so long ago."""
    [quick] = [e for e in parse_documents([("shop.yaml", experiment("quick"))]).experiments if e.name == "quick"]
    at = (datetime.now(UTC) - age).isoformat().replace("+00:00", "Z")
    made = passed(run=run, experiment="quick", started_at=at, ended_at=at, **how)
    return made.model_copy(update={"mesh": mesh, "spec_sha256": spec_sha256(quick)})


@pytest.mark.timing
def test_it_waits_for_its_runs_and_then_says_go(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        first = await evaluate(server)
        joined = await evaluate(server, strict=1)
        last = await decided(lambda: evaluate(server, strict=1))

        assert first.status_code == 200
        assert first.json() == {**joined.json(), "decision": "wait", "waiting": ["quick"]}
        assert joined.status_code == 412
        assert last.status_code == 200
        assert (last.json()["decision"], last.json()["exit_code"]) == ("go", 0)
        told = [each["run"] for each in last.json()["runs"]]
        assert len(told) == 1
        assert {row.run for row in store.runs()} == with_first_tries(store, told)
        assert [row.action for row in store.access.audits(limit=9)] == ["run.start"]

    play(story, documents=TEXT)


def test_one_that_does_not_pass_stops_it_and_says_why(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        last = await decided(lambda: evaluate(server, "wide"))
        strict = await evaluate(server, "wide", strict=1)

        assert (last.status_code, last.json()["decision"], last.json()["exit_code"]) == (200, "stop", 5)
        assert any("nowhere is error" in said for said in last.json()["said"])
        assert strict.status_code == 412
        assert begun(store) == 2

    play(story, documents=TEXT)


def test_a_result_that_is_new_enough_counts_and_an_older_one_does_not(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        store.record(proof(timedelta(minutes=10), "a" * 16))
        counts = await evaluate(server, maxAge="15m")
        old = await evaluate(server, maxAge="5m")

        assert counts.json()["decision"] == "go"
        assert old.json()["decision"] == "wait"

    play(story, documents=TEXT)


@pytest.mark.parametrize(
    ("here", "there", "decision"),
    [
        (IDENTITY, MeshIdentity(kind="cluster", name="staging"), "stop"),
        (IDENTITY, LAB, "stop"),
        (LAB, IDENTITY, "stop"),
        (LAB, LAB.model_copy(update={"name": "luff-lab-2"}), "go"),
        (IDENTITY, IDENTITY, "go"),
    ],
)
def test_a_pass_counts_only_where_it_was_won(
    play: Play, store: Store, here: MeshIdentity, there: MeshIdentity, decision: str
) -> None:
    async def story(server: Server) -> None:
        store.record(proof(timedelta(minutes=1), "a" * 16, mesh=there))
        hook = await server.client.post("/api/v1/hooks/flagger", json=flagger("1", hook="rollout"))
        asked = await evaluate(server)

        assert hook.json()["decision"] == decision
        assert asked.json()["decision"] == ("go" if decision == "go" else "wait")

    play(story, documents=TEXT, identity=here)


def test_runs_of_a_key_are_its_own(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        store.record(proof(timedelta(seconds=1), "a" * 16))
        one = await decided(lambda: evaluate(server, key="deploy-1"))
        again = await evaluate(server, key="deploy-1")
        other = await decided(lambda: evaluate(server, key="deploy-2"))

        assert one.json() == again.json()
        runs = {each.json()["runs"][0]["run"] for each in (one, other)}
        assert len(runs) == 2
        assert "a" * 16 not in runs

    play(story, documents=TEXT)


def test_a_run_of_a_key_that_was_pruned_is_a_stop_that_says_so(play: Play, store: Store) -> None:
    async def win(server: Server) -> None:
        assert (await decided(lambda: evaluate(server, key="release-1"))).json()["decision"] == "go"

    async def ask(server: Server) -> None:
        answer = await evaluate(server, key="release-1")

        assert answer.json()["decision"] == "stop"
        assert "was pruned from history" in str(answer.json()["said"])

    play(win, documents=TEXT)
    tried = {row.run for row in store.runs()}
    store.record(proof(timedelta(days=-36_500), "1" * 16))
    assert set(store.prune(Keep(last=1)).runs) == tried
    play(ask, documents=TEXT)


def test_what_may_not_run_is_a_stop_with_the_reason(play: Play) -> None:
    async def story(server: Server) -> None:
        last = await decided(lambda: evaluate(server, "away"))

        assert last.json()["decision"] == "stop"
        assert any("sends to example.com" in said for said in last.json()["said"])

    play(story, documents=TEXT)


def test_a_refusal_is_said_once_and_then_it_is_tried_again(play: Play) -> None:
    async def story(server: Server) -> None:
        server.service.ready = False
        refused = await decided(lambda: evaluate(server, "wide"))
        server.service.ready = True
        again = await evaluate(server, "wide")

        assert refused.json()["decision"] == "stop"
        assert "quick: the server is starting, or leaving" in refused.json()["said"]
        assert (again.json()["decision"], again.json()["waiting"]) == ("wait", ["quick", "nowhere"])

    play(story, documents=TEXT)


@pytest.mark.parametrize(
    ("suite", "query", "code"), [("none", {}, "not_found"), ("shop", {"maxAge": "soon"}, "invalid")]
)
def test_a_question_that_means_nothing_starts_nothing(
    play: Play, store: Store, suite: str, query: dict[str, str], code: str
) -> None:
    async def story(server: Server) -> None:
        assert is_problem(await evaluate(server, suite, **query), code)
        assert store.access.audits(limit=1) == []

    play(story, documents=TEXT)


@pytest.mark.timing
def test_a_confirm_hook_of_flagger_is_no_until_it_is_go_once_for_each_revision(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        async def hook(checksum: str) -> httpx.Response:
            return await server.client.post("/api/v1/hooks/flagger", json=flagger(checksum))

        first = await hook("85d557f47b")
        last = await decided(lambda: hook("85d557f47b"))
        next_revision = await hook("aaaaaaaaaa")

        assert (first.status_code, first.json()["decision"]) == (412, "wait")
        assert (last.status_code, last.json()["decision"]) == (200, "go")
        assert (next_revision.status_code, next_revision.json()["decision"]) == (412, "wait")

    play(story, documents=TEXT)


def test_a_rollout_hook_of_flagger_starts_nothing(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        body = flagger("85d557f47b", hook="rollout", maxAge="5m")
        never = await server.client.post("/api/v1/hooks/flagger", json=body)
        store.record(proof(timedelta(minutes=6), "a" * 16))
        old = await server.client.post("/api/v1/hooks/flagger", json=body)
        store.record(proof(timedelta(minutes=1), "b" * 16))
        good = await server.client.post("/api/v1/hooks/flagger", json=body)

        assert (never.status_code, never.json()["decision"]) == (412, "stop")
        assert "never been run" in never.json()["said"][0]
        assert old.status_code == 412
        assert good.status_code == 200
        assert list(server.service.jobs) == []

    play(story, documents=TEXT)


def test_flagger_shows_its_token_as_the_password_of_its_url(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        _, secret = store.access.create_token("flagger", Role.OPERATOR)

        async def ask(user: str) -> httpx.Response:
            basic = base64.b64encode(user.encode()).decode()
            headers = {"authorization": f"Basic {basic}"}
            return await server.client.post("/api/v1/hooks/flagger", json=flagger("1", hook="rollout"), headers=headers)

        assert (await ask(f"luff:{secret}")).status_code == 412
        assert is_problem(await ask("luff:wrong"), "wrong_token")
        assert is_problem(await ask(secret), "wrong_token")

    play(story, documents=TEXT)
