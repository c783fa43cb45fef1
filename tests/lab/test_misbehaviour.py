"""The lab's API server has bad days on command, each as a real one would have it; seen by luff's own client."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.errors import Conflict, MeshBusy, MeshDenied, NotFound, Rejected
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.model import Object

TOKEN = "a-token-of-the-tests"
OURS = "luff.1.x"
TWIN: Object = {"name": f"{OURS}.0", "route": [{"destination": {"host": "reviews"}}]}


@pytest.fixture(scope="module")
def shared() -> Iterator[ApiServer]:
    server = ApiServer(token=TOKEN, validate=lambda _: ([], []))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(shared: ApiServer) -> Iterator[ApiServer]:
    yield shared
    shared.misbehaviour.clear()


@pytest.fixture
def connect(server: ApiServer, tmp_path: Path) -> Iterator[Callable[..., KubernetesMesh]]:
    """Return what opens luff's client with a token, the lab's own without one."""
    opened: list[KubernetesMesh] = []

    def connected(token: str | None = None) -> KubernetesMesh:
        path = tmp_path / f"config-{len(opened)}"
        server.write_kubeconfig(path, token=token)
        opened.append(KubernetesMesh.connect(Connection(str(path), None, "lab")))
        return opened[-1]

    yield connected
    for each in opened:
        each.close()


@pytest.fixture
def mesh(connect: Callable[..., KubernetesMesh]) -> KubernetesMesh:
    return connect()


@pytest.fixture
def http(server: ApiServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
def reviews(server: ApiServer) -> Ref:
    """Return a VirtualService in a namespace of its own."""
    namespace = f"ns-{uuid.uuid4().hex[:12]}"
    server.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    route = {"name": "main", "route": [{"destination": {"host": "reviews"}}]}
    server.store.put(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews", "namespace": namespace},
            "spec": {"hosts": ["reviews"], "http": [route]},
        }
    )
    return Ref(Kind.VIRTUAL_SERVICE, namespace, "reviews")


def _insert(mesh: KubernetesMesh, ref: Ref, *, dry_run: bool = False) -> Object:
    operation = {"op": "add", "path": "/spec/http/0", "value": TWIN}
    return asyncio.run(mesh.patch(ref, [operation], dry_run=dry_run))


def _remove(mesh: KubernetesMesh, ref: Ref) -> Object:
    return asyncio.run(mesh.patch(ref, [{"op": "remove", "path": "/spec/http/0"}]))


def _routes(mesh: KubernetesMesh, ref: Ref) -> list[Any]:
    found: list[Any] = asyncio.run(mesh.read(ref))["spec"]["http"]
    return found


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_mutating_webhook_adds_fields_to_our_route_and_to_no_other(
    server: ApiServer, mesh: KubernetesMesh, reviews: Ref, dry_run: bool
) -> None:
    server.misbehaviour.add([Rule("mutate", routes=OURS, change={"timeout": "7s", "headers": {"request": {}}})])

    [first, second] = _insert(mesh, reviews, dry_run=dry_run)["spec"]["http"]

    assert first == {**TWIN, "timeout": "7s", "headers": {"request": {}}}
    assert "timeout" not in second
    assert len(_routes(mesh, reviews)) == (1 if dry_run else 2)


@pytest.mark.parametrize(("name", "expected"), [(None, None), ("other", "other"), ("team-{name}", f"team-{OURS}.0")])
def test_a_mutating_webhook_renames_our_route_or_strips_its_name(
    server: ApiServer, mesh: KubernetesMesh, reviews: Ref, name: str | None, expected: str | None
) -> None:
    server.misbehaviour.add([Rule("mutate", routes=OURS, change={"name": name})])

    _insert(mesh, reviews)

    assert [route.get("name") for route in _routes(mesh, reviews)] == [expected, "main"]


def test_a_policy_refuses_what_would_result(server: ApiServer, mesh: KubernetesMesh, reviews: Ref) -> None:
    server.misbehaviour.add([Rule("deny", routes=OURS, when="present", message="no chaos here", times=2)])

    for dry_run in (True, False):
        with pytest.raises((Rejected, MeshDenied), match="no chaos here"):
            _insert(mesh, reviews, dry_run=dry_run)

    assert len(_routes(mesh, reviews)) == 1
    assert len(_insert(mesh, reviews)["spec"]["http"]) == 2


@pytest.mark.parametrize(("when", "code"), [("absent", 403), ("absent", 400), ("always", 422)])
def test_a_policy_refuses_the_way_back(
    server: ApiServer, mesh: KubernetesMesh, reviews: Ref, when: Any, code: int
) -> None:
    _insert(mesh, reviews)
    server.misbehaviour.add([Rule("deny", routes=OURS, when=when, code=code)])

    with pytest.raises((Rejected, MeshDenied, Conflict)):
        _remove(mesh, reviews)

    assert len(_routes(mesh, reviews)) == 2
    _remove(mesh, reviews)
    assert len(_routes(mesh, reviews)) == 1


def test_a_policy_refuses_an_empty_list(server: ApiServer, mesh: KubernetesMesh, reviews: Ref) -> None:
    server.misbehaviour.add([Rule("deny", when="empty")])

    with pytest.raises((Rejected, MeshDenied)):
        _remove(mesh, reviews)


def test_a_webhook_that_fails_closed_is_an_error_of_the_server(
    server: ApiServer, mesh: KubernetesMesh, http: httpx.Client, reviews: Ref
) -> None:
    server.misbehaviour.add([Rule("webhook_down", times=2)])

    with pytest.raises(MeshBusy):
        _insert(mesh, reviews)
    path = f"/apis/networking.istio.io/v1/namespaces/{reviews.namespace}/virtualservices/reviews"
    said = http.patch(path, json={"spec": {"hosts": ["x"]}}, headers={"Content-Type": "application/merge-patch+json"})

    assert said.status_code == 500
    assert 'failed calling webhook "rev.validation.istio.io"' in said.json()["message"]
    # Deletions are none of its business.
    asyncio.run(mesh.delete(reviews))


def test_a_deletion_is_refused_where_the_rule_says_so(server: ApiServer, mesh: KubernetesMesh, reviews: Ref) -> None:
    server.misbehaviour.add([Rule("deny", verb="delete")])

    with pytest.raises((Rejected, MeshDenied)):
        asyncio.run(mesh.delete(reviews))
    asyncio.run(mesh.delete(reviews))


@pytest.mark.parametrize(
    "rule",
    [
        Rule("mutate", verb="delete", change={"timeout": "1s"}),
        Rule("deny", verb="delete", routes="luff.", when="present"),
    ],
    ids=["mutate", "deny when ours are in it"],
)
def test_a_webhook_looks_at_what_is_deleted_as_it_does_at_what_is_written(
    server: ApiServer, mesh: KubernetesMesh, reviews: Ref, rule: Rule
) -> None:
    server.misbehaviour.add([rule])

    asyncio.run(mesh.delete(reviews))

    with pytest.raises(NotFound):
        asyncio.run(mesh.read(reviews))


def test_a_webhook_keeps_one_of_many_from_being_deleted(server: ApiServer, http: httpx.Client, reviews: Ref) -> None:
    server.misbehaviour.add([Rule("deny", verb="deletecollection", when="always")])

    answer = http.delete(f"/apis/networking.istio.io/v1/namespaces/{reviews.namespace}/virtualservices")

    assert answer.status_code == 403


def test_admission_and_the_wire_fail_together(server: ApiServer, mesh: KubernetesMesh, reviews: Ref) -> None:
    server.misbehaviour.add([Rule("mutate", change={"timeout": "1s"}), Rule("delay", verb="patch", seconds=0.01)])

    assert {route["timeout"] for route in _insert(mesh, reviews)["spec"]["http"]} == {"1s"}


def test_a_request_that_is_made_twice_is_done_twice(server: ApiServer, mesh: KubernetesMesh, reviews: Ref) -> None:
    server.misbehaviour.add([Rule("duplicate", verb="patch")])

    assert len(_insert(mesh, reviews)["spec"]["http"]) == 3


def test_of_a_pinned_patch_that_is_made_twice_the_second_fails(
    server: ApiServer, mesh: KubernetesMesh, reviews: Ref
) -> None:
    version = asyncio.run(mesh.read(reviews))["metadata"]["resourceVersion"]
    pinned = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": version},
        {"op": "add", "path": "/spec/http/0", "value": TWIN},
    ]
    server.misbehaviour.add([Rule("duplicate", verb="patch")])

    with pytest.raises(Conflict):
        asyncio.run(mesh.patch(reviews, pinned))

    assert len(_routes(mesh, reviews)) == 2


def test_a_replica_that_has_stopped_shows_one_moment_whatever_happens(
    server: ApiServer, mesh: KubernetesMesh, reviews: Ref
) -> None:
    server.misbehaviour.add([Rule("frozen", plural="virtualservices", times=3)])

    seen = []
    for _ in range(4):
        _insert(mesh, reviews)
        seen.append(len(_routes(mesh, reviews)))

    assert seen == [1, 1, 1, 5]


def test_an_etcd_restored_from_a_backup_goes_back_and_gives_versions_out_again(
    server: ApiServer, mesh: KubernetesMesh, http: httpx.Client, reviews: Ref
) -> None:
    told: list[tuple[str, str]] = []
    assert http.put("/luff/backup").status_code == 204
    before = asyncio.run(mesh.read(reviews))
    with_twin = _insert(mesh, reviews)
    later = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later", "namespace": reviews.namespace}}
    asyncio.run(mesh.create(later))
    newest = server.store.revision
    server.store.subscribe(lambda type_, object_: told.append((type_, object_["metadata"]["name"])))

    watching = {"watch": "true", "resourceVersion": str(newest)}
    path = f"/apis/networking.istio.io/v1/namespaces/{reviews.namespace}/virtualservices"
    with http.stream("GET", path, params=watching) as stream:
        assert http.post("/luff/backup").status_code == 204
        assert list(stream.iter_lines()) == []

    assert asyncio.run(mesh.read(reviews)) == before
    assert server.store.revision < newest
    assert sorted(told) == [("DELETED", "later"), ("MODIFIED", "reviews")]
    with pytest.raises(NotFound):
        asyncio.run(mesh.read(Ref.of(later)))
    # The same version a second time, for something else.
    assert _remove(mesh, reviews)["metadata"]["resourceVersion"] == with_twin["metadata"]["resourceVersion"]


def test_without_a_backup_there_is_nothing_to_go_back_to() -> None:
    server = ApiServer(token=TOKEN)
    server.start()
    try:
        answer = httpx.post(f"{server.url}/luff/backup", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    finally:
        server.stop()

    assert answer.status_code == 404


def test_nothing_new_comes_into_a_namespace_that_is_going(
    mesh: KubernetesMesh, http: httpx.Client, reviews: Ref
) -> None:
    place = f"/api/v1/namespaces/{reviews.namespace}"
    merge = {"Content-Type": "application/merge-patch+json"}
    http.patch(place, content=json.dumps({"metadata": {"finalizers": ["test/held"]}}), headers=merge)
    going = http.delete(place).json()

    assert going["status"]["phase"] == "Terminating"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}
    with pytest.raises(MeshDenied, match="because it is being terminated"):
        asyncio.run(mesh.create({**lease, "metadata": {"name": "l", "namespace": reviews.namespace}}))
    # What is there can still be changed and taken away.
    _insert(mesh, reviews)
    asyncio.run(mesh.delete(reviews))


def test_one_user_may_read_and_not_patch(
    server: ApiServer, connect: Callable[..., KubernetesMesh], http: httpx.Client, reviews: Ref
) -> None:
    assert http.put("/luff/users/reader", content="a-token-of-a-reader").status_code == 204
    server.misbehaviour.add([Rule("forbid", verb="write", plural="virtualservices", user="reader")])
    reader, other = connect("a-token-of-a-reader"), connect()

    assert len(_routes(reader, reviews)) == 1
    for _ in range(2):
        with pytest.raises(MeshDenied, match='User "reader" cannot patch resource "virtualservices"'):
            _insert(reader, reviews)
    assert len(_insert(other, reviews)["spec"]["http"]) == 2


def test_who_asks_what_he_may_do_is_told_so(server: ApiServer, http: httpx.Client) -> None:
    server.add_user("reader", "a-token-of-a-reader")
    server.misbehaviour.add([Rule("forbid", verb="patch", plural="virtualservices", user="reader")])

    def allowed(verb: str, token: str) -> bool:
        asked = {"resourceAttributes": {"verb": verb, "resource": "virtualservices", "namespace": "default"}}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": asked}
        headers = {"Authorization": f"Bearer {token}"}
        answer = http.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review, headers=headers)
        return bool(answer.json()["status"]["allowed"])

    assert [allowed(verb, "a-token-of-a-reader") for verb in ("patch", "get")] == [False, True]
    assert allowed("patch", TOKEN)


def test_who_asks_what_he_may_do_meets_a_bad_day_but_no_role_and_no_webhook(
    server: ApiServer, http: httpx.Client
) -> None:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {}}
    server.misbehaviour.add([Rule("forbid"), Rule("deny"), Rule("status", verb="create", code=503)])

    codes = [http.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review) for _ in range(2)]

    assert [each.status_code for each in codes] == [503, 201]


def test_another_user_commands_no_misbehaviour(server: ApiServer, http: httpx.Client) -> None:
    server.add_user("reader", "a-token-of-a-reader")

    answer = http.delete("/luff/misbehave", headers={"Authorization": "Bearer a-token-of-a-reader"})

    assert answer.status_code == 404


@pytest.mark.parametrize("rule", [{"action": "deny", "when": "sometimes"}, {"action": "mutate", "change": ["x"]}])
def test_a_rule_of_admission_that_means_nothing_is_refused(http: httpx.Client, rule: Object) -> None:
    assert http.post("/luff/misbehave", json=[rule]).status_code == 400


@pytest.mark.parametrize(
    ("warnings", "expected"),
    [
        (["x" * 4096], ["x" * 4096]),
        (["a" * 3000, "b" * 3000, "c"], ["a" * 256, "b" * 256, "c"]),
        ([f"{number:04}" * 75 for number in range(30)], [(f"{number:04}" * 75)[:256] for number in range(16)]),
    ],
    ids=["short enough", "each cut", "no more room"],
)
def test_warnings_are_cut_as_the_real_server_cuts_them(warnings: list[str], expected: list[str]) -> None:
    server = ApiServer(token=TOKEN, validate=lambda _: ([], warnings))
    server.start()
    try:
        with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False) as http:
            rule = {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "gw"}, "spec": {}}
            answer = http.post("/apis/networking.istio.io/v1/namespaces/default/gateways", json=rule)
    finally:
        server.stop()

    assert [text.removeprefix('299 - "').removesuffix('"') for text in answer.headers.get_list("Warning")] == expected
