"""
What a cluster would say of a VirtualService or a DestinationRule.

Three voices. The API server holds an object against the schema of its CRD, and
istiod's webhook against its rules: `problems`. The webhook also grumbles about
what it lets through: `warnings`. And some of what both let through is refused
by Envoy when it is sent to it: `envoy_problems`.

1. Whatever is given, also nonsense, gets an answer and never an exception.
2. A field that is not in the schema is no problem: the API server prunes it.
3. What has the wrong type is not looked at further, as the webhook never sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

from luff import regex
from luff.crd import DESTINATION_RULE, TRAFFIC_POLICY, UNIT_NS, VIRTUAL_SERVICE, misshapen, nanoseconds
from luff.hosts import MESH, covers, is_ip
from luff.reachability import unreachable
from luff.words import Object

__all__ = ["envoy_problems", "problems", "warnings"]

_DNS_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_WILDCARD_LABEL = re.compile(r"\*|(?:\*|\*-)?[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_PSEUDO_HEADERS = {":method", ":scheme", ":authority", ":path", ":status"}
_CLAIMS = "@request.auth.claims"
_CLAIM = re.compile(r"@request\.auth\.claims(?:\..+|(?:\[[^\[\]]+\])+)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_GRPC_STATUSES = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}  # fmt: skip
_RETRY_ON = {
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream",
    "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled",
    "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
}  # fmt: skip
_STATUSES_WITH_A_TEXT = {
    *range(100, 104), *range(200, 209), 226, *range(300, 306), 307, 308, *range(400, 419), *range(421, 427), 428, 429,
    431, 451, *range(500, 509), 510, 511,
}  # fmt: skip
_METHODS = {"*", "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
_REFUSED_ANNOTATIONS = ("istio.io/dry-run", "internal.istio.io/webhook-always-reject", "internal.istio.io/parents")
_BODY_MOST_BYTES = 1 << 20
_BODY_LARGE_BYTES = 100 << 10
_WEIGHTS_MOST = (1 << 32) - 1


def problems(object_: Any) -> list[str]:
    """Return why the API server or istiod's webhook would refuse *object_*, as sentences; empty when neither would."""
    if not isinstance(object_, dict):
        return ["the object must be of type object"]
    schema, rules = _KINDS.get(str(object_.get("kind")), (None, None))
    if schema is None or rules is None:
        return [f"{object_.get('kind')!r} is neither a VirtualService nor a DestinationRule"]
    if not isinstance(object_.get("spec"), dict):
        return ["spec: must be of type object"]
    wrong = list(misshapen(object_, schema, ""))
    return wrong or list(rules(object_))


def warnings(object_: Any) -> list[str]:
    """Return what the webhook would let through and warn of; empty where it would refuse *object_* by its shape."""
    if not isinstance(object_, dict) or object_.get("kind") != "VirtualService" or not _is_shaped(object_):
        return []
    spec = object_["spec"]
    said = list(_legacy_gateways(spec.get("gateways") or [], "spec.gateways"))
    for number, route in enumerate(spec.get("http") or []):
        said += [f"spec.http[{number}]: {text}" for text in _route_warnings(route)]
    return said + list(unreachable(spec.get("http") or []))


def envoy_problems(object_: Any) -> list[str]:
    """Return why Envoy would refuse what pilot makes of *object_*, although the webhook takes it."""
    if not isinstance(object_, dict) or object_.get("kind") != "VirtualService" or not _is_shaped(object_):
        return []
    said = []
    for number, route in enumerate(object_["spec"].get("http") or []):
        for what, status in (
            ("fault.abort.httpStatus", ((route.get("fault") or {}).get("abort") or {}).get("httpStatus")),
            ("directResponse.status", (route.get("directResponse") or {}).get("status")),
        ):
            if status == 600:
                said.append(f"spec.http[{number}].{what}: 600 passes the webhook, and Envoy takes 200 to 599 only")
        if sum(entry.get("weight", 0) for entry in route.get("route") or []) > _WEIGHTS_MOST:
            said.append(f"spec.http[{number}].route: Envoy takes weights whose sum is at most {_WEIGHTS_MOST}")
    return said


def _is_shaped(virtual_service: Object) -> bool:
    spec = virtual_service.get("spec")
    return isinstance(spec, dict) and not any(misshapen(virtual_service, VIRTUAL_SERVICE, ""))


