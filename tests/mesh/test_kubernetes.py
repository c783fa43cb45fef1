"""The adapter on the official client: every failure becomes one of ours, with the object's name and the next step."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from luff.errors import Conflict, MeshBusy, MeshDenied, MeshError, MeshUnreachable, Rejected
from luff.lab.api import ApiServer
from luff.lab.misbehaviour import Rule
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import PAGE_SIZE, Connection, KubernetesMesh, current_context
from luff.words import Object
from tests.mesh.conftest import NAMESPACE

NOTHING = Ref(Kind.VIRTUAL_SERVICE, NAMESPACE, "nothing")

STATUSES = [
    (401, MeshDenied, "log in again"),
    (403, MeshDenied, "role"),
    (409, Conflict, None),
    (429, MeshBusy, None),
    (500, MeshBusy, None),
    (503, MeshBusy, None),
    (400, Rejected, None),
    (413, Rejected, None),
]


@pytest.mark.parametrize(("code", "kind", "step"), STATUSES)
def test_each_status_has_its_error(
    server: ApiServer, adapter: KubernetesMesh, code: int, kind: type[MeshError], step: str | None
) -> None:
    server.misbehaviour.add([Rule("status", code=code, retry_after=7 if code == 429 else None)])

    with pytest.raises(kind, match="VirtualService shop/nothing") as caught:
        asyncio.run(adapter.read(NOTHING))

    assert step is None or step in (caught.value.next_step or "")
    if isinstance(caught.value, MeshBusy) and code == 429:
        assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize("action", ["drop_reply", "close"])
def test_no_answer_is_an_unknown_outcome(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, action: Any
) -> None:
    server.misbehaviour.add([Rule(action, verb="create")])

    with pytest.raises(MeshUnreachable):
        asyncio.run(adapter.create(virtual_service))

    async def is_there() -> bool:
        found = await adapter.list(Kind.VIRTUAL_SERVICE, NAMESPACE)
        return virtual_service["metadata"]["name"] in {each["metadata"]["name"] for each in found}

    assert asyncio.run(is_there()) is (action == "drop_reply"), "it is not sent again by the client's own retries"


def test_what_a_webhook_refuses_is_rejected_and_not_applied(tmp_path: Path, virtual_service: Object) -> None:
    server = ApiServer(token="t", validate=lambda _: (["no routes on a Friday"], []))
    server.start()
    server.write_kubeconfig(tmp_path / "config")
    mesh = KubernetesMesh.connect(Connection(str(tmp_path / "config"), None))
    try:
        virtual_service["metadata"]["namespace"] = "default"
        with pytest.raises(Rejected, match="no routes on a Friday"):
            asyncio.run(mesh.create(virtual_service))
    finally:
        mesh.close()
        server.stop()


def test_a_long_list_is_read_page_by_page(server: ApiServer, adapter: KubernetesMesh) -> None:
    for number in range(PAGE_SIZE + 20):
        server.store.put(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{number}", "namespace": "default"}}
        )

    found = asyncio.run(adapter.list(Kind.CONFIG_MAP, "default"))

    assert len([each for each in found if each["metadata"]["name"].startswith("c")]) >= PAGE_SIZE + 20


def test_a_wrong_token_is_denied(server: ApiServer, tmp_path: Path) -> None:
    server.write_kubeconfig(tmp_path / "config")
    document = yaml.safe_load((tmp_path / "config").read_text())
    document["users"][0]["user"] = {"token": "expired"}
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    mesh = KubernetesMesh.connect(Connection(str(tmp_path / "config"), None))
    try:
        with pytest.raises(MeshDenied, match="401") as caught:
            asyncio.run(mesh.read(NOTHING))
    finally:
        mesh.close()
    assert "log in again" in str(caught.value.next_step)


def test_a_server_that_is_not_there_says_how_to_check(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mesh = KubernetesMesh.connect(Connection(str(_kubeconfig(tmp_path, port)), None))
    try:
        with pytest.raises(MeshUnreachable, match=f"127.0.0.1:{port}") as caught:
            asyncio.run(mesh.server_time_s())
    finally:
        mesh.close()
    assert f"kubectl --kubeconfig {tmp_path / 'config'} get --raw /readyz" in str(caught.value.next_step)


@pytest.mark.parametrize(
    ("version", "is_lab"),
    [
        ('{"gitVersion": "v1.37.0+luff-lab"}', True),
        ('{"gitVersion": "v1.33.1-eks-0123456"}', False),
        ("{}", False),
        ("[]", False),
        ("not JSON", False),
    ],
)
def test_a_lab_is_known_by_its_version_whatever_led_to_it(version: str, is_lab: bool, tmp_path: Path) -> None:
    class Versioned(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(version)))
            self.end_headers()
            self.wfile.write(version.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Versioned) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        mesh = KubernetesMesh.connect(Connection(str(_kubeconfig(tmp_path, served.server_port)), None))
        try:
            assert asyncio.run(mesh.is_lab()) is is_lab
        finally:
            mesh.close()
            served.shutdown()


def _kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "prod",
            }
        )
    )
    return path


@pytest.mark.parametrize("content", ["", "{{{", "[]", "apiVersion: v1\nkind: Config\n", "clusters: 7\n"])
def test_a_kubeconfig_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)

    assert current_context(str(path)) is None
    with pytest.raises(MeshError, match="config"):
        KubernetesMesh.connect(Connection(str(path), None))


def test_cancelling_a_write_does_not_take_it_back(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object
) -> None:
    server.misbehaviour.add([Rule("delay", verb="create", seconds=0.3)])

    async def story() -> Object:
        task = asyncio.create_task(adapter.create(virtual_service))
        while server.misbehaviour.left():  # noqa: ASYNC110  # it is another thread that takes the rule
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        until = asyncio.get_running_loop().time() + 5
        while True:
            try:
                return await adapter.read(Ref.of(virtual_service))
            except MeshError:
                assert asyncio.get_running_loop().time() < until

    assert asyncio.run(story())["spec"] == virtual_service["spec"]


def test_a_rotated_token_is_read_anew_and_the_call_made_again(
    server: ApiServer, adapter: KubernetesMesh, virtual_service: Object, tmp_path: Path
) -> None:
    async def story() -> Object:
        await adapter.create(virtual_service)
        server.rotate("n3w")
        with pytest.raises(MeshDenied, match="401"):
            await adapter.read(Ref.of(virtual_service))
        server.write_kubeconfig(tmp_path / "kubeconfig")
        # It is not looked at more often than once a second.
        end_s = time.monotonic() + 10.0
        while True:
            try:
                return await adapter.patch(Ref.of(virtual_service), [{"op": "add", "path": "/spec/kept", "value": 1}])
            except MeshDenied:
                assert time.monotonic() < end_s
                await asyncio.sleep(0.05)

    try:
        assert asyncio.run(story())["spec"]["kept"] == 1
    finally:
        server.rotate("t0ken")


def test_a_kubeconfig_that_names_another_server_by_now_is_not_followed(
    server: ApiServer, adapter: KubernetesMesh, tmp_path: Path
) -> None:
    path = tmp_path / "kubeconfig"
    server.rotate("n3w")
    server.write_kubeconfig(path)
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    path.write_text(yaml.safe_dump(document))

    try:
        with pytest.raises(MeshDenied, match="401"):
            asyncio.run(adapter.read(NOTHING))
    finally:
        server.rotate("t0ken")
