"""An API server in this process, and the real client in front of it."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from luff.lab.api import ApiServer
from luff.mesh import Mesh
from luff.mesh.kubernetes import Connection, KubernetesMesh
from luff.testing import Cluster, SimMesh, virtual_time
from luff.words import Object

NAMESPACE = "shop"


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """Start the lab's API once."""
    started = ApiServer(token="t0ken")
    started.start()
    started.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield started
    started.stop()


@pytest.fixture
def adapter(server: ApiServer, tmp_path: Path) -> Iterator[KubernetesMesh]:
    """Return the adapter under test on that server, which behaves again."""
    server.misbehaviour.clear()
    server.write_kubeconfig(tmp_path / "kubeconfig")
    mesh = KubernetesMesh.connect(Connection(str(tmp_path / "kubeconfig"), "luff-lab", kind="lab"))
    yield mesh
    mesh.close()
    server.misbehaviour.clear()


Run = Callable[[Coroutine[Any, Any, Any]], Any]
SERVERS = ["lab", *(["cluster"] if os.environ.get("LUFF_TEST_KUBECONFIG") else [])]


@pytest.fixture(params=["simulated", *SERVERS])
def mesh_and_run(request: pytest.FixtureRequest) -> Iterator[tuple[Mesh, Run]]:
    """Return each mesh that there is, and how to run coroutines on it."""
    if request.param == "simulated":
        with virtual_time() as run:
            yield SimMesh(Cluster()), run
        return
    with _server_mesh(request) as mesh:
        yield mesh, asyncio.run


@pytest.fixture(params=SERVERS)
def server_mesh(request: pytest.FixtureRequest) -> Iterator[KubernetesMesh]:
    """Return each mesh that is behind a server, for what luff itself does not ask of one."""
    with _server_mesh(request) as mesh:
        yield mesh


@contextmanager
def _server_mesh(request: pytest.FixtureRequest) -> Iterator[KubernetesMesh]:
    if request.param == "lab":
        yield request.getfixturevalue("adapter")
        return
    mesh = KubernetesMesh.connect(Connection(os.environ["LUFF_TEST_KUBECONFIG"], None))
    yield mesh
    mesh.close()


@pytest.fixture
def virtual_service() -> Object:
    """Return an object under a name of its own, with a field that nobody knows."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": f"vs-{uuid.uuid4().hex[:12]}", "namespace": NAMESPACE},
        "spec": {
            "hosts": ["stock"],
            "http": [{"name": "all", "route": [{"destination": {"host": "stock"}, "weight": 100}]}],
            "fromTheFuture": {"kept": [1, 2.5, "ü", None, True]},
        },
    }
