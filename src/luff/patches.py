"""
The part of JSON Patch (RFC 6902) that luff writes: add, remove, replace, test. Pure.

An unknown field survives, since nothing but the named places is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from luff.words import Object

__all__ = ["apply", "clone", "same"]

_INDEX = re.compile(r"0|[1-9][0-9]*")


def apply(object_: Object, operations: Sequence[Mapping[str, Any]]) -> Object:
    """
    Return *object_* with *operations* applied in order, all or none.

    What is given is never changed, and the result shares nothing with it.
    Raises ValueError when a test fails or an operation has no place to act on.
    """
    document: Any = clone(object_)
    for operation in operations:
        kind, pointer = operation["op"], str(operation["path"])
        parent, key = _find(document, pointer)
        if kind == "test":
            if not same(parent[_present(parent, key, pointer)], operation["value"]):
                raise ValueError(f"testing {pointer} failed")
        elif kind == "add":
            _add(parent, key, clone(operation["value"]), pointer)
        elif kind == "remove":
            del parent[_present(parent, key, pointer)]
        elif kind == "replace":
            parent[_present(parent, key, pointer)] = clone(operation["value"])
        else:
            raise ValueError(f"{kind!r} is not an operation that luff writes")
    assert isinstance(document, dict)
    return document


def clone(value: Any) -> Any:
    """Return a deep copy of a JSON value; several times as fast as the general `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: clone(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [clone(inner) for inner in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: numbers by value, and ``true`` is not 1 as it is in Python."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(inner, other[key]) for key, inner in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(isinstance(one, bool) is isinstance(other, bool) and one == other)


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
        if _INDEX.fullmatch(key) and int(key) < len(parent):
            return int(key)
    elif isinstance(parent, dict) and key in parent:
        return key
    raise ValueError(f"there is nothing at {pointer}")


def _add(parent: Any, key: str, value: Any, pointer: str) -> None:
    if isinstance(parent, dict):
        parent[key] = value
    elif isinstance(parent, list) and key == "-":
        parent.append(value)
    elif isinstance(parent, list) and _INDEX.fullmatch(key) and int(key) <= len(parent):
        parent.insert(int(key), value)
    else:
        raise ValueError(f"nothing can be added at {pointer}")
