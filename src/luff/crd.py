"""
The schemas of VirtualService and DestinationRule, as their CRDs give them to the API server.

A schema is an object by its fields, ``[x]`` a list of x, ``{"*": x}`` a map
with any keys, a word a scalar. A field that is not in it is no problem: the
API server prunes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

__all__ = ["DESTINATION_RULE", "MATCH", "TRAFFIC_POLICY", "UNIT_NS", "VIRTUAL_SERVICE", "misshapen", "nanoseconds"]

_STRING_MATCH = {"exact": "string", "prefix": "string", "regex": "string"}
_MATCHES = {"*": _STRING_MATCH}
_DESTINATION = {"host": "string", "subset": "string", "port": {"number": "uint32"}}
_HEADER_OPERATIONS = {"set": {"*": "string"}, "add": {"*": "string"}, "remove": ["string"]}
_HEADERS = {"request": _HEADER_OPERATIONS, "response": _HEADER_OPERATIONS}
_PERCENT = {"value": "number"}
_LABELS = {"*": "string"}
MATCH = {
    "name": "string",
    "uri": _STRING_MATCH,
    "scheme": _STRING_MATCH,
    "method": _STRING_MATCH,
    "authority": _STRING_MATCH,
    "headers": _MATCHES,
    "withoutHeaders": _MATCHES,
    "queryParams": _MATCHES,
    "port": "uint32",
    "sourceLabels": _LABELS,
    "sourceNamespace": "string",
    "gateways": ["string"],
    "ignoreUriCase": "boolean",
    "statPrefix": "string",
}
ROUTE = {
    "name": "string",
    "match": [MATCH],
    "route": [{"destination": _DESTINATION, "weight": "int32", "headers": _HEADERS}],
    "redirect": {
        "uri": "string",
        "authority": "string",
        "port": "uint32",
        "derivePort": "string",
        "scheme": "string",
        "redirectCode": "uint32",
    },
    "directResponse": {"status": "uint32", "body": {"string": "string", "bytes": "string"}},
    "delegate": {"name": "string", "namespace": "string"},
    "rewrite": {
        "uri": "string",
        "authority": "string",
        "uriRegexRewrite": {"match": "string", "rewrite": "string"},
    },
    "timeout": "duration",
    "retries": {
        "attempts": "int32",
        "perTryTimeout": "duration",
        "retryOn": "string",
        "retryRemoteLocalities": "boolean",
        "retryIgnorePreviousHosts": "boolean",
        "backoff": "duration",
    },
    "fault": {
        "delay": {
            "percent": "int32",
            "percentage": _PERCENT,
            "fixedDelay": "duration",
            "exponentialDelay": "duration",
        },
        "abort": {"percentage": _PERCENT, "httpStatus": "int32", "grpcStatus": "string", "http2Error": "string"},
    },
    "mirror": _DESTINATION,
    "mirrorPercent": "uint32",
    "mirror_percent": "uint32",
    "mirrorPercentage": _PERCENT,
    "mirrors": [{"destination": _DESTINATION, "percentage": _PERCENT}],
    "corsPolicy": {
        "allowOrigin": ["string"],
        "allowOrigins": [_STRING_MATCH],
        "allowMethods": ["string"],
        "allowHeaders": ["string"],
        "exposeHeaders": ["string"],
        "maxAge": "duration",
        "allowCredentials": "boolean",
        "unmatchedPreflights": "string",
    },
    "headers": _HEADERS,
}
_L4ROUTE = [{"destination": _DESTINATION, "weight": "int32"}]
_L4MATCH = {
    "destinationSubnets": ["string"],
    "port": "uint32",
    "sourceLabels": _LABELS,
    "sourceNamespace": "string",
    "gateways": ["string"],
}
_METADATA = {"name": "string", "namespace": "string", "labels": _LABELS, "annotations": _LABELS}
VIRTUAL_SERVICE = {
    "metadata": _METADATA,
    "spec": {
        "hosts": ["string"],
        "gateways": ["string"],
        "http": [ROUTE],
        "tls": [{"match": [{**_L4MATCH, "sniHosts": ["string"]}], "route": _L4ROUTE}],
        "tcp": [{"match": [_L4MATCH], "route": _L4ROUTE}],
        "exportTo": ["string"],
    },
}
TRAFFIC_POLICY = {
    "connectionPool": {
        "tcp": {"maxConnections": "int32", "connectTimeout": "duration"},
        "http": {
            "http1MaxPendingRequests": "int32",
            "http2MaxRequests": "int32",
            "maxRequestsPerConnection": "int32",
            "maxRetries": "int32",
            "idleTimeout": "duration",
        },
    },
    "outlierDetection": {
        "consecutive5xxErrors": "uint32",
        "consecutiveGatewayErrors": "uint32",
        "interval": "duration",
        "baseEjectionTime": "duration",
        "maxEjectionPercent": "int32",
        "minHealthPercent": "int32",
    },
    "loadBalancer": {"simple": "string", "consistentHash": {}},
    "tls": {"mode": "string", "clientCertificate": "string", "privateKey": "string", "caCertificates": "string"},
    "portLevelSettings": [{}],
    "tunnel": {},
    "proxyProtocol": {},
}
DESTINATION_RULE = {
    "metadata": _METADATA,
    "spec": {
        "host": "string",
        "trafficPolicy": TRAFFIC_POLICY,
        "subsets": [{"name": "string", "labels": _LABELS, "trafficPolicy": TRAFFIC_POLICY}],
        "exportTo": ["string"],
        "workloadSelector": {"matchLabels": _LABELS},
    },
}

_RANGES = {"int32": (-(1 << 31), (1 << 31) - 1), "uint32": (0, (1 << 32) - 1)}
ONE_OF = (
    (_STRING_MATCH, ("exact", "prefix", "regex")),
    (ROUTE["fault"]["delay"], ("fixedDelay", "exponentialDelay")),  # type: ignore[index]  # the table has every depth
    (ROUTE["fault"]["abort"], ("httpStatus", "grpcStatus", "http2Error")),  # type: ignore[index]  # the same
    (ROUTE["redirect"], ("port", "derivePort")),
    (ROUTE["directResponse"]["body"], ("string", "bytes")),  # type: ignore[index]  # the same
)
_DURATION = re.compile(r"\+?(?:0|(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_DURATION_PART = re.compile(r"([0-9]*\.?[0-9]*)(ns|us|µs|μs|ms|s|m|h)")
UNIT_NS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
DURATION_LONGEST = 64


def misshapen(value: Any, schema: Any, where: str) -> Iterator[str]:
    """Say where *value* is not of *schema*, as the API server would."""
    here = where or "the object"
    if isinstance(schema, str):
        yield from _wrong_scalar(value, schema, here)
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{here}: must be of type array"
            return
        for number, inner in enumerate(value):
            yield from misshapen(inner, schema[0], f"{where}[{number}]")
    elif not isinstance(value, dict):
        yield f"{here}: must be of type object"
    else:
        for key, inner in value.items():
            known = schema.get("*", schema.get(key))
            if known is not None:
                yield from misshapen(inner, known, f"{where}.{key}" if where else str(key))
        for one, names in ONE_OF:
            if schema is one and sum(name in value for name in names) > 1:
                yield f"{here}: must have at most one of {', '.join(names)}"
        if schema is _DESTINATION and "host" not in value:
            yield f"{here}.host: Required value"
        if schema is ROUTE["directResponse"] and "status" not in value:
            yield f"{here}.status: Required value"


def _wrong_scalar(value: Any, kind: str, where: str) -> Iterator[str]:
    if kind in _RANGES:
        least, most = _RANGES[kind]
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
            yield f"{where}: must be of type integer"
        elif not least <= value <= most:
            yield f"{where}: must be from {least} to {most}"
    elif kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{where}: must be of type number"
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield f"{where}: must be of type boolean"
    elif not isinstance(value, str):
        yield f"{where}: must be of type string"
    elif kind == "duration" and (nanoseconds(value) or 0) < UNIT_NS["ms"]:
        yield f"{where}: must be a valid duration greater than 1ms"


def nanoseconds(text: str) -> Fraction | None:
    if len(text) > DURATION_LONGEST or not text.isprintable() or not _DURATION.fullmatch(text):
        return None
    return sum((Fraction(number) * UNIT_NS[unit] for number, unit in _DURATION_PART.findall(text)), Fraction(0))
