"""
One Envoy of the lab: its bootstrap, its listeners, and the files that it reads its configuration from.

Everything that can change while the lab runs (routes, clusters) is dynamic and
comes from files that are replaced whole; listeners are static, since ports are
chosen once. JSON, because Envoy reads an unquoted ``n`` in YAML as false.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luff.clusters import clusters
from luff.decide import Proxy
from luff.lab.ports import LOOPBACK
from luff.mesh_state import MeshState, Service
from luff.model import Object
from luff.translate import HTTP_PROXY, gateway_routes, inbound_routes, peer_routes, sidecar_routes

__all__ = ["Inbound", "Peer", "ProxyPlan", "bootstrap", "resources", "write_files"]

_TYPES = "type.googleapis.com/envoy"
_PROGRAM_SIZE_MOST = 32768
"""As Istio sets it; Envoy's own 100 refuses what Istio takes."""
FLUSH_EVERY_MS = 50

_LOG = {
    "start": "%START_TIME(%s.%6f)%",
    "duration_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "duration_ms": "%DURATION%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_host": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "traceparent": "%REQ(TRACEPARENT)%",
    "trace_id": "%TRACE_ID%",
    "baggage": "%REQ(BAGGAGE)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "bytes_sent": "%BYTES_SENT%",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """This is one outbound listener of a workload's own for *service*, which its program calls *authority*."""

    service: Service
    authority: str
    port: int


@dataclass(frozen=True, slots=True)
class Inbound:
    """This is a sidecar's way in: *port* leads to the program at *host* and *application_port*."""

    port: int
    service_port: int
    host: str
    application_port: int


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """
    This is one Envoy: a sidecar with *proxy_port* for any host, or the ingress with *gateway_port*.

    The values of *scope_headers* are logged too.
    """

    name: str
    workload: str
    replica: int
    proxy: Proxy
    folder: Path
    access_log: Path
    proxy_port: int | None = None
    gateway_port: int | None = None
    peers: tuple[Peer, ...] = ()
    inbound: Inbound | None = None
    scope_headers: tuple[str, ...] = ("x-luff-run",)


def resources(plan: ProxyPlan, state: MeshState) -> dict[str, Object]:
    """Return what *plan*'s Envoy should have now, by file name; each is a whole discovery response."""
    made = {"cds.json": [_typed("config.cluster.v3.Cluster", each) for each in _clusters(plan, state)]}
    for name, routes in _route_configurations(plan, state).items():
        made[_file(name)] = [_typed("config.route.v3.RouteConfiguration", {**routes, "name": name})]
    return {file: {"resources": found} for file, found in made.items()}


def _typed(kind: str, value: Object) -> Object:
    return {"@type": f"{_TYPES}.{kind}", **value}


def _file(name: str) -> str:
    return f"rds-{re.sub(r'[^a-zA-Z0-9.]', '_', name)}.json"


def _clusters(plan: ProxyPlan, state: MeshState) -> list[Object]:
    made = clusters(state, plan.proxy.namespace)
    if plan.inbound is not None:
        name = f"inbound|{plan.inbound.service_port}||"
        address = {"socket_address": {"address": plan.inbound.host, "port_value": plan.inbound.application_port}}
        made.append(
            {
                "name": name,
                "type": "STATIC",
                "connect_timeout": "10s",
                "circuit_breakers": {"thresholds": [{"max_connections": 1 << 20, "max_requests": 1 << 20, "max_pending_requests": 1 << 20, "max_retries": 1 << 20}]},
                "load_assignment": {
                    "cluster_name": name,
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                },
                "typed_extension_protocol_options": made[0]["typed_extension_protocol_options"],
            }
        )  # fmt: skip
    return made


def _route_configurations(plan: ProxyPlan, state: MeshState) -> dict[str, Object]:
    if plan.gateway_port is not None:
        return {"http.80": gateway_routes(state, plan.proxy.namespace)}
    made = sidecar_routes(state, plan.proxy)
    for peer in plan.peers:
        name = f"{peer.service.host}:{peer.service.port}"
        made[name] = peer_routes(made[str(peer.service.port)], peer.service)
    return made


def write_files(plan: ProxyPlan, files: Mapping[str, Object], written: dict[str, str]) -> bool:
    """
    Bring the files of *plan* to what `resources` made, clusters first, each replaced whole; return whether any changed.

    *written* remembers what is there, by file name. Each names its version, so that
    what an Envoy runs can be compared with what it was given.
    """
    changed = False
    for file, content in files.items():
        text = json.dumps(content, separators=(",", ":"))
        if written.get(file) == text:
            continue
        path = plan.folder / file
        new = path.with_suffix(".new")
        version = hashlib.sha256(text.encode()).hexdigest()[:16]
        new.write_text(f'{{"version_info":"{version}",{text.removeprefix("{")}', encoding="utf-8")
        os.replace(new, path)  # noqa: PTH105  # the move is what Envoy watches for
        written[file] = text
        changed = True
    return changed


def bootstrap(plan: ProxyPlan) -> Object:
    """Return what Envoy is started with. Its admin port is chosen by the system."""
    return {
        "node": {"id": plan.name, "cluster": f"{plan.workload}.{plan.proxy.namespace}"},
        "admin": {"address": _address(0)},
        "dynamic_resources": {"cds_config": _source(plan.folder / "cds.json")},
        "static_resources": {"listeners": _listeners(plan)},
        "layered_runtime": {
            "layers": [
                {"name": "lab", "static_layer": {"re2.max_program_size.error_level": _PROGRAM_SIZE_MOST}},
                {"name": "admin", "admin_layer": {}},
            ]
        },
    }


def _source(path: Path) -> Object:
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3", "initial_fetch_timeout": "10s"}


def _address(port: int) -> Object:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _listeners(plan: ProxyPlan) -> list[Object]:
    made = []
    if plan.proxy_port is not None:
        made.append(_listener(plan, plan.proxy_port, f"outbound_{HTTP_PROXY};", rds=HTTP_PROXY, direction="OUTBOUND"))
    for peer in plan.peers:
        name = f"{peer.service.host}:{peer.service.port}"
        made.append(
            _listener(
                plan,
                peer.port,
                f"outbound_{peer.service.port};",
                rds=name,
                direction="OUTBOUND",
                first=[_say_authority(peer.authority)],
            )
        )
    if plan.inbound is not None:
        made.append(
            _listener(
                plan,
                plan.inbound.port,
                f"inbound_{plan.inbound.service_port};",
                static=inbound_routes(plan.inbound.service_port),
                direction="INBOUND",
            )
        )
    if plan.gateway_port is not None:
        made.append(
            _listener(plan, plan.gateway_port, "outbound_http.80;", rds="http.80", direction="OUTBOUND", edge=True)
        )
    return made


def _say_authority(authority: str) -> Object:
    """Return a filter that puts the peer's name where the program could only write the listener's address."""
    assert re.fullmatch(r"[A-Za-z0-9.-]+:[0-9]+", authority)
    # A client leaves out the port that http has anyway.
    authority = authority.removesuffix(":80")
    script = f"function envoy_on_request(handle) handle:headers():replace(':authority', '{authority}') end"
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    }


