"""
What an API server answers, word for word where luff reads the words.

Each test runs against the lab, and against the cluster of LUFF_TEST_KUBECONFIG
where there is one with Istio's CRDs and without its webhook: what the lab is
held to is what a kube-apiserver 1.36.3 said.
"""

from __future__ import annotations

import json
import os
import ssl
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from kubernetes import client, config

from luff.lab.api import ApiServer
from tests.lab.requests import APPLY, ISTIO, JSON_PATCH, MERGE_PATCH, config_map, virtual_service, watching

SERVERS = ["lab", *(["cluster"] if os.environ.get("LUFF_TEST_KUBECONFIG") else [])]
OTHER_UID = str(uuid.uuid4())


@pytest.fixture(scope="module", params=SERVERS)
def http(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Return a client of each API server that there is."""
    if request.param == "lab":
        server = ApiServer(token="t0ken")
        server.start()
        with _client(server.url, "t0ken") as found:
            yield found
        server.stop()
        return
    cluster = client.Configuration()
    config.load_kube_config(os.environ["LUFF_TEST_KUBECONFIG"], client_configuration=cluster)
    token = str(cluster.auth_settings()["BearerToken"]["value"]).removeprefix("Bearer ")
    with _client(cluster.host, token, verify=ssl.create_default_context(cafile=cluster.ssl_ca_cert)) as found:
        yield found


def _client(url: str, token: str, *, verify: ssl.SSLContext | bool = False) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}", "User-Agent": "tester/1.0"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False, verify=verify, timeout=20)


@pytest.fixture
def namespace(http: httpx.Client) -> Iterator[str]:
    name = f"luff-test-{uuid.uuid4().hex[:12]}"
    made = http.post("/api/v1/namespaces", json={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    assert made.status_code == 201, made.text
    yield name
    http.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def services(namespace: str) -> str:
    return f"{ISTIO}/namespaces/{namespace}/virtualservices"


def test_a_service_and_a_lease_have_no_generation(http: httpx.Client, namespace: str) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}

    made = [
        http.post(f"/api/v1/namespaces/{namespace}/configmaps", json=config_map("c")).json(),
        http.post(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases", json=lease).json(),
    ]

    assert [object_["metadata"].get("generation") for object_ in made] == [None, None]


@pytest.mark.parametrize(
    ("method", "name", "body", "code", "reason", "said"),
    [
        ("GET", "none", None, 404, "NotFound", 'virtualservices.networking.istio.io "none" not found'),
        ("DELETE", "none", None, 404, "NotFound", 'virtualservices.networking.istio.io "none" not found'),
        ("POST", "", virtual_service(), 409, "AlreadyExists", '"reviews" already exists'),
        ("POST", "", virtual_service("Bad_Name"), 422, "Invalid", "a lowercase RFC 1123 subdomain must consist of"),
        ("POST", "", virtual_service(labels={"a": "b c"}), 422, "Invalid", "metadata.labels: Invalid value"),
        (
            "POST",
            "",
            virtual_service("x", resourceVersion="1"),
            500,
            None,
            "should not be set on objects to be created",
        ),
        ("POST", "", virtual_service("x", namespace="other"), 400, "BadRequest", "does not match the namespace sent"),
        ("POST", "", {**virtual_service(), "apiVersion": "v1"}, 400, "BadRequest", "does not match the expected API"),
        ("POST", "", {"kind": "x"}, 400, "BadRequest", "the API version in the data () does not match"),
        ("POST", "", {"apiVersion": "networking.istio.io/v1"}, 400, "BadRequest", "Object 'Kind' is missing"),
        (
            "POST",
            "",
            {**virtual_service(), "kind": "x"},
            422,
            "Invalid",
            'kind: Invalid value: "x": must be VirtualService',
        ),
        ("POST", "", virtual_service("x", generateName="y."), 422, "Invalid", "metadata.generateName: Invalid value"),
        ("POST", "", virtual_service("x", labels={"a": 1}), 400, "BadRequest", "cannot be handled as a VirtualService"),
        ("POST", "", {**virtual_service("x"), "spec": []}, 422, "Invalid", "spec in body must be of type object"),
        ("PUT", "", virtual_service(), 400, "BadRequest", "name must be provided"),
        (
            "PUT",
            "reviews",
            virtual_service(),
            422,
            "Invalid",
            "metadata.resourceVersion: Invalid value: 0: must be specified",
        ),
        ("PUT", "reviews", virtual_service("other"), 400, "BadRequest", "does not match the name on the URL"),
        ("PUT", "reviews", virtual_service(resourceVersion="1"), 409, "Conflict", "the object has been modified"),
        ("PUT", "none", virtual_service("none", resourceVersion="1"), 404, "NotFound", "not found"),
        ("POST", "reviews", virtual_service(), 409, "AlreadyExists", "already exists"),
        (
            "PUT",
            "reviews",
            virtual_service(uid=str(uuid.uuid4()), resourceVersion="1"),
            409,
            "Conflict",
            "StorageError: invalid",
        ),
    ],
)
def test_a_refusal_is_worded_as_the_real_one(
    http: httpx.Client, services: str, method: str, name: str, body: Any, code: int, reason: str | None, said: str
) -> None:
    http.post(services, json=virtual_service())

    answer = http.request(method, f"{services}/{name}".rstrip("/"), json=body)

    assert (answer.status_code, answer.json().get("reason")) == (code, reason)
    assert said in answer.json()["message"]
    assert answer.json()["kind"] == "Status"
    assert answer.json()["code"] == code


@pytest.mark.parametrize(("prefix", "wrong"), [("X-", False), ("AB-", True), ("x.", True)])
def test_what_a_name_is_made_of_is_held_to_its_spelling_but_for_what_a_hyphen_ends(
    http: httpx.Client, services: str, prefix: str, wrong: bool
) -> None:
    answer = http.post(services, json=virtual_service("", generateName=prefix))

    assert answer.status_code == 422
    assert ("metadata.generateName" in answer.json()["message"]) is wrong


def test_a_stale_put_is_told_in_the_real_words(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=virtual_service()).json()
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
    answer = http.post(f"{ISTIO}/namespaces/luff-nowhere/virtualservices", json=virtual_service())

    assert (answer.status_code, answer.json()["message"]) == (404, 'namespaces "luff-nowhere" not found')
    assert http.get(f"{ISTIO}/namespaces/luff-nowhere/virtualservices").json()["items"] == []


def test_the_three_versions_are_one_object(http: httpx.Client, services: str) -> None:
    http.post(services, json=virtual_service())

    for version in ("v1", "v1beta1", "v1alpha3"):
        found = http.get(f"{services}/reviews".replace("/v1/", f"/{version}/")).json()
        assert found["apiVersion"] == f"networking.istio.io/{version}"
        assert found["spec"] == virtual_service()["spec"]


def _event(namespace: str, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": "x-"},
        "regarding": {"kind": "VirtualService", "name": "reviews", "namespace": namespace},
        "note": "ü" * 512,
        "reason": "Injected",
        "type": "Warning",
        "action": "FaultInjected",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "luff",
        "reportingInstance": "luff-0",
        **changes,
    }


def test_both_groups_of_events_are_one(http: httpx.Client, namespace: str) -> None:
    event = _event(namespace, note="hello")

    made = http.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", json=event).json()

    query = {"fieldSelector": "involvedObject.name=reviews"}
    [old] = http.get(f"/api/v1/namespaces/{namespace}/events", params=query).json()["items"]
    assert made["note"] == "hello"
    assert made["metadata"]["name"].startswith("x-")
    assert (old["message"], old["involvedObject"]["name"], old["reportingComponent"]) == ("hello", "reviews", "luff")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"eventTime": None}, "eventTime"),
        ({"reportingController": ""}, "reportingController"),
        ({"reportingController": "no name!"}, "reportingController"),
        ({"reportingInstance": ""}, "reportingInstance"),
        ({"action": ""}, "action"),
        ({"note": "ü" * 513}, "message"),
        ({"reportingInstance": "x" * 129}, "reportingInstance"),
    ],
)
def test_an_event_of_the_new_group_says_who_when_and_what_in_so_many_bytes(
    http: httpx.Client, namespace: str, change: dict[str, Any], field: str
) -> None:
    events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"

    answers = [http.post(events, json=_event(namespace, **more)) for more in ({}, change)]

    assert [answer.status_code for answer in answers] == [201, 422]
    assert f"{field}: " in answers[1].json()["message"]


def test_what_is_missing_is_told_from_what_is_wrong(http: httpx.Client, namespace: str) -> None:
    wrong = _event(namespace, action="", reportingController="no name!")

    answer = http.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", json=wrong).json()

    causes = {each["field"]: each["reason"] for each in answer["details"]["causes"]}
    assert causes == {"action": "FieldValueRequired", "reportingController": "FieldValueInvalid"}
    assert answer["message"].startswith('Event "x-')


def test_an_event_of_the_old_group_is_in_the_namespace_that_it_is_about(http: httpx.Client, namespace: str) -> None:
    about = {"kind": "VirtualService", "name": "reviews", "namespace": "other"}
    event = {"metadata": {"generateName": "x-"}, "involvedObject": about, "message": "x"}

    answer = http.post(f"/api/v1/namespaces/{namespace}/events", json=event)

    assert answer.status_code == 422
    assert "does not match event.namespace" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "is_status"),
    [
        ("/apis/networking.istio.io/v9/virtualservices", False),
        ("/apis/nobody/v1/things", False),
        ("/nope", False),
        ("/api/v1/nothing", True),
        ("/apis/apps/v1/nothing", True),
    ],
)
def test_a_path_that_nobody_knows_is_answered_in_text_outside_the_servers_own_groups(
    http: httpx.Client, path: str, is_status: bool
) -> None:
    answer = http.get(path)

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/json" if is_status else "text/plain")
    assert ("404 page not found" in answer.text) is not is_status


def test_putting_a_lease_that_is_gone_makes_it_anew(http: httpx.Client, namespace: str) -> None:
    leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    made = http.post(leases, json=lease).json()
    http.delete(f"{leases}/l")

    again = http.put(f"{leases}/l", json={**made, "metadata": {"name": "l", "resourceVersion": "1"}})

    assert again.status_code == 201
    assert again.json()["metadata"]["uid"] != made["metadata"]["uid"]


def test_an_event_of_the_old_group_need_not_say_more(http: httpx.Client, namespace: str) -> None:
    about = {"kind": "VirtualService", "name": "reviews", "namespace": namespace}
    event = {"metadata": {"generateName": "x-"}, "involvedObject": about, "message": "x" * 2000}

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
        ([{"op": "replace", "path": "/metadata/uid", "value": OTHER_UID}], 422),
        ([{"op": "replace", "path": "/metadata/name", "value": "x"}], 400),
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
    http.post(services, json=virtual_service())

    answer = http.patch(f"{services}/reviews", content=json.dumps(operations), headers=JSON_PATCH)

    assert answer.status_code == code
    if code == 422 and operations[0].get("value") == OTHER_UID:
        assert "metadata.uid: Invalid value" in answer.json()["message"]
    elif code == 422:
        assert answer.json()["message"] == "the server rejected our request due to an error in our request"
        assert "causes" not in answer.json()["details"]


@pytest.mark.parametrize(
    ("written", "code"),
    [('"a&b é"', 422), ('"a\\u0026b é"', 200), ('"a\\u0026b \\u00e9"', 422), ('"a\\u0026b é" ', 200)],
)
def test_a_test_compares_strings_as_they_are_written(
    http: httpx.Client, services: str, written: str, code: int
) -> None:
    http.post(services, json=virtual_service(annotations={"x": "a&b é"}))

    body = f'[{{"op": "test", "path": "/metadata/annotations/x", "value": {written}}}]'
    answer = http.patch(f"{services}/reviews", content=body, headers=JSON_PATCH)

    assert answer.status_code == code


@pytest.mark.parametrize(("written", "code"), [("20", 200), ("20.0", 422), ("2e1", 422)])
def test_a_test_compares_numbers_as_they_are_written(
    http: httpx.Client, services: str, written: str, code: int
) -> None:
    http.post(services, json=virtual_service())

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
        ("application/merge-patch+json", json.dumps({"spec": {"hosts": ["y" * 1_600_000]}}).encode(), 500),
        ("application/apply-patch+yaml", b"{}", 422),
    ],
)
def test_a_patch_that_cannot_be_taken_is_refused(
    http: httpx.Client, services: str, content_type: str, body: bytes, code: int
) -> None:
    made = http.post(services, json=virtual_service()).json()

    answer = http.patch(f"{services}/reviews", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == code
    assert http.get(f"{services}/reviews").json() == made


def test_a_merge_patch_changes_what_it_names_and_takes_nulls_away(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=virtual_service(annotations={"a": "1", "b": "2"})).json()

    patch = {"metadata": {"annotations": {"a": None}}, "spec": {"gateways": ["mesh"]}}
    changed = http.patch(f"{services}/reviews", content=json.dumps(patch), headers=MERGE_PATCH).json()

    assert changed["metadata"]["annotations"] == {"b": "2"}
    assert changed["spec"] == {**made["spec"], "gateways": ["mesh"]}
    assert changed["metadata"]["generation"] == 2


def test_a_resource_version_in_a_merge_patch_is_a_precondition(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=virtual_service()).json()
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
    http.post(services, json=virtual_service())

    patch = json.dumps({"metadata": {"annotations": {"a": "1"}}})
    changed = http.patch(f"{services}/reviews", content=patch, headers=MERGE_PATCH).json()

    assert changed["metadata"]["generation"] == 1


def test_the_status_is_written_only_by_its_own_path(http: httpx.Client, services: str) -> None:
    made = http.post(services, json={**virtual_service(), "status": {"a": 1}}).json()
    assert "status" not in made

    patch = json.dumps({"status": {"a": 2}, "spec": {"hosts": ["no"]}})
    by_status = http.patch(f"{services}/reviews/status", content=patch, headers=MERGE_PATCH).json()
    by_object = http.patch(f"{services}/reviews", content=json.dumps({"status": {"a": 3}}), headers=MERGE_PATCH).json()

    assert (by_status["status"], by_status["spec"]["hosts"]) == ({"a": 2}, ["reviews"])
    assert by_status["metadata"]["generation"] == 1
    assert by_object["status"] == {"a": 2}


def test_annotations_have_a_limit(http: httpx.Client, services: str) -> None:
    answer = http.post(services, json=virtual_service(annotations={"a": "x" * 262_144}))

    assert answer.status_code == 422
    assert "Too long: may not be more than 262144 bytes" in answer.json()["message"]


def test_applying_from_two_sides_conflicts_until_it_is_forced(http: httpx.Client, services: str) -> None:
    first = {**virtual_service(), "spec": {"hosts": ["a"], "gateways": ["mesh"]}}
    second = {**virtual_service(), "spec": {"hosts": ["b"]}}

    def apply(manager: str, object_: dict[str, Any], **query: str) -> httpx.Response:
        content, params = json.dumps(object_), {"fieldManager": manager, **query}
        return http.patch(f"{services}/reviews", content=content, headers=APPLY, params=params)

    created, again = apply("one", first), apply("one", first)
    refused, forced = apply("two", second), apply("two", second, force="true")
    shrunk = apply("one", {**first, "spec": {}})
    patch = json.dumps({"spec": {"gateways": ["other"]}})
    http.patch(f"{services}/reviews", content=patch, headers=MERGE_PATCH, params={"fieldManager": "three"})
    both = apply("four", {**first, "spec": {"hosts": ["c"], "gateways": ["mesh"]}})

    assert [answer.status_code for answer in (created, again, refused, forced, shrunk)] == [201, 200, 409, 200, 200]
    assert again.json() == created.json()
    assert refused.json()["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.hosts'
    assert forced.json()["spec"] == {"hosts": ["b"], "gateways": ["mesh"]}
    assert shrunk.json()["spec"] == {"hosts": ["b"]}
    assert both.json()["message"] == (
        'Apply failed with 2 conflicts: conflicts with "three" using networking.istio.io/v1:\n- .spec.gateways\n'
        'conflicts with "two":\n- .spec.hosts'
    )


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
        http.post(services, json=virtual_service(name, labels=labels))

    found = http.get(services, params={"labelSelector": selector}).json()["items"]

    assert [item["metadata"]["name"] for item in found] == names


def test_fields_select_and_unknown_ones_are_refused(http: httpx.Client, services: str, namespace: str) -> None:
    for name in ("one", "two"):
        http.post(services, json=virtual_service(name))

    everywhere = f"{ISTIO}/virtualservices"
    found = http.get(everywhere, params={"fieldSelector": f"metadata.name=two,metadata.namespace={namespace}"}).json()
    refused = http.get(everywhere, params={"fieldSelector": "spec.hosts=x"})

    assert [item["metadata"]["name"] for item in found["items"]] == ["two"]
    assert (refused.status_code, refused.json()["message"]) == (400, "field label not supported: spec.hosts")


def test_pages_show_one_moment(http: httpx.Client, services: str) -> None:
    for name in ("a", "b", "c"):
        http.post(services, json=virtual_service(name))

    first = http.get(services, params={"limit": "2"}).json()
    http.delete(f"{services}/c")
    http.post(services, json=virtual_service("d"))
    second = http.get(services, params={"limit": "2", "continue": first["metadata"]["continue"]}).json()

    assert first["metadata"]["remainingItemCount"] == 1
    assert [item["metadata"]["name"] for item in second["items"]] == ["c"]
    assert second["metadata"] == {"continue": "", "resourceVersion": first["metadata"]["resourceVersion"]}


def test_a_watch_tells_every_change_after_its_version(http: httpx.Client, services: str) -> None:
    http.post(services, json=virtual_service("before"))
    since = http.get(services).json()["metadata"]["resourceVersion"]
    http.post(services, json=virtual_service("a"))

    with watching(http, services, resourceVersion=since) as events:
        seen = [next(events)]
        http.patch(f"{services}/a", content=json.dumps({"spec": {"gateways": ["x"]}}), headers=MERGE_PATCH)
        http.delete(f"{services}/a")
        seen += [next(events), next(events)]

    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(set(versions))


def test_a_watch_sees_objects_enter_and_leave_its_selector(http: httpx.Client, services: str) -> None:
    http.post(services, json=virtual_service("a"))
    since = http.get(services).json()["metadata"]["resourceVersion"]

    with watching(http, services, resourceVersion=since, labelSelector="app=x") as events:
        for value in ("x", "y"):
            content = json.dumps({"metadata": {"labels": {"app": value}}})
            http.patch(f"{services}/a", content=content, headers=MERGE_PATCH)
        seen = [next(events)["type"], next(events)["type"]]

    assert seen == ["ADDED", "DELETED"]


def test_a_watch_without_a_version_begins_with_what_is_there(http: httpx.Client, services: str) -> None:
    http.post(services, json=virtual_service("a"))
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}

    with watching(http, services) as plain, watching(http, services, **query) as streamed:
        assert next(plain)["type"] == "ADDED"
        assert next(streamed)["type"] == "ADDED"
        bookmark = next(streamed)

    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_table_is_what_kubectl_asks_for(http: httpx.Client, services: str) -> None:
    http.post(services, json=virtual_service("a"))

    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    table = http.get(services, headers=headers).json()

    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Gateways", "Hosts", "Age"]
    assert table["rows"][0]["cells"][:3] == ["a", None, '["reviews"]']
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


def test_a_delete_holds_to_its_preconditions(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=virtual_service()).json()["metadata"]

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
    http.post(services, json=virtual_service(finalizers=["luff.dev/x"]))

    held = http.delete(f"{services}/reviews").json()
    still = http.get(f"{services}/reviews")
    content = json.dumps({"metadata": {"finalizers": None}})
    let_go = http.patch(f"{services}/reviews", content=content, headers=MERGE_PATCH)

    assert held["metadata"]["deletionTimestamp"]
    assert still.status_code == let_go.status_code == 200
    assert http.get(f"{services}/reviews").status_code == 404
