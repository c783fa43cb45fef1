"""What a dead server left is gone before a new one answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from luff.lifecycle import Phase
from luff.mesh import Kind, Ref
from luff.parse import parse_documents
from luff.patches import clone
from luff.run import Options, run_experiment
from luff.store import Store
from luff.testing import Cluster, SimClock
from tests.web.conftest import experiment, serving, world_on

STOCK = Ref(Kind.VIRTUAL_SERVICE, "shop", "stock")


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
