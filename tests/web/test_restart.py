"""What a dead server left is gone before a new one answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from luff.errors import RestoreNotVerified
from luff.lifecycle import Phase
from luff.lock import OBJECT_ANNOTATION, RUN_ANNOTATION, lease_ref
from luff.mesh import Kind, Ref
from luff.parse import parse_documents
from luff.patches import clone
from luff.run import Options, run_experiment
from luff.store import Store
from luff.testing import Cluster, SimClock, Trouble
from tests.web.conftest import experiment, serving, world_on

STOCK = Ref(Kind.VIRTUAL_SERVICE, "shop", "stock")
LEASE = lease_ref(STOCK)
ELSEWHERE = experiment("quick").replace("namespace: shop", "namespace: team")


class Silent:
    """This tells nobody."""

    def __init__(self, live: asyncio.Event) -> None:
        self._live = live

    def step(self, name: str, note: str = "") -> None:
        if name == "live":
            self._live.set()

    def traffic(self, driver: Any, *, phase: Any, most_s: float) -> None:
        pass


@dataclass
class Hasty(SimClock):
    """This is a clock on which what is waited for has passed at once, for the *cluster* as well."""

    cluster: Cluster = field(default_factory=Cluster)

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.cluster.ahead_s

    async def sleep(self, seconds: float) -> None:
        self.cluster.ahead_s += seconds
        await asyncio.sleep(0)


async def _die(store: Store, cluster: Cluster) -> str:
    """Play a server that is killed while a run of it is live; returns the run."""
    found = parse_documents([("x.yaml", experiment("long", duration="300s"))]).experiments[0]
    world, live = world_on(cluster, store), asyncio.Event()
    running = asyncio.create_task(run_experiment(found, world, options=Options(actor="dead"), progress=Silent(live)))
    await asyncio.wait_for(live.wait(), 20)
    world.mesh.kill()  # type: ignore[attr-defined]  # a SimMesh
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return store.open_intents()[0].intent.run


async def _come_back(store: Store, cluster: Cluster) -> None:
    async with serving(store, cluster, world_clock=Hasty(cluster=cluster)) as server:
        faults = (await server.client.get("/api/v1/faults")).json()

    assert faults["items"] == []
    assert faults["error"] is None
    assert store.open_intents() == []


def _routes(cluster: Cluster) -> list[str]:
    return [route["name"] for ref, each in cluster.objects.items() if ref == STOCK for route in each["spec"]["http"]]


def test_what_a_dead_server_left_is_restored_first(store: Store, cluster: Cluster) -> None:
    run = asyncio.run(_die(store, cluster))
    assert len(_routes(cluster)) > 1

    asyncio.run(_come_back(store, cluster))

    assert store.timeline(run)[-1].phase is Phase.CLEAN


def test_a_journal_row_whose_object_is_gone_is_closed(store: Store, cluster: Cluster) -> None:
    run = asyncio.run(_die(store, cluster))
    cluster.remove(STOCK)

    asyncio.run(_come_back(store, cluster))

    assert store.timeline(run)[-1].phase is Phase.CLEAN
    assert STOCK not in cluster.objects


def test_a_journal_from_an_old_backup_touches_nothing_that_is_clean(store: Store, cluster: Cluster) -> None:
    """The backup says that a run is live which ended long ago; its twins are gone, and somebody has written since."""
    run = asyncio.run(_die(store, cluster))

    def end_and_change(object_: dict[str, Any]) -> None:
        object_["spec"]["http"] = [route for route in object_["spec"]["http"] if not route["name"].startswith("luff.")]
        object_["spec"]["http"].append({"name": "hotfix", "route": [{"destination": {"host": "stock"}}]})

    cluster.edit(STOCK, end_and_change)
    before = clone(cluster.objects[STOCK]["spec"])
    version = cluster.objects[STOCK]["metadata"]["resourceVersion"]

    asyncio.run(_come_back(store, cluster))

    assert store.timeline(run)[-1].phase is Phase.CLEAN
    assert cluster.objects[STOCK]["spec"] == before
    assert cluster.objects[STOCK]["metadata"]["resourceVersion"] == version, "a read that is late enough is proof"


def _in_team_alone(_verb: str, ref: Ref) -> Trouble:
    """Be a role that may list nothing but the namespace of today's definitions."""
    return Trouble.DENIED if ref.name == "*" and ref.namespace != "team" else Trouble.NONE


def _no_leases(_verb: str, ref: Ref) -> Trouble:
    return Trouble.DENIED if ref.kind is Kind.LEASE else Trouble.NONE


def _no_patches(verb: str, ref: Ref) -> Trouble:
    return Trouble.DENIED if (verb, ref) == ("patch", STOCK) else Trouble.NONE


def _keep_held(cluster: Cluster) -> None:
    """Let the holder of the Lease go on for longer than anybody waits."""
    cluster.edit(LEASE, lambda lease: lease["spec"].update(leaseDurationSeconds=3600))


