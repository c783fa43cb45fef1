"""A server over a simulated mesh and a real store, asked through ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from luff.clock import Clock
from luff.errors import RunAborted
from luff.evidence import DataPlane, Sighting
from luff.evidence.response_header import ResponseHeader
from luff.gameday_files import GameDays
from luff.mesh import Kind, Ref
from luff.model import Object, PolicySpec
from luff.notify import Channels
from luff.outcome import MeshIdentity
from luff.parse import parse_documents
from luff.routes import Injection
from luff.run import World
from luff.store import Role, Store
from luff.testing import Cluster, NoWatcher, SetClock, SimClock, SimMesh, Trouble
from luff.web import Definitions, Rails, Service, create_app

EXPERIMENT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {{name: {name}, namespace: shop}}
spec:
  target: {{host: {target}}}
  fault: {{abort: 503}}
  traffic:
    requests: [GET {url}]
    rate: 20/s
    duration: {duration}
    warmup: 1s
  expect:
    - {{id: answers, errors: {{atMost: 40%}}}}
  stopEarly: {stop_early}
"""
IDENTITY = MeshIdentity(kind="cluster", name="simulated")


def experiment(name: str, *, target: str = "stock", url: str = "http://front.shop/cart", duration: str = "3s") -> str:
    """Return the document of an experiment; one of 3 s ends as soon as it can, a longer one goes on to its end."""
    early = "true" if duration == "3s" else "false"
    return EXPERIMENT.format(name=name, target=target, url=url, duration=duration, stop_early=early)


def virtual_service(name: str) -> Object:
    """Return the VirtualService that routes to *name* in shop."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": [name], "http": [{"name": "main", "route": [{"destination": {"host": name}}]}]},
    }


DOCUMENTS = "---\n".join(
    [
        experiment("quick"),
        experiment("long", duration="300s"),
        experiment("other-long", target="prices", duration="300s"),
        experiment("outside", url="http://example.com/"),
        experiment("nowhere", target="nothing"),
    ]
)


async def _never() -> int:
    await asyncio.Event().wait()
    return 0


def answers(cluster: Cluster) -> Callable[[httpx.Request], httpx.Response]:
    """Return what answers every request with 200; through a twin, if one takes it."""

    def answer(request: httpx.Request) -> httpx.Response:
        secret = request.headers.get("x-luff-run", "nothing").partition(".")[0]
        taken = any(secret in json.dumps(each.get("spec")) for each in cluster.objects.values())
        return httpx.Response(200, json={"stock": 1}, headers={"x-luff-flags": "FI"} if taken else {})

    return answer


@dataclass(frozen=True)
class PromptProxies(DataPlane):
    """These are proxies, one of them asked, that have at once what the *cluster* has."""

    cluster: Cluster

    async def look(self, injection: Injection) -> Sighting:
        found = self.cluster.objects.get(Ref(Kind.VIRTUAL_SERVICE, injection.namespace, injection.virtual_service))
        has = frozenset(injection.names) & {route["name"] for route in ([] if found is None else found["spec"]["http"])}
        return Sighting(frozenset({"front-1"}), {"front-1": has}, frozenset())


def world_on(cluster: Cluster, store: Store) -> World:
    """Return everything that a run needs, on *cluster*."""
    mesh = SimMesh(cluster)
    return World(
        mesh=mesh,
        identity=IDENTITY,
        journal=store.journal(IDENTITY),
        watcher=NoWatcher(),
        watcher_died=_never,
        clock=SimClock(),
        transport=lambda _: httpx.MockTransport(answers(cluster)),
        source=lambda _plan, _zero: ResponseHeader(),
        plane=PromptProxies(cluster),
        levers=store.levers(IDENTITY),
    )


@dataclass
class Server:
    """This is a server that runs, and who asks it."""

    service: Service
    cluster: Cluster
    store: Store
    client: httpx.AsyncClient
    app: Any

    def token(self, role: Role = Role.OPERATOR) -> dict[str, str]:
        """Make a token and return the headers that show it."""
        _, secret = self.store.access.create_token(role.value, role)
        return {"authorization": f"Bearer {secret}"}

    def browser(self) -> httpx.AsyncClient:
        """Return a client of its own cookies that reads pages."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        headers = {"accept": "text/html", "sec-fetch-site": "same-origin"}
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)

    async def until_ended(self, location: str, *, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Return the run at *location* once it has ended."""
        async with asyncio.timeout(30):
            while True:
                found: dict[str, Any] = (await self.client.get(location, headers=headers)).json()
                if found["state"] == "ended":
                    return found
                await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(
    store: Store,
    cluster: Cluster,
    *,
    policy: PolicySpec | None = None,
    open_: bool = True,
    documents: str = DOCUMENTS,
    needs_reaper: bool = False,
    clock: Clock | None = None,
    channels: Channels | None = None,
    identity: MeshIdentity = IDENTITY,
    world_clock: Clock | None = None,
    trouble: Callable[[str, Ref], Trouble] = lambda _verb, _ref: Trouble.NONE,
) -> AsyncIterator[Server]:
    """Start a server, yield it, and close it again."""
    read = parse_documents([("shop.yaml", documents)])
    world = world_on(cluster, store)
    service = Service(
        replace(world, mesh=SimMesh(cluster, trouble), identity=identity, clock=world_clock or world.clock),
        store,
        Definitions(GameDays([], lambda: read, channels=(channels or Channels()).by_name)),
        Rails(policy, "shop"),
        local_user="me@here",
        open_=open_,
        needs_reaper=needs_reaper,
        calendar_clock=clock,
        channels=channels or Channels(),
    )
    await service.start()
    app = create_app(service)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        try:
            yield Server(service, cluster, store, client, app)
        finally:
            await service.close(RunAborted("operator", "the test is over"))


def begun(store: Store) -> int:
    """Return how many runs were asked for."""
    return sum(each.action == "run.start" for each in store.access.audits(limit=100))


def with_first_tries(store: Store, runs: Iterable[str]) -> set[str]:
    """Return *runs* and the first try of each: on a machine that is busy, a run may be tried once more."""
    found = [store.outcome(run) for run in runs]
    return {each.run for each in found} | {each.first_try.run for each in found if each.first_try is not None}


@pytest.fixture
def store(database: str) -> Any:
    """Open a new store."""
    with Store.open(database) as opened:
        yield opened


@pytest.fixture
def cluster() -> Cluster:
    """Return a simulated API server with a shop."""
    made = Cluster()
    made.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for name in ("stock", "prices"):
        made.add(virtual_service(name))
    return made


Story = Callable[[Server], Coroutine[Any, Any, None]]


@pytest.fixture
def play(store: Store, cluster: Cluster) -> Callable[..., None]:
    """Return what plays a story on a new server."""

    def played(story: Story, **how: Any) -> None:
        async def whole() -> None:
            async with serving(store, cluster, **how) as server:
                await story(server)

        asyncio.run(whole())

    return played


@pytest.fixture
def clock() -> SetClock:
    return SetClock(datetime(2027, 1, 5, 9, 0, tzinfo=UTC))


@pytest.fixture
def hold(store: Store, cluster: Cluster, clock: SetClock) -> Callable[..., None]:
    """Return what plays a story on a server with these documents."""

    def played(text: str, story: Story, **how: Any) -> None:
        async def whole() -> None:
            async with serving(store, cluster, documents=text, clock=clock, **how) as server:
                await story(server)

        asyncio.run(whole())

    return played
