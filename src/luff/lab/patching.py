"""How a write changes an object: JSON Patch, merge patches, server-side apply, and who owns which field."""

from __future__ import annotations

import copy
import json
import json.decoder
import json.scanner
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jsonpatch
import jsonpointer

from luff.lab.statuses import ApiError
from luff.model import Object

__all__ = ["MOST_OPERATIONS", "decode", "json_patch", "merge_patch", "strategic_patch"]

MOST_OPERATIONS = 10_000


_MERGE_KEYS = {
    "ports": ("containerPort", "port"), "containers": ("name",), "initContainers": ("name",), "env": ("name",),
    "volumes": ("name",), "volumeMounts": ("mountPath",), "conditions": ("type",), "ownerReferences": ("uid",),
    "secrets": ("name",), "imagePullSecrets": ("name",), "hostAliases": ("ip",),
}  # fmt: skip


class _Text(str):
    """This is a string that knows how it was written."""

    __slots__ = ("raw",)
    raw: str


class _Number(float):
    """This is a number that knows how it was written."""

    raw: str


def _number(text: str) -> _Number:
    number = _Number(text)
    number.raw = text
    return number


class _AsWritten(json.JSONDecoder):
    # The server's library compares the bytes of leaves, so a `test` needs its value as it was written.
    def __init__(self) -> None:
        super().__init__(parse_float=_number, parse_int=_number)
        self.parse_string = self._string
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    @staticmethod
    def _string(text: str, end: int, strict: bool = True) -> tuple[_Text, int]:
        value, after = json.decoder.scanstring(text, end, strict)  # type: ignore[attr-defined]
        found = _Text(value)
        found.raw = text[end - 1 : after]
        return found, after


def decode(text: str | bytes) -> Any:
    """
    Return the JSON in *text* as Go would write it back; `ValueError` when it is none.

    Whole floats become integers, halves of surrogate pairs U+FFFD.
    """
    found = json.loads(text, parse_float=_as_go, parse_constant=_refuse)
    halved = b"\\ud" if isinstance(text, bytes) else "\\ud"
    return _whole_characters(found) if halved in text.lower() else found  # type: ignore[operator]


def _as_go(text: str) -> float | int:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"cannot unmarshal number {text[:40]} into Go value of type float64")
    return int(value) if value.is_integer() and abs(value) < 1e21 else value


def _refuse(text: str) -> None:
    raise ValueError(f"invalid character '{text[0]}' looking for beginning of value")


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {_whole_characters(key): _whole_characters(item) for key, item in value.items()}
    return value


_ESCAPED = re.compile("[<>&\u2028\u2029]")


def _written(value: Any) -> str:
    if isinstance(value, _Text | _Number):
        return value.raw
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text) if isinstance(value, str) else text


def _same(stored: Any, wanted: Any) -> bool:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return stored.keys() == wanted.keys() and all(_same(stored[key], wanted[key]) for key in stored)
    if isinstance(stored, list) and isinstance(wanted, list):
        return len(stored) == len(wanted) and all(map(_same, stored, wanted))
    if isinstance(stored, dict | list) or isinstance(wanted, dict | list):
        return False
    return _written(stored) == _written(wanted)


def json_patch(text: bytes) -> Callable[[Object], Object]:
    """Return what applies the JSON Patch in *text*; 400 when it is none, 413 when it is too long, 422 on applying."""
    try:
        operations, as_written = decode(text), _AsWritten().decode(text.decode())
    except (ValueError, RecursionError) as error:
        raise ApiError.bad_request(f"error decoding patch: {error}") from error
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise ApiError.bad_request("error decoding patch: json: cannot unmarshal into Go value of type jsonpatch.Patch")
    if len(operations) > MOST_OPERATIONS:
        most = f"The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {len(operations)}"
        raise ApiError.too_large(most)

    def change(object_: Object) -> Object:
        document: Any = copy.deepcopy(object_)
        try:
            for operation, written in zip(operations, as_written, strict=True):
                if operation.get("op") == "test":
                    _test(document, operation, written.get("value"))
                else:
                    document = jsonpatch.JsonPatch([operation]).apply(document, in_place=True)
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError) as error:
            raise ApiError.does_not_apply() from error
        if not isinstance(document, dict):
            raise ApiError.does_not_apply()
        return document

    return change


def _test(document: Any, operation: Mapping[str, Any], wanted: Any) -> None:
    pointer = jsonpointer.JsonPointer(operation["path"])
    missing = object()
    found = pointer.resolve(document, missing)
    if found is missing:
        found = None  # testing what is absent for null holds
    if not _same(found, wanted):
        raise ApiError.does_not_apply()


def merge_patch(patch: Any) -> Callable[[Object], Object]:
    """Return what applies the JSON merge patch *patch*."""
    if not isinstance(patch, dict):
        raise ApiError.bad_request("error decoding patch: expected an object")
    return lambda object_: _merged(object_, patch)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def strategic_patch(patch: Any) -> Callable[[Object], Object]:
    """Return what applies *patch* as a strategic merge patch, for the lists that built-in kinds are known to have."""
    if not isinstance(patch, dict):
        raise ApiError.bad_request("error decoding patch: expected an object")
    return lambda object_: _strategic(object_, patch)


def _strategic(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            merged[field] = [item for item in merged.get(field) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            merged.pop(key, None)
        elif isinstance(value, list):
            merged[key] = _merged_list(key, merged.get(key), value)
        else:
            merged[key] = _strategic(merged.get(key), value)
    return merged


def _merged_list(field: str, target: Any, patch: list[Any]) -> list[Any]:
    if field == "finalizers":
        return [*(target or []), *(item for item in patch if item not in (target or []))]
    items = [item for item in patch if isinstance(item, dict)]
    keys = [
        key for key in _MERGE_KEYS.get(field, ()) if items and all(key in item or "$patch" in item for item in items)
    ]
    if any(item.get("$patch") == "replace" for item in items) or not keys or len(items) != len(patch):
        return [item for item in patch if not (isinstance(item, dict) and item.get("$patch") == "replace")]
    key = keys[0]
    found = list(target) if isinstance(target, list) else []
    for item in items:
        places = [place for place, old in enumerate(found) if isinstance(old, dict) and old.get(key) == item.get(key)]
        if item.get("$patch") == "delete":
            found = [old for place, old in enumerate(found) if place not in places]
        elif places:
            found[places[0]] = _strategic(found[places[0]], item)
        else:
            found.append(_strategic({}, item))
    return found
