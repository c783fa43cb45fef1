"""What people do with game days on a server: start, pause, resume, note, find, finish."""

from __future__ import annotations

from typing import Any

from luff.store import Role, Store
from luff.testing import Cluster
from tests.web.conftest import Server
from tests.web.test_api import is_problem
from tests.web.test_calendar import APPROVED, START, TEN, Stage, documents, held, listed, ring
from tests.web.test_pages import csrf_in, signed_in


def actions(store: Store) -> list[tuple[str, str, str | None]]:
    return [(row.action, row.object, row.role) for row in store.access.audits(limit=20) if row.action != "run.start"]


async def post(server: Server, path: str, role: Role | None = None, **body: Any) -> Any:
    headers = {} if role is None else server.token(role)
    return await server.client.post(f"/api/v1/{path}", json=body, headers=headers)


def test_a_paused_game_day_is_not_held_until_it_is_resumed(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        paused = await post(server, "gamedays/daily:pause", why="black friday")
        again = await post(server, "gamedays/daily:pause", why="other")
        schedule = (await server.client.get("/api/v1/schedules")).json()["items"][0]
        await ring(server, TEN)
        await held(server)
        [skipped] = (await listed(server))["items"]
        resumed = await server.client.post("/api/v1/gamedays/daily:resume")
        after = (await server.client.get("/api/v1/schedules")).json()["items"][0]

        assert (paused.status_code, paused.json()["why"]) == (200, "black friday")
        assert is_problem(again, "conflict")
        assert schedule["paused"]["why"] == "black friday"
        assert schedule["next"]["reason"] == "paused"
        assert (skipped["state"], skipped["reason"], skipped["runs"]) == ("skipped", "paused", [])
        assert skipped["said"].endswith("paused it at 2027-01-05 09:00 UTC: black friday")
        assert (resumed.status_code, resumed.json()["why"]) == (200, "black friday")
        assert (after["paused"], after["next"]["reason"]) == (None, None)
        assert is_problem(await server.client.post("/api/v1/gamedays/daily:resume"), "conflict")
        assert is_problem(await post(server, "gamedays/other:pause", why="x"), "not_found")

    hold(documents(), story)

    assert [row[:2] for row in actions(store)] == [("gameday.resume", "daily"), ("gameday.pause", "daily")]


def test_one_that_is_started_by_hand_is_held_at_once(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        operator = server.token(Role.OPERATOR)
        refused = await post(server, "gamedays/daily:start", Role.ADMIN)
        begun = await server.client.post("/api/v1/gamedays/daily:start", json={}, headers=operator)
        await ring(server, START)
        await held(server)
        over = (await server.client.get(f"/api/v1/occurrences/{begun.json()['id']}", headers=operator)).json()

        assert is_problem(refused, "not_an_approver")
        assert (begun.status_code, begun.json()["started_by"]) == (202, "operator")
        assert (over["state"], over["started_by"], len(over["runs"])) == ("passed", "operator", 1)

    hold(documents(more=APPROVED), story)

    assert actions(store) == [("gameday.start", "daily", "operator")]


def test_nobody_begins_alone_what_asks_for_two(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        assert is_problem(await post(server, "gamedays/daily:start", Role.OPERATOR), "conflict")

    hold(documents(more=APPROVED.replace("approvals: 1", "approvals: 2")), story)

    assert actions(store) == []


def test_notes_and_findings_are_kept_until_it_is_finished(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]
        path = f"occurrences/{row['id']}"
        note = await post(server, f"{path}:note", said="the cache is cold")
        finding = await post(server, f"{path}:finding", said="no timeout")
        finished = await server.client.post(f"/api/v1/{path}:finish")
        late = await post(server, f"{path}:note", said="late")
        [shown] = (await listed(server))["items"]

        assert (note.status_code, finding.status_code, finished.status_code) == (201, 201, 200)
        assert [(each["kind"], each["said"]) for each in shown["remarks"]] == [
            ("note", "the cache is cold"),
            ("finding", "no timeout"),
        ]
        assert shown["finished_by"] == shown["remarks"][0]["who"]
        assert shown["finished_at"] == TEN.isoformat().replace("+00:00", "Z")
        assert shown == finished.json()
        assert is_problem(late, "conflict")
        assert is_problem(await post(server, f"occurrences/{'f' * 16}:note", said="x"), "not_found")

    hold(documents(), story)

    assert [row[0] for row in actions(store)] == ["occurrence.finish", "occurrence.finding", "occurrence.note"]


def test_a_viewer_changes_nothing(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        viewer = server.token(Role.VIEWER)
        for path, body in (
            ("gamedays/daily:start", {}),
            ("gamedays/daily:pause", {"why": "x"}),
            ("gamedays/daily:resume", {}),
            (f"occurrences/{'f' * 16}:note", {"said": "x"}),
            (f"occurrences/{'f' * 16}:finding", {"said": "x"}),
            (f"occurrences/{'f' * 16}:finish", {}),
        ):
            assert is_problem(
                await server.client.post(f"/api/v1/{path}", json=body, headers=viewer), "role_too_weak"
            ), path

    hold(documents(), story)

    assert actions(store) == []


def test_the_pages_do_the_same_and_only_from_their_own_forms(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.OPERATOR) as browser:
            csrf = {"csrf": csrf_in((await browser.get("/calendar")).text)}
            refused = [
                (await browser.post(f"/calendar/{path}", data={**form, "csrf": "x"})).status_code
                for path, form in (
                    ("start", {"game_day": "daily"}),
                    ("pause", {"game_day": "daily", "why": "x"}),
                    ("resume", {"game_day": "daily"}),
                    ("remark", {"occurrence": "f" * 16, "kind": "note", "said": "x"}),
                    ("finish", {"occurrence": "f" * 16}),
                )
            ]
            await browser.post("/calendar/pause", data={**csrf, "game_day": "daily", "why": "freeze <b>"})
            paused = (await browser.get("/calendar")).text
            await browser.post("/calendar/resume", data={**csrf, "game_day": "daily"})
            begun = await browser.post("/calendar/start", data={**csrf, "game_day": "daily"})
            await ring(server, START)
            await held(server)
            place = begun.headers["location"]
            form = {**csrf, "occurrence": place.rpartition("/")[2]}
            await browser.post("/calendar/remark", data={**form, "kind": "finding", "said": "no <i>timeout"})
            open_ = (await browser.get(place)).text
            await browser.post("/calendar/finish", data=form)
            finished = (await browser.get(place)).text
            calendar = (await browser.get("/calendar")).text

        assert refused == [403] * 5
        assert "Will be skipped: operator paused it at 2027-01-05 09:00 UTC: freeze &lt;b&gt;" in paused
        assert "Resume daily" in paused
        assert "Start daily now" not in paused
        assert "1 experiment is as expected" in open_
        assert "no &lt;i&gt;timeout" in open_
        assert "→ stock" in open_
        assert "Add a finding" in open_
        assert "Finished by operator" in finished
        assert "Add a finding" not in finished
        assert "1 finding<" in calendar
        assert "started by operator" in calendar

    hold(documents(), story)

    assert [row[0] for row in actions(store)] == [
        "occurrence.finish",
        "occurrence.finding",
        "gameday.start",
        "gameday.resume",
        "gameday.pause",
    ]


def test_who_may_not_change_sees_the_page_without_forms(hold: Stage, store: Store, cluster: Cluster) -> None:
    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]
        async with signed_in(server, Role.VIEWER) as browser:
            page = (await browser.get(f"/calendar/{row['id']}")).text
            calendar = (await browser.get("/calendar")).text
            missing = await browser.get(f"/calendar/{'f' * 16}")

        assert "1 experiment is as expected" in page
        assert "<form" not in page.partition("<main")[2]
        assert "Start daily now" not in calendar
        assert missing.status_code == 404

    hold(documents(), story)
