"""The lab's API server says and does what a real one does."""

from __future__ import annotations

import asyncio
import copy
import json
import stat
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client, config, watch

from luff.errors import Conflict, LabError, MeshBusy, MeshDenied, MeshUnreachable, NotFound, Rejected
from luff.lab.api import ApiServer
from luff.lab.objects import HISTORY
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh

TOKEN = "a-token-of-the-tests"
OFFSET_S = 3600.0
ISTIO = "/apis/networking.istio.io/v1"
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}


def _validate(object_: dict[str, Any]) -> tuple[list[str], list[str]]:
    hosts = (object_.get("spec") or {}).get("hosts", [])
    problems = [f"bad host {host}" for host in hosts if host.startswith("bad")]
    return problems, [f"odd host {host}: é" for host in hosts if host.startswith("odd")]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    server = ApiServer(token=TOKEN, clock_offset_s=OFFSET_S, validate=_validate)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def http(server: ApiServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}", "User-Agent": "tester/1.0"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, verify=False, timeout=20) as client:
        yield client
        client.delete("/luff/misbehave")


@pytest.fixture
def namespace(server: ApiServer) -> str:
    name = f"ns-{uuid.uuid4().hex[:12]}"
    server.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
def services(namespace: str) -> str:
    return f"{ISTIO}/namespaces/{namespace}/virtualservices"


@pytest.fixture
def mesh(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesMesh]:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    server.write_kubeconfig(tmp_path / "config")
    mesh = KubernetesMesh.connect(Connection(str(tmp_path / "config"), None, "lab"))
    yield mesh
    mesh.close()
    server.misbehaviour.clear()


def _virtual_service(name: str = "reviews", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, **metadata},
        "spec": {
            "hosts": ["reviews"],
            "http": [{"name": "main", "route": [{"destination": {"host": "reviews", "subset": "v1"}, "weight": 20}]}],
        },
    }


def _config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@contextmanager
def _watching(http: httpx.Client, path: str, **query: Any) -> Iterator[Iterator[dict[str, Any]]]:
    with http.stream("GET", path, params={"watch": "true", "timeoutSeconds": "20", **query}) as response:
        assert response.status_code == 200
        yield (json.loads(line) for line in response.iter_lines())


def _misbehave(http: httpx.Client, **rule: Any) -> None:
    assert http.post("/luff/misbehave", json=[rule]).status_code == 200


def test_what_is_created_has_what_the_server_adds(http: httpx.Client, services: str, namespace: str) -> None:
    answer = http.post(services, json=_virtual_service())

    made = answer.json()
    assert answer.status_code == 201
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["namespace"] == namespace
    assert uuid.UUID(made["metadata"]["uid"]).version == 4
    assert int(made["metadata"]["resourceVersion"]) > 0
    assert made["metadata"]["managedFields"][0]["manager"] == "tester"
    assert made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"] == {"f:hosts": {}, "f:http": {}}
    assert http.get(f"{services}/reviews").json() == made


def test_nulls_are_stored_as_the_real_one_does(http: httpx.Client, services: str) -> None:
    wanted = _virtual_service(annotations=None)
    wanted["spec"] |= {"gateways": None, "unheardOf": None}
    wanted["spec"]["http"][0] |= {"match": None, "mirrorPercent": None, "headers": {"request": None}}

    made = http.post(services, json=wanted)

    assert made.status_code == 201, made.text
    kept = http.get(f"{services}/reviews").json()
    route = {**_virtual_service()["spec"]["http"][0], "mirrorPercent": None, "headers": {}}
    assert kept["spec"] == {"hosts": ["reviews"], "http": [route], "unheardOf": None}
    assert "annotations" not in kept["metadata"]
    assert (
        json.loads(
            http.patch(
                f"{services}/reviews",
                content='[{"op": "add", "path": "/spec/http/0/match", "value": null}]',
                headers=JSON_PATCH,
            ).text
        )
        == kept
    )