def test_what_a_run_left_in_a_namespace_without_definitions_is_restored_by_the_journal(
    store: Store, cluster: Cluster
) -> None:
    run = asyncio.run(_die(store, cluster))

    async def come_back() -> None:
        clock = Hasty(cluster=cluster)
        async with serving(store, cluster, documents=ELSEWHERE, world_clock=clock, trouble=_in_team_alone):
            pass

    asyncio.run(come_back())

    assert _routes(cluster) == ["main"]
    assert store.timeline(run)[-1].phase is Phase.CLEAN
    assert store.open_intents() == []


@pytest.mark.parametrize("trouble", [_in_team_alone, _no_leases])
def test_a_run_that_is_or_may_be_live_elsewhere_is_left_alone_and_its_row_open(
    store: Store, cluster: Cluster, trouble: Any
) -> None:
    run = asyncio.run(_die(store, cluster))
    _keep_held(cluster)
    there = _routes(cluster)
    phase = store.open_intents()[0].phase

    async def come_back() -> Any:
        documents, clock = (ELSEWHERE, Hasty(cluster=cluster))
        async with serving(store, cluster, documents=documents, world_clock=clock, trouble=trouble) as server:
            return (await server.client.get("/api/v1/faults")).json(), (await server.browser().get("/")).text

    faults, page = asyncio.run(come_back())

    assert _routes(cluster) == there
    assert [(each.intent.run, each.phase) for each in store.open_intents()] == [(run, phase)]
    if trouble is _no_leases:
        assert [(each["run"], each["state"]) for each in faults["items"]] == [(run, "unknown")]
        assert "A fault may be live: its Lease could not be read" in page


def test_a_row_whose_object_cannot_be_looked_at_stays_open(
    store: Store, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    run = asyncio.run(_die(store, cluster))

    def trouble(verb: str, ref: Ref) -> Trouble:
        return Trouble.DENIED if ref == STOCK else _in_team_alone(verb, ref)

    async def come_back() -> None:
        async with serving(
            store, cluster, documents=ELSEWHERE, world_clock=Hasty(cluster=cluster), trouble=trouble
        ) as server:
            assert await server.service.unready() is None

    asyncio.run(come_back())

    assert [each.intent.run for each in store.open_intents()] == [run]
    assert f"run `luff restore {run} -n shop --context simulated`" in caplog.text


def test_what_another_team_left_and_may_not_be_removed_keeps_no_server_from_starting(
    tmp_path: Path, store: Store, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'theirs.db'}") as theirs:
        run = asyncio.run(_die(theirs, cluster))
    cluster.ahead_s += 60

    async def start() -> Any:
        async with serving(store, cluster, world_clock=Hasty(cluster=cluster), trouble=_no_patches) as server:
            assert await server.service.unready() is None
            return (await server.client.get("/api/v1/faults")).json()

    faults = asyncio.run(start())

    assert [(each["run"], each["state"]) for each in faults["items"]] == [(run, "orphaned")]
    assert f"run `luff restore {run} -n shop --context simulated`" in caplog.text


def test_what_it_left_itself_and_may_not_remove_ends_the_start_with_the_command(store: Store, cluster: Cluster) -> None:
    run = asyncio.run(_die(store, cluster))

    async def start() -> None:
        async with serving(store, cluster, world_clock=Hasty(cluster=cluster), trouble=_no_patches):
            pass

    with pytest.raises(RestoreNotVerified) as caught:
        asyncio.run(start())

    assert caught.value.next_step == f"run `luff restore {run} -n shop --context simulated`"
    assert [each.intent.run for each in store.open_intents()] == [run]


def test_a_run_elsewhere_that_does_not_end_when_it_is_asked_is_said(
    store: Store, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    run = "0123456789abcdef"
    cluster.add({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": LEASE.name,
            "namespace": "shop",
            "annotations": {RUN_ANNOTATION: run, OBJECT_ANNOTATION: "stock"},
        },
        "spec": {"holderIdentity": "ada", "leaseDurationSeconds": 3600, "renewTime": "2100-01-01T00:00:00Z"},
    })  # fmt: skip

    async def story() -> None:
        async with serving(store, cluster, world_clock=Hasty(cluster=cluster)) as server:
            server.service.faults.stop_elsewhere(run, who="grace")
            await server.service.faults.settle(within_s=20)

    asyncio.run(story())

    assert f"run {run} on VirtualService shop/stock was asked to end, and ada still holds it" in caplog.text


def test_a_server_that_leaves_while_a_run_goes_on_names_the_command_for_it(store: Store, cluster: Cluster) -> None:
    async def story() -> tuple[str | None, str | None]:
        async with serving(store, cluster) as server, asyncio.timeout(20):
            await server.client.post("/api/v1/runs", json={"experiment": "long"})
            [job] = server.service.jobs.running
            async for event in job.watch(0):
                if event is not None and event.name == "run":
                    break
            return server.service.not_ended().next_step, job.run

    step, run = asyncio.run(story())

    assert step == (
        f"look with `luff status --context simulated`; if it is still there, run `luff restore {run} -n shop --context simulated`"
    )
