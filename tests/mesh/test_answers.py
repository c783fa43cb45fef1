"""Answers that are none: an outcome is unknown unless the answer proves otherwise, and every answer has an end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from luff.errors import Conflict, MeshBusy, MeshDenied, MeshError, MeshUnreachable, NotFound, Rejected
from luff.mesh import Kind, Ref
from luff.mesh.answers import error_of
from luff.mesh.kubernetes import Connection, KubernetesMesh, Limits

REF = Ref(Kind.VIRTUAL_SERVICE, "shop", "x")
PROVE_NOTHING = [0, 100, 204, 301, 302, 304, 307, 408, 425, 429, 499, 500, 502, 503, 504, 599, 700]
PROVE_IT = {400: Rejected, 401: MeshDenied, 403: MeshDenied, 405: Rejected, 409: Conflict,
            410: Rejected, 413: Rejected, 415: Rejected, 422: Conflict, 451: Rejected}  # fmt: skip
Script = Callable[[socket.socket, bytes], None]


@pytest.mark.parametrize("status", PROVE_NOTHING)
def test_a_status_that_proves_nothing_is_an_unknown_outcome(status: int) -> None:
    assert isinstance(error_of(REF, status, "", None), MeshUnreachable | MeshBusy)


@pytest.mark.parametrize(("status", "kind"), PROVE_IT.items())
def test_a_status_that_proves_that_nothing_was_applied_says_so(status: int, kind: type[MeshError]) -> None:
    assert isinstance(error_of(REF, status, "", None), kind)


@pytest.mark.parametrize(
    "text", ["404 page not found\n", "", "{}", '{"message": "no such route"}', "<html>nginx</html>"]
)
def test_a_404_proves_that_an_object_is_gone_only_in_an_api_servers_own_words(text: str) -> None:
    gone = {"kind": "Status", "reason": "NotFound", "message": 'virtualservices.networking.istio.io "x" not found'}
    assert isinstance(error_of(REF, 404, json.dumps(gone), None), NotFound)

    said = error_of(REF, 404, text, None)

    assert isinstance(said, Rejected)
    assert "does not know what a VirtualService is" in said.message
    assert "Istio 1.22" in str(said.next_step)
    other = error_of(Ref(Kind.POD, "shop", "x"), 404, text, None)
    assert isinstance(other, Rejected)
    assert "nobody there knows this path" in other.message


@pytest.mark.parametrize(("namespace", "said"), [("", "with -n"), ("shop", "ask for the role")])
def test_who_may_not_look_everywhere_is_told_that_one_namespace_may_do(namespace: str, said: str) -> None:
    assert said in str(error_of(Ref(Kind.VIRTUAL_SERVICE, namespace, "*"), 403, "forbidden", None).next_step)


@pytest.mark.parametrize("code", [400, 403, 409, 422, 500])
@pytest.mark.parametrize(
    "said",
    [
        'admission webhook "x" denied the request: no',
        "virtualservices \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
    ],
)
def test_a_webhook_or_policy_that_refuses_with_a_code_of_its_own_is_a_refusal(code: int, said: str) -> None:
    """Gatekeeper says 403, a policy of the cluster 422: neither is a role that is missing, nor a write of others."""
    assert isinstance(error_of(REF, code, said, None), Rejected)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[..., KubernetesMesh]]:
    """Return a function that makes a mesh whose server does with every connection what a script says."""
    listening = socket.create_server(("127.0.0.1", 0))
    meshes: list[KubernetesMesh] = []

    def serve(script: Script) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    script(connection, connection.recv(65536))
                except OSError:
                    continue

    def make(script: Script, *, scheme: str = "http", **more: Any) -> KubernetesMesh:
        threading.Thread(target=serve, args=(script,), daemon=True).start()
        server = f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        named = {"name": "x", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [named],
            "users": [{"name": "x", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(document))
        meshes.append(KubernetesMesh.connect(Connection(str(tmp_path / "config"), None), **more))
        return meshes[-1]

    yield make
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    for mesh in meshes:
        mesh.close()


def _answer(body: dict[str, object], *, headers: str = "") -> bytes:
    text = json.dumps(body).encode()
    return f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(text)}\r\n\r\n".encode() + text


def test_tls_that_breaks_is_an_unknown_outcome(scripted: Callable[..., KubernetesMesh]) -> None:
    mesh = scripted(lambda connection, _: connection.sendall(b"this is no TLS record at all\r\n"), scheme="https")

    with pytest.raises(MeshUnreachable, match="SSLError"):
        asyncio.run(mesh.patch(REF, [{"op": "test", "path": "/kind", "value": "x"}]))


def test_an_answer_with_more_warnings_than_anybody_reads_is_an_answer(
    scripted: Callable[..., KubernetesMesh],
) -> None:
    warnings = "".join(f'Warning: 299 - "unknown field {number}"\r\n' for number in range(200))
    mesh = scripted(lambda connection, _: connection.sendall(_answer({"kind": "x"}, headers=warnings)))

    assert asyncio.run(mesh.patch(REF, []))["kind"] == "x"


DRIPS = {
    "the status": b"HTTP/1.1 200 OK" + b"K" * 100_000,
    "a header": b"HTTP/1.1 200 OK\r\nx-drip: " + b"x" * 100_000,
    "the body": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000,
}


@pytest.mark.parametrize("text", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_is_given_up(scripted: Callable[..., KubernetesMesh], text: bytes) -> None:
    def drip(connection: socket.socket, _: bytes) -> None:
        gone = threading.Event()
        for byte in text:
            connection.sendall(bytes([byte]))
            gone.wait(0.02)

    with pytest.raises(MeshUnreachable, match="gave no answer"):
        asyncio.run(scripted(drip, limits=Limits(whole_s=0.3)).read(REF))


def test_an_answer_without_end_is_given_up(scripted: Callable[..., KubernetesMesh]) -> None:
    def flood(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 65536)

    with pytest.raises(MeshUnreachable, match="too large"):
        asyncio.run(scripted(flood, limits=Limits(most_bytes=1_000_000)).read(REF))


def test_a_list_that_always_goes_on_is_given_up(scripted: Callable[..., KubernetesMesh]) -> None:
    asked = []

    def again(connection: socket.socket, request: bytes) -> None:
        while request:
            asked.append(request)
            connection.sendall(_answer({"metadata": {"continue": "more"}, "items": []}))
            request = connection.recv(65536)

    with pytest.raises(MeshUnreachable, match="did not end after 5 pages"):
        asyncio.run(scripted(again, limits=Limits(pages_most=5)).list(Kind.LEASE, "shop"))
    assert len(asked) == 5


def test_silence_is_told_once_and_again_after_an_answer(scripted: Callable[..., KubernetesMesh]) -> None:
    heard: list[str] = []
    speaks = threading.Event()

    def script(connection: socket.socket, _: bytes) -> None:
        if speaks.is_set():
            connection.sendall(_answer({"kind": "x"}))

    mesh = scripted(script, on_silence=heard.append)

    async def story() -> None:
        for _ in range(2):
            with pytest.raises(MeshUnreachable):
                await mesh.read(REF)
        assert len(heard) == 1
        speaks.set()
        await mesh.read(REF)
        speaks.clear()
        with pytest.raises(MeshUnreachable):
            await mesh.read(REF)

    asyncio.run(story())

    assert len(heard) == 2
    assert heard[0].startswith("x at http://127.0.0.1:")


def test_silence_is_told_while_the_answer_is_still_waited_for(scripted: Callable[..., KubernetesMesh]) -> None:
    told = threading.Event()

    def script(connection: socket.socket, _: bytes) -> None:
        # It answers only after it was complained about.
        assert told.wait(30)
        connection.sendall(_answer({"kind": "x"}))

    mesh = scripted(script, on_silence=lambda _: told.set(), limits=Limits(silent_after_s=0.05))

    assert asyncio.run(mesh.read(REF))["kind"] == "x"
