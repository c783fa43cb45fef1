"""Label and field selectors, as the API server reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from luff.lab.resources import Resource
from luff.lab.statuses import ApiError
from luff.model import Object

__all__ = ["Selector", "field_selector", "label_selector"]

Selector: TypeAlias = Callable[[Object], bool]
_IN = re.compile(r"^\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*$")
_EQUALS = re.compile(r"^\s*([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)\s*$")
_EXISTS = re.compile(r"^\s*(!?)\s*([^\s=!,()]+)\s*$")


def label_selector(text: str) -> Selector:
    """Return the label selector *text*, equality-based and set-based; 400 when it is none."""
    tests = [_requirement(part, text) for part in _parts(text)]
    return lambda object_: all(test(object_["metadata"].get("labels") or {}) for test in tests)


def _requirement(part: str, text: str) -> Callable[[dict[str, str]], bool]:
    if found := _IN.match(part):
        key, operator, listed = found[1], found[2], {value.strip() for value in found[3].split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in listed
        return lambda labels: labels.get(key) not in listed
    if found := _EQUALS.match(part):
        key, operator, value = found[1], found[2], found[3]
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(part):
        absent, key = bool(found[1]), found[2]
        return lambda labels: (key in labels) is not absent
    raise ApiError.bad_request(f'unable to parse requirement: found "{part}" in "{text}"')


def field_selector(text: str, resource: Resource) -> Selector:
    """Return the field selector *text* for *resource*; 400 for a field that cannot be selected by."""
    tests: list[tuple[list[str], bool, str]] = []
    for part in _parts(text):
        found = _EQUALS.match(part)
        if found is None:
            raise ApiError.bad_request(f"invalid field selector: {text}")
        label = found[1]
        if resource.plural == "events" and resource.group:
            label = label.replace("regarding.", "involvedObject.", 1)
        if label not in {"metadata.name", "metadata.namespace", *resource.field_labels}:
            raise ApiError.bad_request(f"field label not supported: {found[1]}")
        tests.append((label.split("."), found[2] != "!=", found[3]))
    return lambda object_: all((_at(object_, steps) == value) is equal for steps, equal, value in tests)


def _at(object_: Any, steps: list[str]) -> str:
    for step in steps:
        object_ = object_.get(step) if isinstance(object_, dict) else None
    return "" if object_ is None else str(object_)


def _parts(text: str) -> list[str]:
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]
