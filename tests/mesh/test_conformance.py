"""What every mesh does alike: the simulated one, the lab's, and any cluster named by LUFF_TEST_KUBECONFIG."""

from __future__ import annotations

import time

import pytest

from luff.errors import Conflict, MeshError, NotFound
from luff.mesh import Kind, Mesh, Ref
from luff.words import Object
from tests.mesh.conftest import NAMESPACE, Run

Case = tuple[Mesh, Run]


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


def test_what_is_not_there_is_not_found(mesh_and_run: Case) -> None:
    mesh, run = mesh_and_run
    nothing = Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, "nothing")

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
        assert after["spec"]["fromTheFuture"] == virtual_service["spec"]["fromTheFuture"]
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
            {"op": "remove", "path": "/spec/fromTheFuture"},
            {"op": "test", "path": "/spec/http/0/name", "value": "another"},
        ]
        with pytest.raises(Conflict):
            await mesh.patch(ref, operations)
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
        tried = await mesh.patch(ref, [{"op": "remove", "path": "/spec/fromTheFuture"}], dry_run=True)
        assert "fromTheFuture" not in tried["spec"]
        assert await mesh.read(ref) == before
        await mesh.delete(ref)

    run(story())


def test_replacing_needs_the_version_that_was_read(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run
    lease: Object = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": virtual_service["metadata"]["name"], "namespace": NAMESPACE},
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


def test_a_list_says_of_each_item_what_it_is(mesh_and_run: Case, virtual_service: Object) -> None:
    mesh, run = mesh_and_run

    async def story() -> None:
        await mesh.create(virtual_service)
        for namespace in (NAMESPACE, None):
            found = await mesh.list(Kind.VIRTUAL_SERVICE, namespace)
            [mine] = [each for each in found if each["metadata"]["name"] == virtual_service["metadata"]["name"]]
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


def test_every_error_names_the_object(mesh_and_run: Case) -> None:
    mesh, run = mesh_and_run

    with pytest.raises(MeshError, match="nothing"):
        run(mesh.read(Ref(Kind.CONFIG_MAP, NAMESPACE, "nothing")))
