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
_BODY_MOST_BYTES = 1 << 20

# Which VirtualService a proxy uses for what.


def _at_gateway(virtual_service: Object, gateway: str) -> bool:
    named = virtual_service["spec"].get("gateways") or [MESH]
    return any(qualify_gateway(name, namespace_of(virtual_service)) == gateway for name in named)


def _in_line(service: Service, seen: Sequence[Object]) -> list[Object]:
    """
    Return the VirtualServices that a sidecar may use for *service*, in that order: all that name it.

    Only where none does, it is the first with the closest wildcard, and that one alone.
    """
    exact: list[Object] = []
    wildcards: dict[str, Object] = {}
    for candidate in seen:
        fits = [host for host in _hosts(candidate) if matches(host, service.host)]
        if any(not host.startswith("*") for host in fits):
            exact.append(candidate)
        for host in fits:
            wildcards.setdefault(host, candidate)
    return exact or [wildcards[host] for host in sorted(wildcards, key=len)[-1:]]


def _hosts(virtual_service: Object) -> list[str]:
    return [
        qualify(str(written), namespace_of(virtual_service)) for written in virtual_service["spec"].get("hosts") or []
    ]


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
        "max_direct_response_body_size_bytes": _BODY_MOST_BYTES,
    }


def _domains(service: Service, namespace: str) -> list[str]:
    longer = [f"{service.name}.{service.namespace}", f"{service.name}.{service.namespace}.svc"]
    short = [service.name] if service.namespace == namespace else []
    return [service.host, *short, *longer]


def _service_routes(service: Service, seen: Sequence[Object], state: MeshState, proxy: Proxy) -> list[Object]:
    for candidate in _in_line(service, seen):
        # A destination without a port leads to the one that was called, whatever its service listens on.
        routes = list(_translated(candidate, state, proxy, port=service.port, only_ports={}))
        # One that makes no route for this proxy, such as one for TCP alone, leaves the host to the next that names it.
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
    secured: set[str] = set()
    only_ports = _only_ports(state.services)
    seen = [each for each in imported(state.virtual_services, namespace) if each["spec"].get("hosts")]
    for gateway in sorted(state.gateways, key=age):
        home = namespace_of(gateway)
        proxy = Proxy(namespace=namespace, gateway=f"{home}/{gateway['metadata']['name']}")
        servers = [server for server in gateway["spec"].get("servers") or [] if _is_http(server)]
        redirecting = [server for server in servers if (server.get("tls") or {}).get("httpsRedirect")]
        for candidate in (each for each in seen if _at_gateway(each, proxy.gateway)):
            routes = list(_translated(candidate, state, proxy, port=80, only_ports=only_ports))
            for host in _shared_by(servers, home, candidate) if routes else ():
                hosts.setdefault(host, []).extend(routes)
            secured.update(_shared_by(redirecting, home, candidate))
        # A host redirects without any VirtualService too, unless it is for those of one namespace.
        secured.update(host.removeprefix("*/").lower() for each in redirecting for host in each.get("hosts") or [])
    hosts |= {host: [] for host in sorted(secured - hosts.keys()) if "/" not in host}
    return {
        "name": "http.80",
        "virtual_hosts": [_gateway_host(host, routes, secured=host in secured) for host, routes in hosts.items()],
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": _BODY_MOST_BYTES,
    }


def _gateway_host(host: str, routes: list[Object], *, secured: bool) -> Object:
    made: Object = {"name": f"{host}:80", "domains": [host], "routes": sorted(routes, key=_is_catch_all)}
    return {**made, "require_tls": "ALL"} if secured else made


def _is_http(server: Object) -> bool:
    return str((server.get("port") or {}).get("protocol", "HTTP")).upper() in ("HTTP", "HTTP2", "GRPC")


def _shared_by(servers: Iterable[Object], home: str, virtual_service: Object) -> list[str]:
    """Return the hosts that a Gateway's *servers* and *virtual_service* share, the narrower of each two; *home* is the Gateway's namespace."""
    found: dict[str, None] = {}
    for written in (host for server in servers for host in server.get("hosts") or []):
        place, _, served = written.lower().rpartition("/")
        if (home if place == "." else place) not in ("", "*", namespace_of(virtual_service)):
            continue
        for claimed in map(str.lower, _hosts(virtual_service)):
            if covers(claimed, served):
                found[served] = None
            elif covers(served, claimed):
                found[claimed] = None
    return list(found)


def _only_ports(services: Iterable[Service]) -> dict[str, int]:
    """Return the ports of those *services* that have one, by full name."""
    every: dict[str, set[int]] = {}
    for service in services:
        every.setdefault(service.host, set()).add(service.port)
    return {host: ports.pop() for host, ports in every.items() if len(ports) == 1}


# Routes.


def _translated(
    virtual_service: Object, state: MeshState, proxy: Proxy, *, port: int, only_ports: Mapping[str, int]
) -> Iterable[Object]:
    """Yield one Envoy route per match, in order, and stop at the first that takes everything."""
    for route in merged_routes(virtual_service, state.virtual_services):
        for match in route.get("match") or [None]:
            if match is not None and not _generated(match, proxy, port=port, namespace=namespace_of(virtual_service)):
                continue
            made = translated_route(route, match, virtual_service, port=port, only_ports=only_ports)
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
