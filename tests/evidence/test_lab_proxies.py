"""What proxies run, as their own dumps say it: who should have the twins, who has them, and when all do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from luff.clock import SystemClock
from luff.decide import Proxy
from luff.delegates import root_routes
from luff.evidence import Sighting
from luff.evidence.lab_proxies import LabProxies
from luff.mesh_state import MeshState, Service
from luff.model import Abort, Fault, Target
from luff.names import Stamp
from luff.patches import apply
from luff.routes import Injection, inject
from luff.scope import Scope
from luff.selection import select
from luff.settle import await_live
from luff.translate import sidecar_routes
from luff.words import Object

SCOPE = Scope("a" * 32, "b" * 32)
SERVICES = tuple(Service(name, "shop", 80) for name in ("stock", "price"))
CALLERS = {"cart-0": Proxy({"app": "cart"}, "shop"), "page-0": Proxy({"app": "page"}, "shop")}


def _object(name: str, *http: Object, hosts: tuple[str, ...] = ()) -> Object:
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "resourceVersion": "1"}
    spec = {"http": list(http), **({"hosts": list(hosts)} if hosts else {})}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": metadata, "spec": spec}


def _to(host: str, **more: Any) -> Object:
    return {"route": [{"destination": {"host": host}}], **more}


def _injection(*objects: Object) -> Injection:
    """Return what puts twins for stock into the last of *objects*, of which the others may delegate to it."""
    leaf, target = objects[-1], Target(host="stock")
    return inject(
        select(leaf, target, namespace="shop", roots=root_routes(leaf, objects)),
        Stamp("0123456789abcdef", SCOPE, created_s=1_800_000_000, expires_s=1_800_000_600),
        Fault(abort=Abort(http=503)),
    )


def _dump(proxy: Proxy, objects: tuple[Object, ...]) -> Object:
    made = sidecar_routes(MeshState(SERVICES, objects), proxy)
    return {"configs": [{"version_info": "1", "route_config": each} for each in made.values()]}


@asynccontextmanager
async def _admin(dump: Object) -> AsyncIterator[str]:
    """Serve *dump* as it is then, as the admin port of a proxy does."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(dump).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


def _looked(dumps: Mapping[str, Object], injection: Injection) -> Sighting:
    async def story() -> Sighting:
        async with _admin(dumps["cart-0"]) as cart, _admin(dumps["page-0"]) as page:
            plane = LabProxies({"cart-0": cart, "page-0": page, "gone-0": "127.0.0.1:9"})
            found = await plane.look(injection)
            await plane.close()
            return found

    return asyncio.run(story())


DELEGATED = (
    _object("root", {"name": "outer", "delegate": {"name": "leaf"}}, hosts=("stock",)),
    _object("leaf", _to("stock")),
)
PLAIN = (_object("stock", _to("stock"), hosts=("stock",)),)
FOR_CARTS = (_object("stock", _to("stock", match=[{"sourceLabels": {"app": "cart"}}]), _to("price"), hosts=("stock",)),)
FOR_CARTS_BY_ROOT = (
    _object(
        "root",
        {"match": [{"sourceLabels": {"app": "cart"}}], "delegate": {"name": "leaf"}},
        _to("price"),
        hosts=("stock",),
    ),
    _object("leaf", _to("stock")),
)


@pytest.mark.parametrize(
    ("objects", "concerned"),
    [
        pytest.param(PLAIN, {"cart-0", "page-0"}, id="its own object"),
        pytest.param(DELEGATED, {"cart-0", "page-0"}, id="a delegate, known by its root alone"),
        pytest.param(FOR_CARTS, {"cart-0"}, id="a route that only some callers have"),
        pytest.param(FOR_CARTS_BY_ROOT, {"cart-0"}, id="a delegate that only some callers have"),
    ],
)
def test_who_has_an_original_should_have_its_twin(objects: tuple[Object, ...], concerned: set[str]) -> None:
    injection = _injection(*objects)
    after = (*objects[:-1], apply(objects[-1], injection.operations))

    before = _looked({name: _dump(proxy, objects) for name, proxy in CALLERS.items()}, injection)
    assert before == Sighting(
        frozenset(concerned), {"cart-0": frozenset(), "page-0": frozenset()}, frozenset({"gone-0"})
    )

    now = _looked({name: _dump(proxy, after) for name, proxy in CALLERS.items()}, injection)
    assert now.concerned == concerned
    assert {name for name, twins in now.names.items() if twins} == concerned


@pytest.mark.parametrize("objects", [PLAIN, DELEGATED], ids=["its own object", "a delegate"])
def test_it_is_live_only_when_the_last_of_the_callers_has_it(objects: tuple[Object, ...]) -> None:
    injection = _injection(*objects)
    after = (*objects[:-1], apply(objects[-1], injection.operations))
    late = _dump(CALLERS["page-0"], objects)

    class OnTheThirdLook(LabProxies):
        looks = 0

        async def look(self, injection: Injection) -> Sighting:
            self.looks += 1
            if self.looks == 3:
                late.update(_dump(CALLERS["page-0"], after))
            return await super().look(injection)

    async def story() -> None:
        async with _admin(_dump(CALLERS["cart-0"], after)) as cart, _admin(late) as page:
            plane = OnTheThirdLook({"cart-0": cart, "page-0": page})
            settled = await await_live(plane, injection, clock=SystemClock())
            await plane.close()
        assert (settled.state, settled.looks, settled.where) == ("live", 3, ("cart-0", "page-0"))

    asyncio.run(story())


@pytest.mark.parametrize("body", [{}, {"configs": None}, [], {"configs": [{"route_config": {"routes": [None, "x"]}}]}])
def test_a_dump_that_makes_no_sense_shows_nothing(body: Any) -> None:
    assert _looked({"cart-0": body, "page-0": body}, _injection(*PLAIN)).concerned == frozenset()
