"""
What a cluster would say of a VirtualService or a DestinationRule.

Three voices. The API server holds an object against the schema of its CRD, and
istiod's webhook against its rules: `problems`. The webhook also grumbles about
what it lets through: `warnings`. And some of what both let through is refused
by Envoy when it is sent to it: `envoy_problems`.

1. Whatever is given, also nonsense, gets an answer and never an exception.
2. A field that is not in the schema is no problem, nor is a null: the API server prunes both.
3. What has the wrong type is not looked at further, as the webhook never sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from luff import regex, spelling
from luff.crd import (
    MATCH,
    SCHEMAS,
    TCP_MATCH,
    TLS_MATCH,
    UNIT_NS,
    misshapen,
    nanoseconds,
    whole_milliseconds,
    without_nulls,
)
from luff.destination_rules import destination_rule_problems, destination_rule_warnings
from luff.header_values import is_authority, name_problems, operation_problems
from luff.hosts import MESH, covers, is_ip, namespace_of
from luff.reachability import unreachable
from luff.words import GRPC_CODES, REDIRECT_CODES, Object

__all__ = ["envoy_problems", "problems", "schema_problems", "warnings"]

_PSEUDO_HEADERS = {":method", ":scheme", ":authority", ":path", ":status"}
_CLAIMS = "@request.auth.claims"
_CLAIM = re.compile(r"@request\.auth\.claims(?:\..+|(?:\[[^\[\]]+\])+)")
_RETRY_ON = {
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
    "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled",
    "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}  # fmt: skip
_METHODS = {"*", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
_REFUSED_ANNOTATIONS = (
    "istio.io/dry-run",
    "internal.istio.io/webhook-always-reject",
    "internal.istio.io/parents",
    "internal.istio.io/parent-namespace",
)
_BODY_MOST_BYTES = 1 << 20
_BODY_LARGE_BYTES = 100 << 10
_WEIGHTS_MOST = (1 << 32) - 1


def problems(object_: Any) -> list[str]:
    """Return why the API server or istiod's webhook would refuse *object_*, as sentences; empty when neither would."""
    if not isinstance(object_, dict):
        return ["the object must be of type object"]
    wrong = schema_problems(object_)
    if wrong:
        return wrong
    seen = without_nulls(object_, SCHEMAS[object_["kind"]], nullable=True)
    # One that is not there is an empty one to the webhook.
    seen.setdefault("spec", {})
    said = list(_metadata(seen))
    if seen["kind"] == "DestinationRule":
        return said + list(destination_rule_problems(seen["spec"], namespace_of(seen)))
    return said + list(_virtual_service_problems(seen))


def schema_problems(object_: Object) -> list[str]:
    """Return what of *object_* is not as its CRD wants it, each with its field; the webhook sees none that has any."""
    schema = SCHEMAS.get(str(object_.get("kind")))
    if schema is None:
        return [f"{object_.get('kind')!r} is neither a VirtualService nor a DestinationRule"]
    return list(misshapen(without_nulls(object_, schema, nullable=True), schema, ""))


def warnings(object_: Any) -> list[str]:
    """Return what the webhook would let through and warn of; empty where it would refuse *object_* by its shape."""
    spec = _shaped(object_, "DestinationRule")
    if spec is not None:
        return list(destination_rule_warnings(spec))
    spec = _shaped(object_, "VirtualService")
    if spec is None:
        return []
    # Of the gateways of an http match, and of an abort with no status, it has warnings that it keeps to itself.
    said = list(_legacy_gateways(spec.get("gateways") or [], "spec.gateways"))
    for number, route in enumerate(spec.get("http") or []):
        said += [f"spec.http[{number}]: {text}" for text in _route_warnings(route)]
    for match in (match for route in spec.get("tls") or [] for match in route.get("match") or []):
        said += _legacy_gateways(match.get("gateways") or [], "match.gateways")
        said += [
            f"using an IP address ({json.dumps(name)}) goes against SNI spec and most clients do not support this"
            for name in match.get("sniHosts") or []
            if is_ip(name)
        ]
    for kind, schema in (("http", MATCH), ("tcp", TCP_MATCH), ("tls", TLS_MATCH)):
        said += unreachable(spec.get(kind) or [], schema)
    return said


