"""
VirtualServices, DestinationRules and Gateways to Envoy routes and clusters, laid out and named as pilot does.

Each proxy gets its own: ``sourceLabels``, ``sourceNamespace``, ``gateways`` and
``port`` are decided here and never at run time. One route is `luff.envoy_routes`'
matter. The rules are those of Istio's ``pilot/pkg/networking/core/route/route.go``;
what is left out is listed in docs/limits.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from luff.decide import Proxy
from luff.delegates import merged_routes
from luff.envoy_routes import retry_policy, translated_route
from luff.hosts import MESH, covers, matches, namespace_of, qualify, qualify_gateway
from luff.mesh_state import MeshState, Service, age, imported
from luff.words import Object

__all__ = [
    "HTTP_PROXY",
    "gateway_routes",
    "inbound_routes",
    "peer_routes",
    "sidecar_routes",
]

HTTP_PROXY = "http_proxy"
"""The route configuration of the listener that takes any host, as pilot calls it."""

# Which VirtualService a proxy uses for what.


def _at_gateway(virtual_service: Object, gateway: str) -> bool:
    named = virtual_service["spec"].get("gateways") or [MESH]
    return any(qualify_gateway(name, namespace_of(virtual_service)) == gateway for name in named)


def _in_line(service: Service, seen: Sequence[Object]) -> list[Object]:
    """Return the VirtualServices for *service* in the order in which a sidecar uses them: the closest host, then the first seen."""
    ranked = []
    for candidate in seen:
        patterns = [qualify(str(written), namespace_of(candidate)) for written in candidate["spec"].get("hosts") or []]
        ranks = [10_000 if not p.startswith("*") else len(p) for p in patterns if matches(p, service.host)]
        if ranks:
            ranked.append((max(ranks), candidate))
    return [candidate for _, candidate in sorted(ranked, key=lambda each: -each[0])]


# Route configurations.


def sidecar_routes(state: MeshState, proxy: Proxy) -> dict[str, Object]:
    """Return the outbound route configurations of a sidecar, by name: one a port, and `HTTP_PROXY` for all of them."""
    seen = [
        each
        for each in imported(state.virtual_services, proxy.namespace)
        if each["spec"].get("hosts") and _at_gateway(each, MESH)
    ]
    by_port: dict[int, list[Object]] = {}
    for service in state.services:
        routes = _service_routes(service, seen, state, proxy)
        by_port.setdefault(service.port, []).append(
            {
                "name": f"{service.host}:{service.port}",
                "domains": _domains(service, proxy.namespace),
                "routes": routes,
                "include_request_attempt_count": True,
            }
        )
    found = {str(port): _configuration(str(port), hosts) for port, hosts in sorted(by_port.items())}
    every = []
    for port, hosts in sorted(by_port.items()):
        for host in hosts:
            domains = [f"{domain}:{port}" for domain in host["domains"]]
            every.append({**host, "domains": [*domains, *host["domains"]] if port == 80 else domains})
    found[HTTP_PROXY] = {**_configuration(HTTP_PROXY, every), "ignore_port_in_host_matching": False}
    return found


def peer_routes(configuration: Object, service: Service) -> Object:
    """Return *configuration* for the listener that is one peer's own, under the name that pilot gives such a one."""
    return {**configuration, "name": f"{service.host}:{service.port}"}


def _configuration(name: str, hosts: list[Object]) -> Object:
    block = {
        "name": "block_all",
        "domains": ["*"],
        "routes": [{"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }
    return {
        "name": name,
        "virtual_hosts": [*hosts, block],
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1 << 20,
    }


def _domains(service: Service, namespace: str) -> list[str]:
    longer = [f"{service.name}.{service.namespace}", f"{service.name}.{service.namespace}.svc"]
    short = [service.name] if service.namespace == namespace else []
    return [service.host, *short, *longer]


def _service_routes(service: Service, seen: Sequence[Object], state: MeshState, proxy: Proxy) -> list[Object]:
    for candidate in _in_line(service, seen):
        routes = list(_translated(candidate, state, proxy, port=service.port))
        # One that makes no route for this proxy, such as one for TCP alone, leaves the host to the next.
        if routes:
            return routes
    return [_default_route(f"outbound|{service.port}||{service.host}")]


def _default_route(cluster: str) -> Object:
    return {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": "0s", "retry_policy": retry_policy(None)},
    }


def inbound_routes(port: int) -> Object:
    """Return the route configuration of a sidecar's way in, for the service port *port*."""
    cluster = f"inbound|{port}||"
    retry = {"retry_on": "reset-before-request", "num_retries": 2}
    route = {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": "0s", "retry_policy": retry},
    }
    return {
        "name": cluster,
        "virtual_hosts": [{"name": f"inbound|http|{port}", "domains": ["*"], "routes": [route]}],
        "validate_clusters": False,
    }


def gateway_routes(state: MeshState, namespace: str) -> Object:
    """Return the route configuration of the ingress, which serves every HTTP server of every Gateway on one port."""
    hosts: dict[str, list[Object]] = {}
    for gateway in sorted(state.gateways, key=age):
        name = f"{namespace_of(gateway)}/{gateway['metadata']['name']}"
        proxy = Proxy(namespace=namespace, gateway=name)
        served = [
            host.split("/", 1)[-1]
            for server in gateway["spec"].get("servers") or []
            if str(server.get("port", {}).get("protocol", "HTTP")).upper() in ("HTTP", "HTTP2", "GRPC")
            for host in server.get("hosts") or []
        ]
        for candidate in imported(state.virtual_services, namespace):
            if not candidate["spec"].get("hosts") or not _at_gateway(candidate, name):
                continue
            for written in candidate["spec"]["hosts"]:
                host = qualify(str(written), namespace_of(candidate))
                if any(covers(pattern, host) or covers(host, pattern) for pattern in served):
                    routes = hosts.setdefault(host, [])
                    routes += _translated(candidate, state, proxy, port=80)
    virtual_hosts = []
    for host, routes in hosts.items():
        ordered: list[Object] = sorted(routes, key=_is_catch_all)
        virtual_hosts.append({"name": f"{host}:80", "domains": [host], "routes": ordered})
    return {
        "name": "http.80",
        "virtual_hosts": virtual_hosts,
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
    }


# Routes.


def _translated(virtual_service: Object, state: MeshState, proxy: Proxy, *, port: int) -> Iterable[Object]:
    """Yield one Envoy route per match, in order, and stop at the first that takes everything."""
    for route in merged_routes(virtual_service, state.virtual_services):
        for match in route.get("match") or [None]:
            if match is not None and not _generated(match, proxy, port=port, namespace=namespace_of(virtual_service)):
                continue
            made = translated_route(route, match, virtual_service, state, port=port)
            if made is not None:
                yield made
                if _is_catch_all(made):
                    return


def _generated(match: Object, proxy: Proxy, *, port: int, namespace: str) -> bool:
    if match.get("port") and match["port"] != port:
        return False
    if match.get("gateways"):
        return proxy.gateway in {qualify_gateway(name, namespace) for name in match["gateways"]}
    wanted: Mapping[str, str] = match.get("sourceLabels") or {}
    if any(proxy.labels.get(key) != value for key, value in wanted.items()):
        return False
    return not match.get("sourceNamespace") or match["sourceNamespace"] == proxy.namespace


def _is_catch_all(route: Object) -> bool:
    match = route["match"]
    anywhere = match.get("prefix") == "/" or match.get("safe_regex", {}).get("regex") == ".*"
    return anywhere and not match.get("headers") and not match.get("query_parameters")
