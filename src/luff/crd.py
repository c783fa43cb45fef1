"""
The schemas of VirtualService and DestinationRule, as their CRDs give them to the API server.

A schema is an object by its fields, ``[x]`` a list of x, ``{"*": x}`` a map
with any keys, a tuple the words of which a string is one, a word a scalar
(with a question mark where it may be null).

1. A field that is not in the schema is no problem: the API server prunes it.
2. A null in an object is a field that is not there, unless the schema says that
   it may be null; a null in a list is wrong.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from luff.words import Object

__all__ = [
    "MATCH",
    "PORT_POLICY",
    "SCHEMAS",
    "TCP_MATCH",
    "TLS_MATCH",
    "TRAFFIC_POLICY",
    "UNIT_NS",
    "misshapen",
    "nanoseconds",
    "whole_milliseconds",
    "without_nulls",
]

_STRING_MATCH = {"exact": "string", "prefix": "string", "regex": "string"}
_MATCHES = {"*": _STRING_MATCH}
_DESTINATION = {"host": "string", "subset": "string", "port": {"number": "uint32"}}
_HEADER_OPERATIONS = {"set": {"*": "string"}, "add": {"*": "string"}, "remove": ["string"]}
_BODY = {"string": "string", "bytes": "base64"}
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
_DELAY = {
    "percent": "int32",
    "percentage": _PERCENT,
    "fixedDelay": "duration",
    "exponentialDelay": "duration",
}
_ABORT = {"percentage": _PERCENT, "httpStatus": "int32", "grpcStatus": "string", "http2Error": "string"}
_REDIRECT = {
    "uri": "string",
    "prefixRewrite": "string",
    "authority": "string",
    "port": "uint32",
    "derivePort": ("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"),
    "scheme": "string",
    "redirectCode": "uint32",
}
_DIRECT_RESPONSE = {"status": "uint32", "body": _BODY}
_MIRROR = {"destination": _DESTINATION, "percentage": _PERCENT}
_HTTP_DESTINATION = {"destination": _DESTINATION, "weight": "int32", "headers": _HEADERS}
ROUTE = {
    "name": "string",
    "match": [MATCH],
    "route": [_HTTP_DESTINATION],
    "redirect": _REDIRECT,
    "directResponse": _DIRECT_RESPONSE,
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
        "retryRemoteLocalities": "boolean?",
        "retryIgnorePreviousHosts": "boolean?",
        "backoff": "duration",
    },
    "fault": {"delay": _DELAY, "abort": _ABORT},
    "mirror": _DESTINATION,
    "mirrorPercent": "uint32?",
    "mirror_percent": "uint32?",
    "mirrorPercentage": _PERCENT,
    "mirrors": [_MIRROR],
    "corsPolicy": {
        "allowOrigin": ["string"],
        "allowOrigins": [_STRING_MATCH],
        "allowMethods": ["string"],
        "allowHeaders": ["string"],
        "exposeHeaders": ["string"],
        "maxAge": "duration",
        "allowCredentials": "boolean?",
        "unmatchedPreflights": ("UNSPECIFIED", "FORWARD", "IGNORE"),
    },
    "headers": _HEADERS,
}
_L4_DESTINATION = {"destination": _DESTINATION, "weight": "int32"}
_L4_MATCH = {
    "destinationSubnets": ["string"],
    "port": "uint32",
    "sourceLabels": _LABELS,
    "sourceNamespace": "string",
    "gateways": ["string"],
}
TLS_MATCH = {**_L4_MATCH, "sniHosts": ["string"]}
TCP_MATCH = {**_L4_MATCH, "sourceSubnet": "string"}
_TLS_ROUTE = {"match": [TLS_MATCH], "route": [_L4_DESTINATION]}
_METADATA = {"name": "string", "namespace": "string", "labels": _LABELS, "annotations": _LABELS}
VIRTUAL_SERVICE = {
    "metadata": _METADATA,
    "spec": {
        "hosts": ["string"],
        "gateways": ["string"],
        "http": [ROUTE],
        "tls": [_TLS_ROUTE],
        "tcp": [{"match": [TCP_MATCH], "route": [_L4_DESTINATION]}],
        "exportTo": ["string"],
    },
}
_COOKIE_ATTRIBUTE = {"name": "string", "value": "string"}
_COOKIE = {"name": "string", "path": "string", "ttl": "string", "attributes": [_COOKIE_ATTRIBUTE]}
_CONSISTENT_HASH = {
    "httpHeaderName": "string",
    "httpCookie": _COOKIE,
    "useSourceIp": "boolean",
    "httpQueryParameterName": "string",
    "ringHash": {"minimumRingSize": "uint64"},
    "maglev": {"tableSize": "uint64"},
    "minimumRingSize": "uint64",
}
_WARMUP = {"duration": "duration", "minimumPercent": "percent?", "aggression": "positive?"}
_LOAD_BALANCER = {
    "simple": ("UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"),
    "consistentHash": _CONSISTENT_HASH,
    "backendUtilization": {
        "errorUtilizationPenaltyPercent": "uint32",
        "metricNamesForComputingUtilization": ["string"],
        "weightExpirationPeriod": "string",
        "weightStabilizationPeriod": "string",
        "weightUpdatePeriod": "string",
    },
    "localityLbSetting": {
        "distribute": [{"from": "string", "to": {"*": "uint32"}}],
        "failover": [{"from": "string", "to": "string"}],
        "failoverPriority": ["string"],
        "enabled": "boolean?",
    },
    "zoneAwareLbSetting": {
        "failover": [{"from": "string", "to": "string"}],
        "failoverPriority": ["string"],
        "enabled": "boolean?",
        "minClusterSize": "uint32?",
    },
    "warmupDurationSecs": "duration",
    "warmup": _WARMUP,
}
_CONNECTION_POOL = {
    "tcp": {
        "maxConnections": "int32",
        "connectTimeout": "duration",
        "idleTimeout": "string",
        "maxConnectionDuration": "duration",
        "tcpKeepalive": {"probes": "uint32", "time": "duration", "interval": "duration"},
    },
    "http": {
        "http1MaxPendingRequests": "int32",
        "http2MaxRequests": "int32",
        "maxRequestsPerConnection": "int32",
        "maxRetries": "int32",
        "idleTimeout": "duration",
        "h2UpgradePolicy": ("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"),
        "useClientProtocol": "boolean",
        "maxConcurrentStreams": "int32",
        "http2KeepAlive": {"interval": "duration", "timeout": "duration"},
    },
}
_OUTLIER_DETECTION = {
    "consecutiveErrors": "int32",
    "consecutive5xxErrors": "uint32?",
    "consecutiveGatewayErrors": "uint32?",
    "consecutiveLocalOriginFailures": "uint32?",
    "splitExternalLocalOriginErrors": "boolean",
    "interval": "duration",
    "baseEjectionTime": "duration",
    "maxEjectionPercent": "int32",
    "minHealthPercent": "int32",
    "outlierDetectionHttpErrorCodes": ["status"],
}
_TLS_SETTINGS = {
    "mode": ("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"),
    "clientCertificate": "string",
    "privateKey": "string",
    "caCertificates": "string",
    "caCrl": "string",
    "credentialName": "string",
    "subjectAltNames": ["string"],
    "sni": "string",
    "insecureSkipVerify": "boolean?",
}
PORT_POLICY = {
    "connectionPool": _CONNECTION_POOL,
    "outlierDetection": _OUTLIER_DETECTION,
    "loadBalancer": _LOAD_BALANCER,
    "tls": _TLS_SETTINGS,
}
_TUNNEL = {"protocol": "string", "targetHost": "string", "targetPort": "uint32"}
TRAFFIC_POLICY = {
    **PORT_POLICY,
    "portLevelSettings": [{**PORT_POLICY, "port": {"number": "uint32"}}],
    "tunnel": _TUNNEL,
    "proxyProtocol": {"version": ("V1", "V2")},
    "retryBudget": {"percent": "percent?", "budgetInterval": "string", "minRetryConcurrency": "uint32"},
}
_SUBSET = {"name": "string", "labels": _LABELS, "trafficPolicy": TRAFFIC_POLICY}
_RULE_SPEC = {
    "host": "string",
    "trafficPolicy": TRAFFIC_POLICY,
    "subsets": [_SUBSET],
    "exportTo": ["string"],
    "workloadSelector": {"matchLabels": _LABELS},
}
DESTINATION_RULE = {"metadata": _METADATA, "spec": _RULE_SPEC}
SCHEMAS: Mapping[str, Object] = {"VirtualService": VIRTUAL_SERVICE, "DestinationRule": DESTINATION_RULE}
"""The schema of each kind that has one here."""

_RANGES = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    # A larger one is no integer to the API server, whatever the CRD says.
    "uint64": (0, (1 << 63) - 1),
    "status": (100, 599),
}
_NUMBERS = {"number": (float("-inf"), float("inf")), "percent": (0, 100), "positive": (0, float("inf"))}
_ONE_OF: tuple[tuple[Object, tuple[str, ...]], ...] = (
    (_STRING_MATCH, ("exact", "prefix", "regex")),
    (_DELAY, ("fixedDelay", "exponentialDelay")),
    (_ABORT, ("httpStatus", "grpcStatus", "http2Error")),
    (_REDIRECT, ("port", "derivePort")),
    (_BODY, ("string", "bytes")),
    (_LOAD_BALANCER, ("simple", "consistentHash", "backendUtilization")),
    (_CONSISTENT_HASH, ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")),
    (_CONSISTENT_HASH, ("ringHash", "maglev")),
)
_REQUIRED: tuple[tuple[Object, tuple[str, ...]], ...] = (
    (_DESTINATION, ("host",)),
    (_DIRECT_RESPONSE, ("status",)),
    (_HTTP_DESTINATION, ("destination",)),
    (_L4_DESTINATION, ("destination",)),
    (_MIRROR, ("destination",)),
    (_TLS_ROUTE, ("match",)),
    (TLS_MATCH, ("sniHosts",)),
    (_RULE_SPEC, ("host",)),
    (_SUBSET, ("name",)),
    (_COOKIE, ("name",)),
    (_COOKIE_ATTRIBUTE, ("name",)),
    (_WARMUP, ("duration",)),
    (_TUNNEL, ("targetHost", "targetPort")),
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
    """Say where *value* is not of *schema*, as the API server would; nulls of fields are `without_nulls`' matter."""
    here = where or "the object"
    if isinstance(schema, str | tuple):
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
        for one, names in _ONE_OF:
            if schema is one and sum(name in value for name in names) > 1:
                yield f"{here}: must have at most one of {', '.join(names)}"
        for one, names in _REQUIRED:
            if schema is one:
                yield from (f"{here}.{name}: Required value" for name in names if name not in value)


