"""
Routes that no request can reach, as istiod's analyzers see them (IST0130, IST0131).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from luff.words import Object

__all__ = ["unreachable"]


def unreachable(routes: list[Object], schema: Object) -> Iterator[str]:
    """Say which rules and matches, of *schema*, others hide (IST0130, IST0131), by the same rough rules as istiod."""
    seen: dict[str, str] = {}
    prefixes: list[tuple[str, str, Mapping[str, Any]]] = []
    without_match = False
    for number, route in enumerate(routes):
        called = json.dumps(route["name"]) if route.get("name") else f"#{number}"
        matches = route.get("match") or []
        if not matches:
            if without_match:
                yield f"virtualService rule {called} not used (only the last rule can have no matches)"
            without_match = True
        elif without_match:
            yield f"virtualService rule {called} not used (route without matches defined before)"
            continue
        doubles = 0
        for place, match in enumerate(matches):
            which = json.dumps(match["name"]) if match.get("name") else f"#{place}"
            text = json.dumps(_compared(match, schema, is_match=True), sort_keys=True)
            if text in seen:
                doubles += 1
                yield (
                    f"virtualService rule {called} match {which} is not used "
                    f"(duplicate/overlapping match in rule {seen[text]})"
                )
                continue
            seen[text] = called
            if (match.get("uri") or {}).get("prefix"):
                prefixes.append((called, which, _overlap(match)))
        if matches and doubles == len(matches):
            yield f"virtualService rule {called} not used (all matches used by prior rules)"
    yield from _overlapping(prefixes)


def _overlapping(prefixes: list[tuple[str, str, Mapping[str, Any]]]) -> Iterator[str]:
    # By prefix, so that thousands of routes need no comparison of each with each.
    before: dict[str, list[tuple[str, str, Mapping[str, Any]]]] = {}
    for called, which, other in prefixes:
        text = other["prefix"]
        for length in range(1, len(text)):
            for earlier, its, one in before.get(text[:length], ()):
                if _is_covered(one, other):
                    yield (
                        f"virtualService rule {called} match {which} of prefix {text} is not used "
                        f"(duplicate/overlapping match in rule {its} of prefix {one['prefix']} on {earlier})"
                    )
        before.setdefault(text, []).append((called, which, other))


def _compared(value: Any, schema: Any, *, is_match: bool = False) -> Any:
    """Return what istiod compares of a match: known fields only, without its name and without what is empty."""
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        known = schema.get("*", schema.get(key))
        if known is not None and not (is_match and (key == "name" or inner in ("", 0, [], False))):
            kept[key] = _compared(inner, known)
    empty = [key for key in ("headers", "withoutHeaders", "queryParams", "sourceLabels") if kept.get(key) == {}]
    return {key: inner for key, inner in kept.items() if not is_match or key not in empty}


def _overlap(match: Object) -> Mapping[str, Any]:
    def text(wanted: Object | None) -> str:
        # An expression counts as nothing.
        exact, prefix = (wanted or {}).get("exact"), (wanted or {}).get("prefix")
        return f"exact {exact}" if exact else f"prefix {prefix}" if prefix else ""

    maps = {
        key: {name: text(wanted) for name, wanted in (match.get(key) or {}).items()}
        for key in ("headers", "queryParams", "withoutHeaders")
    }
    method = text(match.get("method")) or "exact GET"
    plain = {"method": method, "authority": text(match.get("authority"))}
    return {"prefix": match["uri"]["prefix"], "port": match.get("port", 0), "plain": plain, **maps}


def _is_covered(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether *other*, with a longer prefix, comes too late after *one*; of two values, as istiod has it."""
    if one["port"] != other["port"]:
        return False
    return all(
        one[key].keys() == other[key].keys() and all(one[key][name].startswith(other[key][name]) for name in one[key])
        for key in ("plain", "headers", "queryParams", "withoutHeaders")
    )
