"""
VirtualServices, DestinationRules and Gateways to Envoy routes and clusters, laid out and named as pilot does.

Each proxy gets its own: ``sourceLabels``, ``sourceNamespace``, ``gateways`` and
``port`` are decided here and never at run time. The rules are those of Istio's
``pilot/pkg/networking/core/route/route.go``;
what is left out is listed in docs/limits.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from luff.decide import Proxy
from luff.delegates import merged_routes
from luff.hosts import MESH, covers, matches, qualify, qualify_gateway
from luff.mesh_state import MeshState, Service, age, imported, namespace_of, protobuf_seconds
from luff.units import parse_duration_s
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
_REDIRECTS = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_GRPC = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_FAULT_FILTER = "envoy.filters.http.fault"
_CORS_FILTER = "envoy.filters.http.cors"
_TYPES = "type.googleapis.com/envoy.extensions"


# Which VirtualService a proxy uses for what.


def _at_gateway(virtual_service: Object, gateway: str) -> bool:
    named = virtual_service["spec"].get("gateways") or [MESH]
    return any(qualify_gateway(name, namespace_of(virtual_service)) == gateway for name in named)


def _claim(service: Service, seen: Sequence[Object]) -> Object | None:
    """Return the VirtualService that routes *service* for a sidecar: the most specific host, then the first seen."""
    best: tuple[int, Object] | None = None
    for candidate in seen:
        for written in candidate["spec"].get("hosts") or []:
            pattern = qualify(str(written), namespace_of(candidate))
            if not matches(pattern, service.host):
                continue
            rank = 10_000 if not pattern.startswith("*") else len(pattern)
            if best is None or rank > best[0]:
                best = (rank, candidate)
    return None if best is None else best[1]


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
    owner = _claim(service, seen)
    if owner is not None:
        routes = list(_translated(owner, state, proxy, port=service.port))
        if routes:
            return routes
    return [_default_route(f"outbound|{service.port}||{service.host}")]


def _default_route(cluster: str) -> Object:
    return {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {"cluster": cluster, "timeout": "0s", "retry_policy": _retries(None)},
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
            made = _route(route, match, virtual_service, state, port=port)
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


def _route(
    route: Object, match: Object | None, virtual_service: Object, state: MeshState, *, port: int
) -> Object | None:
    namespace = namespace_of(virtual_service)
    name = route.get("name") or ""
    if match and match.get("name"):
        name = f"{name}.{match['name']}"
    made: Object = {"match": _match(match or {})}
    if name:
        made["name"] = name
    version = str(virtual_service.get("apiVersion", "networking.istio.io/v1")).rsplit("/", 1)[-1]
    where = f"/apis/networking.istio.io/{version}/namespaces/{namespace}/virtual-service/{virtual_service['metadata']['name']}"
    made["metadata"] = {"filter_metadata": {"istio": {"config": where}}}
    if match and match.get("statPrefix"):
        made["stat_prefix"] = match["statPrefix"]
    if route.get("redirect"):
        made["redirect"] = _redirect(route["redirect"], port)
    elif route.get("directResponse"):
        made["direct_response"] = _direct_response(route["directResponse"])
    elif route.get("route"):
        made["route"] = _action(route, namespace, state, port=port)
    else:
        return None
    made.update(_header_operations(route.get("headers")))
    filters = _filters(route)
    if filters:
        made["typed_per_filter_config"] = filters
    return made


def _match(match: Object) -> Object:
    made = _path(match)
    if match.get("ignoreUriCase") and "safe_regex" not in made:
        made["case_sensitive"] = False
    headers = [_header(name, wanted) for name, wanted in sorted((match.get("headers") or {}).items())]
    headers += [
        _header(name, wanted, without=True) for name, wanted in sorted((match.get("withoutHeaders") or {}).items())
    ]
    headers += [
        _header(f":{key}", match[key]) for key in ("method", "authority", "scheme") if match.get(key) is not None
    ]
    if headers:
        made["headers"] = headers
    params = [_parameter(name, wanted) for name, wanted in sorted((match.get("queryParams") or {}).items())]
    if params:
        made["query_parameters"] = params
    return made


def _path(match: Object) -> Object:
    uri = match.get("uri") or {}
    if "exact" in uri:
        return {"path": uri["exact"]}
    if "regex" in uri:
        return {"safe_regex": {"regex": uri["regex"]}}
    return {"prefix": uri.get("prefix") or "/"}


def _header(name: str, wanted: Any, *, without: bool = False) -> Object:
    if not wanted or wanted.get("regex") == "*":
        return {"name": name, "present_match": True} | ({"invert_match": True} if without else {})
    made: Object = {"name": name, "string_match": _string(wanted)}
    if without:
        made |= {"invert_match": True, "treat_missing_header_as_empty": True}
    return made


def _parameter(name: str, wanted: Any) -> Object:
    if not wanted or wanted.get("regex") == "*":
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": _string(wanted)}


def _string(wanted: Object) -> Object:
    if "regex" in wanted:
        return {"safe_regex": {"regex": wanted["regex"]}}
    return {"prefix": wanted["prefix"]} if "prefix" in wanted else {"exact": wanted.get("exact", "")}


def _redirect(redirect: Object, port: int) -> Object:
    made: Object = {}
    if "uri" in redirect:
        made["path_redirect"] = redirect["uri"]
    elif "prefixRewrite" in redirect:
        made["prefix_rewrite"] = redirect["prefixRewrite"]
    if redirect.get("authority"):
        made["host_redirect"] = redirect["authority"]
    if redirect.get("scheme"):
        made["scheme_redirect"] = redirect["scheme"]
    if redirect.get("port"):
        made["port_redirect"] = redirect["port"]
    elif redirect.get("derivePort") == "FROM_REQUEST_PORT":
        made["port_redirect"] = port
    code = redirect.get("redirectCode") or 301
    if code in _REDIRECTS:
        made["response_code"] = _REDIRECTS[code]
    return made


def _direct_response(answer: Object) -> Object:
    made: Object = {"status": answer["status"]}
    body = answer.get("body") or {}
    if "string" in body:
        made["body"] = {"inline_string": body["string"]}
    elif "bytes" in body:
        made["body"] = {"inline_bytes": body["bytes"]}
    return made


def _action(route: Object, namespace: str, state: MeshState, *, port: int) -> Object:
    action: Object = {
        "timeout": protobuf_seconds(route.get("timeout")) or "0s",
        "retry_policy": _retries(route.get("retries")),
    }
    if action["retry_policy"] is None:
        del action["retry_policy"]
    destinations = route["route"]
    if len(destinations) == 1:
        [only] = destinations
        action["cluster"] = _cluster(only["destination"], namespace, state, port=port)
        # Headers of the only destination belong to the action's route in pilot too, through a weighted cluster of one.
        if only.get("headers"):
            del action["cluster"]
            action["weighted_clusters"] = {"clusters": [_weighted(only, namespace, state, port=port, weight=1)]}
    else:
        weighted = [
            _weighted(each, namespace, state, port=port, weight=each["weight"])
            for each in destinations
            if each.get("weight")
        ]
        action["weighted_clusters"] = {"clusters": weighted}
    authority = _authority(route.get("headers"))
    if authority is not None:
        action["host_rewrite_literal"] = authority
    # A rewritten authority wins over one that is set as a header.
    action.update(_rewrite(route.get("rewrite")))
    mirrors = [
        {
            "cluster": _cluster(destination, namespace, state, port=port),
            "runtime_fraction": {"default_value": _fraction(share)},
            "trace_sampled": False,
        }
        for destination, share in _mirrors(route)
        if share
    ]
    if mirrors:
        action["request_mirror_policies"] = mirrors
    return action


def _weighted(destination: Object, namespace: str, state: MeshState, *, port: int, weight: int) -> Object:
    made: Object = {"name": _cluster(destination["destination"], namespace, state, port=port), "weight": weight}
    made.update(_header_operations(destination.get("headers")))
    authority = _authority(destination.get("headers"))
    if authority is not None:
        made["host_rewrite_literal"] = authority
    return made


def _cluster(destination: Object, namespace: str, state: MeshState, *, port: int) -> str:
    host = qualify(str(destination.get("host") or ""), namespace)
    wanted = (destination.get("port") or {}).get("number")
    if wanted is None:
        ports = [service.port for service in state.services if service.host == host]
        wanted = ports[0] if len(ports) == 1 else port
    return f"outbound|{wanted}|{destination.get('subset') or ''}|{host}"


def _rewrite(rewrite: Object | None) -> Object:
    made: Object = {}
    if not rewrite:
        return made
    if rewrite.get("uriRegexRewrite"):
        expression = rewrite["uriRegexRewrite"]
        made["regex_rewrite"] = {
            "pattern": {"regex": expression.get("match", "")},
            "substitution": expression.get("rewrite", ""),
        }
    elif rewrite.get("uri"):
        made["prefix_rewrite"] = rewrite["uri"]
    if rewrite.get("authority"):
        made["host_rewrite_literal"] = rewrite["authority"]
    return made


def _mirrors(route: Object) -> list[tuple[Object, float]]:
    if route.get("mirrors"):
        return [(each["destination"], _percent(each.get("percentage"), 100.0)) for each in route["mirrors"]]
    if route.get("mirror"):
        share = _percent(route.get("mirrorPercentage"), float(route.get("mirrorPercent", 100)))
        return [(route["mirror"], share)]
    return []


def _percent(percentage: Any, without: float) -> float:
    return float(percentage.get("value") or 0.0) if isinstance(percentage, dict) else without


def _fraction(percent: float) -> Object:
    # As Istio: the product is cut off, so that 0.57 becomes 5699 of a million.
    return {"numerator": int(percent * 10_000), "denominator": "MILLION"}


def _retries(retries: Object | None) -> Object | None:
    policy: Object = {
        "retry_on": _RETRY_ON,
        "num_retries": 2,
        "host_selection_retry_max_attempts": "5",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
    }
    if retries is None:
        return policy
    attempts = int(retries.get("attempts") or 0)
    if attempts <= 0:
        return None
    policy["num_retries"] = attempts
    if retries.get("retryOn"):
        words = [word.strip() for word in str(retries["retryOn"]).split(",") if word.strip()]
        codes = [int(word) for word in words if word.isdigit()]
        policy["retry_on"] = ",".join(word for word in words if not word.isdigit())
        if codes:
            policy["retriable_status_codes"] = codes
            if "retriable-status-codes" not in words:
                policy["retry_on"] = ",".join(filter(None, [policy["retry_on"], "retriable-status-codes"]))
    if retries.get("perTryTimeout"):
        policy["per_try_timeout"] = protobuf_seconds(retries["perTryTimeout"])
    if retries.get("backoff"):
        policy["retry_back_off"] = {"base_interval": protobuf_seconds(retries["backoff"])}
    if retries.get("retryIgnorePreviousHosts") is False:
        del policy["retry_host_predicate"]
    return policy


def _authority(headers: Object | None) -> str | None:
    request = (headers or {}).get("request") or {}
    for operation in ("set", "add"):
        for name, value in (request.get(operation) or {}).items():
            if name.lower() in ("host", ":authority"):
                return str(value)
    return None


def _header_operations(headers: Object | None) -> Object:
    made: Object = {}
    for side in ("request", "response"):
        part = (headers or {}).get(side) or {}
        add = [
            {"header": {"key": name, "value": str(value)}, "append_action": action}
            for operation, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
            for name, value in sorted((part.get(operation) or {}).items())
            if side == "response" or name.lower() not in ("host", ":authority")
        ]
        if add:
            made[f"{side}_headers_to_add"] = add
        if part.get("remove"):
            made[f"{side}_headers_to_remove"] = list(part["remove"])
    return made


def _filters(route: Object) -> Object:
    made: Object = {}
    fault = _fault(route.get("fault"))
    if fault:
        made[_FAULT_FILTER] = {"@type": f"{_TYPES}.filters.http.fault.v3.HTTPFault", **fault}
    if route.get("corsPolicy"):
        made[_CORS_FILTER] = _cors(route["corsPolicy"])
    return made


def _fault(fault: Object | None) -> Object:
    made: Object = {}
    delay = (fault or {}).get("delay")
    if delay and delay.get("fixedDelay"):
        share = _fraction(_percent(delay.get("percentage"), float(delay.get("percent") or 0)))
        made["delay"] = {"fixed_delay": protobuf_seconds(delay["fixedDelay"]), "percentage": share}
    abort = (fault or {}).get("abort")
    if abort:
        part: Object = {}
        if abort.get("percentage"):
            part["percentage"] = _fraction(_percent(abort["percentage"], 0.0))
        if "httpStatus" in abort:
            part["http_status"] = abort["httpStatus"]
        elif abort.get("grpcStatus") in _GRPC:
            part["grpc_status"] = _GRPC.index(abort["grpcStatus"])
        if "http_status" in part or "grpc_status" in part:
            made["abort"] = part
    return made


def _cors(policy: Object) -> Object:
    made: Object = {"@type": f"{_TYPES}.filters.http.cors.v3.CorsPolicy"}
    origins = [_string(each) for each in policy.get("allowOrigins") or []]
    origins += [{"exact": origin} for origin in policy.get("allowOrigin") or []]
    made["allow_origin_string_match"] = origins
    for theirs, ours in (
        ("allowMethods", "allow_methods"),
        ("allowHeaders", "allow_headers"),
        ("exposeHeaders", "expose_headers"),
    ):
        if policy.get(theirs):
            made[ours] = ",".join(policy[theirs])
    if policy.get("maxAge"):
        made["max_age"] = str(int(parse_duration_s(policy["maxAge"])))
    if "allowCredentials" in policy:
        made["allow_credentials"] = bool(policy["allowCredentials"])
    if policy.get("unmatchedPreflights") == "IGNORE":
        made["forward_not_matching_preflights"] = False
    return made
