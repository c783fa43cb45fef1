"""A service in another language, with its user's own manifests: nothing in the lab is made for Python or for bookinfo."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Coroutine
from typing import Any

import httpx
import pytest

from luff.mesh import Kind, Ref
from luff.mesh.kubernetes import Connection, KubernetesMesh
from tests.lab.conftest import Home, until, workload

FRONT = """\
const http = require('http');
const passed = ['traceparent', 'baggage', 'x-luff-run'];
http.createServer((request, response) => {
  const headers = Object.fromEntries(passed.filter(n => n in request.headers).map(n => [n, request.headers[n]]));
  http.get(process.env.BACK_URL + '/from-front', {headers}, answer => {
    let body = '';
    answer.on('data', part => body += part);
    answer.on('end', () => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({me: 'front', status: answer.statusCode, back: answer.statusCode === 200 ? JSON.parse(body) : null}));
    });
  }).on('error', error => { response.statusCode = 500; response.end(String(error)); });
}).listen(Number(process.env.PORT), '127.0.0.1');
"""
MANIFESTS = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back-routes, namespace: shop}
spec:
  hosts: [back]
  http:
    - name: main
      timeout: 5s
      route: [{destination: {host: back, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: back, namespace: shop}
spec:
  host: back
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
"""
CARRIED = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "baggage": "luff-run=abc.1",
    "x-luff-run": "abc.1",
}


def _node() -> None:
    if shutil.which("node") is None:
        message = "node is not installed, and the service under test is written in JavaScript"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


def test_a_node_program_with_its_own_manifests(home: Home) -> None:
    _node()
    (home.folder / "front.js").write_text(FRONT)
    path = home.write(
        workload("front", service="front", run="[node, front.js]", env='{BACK_URL: "${peer:back:8080}"}'),
        workload("back-v1"),
        workload("back-v2", version="v2"),
        MANIFESTS,
    )
    state = home.up(path)
    with httpx.Client(proxy=f"http://{state.sidecar}", trust_env=False, timeout=10) as client:

        def ask(**headers: str) -> dict[str, Any]:
            answer = client.get("http://front.shop:8080/", headers=CARRIED | headers)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        found = ask()
        assert found["me"] == "front"
        assert found["back"]["me"] == "back-v1"
        # What the Node program forwards arrives through two sidecars; its own name for the peer does too.
        arrived = {name.lower(): value for name, value in found["back"]["headers"].items()}
        assert CARRIED.items() <= arrived.items()
        assert arrived["host"] == "back:8080"

        mesh = KubernetesMesh.connect(Connection(state.kubeconfig, None, "lab"))
        try:
            _change_routes(mesh, ask)
        finally:
            mesh.close()
    assert home.luff("lab", "down").code == 0


def _change_routes(mesh: KubernetesMesh, ask: Any) -> None:
    def wait(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(work)

    # The service without routes of its own has got plain ones.
    plain = wait(mesh.read(Ref(Kind.VIRTUAL_SERVICE, "shop", "front")))
    assert plain["spec"]["http"] == [{"route": [{"destination": {"host": "front"}}]}]
    assert {each["metadata"]["name"] for each in wait(mesh.list(Kind.VIRTUAL_SERVICE, "shop"))} == {
        "front",
        "back-routes",
    }

    ref = Ref(Kind.VIRTUAL_SERVICE, "shop", "back-routes")
    canary = {
        "name": "canary",
        "match": [{"headers": {"x-luff-run": {"prefix": "v2."}}}],
        "route": [{"destination": {"host": "back", "subset": "v2"}}],
    }
    wait(mesh.patch(ref, [{"op": "add", "path": "/spec/http/0", "value": canary}]))
    until(lambda: ask(**{"x-luff-run": "v2.1"})["back"]["me"] == "back-v2", what="the new route")
    assert ask()["back"]["me"] == "back-v1"

    # A fault for the one hop is the peer's answer, while the program itself stays up.
    broken = {**canary, "fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}}
    wait(mesh.patch(ref, [{"op": "replace", "path": "/spec/http/0", "value": broken}]))
    until(lambda: ask(**{"x-luff-run": "v2.1"})["status"] == 418, what="the fault")
    assert ask()["status"] == 200

    wait(mesh.patch(ref, [{"op": "remove", "path": "/spec/http/0"}]))
    until(lambda: ask(**{"x-luff-run": "v2.1"})["back"] is not None, what="the end of the fault")
    assert ask(**{"x-luff-run": "v2.1"})["back"]["me"] == "back-v1"


def test_a_peer_on_the_usual_port_is_called_without_it(home: Home) -> None:
    path = home.write(
        workload("front", service="front", env='{ME: front, URL: "${peer:back:80}"}'),
        workload("back", port="80"),
        """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: back, namespace: shop}
spec:
  hosts: [back]
  http:
    - match: [{authority: {exact: back}}]
      route: [{destination: {host: back}}]
""",
    )
    state = home.up(path)
    [front] = [each for each in state.workloads if each.name == "front"]
    # As a client writes `Host: back` for http://back/, and not `back:80`.
    answer = httpx.get(f"http://{front.peers['back:80']}/", trust_env=False, timeout=10)
    assert answer.status_code == 200
    assert answer.json()["headers"]["host"] == "back"
    assert home.luff("lab", "down").code == 0
