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
from dataclasses import dataclass
from typing import Any

from luff.decide import catches_all
from luff.hosts import namespace_of, qualify, qualify_gateway, visibility
from luff.names import http_routes
from luff.words import Object

__all__ = [
    "RootRoute",
    "conflict",
    "delegate_of",
    "match_in_full",
    "merge_match",
    "merged_route",
    "merged_routes",
    "root_routes",
]

_INHERITED = (
    "rewrite", "directResponse", "timeout", "retries", "fault", "mirror", "mirrorPercent", "mirrorPercentage",
    "mirrors", "corsPolicy", "headers",
)  # fmt: skip
_STRINGS = ("uri", "scheme", "method", "authority")
_MAPS = ("headers", "withoutHeaders", "queryParams")


@dataclass(frozen=True, slots=True)
class RootRoute:
    """This is a route that delegates: *root* is the object that has it, *route* is as it reads in any namespace."""

    root: Object
    route: Object

    @property
    def matches(self) -> list[Object]:
        """Return its matches; one empty match where it has none."""
        return self.route.get("match") or [{}]


def root_routes(leaf: Object, all_of_them: Sequence[Object]) -> tuple[RootRoute, ...]:
    """Return the routes among *all_of_them* through which proxies are given those of *leaf*; none where it has hosts."""
    if (leaf.get("spec") or {}).get("hosts"):
        return ()
    found = []
    for root in all_of_them:
        if not (root.get("spec") or {}).get("hosts"):
            continue
        namespace = namespace_of(root)
        for route in http_routes(root):
            if not isinstance(route, dict):
                continue
            delegate = route.get("delegate")
            if delegate is None and catches_all(route):
                break
            if delegate and not route.get("redirect") and _is_delegate(leaf, delegate, namespace):
                found.append(RootRoute(root, _resolved(route, namespace)))
    return tuple(found)


def merged_route(outer: RootRoute, leaf: Object, own: Object) -> Object | None:
    """Return what pilot makes of the route *own* of *leaf* below *outer*; ``None`` where it drops it."""
    return _merge(outer.route, _resolved(own, namespace_of(leaf)))


def delegate_of(route: Object, namespace: str) -> tuple[str, str]:
    """Return the namespace and the name of what *route*, of an object in *namespace*, delegates to."""
    delegate = route["delegate"]
    return str(delegate.get("namespace") or namespace), str(delegate.get("name"))


def merged_routes(virtual_service: Object, all_of_them: Sequence[Object]) -> list[Object]:
    """Return the http routes of *virtual_service* with every delegate among *all_of_them* put in its place."""
    namespace = namespace_of(virtual_service)
    found = []
    for route in http_routes(virtual_service):
        delegate = route.get("delegate")
        # An empty one is one as well, of nobody.
        if delegate is None:
            found.append(route)
            continue
        leaf = next((each for each in all_of_them if _is_delegate(each, delegate, namespace)), None)
        outer = RootRoute(virtual_service, _resolved(route, namespace))
        for own in [] if leaf is None else http_routes(leaf):
            merged = merged_route(outer, leaf or {}, own)
            if merged is not None:
                found.append(merged)
    return found


def _is_delegate(candidate: Object, delegate: Mapping[str, Any], namespace: str) -> bool:
    """Return whether *delegate*, written in *namespace*, names *candidate*, and istiod follows it there."""
    wanted = (delegate.get("namespace") or namespace, delegate.get("name"))
    where, spec = namespace_of(candidate), candidate.get("spec") or {}
    if (where, candidate["metadata"]["name"]) != wanted or spec.get("hosts"):
        return False
    return visibility(candidate, namespace) is not None


def _resolved(route: Object, namespace: str) -> Object:
    """Return a copy of *route* that means the same in any other namespace."""
    made = copy.deepcopy(route)
    mirrors = [each.get("destination") for each in made.get("mirrors") or []]
    for destination in (*(each.get("destination") for each in made.get("route") or []), made.get("mirror"), *mirrors):
        if isinstance(destination, dict) and destination.get("host"):
            destination["host"] = qualify(str(destination["host"]), namespace)
    if made.get("match"):
        made["match"] = [match_in_full(match or {}, namespace) for match in made["match"]]
    return made


def match_in_full(match: Object, namespace: str) -> Object:
    """Return *match*, of an object in *namespace*, with its gateways named so that they mean the same anywhere."""
    if not match.get("gateways"):
        return match
    return {**match, "gateways": [qualify_gateway(name, namespace) for name in match["gateways"]]}


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
        if merged.get(key) is None and root.get(key) is not None:
            merged[key] = copy.deepcopy(root[key])
    return merged


def _matches(root: list[Object], leaf: list[Object]) -> list[Object] | None:
    """Return every pair of matches that agree; ``None`` when one of the leaf's agrees with none of the root's."""
    if not root or not leaf:
        return copy.deepcopy(leaf or root)
    merged = []
    for own in (each or {} for each in leaf):
        agreeing = [outer or {} for outer in root if not conflict(outer or {}, own)]
        if not agreeing:
            return None
        merged += [merge_match(outer, own) for outer in agreeing]
    return merged


def merge_match(root: Object, leaf: Object) -> Object:
    """Return what holds where both *root* and *leaf* hold, as pilot puts the two together."""
    # To pilot an empty list, text or number is one that was not written; an empty StringMatch was.
    written = {key: value for key, value in leaf.items() if value or isinstance(value, dict)}
    merged = {**copy.deepcopy(root), **copy.deepcopy(written)}
    if root.get("name") and leaf.get("name"):
        merged["name"] = f"{root['name']}-{leaf['name']}"
    for key in (*_MAPS, "sourceLabels"):
        both = {**(root.get(key) or {}), **(leaf.get(key) or {})}
        if both:
            merged[key] = both
    return merged


def conflict(root: Object, leaf: Object) -> bool:
    """Return whether *leaf* does not narrow *root*, so that pilot does not put the two together."""
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