def envoy_problems(object_: Any) -> list[str]:
    """
    Return why Envoy would refuse what pilot makes of *object_*, although the webhook takes it.

    A proxy refuses the whole route configuration then, with every other change in it.
    """
    spec = _shaped(object_, "VirtualService")
    if spec is None:
        return []
    said = []
    for number, route in enumerate(spec.get("http") or []):
        here = f"spec.http[{number}]"
        for what, status in (
            ("fault.abort.httpStatus", ((route.get("fault") or {}).get("abort") or {}).get("httpStatus")),
            ("directResponse.status", (route.get("directResponse") or {}).get("status")),
        ):
            if status == 600:
                said.append(f"{here}.{what}: 600 passes the webhook, and Envoy takes 200 to 599 only")
        if sum(entry.get("weight", 0) for entry in route.get("route") or []) > _WEIGHTS_MOST:
            said.append(f"{here}.route: Envoy takes weights whose sum is at most {_WEIGHTS_MOST}")
        code = (route.get("redirect") or {}).get("redirectCode") or 301
        if code not in REDIRECT_CODES:
            known = ", ".join(map(str, REDIRECT_CODES))
            said.append(
                f"{here}.redirect.redirectCode: istiod knows {known} and gives a route with {code} no action, "
                "which Envoy refuses"
            )
    return said


def _shaped(object_: Any, kind: str) -> Object | None:
    """Return the spec of *object_* without its nulls, or ``None`` when it is no well-shaped *kind*."""
    if not isinstance(object_, dict) or object_.get("kind") != kind:
        return None
    seen: Object = without_nulls(object_, SCHEMAS[kind], nullable=True)
    spec = seen.get("spec")
    return spec if isinstance(spec, dict) and not any(misshapen(seen, SCHEMAS[kind], "")) else None


def _virtual_service_problems(object_: Object) -> Iterator[str]:
    spec, hosts = object_["spec"], object_["spec"].get("hosts") or []
    if not hosts:
        for key, called in (("gateways", "gateways"), ("tls", "tls route"), ("tcp", "tcp route")):
            if spec.get(key):
                yield f"delegate virtual service must have no {called} specified"
    yield from spelling.gateway_names(spec.get("gateways") or [])
    yield from _hosts(spec)
    if not any(spec.get(key) for key in ("http", "tls", "tcp")):
        yield "http, tcp or tls must be provided in virtual service"
    for number, route in enumerate(spec.get("http") or []):
        for text in _route(route, delegate=not hosts):
            yield f"spec.http[{number}]: {text}"
        for match in route.get("match") or []:
            yield from _claims(match, spec.get("gateways") or [], f"spec.http[{number}]")
    for kind in ("tls", "tcp"):
        for number, route in enumerate(spec.get(kind) or []):
            for text in _l4_route(route, kind.upper(), hosts):
                yield f"spec.{kind}[{number}]: {text}"
    yield from spelling.export_to(spec.get("exportTo") or [], namespace_of(object_))


def _metadata(object_: Object) -> Iterator[str]:
    metadata = object_.get("metadata") or {}
    if not metadata.get("name"):
        yield "metadata.name: Required value"
    for name in _REFUSED_ANNOTATIONS:
        if name in (metadata.get("annotations") or {}):
            yield f"annotation {name} is not allowed"


def _hosts(spec: Object) -> Iterator[str]:
    hosts = spec.get("hosts") or []
    on_mesh = not spec.get("gateways") or MESH in spec["gateways"]
    said = [text for host in hosts if not is_ip(host) for text in spelling.domain(host)]
    if on_mesh and "*" in hosts:
        said.append("wildcard host * is not allowed for virtual services bound to the mesh gateway")
    yield from said
    if not said:
        for one, other in combinations(hosts, 2):
            if covers(one, other) or covers(other, one):
                yield f"duplicate hosts in virtual service: {one} & {other}"