def _listener(
    plan: ProxyPlan,
    port: int,
    stat_prefix: str,
    *,
    direction: str,
    rds: str | None = None,
    static: Object | None = None,
    first: list[Object] | None = None,
    edge: bool = False,
) -> Object:
    manager: Object = {
        "@type": f"{_TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        "normalize_path": True,
        "use_remote_address": edge,
        "generate_request_id": True,
        "stream_idle_timeout": "0s",
        "server_name": "istio-envoy" if edge or direction == "INBOUND" else "envoy",
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "access_log": [_access_log(plan, direction)],
        "http_filters": [*(first or []), _filter("fault", "HTTPFault"), _filter("cors", "Cors"), _filter("router", "Router")],
    }  # fmt: skip
    if rds is not None:
        manager["rds"] = {"route_config_name": rds, "config_source": _source(plan.folder / _file(rds))}
    else:
        manager["route_config"] = static
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": f"{LOOPBACK}_{port}",
        "address": _address(port),
        "traffic_direction": direction,
        "enable_reuse_port": True,
        "filter_chains": [{"filters": [network]}],
    }


def _filter(name: str, kind: str) -> Object:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{_TYPES}.extensions.filters.http.{name}.v3.{kind}"},
    }


def _access_log(plan: ProxyPlan, direction: str) -> Object:
    fields: Mapping[str, Any] = {
        **_LOG,
        "scope": {name: f"%REQ({name})%" for name in plan.scope_headers},
        "workload": plan.workload,
        "replica": plan.replica,
        "direction": direction.lower(),
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(plan.access_log),
            "log_format": {"json_format": fields},
        },
    }
