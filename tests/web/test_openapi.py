"""The published OpenAPI, and requests made from it at random."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from luff.errors import RunAborted
from luff.store import Store
from luff.testing import Cluster
from luff.web import create_app
from luff.web.listening import Listener, bound_socket
from tests.factories import passed
from tests.web.conftest import serving, virtual_service

EXAMPLES = 8


def _answers(port: int) -> bool:
    with socket.socket() as made:
        return made.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve on a real socket, from a thread, and yield the address."""
    path: Path = tmp_path_factory.mktemp("store") / "luff.db"
    listening = bound_socket("127.0.0.1", 0)
    port = listening.getsockname()[1]
    up, leave = threading.Event(), []

    async def whole() -> None:
        cluster = Cluster()
        cluster.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        cluster.add(virtual_service("stock"))
        with Store.open(f"sqlite:///{path}") as store:
            store.record(passed())
            async with serving(store, cluster) as server:
                listener = Listener(create_app(server.service), listening, grace_s=1)
                loop = asyncio.get_running_loop()
                leave.append(lambda: loop.call_soon_threadsafe(listener.leave))
                up.set()
                await listener.serve()
                server.service.begin_closing(RunAborted("operator", "over"))

    thread = threading.Thread(target=lambda: asyncio.run(whole()))
    thread.start()
    assert up.wait(20)
    until_s = time.monotonic() + 20
    while not _answers(port):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    leave[0]()
    thread.join(60)
    listening.close()


def test_no_request_that_fits_the_openapi_makes_a_server_error(address: str) -> None:
    checks = [not_a_server_error, content_type_conformance, status_code_conformance]
    schema = schemathesis.openapi.from_url(f"{address}/api/openapi.json").exclude(path_regex="/events$")
    seen = set()

    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        seen.add((operation.method, operation.path))

        @settings(
            max_examples=EXAMPLES,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate),
        )
        @given(operation.as_strategy())
        def ask(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=checks, timeout=10)

        ask()

    assert {("post", "/api/v1/runs"), ("get", "/api/v1/occurrences"), ("post", "/api/v1/hooks/flagger")} <= seen
    assert len(seen) >= 20
