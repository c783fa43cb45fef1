"""The lab's pods, and what their proxies say on Istio's metrics page."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from luff.builds import Build, build_of
from luff.errors import MeshBusy, MeshDenied, MeshUnreachable, NotFound
from luff.evidence.istio_metrics import fired, parse
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.lab.pods import METRICS_PATH, ProxyPage, pod_object
from luff.lab.ports import Ports
from luff.lab.workloads import lay_out
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import THREADS, Connection, KubernetesMesh, Limits
from luff.model import LabWorkload

REVIEWS = {
    "metadata": {"name": "reviews-v2", "namespace": "bookinfo", "labels": {"version": "v2"}},
    "spec": {"service": "reviews", "port": 9080, "run": ["true"], "replicas": 2},
}


def _line(**changes: Any) -> str:
    line = {
        "direction": "outbound",
        "workload": "reviews-v2",
        "cluster": "outbound|9080|v1|ratings.bookinfo.svc.cluster.local",
        "flags": "FI",
        "status": 503,
        **changes,
    }
    return json.dumps(line) + "\n"


def test_a_page_has_each_line_of_the_log_once_under_the_names_of_istios_stats(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    page = ProxyPage(log)
    assert parse(page.text()) == {}, "a proxy that was not called yet"
    log.write_text(
        _line() + _line() + _line(flags="-", status=200) + _line(direction="inbound", flags="-") + _line()[:20]
    )
    page.text()
    with log.open("a") as file:
        file.write(_line()[20:] + "not json\n")

    series = parse(page.text())

    [(aborted, count)] = fired(series, destinations=frozenset({"ratings"}), namespace="bookinfo").items()
    assert count == 3
    assert dict(aborted) == {
        "reporter": "source",
        "source_workload": "reviews-v2",
        "destination_workload": "unknown",
        "destination_service": "ratings.bookinfo.svc.cluster.local",
        "destination_service_name": "ratings",
        "destination_service_namespace": "bookinfo",
        "request_protocol": "http",
        "response_code": "503",
        "response_flags": "FI",
    }
    assert sum(series.values()) == 5


def test_a_log_that_was_cut_is_read_anew(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    page = ProxyPage(log)
    assert "istio_requests_total{" not in page.text(), "there is no log yet"
    log.write_text('{"status": 200}\n{"status": 200}\n')
    page.text()

    log.write_text('{"status": 200}\n')

    assert page.text().rstrip().endswith("} 3")


def _made_of(folder: Path, run: list[str], **metadata: Any) -> Build:
    """Return what the pod of a workload that runs *run* in *folder* says that it is made of."""
    document = {"metadata": {"name": "cart", **metadata}, "spec": {"service": "cart", "port": 80, "run": run}}
    return _build_of(LabWorkload.model_validate(document).model_copy(update={"file": str(folder / "lab.yaml")}))


def _build_of(workload: LabWorkload) -> Build:
    with contextlib.closing(Ports()) as ports:
        replica = lay_out([workload], Path("lab"), ports, scope_headers=()).replicas[0]
    return build_of([pod_object(replica)], {"app": "cart"})


@pytest.mark.parametrize("run", [["python", "cart.py"], ["python", "-m", "cart"], ["python", "-m", "shop.cart"]])
def test_a_workload_whose_files_changed_is_another_revision(tmp_path: Path, run: list[str]) -> None:
    (tmp_path / "shop").mkdir()
    files = [tmp_path / "cart.py", tmp_path / "shop" / "cart.py"]

    for file in files:
        file.write_text("TIMEOUT_S = 1")
    before, again = _made_of(tmp_path, run), _made_of(tmp_path, run)
    for file in files:
        file.write_text("TIMEOUT_S = 2")
    after = _made_of(tmp_path, run)

    assert before == again
    assert before.revision != after.revision
    assert before.image is not None
    assert before.image.startswith(f"lab/cart@sha256:{before.revision}")


def test_a_module_of_luffs_own_python_is_hashed_without_running_it(tmp_path: Path) -> None:
    one, other = (_made_of(tmp_path, ["python", "-m", f"luff.lab.{name}"]) for name in ("bookinfo", "fleet"))

    assert None not in (one.revision, other.revision)
    assert one.revision != other.revision
    assert _made_of(tmp_path, ["python", "-m", "not.there.at.all", "\0"]).revision is not None


def test_what_a_workload_declares_of_itself_comes_before_its_files(tmp_path: Path) -> None:
    labels = {"app.kubernetes.io/version": "1.4"}

    found = _made_of(tmp_path, ["true"], labels=labels, annotations={"luff.dev/image": "shop/cart:1.4"})

    assert found.revision == "1.4"
    assert found.image is not None
    assert found.image.startswith("shop/cart:1.4@sha256:")


def test_of_a_program_that_runs_already_nothing_is_known_but_what_it_declares() -> None:
    document = {"metadata": {"name": "cart"}, "spec": {"service": "cart", "port": 80, "address": "127.0.0.1:9083"}}

    assert _build_of(LabWorkload.model_validate(document)) == Build(1, "lab/cart", None)


@pytest.mark.parametrize(
    "line", ["[]", '"x"', "{}", '{"cluster": "a|b", "flags": null}', '{"cluster": "a|b|c|d", "workload": 3}']
)
def test_an_odd_line_makes_no_broken_page(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    parse(ProxyPage(tmp_path / "a.jsonl").text())


@pytest.fixture
def asked() -> list[str]:
    """Return the pods that were asked, in order."""
    return []


@pytest.fixture
def server(tmp_path: Path, asked: list[str]) -> Iterator[ApiServer]:
    def page(pod: str, port: int, path: str) -> str | None:
        asked.append(pod)
        return f"{pod} {port} {path}" if port == 15090 else None

    server = ApiServer(token="t", pages=page)
    server.start()
    server.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bookinfo"}})
    ports = Ports()
    topology = lay_out([LabWorkload.model_validate(REVIEWS)], tmp_path, ports, scope_headers=("x-luff-run",))
    for replica in topology.replicas:
        if replica.workload is not None:
            server.store.put(pod_object(replica))
    ports.close()
    server.write_kubeconfig(tmp_path / "config")
    yield server
    server.stop()


@pytest.fixture
def mesh(server: ApiServer, tmp_path: Path) -> Iterator[KubernetesMesh]:
    mesh = KubernetesMesh.connect(Connection(str(tmp_path / "config"), None))
    yield mesh
    mesh.close()


def test_the_official_client_reads_a_lab_s_pods_into_its_models(server: ApiServer, tmp_path: Path) -> None:
    with config.new_client_from_config(str(tmp_path / "config")) as api:
        found = client.CoreV1Api(api).list_namespaced_pod("bookinfo", label_selector="app=reviews,version=v2")

    assert [pod.metadata.name for pod in found.items] == ["reviews-v2-0", "reviews-v2-1"]
    for pod in found.items:
        assert pod.status.phase == "Running"
        assert [container.name for container in pod.spec.containers] == ["app", "istio-proxy"]
        assert all(status.ready for status in pod.status.container_statuses)


def test_a_pod_is_asked_through_the_server(mesh: KubernetesMesh) -> None:
    assert asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-0", 15090, METRICS_PATH)) == (
        f"reviews-v2-0 15090 {METRICS_PATH}"
    )
    assert len(asyncio.run(mesh.list(Kind.POD, "bookinfo"))) == 2


def test_a_pod_that_is_gone_silent_or_forbidden_is_told_apart(server: ApiServer, mesh: KubernetesMesh) -> None:
    with pytest.raises(NotFound):
        asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-7", 15090, METRICS_PATH))
    with pytest.raises(MeshBusy, match="connection refused"):
        asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-0", 9999, METRICS_PATH))
    server.misbehaviour.add(
        [Rule("status", verb="get", plural="pods/proxy", code=403), Rule("close", plural="pods/proxy")]
    )
    with pytest.raises(MeshDenied):
        asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-0", 15090, METRICS_PATH))
    with pytest.raises(MeshUnreachable):
        asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-0", 15090, METRICS_PATH))


def test_pods_that_do_not_answer_keep_no_write_waiting(server: ApiServer, mesh: KubernetesMesh) -> None:
    server.misbehaviour.add([Rule("hang", plural="pods/proxy", times=1_000)])
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "reviews", "namespace": "bookinfo"}}
    ref = Ref.of(server.store.put({**service, "spec": {"ports": [{"port": 80}]}}))

    async def story() -> None:
        pages = [
            asyncio.create_task(mesh.pod_page("bookinfo", "reviews-v2-0", 15090, METRICS_PATH))
            for _ in range(2 * THREADS)
        ]
        await asyncio.sleep(0)
        async with asyncio.timeout(Limits().answer_s / 2):
            await mesh.patch(ref, [{"op": "add", "path": "/spec/kept", "value": 1}])
        assert not any(page.done() for page in pages)
        for page in pages:
            page.cancel()
        await asyncio.gather(*pages, return_exceptions=True)

    asyncio.run(story())


def test_a_pod_that_is_asked_through_a_bad_network_was_asked_all_the_same(
    server: ApiServer, mesh: KubernetesMesh, asked: list[str]
) -> None:
    server.misbehaviour.add([Rule("duplicate", plural="pods/proxy"), Rule("drop_reply", plural="pods/proxy")])

    asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-0", 15090, METRICS_PATH))
    with pytest.raises(MeshUnreachable):
        asyncio.run(mesh.pod_page("bookinfo", "reviews-v2-0", 15090, METRICS_PATH))

    assert asked == ["reviews-v2-0"] * 3