def test_a_service_and_a_lease_have_no_generation(http: httpx.Client, namespace: str) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}

    made = [
        http.post(f"/api/v1/namespaces/{namespace}/configmaps", json=_config_map("c")).json(),
        http.post(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", json=lease).json(),
    ]

    assert [object_["metadata"].get("generation") for object_ in made] == [None, None]


def test_the_clock_of_the_server_is_its_own(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=_virtual_service())

    told = parsedate_to_datetime(made.headers["Date"])
    created = datetime.fromisoformat(made.json()["metadata"]["creationTimestamp"])
    assert abs((told - created).total_seconds()) < 30
    assert abs((told - datetime.now(UTC)).total_seconds() - OFFSET_S) < 60


@pytest.mark.parametrize(
    ("method", "name", "body", "code", "reason", "said"),
    [
        ("GET", "none", None, 404, "NotFound", 'virtualservices.networking.istio.io "none" not found'),
        ("DELETE", "none", None, 404, "NotFound", 'virtualservices.networking.istio.io "none" not found'),
        ("POST", "", _virtual_service(), 409, "AlreadyExists", '"reviews" already exists'),
        ("POST", "", _virtual_service("Bad_Name"), 422, "Invalid", "a lowercase RFC 1123 subdomain must consist of"),
        ("POST", "", _virtual_service(labels={"a": "b c"}), 422, "Invalid", "metadata.labels: Invalid value"),
        (
            "POST",
            "",
            _virtual_service("x", resourceVersion="1"),
            500,
            None,
            "should not be set on objects to be created",
        ),
        ("POST", "", _virtual_service("x", namespace="other"), 400, "BadRequest", "does not match the namespace sent"),
        ("POST", "", {**_virtual_service(), "apiVersion": "v1"}, 400, "BadRequest", "does not match the expected API"),
        ("POST", "", {"kind": "x"}, 400, "BadRequest", "'apiVersion' is missing"),
        ("PUT", "reviews", _virtual_service(), 422, "Invalid", "0x0: must be specified for an update"),
        ("PUT", "reviews", _virtual_service("other"), 400, "BadRequest", "does not match the name on the URL"),
        ("PUT", "reviews", _virtual_service(resourceVersion="1"), 409, "Conflict", "the object has been modified"),
        ("PUT", "none", _virtual_service("none", resourceVersion="1"), 404, "NotFound", "not found"),
        ("POST", "reviews", _virtual_service(), 405, "MethodNotAllowed", "does not allow this method"),
    ],
)
def test_a_refusal_is_worded_as_the_real_one(
    http: httpx.Client, services: str, method: str, name: str, body: Any, code: int, reason: str | None, said: str
) -> None:
    http.post(services, json=_virtual_service())

    answer = http.request(method, f"{services}/{name}".rstrip("/"), json=body)

    assert (answer.status_code, answer.json().get("reason")) == (code, reason)
    assert said in answer.json()["message"]
    assert answer.json()["kind"] == "Status"
    assert answer.json()["code"] == code


def test_a_stale_put_is_told_in_the_real_words(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=_virtual_service()).json()
    made["spec"]["hosts"] = ["a"]
    assert http.put(f"{services}/reviews", json=made).status_code == 200

    answer = http.put(f"{services}/reviews", json=made)

    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Operation cannot be fulfilled on virtualservices.networking.istio.io "reviews": the object has been '
        "modified; please apply your changes to the latest version and try again",
        "reason": "Conflict",
        "details": {"name": "reviews", "group": "networking.istio.io", "kind": "virtualservices"},
        "code": 409,
    }


def test_nothing_can_be_created_in_a_namespace_that_is_not_there(http: httpx.Client) -> None:
    answer = http.post(f"{ISTIO}/namespaces/nowhere/virtualservices", json=_virtual_service())

    assert (answer.status_code, answer.json()["message"]) == (404, 'namespaces "nowhere" not found')
    assert http.get(f"{ISTIO}/namespaces/nowhere/virtualservices").json()["items"] == []


@pytest.mark.parametrize("path", ["/apis/x/v1/y", "/apis/networking.istio.io/v2/virtualservices", "/api/v1", "/nope"])
def test_a_path_that_means_nothing_is_not_found(http: httpx.Client, path: str) -> None:
    expected = 200 if path == "/api/v1" else 404

    assert http.get(path).status_code == expected


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Impersonate-User": "x"}])
def test_without_the_token_there_is_only_health(server: ApiServer, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, verify=False) as http:
        codes = {
            path: http.get(path).status_code for path in ("/healthz", "/readyz", "/livez", "/version", "/api", "/apis")
        }
        refused = http.post("/luff/misbehave", json=[])

    assert codes == {"/healthz": 200, "/readyz": 200, "/livez": 200, "/version": 200, "/api": 401, "/apis": 401}
    assert (refused.status_code, refused.json()["message"]) == (401, "Unauthorized")


def test_the_three_versions_are_one_object(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service())

    for version in ("v1", "v1beta1", "v1alpha3"):
        found = http.get(f"{services}/reviews".replace("/v1/", f"/{version}/")).json()
        assert found["apiVersion"] == f"networking.istio.io/{version}"
        assert found["spec"] == _virtual_service()["spec"]