def _claims(match: Object, gateways: list[str], where: str) -> Iterator[str]:
    if gateways and MESH not in gateways:
        return
    for key in ("headers", "withoutHeaders"):
        for name in match.get(key) or {}:
            if name.startswith(_CLAIMS):
                yield f"{where}: JWT claim based routing (key: {name}) is only supported for gateway"


def _route(route: Object, *, delegate: bool) -> Iterator[str]:
    yield from _conflicts(route, delegate=delegate)
    for match in route.get("match") or []:
        yield from _match(match)
    yield from operation_problems(route.get("headers") or {})
    yield from _cors(route.get("corsPolicy") or {})
    yield from _fault(route)
    yield from _mirrors(route)
    yield from _redirect(route)
    if "directResponse" in route:
        yield from _direct_response(route["directResponse"])
    yield from _retries(route.get("retries"))
    yield from _rewrite(route)
    yield from _destinations(route.get("route") or [])
    yield from whole_milliseconds(route, "timeout")


def _conflicts(route: Object, *, delegate: bool) -> Iterator[str]:
    if "delegate" in route and not delegate:
        # The root of a delegation: nothing else about it is looked at here.
        for key in ("redirect", "route"):
            if route.get(key) not in (None, []):
                yield f"root HTTP route {route.get('name', '')} must not specify {key}"
        return
    if "delegate" in route:
        yield "delegate HTTP route cannot contain delegate"
    kinds = [key for key in ("redirect", "directResponse") if key in route]
    for kind in kinds:
        for other in ("route", "fault", "rewrite"):
            if route.get(other) not in (None, []):
                yield f"HTTP route cannot contain both {other} and {kind}"
    if len(kinds) == 2:
        yield "HTTP route rule cannot contain both directResponse and redirect"
    if not kinds and not route.get("route"):
        yield "HTTP route, redirect or direct_response is required"
    if "mirror" in route and route.get("mirrors"):
        yield "HTTP route cannot contain both mirror and mirrors"


def _match(match: Object) -> Iterator[str]:
    for key in ("headers", "withoutHeaders"):
        for name, wanted in (match.get(key) or {}).items():
            if name not in _PSEUDO_HEADERS and not _CLAIM.fullmatch(name):
                yield from name_problems(name)
            # In withoutHeaders `*` is no expression: it asks that the header is there.
            if key == "headers" or wanted.get("regex") != "*":
                yield from _string_match(wanted, key)
    yield from _string_match(match.get("uri") or {}, "uri", empty_prefix=True)
    for key in ("scheme", "method", "authority"):
        yield from _string_match(match.get(key) or {}, key)
    for wanted in (match.get("queryParams") or {}).values():
        yield from _string_match(wanted, "queryParams")
    if match.get("port"):
        yield from spelling.port(match["port"])
    yield from spelling.labels(match.get("sourceLabels") or {})
    yield from spelling.gateway_names(match.get("gateways") or [])
    if match.get("sourceNamespace"):
        yield from spelling.namespace(match["sourceNamespace"], "sourceNamespace match")


def _string_match(wanted: Object, where: str, *, empty_prefix: bool = False) -> Iterator[str]:
    if wanted.get("prefix") == "" and not empty_prefix:
        yield f"{where!r}: prefix string match should not be empty"
    if "regex" in wanted:
        yield from _regex(wanted["regex"], where)


def _regex(pattern: str, where: str) -> Iterator[str]:
    if not pattern:
        yield f"{where!r}: regex string match should not be empty"
    elif len(pattern.encode(errors="replace")) > regex.LENGTH_MOST:
        yield f"{where!r}: regex is too large, max length allowed is {regex.LENGTH_MOST}"
    elif why := regex.why_invalid(pattern):
        yield f"{where!r}: {why}; Istio uses RE2 style regex-based match"


def _cors(policy: Object) -> Iterator[str]:
    for origin in policy.get("allowOrigins") or []:
        if not any(origin.values()):
            yield "'' is not a valid match type for CORS allow origins"
        else:
            yield from _string_match(origin, "corsPolicy.allowOrigins", empty_prefix=True)
    for method in policy.get("allowMethods") or []:
        if method not in _METHODS:
            yield f"{method!r} is not a supported HTTP method"
    for key in ("allowHeaders", "exposeHeaders"):
        for name in policy.get(key) or []:
            yield from name_problems(name)
    yield from whole_milliseconds(policy, "maxAge")
    if "maxAge" in policy and (nanoseconds(policy["maxAge"]) or 0) % UNIT_NS["s"]:
        yield "max_age duration is accurate only to seconds precision"


