"""
From `LabWorkload` documents to replicas: ports, labels, peers, and the environment that each program gets.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from luff.decide import Proxy
from luff.errors import LabError
from luff.hosts import meanings
from luff.lab.envoy import Inbound, Peer, ProxyPlan
from luff.lab.ports import LOOPBACK, Ports
from luff.lab.processes import clean_environment
from luff.mesh_state import Endpoint, Service
from luff.model import LabWorkload

__all__ = ["INGRESS", "LUFF", "Replica", "Topology", "lay_out", "program_environment"]

LUFF = "luff"
"""The workload that luff's own traffic comes from."""
INGRESS = "ingress"
_PEER = re.compile(r"\$\{(peer|peerAddress):([^}:]+):([0-9]+)\}")


@dataclass(frozen=True, slots=True)
class Replica:
    """This is one replica: its document (``None`` for luff and the ingress), its sidecar, its labels."""

    plan: ProxyPlan
    labels: Mapping[str, str]
    workload: LabWorkload | None = None
    output: Path | None = None

    @property
    def name(self) -> str:
        """Return the name that logs and proxies have."""
        return self.plan.name


@dataclass(frozen=True, slots=True)
class Topology:
    """This is the whole lab, laid out: every port chosen, nothing started."""

    services: tuple[Service, ...]
    replicas: tuple[Replica, ...]
    namespace: str
    namespaces: frozenset[str] = field(default_factory=frozenset)

    def one(self, name: str) -> Replica:
        """Return the replica of luff's own workload or the ingress."""
        return next(replica for replica in self.replicas if replica.plan.workload == name)


def namespace_of(workload: LabWorkload) -> str:
    """Return the namespace of *workload*; ``default`` where it says none."""
    return workload.metadata.namespace or "default"


def labels_of(workload: LabWorkload) -> dict[str, str]:
    """Return the labels that subsets and ``sourceLabels`` see; ``app`` is the service unless it is written."""
    return {"app": workload.spec.service, **workload.metadata.labels}


def lay_out(
    workloads: Sequence[LabWorkload], folder: Path, ports: Ports, *, scope_headers: tuple[str, ...]
) -> Topology:
    """Return the topology of *workloads* in *folder*; `LabError` for what contradicts itself."""
    _check(workloads)
    namespace = namespace_of(workloads[0])
    inbound: dict[tuple[int, int], Inbound] = {}
    endpoints: dict[tuple[str, str, int], list[Endpoint]] = {}
    for index, workload in enumerate(workloads):
        spec = workload.spec
        for number in range(spec.replicas):
            host, port = _application(workload, ports)
            way_in = Inbound(ports.take(), spec.port, host, port)
            inbound[index, number] = way_in
            where = (spec.service, namespace_of(workload), spec.port)
            endpoints.setdefault(where, []).append(Endpoint(LOOPBACK, way_in.port, labels_of(workload)))
    services = tuple(Service(name, at, port, tuple(found)) for (name, at, port), found in endpoints.items())
    replicas = [
        _replica(workload, number, folder, ports, services, inbound[index, number], scope_headers)
        for index, workload in enumerate(workloads)
        for number in range(workload.spec.replicas)
    ]
    for name in (LUFF, INGRESS):
        plan = ProxyPlan(
            name=f"{name}-0",
            workload=name,
            replica=0,
            proxy=Proxy(labels={"app": name}, namespace=namespace),
            folder=folder / "proxies" / f"{name}-0",
            access_log=folder / "logs" / f"{name}-0.access.jsonl",
            proxy_port=ports.take() if name == LUFF else None,
            gateway_port=ports.take() if name == INGRESS else None,
            scope_headers=scope_headers,
        )
        replicas.append(Replica(plan, {"app": name}))
    return Topology(services, tuple(replicas), namespace, frozenset(service.namespace for service in services))