def test_both_groups_of_events_are_one(http: httpx.Client, namespace: str) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": "x."},
        "regarding": {"kind": "VirtualService", "name": "reviews", "namespace": namespace},
        "note": "hello",
        "reason": "Injected",
        "type": "Warning",
        "action": "FaultInjected",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "luff",
        "reportingInstance": "luff-0",
    }

    made = http.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", json=event).json()

    query = {"fieldSelector": "involvedObject.name=reviews"}
    [old] = http.get(f"/api/v1/namespaces/{namespace}/events", params=query).json()["items"]
    assert made["note"] == "hello"
    assert made["metadata"]["name"].startswith("x.")
    assert (old["message"], old["involvedObject"]["name"], old["reportingComponent"]) == ("hello", "reviews", "luff")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"eventTime": None}, "eventTime"),
        ({"reportingController": ""}, "reportingController"),
        ({"reportingInstance": ""}, "reportingInstance"),
        ({"action": ""}, "action"),
        ({"note": "ü" * 513}, "message"),
        ({"reportingInstance": "x" * 129}, "reportingInstance"),
    ],
)
def test_an_event_of_the_new_group_says_who_when_and_what_in_so_many_bytes(
    http: httpx.Client, namespace: str, change: dict[str, Any], field: str
) -> None:
    whole = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": "x."},
        "regarding": {"kind": "VirtualService", "name": "reviews", "namespace": namespace},
        "note": "ü" * 512,
        "reason": "Injected",
        "type": "Warning",
        "action": "FaultInjected",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "luff",
        "reportingInstance": "luff-0",
    }
    events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"

    answers = [http.post(events, json={**whole, **more}) for more in ({}, change)]

    assert [answer.status_code for answer in answers] == [201, 422]
    assert f": {field}: " in answers[1].json()["message"]


