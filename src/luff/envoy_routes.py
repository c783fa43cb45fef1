"""
One route of a VirtualService to one route of Envoy, as pilot makes it.

The rules are those of ``TranslateRoute`` in Istio's
``pilot/pkg/networking/core/route/route.go``. What pilot makes and Envoy refuses is
made here too: the proxy then keeps what it had, as it would in a cluster, and
``luff lab status`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from luff import spelling
from luff.header_values import is_authority
from luff.hosts import namespace_of, qualify
from luff.mesh_state import protobuf_seconds
from luff.words import GRPC_CODES, REDIRECT_CODES, Object

__all__ = ["retry_policy", "translated_route"]

_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_FAULT_FILTER = "envoy.filters.http.fault"
_CORS_FILTER = "envoy.filters.http.cors"
_TYPES = "type.googleapis.com/envoy.extensions"


class _Ports(NamedTuple):
    """This is where a destination without a port leads: to the *only* one of its host, where that is asked for, or the *listener*'s."""

    listener: int
    only: Mapping[str, int]


def translated_route(
    route: Object, match: Object | None, virtual_service: Object, *, port: int, only_ports: Mapping[str, int]
) -> Object | None:
    """
    Return what pilot makes of one match of *route*, or of the route without one; ``None`` when it is nothing.

    *port* is the listener's. Where a destination names none it leads to that, unless
    *only_ports* has one for its host, a full name.
    """
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
        # Of any other code pilot makes a route without an action, and Envoy refuses the configuration that it is in.
        if (route["redirect"].get("redirectCode") or 301) in REDIRECT_CODES:
            made["redirect"] = _redirect(route["redirect"], port)
    elif route.get("directResponse"):
        made["direct_response"] = _direct_response(route["directResponse"])
    elif route.get("route"):
        made["route"] = _action(route, namespace, _Ports(port, only_ports))
    else:
        return None
    made.update(_header_operations(route.get("headers"), _only_destination(route).get("headers")))
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
    return {"prefix": uri.get("prefix", "/")}


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
    made: Object = {"response_code": REDIRECT_CODES[redirect.get("redirectCode") or 301]}
    if redirect.get("prefixRewrite"):
        made["prefix_rewrite"] = redirect["prefixRewrite"]
    elif redirect.get("uri"):
        made["path_redirect"] = redirect["uri"]
    if redirect.get("authority"):
        made["host_redirect"] = redirect["authority"]
    if redirect.get("scheme"):
        made["scheme_redirect"] = redirect["scheme"]
    wanted = port if redirect.get("derivePort") == "FROM_REQUEST_PORT" else redirect.get("port")
    # The port that the scheme has anyway is not spelled out; without TLS the scheme is http.
    if wanted and (wanted, redirect.get("scheme") or "http") not in ((80, "http"), (443, "https")):
        made["port_redirect"] = wanted
    return made


def _direct_response(answer: Object) -> Object:
    made: Object = {"status": answer["status"]}
    body = answer.get("body") or {}
    if "string" in body:
        made["body"] = {"inline_string": body["string"]}
    elif "bytes" in body:
        made["body"] = {"inline_bytes": body["bytes"]}
    return made


def _only_destination(route: Object) -> Object:
    """Return the destination of a route that has one, empty for a split: its headers are then the route's own."""
    destinations: list[Object] = route.get("route") or []
    return destinations[0] if len(destinations) == 1 else {}


def _action(route: Object, namespace: str, ports: _Ports) -> Object:
    action: Object = {"timeout": protobuf_seconds(route.get("timeout")) or "0s"}
    retries = retry_policy(route.get("retries"))
    if retries is not None:
        action["retry_policy"] = retries
    only = _only_destination(route)
    if only:
        action["cluster"] = _cluster(only["destination"], namespace, ports)
    else:
        weighted = [
            _weighted(each, namespace, ports, weight=each["weight"]) for each in route["route"] if each.get("weight")
        ]
        action["weighted_clusters"] = {"clusters": weighted}
    authority = _authority(route.get("headers")) or _authority(only.get("headers"))
    if authority:
        action["host_rewrite_literal"] = authority
    # A rewritten authority wins over one that is set as a header.
    action.update(_rewrite(route.get("rewrite")))
    mirrors = [
        {
            "cluster": _cluster(destination, namespace, ports),
            "runtime_fraction": {"default_value": _fraction(share)},
            "trace_sampled": False,
        }
        for destination, share in _mirrors(route)
        if share
    ]
    if mirrors:
        action["request_mirror_policies"] = mirrors
    return action


def _weighted(destination: Object, namespace: str, ports: _Ports, *, weight: int) -> Object:
    made: Object = {"name": _cluster(destination["destination"], namespace, ports), "weight": weight}
    made.update(_header_operations(destination.get("headers")))
    authority = _authority(destination.get("headers"))
    if authority:
        made["host_rewrite_literal"] = authority
    return made


def _cluster(destination: Object, namespace: str, ports: _Ports) -> str:
    host = qualify(str(destination.get("host") or ""), namespace)
    wanted = (destination.get("port") or {}).get("number")
    if wanted is None:
        wanted = ports.only.get(host, ports.listener)
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
        old = next((route[key] for key in ("mirrorPercent", "mirror_percent") if route.get(key) is not None), 100)
        share = _percent(route.get("mirrorPercentage"), float(old))
        return [(route["mirror"], share)]
    return []


def _percent(percentage: Any, without: float) -> float:
    return float(percentage.get("value") or 0.0) if isinstance(percentage, dict) else without


def _fraction(percent: float) -> Object:
    # As Istio: the product is cut off, so that 0.57 becomes 5699 of a million.
    return {"numerator": int(percent * 10_000), "denominator": "MILLION"}


def retry_policy(retries: Object | None) -> Object | None:
    """Return Envoy's retry policy for *retries*, the mesh's default for ``None``; ``None`` where they are off."""
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
        codes = [code for code in map(spelling.status, words) if code is not None]
        policy["retry_on"] = ",".join(word for word in words if spelling.status(word) is None)
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
            if is_authority(name):
                return str(value)
    return None


def _header_operations(*levels: Object | None) -> Object:
    """Return the operations of *levels*, those of the first level first."""
    made: Object = {}
    for headers in levels:
        for side in ("request", "response"):
            part = (headers or {}).get(side) or {}
            add = [
                {"header": {"key": name, "value": str(value)}, "append_action": action}
                for operation, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
                for name, value in sorted((part.get(operation) or {}).items())
                if side == "response" or not is_authority(name)
            ]
            for key, more in ((f"{side}_headers_to_add", add), (f"{side}_headers_to_remove", part.get("remove") or [])):
                if more:
                    made[key] = [*made.get(key, []), *more]
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
        elif abort.get("grpcStatus") in GRPC_CODES:
            part["grpc_status"] = GRPC_CODES.index(abort["grpcStatus"])
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
        made["max_age"] = (protobuf_seconds(policy["maxAge"]) or "").removesuffix("s")
    if policy.get("allowCredentials") is not None:
        made["allow_credentials"] = bool(policy["allowCredentials"])
    if policy.get("unmatchedPreflights") == "IGNORE":
        made["forward_not_matching_preflights"] = False
    return made