def without_nulls(value: Any, schema: Any, *, nullable: bool = False) -> Any:
    """
    Return *value* as the API server stores it: without the null fields that *schema* knows and that may not be null.

    With *nullable* those that may be are left out too, as whoever reads them does.
    """
    if isinstance(schema, list) and isinstance(value, list):
        return [without_nulls(inner, schema[0], nullable=nullable) for inner in value]
    if not isinstance(schema, dict) or not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        known = schema.get("*", schema.get(key))
        may_be_null = known is None or (not nullable and isinstance(known, str) and known.endswith("?"))
        if inner is not None or may_be_null:
            kept[key] = inner if known is None else without_nulls(inner, known, nullable=nullable)
    return kept


def _wrong_scalar(value: Any, kind: str | tuple[str, ...], where: str) -> Iterator[str]:
    if isinstance(kind, tuple):
        if value not in kind:
            yield f"{where}: Unsupported value: {value!r}: supported values: {', '.join(kind)}"
        return
    if kind.endswith("?") and value is None:
        return
    kind = kind.removesuffix("?")
    if kind in _RANGES:
        yield from _wrong_integer(value, _RANGES[kind], where)
    elif kind in _NUMBERS:
        least, most = _NUMBERS[kind]
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{where}: must be of type number"
        elif kind != "number" and not least <= value <= most:
            yield f"{where}: must be from {least} to {most}"
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield f"{where}: must be of type boolean"
    elif not isinstance(value, str):
        yield f"{where}: must be of type string"
    elif kind == "duration" and (nanoseconds(value) or 0) < UNIT_NS["ms"]:
        yield f"{where}: must be a valid duration greater than 1ms"
    elif kind == "base64" and not _is_base64(value):
        yield f"{where}: must be of type byte: {value[:40]!r}"


def _wrong_integer(value: Any, between: tuple[int, int], where: str) -> Iterator[str]:
    least, most = between
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
        yield f"{where}: must be of type integer"
    elif not least <= value <= most:
        yield f"{where}: must be from {least} to {most}"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def nanoseconds(text: str) -> Fraction | None:
    if len(text) > DURATION_LONGEST or not text.isprintable() or not _DURATION.fullmatch(text):
        return None
    return sum((Fraction(number) * UNIT_NS[unit] for number, unit in _DURATION_PART.findall(text)), Fraction(0))


def whole_milliseconds(part: Mapping[str, str], *keys: str) -> Iterator[str]:
    """Say which of the durations at *keys* in *part* istiod's webhook refuses as finer than a millisecond."""
    for key in keys:
        if key in part and (nanoseconds(part[key]) or 0) % UNIT_NS["ms"]:
            yield f"{key}: only durations to ms precision are supported"