def test_an_event_of_the_old_group_need_not_say_more(http: httpx.Client, namespace: str) -> None:
    about = {"kind": "VirtualService", "name": "reviews", "namespace": namespace}
    event = {"metadata": {"generateName": "x."}, "involvedObject": about, "message": "x" * 2000}

    answer = http.post(f"/api/v1/namespaces/{namespace}/events", json=event)

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ([{"op": "test", "path": "/spec/http/0/name", "value": "main"}], 200),
        ([{"op": "test", "path": "/spec/http/0/name", "value": "other"}], 422),
        ([{"op": "test", "path": "/spec/http/0/route/0/weight", "value": 20}], 200),
        ([{"op": "test", "path": "/spec/absent", "value": None}], 200),
        ([{"op": "test", "path": "/spec/absent", "value": 1}], 422),
        ([{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}], 422),
        ([{"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}], 409),
        ([{"op": "replace", "path": "/metadata/uid", "value": str(uuid.uuid4())}], 409),
        ([{"op": "replace", "path": "/metadata/name", "value": "x"}], 422),
        ([{"op": "remove", "path": "/spec/absent"}], 422),
        ([{"op": "remove", "path": "/spec/http/7"}], 422),
        ([{"op": "add", "path": "/metadata/annotations/x", "value": "y"}], 422),
        ([{"op": "add", "path": "/spec/http/2", "value": {}}], 422),
        ([{"op": "add", "path": "/spec/http/1", "value": {}}], 200),
        ([{"op": "jump", "path": "/spec"}], 422),
        ([{"op": "add", "path": "/spec/x", "value": 1}] * 10_001, 413),
        ({"op": "add"}, 400),
    ],
)
def test_a_json_patch_is_answered_as_the_real_one(
    http: httpx.Client, services: str, operations: Any, code: int
) -> None:
    http.post(services, json=_virtual_service())

    answer = http.patch(f"{services}/reviews", content=json.dumps(operations), headers=JSON_PATCH)

    assert answer.status_code == code
    if code == 422 and operations[0]["path"] != "/metadata/name":
        assert answer.json()["message"] == "the server rejected our request due to an error in our request"
        assert "causes" not in answer.json()["details"]


@pytest.mark.parametrize(
    ("written", "code"),
    [('"a&b é"', 422), ('"a\\u0026b é"', 200), ('"a\\u0026b \\u00e9"', 422), ('"a\\u0026b é" ', 200)],
)
def test_a_test_compares_strings_as_they_are_written(
    http: httpx.Client, services: str, written: str, code: int
) -> None:
    http.post(services, json=_virtual_service(annotations={"x": "a&b é"}))

    body = f'[{{"op": "test", "path": "/metadata/annotations/x", "value": {written}}}]'
    answer = http.patch(f"{services}/reviews", content=body, headers=JSON_PATCH)

    assert answer.status_code == code


@pytest.mark.parametrize(("written", "code"), [("20", 200), ("20.0", 422), ("2e1", 422)])
def test_a_test_compares_numbers_as_they_are_written(
    http: httpx.Client, services: str, written: str, code: int
) -> None:
    http.post(services, json=_virtual_service())

    body = f'[{{"op": "test", "path": "/spec/http/0/route/0/weight", "value": {written}}}]'
    answer = http.patch(f"{services}/reviews", content=body, headers=JSON_PATCH)

    assert answer.status_code == code


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        ("application/strategic-merge-patch+json", b"{}", 415),
        ("application/json", b"{}", 415),
        ("application/merge-patch+json", b"{", 400),
        ("application/merge-patch+json", b"[]", 400),
        ("application/json-patch+json", b"[", 400),
        ("application/merge-patch+json", b" " * (3 * 1024 * 1024 + 1), 413),
        ("application/merge-patch+json", json.dumps({"spec": {"x": "y" * 1_600_000}}).encode(), 500),
        ("application/apply-patch+yaml", b"{}", 422),
    ],
)
def test_a_patch_that_cannot_be_taken_is_refused(
    http: httpx.Client, services: str, content_type: str, body: bytes, code: int
) -> None:
    made = http.post(services, json=_virtual_service()).json()

    answer = http.patch(f"{services}/reviews", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == code
    assert http.get(f"{services}/reviews").json() == made


def test_a_merge_patch_changes_what_it_names_and_takes_nulls_away(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=_virtual_service(annotations={"a": "1", "b": "2"})).json()

    patch = {"metadata": {"annotations": {"a": None}}, "spec": {"gateways": ["mesh"]}}
    changed = http.patch(f"{services}/reviews", content=json.dumps(patch), headers=MERGE_PATCH).json()

    assert changed["metadata"]["annotations"] == {"b": "2"}
    assert changed["spec"] == {**made["spec"], "gateways": ["mesh"]}
    assert changed["metadata"]["generation"] == 2


def test_a_resource_version_in_a_merge_patch_is_a_precondition(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=_virtual_service()).json()
    metadata = {"resourceVersion": made["metadata"]["resourceVersion"]}

    codes = [
        http.patch(
            f"{services}/reviews",
            content=json.dumps({"metadata": metadata, "spec": {"gateways": [gateway]}}),
            headers=MERGE_PATCH,
        ).status_code
        for gateway in ("a", "b")
    ]

    assert codes == [200, 409]


def test_an_annotation_does_not_bump_the_generation(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service())

    patch = json.dumps({"metadata": {"annotations": {"a": "1"}}})
    changed = http.patch(f"{services}/reviews", content=patch, headers=MERGE_PATCH).json()

    assert changed["metadata"]["generation"] == 1


def test_a_write_that_changes_nothing_leaves_version_and_watchers_alone(
    http: httpx.Client, server: ApiServer, services: str, namespace: str
) -> None:
    made = http.post(services, json=_virtual_service()).json()
    before = server.store.revision

    put = http.put(f"{services}/reviews", json=made).json()
    patched = http.patch(f"{services}/reviews", content=json.dumps({"spec": made["spec"]}), headers=MERGE_PATCH).json()

    assert put == patched == made
    assert server.store.revision == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_dry_run_is_answered_and_leaves_nothing(
    http: httpx.Client, server: ApiServer, services: str, method: str
) -> None:
    made = http.post(services, json=_virtual_service()).json()
    body = _virtual_service("other") if method == "POST" else copy.deepcopy(made)
    body["spec"]["hosts"] = ["changed"]
    before = server.store.revision

    path = services if method == "POST" else f"{services}/reviews"
    content = None if method == "DELETE" else json.dumps(body)
    headers = MERGE_PATCH if method == "PATCH" else {"Content-Type": "application/json"}
    answer = http.request(method, path, params={"dryRun": "All"}, content=content, headers=headers)

    assert answer.is_success
    if content:
        assert answer.json()["spec"]["hosts"] == ["changed"]
    assert server.store.revision == before
    assert [item["metadata"]["name"] for item in http.get(services).json()["items"]] == ["reviews"]


def test_the_webhook_refuses_and_warns_also_in_a_dry_run(http: httpx.Client, services: str) -> None:
    bad, odd = _virtual_service("bad"), _virtual_service("odd")
    bad["spec"]["hosts"], odd["spec"]["hosts"] = ["bad1", "bad2"], ["odd"]

    refused = http.post(services, json=bad, params={"dryRun": "All"})
    warned = http.post(services, json=odd, params={"dryRun": "All"})

    assert refused.status_code == 400
    assert refused.json()["message"] == (
        'admission webhook "rev.validation.istio.io" denied the request: '
        "configuration is invalid: bad host bad1; bad host bad2"
    )
    assert warned.status_code == 201
    assert warned.headers["Warning"] == '299 - "odd host odd: é"'


def test_the_status_is_written_only_by_its_own_path(http: httpx.Client, services: str) -> None:
    made = http.post(services, json={**_virtual_service(), "status": {"a": 1}}).json()
    assert "status" not in made

    patch = json.dumps({"status": {"a": 2}, "spec": {"hosts": ["no"]}})
    by_status = http.patch(f"{services}/reviews/status", content=patch, headers=MERGE_PATCH).json()
    by_object = http.patch(f"{services}/reviews", content=json.dumps({"status": {"a": 3}}), headers=MERGE_PATCH).json()

    assert (by_status["status"], by_status["spec"]["hosts"]) == ({"a": 2}, ["reviews"])
    assert by_status["metadata"]["generation"] == 1
    assert by_object["status"] == {"a": 2}


def test_annotations_have_a_limit(http: httpx.Client, services: str) -> None:
    answer = http.post(services, json=_virtual_service(annotations={"a": "x" * 262_144}))

    assert answer.status_code == 422
    assert "Too long: may not be more than 262144 bytes" in answer.json()["message"]


def test_applying_from_two_sides_conflicts_until_it_is_forced(http: httpx.Client, services: str) -> None:
    first = {**_virtual_service(), "spec": {"hosts": ["a"], "gateways": ["mesh"]}}
    second = {**_virtual_service(), "spec": {"hosts": ["b"]}}

    def apply(manager: str, object_: dict[str, Any], **query: str) -> httpx.Response:
        content, params = json.dumps(object_), {"fieldManager": manager, **query}
        return http.patch(f"{services}/reviews", content=content, headers=APPLY, params=params)

    created, again = apply("one", first), apply("one", first)
    refused, forced = apply("two", second), apply("two", second, force="true")
    shrunk = apply("one", {**first, "spec": {}})

    assert [answer.status_code for answer in (created, again, refused, forced, shrunk)] == [201, 200, 409, 200, 200]
    assert again.json() == created.json()
    assert (
        refused.json()["message"]
        == 'Apply failed with 1 conflict: conflict with "one" using networking.istio.io/v1: .spec.hosts'
    )
    assert forced.json()["spec"] == {"hosts": ["b"], "gateways": ["mesh"]}
    assert shrunk.json()["spec"] == {"hosts": ["b"]}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("app=a", ["one"]), ("app==a", ["one"]), ("app!=a", ["three", "two"]), ("app in (a, b)", ["one", "two"]),
        ("app notin (a)", ["three", "two"]), ("app", ["one", "two"]), ("!app", ["three"]), ("app,app!=a", ["two"]),
        ("app in (a,b),tier=x", ["two"]),
    ],
)  # fmt: skip
def test_labels_select(http: httpx.Client, services: str, selector: str, names: list[str]) -> None:
    for name, labels in (("one", {"app": "a"}), ("two", {"app": "b", "tier": "x"}), ("three", {})):
        http.post(services, json=_virtual_service(name, labels=labels))

    found = http.get(services, params={"labelSelector": selector}).json()["items"]

    assert [item["metadata"]["name"] for item in found] == names


