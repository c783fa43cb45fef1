"""The kubeconfig and its credentials: whatever is wrong with them is a `MeshError` that says so, also in mid-run."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
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
