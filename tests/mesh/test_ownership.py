"""Field ownership after a run: given back, so that the next applier meets no conflict."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import yaml

from luff.clock import SystemClock
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.mesh import Operation, Ref
from luff.mesh.kubernetes import KubernetesMesh
from luff.restore import find_injected, put_back
from luff.withdraw import Withdrawal, give_back, withdraw
from luff.words import Object

RUN = "0123456789abcdef"
TWIN: Object = {
    "name": f"luff.1.{RUN}.1000.1600.0",
    "match": [{"headers": {"x-luff-run": {"prefix": "s" * 32}}}],
    "route": [{"destination": {"host": "stock"}}],
    "fault": {"abort": {"httpStatus": 503, "percentage": {"value": 100}}},
}
INSERT: list[Operation] = [{"op": "add", "path": "/spec/http/0", "value": TWIN}]


class Applier:
    """This is somebody who applies their manifest by server-side apply, and never by force."""

    def __init__(self, server: ApiServer, manifest: Object) -> None:
        self._server = server
        self._manifest = manifest

    def apply(self) -> httpx.Response:
        metadata = self._manifest["metadata"]
        path = f"/apis/networking.istio.io/v1/namespaces/{metadata['namespace']}/virtualservices/{metadata['name']}"
        return httpx.patch(
            f"{self._server.url}{path}",
            params={"fieldManager": "helm"},
            content=yaml.safe_dump(self._manifest),
            headers={"Content-Type": "application/apply-patch+yaml", "Authorization": "Bearer t0ken"},
            trust_env=False,
        )


def managers(object_: Object) -> set[str]:
    """Return who owns ``spec.http``."""
    entries: list[dict[str, Any]] = object_["metadata"]["managedFields"]
    return {entry["manager"] for entry in entries if "f:http" in entry["fieldsV1"].get("f:spec", {})}


@pytest.fixture
def applier(server: ApiServer, virtual_service: Object) -> Applier:
    """Return who has applied the object."""
    made = Applier(server, virtual_service)
    assert made.apply().is_success
    return made


def test_an_applier_gets_its_routes_back_without_a_conflict(
    adapter: KubernetesMesh, virtual_service: Object, applier: Applier
) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> tuple[Object, str | None, Object]:
        await adapter.patch(ref, INSERT)
        done = await withdraw(adapter, ref, run=RUN, clock=SystemClock())
        assert done.object_ is not None
        said = await give_back(adapter, ref, done.object_)
        return done.object_, said, await adapter.read(ref)

    before, said, after = asyncio.run(story())

    assert managers(before) == {"luff"}
    assert said is not None
    assert said.startswith("returned")
    assert managers(after) == set()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    virtual_service["spec"]["http"][0]["timeout"] = "3s"
    answer = applier.apply()
    assert answer.is_success, answer.text
    assert managers(answer.json()) == {"helm"}


def test_without_giving_back_the_next_apply_would_be_a_conflict(
    adapter: KubernetesMesh, virtual_service: Object, applier: Applier
) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> None:
        await adapter.patch(ref, INSERT)
        await withdraw(adapter, ref, run=RUN, clock=SystemClock())

    asyncio.run(story())

    virtual_service["spec"]["http"][0]["timeout"] = "3s"
    assert applier.apply().status_code == 409


def test_what_somebody_wrote_meanwhile_stays(
    adapter: KubernetesMesh, virtual_service: Object, applier: Applier
) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> tuple[str | None, Object]:
        await adapter.patch(ref, INSERT)
        done = await withdraw(adapter, ref, run=RUN, clock=SystemClock())
        assert done.object_ is not None
        await adapter.patch(ref, [{"op": "add", "path": "/metadata/labels", "value": {"by": "hand"}}])
        said = await give_back(adapter, ref, done.object_)
        return said, await adapter.read(ref)

    said, after = asyncio.run(story())

    assert str(said).startswith("returned")
    assert after["metadata"]["labels"] == {"by": "hand"}
    assert managers(after) == set()


def test_nothing_is_given_back_while_twins_of_another_run_are_there(
    adapter: KubernetesMesh, virtual_service: Object, applier: Applier
) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> tuple[str | None, Object]:
        there = await adapter.patch(ref, INSERT)
        return await give_back(adapter, ref, there), await adapter.read(ref)

    said, after = asyncio.run(story())

    assert said == "not returned: another run has twins in the object"
    assert managers(after) == {"luff"}


def test_what_was_never_ours_is_not_touched(adapter: KubernetesMesh, virtual_service: Object, applier: Applier) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> tuple[Object, str | None, Object]:
        before = await adapter.read(ref)
        return before, await give_back(adapter, ref, before), await adapter.read(ref)

    before, said, after = asyncio.run(story())

    assert said is None
    assert after == before


def test_a_server_that_does_not_answer_is_said_and_nothing_else(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, applier: Applier
) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> str | None:
        await adapter.patch(ref, INSERT)
        done = await withdraw(adapter, ref, run=RUN, clock=SystemClock())
        assert done.object_ is not None
        server.misbehaviour.add([Rule("status", verb="patch", plural="virtualservices", code=503)])
        return await give_back(adapter, ref, done.object_)

    assert str(asyncio.run(story())).startswith("not returned: ")


def test_a_restore_that_anybody_asks_for_gives_it_back_as_well(
    adapter: KubernetesMesh, virtual_service: Object, applier: Applier
) -> None:
    ref = Ref.of(virtual_service)

    async def story() -> Object:
        await adapter.patch(ref, INSERT)
        found, _ = await find_injected(adapter, [ref.namespace])
        [mine] = [each for each in found if each.ref == ref]
        [done] = await put_back(adapter, [mine], clock=SystemClock(), patience_s=30.0)
        assert isinstance(done, Withdrawal)
        return await adapter.read(ref)

    after = asyncio.run(story())

    assert managers(after) == set()
    assert applier.apply().status_code == 200
