"""
What every mesh does alike: the simulated one, the lab's, and any cluster named by LUFF_TEST_KUBECONFIG.

Each test makes a namespace of its own and deletes it afterwards; nothing else
needs to be there but the kind VirtualService. Of what luff asks of a server
only the refusals of webhooks and roles are left out: a cluster has its own.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from luff.announce import FAULT_INJECTED, Announcement, announce
from luff.clock import SystemClock
from luff.errors import Conflict, LockHeld, MeshError, NotFound, RunAborted
from luff.lock import STOP_ANNOTATION, lease_ref, locked
from luff.mesh import Kind, Mesh, Ref
from luff.mesh.kubernetes import KubernetesMesh
from luff.restore import ask_to_stop
from luff.testing import SimClock, SimMesh
from luff.withdraw import give_back, withdraw
from luff.words import Object
from tests.factories import injection
from tests.mesh.conftest import Run

Case = tuple[Mesh, Run]
RUN = "0123456789abcdef"
OTHER_RUN = "fedcba9876543210"


@contextmanager
def _namespace(mesh: Mesh, run: Run) -> Iterator[str]:
    name = f"luff-test-{uuid.uuid4().hex[:12]}"
    run(mesh.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    yield name
    run(mesh.delete(Ref(Kind.NAMESPACE, "", name)))


@pytest.fixture
def namespace(mesh_and_run: Case) -> Iterator[str]:
    """Return a namespace that is there for this test alone."""
    with _namespace(*mesh_and_run) as name:
        yield name


@pytest.fixture
def server_namespace(server_mesh: KubernetesMesh) -> Iterator[str]:
    """Return the same on a server."""
    with _namespace(server_mesh, asyncio.run) as name:
        yield name


def _virtual_service(namespace: str, **spec: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "stock", "namespace": namespace},
        "spec": {
            "hosts": ["stock"],
            "http": [{"name": "all", "timeout": "5s", "route": [{"destination": {"host": "stock"}, "weight": 100}]}],
            **spec,
        },
    }


@pytest.fixture
def virtual_service(mesh_and_run: Case, namespace: str) -> Object:
    """Return an object to be; where no schema prunes it, with a field that nobody knows."""
    if mesh_and_run[0].kind == "cluster" and not isinstance(mesh_and_run[0], SimMesh):
        return _virtual_service(namespace)
    return _virtual_service(namespace, fromTheFuture={"kept": [1, 2.5, "ü", None, True]})


def test_what_was_created_is_read_back_with_every_field(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run

    async def story() -> None:
        created = await mesh.create(virtual_service)
        assert created["metadata"]["uid"]
        read = await mesh.read(Ref.of(virtual_service))
        assert read == created
        assert read["spec"] == virtual_service["spec"]
        await mesh.delete(Ref.of(virtual_service))

    run(story())


def test_creating_twice_is_a_conflict(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run

    async def story() -> None:
        await mesh.create(virtual_service)
        with pytest.raises(Conflict):
            await mesh.create(virtual_service)
        await mesh.delete(Ref.of(virtual_service))

    run(story())


def test_what_is_not_there_is_not_found(mesh_and_run: Case, namespace: str) -> None:
    mesh, run = mesh_and_run
    nothing = Ref(Kind.VIRTUAL_SERVICE, namespace, "nothing")

    async def story() -> None:
        for call in (
            lambda: mesh.read(nothing),
            lambda: mesh.delete(nothing),
            lambda: mesh.patch(nothing, [{"op": "add", "path": "/spec", "value": {}}]),
        ):
            with pytest.raises(NotFound, match="nothing"):
                await call()

    run(story())


def test_a_patch_is_pinned_by_its_tests(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run
    ref = Ref.of(virtual_service)

    async def story() -> None:
        before = await mesh.create(virtual_service)
        pinned = [
            {"op": "test", "path": "/metadata/uid", "value": before["metadata"]["uid"]},
            {"op": "test", "path": "/metadata/resourceVersion", "value": before["metadata"]["resourceVersion"]},
            {
                "op": "add",
                "path": "/spec/http/0",
                "value": {"name": "new", "route": [{"destination": {"host": "stock"}}]},
            },
        ]
        after = await mesh.patch(ref, pinned)
        assert [route["name"] for route in after["spec"]["http"]] == ["new", "all"]
        assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
        assert after["spec"].get("fromTheFuture") == virtual_service["spec"].get("fromTheFuture")
        with pytest.raises(Conflict):
            await mesh.patch(ref, pinned)
        assert (await mesh.read(ref))["spec"] == after["spec"]
        await mesh.delete(ref)

    run(story())


def test_a_test_that_does_not_hold_applies_nothing(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run
    ref = Ref.of(virtual_service)

    async def story() -> None:
        before = await mesh.create(virtual_service)
        operations = [
            {"op": "remove", "path": "/spec/http/0/timeout"},
            {"op": "test", "path": "/spec/http/0/name", "value": "another"},
        ]
        for dry_run in (True, False):
            with pytest.raises(Conflict):
                await mesh.patch(ref, operations, dry_run=dry_run)
        assert await mesh.read(ref) == before
        await mesh.delete(ref)

    run(story())


def test_a_dry_run_answers_and_changes_nothing(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run
    ref = Ref.of(virtual_service)

    async def story() -> None:
        await mesh.create(virtual_service, dry_run=True)
        with pytest.raises(NotFound):
            await mesh.read(ref)
        before = await mesh.create(virtual_service)
        tried = await mesh.patch(ref, [{"op": "remove", "path": "/spec/http/0/timeout"}], dry_run=True)
        assert "timeout" not in tried["spec"]["http"][0]
        assert await mesh.read(ref) == before
        await mesh.delete(ref)

    run(story())


def test_replacing_needs_the_version_that_was_read(mesh_and_run: Case, namespace: str) -> None:
    mesh, run = mesh_and_run
    lease: Object = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "a-lease", "namespace": namespace},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15},
    }

    async def story() -> None:
        first = await mesh.create(lease)
        second = await mesh.replace({**first, "spec": {**first["spec"], "holderIdentity": "b"}})
        with pytest.raises(Conflict):
            await mesh.replace({**first, "spec": {**first["spec"], "holderIdentity": "c"}})
        assert (await mesh.read(Ref.of(lease)))["spec"]["holderIdentity"] == "b"
        with pytest.raises(Conflict):
            await mesh.delete(Ref.of(lease), resource_version=first["metadata"]["resourceVersion"])
        await mesh.delete(Ref.of(lease), resource_version=second["metadata"]["resourceVersion"])
        with pytest.raises(NotFound):
            await mesh.read(Ref.of(lease))

    run(story())


def test_a_list_says_of_each_item_what_it_is(mesh_and_run: Case, virtual_service: Object, namespace: str) -> None:
    mesh, run = mesh_and_run

    async def story() -> None:
        await mesh.create(virtual_service)
        for where in (namespace, None):
            found = await mesh.list(Kind.VIRTUAL_SERVICE, where)
            [mine] = [each for each in found if each["metadata"]["namespace"] == namespace]
            assert mine["kind"] == "VirtualService"
            assert mine["apiVersion"].startswith("networking.istio.io/")
        assert await mesh.list(Kind.VIRTUAL_SERVICE, "a-namespace-without-any") == []
        await mesh.delete(Ref.of(virtual_service))

    run(story())


def test_the_servers_clock_can_be_read(mesh_and_run: Case) -> None:
    mesh, run = mesh_and_run

    first = run(mesh.server_time_s())

    assert first > 0
    if not type(mesh).__name__.startswith("Sim"):
        assert abs(first - time.time()) < 3600


def test_every_error_names_the_object(mesh_and_run: Case, namespace: str) -> None:
    mesh, run = mesh_and_run

    with pytest.raises(MeshError, match="nothing"):
        run(mesh.read(Ref(Kind.CONFIG_MAP, namespace, "nothing")))


def _clock(mesh: Mesh) -> SimClock | SystemClock:
    return SimClock() if isinstance(mesh, SimMesh) else SystemClock()


def test_a_lease_keeps_another_run_out_and_carries_a_stop(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run
    ref, clock = Ref.of(virtual_service), _clock(mesh)

    async def story() -> RunAborted:
        told: asyncio.Future[RunAborted] = asyncio.get_running_loop().create_future()
        async with locked(mesh, ref, run=RUN, holder="a", clock=clock, stop=told.set_result):
            with pytest.raises(LockHeld, match=f"a/{RUN}"):
                async with locked(mesh, ref, run=OTHER_RUN, holder="b", clock=clock, stop=told.set_result):
                    raise AssertionError("two hold it")
            assert await ask_to_stop(mesh, ref, who="c")
            assert (await mesh.read(lease_ref(ref)))["metadata"]["annotations"][STOP_ANNOTATION] == "c"
            why = await asyncio.wait_for(told, 60)
        with pytest.raises(NotFound):
            await mesh.read(lease_ref(ref))
        return why

    assert "c asked for the end" in run(story()).message


@pytest.mark.parametrize(
    ("note", "kept"),
    [("ü, until then", "ü, until then"), ("ü" * 512, "ü" * 512), ("ü" * 513, "ü" * 510 + "…"), ("x" * 1025, "x" * 1021 + "…")],
)  # fmt: skip
def test_an_event_stands_on_its_object(
    mesh_and_run: Case, virtual_service: Object, namespace: str, note: str, kept: str
) -> None:
    mesh, run = mesh_and_run

    async def story() -> list[Object]:
        there = await mesh.create(virtual_service)
        await announce(mesh, there, Announcement(FAULT_INJECTED, note, await mesh.server_time_s()))
        return await mesh.list(Kind.EVENT, namespace)

    [event] = [each for each in run(story()) if each["reason"] == FAULT_INJECTED]

    assert event["note"] == kept
    assert event["regarding"]["name"] == "stock"
    assert event["type"] == "Warning"


def test_a_twin_goes_in_and_comes_out_by_name(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run
    ref = Ref.of(virtual_service)

    async def story() -> None:
        before = await mesh.create(virtual_service)
        now_s = int(await mesh.server_time_s())
        planned = injection(before, "stock", run=RUN, created_s=now_s, expires_s=now_s + 600)
        live = await mesh.patch(ref, planned.operations)
        assert [route["name"] for route in live["spec"]["http"]] == [*planned.names, "all"]
        with pytest.raises(Conflict):
            await mesh.patch(ref, planned.operations)
        done = await withdraw(mesh, ref, run=RUN, clock=_clock(mesh), pinned=planned.resource_version)
        assert done.removed == planned.names
        assert (await mesh.read(ref))["spec"] == before["spec"]
        # Nothing left to remove, and an outcome that might be unknown: the fence is a real write, and leaves nothing.
        fenced = await withdraw(mesh, ref, run=RUN, clock=_clock(mesh), pinned="999999999999")
        assert fenced.fenced
        after = await mesh.read(ref)
        assert after["spec"] == before["spec"]
        assert not after["metadata"].get("annotations")

    run(story())


def test_a_watch_shows_every_change_after_the_version_that_was_listed(
    server_mesh: KubernetesMesh, server_namespace: str
) -> None:
    object_ = _virtual_service(server_namespace)
    ref = Ref.of(object_)
    path = f"/apis/networking.istio.io/v1/namespaces/{server_namespace}/virtualservices"

    async def story() -> list[Object]:
        listed, _ = await server_mesh._call(ref, "GET", path, [], None, "")
        since = json.loads(listed)["metadata"]["resourceVersion"]
        await server_mesh.create(object_)
        await server_mesh.patch(ref, [{"op": "replace", "path": "/spec/http/0/timeout", "value": "6s"}])
        await server_mesh.delete(ref)
        query = [("watch", "1"), ("resourceVersion", since), ("timeoutSeconds", "1")]
        seen, _ = await server_mesh._call(ref, "GET", path, query, None, "")
        return [json.loads(line) for line in seen.splitlines()]

    seen = asyncio.run(story())

    assert [each["type"] for each in seen] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(each["object"]["metadata"]["resourceVersion"]) for each in seen]
    assert versions == sorted(set(versions))
    assert seen[1]["object"]["spec"]["http"][0]["timeout"] == "6s"


def test_applying_gives_ownership_that_a_twin_takes_and_a_restore_gives_back(
    server_mesh: KubernetesMesh, server_namespace: str
) -> None:
    object_ = _virtual_service(server_namespace)
    ref = Ref.of(object_)
    path = f"/apis/networking.istio.io/v1/namespaces/{server_namespace}/virtualservices/stock"

    async def apply(timeout: str) -> Object:
        object_["spec"]["http"][0]["timeout"] = timeout
        query = [("fieldManager", "gitops")]
        text, _ = await server_mesh._call(ref, "PATCH", path, query, object_, "application/apply-patch+yaml")
        applied: Object = json.loads(text)
        return applied

    async def story() -> None:
        first = await apply("5s")
        assert [entry["manager"] for entry in first["metadata"]["managedFields"]] == ["gitops"]
        twin = {"name": f"luff.1.{RUN}.1.2.0", "route": [{"destination": {"host": "stock"}}]}
        await server_mesh.patch(ref, [{"op": "add", "path": "/spec/http/0", "value": twin}])
        with pytest.raises(Conflict):
            await apply("6s")
        done = await withdraw(server_mesh, ref, run=RUN, clock=SystemClock())
        assert done.object_ is not None
        assert str(await give_back(server_mesh, ref, done.object_)).startswith("returned")
        assert (await apply("7s"))["spec"]["http"][0]["timeout"] == "7s"

    asyncio.run(story())