def test_fields_select_and_unknown_ones_are_refused(http: httpx.Client, services: str, namespace: str) -> None:
    for name in ("one", "two"):
        http.post(services, json=_virtual_service(name))

    everywhere = f"{ISTIO}/virtualservices"
    found = http.get(everywhere, params={"fieldSelector": f"metadata.name=two,metadata.namespace={namespace}"}).json()
    refused = http.get(everywhere, params={"fieldSelector": "spec.hosts=x"})

    assert [item["metadata"]["name"] for item in found["items"]] == ["two"]
    assert (refused.status_code, refused.json()["message"]) == (400, "field label not supported: spec.hosts")


def test_pages_show_one_moment(http: httpx.Client, services: str) -> None:
    for name in ("a", "b", "c"):
        http.post(services, json=_virtual_service(name))

    first = http.get(services, params={"limit": "2"}).json()
    http.delete(f"{services}/c")
    http.post(services, json=_virtual_service("d"))
    second = http.get(services, params={"limit": "2", "continue": first["metadata"]["continue"]}).json()

    assert first["metadata"]["remainingItemCount"] == 1
    assert [item["metadata"]["name"] for item in second["items"]] == ["c"]
    assert second["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


def test_a_watch_tells_every_change_after_its_version(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service("before"))
    since = http.get(services).json()["metadata"]["resourceVersion"]
    http.post(services, json=_virtual_service("a"))

    with _watching(http, services, resourceVersion=since) as events:
        seen = [next(events)]
        http.patch(f"{services}/a", content=json.dumps({"spec": {"gateways": ["x"]}}), headers=MERGE_PATCH)
        http.delete(f"{services}/a")
        seen += [next(events), next(events)]

    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(set(versions))


def test_a_watch_sees_objects_enter_and_leave_its_selector(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service("a"))
    since = http.get(services).json()["metadata"]["resourceVersion"]

    with _watching(http, services, resourceVersion=since, labelSelector="app=x") as events:
        for value in ("x", "y"):
            content = json.dumps({"metadata": {"labels": {"app": value}}})
            http.patch(f"{services}/a", content=content, headers=MERGE_PATCH)
        seen = [next(events)["type"], next(events)["type"]]

    assert seen == ["ADDED", "DELETED"]


def test_a_watch_without_a_version_begins_with_what_is_there(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}

    with _watching(http, services) as plain, _watching(http, services, **query) as streamed:
        assert next(plain)["type"] == "ADDED"
        assert next(streamed)["type"] == "ADDED"
        bookmark = next(streamed)

    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_watch_ends_in_time(http: httpx.Client, services: str) -> None:
    since = http.get(services).json()["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": since, "timeoutSeconds": "0", "allowWatchBookmarks": "true"}

    lines = http.get(services, params={**query, "timeoutSeconds": "1"}).text.splitlines()

    assert [json.loads(line)["type"] for line in lines] == ["BOOKMARK"]


def test_a_watch_from_too_long_ago_is_told_so() -> None:
    server = ApiServer(token=TOKEN)
    server.start()
    try:
        for number in range(HISTORY + 10):
            server.store.put({**_config_map("c", a=str(number))})
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=server.url, headers=headers, trust_env=False, verify=False) as http:
            query = {"watch": "1", "resourceVersion": "2", "timeoutSeconds": "5"}
            event = json.loads(http.get("/api/v1/configmaps", params=query).text)
            exact = http.get("/api/v1/configmaps", params={"resourceVersion": "2", "resourceVersionMatch": "Exact"})
    finally:
        server.stop()

    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    assert "too old resource version: 2" in event["object"]["message"]
    assert exact.status_code == 410


