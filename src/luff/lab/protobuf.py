"""
Protocol Buffers, as kubectl sends the few built-in kinds that it makes itself.

Only requests are read; every answer is JSON, which all clients take. A field
that is not listed here is an error, so that nothing is dropped unnoticed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

from luff.lab.resources import timestamp
from luff.model import Object

__all__ = ["MEDIA_TYPE", "object_in"]

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

Fields: TypeAlias = "dict[int, tuple[str, Any]]"


@dataclass(frozen=True, slots=True)
class _Many:
    of: Any


@dataclass(frozen=True, slots=True)
class _Map:
    of: Any


_TIME: Fields = {1: ("seconds", int), 2: ("nanos", int)}
_OWNER: Fields = {
    1: ("kind", str), 3: ("name", str), 4: ("uid", str), 5: ("apiVersion", str), 6: ("controller", bool),
    7: ("blockOwnerDeletion", bool),
}  # fmt: skip
_META: Fields = {
    1: ("name", str), 2: ("generateName", str), 3: ("namespace", str), 4: ("selfLink", str), 5: ("uid", str),
    6: ("resourceVersion", str), 7: ("generation", int), 8: ("creationTimestamp", _TIME), 9: ("deletionTimestamp", _TIME),
    10: ("deletionGracePeriodSeconds", int), 11: ("labels", _Map(str)), 12: ("annotations", _Map(str)),
    13: ("ownerReferences", _Many(_OWNER)), 14: ("finalizers", _Many(str)),
}  # fmt: skip
_PORT: Fields = {
    1: ("name", str), 2: ("protocol", str), 3: ("port", int),
    4: ("targetPort", {1: ("type", int), 2: ("intVal", int), 3: ("strVal", str)}), 5: ("nodePort", int),
    6: ("appProtocol", str),
}  # fmt: skip
_SERVICE: Fields = {
    1: ("ports", _Many(_PORT)), 2: ("selector", _Map(str)), 3: ("clusterIP", str), 4: ("type", str),
    7: ("sessionAffinity", str), 10: ("externalName", str), 13: ("publishNotReadyAddresses", bool),
    18: ("clusterIPs", _Many(str)),
}  # fmt: skip
_REVIEWED: Fields = {
    1: ("namespace", str), 2: ("verb", str), 3: ("group", str), 4: ("version", str), 5: ("resource", str),
    6: ("subresource", str), 7: ("name", str),
}  # fmt: skip
_PRECONDITIONS: Fields = {1: ("uid", str), 2: ("resourceVersion", str)}
_NOTHING: Fields = {}
_KINDS: dict[str, Fields] = {
    "Namespace": {1: ("metadata", _META), 2: ("spec", {1: ("finalizers", _Many(str))}), 3: ("status", {1: ("phase", str)})},
    "ConfigMap": {1: ("metadata", _META), 2: ("data", _Map(str)), 3: ("binaryData", _Map(bytes)), 4: ("immutable", bool)},
    "Secret": {
        1: ("metadata", _META), 2: ("data", _Map(bytes)), 3: ("type", str), 4: ("stringData", _Map(str)),
        5: ("immutable", bool),
    },
    "ServiceAccount": {1: ("metadata", _META), 4: ("automountServiceAccountToken", bool)},
    "Service": {1: ("metadata", _META), 2: ("spec", _SERVICE), 3: ("status", {1: ("loadBalancer", _NOTHING)})},
    "SelfSubjectAccessReview": {
        1: ("metadata", _META),
        2: ("spec", {1: ("resourceAttributes", _REVIEWED), 2: ("nonResourceAttributes", {1: ("path", str), 2: ("verb", str)})}),
        3: ("status", {1: ("allowed", bool), 2: ("reason", str), 3: ("evaluationError", str), 4: ("denied", bool)}),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", int), 2: ("preconditions", _PRECONDITIONS), 3: ("orphanDependents", bool),
        4: ("propagationPolicy", str), 5: ("dryRun", _Many(str)),
    },
}  # fmt: skip


def object_in(data: bytes) -> Object:
    """Return the object that *data* is; `ValueError` when it is none, or of a kind or with a field unknown here."""
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin as Kubernetes Protocol Buffers do")
    unknown = _message(
        data[4:],
        {1: ("type", {1: ("apiVersion", str), 2: ("kind", str)}), 2: ("raw", "raw"), 3: ("e", str), 4: ("c", str)},
    )
    kind = unknown.get("type", {}).get("kind", "")
    if kind not in _KINDS:
        raise ValueError(f"the lab reads {kind or 'this'} only as JSON")
    return {**unknown["type"], **_message(unknown.get("raw", b""), _KINDS[kind])}


def _message(data: bytes, fields: Fields) -> Object:
    found: Object = {}
    for number, wire, value in _entries(data):
        if number not in fields:
            if value in (b"", 0):
                continue
            raise ValueError(f"field {number} is not one that the lab reads in Protocol Buffers; send JSON")
        name, kind = fields[number]
        if isinstance(kind, _Many):
            found.setdefault(name, []).append(_value(wire, value, kind.of))
        elif isinstance(kind, _Map):
            entry = _message(value, {1: ("key", str), 2: ("value", kind.of)})
            found.setdefault(name, {})[entry.get("key", "")] = entry.get("value", "")
        else:
            read = _value(wire, value, kind)
            if read not in ("", 0, False, None, {}):
                found[name] = read
    return found


def _value(wire: int, value: Any, kind: Any) -> Any:
    if isinstance(value, int) is not (wire == 0):
        raise ValueError("a field is of another type than it should be")
    if kind is int:
        return value - (1 << 64) if value >> 63 else value
    if kind is bool:
        return bool(value)
    if not isinstance(value, bytes):
        raise ValueError("a field is of another type than it should be")  # noqa: TRY004
    if kind is str:
        return value.decode()
    if kind is bytes:
        return base64.b64encode(value).decode()
    if kind == "raw":
        return value
    inner = _message(value, kind)
    if kind is _TIME:
        return timestamp(datetime.fromtimestamp(inner["seconds"], UTC)) if inner.get("seconds", 0) > 0 else None
    if "strVal" in inner or "intVal" in inner:
        return inner["strVal"] if inner.get("type") == 1 else inner.get("intVal", 0)
    return None if set(inner) == {"type"} else inner


def _entries(data: bytes) -> Iterator[tuple[int, int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, wire, value
        elif wire == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("it is cut short")
            yield number, wire, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire} is not used by Kubernetes")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("it is cut short")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