def _check(workloads: Sequence[LabWorkload]) -> None:
    if not workloads:
        raise LabError("there is no LabWorkload in these files", next_step="add one, or leave FILE out for bookinfo")
    seen: set[str] = set()
    ports: dict[tuple[str, str], int] = {}
    for workload in workloads:
        where = f"{workload.file}: LabWorkload {workload.metadata.name}"
        if workload.metadata.name in (LUFF, INGRESS):
            raise LabError(f"{where}: the name is taken by the lab itself", next_step="choose another name")
        if workload.metadata.name in seen:
            raise LabError(
                f"{where}: there are two of that name, and logs and proxies are told apart by it, whatever the namespace",
                next_step="rename one of them",
            )
        seen.add(workload.metadata.name)
        service = (namespace_of(workload), workload.spec.service)
        if ports.setdefault(service, workload.spec.port) != workload.spec.port:
            raise LabError(
                f"{where}: the service {workload.spec.service} has port {ports[service]} in another LabWorkload",
                next_step="a service has one port in the lab",
            )
        if workload.spec.address is not None and workload.spec.replicas > 1:
            raise LabError(f"{where}: an address is one replica", next_step="leave replicas out")


def _application(workload: LabWorkload, ports: Ports) -> tuple[str, int]:
    if workload.spec.address is None:
        return LOOPBACK, ports.take()
    host, _, port = workload.spec.address.rpartition(":")
    return ("127.0.0.1" if host == "localhost" else host.strip("[]")), int(port)


def _replica(
    workload: LabWorkload,
    number: int,
    folder: Path,
    ports: Ports,
    services: tuple[Service, ...],
    inbound: Inbound,
    scope_headers: tuple[str, ...],
) -> Replica:
    name = f"{workload.metadata.name}-{number}"
    labels = labels_of(workload)
    peers = tuple(
        Peer(_service(host, int(port), workload, services), f"{host}:{port}", ports.take())
        for host, port in _peers(workload)
    )
    plan = ProxyPlan(
        name=name,
        workload=workload.metadata.name,
        replica=number,
        proxy=Proxy(labels=labels, namespace=namespace_of(workload)),
        folder=folder / "proxies" / name,
        access_log=folder / "logs" / f"{name}.access.jsonl",
        proxy_port=ports.take(),
        peers=peers,
        inbound=inbound,
        scope_headers=scope_headers,
    )
    return Replica(plan, labels, workload, folder / "logs" / f"{name}.log")


def _peers(workload: LabWorkload) -> list[tuple[str, str]]:
    texts = [*workload.spec.env.values(), *(workload.spec.run or ())]
    return list(dict.fromkeys((found[2], found[3]) for text in texts for found in _PEER.finditer(text)))


def _service(host: str, port: int, workload: LabWorkload, services: Sequence[Service]) -> Service:
    wanted = meanings(host, namespace_of(workload))
    for service in services:
        if service.host in wanted and service.port == port:
            return service
    known = ", ".join(f"{service.name}:{service.port}" for service in services)
    raise LabError(
        f"{workload.file}: LabWorkload {workload.metadata.name} names the peer {host}:{port}, which no LabWorkload serves",
        next_step=f"correct it, or add a LabWorkload for it; there are: {known}",
    )


def program_environment(replica: Replica, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the program of *replica* gets: the caller's *environment*, its port, its peers, its own proxy."""
    assert replica.workload is not None
    assert replica.plan.inbound is not None
    proxy = f"http://{LOOPBACK}:{replica.plan.proxy_port}"
    path = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), environment.get("PATH")]))
    own = {name: expand(value, replica.plan) for name, value in replica.workload.spec.env.items()}
    loopback = "localhost,127.0.0.1,::1"
    return {
        **clean_environment(environment),
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": loopback,
        "no_proxy": loopback,
        **own,
        "PORT": str(replica.plan.inbound.application_port),
    }


def expand(text: str, plan: ProxyPlan) -> str:
    """Return *text* with ``${peer:...}`` and ``${peerAddress:...}`` replaced by this replica's own listeners."""
    ports = {peer.authority: peer.port for peer in plan.peers}

    def address(found: re.Match[str]) -> str:
        where = f"{LOOPBACK}:{ports[f'{found[2]}:{found[3]}']}"
        return where if found[1] == "peerAddress" else f"http://{where}"

    return _PEER.sub(address, text)
