"""The lab's API server says and does what a real one does."""

from __future__ import annotations

import asyncio
import copy
import json
import stat
import threading
import uuid
from collections.abc import Iterator
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
from tests.lab.requests import ISTIO, JSON_PATCH, MERGE_PATCH, config_map, virtual_service, watching

TOKEN = "a-token-of-the-tests"
OFFSET_S = 3600.0


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


def _misbehave(http: httpx.Client, **rule: Any) -> None:
    assert http.post("/luff/misbehave", json=[rule]).status_code == 200


def test_what_is_created_has_what_the_server_adds(http: httpx.Client, services: str, namespace: str) -> None:
    answer = http.post(services, json=virtual_service())

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
    wanted = virtual_service(annotations=None)
    wanted["spec"] |= {"gateways": None, "unheardOf": None}
    wanted["spec"]["http"][0] |= {"match": None, "mirrorPercent": None, "headers": {"request": None}}

    made = http.post(services, json=wanted)

    assert made.status_code == 201, made.text
    kept = http.get(f"{services}/reviews").json()
    route = {**virtual_service()["spec"]["http"][0], "mirrorPercent": None, "headers": {}}
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


def test_the_clock_of_the_server_is_its_own(http: httpx.Client, services: str) -> None:
    made = http.post(services, json=virtual_service())

    told = parsedate_to_datetime(made.headers["Date"])
    created = datetime.fromisoformat(made.json()["metadata"]["creationTimestamp"])
    assert abs((told - created).total_seconds()) < 30
    assert abs((told - datetime.now(UTC)).total_seconds() - OFFSET_S) < 60


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


def test_a_write_that_changes_nothing_leaves_version_and_watchers_alone(
    http: httpx.Client, server: ApiServer, services: str, namespace: str
) -> None:
    made = http.post(services, json=virtual_service()).json()
    before = server.store.revision

    put = http.put(f"{services}/reviews", json=made).json()
    patched = http.patch(f"{services}/reviews", content=json.dumps({"spec": made["spec"]}), headers=MERGE_PATCH).json()

    assert put == patched == made
    assert server.store.revision == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_dry_run_is_answered_and_leaves_nothing(
    http: httpx.Client, server: ApiServer, services: str, method: str
) -> None:
    made = http.post(services, json=virtual_service()).json()
    body = virtual_service("other") if method == "POST" else copy.deepcopy(made)
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
    bad, odd = virtual_service("bad"), virtual_service("odd")
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
            server.store.put({**config_map("c", a=str(number))})
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


def test_a_collection_goes_at_once_and_a_namespace_with_what_is_in_it(
    http: httpx.Client, services: str, namespace: str
) -> None:
    for name in ("a", "b", "c"):
        http.post(services, json=virtual_service(name, labels={"name": name}))

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
    http.post(services, json=virtual_service(), params={"dryRun": "All"})
    http.post(services, json=virtual_service())
    http.patch(f"{services}/reviews", content='{"spec": {"hosts": ["x"]}}', headers=MERGE_PATCH)
    http.delete(f"{services}/reviews")
    server.store.unsubscribe(listen)

    assert heard == [(type_, "VirtualService") for type_ in ("ADDED", "MODIFIED", "DELETED")]


def test_of_many_writers_with_one_version_one_wins(http: httpx.Client, server: ApiServer, services: str) -> None:
    made = http.post(services, json=virtual_service()).json()
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
    object_ = virtual_service(namespace=namespace)
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
        asyncio.run(mesh.create(virtual_service(namespace=namespace)))

    assert (http.get(f"{services}/reviews").status_code == 200) is applied


def test_a_write_may_arrive_after_its_reply_was_lost(
    mesh: KubernetesMesh, http: httpx.Client, namespace: str, services: str
) -> None:
    since = http.get(services).json()["metadata"]["resourceVersion"]
    _misbehave(http, verb="create", action="apply_late", seconds=0.05)

    with watching(http, services, resourceVersion=since) as events:
        with pytest.raises(MeshUnreachable):
            asyncio.run(mesh.create(virtual_service(namespace=namespace)))
        assert next(events)["type"] == "ADDED"


def test_a_stale_read_shows_the_past_and_a_delay_is_only_late(http: httpx.Client, services: str) -> None:
    http.post(services, json=virtual_service())
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
        made = await mesh.create(virtual_service(namespace=namespace))
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
    made = http.post(services, json=virtual_service()).json()
    whole = {**made, **wrong}
    whole["metadata"] = (
        {**made["metadata"], **wrong["metadata"]} if isinstance(wrong.get("metadata"), dict) else whole["metadata"]
    )

    codes = {
        http.post(services, json={**virtual_service(), **wrong}).status_code,
        http.put(f"{services}/reviews", json=whole).status_code,
        http.patch(f"{services}/reviews", content=json.dumps(wrong), headers=MERGE_PATCH).status_code,
    }

    assert codes <= {400, 422}


@pytest.mark.parametrize(("written", "code"), [("NaN", 400), ("1e999", 400), ('"\\ud800"', 201), ("20.0", 201)])
def test_json_that_go_cannot_write_back_is_not_kept(http: httpx.Client, services: str, written: str, code: int) -> None:
    content = json.dumps({**virtual_service(), "spec": {"x": "HERE"}}).replace('"HERE"', written)

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
        with watching(http, "/api/v1/namespaces") as events:
            next(events)
            server.stop()
            list(events)
        again = ApiServer(token=TOKEN, port=int(server.url.rpartition(":")[2]))
        again.start()
        again.stop()
    server.stop()

    assert capfd.readouterr().out == ""
