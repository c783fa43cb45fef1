"""
The part of JSON Patch (RFC 6902) that luff writes: add, remove, replace, test. Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from luff.model import Object

__all__ = ["apply"]


def apply(object_: Object, operations: Sequence[Mapping[str, Any]]) -> Object:
    """Return *object_* with *operations* applied, all or none; ValueError when one does not apply. Nothing given is changed."""
    document: Any = copy.deepcopy(object_)
    for operation in operations:
        kind, pointer = operation["op"], str(operation["path"])
        parent, key = _find(document, pointer)
        if kind == "test":
            _test(parent, key, operation.get("value"), pointer)
        elif kind == "add":
            _add(parent, key, copy.deepcopy(operation["value"]), pointer)
        elif kind == "remove":
            del parent[_present(parent, key, pointer)]
        elif kind == "replace":
            parent[_present(parent, key, pointer)] = copy.deepcopy(operation["value"])
        else:
            raise ValueError(f"{kind!r} is not an operation that luff writes")
    assert isinstance(document, dict)
    return document


def _find(document: Any, pointer: str) -> tuple[Any, str]:
    if not pointer.startswith("/"):
        raise ValueError(f"{pointer!r} is not a JSON Pointer into the object")
    *path, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/"))
    here = document
    for part in path:
        here = here[_present(here, part, pointer)]
    return here, last


def _present(parent: Any, key: str, pointer: str) -> Any:
    if isinstance(parent, list):
        if key.isdigit() and int(key) < len(parent):
            return int(key)
    elif isinstance(parent, dict) and key in parent:
        return key
    raise ValueError(f"there is nothing at {pointer}")


def _add(parent: Any, key: str, value: Any, pointer: str) -> None:
    if isinstance(parent, dict):
        parent[key] = value
    elif isinstance(parent, list) and key == "-":
        parent.append(value)
    elif isinstance(parent, list) and key.isdigit() and int(key) <= len(parent):
        parent.insert(int(key), value)
    else:
        raise ValueError(f"nothing can be added at {pointer}")


def _test(parent: Any, key: str, wanted: Any, pointer: str) -> None:
    found = parent[_present(parent, key, pointer)]
    if found != wanted or isinstance(found, bool) is not isinstance(wanted, bool):
        raise ValueError(f"testing {pointer} failed")
