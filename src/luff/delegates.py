"""
Delegate VirtualServices, merged into their roots as pilot merges them.

One level only. A delegate's own fields win, each as a whole, the root's fill
in. A match of the delegate must narrow one of the root's; where it cannot,
pilot drops the whole route with a line in its log, and so does this. What a
delegate names is read in the delegate's own namespace.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from luff.hosts import qualify, qualify_gateway
from luff.names import http_routes
from luff.words import Object

__all__ = ["merged_routes"]

_INHERITED = (
    "rewrite", "directResponse", "timeout", "retries", "fault", "mirror", "mirrorPercent", "mirrorPercentage",
    "mirrors", "corsPolicy", "headers",
)  # fmt: skip
_STRINGS = ("uri", "scheme", "method", "authority")
_MAPS = ("headers", "withoutHeaders", "queryParams")


def merged_routes(virtual_service: Object, all_of_them: Sequence[Object]) -> list[Object]:
    """Return the http routes of *virtual_service* with every delegate among *all_of_them* put in its place."""
    namespace = virtual_service["metadata"].get("namespace", "default")
    found = []
    for route in http_routes(virtual_service):
        delegate = route.get("delegate")
        if not delegate:
            found.append(route)
            continue
        leaf = _leaf(delegate, namespace, all_of_them)
        if leaf is None:
            continue
        for own in http_routes(leaf):
            outer = _resolved(route, namespace)
            merged = _merge(outer, _resolved(own, leaf["metadata"].get("namespace", "default")))
            if merged is not None:
                found.append(merged)
    return found


def _leaf(delegate: Mapping[str, Any], namespace: str, all_of_them: Sequence[Object]) -> Object | None:
    wanted = (delegate.get("namespace") or namespace, delegate.get("name"))
    for candidate in all_of_them:
        where = (candidate["metadata"].get("namespace", "default"), candidate["metadata"]["name"])
        if where == wanted and not candidate.get("spec", {}).get("hosts"):
            exported = candidate["spec"].get("exportTo") or ["*"]
            return candidate if _visible(exported, where[0], namespace) else None
    return None


def _visible(exported: Sequence[str], own: str, other: str) -> bool:
    return "*" in exported or other in exported or (own == other and "." in exported)


def _resolved(route: Object, namespace: str) -> Object:
    """Return a copy of *route* that means the same in any other namespace."""
    made = copy.deepcopy(route)
    mirrors = [each.get("destination") for each in made.get("mirrors") or []]
    for destination in (*(each.get("destination") for each in made.get("route") or []), made.get("mirror"), *mirrors):
        if isinstance(destination, dict) and destination.get("host"):
            destination["host"] = qualify(str(destination["host"]), namespace)
    for match in made.get("match") or []:
        if isinstance(match, dict) and match.get("gateways"):
            match["gateways"] = [qualify_gateway(name, namespace) for name in match["gateways"]]
    return made


def _merge(root: Object, leaf: Object) -> Object | None:
    merged = copy.deepcopy(leaf)
    merged.pop("delegate", None)
    if root.get("name") and leaf.get("name"):
        merged["name"] = f"{root['name']}-{leaf['name']}"
    elif root.get("name"):
        merged["name"] = root["name"]
    matches = _matches(root.get("match") or [], leaf.get("match") or [])
    if matches is None:
        return None
    if matches:
        merged["match"] = matches
    for key in _INHERITED:
        if key not in merged and key in root:
            merged[key] = copy.deepcopy(root[key])
    return merged


def _matches(root: list[Object], leaf: list[Object]) -> list[Object] | None:
    """Return every pair of matches that agree; ``None`` when one of the leaf's agrees with none of the root's."""
    if not root or not leaf:
        return copy.deepcopy(leaf or root)
    merged = []
    for own in leaf:
        agreeing = [outer for outer in root if not _conflict(outer, own)]
        if not agreeing:
            return None
        merged += [_merge_match(outer, own) for outer in agreeing]
    return merged


def _merge_match(root: Object, leaf: Object) -> Object:
    merged = {**copy.deepcopy(root), **copy.deepcopy(leaf)}
    if root.get("name") and leaf.get("name"):
        merged["name"] = f"{root['name']}-{leaf['name']}"
    for key in (*_MAPS, "sourceLabels"):
        both = {**(root.get(key) or {}), **(leaf.get(key) or {})}
        if both:
            merged[key] = both
    return merged


def _conflict(root: Object, leaf: Object) -> bool:
    if any(_strings_conflict(root.get(key), leaf.get(key)) for key in _STRINGS):
        return True
    for key in _MAPS:
        outer = root.get(key) or {}
        if any(_strings_conflict(outer.get(name), wanted) for name, wanted in (leaf.get(key) or {}).items()):
            return True
    if bool(root.get("ignoreUriCase")) != bool(leaf.get("ignoreUriCase")):
        return True
    if root.get("port") and leaf.get("port") and root["port"] != leaf["port"]:
        return True
    labels = root.get("sourceLabels") or {}
    if any(labels.get(name, value) != value for name, value in (leaf.get("sourceLabels") or {}).items()):
        return True
    # As pilot: a delegate that says no namespace conflicts with a root that does.
    if root.get("sourceNamespace") and leaf.get("sourceNamespace") != root["sourceNamespace"]:
        return True
    gateways = root.get("gateways") or []
    return bool(gateways) and any(name not in gateways for name in leaf.get("gateways") or [])


def _strings_conflict(root: Any, leaf: Any) -> bool:
    if root is None or leaf is None:
        return False
    if root.get("exact"):
        return bool(root["exact"] != leaf.get("exact"))
    wanted = leaf.get("prefix") or leaf.get("exact")
    # Where either only asks that something is there, or is a regular expression, pilot does not compare further.
    return not (root.get("prefix") and wanted and str(wanted).startswith(root["prefix"]))