def test_a_table_is_what_kubectl_asks_for(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service("a"))

    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = http.get(services, headers=headers).json()

    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Gateways", "Hosts", "Age"]
    assert table["rows"][0]["cells"][:3] == ["a", "", '["reviews"]']
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_a_delete_holds_to_its_preconditions(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=_virtual_service()).json()["metadata"]

    def delete(**conditions: str) -> httpx.Response:
        return http.request(
            "DELETE", f"{services}/reviews", json={"kind": "DeleteOptions", "preconditions": conditions}
        )

    refused = [delete(uid="x"), delete(resourceVersion="1")]
    done = delete(uid=made["uid"], resourceVersion=made["resourceVersion"])

    assert [answer.status_code for answer in refused] == [409, 409]
    assert "does not match the UID in record" in refused[0].json()["message"]
    assert "does not match the ResourceVersion in record" in refused[1].json()["message"]
    assert done.json()["status"] == "Success"
    assert done.json()["details"]["uid"] == made["uid"]


def test_finalizers_hold_an_object_until_they_are_gone(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service(finalizers=["luff.dev/x"]))

    held = http.delete(f"{services}/reviews").json()
    still = http.get(f"{services}/reviews")
    content = json.dumps({"metadata": {"finalizers": None}})
    let_go = http.patch(f"{services}/reviews", content=content, headers=MERGE_PATCH)

    assert held["metadata"]["deletionTimestamp"]
    assert still.status_code == let_go.status_code == 200
    assert http.get(f"{services}/reviews").status_code == 404


def test_a_collection_goes_at_once_and_a_namespace_with_what_is_in_it(
    http: httpx.Client, services: str, namespace: str
) -> None:
    for name in ("a", "b", "c"):
        http.post(services, json=_virtual_service(name, labels={"name": name}))

    http.delete(services, params={"labelSelector": "name in (a,b)"})
    left = [item["metadata"]["name"] for item in http.get(services).json()["items"]]
    http.delete(f"/api/v1/namespaces/{namespace}")

    assert left == ["c"]
    assert http.get(services).json()["items"] == []


