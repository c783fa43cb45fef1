"""
A whole run of an experiment on the simulated cluster, in virtual time: its traffic, its verdict, its exit code.

What must hold beside the invariants of every play: *passed* and *failed* only
with a verified receipt; exit code 7 exactly where a fault may still be live,
with the lever pulled and the next command named.
"""

from __future__ import annotations

import asyncio
from datetime import date
from functools import cache
from typing import Any

import httpx

from luff.evidence import DataPlane, Sighting
from luff.evidence.response_header import ResponseHeader
from luff.exit_codes import RESTORE_NOT_VERIFIED, exit_code
from luff.lifecycle import Phase
from luff.model import Experiment
from luff.outcome import MeshIdentity, Outcome
from luff.parse import parse_documents
from luff.routes import Injection
from luff.run import Options, run_experiment
from luff.run import World as Surroundings
from luff.scope import FLAGS_HEADER
from luff.testing import Cluster, MemoryLevers, NoWatcher
from luff.words import Verdict
from tests.crash.world import REF, Journal, World
from tests.crash.writers import RUN

__all__ = ["check_outcome", "whole_run"]

TODAY = date(2027, 1, 15)
REPLICA = "inventory-1"
EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: e, namespace: shop}
spec:
  target: inventory
  subject: inventory
  fault: {abort: 503}
  traffic: {requests: [GET http://inventory/], rate: 40/s, duration: 1s, warmup: 0s}
  expect: [{errors: {atMost: 50%}}]
"""


@cache
def _experiment() -> Experiment:
    [experiment] = parse_documents([("e.yaml", EXPERIMENT)]).experiments
    return experiment


class _Silent:
    """This is told how the run goes, and tells nobody."""

    def step(self, name: str, note: str = "") -> None:
        """Take note of nothing."""

    def traffic(self, *_: Any, **__: Any) -> None:
        """Take note of nothing."""


class _Proxies(DataPlane):
    """These are proxies that have what the cluster has; *stale* ones never let go of anything."""

    def __init__(self, cluster: Cluster, *, stale: bool) -> None:
        self._cluster = cluster
        self._stale = stale
        self._had: frozenset[str] = frozenset()

    async def look(self, injection: Injection) -> Sighting:
        """Return which twins of *injection* the one proxy has."""
        object_ = self._cluster.objects.get(REF)
        routes = object_["spec"]["http"] if object_ is not None else []
        now = frozenset(str(route.get("name")) for route in routes) & frozenset(injection.names)
        self._had = self._had | now if self._stale else now
        return Sighting(frozenset({REPLICA}), {REPLICA: self._had}, frozenset())


def _answer(world: World, request: httpx.Request) -> httpx.Response:
    """Answer as the target's proxy would: with the twin's fault while it is there, for requests in its scope."""
    object_ = world.cluster.objects.get(REF)
    for route in object_["spec"]["http"] if object_ is not None else []:
        for match in route.get("match") or []:
            prefix = (match.get("headers") or {}).get("x-luff-run", {}).get("prefix")
            if prefix and "fault" in route and request.headers["x-luff-run"].startswith(prefix):
                return httpx.Response(503, headers={FLAGS_HEADER: "FI"})
    return httpx.Response(200)


async def _never() -> int:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("it came back")


async def whole_run(world: World, journal: Journal, watcher: NoWatcher) -> None:
    """Run the experiment as the schedule of *world* has it; raises `Violation` when its outcome is not true."""
    cluster, run, proxies = world.cluster, world.run, world.schedule.proxies
    for name in ("shop", "luff-system"):
        cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    levers = MemoryLevers()
    surroundings = Surroundings(
        mesh=run.mesh,
        identity=MeshIdentity(kind="cluster", name="sim"),
        journal=journal,
        watcher=watcher,
        watcher_died=_never,
        clock=run.clock,
        transport=lambda _: httpx.MockTransport(lambda request: _answer(world, request)),
        source=lambda *_: ResponseHeader(),
        plane=None if proxies == "unseen" else _Proxies(cluster, stale=proxies == "stale"),
        keep_traceback=lambda trace: trace,
        levers=levers,
    )

    def on_start(stop: Any) -> None:
        world.stop = stop

    options = Options(actor="tester", run=RUN, seed=1)
    outcome, _ = await run_experiment(
        _experiment(), surroundings, options=options, progress=_Silent(), on_start=on_start
    )
    world.stop, world.outcome = None, outcome
    check_outcome(world, outcome, tuple(journal.phases.get(RUN, ())), levers)


def check_outcome(world: World, outcome: Outcome, phases: tuple[Phase, ...], levers: MemoryLevers) -> None:
    """Raise when what a run says about itself is not what happened."""
    code, receipt = exit_code([outcome], today=TODAY), outcome.restore
    if outcome.reason == "internal":
        raise world.violated(f"a mistake of luff: {outcome.explanation}")
    if code != RESTORE_NOT_VERIFIED:
        world.check_not_live(f"it ended with {code}, and its twins are live")
    if outcome.verdict in (Verdict.PASSED, Verdict.FAILED) and (
        receipt is None or receipt.api != "verified" or receipt.data_plane == "stale"
    ):
        raise world.violated(f"{outcome.verdict} without a verified receipt: {receipt}")
    stale = receipt is not None and receipt.data_plane == "stale"
    if (phases[-1:] == (Phase.STRANDED,) or stale) != (code == RESTORE_NOT_VERIFIED):
        raise world.violated(f"it ended with {code}, as {phases[-1:]}, with the receipt {receipt}")
    if code != RESTORE_NOT_VERIFIED:
        return
    if "shop" not in levers.on:
        raise world.violated("a restore that is not verified, and no lever")
    if ("istioctl proxy-status " if stale else "luff restore ") not in (outcome.next.do if outcome.next else ""):
        raise world.violated(f"a restore that is not verified, and the next step is {outcome.next}")