def _fault(route: Object) -> Iterator[str]:
    fault = route.get("fault")
    if fault is None:
        return
    if not fault.keys() & {"delay", "abort"}:
        yield "HTTP fault injection must have an abort and/or a delay"
    delay, abort = fault.get("delay") or {}, fault.get("abort") or {}
    for part in (delay, abort):
        percent = (part.get("percentage") or {}).get("value", 0)
        if percent != 0 and not 0.0001 <= percent <= 100:
            yield f"percentage {percent} is neither 0.0, nor in range [0.0001, 100.0]"
    yield from whole_milliseconds(delay, "fixedDelay")
    if "exponentialDelay" in delay:
        yield "exponentialDelay not supported yet"
    if "http2Error" in abort:
        yield "HTTP/2 abort fault injection not supported yet"
    if "grpcStatus" in abort and abort["grpcStatus"] not in GRPC_CODES:
        yield f"gRPC status {abort['grpcStatus']!r} is not supported"
    if "httpStatus" in abort:
        yield from _status(abort["httpStatus"])


def _status(status: int) -> Iterator[str]:
    # The webhook's own limit is 600, whatever it says.
    if not 200 <= status <= 600:
        yield f"HTTP status {status} is not in range 200-599"


def _mirrors(route: Object) -> Iterator[str]:
    for key in ("mirrorPercent", "mirror_percent"):
        if route.get(key, 0) > 100:
            yield f"mirror_percent must have a max value of 100 (it has {route[key]})"
    if "mirror" in route:
        yield from _destination(route["mirror"])
    shares = [route.get("mirrorPercentage") or {}]
    for mirror in route.get("mirrors") or []:
        shares.append(mirror.get("percentage") or {})
        yield from _destination(mirror["destination"])
    for share in shares:
        if not 0 <= share.get("value", 0) <= 100:
            yield f"mirror percentage must be from 0 to 100 (it has {share['value']})"


def _redirect(route: Object) -> Iterator[str]:
    redirect = route.get("redirect")
    if redirect is None:
        return
    if redirect.get("uri") and redirect.get("prefixRewrite"):
        yield "redirect may only specify one of uri or prefix_rewrite"
    if redirect.get("prefixRewrite"):
        # A match without a URI is one of all prefixes.
        for match in route.get("match") or []:
            if "uri" in match and "prefix" not in match["uri"]:
                yield "redirect prefix_rewrite requires all URI matches to use prefix match type"
    somewhere = any(redirect.get(key) for key in ("uri", "prefixRewrite", "authority", "scheme"))
    if not somewhere and not redirect.keys() & {"port", "derivePort"}:
        yield "redirect must specify URI, authority, scheme, or port"
    code = redirect.get("redirectCode", 0)
    if code and not 300 <= code <= 399:
        yield f"{code} is not a valid redirect code, must be 3xx"
    if redirect.get("scheme", "") not in ("", "http", "https"):
        yield 'invalid redirect scheme, must be "http" or "https"'
    if redirect.get("port"):
        yield from spelling.port(redirect["port"])


def _direct_response(response: Object) -> Iterator[str]:
    if _body_bytes(response) > _BODY_MOST_BYTES:
        yield "large direct_responses may impact control plane performance, must be less than 1MB"
    yield from _status(response["status"])