def test_subscribers_hear_of_every_change_but_of_no_dry_run(
    http: httpx.Client, server: ApiServer, services: str, namespace: str
) -> None:
    heard: list[tuple[str, str]] = []

    def listen(type_: str, object_: dict[str, Any]) -> None:
        if object_["metadata"].get("namespace") == namespace:
            heard.append((type_, object_["kind"]))

    server.store.subscribe(listen)
    http.post(services, json=_virtual_service(), params={"dryRun": "All"})
    http.post(services, json=_virtual_service())
    http.patch(f"{services}/reviews", content='{"spec": {"hosts": ["x"]}}', headers=MERGE_PATCH)
    http.delete(f"{services}/reviews")
    server.store.unsubscribe(listen)

    assert heard == [(type_, "VirtualService") for type_ in ("ADDED", "MODIFIED", "DELETED")]


def test_of_many_writers_with_one_version_one_wins(http: httpx.Client, server: ApiServer, services: str) -> None:
    made = http.post(services, json=_virtual_service()).json()
    codes: list[int] = []

    def write(number: int) -> None:
        body = {**made, "spec": {"hosts": [f"h{number}"]}}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        codes.append(
            httpx.put(
                f"{server.url}{services}/reviews", json=body, headers=headers, trust_env=False, verify=False
            ).status_code
        )

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(codes) == [200] + [409] * 7


@pytest.mark.parametrize(
    ("code", "error"),
    [(409, Conflict), (429, MeshBusy), (500, MeshBusy), (503, MeshBusy), (403, MeshDenied), (422, Conflict)],
)
def test_a_status_on_command_reaches_our_client_once(
    mesh: KubernetesMesh, http: httpx.Client, namespace: str, code: int, error: type[Exception]
) -> None:
    object_ = _virtual_service(namespace=namespace)
    _misbehave(http, verb="create", plural="virtualservices", action="status", code=code, retry_after=7)

    with pytest.raises(error) as refused:
        asyncio.run(mesh.create(object_))
    asyncio.run(mesh.create(object_))

    if code == 429:
        assert getattr(refused.value, "retry_after_s", None) == 7


@pytest.mark.parametrize(("action", "applied"), [("drop_reply", True), ("close", False), ("hang", False)])
def test_a_lost_reply_is_no_answer_whether_or_not_it_was_applied(
    mesh: KubernetesMesh, http: httpx.Client, namespace: str, services: str, action: str, *, applied: bool
) -> None:
    _misbehave(http, verb="write", plural="virtualservices", action=action, seconds=0.01)

    with pytest.raises(MeshUnreachable):
        asyncio.run(mesh.create(_virtual_service(namespace=namespace)))

    assert (http.get(f"{services}/reviews").status_code == 200) is applied


def test_a_write_may_arrive_after_its_reply_was_lost(
    mesh: KubernetesMesh, http: httpx.Client, namespace: str, services: str
) -> None:
    since = http.get(services).json()["metadata"]["resourceVersion"]
    _misbehave(http, verb="create", action="apply_late", seconds=0.05)

    with _watching(http, services, resourceVersion=since) as events:
        with pytest.raises(MeshUnreachable):
            asyncio.run(mesh.create(_virtual_service(namespace=namespace)))
        assert next(events)["type"] == "ADDED"


def test_a_stale_read_shows_the_past_and_a_delay_is_only_late(http: httpx.Client, services: str) -> None:
    http.post(services, json=_virtual_service())
    http.patch(f"{services}/reviews", content='{"spec": {"hosts": ["new"]}}', headers=MERGE_PATCH)
    _misbehave(http, action="stale", revisions=1, times=2, plural="virtualservices")
    _misbehave(http, action="delay", seconds=0.01, plural="virtualservices", skip=1)

    seen = [http.get(f"{services}/reviews").json()["spec"]["hosts"] for _ in range(4)]

    assert seen == [["reviews"], ["reviews"], ["new"], ["new"]]
    assert http.get("/luff/misbehave").json() == []


@pytest.mark.parametrize(
    "rules", [{}, [{}], [{"action": "explode"}], [{"action": "hang", "x": 1}], [{"action": "hang", "times": 0}]]
)
def test_a_rule_that_means_nothing_is_refused(http: httpx.Client, rules: Any) -> None:
    assert http.post("/luff/misbehave", json=rules).status_code == 400


def test_our_client_does_all_it_does(mesh: KubernetesMesh, namespace: str) -> None:
    async def use() -> None:
        made = await mesh.create(_virtual_service(namespace=namespace))
        ref = Ref.of(made)
        stale = made["metadata"]["resourceVersion"]
        await mesh.patch(ref, [{"op": "add", "path": "/spec/http/0", "value": {"name": "luff"}}])
        for operations in (
            [{"op": "test", "path": "/metadata/uid", "value": "x"}],
            [{"op": "replace", "path": "/metadata/resourceVersion", "value": stale}],
        ):
            with pytest.raises(Conflict):
                await mesh.patch(ref, operations)
        with pytest.raises(Rejected):
            await mesh.patch(ref, [{"op": "replace", "path": "/spec/hosts", "value": ["bad"]}], dry_run=True)
        with pytest.raises(Conflict):
            await mesh.replace(made)
        with pytest.raises(Conflict):
            await mesh.delete(ref, resource_version=stale)
        assert [item["metadata"]["name"] for item in await mesh.list(Kind.VIRTUAL_SERVICE, namespace)] == ["reviews"]
        await mesh.delete(ref, resource_version=(await mesh.read(ref))["metadata"]["resourceVersion"])
        with pytest.raises(NotFound):
            await mesh.read(ref)

    asyncio.run(use())