def _virtual_service_problems(object_: Object) -> Iterator[str]:
    spec, hosts = object_["spec"], object_["spec"].get("hosts") or []
    yield from _metadata(object_)
    if not hosts:
        for key, called in (("gateways", "gateways"), ("tls", "tls route"), ("tcp", "tcp route")):
            if spec.get(key):
                yield f"delegate virtual service must have no {called} specified"
    yield from _gateway_names(spec.get("gateways") or [])
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
    yield from _export_to(spec.get("exportTo") or [])


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
    said = [text for host in hosts if not is_ip(host) for text in _domain(host)]
    if on_mesh and "*" in hosts:
        said.append("wildcard host * is not allowed for virtual services bound to the mesh gateway")
    yield from said
    if not said:
        for one, other in combinations(hosts, 2):
            if covers(one, other) or covers(other, one):
                yield f"duplicate hosts in virtual service: {one} & {other}"


def _domain(name: str, *, wildcard: bool = True) -> Iterator[str]:
    if not name:
        yield "empty domain name not allowed"
        return
    if len(name.encode(errors="replace")) > 255:
        yield f"domain name {name!r} too long (max 255)"
        return
    first, *rest = name.split(".")
    bad = [] if (_WILDCARD_LABEL if wildcard else _DNS_LABEL).fullmatch(first) and len(first) <= 63 else [first]
    if rest and rest[-1] == "":
        rest.pop()  # the dot at the end of an unambiguous name
    if rest and rest[-1].isdecimal():
        yield f"domain name {name!r} invalid (top level domain {rest[-1]!r} cannot be all-numeric)"
    for label in bad + [label for label in rest if not _DNS_LABEL.fullmatch(label)]:
        yield f"domain name {name!r} invalid (label {label!r} invalid)"


def _gateway_names(names: list[str]) -> Iterator[str]:
    for name in names:
        namespace, slash, short = name.partition("/")
        if not slash:
            yield from _domain(name, wildcard=False)
            continue
        if not _DNS_LABEL.fullmatch(namespace):
            yield f"invalid value for namespace: {namespace!r}"
        if not _DNS_LABEL.fullmatch(short):
            yield f"invalid value for gateway name: {short!r}"


def _export_to(names: list[str]) -> Iterator[str]:
    if len(set(names)) < len(names):
        yield f"duplicate entries in exportTo: {', '.join(names)}"
    if "*" in names and len(names) > 1:
        yield "cannot have both public (i.e. *) and other values in exportTo"
    for name in names:
        if name not in ("*", ".") and not _DNS_LABEL.fullmatch(name):
            yield f"invalid value for exportTo: {name!r}"


def _claims(match: Object, gateways: list[str], where: str) -> Iterator[str]:
    if any(name != MESH for name in gateways):
        return
    for key in ("headers", "withoutHeaders"):
        for name in match.get(key) or {}:
            if name.startswith(_CLAIMS):
                yield f"{where}: JWT claim based routing (key: {name}) is only supported for gateway"


def _route(route: Object, *, delegate: bool) -> Iterator[str]:
    yield from _conflicts(route, delegate=delegate)
    for match in route.get("match") or []:
        yield from _match(match)
    yield from _header_operations(route.get("headers") or {}, ":authority", "host")
    yield from _cors(route.get("corsPolicy") or {})
    yield from _fault(route)
    yield from _mirrors(route)
    yield from _redirect(route)
    if "directResponse" in route:
        yield from _direct_response(route["directResponse"])
    yield from _retries(route.get("retries"))
    yield from _rewrite(route)
    yield from _destinations(route.get("route") or [])
    yield from _whole_milliseconds(route, "timeout")


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
                yield from _header_name(name)
            # In withoutHeaders `*` is no expression: it asks that the header is there.
            if key == "headers" or wanted.get("regex") != "*":
                yield from _string_match(wanted, key)
    yield from _string_match(match.get("uri") or {}, "uri", empty_prefix=True)
    for key in ("scheme", "method", "authority"):
        yield from _string_match(match.get(key) or {}, key)
    for wanted in (match.get("queryParams") or {}).values():
        yield from _string_match(wanted, "queryParams")
    if match.get("port"):
        yield from _port(match["port"])
    yield from _labels(match.get("sourceLabels") or {})
    yield from _gateway_names(match.get("gateways") or [])
    namespace = match.get("sourceNamespace")
    if namespace and not _DNS_LABEL.fullmatch(namespace):
        yield f"sourceNamespace match {namespace} is invalid"


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


def _header_name(name: str) -> Iterator[str]:
    if not name:
        yield "header name cannot be empty"
    elif not _HEADER_NAME.fullmatch(name):
        yield f"header name {name} is not a valid header name"


