"""Game days held by a server over a simulated mesh, with the calendar's clock in our hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luff.errors import RunAborted
from luff.gameday import due_at
from luff.lever import SYSTEM_NAMESPACE, pull_lever
from luff.model import PolicySpec
from luff.parse import parse_documents
from luff.store import Role, Store
from luff.store.occurrences import Occurrences
from luff.testing import Cluster, SetClock, SimMesh, Trouble
from tests.web.conftest import DOCUMENTS, Server, begun, experiment, serving, with_first_tries
from tests.web.test_api import is_problem, routes
from tests.web.test_pages import csrf_in, signed_in

Play = Callable[..., None]
START = datetime(2027, 1, 5, 9, 0, tzinfo=UTC)
TEN = START + timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SUITE = """\
---
apiVersion: luff.dev/v1alpha1
kind: Suite
metadata: {{name: {name}}}
spec: {{experiments: [{experiments}]}}
"""
DAY = """\
---
apiVersion: luff.dev/v1alpha1
kind: GameDay
metadata: {{name: {name}}}
spec:
  schedule: {{cron: "0 10 * * *", window: 1h}}
  suites: [{suite}]
  {more}
"""
APPROVED = "people: {owner: ann, approvers: [ann, operator], approvals: 1, approveBy: 30m}"


def documents(experiments: str = "quick", more: str = "", name: str = "daily") -> str:
    """Return the shop with a game day at ten that holds *experiments*."""
    suite = SUITE.format(name="core", experiments=experiments)
    return DOCUMENTS + suite + DAY.format(name=name, suite="core", more=more)


async def ring(server: Server, at: datetime) -> None:
    """Set the clock, and let the server look at its calendar."""
    clock: Any = server.service.calendar_clock
    clock.at = at
    await server.service.calendar.scheduler.tick()
    assert server.service.calendar.scheduler.trouble is None


async def held(server: Server) -> None:
    """Wait until nothing is held."""
    async with asyncio.timeout(60):
        while server.service.calendar.open(1):  # noqa: ASYNC110  # it ends in tasks of the scheduler's own
            await asyncio.sleep(0.02)


async def listed(server: Server, **query: Any) -> Any:
    answer = await server.client.get("/api/v1/occurrences", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def until_live(server: Server) -> None:
    """Wait until a fault is live."""
    async with asyncio.timeout(30):
        while len(routes(server.cluster)) < 2:  # noqa: ASYNC110  # the mesh tells nobody
            await asyncio.sleep(0.02)


@asynccontextmanager
async def on_the_calendar(
    store: Store, cluster: Cluster, clock: SetClock, text: str, **how: Any
) -> AsyncIterator[Server]:
    async with serving(store, cluster, documents=text, clock=clock, **how) as server:
        yield server


Stage = Callable[..., None]


def test_a_game_day_is_held_and_its_runs_are_in_history(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert (row["state"], row["said"]) == ("passed", "1 experiment is as expected")
        [run] = row["runs"]
        stored = store.outcome(run)
        assert (stored.experiment, stored.actor) == ("quick", "game day daily")
        assert routes(server.cluster) == ["main"]
        audited = [(each.actor, each.action, each.note) for each in store.access.audits(limit=5)]
        assert audited == [("game day daily", "run.start", "quick")]
        metrics = (await server.client.get("/metrics")).text
        assert 'luff_occurrences_total{schedule="daily",state="passed"} 1.0' in metrics
        [ticked] = [line for line in metrics.splitlines() if line.startswith("luff_scheduler_last_tick")]
        assert float(ticked.rpartition(" ")[2]) == TEN.timestamp()

    hold(documents(), story)


@pytest.mark.parametrize(
    ("experiments", "more", "state", "said"),
    [
        ("quick, nowhere", "", "failed", "nowhere is error"),
        ("quick, outside", "", "failed", "outside did not run: outside sends to example.com"),
        ("nowhere", "expected: {nowhere: error}", "passed", "1 experiment is as expected, 1 of them not passed"),
        ("quick", "expected: {quick: failed}", "failed", "quick is passed, expected was failed"),
    ],
)
def test_it_is_good_only_if_every_experiment_came_out_as_expected(
    hold: Stage, experiments: str, more: str, state: str, said: str
) -> None:
    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert row["state"] == state
        assert said in row["said"]

    hold(documents(experiments, more), story)


def test_a_known_failure_that_passes_is_not_good(hold: Stage) -> None:
    known = experiment("known").replace("spec:\n", "spec:\n  knownFailure: {reason: later, until: 2999-01-01}\n")

    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert row["state"] == "failed"
        assert "remove knownFailure" in row["said"]

    hold(known + "---\n" + documents("known"), story)


def test_a_lever_that_is_on_is_its_reason(hold: Stage) -> None:
    async def story(server: Server) -> None:
        await pull_lever(
            server.service.world.mesh, SYSTEM_NAMESPACE, who="ann", why="a sale", clock=server.service.world.clock
        )
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert (row["state"], row["reason"]) == ("skipped", "lever")
        assert "ann pulled it" in row["said"]
        assert row["runs"] == []

    hold(documents(), story)


def test_the_policy_bounds_its_runs_too(hold: Stage) -> None:

    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert row["state"] == "failed"
        assert "quick did not run: the policy allows the namespaces elsewhere, not shop" in row["said"]

    hold(documents(), story, policy=PolicySpec(namespaces=("elsewhere",)))


def test_a_server_that_ends_stops_it_restores_and_says_so(store: Store, cluster: Cluster, clock: SetClock) -> None:
    async def whole() -> None:
        async with on_the_calendar(store, cluster, clock, documents("long")) as server:
            await ring(server, TEN)
            await until_live(server)
            server.service.begin_closing(RunAborted("operator", "stopped by SIGTERM to the server"))
            await server.service.close(RunAborted("operator", "the server ended"))

    asyncio.run(whole())

    [row] = Occurrences.of(store).between()
    assert (row.state, row.reason) == ("lost", "stopped")
    [run] = row.runs
    assert (store.outcome(run).verdict, store.outcome(run).phase) == ("aborted", "clean")
    assert routes(cluster) == ["main"]


def test_who_stops_an_occurrence_is_in_its_row(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        await ring(server, TEN)
        await until_live(server)
        [row] = (await listed(server))["items"]
        stopped = await server.client.post(f"/api/v1/occurrences/{row['id']}:stop")
        await held(server)
        [after] = (await listed(server))["items"]
        again = await server.client.post(f"/api/v1/occurrences/{row['id']}:stop")
        never = await server.client.post(f"/api/v1/occurrences/{'0' * 16}:stop")

        assert row["state"] == "running"
        assert len(row["runs"]) == 1
        assert stopped.status_code == 202
        assert (after["state"], after["reason"], after["said"]) == ("aborted", "operator", "stopped by me@here")
        assert is_problem(again, "conflict")
        assert is_problem(never, "not_found")
        assert store.outcome(after["runs"][0]).explanation.endswith("stopped by me@here")
        assert routes(server.cluster) == ["main"]
        assert store.access.audits(limit=1)[0].action == "occurrence.stop"

    hold(documents("long"), story)


def test_two_servers_on_one_database_hold_it_once(store: Store, cluster: Cluster, clock: SetClock) -> None:
    async def whole() -> None:
        async with (
            on_the_calendar(store, cluster, clock, documents()) as one,
            on_the_calendar(store, cluster, clock, documents()) as other,
        ):
            clock.at = TEN
            await asyncio.gather(one.service.calendar.scheduler.tick(), other.service.calendar.scheduler.tick())
            await held(one)
            await held(other)

    asyncio.run(whole())

    [row] = Occurrences.of(store).between()
    assert row.state == "passed"
    assert begun(store) == 1
    assert {each.run for each in store.runs()} == with_first_tries(store, row.runs)


def test_more_experiments_than_may_wait_are_all_held(hold: Stage, store: Store) -> None:
    names = [f"e{number}" for number in range(11)]
    text = "---\n".join(experiment(name, target="nothing") for name in names)

    async def story(server: Server) -> None:
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert len(row["runs"]) == 11
        assert {store.outcome(run).experiment for run in row["runs"]} == set(names)

    hold(text + "\n---\n" + documents("'e*'", "expected: {" + ", ".join(f"{n}: error" for n in names) + "}"), story)


# --- approvals ---------------------------------------------------------------------------------------------------


def test_without_enough_approvals_it_is_skipped_and_with_them_held(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        body = {"scheduled_for": TEN.isoformat(), "who": "ann"}
        before = (await listed(server))["coming"][0]
        approved = await server.client.post("/api/v1/gamedays/daily:approve", json=body)
        twice = await server.client.post("/api/v1/gamedays/daily:approve", json=body)
        after = (await listed(server))["coming"][0]
        await ring(server, TEN)
        await held(server)
        await ring(server, TEN + timedelta(days=1))
        await held(server)
        tomorrow, today = (await listed(server))["items"]

        assert (before["approvals"], before["approved_by"]) == (1, [])
        assert approved.status_code == twice.status_code == 200
        assert approved.json() == after
        assert after["approved_by"] == ["ann"]
        assert today["state"] == "passed"
        assert (tomorrow["state"], tomorrow["reason"]) == ("skipped", "not_approved")
        row = store.access.audits(limit=10)[-1]
        assert (row.actor, row.action, row.object) == ("me@here", "gameday.approve", "daily")
        assert row.note == f"{TEN.isoformat()} as ann"

    hold(documents(more=APPROVED), story)


def test_a_token_approves_only_under_its_own_name(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        operator = server.token(Role.OPERATOR)
        viewer = server.token(Role.VIEWER)
        admin = server.token(Role.ADMIN)
        at = {"scheduled_for": TEN.isoformat()}

        async def approve(headers: dict[str, str], **body: Any) -> Any:
            return await server.client.post("/api/v1/gamedays/daily:approve", json={**at, **body}, headers=headers)

        assert is_problem(await approve(viewer), "role_too_weak")
        assert is_problem(await approve(admin), "not_an_approver")
        assert is_problem(await approve(admin, who="ann"), "role_too_weak")
        assert Occurrences.of(store).approvals("daily", TEN) == {}
        assert (await approve(operator)).json()["approved_by"] == ["operator"]

    hold(documents(more=APPROVED), story)


@pytest.mark.parametrize(
    ("name", "at", "code"),
    [
        ("none", TEN, "not_found"),
        ("daily", TEN + MINUTE, "conflict"),
        ("daily", TEN - timedelta(days=1), "conflict"),
        ("free", TEN, "conflict"),
    ],
)
def test_what_cannot_be_approved_leaves_no_row(hold: Stage, store: Store, name: str, at: datetime, code: str) -> None:
    async def story(server: Server) -> None:
        answer = await server.client.post(
            f"/api/v1/gamedays/{name}:approve", json={"scheduled_for": at.isoformat(), "who": "ann"}
        )

        assert is_problem(answer, code)
        assert store.access.audits(limit=5) == []

    hold(documents(more=APPROVED) + DAY.format(name="free", suite="core", more=""), story)


def test_half_a_second_after_the_minute_is_still_that_firing(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        at = (TEN + timedelta(seconds=0.5)).isoformat()
        answer = await server.client.post("/api/v1/gamedays/daily:approve", json={"scheduled_for": at, "who": "ann"})

        assert answer.status_code == 200
        assert list(Occurrences.of(store).approvals("daily", TEN)) == ["ann"]

    hold(documents(more=APPROVED), story)


def test_an_approver_finds_the_button_on_the_calendar(hold: Stage, store: Store) -> None:
    async def story(server: Server) -> None:
        async with signed_in(server, Role.OPERATOR) as browser:
            page = await browser.get("/calendar")
            form = {
                "csrf": csrf_in(page.text),
                "game_day": "daily",
                "scheduled_for": TEN.isoformat(),
                "who": "operator",
            }
            refused = await browser.post("/calendar/approve", data={**form, "csrf": "x"})
            approved = await browser.post("/calendar/approve", data=form)
            after = await browser.get("/calendar")

            assert "0 of 1 approval; ann or operator can agree until" in page.text
            assert page.text.count(f'value="{TEN.isoformat()}"') == 1
            assert "Approve as" not in page.text
            assert refused.status_code == 403
            assert approved.headers["location"] == "/calendar"
            assert "It will be held" in after.text
            assert "approved by operator" in after.text

    hold(documents(more=APPROVED), story)


def test_who_may_not_approve_has_no_button(hold: Stage) -> None:
    async def story(server: Server) -> None:
        for role in (Role.VIEWER, Role.ADMIN):
            async with signed_in(server, role) as browser:
                assert '<button class="go"' not in (await browser.get("/calendar")).text

    hold(documents(more=APPROVED), story)


# --- looking -----------------------------------------------------------------------------------------------------


def test_schedules_and_game_days_are_told_in_words(hold: Stage) -> None:
    async def story(server: Server) -> None:
        schedules = (await server.client.get("/api/v1/schedules")).json()
        days = (await server.client.get("/api/v1/gamedays")).json()

        [schedule], [day] = schedules["items"], days["items"]
        assert schedule["words"] == "At 10:00 every day (UTC)"
        assert schedule["next"]["scheduled_for"] == TEN.isoformat().replace("+00:00", "Z")
        assert (schedules["problem"], schedules["trouble"]) == (None, None)
        assert schedules["last_tick"] == START.isoformat().replace("+00:00", "Z")
        assert day["experiments"] == ["quick"]
        assert (day["approvers"], day["approvals"]) == (["ann", "operator"], 1)
        assert day["skip_when"] == ["a canary is progressing"]
        assert day["warnings"] == [
            "every firing of daily will be skipped: whether a canary is progressing cannot be asked here"
        ]
        assert schedule["next"]["reason"] == "cannot_tell"

    hold(documents(more=APPROVED + "\n  skipWhen: [canaryProgressing]"), story)


def test_occurrences_are_bounded_by_time_schedule_and_number(hold: Stage) -> None:
    async def story(server: Server) -> None:
        for day in range(3):
            await ring(server, TEN + timedelta(days=day))
            await held(server)

        newest = await listed(server, limit=2)
        early = await listed(server, until=(TEN + MINUTE).isoformat())
        late = await listed(server, since=(TEN + timedelta(days=2)).isoformat())
        other = await listed(server, schedule="none")

        assert [each["scheduled_for"][:10] for each in newest["items"]] == ["2027-01-07", "2027-01-06"]
        assert [each["scheduled_for"][:10] for each in newest["coming"]] == ["2027-01-08", "2027-01-09"]
        assert [each["scheduled_for"][:10] for each in early["items"]] == ["2027-01-05"]
        assert early["coming"] == []
        assert len(late["items"]) == 1
        assert (other["items"], other["coming"]) == ([], [])
        assert is_problem(await server.client.get("/api/v1/occurrences?since=2027-01-05T10:00:00"), "invalid")

    hold(documents(more="skipWhen: [canaryProgressing]"), story)


def test_reasons_are_on_the_page_in_words(hold: Stage) -> None:
    async def story(server: Server) -> None:
        await ring(server, TEN + timedelta(hours=3))
        async with server.browser() as browser:
            page = (await browser.get("/calendar")).text

        assert "nobody was there when it was due" in page
        assert "missed" in page
        assert "It will be held" in page
        assert "Tue 5 Jan 2027 10:00 UTC" in page

    hold(documents(), story)


def test_the_server_is_not_ready_when_nobody_has_looked_at_the_calendar_for_a_minute(
    hold: Stage, clock: SetClock
) -> None:
    async def story(server: Server) -> None:
        clock.at = START + timedelta(seconds=60)
        ready = await server.client.get("/readyz")
        clock.at = START + timedelta(seconds=61)
        late = await server.client.get("/readyz")
        await ring(server, START + timedelta(seconds=62))
        again = await server.client.get("/readyz")

        assert (ready.status_code, again.status_code) == (200, 200)
        assert is_problem(late, "closing")
        assert "the calendar was last looked at 61 s ago" in late.json()["detail"]

    hold(documents(), story)


def test_a_lever_that_cannot_be_read_speaks_against_it(hold: Stage) -> None:
    async def story(server: Server) -> None:
        mesh = server.service.world.mesh
        assert isinstance(mesh, SimMesh)
        mesh.trouble = lambda verb, ref: Trouble.DENIED if verb == "read" and ref.name == "luff-lever" else Trouble.NONE
        await ring(server, TEN)
        await held(server)
        [row] = (await listed(server))["items"]

        assert (row["state"], row["reason"]) == ("skipped", "cannot_tell")
        assert "the lever: " in row["said"]
        assert row["runs"] == []

    hold(documents(), story)


def test_what_has_fired_and_waits_for_its_jitter_is_still_to_come(hold: Stage) -> None:
    text = documents().replace("window: 1h", "window: 1h, jitter: 1h")
    [game_day] = parse_documents([("shop.yaml", text)]).game_days
    due = due_at(game_day, TEN)

    async def story(server: Server) -> None:
        await ring(server, TEN + (due - TEN) / 2)
        both = await listed(server), await listed(server, schedule="daily")
        await ring(server, due)
        await held(server)
        after = await listed(server)

        assert [each["coming"][0]["scheduled_for"] for each in both] == ["2027-01-05T10:00:00Z"] * 2
        assert [each["items"] for each in both] == [[], []]
        assert after["items"][0]["scheduled_for"] == "2027-01-05T10:00:00Z"
        assert after["coming"][0]["scheduled_for"] == "2027-01-06T10:00:00Z"

    hold(text, story)
