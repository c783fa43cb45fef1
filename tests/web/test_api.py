"""The API as a program sees it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from luff.errors import InvalidFile, Problem
from luff.gameday_files import GameDays
from luff.mesh import Kind
from luff.model import PolicySpec
from luff.parse import parse_documents
from luff.reaper import Reaper
from luff.store import Keep, Role, Store
from luff.testing import Cluster, SimClock, SimMesh, Trouble
from luff.web import Definitions
from luff.web.problems import CODES, MEDIA_TYPE
from tests.factories import failed, outcome, passed
from tests.web.conftest import Server, experiment, with_first_tries

Play = Callable[..., None]


def is_problem(response: Any, code: str) -> bool:
    """Return whether *response* is the problem *code*, whole."""
    said = response.json()
    whole = response.headers["content-type"] == MEDIA_TYPE and said["status"] == response.status_code == CODES[code][0]
    return bool(whole and said["code"] == code and said["detail"])


def routes(cluster: Cluster, name: str = "stock") -> list[str]:
    """Return the names of the routes of a VirtualService now."""
    found = next(each for ref, each in cluster.objects.items() if ref.name == name)
    return [route["name"] for route in found["spec"]["http"]]


async def until_live(server: Server, location: str) -> dict[str, Any]:
    """Return the first fault that is seen."""
    async with asyncio.timeout(20):
        while True:
            faults = (await server.client.get("/api/v1/faults")).json()["items"]
            if faults:
                first: dict[str, Any] = faults[0]
                return first
            await asyncio.sleep(0.05)


def test_a_secret_that_cannot_be_sent_is_named_and_is_no_mistake_of_luff(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUFF_SECRET_TOKEN", "Bearer abc\n")
    url = "http://front.shop/cart"
    with_secret = f"{{url: {url}, headers: {{authorization: {{fromEnv: LUFF_SECRET_TOKEN}}}}}}"
    text = experiment("quick").replace(f"[GET {url}]", f"[{with_secret}]")

    async def story(server: Server) -> None:
        response = await server.client.post("/api/v1/runs", json={"experiment": "quick"})
        ended = await server.until_ended(response.headers["location"])

        assert "LUFF_SECRET_TOKEN" in ended["explanation"]
        assert "mistake" not in ended["explanation"]
        assert "abc" not in ended["explanation"]
        assert routes(server.cluster) == ["main"]

    play(story, documents=text)


def test_a_run_is_started_watched_and_reported(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        response = await server.client.post("/api/v1/runs", json={"experiment": "quick"})
        assert response.status_code == 202
        location = response.headers["location"]
        assert response.json()["id"] == location.rpartition("/")[2]

        events = (await server.client.get(f"{location}/events")).text
        ended = await server.until_ended(location)

        assert ended["verdict"] in ("passed", "inconclusive"), ended["explanation"]
        assert ended["outcome"]["actor"] == "me@here"
        names = [line.removeprefix("event: ") for line in events.splitlines() if line.startswith("event: ")]
        assert names[0] == "queued"
        assert {"step", "sample", "run", "outcome"} <= set(names)
        assert routes(server.cluster) == ["main"]
        for format_, kind in (
            ("html", "text/html"),
            ("json", "application/json"),
            ("xml", "application/xml"),
            ("md", "text/markdown"),
        ):
            report = await server.client.get(f"{location}/report.{format_}")
            assert report.status_code == 200
            assert report.headers["content-type"].startswith(kind)
            assert "quick" in report.text
        by_run = (await server.client.get(f"/api/v1/runs/{ended['run']}")).json()
        assert by_run["outcome"] == ended["outcome"]
        listed = (await server.client.get("/api/v1/runs")).json()["items"]
        tried = with_first_tries(store, [ended["run"]])
        assert {each["run"] for each in listed} == tried
        trend = (await server.client.get("/api/v1/trends", params={"experiment": "quick"})).json()
        assert {each["run"] for each in trend["items"]} == tried
        badge = await server.client.get("/api/v1/badges/quick.svg")
        assert ended["verdict"] in badge.text
        metrics = (await server.client.get("/metrics")).text
        assert f'luff_runs_total{{experiment="quick",verdict="{ended["verdict"]}"}} 1.0' in metrics
        assert ended["run"] not in metrics
        assert location.rpartition("/")[2] not in metrics

    play(story)


def test_events_are_resumed_after_the_last_that_was_seen(play: Play) -> None:
    async def story(server: Server) -> None:
        location = (await server.client.post("/api/v1/runs", json={"experiment": "quick"})).headers["location"]
        whole = (await server.client.get(f"{location}/events")).text
        ids = [int(line.removeprefix("id: ")) for line in whole.splitlines() if line.startswith("id: ")]

        rest = (await server.client.get(f"{location}/events", headers={"last-event-id": str(ids[3])})).text

        seen = [int(line.removeprefix("id: ")) for line in rest.splitlines() if line.startswith("id: ")]
        assert ids == list(range(1, len(ids) + 1))
        assert seen == ids[4:]
        wrong = await server.client.get(f"{location}/events", headers={"last-event-id": "x"})
        assert is_problem(wrong, "invalid")

    play(story)


def test_the_same_key_starts_one_run(play: Play) -> None:
    async def story(server: Server) -> None:
        headers = {"idempotency-key": "deploy-7"}
        answers = await asyncio.gather(
            *(server.client.post("/api/v1/runs", json={"experiment": "long"}, headers=headers) for _ in range(4))
        )
        other = await server.client.post("/api/v1/runs", json={"experiment": "quick"}, headers=headers)

        assert {each.status_code for each in answers} == {202}
        assert len({each.headers["location"] for each in answers}) == 1
        assert is_problem(other, "key_reused")
        assert len(list(server.service.jobs)) == 1

    play(story)


def test_a_refused_request_leaves_its_key_free(play: Play) -> None:
    async def story(server: Server) -> None:
        headers = {"idempotency-key": "k"}
        first = await server.client.post("/api/v1/runs", json={"experiment": "outside"}, headers=headers)
        second = await server.client.post("/api/v1/runs", json={"experiment": "quick"}, headers=headers)

        assert is_problem(first, "host_not_allowed")
        assert second.status_code == 202

    play(story)


def test_two_runs_on_one_object_wait_for_one_another_and_stop_reaches_both(play: Play) -> None:
    async def story(server: Server) -> None:
        first = (await server.client.post("/api/v1/runs", json={"experiment": "long"})).headers["location"]
        second = (await server.client.post("/api/v1/runs", json={"experiment": "quick"})).headers["location"]
        beside = (await server.client.post("/api/v1/runs", json={"experiment": "other-long"})).headers["location"]
        fault = await until_live(server, first)
        states = [(await server.client.get(each)).json()["state"] for each in (first, second, beside)]

        stops = [await server.client.post(f"{each}:stop") for each in (second, first, beside)]
        ended = [await server.until_ended(each) for each in (first, second, beside)]
        again = await server.client.post(f"{first}:stop")
        told = (await server.client.get(f"{second}/events")).text

        assert states == ["running", "waiting", "running"]
        assert fault["holder"].startswith("me@here/")
        assert [each.status_code for each in stops] == [202, 202, 202]
        assert (ended[0]["verdict"], ended[0]["reason"]) == ("aborted", "operator")
        assert ended[1]["verdict"] is None
        assert "not started" in ended[1]["explanation"]
        last = json.loads(told.split("event: outcome\n")[1].split("data: ")[1].splitlines()[0])
        assert last["phase"] is None, "nobody has looked at its routes"
        assert is_problem(again, "conflict")
        assert routes(server.cluster) == routes(server.cluster, "prices") == ["main"]

    play(story)


def test_no_more_wait_than_may(play: Play) -> None:
    async def story(server: Server) -> None:
        statuses = [await server.client.post("/api/v1/runs", json={"experiment": "long"}) for _ in range(60)]

        refused = [each for each in statuses if each.status_code != 202]
        assert refused
        assert all(is_problem(each, "queue_full") and each.headers["retry-after"] for each in refused)

    play(story)


def test_a_run_that_cannot_be_planned_ends_with_an_error(play: Play) -> None:
    async def story(server: Server) -> None:
        plan = await server.client.post("/api/v1/plans", json={"experiment": "nowhere"})
        location = (await server.client.post("/api/v1/runs", json={"experiment": "nowhere"})).headers["location"]
        ended = await server.until_ended(location)

        assert is_problem(plan, "plan_refused")
        assert ended["verdict"] == "error"
        assert ended["reason"].startswith("plan_refused:")

    play(story)


def test_a_plan_shows_what_would_change_but_not_the_scope(play: Play) -> None:
    async def story(server: Server) -> None:
        plan = await server.client.post("/api/v1/plans", json={"experiment": "quick"})

        said = plan.json()
        assert (said["virtual_service"], said["dependency"]) == ("stock", "stock")
        assert all(set(each) == {"op", "path"} for each in said["operations"])
        assert routes(server.cluster) == ["main"]

    play(story)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (PolicySpec(hosts=("*.elsewhere",)), "host_not_allowed"),
        (PolicySpec(namespaces=("bank",)), "policy"),
        (PolicySpec(hosts=("*.shop",), namespaces=("sh*",)), None),
        (PolicySpec(hosts=("front.shop.svc.cluster.local",)), None),
    ],
)
def test_the_policy_says_where_traffic_goes(play: Play, policy: PolicySpec, code: str | None) -> None:
    async def story(server: Server) -> None:
        for path, done in (("/api/v1/plans", 200), ("/api/v1/runs", 202)):
            answer = await server.client.post(path, json={"experiment": "quick"})

            assert answer.status_code == done if code is None else is_problem(answer, code), path

    play(story, policy=policy)


def test_the_policy_bounds_the_plan(play: Play) -> None:
    async def story(server: Server) -> None:
        plan = await server.client.post("/api/v1/plans", json={"experiment": "quick"})

        assert is_problem(plan, "plan_refused")

    play(story, policy=PolicySpec(max_rate_hz=1.0))


@pytest.mark.parametrize(
    "body",
    [
        {"experiment": "quick", "spec": {}},
        {"experiment": "../etc/passwd"},
        {"experiment": {"fromEnv": "LUFF_SECRET_X"}},
        {"apiVersion": "luff.dev/v1alpha1", "kind": "LabWorkload"},
        {"experiment": "quick", "lab": True},
        {"experiment": "quick", "file": "/etc/passwd"},
        {},
        [],
        None,
        "quick",
    ],
)
def test_a_request_brings_nothing_but_a_name(play: Play, body: Any) -> None:
    async def story(server: Server) -> None:
        for path in ("/api/v1/runs", "/api/v1/plans"):
            assert is_problem(await server.client.post(path, json=body), "invalid")

    play(story)


def test_every_error_is_a_problem(play: Play) -> None:
    async def story(server: Server) -> None:
        client = server.client
        assert is_problem(await client.get("/api/v1/nothing"), "not_found")
        assert is_problem(await client.get("/nothing"), "not_found")
        assert is_problem(await client.get("/api/v1/runs/0123"), "not_found")
        assert is_problem(await client.get("/api/v1/experiments/nope"), "not_found")
        assert is_problem(await client.post("/api/v1/runs", json={"experiment": "nope"}), "not_found")
        assert is_problem(await client.delete("/api/v1/runs"), "method_not_allowed")
        assert is_problem(await client.get("/api/v1/runs", params={"limit": "x"}), "invalid")
        assert is_problem(await client.get("/api/v1/runs", params={"cursor": "zzz"}), "not_found")
        assert is_problem(await client.get("/api/v1/runs", params={"since": "2026-01-01T00:00:00"}), "invalid")
        assert is_problem(await client.post("/api/v1/runs", content=b"{"), "invalid")
        large = await client.post("/api/v1/runs", content=b" " * ((1 << 20) + 1))
        assert is_problem(large, "body_too_large")

    play(story)


def test_a_body_without_a_length_is_cut_off_too(play: Play) -> None:
    async def story(server: Server) -> None:
        sent = 0

        async def endless() -> Any:
            nonlocal sent
            for _ in range(50):
                sent += 1 << 20
                yield b"x" * (1 << 20)

        for path in ("/api/v1/outcomes", "/api/v1/runs"):
            sent = 0
            headers = {"content-type": "application/json"}
            assert is_problem(await server.client.post(path, content=endless(), headers=headers), "body_too_large")
            assert sent <= 3 << 20

    play(story)


def test_results_of_another_machine_are_kept_once(play: Play) -> None:
    async def story(server: Server) -> None:
        one = passed().model_dump(mode="json", by_alias=True)
        many = {
            "schema": "luff.dev/report/v1",
            "decision": "stop",
            "exit_code": 1,
            "outcomes": [one, failed().model_dump(mode="json", by_alias=True)],
        }

        first = await server.client.post("/api/v1/outcomes", json=one)
        again = await server.client.post("/api/v1/outcomes", json=one)
        report = await server.client.post("/api/v1/outcomes", json=many)
        changed = await server.client.post("/api/v1/outcomes", json={**one, "explanation": "other"})

        assert [each.status_code for each in (first, again, report)] == [201, 200, 201]
        assert is_problem(changed, "conflict")
        kept = (await server.client.get(first.headers["location"])).json()
        assert kept["outcome"] == json.loads(json.dumps(one))
        assert "reviews-survives" not in (await server.client.get("/metrics")).text

    play(story)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"\xff", b"null", b'{"schema": "luff.dev/outcome/v9"}', b'{"schema": "luff.dev/outcome/v1"}'],
)
def test_foreign_and_newer_results_are_refused(play: Play, body: bytes) -> None:
    async def story(server: Server) -> None:
        answer = await server.client.post(
            "/api/v1/outcomes", content=body, headers={"content-type": "application/json"}
        )
        typed = await server.client.post("/api/v1/outcomes", content=body, headers={"content-type": "text/plain"})

        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == MEDIA_TYPE
        assert is_problem(typed, "wrong_content_type")

    play(story)


@pytest.mark.parametrize("run", ["☃/../x\r\nX: y", "", "9f2c", "9F2C" * 4, "0" * 17, "0" * 16 + "\n"])
def test_a_result_whose_run_has_no_id_of_ours_is_refused(play: Play, run: str) -> None:
    async def story(server: Server) -> None:
        body = {**passed().model_dump(mode="json", by_alias=True), "run": run}

        answer = await server.client.post("/api/v1/outcomes", json=body)

        assert is_problem(answer, "invalid")
        assert "run:" in answer.json()["detail"]
        assert answer.status_code == 422

    play(story)


def test_an_outcome_with_a_time_that_is_none_is_refused(play: Play) -> None:
    async def story(server: Server) -> None:
        answer = await server.client.post(
            "/api/v1/outcomes", json=outcome(started_at="soon").model_dump(mode="json", by_alias=True)
        )

        assert is_problem(answer, "invalid")

    play(story)


def test_a_report_with_one_bad_outcome_leaves_nothing(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        outcomes = [each.model_dump(mode="json", by_alias=True) for each in (passed(), failed(seed=2**70))]
        body = {"schema": "luff.dev/report/v1", "decision": "stop", "exit_code": 1, "outcomes": outcomes}

        answer = await server.client.post("/api/v1/outcomes", json=body)

        assert is_problem(answer, "invalid")
        assert store.runs() == []

    play(story)


def test_a_run_that_is_underway_takes_its_outcome_from_nobody_else(play: Play, store: Store) -> None:
    async def story(server: Server) -> None:
        location = (await server.client.post("/api/v1/runs", json={"experiment": "long"})).headers["location"]
        fault = await until_live(server, location)

        body = outcome(run=fault["run"]).model_dump(mode="json", by_alias=True)
        answer = await server.client.post("/api/v1/outcomes", json=body)

        assert is_problem(answer, "conflict")
        assert [each.intent.run for each in store.open_intents()] == [fault["run"]]

    play(story)


def test_the_lever_stops_runs_and_refuses_new_ones(play: Play) -> None:
    async def story(server: Server) -> None:
        location = (await server.client.post("/api/v1/runs", json={"experiment": "long"})).headers["location"]
        await until_live(server, location)

        without = await server.client.post("/api/v1/lever", json={"on": True})
        pulled = await server.client.post("/api/v1/lever", json={"on": True, "why": "an incident"})
        ended = await server.until_ended(location)
        refused = await server.client.post("/api/v1/runs", json={"experiment": "quick"})
        refused_run = await server.until_ended(refused.headers["location"])
        off = await server.client.post("/api/v1/lever", json={"on": False})

        assert is_problem(without, "invalid")
        assert [each["why"] for each in pulled.json()["levers"]] == ["an incident"]
        assert (ended["verdict"], ended["reason"]) == ("aborted", "lever")
        assert (refused_run["verdict"], refused_run["reason"]) == ("aborted", "lever")
        assert [(each["cluster"], each["store"]) for each in pulled.json()["levers"]] == [(True, True)]
        assert off.json() == {"levers": [], "error": None}

    play(story)


def test_a_lever_that_the_cluster_refuses_stops_by_way_of_the_store(play: Play) -> None:
    async def story(server: Server) -> None:
        location = (await server.client.post("/api/v1/runs", json={"experiment": "long"})).headers["location"]
        await until_live(server, location)
        mesh = server.service.world.mesh
        assert isinstance(mesh, SimMesh)
        mesh.trouble = lambda verb, ref: (
            Trouble.DENIED if verb == "create" and ref.kind in (Kind.CONFIG_MAP, Kind.NAMESPACE) else Trouble.NONE
        )

        pulled = await server.client.post("/api/v1/lever", json={"on": True, "why": "an incident"})
        ended = await server.until_ended(location)
        shown = await server.client.get("/api/v1/lever")
        off = await server.client.post("/api/v1/lever", json={"on": False})

        assert is_problem(pulled, "mesh")
        assert (ended["verdict"], ended["reason"]) == ("aborted", "lever")
        assert [(each["cluster"], each["store"]) for each in shown.json()["levers"]] == [(False, True)]
        assert off.json()["levers"] == []

    play(story)


def test_a_server_whose_guard_dies_with_it_starts_no_run_without_a_reaper(play: Play) -> None:
    async def story(server: Server) -> None:
        alone = await server.client.post("/api/v1/runs", json={"experiment": "quick"})
        refused = await server.until_ended(alone.headers["location"])
        await Reaper(SimMesh(server.cluster), SimClock()).sweep()
        guarded = await server.client.post("/api/v1/runs", json={"experiment": "quick"})
        ended = await server.until_ended(guarded.headers["location"])

        assert (refused["verdict"], refused["reason"]) == ("error", "plan_refused:no_guard")
        assert ended["reason"] != "plan_refused:no_guard"

    play(story, needs_reaper=True)


def test_every_change_is_in_the_audit(play: Play) -> None:
    async def story(server: Server) -> None:
        location = (await server.client.post("/api/v1/runs", json={"experiment": "long"})).headers["location"]
        await server.client.post(f"{location}:stop")
        await server.client.post("/api/v1/lever", json={"on": True, "why": "x"})
        await server.client.post("/api/v1/lever", json={"on": False})
        await server.client.post("/api/v1/outcomes", json=passed().model_dump(mode="json", by_alias=True))

        rows = (await server.client.get("/api/v1/audit")).json()["items"]

        assert [row["action"] for row in reversed(rows)] == [
            "run.start",
            "run.stop",
            "lever.on",
            "lever.off",
            "outcome.push",
        ]
        assert {row["actor"] for row in rows} == {"me@here"}

    play(story)


def test_a_request_that_the_server_died_before_is_said_to_be_lost(play: Play, store: Any) -> None:
    request, _ = store.access.request_run("quick", actor="ada", idempotency_key=None)

    async def story(server: Server) -> None:
        found = (await server.client.get(f"/api/v1/runs/{request.id}")).json()

        assert found["state"] == "lost"
        assert "the server ended" in found["explanation"]

    play(story)


def test_a_request_whose_run_was_pruned_is_not_said_to_be_lost(play: Play, store: Store) -> None:
    old, new = (passed(run=each * 16, started_at=f"2026-11-2{each}T10:00:00Z") for each in "12")
    request, _ = store.access.request_run(old.experiment, actor="ada", idempotency_key=None)
    for each in (old, new):
        store.record(each)
    store.access.became(request.id, old.run)
    assert store.prune(Keep(last=1)).runs == (old.run,)

    async def story(server: Server) -> None:
        found = (await server.client.get(f"/api/v1/runs/{request.id}")).json()

        assert (found["state"], found["run"]) == ("ended", old.run)
        assert "was pruned" in found["explanation"]

    play(story)


def test_definitions_that_break_later_are_said_and_the_old_ones_stay(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(experiment("quick"))
    found = Definitions(GameDays([tmp_path], lambda: parse_documents([("x.yaml", file.read_text())])))
    found.game_days.load(datetime.now(UTC))
    file.write_text("kind: [")
    found._looked_s = -1e9  # as if time had passed

    assert list(found.all()) == ["quick"]
    assert isinstance(found.problem, InvalidFile)
    assert isinstance(found.problem.problems[0], Problem)


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_do_what_it_says(play: Play, role: Role) -> None:
    async def story(server: Server) -> None:
        headers = server.token(role)
        seen = await server.client.get("/api/v1/runs", headers=headers)
        started = await server.client.post("/api/v1/runs", json={"experiment": "quick"}, headers=headers)
        pulled = await server.client.post("/api/v1/lever", json={"on": False}, headers=headers)
        audit = await server.client.get("/api/v1/audit", headers=headers)

        assert seen.status_code == 200
        if role is Role.VIEWER:
            assert is_problem(started, "role_too_weak")
            assert is_problem(pulled, "role_too_weak")
        else:
            assert (started.status_code, pulled.status_code) == (202, 200)
        assert audit.status_code == 200 if role is Role.ADMIN else is_problem(audit, "role_too_weak")

    play(story)


def test_without_a_good_token_nothing_is_told(play: Play) -> None:
    async def story(server: Server) -> None:
        good = server.token(Role.VIEWER)
        token = server.store.access.tokens()[0]
        paths = ["/api/v1/runs", "/api/v1/experiments", "/api/v1/faults", "/metrics", "/api/v1/badges/quick.svg"]

        for path in paths:
            assert (await server.client.get(path, headers=good)).status_code == 200
            without = await server.client.get(path)
            assert is_problem(without, "not_signed_in")
            assert without.headers["www-authenticate"].startswith("Bearer")
            for wrong in ("Bearer x", "Basic x", "Bearer", "", "Bearer " + "x" * 10_000):
                expected = "wrong_token" if wrong else "not_signed_in"
                assert is_problem(await server.client.get(path, headers={"authorization": wrong}), expected)
        server.store.access.revoke(token.id)
        server.token(Role.VIEWER)
        assert is_problem(await server.client.get("/api/v1/runs", headers=good), "wrong_token")
        assert (await server.client.get("/healthz")).status_code == 200
        assert (await server.client.get("/readyz")).status_code == 200

    play(story)


def test_when_it_does_not_listen_on_loopback_revoking_the_last_token_opens_nothing(play: Play) -> None:
    async def story(server: Server) -> None:
        assert is_problem(await server.client.get("/api/v1/runs"), "not_signed_in")

    play(story, open_=False)


def test_a_server_on_loopback_stays_closed_when_its_last_token_is_revoked(play: Play, store: Store) -> None:
    async def revoke(server: Server) -> None:
        server.token(Role.ADMIN)
        [token] = store.access.tokens()
        store.access.revoke(token.id)
        assert is_problem(await server.client.get("/api/v1/audit"), "not_signed_in")
        assert is_problem(await server.client.post("/api/v1/runs", json={"experiment": "quick"}), "not_signed_in")

    async def look(server: Server) -> None:
        assert is_problem(await server.client.get("/api/v1/audit"), "not_signed_in")

    play(revoke)
    play(look)


def test_a_store_that_is_away_is_a_problem_also_before_the_name_is_known(
    play: Play, store: Store, tmp_path: Path
) -> None:
    async def story(server: Server) -> None:
        with closing(sqlite3.connect(tmp_path / "luff.db")) as connection:
            connection.execute("ALTER TABLE token RENAME TO gone")
            answer = await server.client.get("/healthz", headers={"host": "luff.example"})
            connection.execute("ALTER TABLE gone RENAME TO token")

        assert is_problem(answer, "store")

    play(story)


def test_a_server_without_tokens_goes_by_loopback_names_only(play: Play) -> None:
    async def story(server: Server) -> None:
        for host in ("evil.example", "", "127.0.0.1.evil.example", "["):
            answer = await server.client.get("/api/v1/runs", headers={"host": host})
            assert is_problem(answer, "misdirected")
        for host in ("127.0.0.1:8080", "[::1]:8080", "localhost"):
            assert (await server.client.get("/api/v1/runs", headers={"host": host})).status_code == 200
        server.token()
        assert is_problem(await server.client.get("/api/v1/runs", headers={"host": "luff.example"}), "not_signed_in")

    play(story)


def test_closing_starts_nothing_and_restores(play: Play) -> None:
    async def story(server: Server) -> None:
        from luff.errors import RunAborted

        location = (await server.client.post("/api/v1/runs", json={"experiment": "long"})).headers["location"]
        await until_live(server, location)

        server.service.begin_closing(RunAborted("operator", "stopped by SIGTERM to the server"))
        refused = await server.client.post("/api/v1/runs", json={"experiment": "quick"})
        unready = await server.client.get("/readyz")
        ended = await server.until_ended(location)

        assert is_problem(refused, "closing")
        assert is_problem(unready, "closing")
        assert ended["verdict"] == "aborted"
        assert routes(server.cluster) == ["main"]

    play(story)