def test_the_official_client_watches_and_renews_a_lease(server: ApiServer, namespace: str, tmp_path: Path) -> None:
    server.write_kubeconfig(tmp_path / "config")
    configuration = client.Configuration()
    config.load_kube_config(str(tmp_path / "config"), client_configuration=configuration)
    configuration.proxy = None
    moment = datetime.now(UTC)
    with client.ApiClient(configuration) as api:
        leases = client.CoordinationV1Api(api)
        body = client.V1Lease(
            metadata=client.V1ObjectMeta(name="lock"), spec=client.V1LeaseSpec(holder_identity="me", renew_time=moment)
        )
        made = leases.create_namespaced_lease(namespace, body)
        made.spec.holder_identity = "you"
        leases.replace_namespaced_lease("lock", namespace, made)
        with pytest.raises(client.ApiException) as stale:
            leases.replace_namespaced_lease("lock", namespace, made)
        stream = watch.Watch().stream(leases.list_namespaced_lease, namespace, timeout_seconds=20)
        event = next(iter(stream))
        stream.close()

    assert stale.value.status == 409
    assert (event["type"], event["object"].spec.holder_identity) == ("ADDED", "you")
    assert event["object"].spec.renew_time == moment


@pytest.mark.parametrize(
    "wrong",
    [
        {"metadata": 5},
        {"metadata": {"name": []}},
        {"metadata": {"name": "x", "labels": {"a": 5}}},
        {"metadata": {"name": "x", "labels": [1]}},
        {"metadata": {"name": "x", "finalizers": [[]]}},
        {"spec": 5},
        {"kind": {}},
    ],
)
def test_an_object_of_another_shape_is_refused_and_not_an_internal_error(
    http: httpx.Client, services: str, wrong: dict[str, Any]
) -> None:
    made = http.post(services, json=_virtual_service()).json()
    whole = {**made, **wrong}
    whole["metadata"] = (
        {**made["metadata"], **wrong["metadata"]} if isinstance(wrong.get("metadata"), dict) else whole["metadata"]
    )

    codes = {
        http.post(services, json={**_virtual_service(), **wrong}).status_code,
        http.put(f"{services}/reviews", json=whole).status_code,
        http.patch(f"{services}/reviews", content=json.dumps(wrong), headers=MERGE_PATCH).status_code,
    }

    assert codes <= {400, 422}


@pytest.mark.parametrize(("written", "code"), [("NaN", 400), ("1e999", 400), ('"\\ud800"', 201), ("20.0", 201)])
def test_json_that_go_cannot_write_back_is_not_kept(http: httpx.Client, services: str, written: str, code: int) -> None:
    content = json.dumps({**_virtual_service(), "spec": {"x": "HERE"}}).replace('"HERE"', written)

    made = http.post(services, content=content)

    assert made.status_code == code
    assert http.get(services).status_code == 200
    if written == "20.0":
        assert '"x":20}' in made.text


def test_our_client_reads_the_clock(mesh: KubernetesMesh, server: ApiServer) -> None:
    told = asyncio.run(mesh.server_time_s())

    assert abs(told - server.now().timestamp()) < 5


def test_the_kubeconfig_is_for_its_owner_only(server: ApiServer, tmp_path: Path) -> None:
    server.write_kubeconfig(tmp_path / "config")

    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_a_port_that_is_taken_is_named(server: ApiServer) -> None:
    port = int(server.url.rpartition(":")[2])

    with pytest.raises(LabError, match=str(port)):
        ApiServer(token=TOKEN, port=port).start()


def test_stopping_ends_a_watch_and_frees_the_port(capfd: pytest.CaptureFixture[str]) -> None:
    server = ApiServer(token=TOKEN)
    server.start()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, verify=False) as http:
        with _watching(http, "/api/v1/namespaces") as events:
            next(events)
            server.stop()
            list(events)
        again = ApiServer(token=TOKEN, port=int(server.url.rpartition(":")[2]))
        again.start()
        again.stop()
    server.stop()

    assert capfd.readouterr().out == ""
