"""One store for two clusters, a lab and an experiment that was rewritten: none of them counts for another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from luff.outcome import MeshIdentity, Outcome
from luff.store import Store
from tests.factories import LAB, failed, passed, run_id
from tests.web.conftest import IDENTITY, Server, serving
from tests.web.test_api import is_problem

OTHER = MeshIdentity(kind="cluster", name="other")
FIRST = datetime(2026, 11, 1, 12, tzinfo=UTC)
OLD, NEW = "a" * 64, "b" * 64


def ran(day: int, verdict: str, *, mesh: MeshIdentity = IDENTITY, spec: str = NEW) -> Outcome:
    began = FIRST + timedelta(days=day)
    made = (passed if verdict == "passed" else failed)(
        run=run_id((day, mesh.name)),
        experiment="quick",
        mesh=mesh,
        started_at=began.isoformat(),
        ended_at=(began + timedelta(minutes=1)).isoformat(),
    )
    return made.model_copy(update={"spec_sha256": spec})


HERE = [ran(0, "failed", spec=OLD), ran(1, "failed", spec=OLD), ran(2, "passed"), ran(4, "passed")]
ELSEWHERE = [ran(day, "failed", mesh=mesh) for day in (3, 5) for mesh in (OTHER, LAB)]


@pytest.fixture
def history(store: Store) -> Store:
    """Return a store in which quick holds here since it was rewritten, and nowhere else."""
    for each in (*HERE, *ELSEWHERE):
        store.record(each)
    return store


def seen(store: Store, cluster: Any, story: Callable[[Server], Awaitable[Any]], **how: Any) -> Any:
    async def whole() -> Any:
        async with serving(store, cluster, **how) as server:
            return await story(server)

    return asyncio.run(whole())


def test_the_trend_of_the_api_is_of_one_cluster_and_one_spec(history: Store, cluster: Any) -> None:
    async def story(server: Server) -> list[dict[str, Any]]:
        found = []
        for more in ({}, {"spec": "aaaa"}, {"mesh": "cluster", "place": "other"}, {"mesh": "lab"}):
            answer = await server.client.get("/api/v1/trends", params={"experiment": "quick", **more})
            found.append(answer.json())
        return found

    newest, older, other, lab = seen(history, cluster, story)

    assert [each["run"] for each in newest["items"]] == [each.run for each in HERE[2:]]
    assert (newest["place"], newest["spec_sha256"]) == (IDENTITY.name, NEW)
    assert [(each["spec_sha256"], each["runs"]) for each in newest["others"]] == [(OLD, 2)]
    assert [each["run"] for each in older["items"]] == [each.run for each in HERE[:2]]
    assert {each["run"] for each in other["items"]} == {each.run for each in ELSEWHERE if each.mesh == OTHER}
    assert {each["run"] for each in lab["items"]} == {each.run for each in ELSEWHERE if each.mesh == LAB}


@pytest.mark.parametrize(
    ("here", "query", "said"),
    [
        (LAB, {"mesh": "cluster"}, "query.place: which cluster"),
        (IDENTITY, {"mesh": "lab", "place": "other"}, "query.place: a lab has no places"),
        (LAB, {"place": "other"}, "query.place: a lab has no places"),
    ],
)
def test_a_place_that_means_nothing_is_a_problem_and_not_another_place(
    history: Store, cluster: Any, here: MeshIdentity, query: dict[str, str], said: str
) -> None:
    async def story(server: Server) -> None:
        answer = await server.client.get("/api/v1/trends", params={"experiment": "quick", **query})

        assert is_problem(answer, "invalid")
        assert answer.json()["detail"].startswith(said)

    seen(history, cluster, story, identity=here)


def test_a_spec_that_was_never_run_shows_no_other_one_and_leads_to_those_that_were(
    history: Store, cluster: Any
) -> None:
    async def story(server: Server) -> tuple[dict[str, Any], str]:
        answer = await server.client.get("/api/v1/trends", params={"experiment": "quick", "spec": "dead"})
        async with server.browser() as browser:
            return answer.json(), (await browser.get("/trends/quick?spec=dead")).text

    found, page = seen(history, cluster, story)

    assert (found["spec_sha256"], found["items"]) == (None, [])
    assert [each["spec_sha256"] for each in found["others"]] == [NEW, OLD]
    assert not any(each.run in page for each in HERE)
    assert "/trends/quick?spec=bbbbbbbbbbbbbbbb" in page


def test_the_pass_rate_of_the_page_counts_one_spec_here_and_leads_to_the_others(history: Store, cluster: Any) -> None:
    async def story(server: Server) -> list[str]:
        async with server.browser() as browser:
            return [(await browser.get(path)).text for path in ("/trends/quick", "/trends/quick?spec=aaaa")]

    newest, older = seen(history, cluster, story)

    assert "100 %</b><span>passed, of 2 that were decided" in newest
    assert "<b>holds</b>" in newest
    assert "/trends/quick?spec=aaaaaaaaaaaaaaaa" in newest
    assert "0 %</b><span>passed, of 2 that were decided" in older
    assert "it fails since, and never passed" in older
    assert not any(each.run in newest + older for each in ELSEWHERE)


def test_the_overview_the_badge_and_the_experiments_are_of_this_cluster(history: Store, cluster: Any) -> None:
    async def story(server: Server) -> list[str]:
        async with server.browser() as browser:
            pages = [(await browser.get(path)).text for path in ("/", "/experiments")]
        return [*pages, (await server.client.get("/api/v1/badges/quick.svg")).text]

    overview, experiments, badge = seen(history, cluster, story)

    assert not any(each.run in overview + experiments for each in ELSEWHERE)
    assert HERE[-1].run in overview
    assert "passed" in badge
    assert "failed" not in badge


def last_verdict(metrics: str) -> list[str]:
    lines = [line for line in metrics.splitlines() if line.startswith('luff_last_verdict{experiment="quick"')]
    return [line.split('verdict="')[1].split('"')[0] for line in lines if line.endswith(" 1.0")]


def proven_s(metrics: str) -> list[float]:
    lines = [line for line in metrics.splitlines() if line.startswith("luff_last_proof_timestamp_seconds{")]
    return [float(line.rpartition(" ")[2]) for line in lines if "quick" in line]


def test_the_metrics_are_of_this_cluster_from_the_start(history: Store, cluster: Any) -> None:
    later = ran(6, "passed", mesh=OTHER)
    history.record(later)

    async def story(server: Server) -> str:
        return (await server.client.get("/metrics")).text

    metrics = seen(history, cluster, story)

    assert last_verdict(metrics) == ["passed"]
    assert proven_s(metrics) == [datetime.fromisoformat(HERE[-1].ended_at).timestamp()]


def test_what_is_pushed_moves_the_metrics_only_of_its_own_place_and_only_when_it_is_newer(
    history: Store, cluster: Any
) -> None:
    pushed = [ran(7, "failed", mesh=OTHER), ran(8, "failed", mesh=LAB), ran(-1, "failed"), ran(9, "failed")]

    async def story(server: Server) -> list[str]:
        found = []
        for each in pushed:
            answer = await server.client.post("/api/v1/outcomes", json=each.model_dump(mode="json", by_alias=True))
            assert answer.status_code == 201, answer.text
            found.append((await server.client.get("/metrics")).text)
        return found

    elsewhere, lab, older, newer = seen(history, cluster, story)

    assert "luff_runs_total{" not in elsewhere + lab
    assert last_verdict(elsewhere) == last_verdict(lab) == last_verdict(older) == ["passed"]
    assert last_verdict(newer) == ["failed"]
    assert 'luff_runs_total{experiment="quick",verdict="failed"} 2.0' in newer


def test_coverage_tells_two_clusters_and_the_lab_apart_and_counts_one_spec(history: Store) -> None:
    lines = {(each.mesh_kind, each.place): each for each in history.coverage()}

    assert set(lines) == {("cluster", IDENTITY.name), ("cluster", "other"), ("lab", "lab")}
    here = lines["cluster", IDENTITY.name]
    assert (here.run, here.runs, here.spec_sha256, here.experiment) == (HERE[-1].run, 2, NEW, "quick")
    assert lines["cluster", "other"].last_pass_at is None
