"""The kubeconfig and its credentials: whatever is wrong with them is a `MeshError` that says so, also in mid-run."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from luff.clock import SystemClock
from luff.errors import MeshDenied, MeshError, MeshUnreachable, RestoreNotVerified
from luff.lab.api import ApiServer
from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.withdraw import withdraw
from tests.mesh.conftest import NAMESPACE

NOTHING = Ref(Kind.LEASE, NAMESPACE, "nothing")
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Iterator[Callable[[Edit], Path]]:
    """Return a function that changes a copy of the server's kubeconfig and returns its path."""
    server.misbehaviour.clear()
    path = tmp_path / "config"

    def change(edit: Edit) -> Path:
        server.write_kubeconfig(path)
        document = yaml.safe_load(path.read_text())
        edit(document)
        path.write_text(yaml.safe_dump(document))
        return path

    yield change
    server.rotate("t0ken")


def _user(**fields: Any) -> Edit:
    return lambda document: document["users"][0].update(user=fields)


def _cluster(**fields: Any) -> Edit:
    return lambda document: document["clusters"][0]["cluster"].update(fields)


BROKEN: dict[str, Edit] = {
    "base64 that is none": _cluster(server="https://127.0.0.1:1", **{"certificate-authority-data": "abc"}),
    "a proxy that is no address": _cluster(server="https://192.0.2.1", **{"proxy-url": "http://[::1"}),
    "a token that no header can carry": _user(token="ab€"),
    "a token of two lines": _user(token="a\nb"),
    "users that are none": lambda document: document.update(users=["x"]),
    "a context that is none": lambda document: document.update(contexts=["x"]),
}


@pytest.mark.parametrize("edit", BROKEN.values(), ids=BROKEN)
def test_a_kubeconfig_that_cannot_be_used_is_said_with_its_name(kubeconfig: Callable[[Edit], Path], edit: Edit) -> None:
    path = kubeconfig(edit)

    with pytest.raises(MeshError, match=f"{path} cannot be used") as caught:
        KubernetesMesh.connect(Connection(str(path), None))

    assert caught.value.__cause__ is not None


def test_a_kubeconfig_that_is_not_text_is_said_with_its_name(kubeconfig: Callable[[Edit], Path]) -> None:
    path = kubeconfig(lambda _: None)
    path.write_bytes(path.read_bytes() + b"# \xff\xfe\n")

    with pytest.raises(MeshError, match=f"{path} cannot be used"):
        KubernetesMesh.connect(Connection(str(path), None))


