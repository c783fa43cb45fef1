"""What the real Envoy counts of a fault towards the ejection and the limits of a dependency: nothing, unlike of the real thing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from luff.decide import Proxy
from luff.mesh_state import Endpoint, MeshState, Service
from luff.words import Object
from tests.lab.one_envoy import OneEnvoy, one_envoy

WITHIN_S = 20.0
CALLS = 4
CLUSTER = "cluster.outbound|80||stock.shop.svc.cluster.local"
POLICY = {
    "outlierDetection": {"consecutive5xxErrors": 2, "baseEjectionTime": "60s", "maxEjectionPercent": 100},
    "connectionPool": {"http": {"http2MaxRequests": 1}},
}


class _Failing(BaseHTTPRequestHandler):
    slow_until = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.slow_until.wait(WITHIN_S)
        self.send_response(503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def stock() -> Iterator[Service]:
    """A service that really fails."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Failing)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield Service("stock", "shop", 80, (Endpoint("127.0.0.1", server.server_address[1], {}),))
    server.shutdown()
    thread.join()
    server.server_close()


def _until(envoy: OneEnvoy, name: str, count: int) -> None:
    until_s = time.monotonic() + WITHIN_S
    while _count(envoy, name) < count:
        assert time.monotonic() < until_s


def _object(kind: str, **spec: Any) -> Object:
    metadata = {"name": "stock", "namespace": "shop"}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


def _state(stock: Service) -> MeshState:
    to = [{"destination": {"host": "stock"}}]
    whole = {"percentage": {"value": 100}}
    faults: dict[str, Object] = {
        "abort": {"abort": {"httpStatus": 503, **whole}},
        "delay": {"delay": {"fixedDelay": "300s", **whole}},
    }
    twins = [{"match": [{"uri": {"prefix": f"/{name}"}}], "route": to, "fault": each} for name, each in faults.items()]
    rules = _object("DestinationRule", host="stock", trafficPolicy=POLICY)
    return MeshState((stock,), (_object("VirtualService", hosts=["stock"], http=[*twins, {"route": to}]),), (rules,))


def _get(envoy: OneEnvoy, path: str, *, within_s: float = WITHIN_S) -> int:
    url = f"http://127.0.0.1:{envoy.ports[0]}{path}"
    return httpx.get(url, headers={"host": "stock"}, trust_env=False, timeout=within_s).status_code


def _count(envoy: OneEnvoy, name: str) -> int:
    return sum(value for key, value in envoy.stats(name).items() if key.startswith(CLUSTER) or "fault" in key)


def test_an_abort_takes_no_pod_out_and_a_real_failure_does(stock: Service, tmp_path: Path) -> None:
    with one_envoy(tmp_path, [Proxy({}, "shop")], _state(stock), marked=False) as envoy:
        assert [_get(envoy, "/abort") for _ in range(CALLS)] == [503] * CALLS
        assert _count(envoy, "ejections_enforced_total") == 0
        assert _count(envoy, "upstream_rq_total") == 0

        assert [_get(envoy, "/") for _ in range(CALLS)] == [503] * CALLS
        assert _count(envoy, "ejections_enforced_total") == 1


def test_what_a_delay_holds_is_in_no_connection_pool(stock: Service, tmp_path: Path) -> None:
    with (
        one_envoy(tmp_path, [Proxy({}, "shop")], _state(stock), marked=False) as envoy,
        ThreadPoolExecutor(CALLS) as pool,
    ):
        held = [pool.submit(_get, envoy, "/delay", within_s=2.0) for _ in range(CALLS)]
        _until(envoy, "active_faults", CALLS)
        # One request fills the pool, and there is room for it.
        assert _count(envoy, "upstream_rq_active") == 0
        assert _get(envoy, "/") == 503
        assert (_count(envoy, "upstream_rq_total"), _count(envoy, "upstream_rq_active_overflow")) == (1, 0)
        assert all(isinstance(each.exception(), httpx.TimeoutException) for each in held)


def test_what_a_slow_dependency_holds_fills_the_pool_over_http_1_too(stock: Service, tmp_path: Path) -> None:
    with (
        one_envoy(tmp_path, [Proxy({}, "shop")], _state(stock), marked=False) as envoy,
        ThreadPoolExecutor(1) as pool,
    ):
        held = pool.submit(_get, envoy, "/slow")
        try:
            _until(envoy, "upstream_rq_active", 1)
            assert [_get(envoy, "/") for _ in range(CALLS)] == [503] * CALLS
            assert (_count(envoy, "upstream_rq_total"), _count(envoy, "upstream_rq_active_overflow")) == (1, CALLS)
        finally:
            _Failing.slow_until.set()
        assert held.result() == 503