def _header_operations(headers: Object, *authority: str) -> Iterator[str]:
    for side in ("request", "response"):
        operations = headers.get(side) or {}
        for key in ("set", "add"):
            for name, value in (operations.get(key) or {}).items():
                yield from _operation_name(name, authority if side == "request" else ())
                yield from _header_value(value)
        for name in operations.get("remove") or []:
            yield from _operation_name(name, ())


def _operation_name(name: str, allowed: tuple[str, ...]) -> Iterator[str]:
    if name.lower() in allowed:
        return
    if name.lower() == "host":
        yield f"invalid header {name!r}: cannot set Host header"
    elif name.startswith(":"):
        yield f"invalid header {name!r}: header cannot have ':' prefix"
    else:
        yield from _header_name(name)


def _header_value(value: str) -> Iterator[str]:
    if _CONTROL.search(value):
        yield f"header value {value!r} has control characters"
    if value.count("%") % 2:
        yield "single % not allowed.  Escape by doubling to %% or encase Envoy variable name in pair of %"


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
            yield from _header_name(name)
    yield from _whole_milliseconds(policy, "maxAge")
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
    yield from _whole_milliseconds(delay, "fixedDelay")
    if "exponentialDelay" in delay:
        yield "exponentialDelay not supported yet"
    if "http2Error" in abort:
        yield "HTTP/2 abort fault injection not supported yet"
    if "grpcStatus" in abort and abort["grpcStatus"] not in _GRPC_STATUSES:
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
        if "destination" in mirror:
            yield from _destination(mirror["destination"])
        else:
            yield "destination is required for mirrors"
    for share in shares:
        if not 0 <= share.get("value", 0) <= 100:
            yield f"mirror percentage must be from 0 to 100 (it has {share['value']})"


def _redirect(route: Object) -> Iterator[str]:
    redirect = route.get("redirect")
    if redirect is None:
        return
    text = any(redirect.get(key) for key in ("uri", "authority", "scheme"))
    if not text and not redirect.keys() & {"port", "derivePort"}:
        yield "redirect must specify URI, authority, scheme, or port"
    code = redirect.get("redirectCode", 0)
    if code and not 300 <= code <= 399:
        yield f"{code} is not a valid redirect code, must be 3xx"
    if redirect.get("scheme", "") not in ("", "http", "https"):
        yield 'invalid redirect scheme, must be "http" or "https"'
    if redirect.get("port"):
        yield from _port(redirect["port"])


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
    yield from _whole_milliseconds(retries, "perTryTimeout")
    yield from _whole_milliseconds(retries, "backoff")
    for policy in retries["retryOn"].split(",") if retries.get("retryOn") else []:
        known = policy in _RETRY_ON or (re.fullmatch("[0-9]{3}", policy) and int(policy) in _STATUSES_WITH_A_TEXT)
        if not known:
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
        authorities += [v for k, v in (request.get(key) or {}).items() if k.lower() in (":authority", "host") and v]
    if len(authorities) > 1:
        yield f"authority header cannot be set multiple times: {', '.join(authorities)}"


def _destinations(entries: list[Object], *, http: bool = True) -> Iterator[str]:
    for entry in entries:
        if "destination" in entry:
            yield from _destination(entry["destination"])
        else:
            yield "destination is required"
        if http:
            yield from _header_operations(entry.get("headers") or {}, "host")
        if entry.get("weight", 0) < 0:
            yield f"weight {entry['weight']} < 0"
    if len(entries) > 1 and sum(entry.get("weight", 0) for entry in entries) == 0:
        yield "total destination weight = 0"


def _destination(destination: Object) -> Iterator[str]:
    if destination["host"] == "*":
        yield "invalid destination host *"
    else:
        yield from _domain(destination["host"])
    if destination.get("subset"):
        yield from _subset_name(destination["subset"])
    if "port" in destination:
        yield from _port(destination["port"].get("number", 0))


def _subset_name(name: str) -> Iterator[str]:
    if not name:
        yield "subset name cannot be empty"
    elif not _DNS_LABEL.fullmatch(name):
        yield f"subset name is invalid: {name}"


def _port(number: int) -> Iterator[str]:
    if not 1 <= number <= 65535:
        yield f"port number {number} must be in the range 1..65535"


