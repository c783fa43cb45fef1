"""One Envoy by itself, whose routes come from `luff.translate`, and which answers with the name of the route taken."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from luff.decide import Proxy, RequestFacts
from luff.hosts import MESH
from luff.lab.envoy import ProxyPlan, bootstrap, resources, write_files
from luff.lab.ports import LOOPBACK, Ports
from luff.lab.processes import clean_environment, end_all, spawn, tail
from luff.lab.program import find_envoy
from luff.mesh_state import MeshState
from luff.model import Object

__all__ = ["OneEnvoy", "one_envoy", "plan_for"]

UP_WITHIN_S = 30.0
NOTHING = "nothing"
"""What stands for a 404 without a route."""


def plan_for(proxy: Proxy, folder: Path, port: int) -> ProxyPlan:
    """Return the plan of a sidecar or, where *proxy* is a gateway, of the ingress, in a folder of its own."""
    folder.mkdir(parents=True)
    return ProxyPlan(
        name=folder.name,
        workload=folder.name,
        replica=0,
        proxy=proxy,
        folder=folder,
        access_log=folder / "access.jsonl",
        proxy_port=port if proxy.gateway == MESH else None,
        gateway_port=port if proxy.gateway != MESH else None,
    )


def _marked(path: Path) -> None:
    """Let each route of a file answer with its own name: what is matched stays as it was."""
    content = json.loads(path.read_text())
    for configuration in content["resources"]:
        for host in configuration["virtual_hosts"]:
            host["routes"] = [
                {
                    "name": route.get("name", ""),
                    "match": route["match"],
                    "direct_response": {"status": 200, "body": {"inline_string": route.get("name", "")}},
                }
                for route in host["routes"]
            ]
    path.write_text(json.dumps(content))


@dataclass
class OneEnvoy:
    """This is the Envoy, with a listener for each of *proxies*."""

    proxies: Sequence[Proxy]
    ports: Sequence[int]
    admin: str

    def stats(self, pattern: str) -> Mapping[str, int]:
        """Return the counters whose name matches *pattern*."""
        url = f"http://{self.admin}/stats?filter={pattern}&format=json"
        found = httpx.get(url, trust_env=False).json()["stats"]
        return {each["name"]: each["value"] for each in found if "name" in each}

    def refused(self) -> list[str]:
        """Return which of its files Envoy has refused, once it has said so of each."""
        until_s = time.monotonic() + UP_WITHIN_S
        while True:
            said = self.stats("ds\\..*update_(success|rejected|failure)")
            bad = [name for name, value in said.items() if value and not name.endswith("update_success")]
            # One of the clusters, and one of the routes for each listener.
            if sum(said.values()) >= 1 + len(self.ports):
                return bad
            assert time.monotonic() < until_s, said
            time.sleep(0.02)

    def config(self) -> Object:
        """Return the configuration as Envoy has it."""
        found: Object = httpx.get(f"http://{self.admin}/config_dump", trust_env=False).json()
        return found

    def ask(self, at: int, requests: Sequence[RequestFacts]) -> list[str]:
        """Return the names of the routes that took *requests* at the proxy of that index."""
        connection = http.client.HTTPConnection(LOOPBACK, self.ports[at], timeout=10)
        try:
            return [_ask(connection, request) for request in requests]
        finally:
            connection.close()


def _ask(connection: http.client.HTTPConnection, request: RequestFacts) -> str:
    connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", request.authority)
    for name, value in request.headers:
        connection.putheader(name, value.encode())
    if request.method not in ("GET", "HEAD"):
        connection.putheader("Content-Length", "0")
    connection.endheaders()
    response = connection.getresponse()
    body = response.read().decode()
    assert response.status in (200, 404), (response.status, body, request)
    return body if response.status == 200 else NOTHING


@contextmanager
def one_envoy(folder: Path, proxies: Sequence[Proxy], state: MeshState, *, marked: bool = True) -> Iterator[OneEnvoy]:
    """Start Envoy with a listener for each of *proxies*; *marked*, its routes answer themselves, with their names."""
    held = Ports()
    ports = [held.take() for _ in proxies]
    plans = [plan_for(proxy, folder / f"p{index}", ports[index]) for index, proxy in enumerate(proxies)]
    for plan in plans:
        write_files(plan, resources(plan, state), {})
        for path in plan.folder.glob("rds-*.json"):
            if marked:
                _marked(path)
    whole = bootstrap(plans[0])
    for plan in plans[1:]:
        whole["static_resources"]["listeners"] += bootstrap(plan)["static_resources"]["listeners"]
    (folder / "bootstrap.json").write_text(json.dumps(whole))
    log, admin = folder / "envoy.log", folder / "admin"
    command = [find_envoy(), "-c", "bootstrap.json", "--disable-hot-restart", "--concurrency", "1", "-l", "warning"]
    envoy = spawn(
        [*command, "--admin-address-path", str(admin)],
        output=log,
        environment=clean_environment(os.environ),
        cwd=folder,
    )
    try:
        until_s = time.monotonic() + UP_WITHIN_S
        while not (admin.exists() and admin.read_text() and _ready(admin.read_text())):
            assert envoy.poll() is None, tail(log)
            assert time.monotonic() < until_s, tail(log)
            time.sleep(0.02)
        yield OneEnvoy(proxies, ports, admin.read_text().strip())
    finally:
        end_all([envoy])
        held.close()


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address.strip()}/ready", trust_env=False).is_success
    except httpx.HTTPError:
        return False