def test_a_newline_at_the_end_of_a_token_is_not_part_of_it(kubeconfig: Callable[[Edit], Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t0ken\n")

    for edit in (_user(token="t0ken\n"), _user(tokenFile=str(tmp_path / "token"))):
        mesh = KubernetesMesh.connect(Connection(str(kubeconfig(edit)), None))
        try:
            assert asyncio.run(mesh.server_time_s()) > 0
            assert asyncio.run(mesh.list(Kind.LEASE, NAMESPACE)) is not None
        finally:
            mesh.close()


def test_a_kubeconfig_that_is_half_written_in_mid_run_ends_no_restore(
    server: ApiServer, kubeconfig: Callable[[Edit], Path]
) -> None:
    mesh = KubernetesMesh.connect(Connection(str(kubeconfig(lambda _: None)), None))
    server.rotate("n3w")
    kubeconfig(_cluster(server="https://127.0.0.1:1", **{"certificate-authority-data": "LS0tL"}))

    try:
        with pytest.raises(MeshDenied, match="401"):
            asyncio.run(mesh.read(NOTHING))
        with pytest.raises(RestoreNotVerified):
            asyncio.run(withdraw(mesh, NOTHING, run="0" * 16, clock=SystemClock(), patience_s=0.5))
    finally:
        mesh.close()


def _plugin(folder: Path, script: str) -> str:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def _exec(command: str) -> Edit:
    return _user(exec={"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never"})


def _credential(status: str) -> str:
    return (
        f"""echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {status}}}'"""
    )


def test_a_credential_plugin_that_is_missing_is_named_and_nothing_else_is_printed(
    kubeconfig: Callable[[Edit], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = kubeconfig(_exec("aws-nope"))

    with pytest.raises(MeshError, match="the credential plugin aws-nope is not installed") as caught:
        KubernetesMesh.connect(Connection(str(path), None))

    assert "`aws-nope` is on the PATH" in str(caught.value.next_step)
    assert capfd.readouterr() == ("", "")


FAILING = {
    "ends badly": ("echo 'sign in first' >&2; exit 3", "ended with 3: sign in first"),
    "says nothing": ("true", "did not print an ExecCredential"),
    "says something else": ("echo '[1]'", "did not print an ExecCredential"),
    "gives nothing": (_credential("{}"), "gave neither a token nor a certificate"),
}


@pytest.mark.parametrize(("script", "said"), FAILING.values(), ids=FAILING)
def test_a_credential_plugin_that_fails_says_how(
    kubeconfig: Callable[[Edit], Path], tmp_path: Path, script: str, said: str
) -> None:
    path = kubeconfig(_exec(_plugin(tmp_path, script)))

    with pytest.raises(MeshError, match=said):
        KubernetesMesh.connect(Connection(str(path), None))


def test_a_credential_plugin_is_asked_anew_when_its_token_has_expired_and_never_reads_what_we_are_told(
    kubeconfig: Callable[[Edit], Path], tmp_path: Path
) -> None:
    (tmp_path / "given").write_text("t0ken")
    status = f"""{{"token": "'"$(cat {tmp_path}/given)"'", "expirationTimestamp": "2020-01-01T00:00:00Z"}}"""
    script = f"cat > {tmp_path}/stdin; echo x >> {tmp_path}/asked; {_credential(status)}"
    mesh = KubernetesMesh.connect(Connection(str(kubeconfig(_exec(_plugin(tmp_path, script)))), None))

    reader, writer = os.pipe()
    os.write(writer, b"a line for the guard\n")
    kept = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert asyncio.run(mesh.list(Kind.LEASE, NAMESPACE)) is not None
        (tmp_path / "plugin").unlink()
        with pytest.raises(MeshUnreachable, match="credential plugin"):
            asyncio.run(mesh.list(Kind.LEASE, NAMESPACE))
    finally:
        os.dup2(kept, 0)
        for descriptor in (kept, reader, writer):
            os.close(descriptor)
        mesh.close()

    assert (tmp_path / "asked").read_text().count("x") == 2
    assert (tmp_path / "stdin").read_text() == ""


# --- certificates and keys: what is text in the kubeconfig, or comes from a plugin, gets no file with a name


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate for 127.0.0.1 that is its own authority; its key is beside it."""
    certificate = tmp_path_factory.mktemp("pem") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=both", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate.with_suffix(".key"),
         "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_request(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def strict(pem: Path) -> Iterator[str]:
    """Return the address of a server that talks only to who shows the right certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pem))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pem, pem.with_suffix(".key"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is the temporary one of this process and its children."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def _data(path: Path) -> str:
    return base64.b64encode("# Zürich\n".encode() + path.read_bytes()).decode()


def _shown_as(how: str, pem: Path, folder: Path) -> Edit:
    """Return who shows the certificate *how*: from a file, as data, half and half, or from a plugin."""
    key = pem.with_suffix(".key")
    files = {"client-certificate": str(pem), "client-key": str(key)}
    data = {"client-certificate-data": _data(pem), "client-key-data": _data(key)}
    if how == "plugin":
        (folder / "credential").write_text(json.dumps({"status": {
            "clientCertificateData": pem.read_text(), "clientKeyData": key.read_text()}}))  # fmt: skip
        return _exec(_plugin(folder, f"cat {folder}/credential"))
    halves = {"client-certificate": files["client-certificate"], "client-key-data": data["client-key-data"]}
    return _user(**{"files": files, "data": data, "halves": halves, "data before files": {**data, **_GONE}}[how])


_GONE = {"client-certificate": "/gone.pem", "client-key": "/gone.key"}


@pytest.mark.parametrize("authority", ["file", "data"])
@pytest.mark.parametrize("how", ["files", "data", "halves", "data before files", "plugin"])
def test_a_certificate_is_shown_wherever_it_comes_from_and_none_is_written(
    kubeconfig: Callable[[Edit], Path],
    pem: Path,
    strict: str,
    tmp_path: Path,
    temporary: Path,
    how: str,
    authority: str,
) -> None:
    theirs = {"certificate-authority": str(pem)} if authority == "file" else {"certificate-authority-data": _data(pem)}

    def edit(document: dict[str, Any]) -> None:
        _cluster(server=strict, **theirs)(document)
        _shown_as(how, pem, tmp_path)(document)

    mesh = KubernetesMesh.connect(Connection(str(kubeconfig(edit)), None))
    try:
        assert asyncio.run(mesh.server_time_s()) > 0
    finally:
        mesh.close()

    assert list(temporary.iterdir()) == []


def test_a_server_of_another_authority_is_not_believed(
    kubeconfig: Callable[[Edit], Path], pem: Path, strict: str, tmp_path: Path
) -> None:
    def edit(document: dict[str, Any]) -> None:
        _cluster(server=strict)(document)
        _shown_as("data", pem, tmp_path)(document)

    mesh = KubernetesMesh.connect(Connection(str(kubeconfig(edit)), None))
    try:
        with pytest.raises(MeshUnreachable, match="certificate verify failed"):
            asyncio.run(mesh.server_time_s())
    finally:
        mesh.close()


def test_a_key_that_wants_a_password_is_an_error_and_nobody_is_asked_for_one(
    kubeconfig: Callable[[Edit], Path], pem: Path, strict: str, tmp_path: Path
) -> None:
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", pem.with_suffix(".key"), "-passout", "pass:secret", "-out", locked],
        check=True,
    )

    def edit(document: dict[str, Any]) -> None:
        _cluster(server=strict)(document)
        _user(**{"client-certificate-data": _data(pem), "client-key-data": _data(locked)})(document)

    with pytest.raises(MeshError, match="cannot be used"):
        KubernetesMesh.connect(Connection(str(kubeconfig(edit)), None))


_RUN_AND_GUARD = """
import asyncio, os, sys
from luff.guard import Guard
from luff.mesh.kubernetes import Connection, KubernetesMesh

async def main():
    connection = Connection(sys.argv[1], None)
    guard = await Guard.start(connection, keep_open=[int(sys.argv[2])])
    await KubernetesMesh.connect(connection).server_time_s()
    print("both are there", flush=True)
    await guard.died()

asyncio.run(main())
"""


def test_a_run_that_is_killed_and_its_guard_leave_no_key_behind(
    kubeconfig: Callable[[Edit], Path], pem: Path, strict: str, tmp_path: Path, temporary: Path
) -> None:
    def edit(document: dict[str, Any]) -> None:
        _cluster(server=strict, **{"certificate-authority-data": _data(pem)})(document)
        _shown_as("data", pem, tmp_path)(document)

    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN_AND_GUARD, str(kubeconfig(edit)), str(writer)],
        stdout=subprocess.PIPE,
        pass_fds=[writer],
    )
    os.close(writer)
    assert process.stdout is not None
    assert process.stdout.readline() == b"both are there\n"
    process.kill()
    process.communicate()
    # The guard holds the other end: it has ended when this has.
    assert os.read(reader, 1) == b""
    os.close(reader)

    assert list(temporary.iterdir()) == []