def _body_bytes(response: Object) -> int:
    body = response.get("body") or {}
    # Base64 has four letters for three bytes.
    return max(len(body.get("string", "").encode(errors="replace")), len(body.get("bytes", "")) * 3 // 4)


def _retries(retries: Object | None) -> Iterator[str]:
    if retries is None:
        return
    attempts = retries.get("attempts", 0)
    if attempts < 0:
        yield "attempts cannot be negative"
    if attempts == 0 and ("perTryTimeout" in retries or retries.get("retryOn") or "retryRemoteLocalities" in retries):
        yield "http retry policy configured when attempts are set to 0 (disabled)"
    yield from whole_milliseconds(retries, "perTryTimeout", "backoff")
    for policy in retries["retryOn"].split(",") if retries.get("retryOn") else []:
        if policy not in _RETRY_ON and spelling.status(policy) is None:
            yield f"{policy!r} is not a valid retryOn policy"


def _rewrite(route: Object) -> Iterator[str]:
    rewrite = route.get("rewrite")
    authorities = []
    if rewrite is not None:
        authorities += [rewrite["authority"]] if rewrite.get("authority") else []
        expression = rewrite.get("uriRegexRewrite")
        if rewrite.get("uri") and expression is not None:
            yield "rewrite may only contain one of URI or UriRegexRewrite"
        if not rewrite.get("uri") and not rewrite.get("authority") and expression is None:
            yield "rewrite must specify at least one of URI, UriRegexRewrite, or authority"
        if expression is not None and not (expression.get("match") and expression.get("rewrite")):
            yield "UriRegexRewrite requires both Rewrite and Match fields to be specified"
        elif expression is not None:
            yield from _regex(expression["match"], "HTTPRewrite.UriRegexRewrite.Match")
    request = (route.get("headers") or {}).get("request") or {}
    for key in ("set", "add"):
        authorities += [value for name, value in (request.get(key) or {}).items() if is_authority(name) and value]
    if len(authorities) > 1:
        yield f"authority header cannot be set multiple times: {', '.join(authorities)}"


def _destinations(entries: list[Object], *, http: bool = True) -> Iterator[str]:
    for entry in entries:
        yield from _destination(entry["destination"])
        if http:
            yield from operation_problems(entry.get("headers") or {})
        if entry.get("weight", 0) < 0:
            yield f"weight {entry['weight']} < 0"
    if len(entries) > 1 and sum(entry.get("weight", 0) for entry in entries) == 0:
        yield "total destination weight = 0"


def _destination(destination: Object) -> Iterator[str]:
    if destination["host"] == "*":
        yield "invalid destination host *"
    else:
        yield from spelling.domain(destination["host"])
    if destination.get("subset"):
        yield from spelling.subset_name(destination["subset"])
    if "port" in destination:
        yield from spelling.port(destination["port"].get("number", 0))


def _l4_route(route: Object, called: str, hosts: list[str]) -> Iterator[str]:
    matches = route.get("match") or []
    if called == "TLS" and not matches:
        yield "TLS route must have at least one match condition"
    for match in matches:
        if match.get("port"):
            yield from spelling.port(match["port"])
        yield from spelling.labels(match.get("sourceLabels") or {})
        yield from spelling.gateway_names(match.get("gateways") or [])
        for subnet in match.get("destinationSubnets") or []:
            yield from spelling.subnet(subnet)
        if called == "TLS" and not match.get("sniHosts"):
            yield "TLS match must have at least one SNI host"
        for name in match.get("sniHosts") or []:
            bad = [] if is_ip(name) else list(spelling.domain(name))
            yield from bad
            if not bad and not is_ip(name) and not any(covers(host, name) for host in hosts):
                yield f"SNI host {name!r} is not a compatible subset of any of the virtual service hosts: {hosts}"
    if not route.get("route"):
        yield f"{called} route is required"
    yield from _destinations(route.get("route") or [], http=False)


def _route_warnings(route: Object) -> Iterator[str]:
    if "mirrorPercent" in route or "mirror_percent" in route:
        yield 'using deprecated setting "mirrorPercent", use "mirrorPercentage" instead'
    if _BODY_LARGE_BYTES < _body_bytes(route.get("directResponse") or {}) <= _BODY_MOST_BYTES:
        yield "large direct_responses may impact control plane performance"


def _legacy_gateways(names: list[str], where: str) -> Iterator[str]:
    # The first without a slash is the last that istiod looks at.
    name = next((each for each in names if "/" not in each), "")
    if "." in name:
        short, namespace, *_ = name.split(".")
        yield (
            f"{where}: using legacy gatewayName format {name!r}; "
            f'prefer the <namespace>/<name> format: "{namespace}/{short}"'
        )
