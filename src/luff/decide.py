"""
Which http route takes a request: Istio's rules, as a pure function.

Routes are tried in order; inside a match everything must hold, between
matches one is enough. ``sourceLabels``, ``sourceNamespace``, ``gateways`` and
``port`` are decided for a proxy when its configuration is made, and where
gateways are named, source labels are not looked at. Nothing after the first
catch-all exists. Values of a repeated header are tested each for itself, as
Envoy does since 1.39.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from luff.model import Object

__all__ = ["Proxy", "RequestFacts", "catches_all", "decide"]

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
    gateway: str = "mesh"


def catches_all(route: Object) -> bool:
    """Return whether nothing after *route* can be reached at any proxy."""
    matches = route.get("match")
    if not matches:
        return True
    return any(_unconditional(match) and not any(match.get(key) for key in _CONFIG_TIME) for match in matches)


def decide(virtual_service: Object, request: RequestFacts, proxy: Proxy) -> int | None:
    """Return the index of the http route that takes *request* at *proxy*, or ``None`` when none does (404)."""
    for index, route in enumerate((virtual_service.get("spec") or {}).get("http") or []):
        matches = route.get("match") or []
        if not matches:
            return index
        for match in matches:
            if _applies(match, request, proxy):
                if _holds(match, request):
                    return index
                if _unconditional(match):
                    return None
    return None


def _unconditional(match: Object) -> bool:
    uri = match.get("uri") or {}
    anywhere = not uri or uri.get("prefix") == "/" or uri.get("regex") == ".*"
    return anywhere and not any(
        match.get(key) for key in ("headers", "withoutHeaders", "queryParams", "method", "authority", "scheme")
    )


def _applies(match: Object, request: RequestFacts, proxy: Proxy) -> bool:
    if match.get("port") and match["port"] != request.port:
        return False
    if match.get("gateways"):
        return proxy.gateway in match["gateways"]
    wanted: Mapping[str, str] = match.get("sourceLabels") or {}
    if any(proxy.labels.get(key) != value for key, value in wanted.items()):
        return False
    return not match.get("sourceNamespace") or match["sourceNamespace"] == proxy.namespace


def _holds(match: Object, request: RequestFacts) -> bool:
    path, _, query = request.path.partition("?")
    ignore_case = bool(match.get("ignoreUriCase"))
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    params = dict(reversed(parse_qsl(query, keep_blank_values=True)))
    return (
        _is(match.get("uri"), path, ignore_case=ignore_case)
        and _is(match.get("method"), request.method)
        and _is(match.get("authority"), request.authority)
        and _is(match.get("scheme"), request.scheme)
        and all(_header_is(wanted, headers.get(name.lower())) for name, wanted in (match.get("headers") or {}).items())
        and not any(
            _header_is(wanted, headers.get(name.lower()))
            for name, wanted in (match.get("withoutHeaders") or {}).items()
        )
        and all(
            name in params and _is(wanted, params[name], empty=True)
            for name, wanted in (match.get("queryParams") or {}).items()
        )
    )


def _header_is(wanted: Any, values: list[str] | None) -> bool:
    if values is None:
        return False
    if not wanted or wanted.get("regex") == "*":
        return True
    return any(_is(wanted, value) for value in values)


def _is(wanted: Any, value: str, *, ignore_case: bool = False, empty: bool = False) -> bool:
    if not wanted:
        return True
    if ignore_case and not wanted.get("regex"):
        value = value.lower()
        wanted = {key: str(text).lower() for key, text in wanted.items()}
    if "exact" in wanted:
        return value == wanted["exact"]
    if "prefix" in wanted:
        return value.startswith(wanted["prefix"])
    if "regex" in wanted:
        return re.fullmatch(wanted["regex"], value) is not None
    return empty or True
