"""What a dead server left is gone before a new one answers."""

from __future__ import annotations

import asyncio
from typing import Any

from luff.lifecycle import Phase
from luff.parse import parse_documents
from luff.run import Options, run_experiment
from luff.store import Store
from luff.testing import Cluster
from tests.web.conftest import experiment, serving, world_on


class Silent:
    """This tells nobody."""

    def __init__(self, live: asyncio.Event) -> None:
        self._live = live

    def step(self, name: str, note: str = "") -> None:
        if name == "live":
            self._live.set()

    def traffic(self, driver: Any, *, phase: Any, most_s: float) -> None:
        pass


def test_what_a_dead_server_left_is_restored_first(store: Store, cluster: Cluster) -> None:
    found = parse_documents([("x.yaml", experiment("long", duration="300s"))]).experiments[0]

    async def die() -> str:
        world, live = world_on(cluster, store), asyncio.Event()
        running = asyncio.create_task(
            run_experiment(found, world, options=Options(actor="dead"), progress=Silent(live))
        )
        await asyncio.wait_for(live.wait(), 20)
        world.mesh.kill()  # type: ignore[attr-defined]  # a SimMesh
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return store.open_intents()[0].intent.run

    async def come_back(run: str) -> None:
        async with serving(store, cluster) as server:
            faults = (await server.client.get("/api/v1/faults")).json()

        assert faults["items"] == []
        assert faults["error"] is None
        assert store.open_intents() == []
        assert store.timeline(run)[-1].phase is Phase.CLEAN

    run = asyncio.run(die())
    left = [
        route["name"] for ref, each in cluster.objects.items() if ref.name == "stock" for route in each["spec"]["http"]
    ]
    assert len(left) > 1
    asyncio.run(come_back(run))