def _labels(labels: Mapping[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        prefix, slash, name = key.rpartition("/")
        if not _LABEL_NAME.fullmatch(name) or (slash and any(_domain(prefix, wildcard=False))):
            yield f"invalid tag key: {key!r}"
        if value and not _LABEL_NAME.fullmatch(value):
            yield f"invalid tag value: {value!r}"


def _whole_milliseconds(object_: Object, key: str) -> Iterator[str]:
    if key in object_ and (nanoseconds(object_[key]) or 0) % UNIT_NS["ms"]:
        yield f"{key}: only durations to ms precision are supported"


def _l4_route(route: Object, called: str, hosts: list[str]) -> Iterator[str]:
    matches = route.get("match") or []
    if called == "TLS" and not matches:
        yield "TLS route must have at least one match condition"
    for match in matches:
        if match.get("port"):
            yield from _port(match["port"])
        yield from _labels(match.get("sourceLabels") or {})
        yield from _gateway_names(match.get("gateways") or [])
        if called == "TLS" and not match.get("sniHosts"):
            yield "TLS match must have at least one SNI host"
        for name in match.get("sniHosts") or []:
            if not any(covers(host, name) for host in hosts):
                yield f"SNI host {name!r} is not a compatible subset of any of the virtual service hosts: {hosts}"
    if not route.get("route"):
        yield f"{called} route is required"
    yield from _destinations(route.get("route") or [], http=False)


def _destination_rule_problems(object_: Object) -> Iterator[str]:
    spec = object_["spec"]
    yield from _metadata(object_)
    yield from _domain(spec.get("host") or "")
    yield from _traffic_policy(spec.get("trafficPolicy"))
    names = [subset.get("name", "") for subset in spec.get("subsets") or []]
    for subset in spec.get("subsets") or []:
        yield from _subset_name(subset.get("name", ""))
        yield from _labels(subset.get("labels") or {})
        yield from _traffic_policy(subset.get("trafficPolicy"))
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"duplicate subset names: {name}"
    yield from _export_to(spec.get("exportTo") or [])


def _traffic_policy(policy: Object | None) -> Iterator[str]:
    if policy is None:
        return
    if not policy.keys() & TRAFFIC_POLICY.keys():
        yield "traffic policy must have at least one field"
    pool, outlier = policy.get("connectionPool"), policy.get("outlierDetection") or {}
    if pool is not None and not pool.keys() & {"tcp", "http"}:
        yield "connection pool must have at least one field"
    for part in ((pool or {}).get("tcp") or {}, (pool or {}).get("http") or {}):
        for key, value in part.items():
            if isinstance(value, int) and value < 0:
                yield f"{key} must be non-negative"
            elif isinstance(value, str):
                yield from _whole_milliseconds(part, key)
    for key in ("interval", "baseEjectionTime"):
        yield from _whole_milliseconds(outlier, key)
    for key in ("maxEjectionPercent", "minHealthPercent"):
        if not 0 <= outlier.get(key, 0) <= 100:
            yield f"percentage {outlier[key]} is not in range 0..100"
    tls = policy.get("tls") or {}
    for key in ("clientCertificate", "privateKey") if tls.get("mode") == "MUTUAL" else ():
        if not tls.get(key) and not tls.get("credentialName"):
            yield f"{key} required for mutual tls"


_KINDS: Mapping[str, tuple[Any, Callable[[Object], Iterator[str]]]] = {
    "VirtualService": (VIRTUAL_SERVICE, _virtual_service_problems),
    "DestinationRule": (DESTINATION_RULE, _destination_rule_problems),
}


def _route_warnings(route: Object) -> Iterator[str]:
    if "mirrorPercent" in route or "mirror_percent" in route:
        yield 'using deprecated setting "mirrorPercent", use "mirrorPercentage" instead'
    abort = (route.get("fault") or {}).get("abort")
    if abort is not None and not abort.keys() & {"httpStatus", "grpcStatus", "http2Error"}:
        yield "abort configured, but error type not set"
    if _BODY_LARGE_BYTES < _body_bytes(route.get("directResponse") or {}) <= _BODY_MOST_BYTES:
        yield "large direct_responses may impact control plane performance"
    for match in route.get("match") or []:
        yield from _legacy_gateways(match.get("gateways") or [], "match.gateways")


def _legacy_gateways(names: list[str], where: str) -> Iterator[str]:
    for name in names:
        if "/" not in name and "." in name:
            short, namespace, *_ = name.split(".")
            yield (
                f"{where}: using legacy gatewayName format {name!r}; "
                f'prefer the <namespace>/<name> format: "{namespace}/{short}"'
            )
