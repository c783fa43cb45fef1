"""
Which http route takes a request: Istio's rules, as a pure function.

Routes are tried in order; inside a match everything must hold, between
matches one is enough. ``sourceLabels``, ``sourceNamespace``, ``gateways`` and
``port`` are decided for a proxy when its configuration is made, and where
gateways are named, source labels are not looked at. Nothing after the first
catch-all exists. Values of a repeated header are tested each for itself, as
Envoy does since 1.39, but for those that it knows by name and joins on receipt;
a missing one counts as empty under ``withoutHeaders``.

A match on a token's claims (``@request.auth.claims``) never holds here: what
is in a token is not known. A delegate counts as the route that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luff import regex
from luff.hosts import MESH, namespace_of, qualify_gateway
from luff.names import http_routes
from luff.words import Object

__all__ = ["JOINED", "Proxy", "RequestFacts", "catches_all", "decide", "unconditional"]

JOINED = frozenset(
    (
        "accept", "accept-encoding", "access-control-request-headers", "access-control-request-method",
        "access-control-request-private-network", "authorization", "cache-control", "content-encoding",
        "content-type", "expect", "grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since",
        "if-none-match", "if-range", "if-unmodified-since", "origin", "pragma", "proxy-status", "referer",
        "user-agent", "via", "x-client-trace-id", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
        "x-forwarded-proto", "x-request-id",
    )
)  # fmt: skip
"""Headers that Envoy has a place of their own for: several of them are one, joined by commas without the empty ones, before any route is tried."""
_CONFIG_TIME = ("sourceLabels", "sourceNamespace", "gateways", "port")


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """This is what a route match can see of a request. *path* may have a query; *headers* may repeat a name."""

    path: str = "/"
    method: str = "GET"
    authority: str = ""
    scheme: str = "http"
    headers: tuple[tuple[str, str], ...] = ()
    port: int = 80


@dataclass(frozen=True, slots=True)
class Proxy:
    """This is the proxy that routes: a sidecar (gateway ``mesh``) with its workload's labels, or a gateway by name."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = "default"
    gateway: str = MESH


@dataclass(frozen=True, slots=True)
class _Seen:
    """This is a request as the matchers see it: header names in lower case, the pseudo headers among them."""

    path: str
    ignoring_case: str
    headers: Mapping[str, list[str]]
    params: Mapping[str, str]


def catches_all(route: Object) -> bool:
    """Return whether nothing after *route* can be reached at any proxy."""
    matches = _matches(route)
    if not matches:
        return True
    return any(unconditional(match) and not any(match.get(key) for key in _CONFIG_TIME) for match in matches)


def decide(virtual_service: Object, request: RequestFacts, proxy: Proxy) -> int | None:
    """
    Return the index of the http route that takes *request* at *proxy*.

    ``None`` when none does (Envoy answers 404), or when the object is not for that proxy.
    """
    namespace = namespace_of(virtual_service)
    if not _names_gateway((virtual_service.get("spec") or {}).get("gateways") or [MESH], proxy, namespace):
        return None
    seen = _seen(request)
    for index, route in enumerate(http_routes(virtual_service)):
        matches = _matches(route)
        if not matches:
            return index
        for match in matches:
            if _applies(match, request, proxy, namespace):
                if _holds(match, seen):
                    return index
                if unconditional(match):
                    # Pilot makes no routes after this one, even where the path is none, as in `OPTIONS *`.
                    return None
    return None


def unconditional(match: Object) -> bool:
    """Return whether *match*, where it applies, takes every request, so that pilot stops there."""
    uri = match.get("uri") or {}
    anywhere = not _kind(uri) or uri.get("prefix") == "/" or uri.get("regex") == ".*"
    # An empty `method: {}` is a condition to pilot (the header is there), an empty map of headers is none.
    named = any(match.get(key) is not None for key in ("method", "authority", "scheme"))
    return anywhere and not named and not any(match.get(key) for key in ("headers", "withoutHeaders", "queryParams"))


def _matches(route: Object) -> list[Object]:
    return [match if isinstance(match, dict) else {} for match in route.get("match") or []]


def _names_gateway(names: list[str], proxy: Proxy, namespace: str) -> bool:
    at = qualify_gateway(proxy.gateway, namespace)
    return any(qualify_gateway(name, namespace) == at for name in names)


def _applies(match: Object, request: RequestFacts, proxy: Proxy, namespace: str) -> bool:
    if match.get("port") and match["port"] != request.port:
        return False
    if match.get("gateways"):
        return _names_gateway(match["gateways"], proxy, namespace)
    wanted: Mapping[str, str] = match.get("sourceLabels") or {}
    if any(proxy.labels.get(key) != value for key, value in wanted.items()):
        return False
    return not match.get("sourceNamespace") or match["sourceNamespace"] == proxy.namespace


def _seen(request: RequestFacts) -> _Seen:
    path, _, query = request.path.partition("?")
    headers: dict[str, list[str]] = {
        ":path": [request.path],
        ":method": [request.method],
        ":authority": [request.authority],
        ":scheme": [request.scheme],
        # Envoy keeps one value under both names.
        "host": [request.authority],
    }
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    for name in JOINED.intersection(headers):
        headers[name] = [",".join(filter(None, headers[name]))]
    params: dict[str, str] = {}
    for part in query.split("&") if query else []:
        # As written: Envoy does not decode what it compares, and looks at the first of several.
        name, _, value = part.partition("=")
        params.setdefault(name, value)
    return _Seen(path, path.lower(), headers, params)


def _holds(match: Object, seen: _Seen) -> bool:
    headers = {**(match.get("headers") or {})}
    headers.update({f":{key}": match[key] for key in ("method", "authority", "scheme") if match.get(key) is not None})
    return (
        _path_is(match.get("uri") or {}, seen, ignore_case=bool(match.get("ignoreUriCase")))
        and all(_header_is(wanted, seen.headers.get(name.lower())) for name, wanted in headers.items())
        and not any(
            _header_is(wanted, seen.headers.get(name.lower()), missing="")
            for name, wanted in (match.get("withoutHeaders") or {}).items()
        )
        and all(
            name in seen.params and (_presence(wanted) or _is(wanted, seen.params[name]))
            for name, wanted in (match.get("queryParams") or {}).items()
        )
    )


def _path_is(wanted: Object, seen: _Seen, *, ignore_case: bool) -> bool:
    kind = _kind(wanted)
    if kind is None:
        return True
    if ignore_case and kind != "regex":
        return _is({kind: wanted[kind].lower()}, seen.ignoring_case)
    return _is(wanted, seen.path)


def _header_is(wanted: Any, values: list[str] | None, *, missing: str | None = None) -> bool:
    if _presence(wanted):
        return values is not None
    if values is None:
        return missing is not None and _is(wanted, missing)
    return any(_is(wanted, value) for value in values)


def _presence(wanted: Any) -> bool:
    """Return whether the StringMatch *wanted* asks only that something is there: ``{}``, or the regex ``*``."""
    return _kind(wanted) is None or wanted.get("regex") == "*"


def _kind(wanted: Any) -> str | None:
    for kind in ("exact", "prefix", "regex"):
        if isinstance(wanted, dict) and isinstance(wanted.get(kind), str):
            return kind
    return None


def _is(wanted: Object, value: str) -> bool:
    match _kind(wanted):
        case "exact":
            return bool(value == wanted["exact"])
        case "prefix":
            return value.startswith(wanted["prefix"])
        case "regex":
            return regex.full_match(wanted["regex"], value)
    return True
