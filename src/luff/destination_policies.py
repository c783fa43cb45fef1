"""
Which DestinationRules a proxy goes by for a host, and what they say of a port and of a subset.

The rules are those of Istio's ``pilot/pkg/model/push_context.go`` and
``destination_rule.go``. Pure, and used both to configure the lab's proxies and
to say beforehand what a cluster's will do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from luff.crd import PORT_POLICY
from luff.hosts import EVERYBODY, OWN, exports_of, matches, namespace_of, qualify, visibility
from luff.mesh_state import age
from luff.words import Object

__all__ = ["Rule", "defines", "rule_for"]

ROOT_NAMESPACE = "istio-system"


@dataclass(frozen=True, slots=True)
class Rule:
    """This is what proxies go by for a host: *parts* are the DestinationRules that count as one, the oldest first."""

    parts: tuple[Object, ...] = ()

    @property
    def name(self) -> str:
        """Return what to call it."""
        names = [f"{namespace_of(each)}/{each['metadata']['name']}" for each in self.parts]
        return f"DestinationRule{'s' if names[1:] else ''} {', '.join(names)}"

    @property
    def subsets(self) -> dict[str, Object]:
        """Return the subsets by name; of two with one name the older counts."""
        found: dict[str, Object] = {}
        for part in self.parts:
            for subset in part["spec"].get("subsets") or []:
                found.setdefault(str(subset["name"]), subset)
        return found

    def policy(self, port: int | None, subset: str = "") -> Object:
        """Return the traffic policy for *port* of *subset*, empty where there is none; ``None`` is a port not named in it."""
        specs = [part["spec"] for part in self.parts]
        common: Object = next((spec["trafficPolicy"] for spec in specs if spec.get("trafficPolicy")), {})
        own: Object = self.subsets.get(subset, {}).get("trafficPolicy") or {}
        inherited, alone = _at_port(common, port), _for_port(own, port)
        if alone is None:
            return {**inherited, **_at_port(own, port)}
        # What a port could have for itself is not inherited where it has anything for itself.
        return {**{key: value for key, value in inherited.items() if key not in PORT_POLICY}, **alone}


def rule_for(host: str, rules: Iterable[Object], *, caller: str, home: str) -> Rule:
    """
    Return what a proxy in the namespace *caller* goes by for *host*, a full name whose service is in *home*.

    The caller's namespace is looked in first, where it is the mesh's root only for
    rules that are private to it; then the service's own, then the mesh's root. In
    each the most specific host counts, also when none of its rules is exported to
    the caller. Rules for one host that are kept apart are not put in line: the
    youngest counts.
    """
    every = sorted((each for each in rules if matches(_host(each), host)), key=age)
    mine = [each for each in every if namespace_of(each) == caller and visibility(each, caller) is not None]
    if caller == ROOT_NAMESPACE:
        mine = [each for each in mine if _is_private(each)]
    looked_at = [_closest(mine)]
    for place in (home, ROOT_NAMESPACE):
        exported = [each for each in every if namespace_of(each) == place and not _is_private(each)]
        looked_at.append([group for group in _closest(exported) if _is_exported(group[0], caller)])
    return Rule(tuple(next((groups[-1] for groups in looked_at if groups), ())))


def _closest(rules: list[Object]) -> list[list[Object]]:
    """
    Return those of *rules*, the oldest first, that have the most specific host, in groups that count as one.

    A rule is added to each older group that is exported to the same, or to a part
    of that; the group's exports stay those of its first. What the youngest group
    does not take is one more.
    """
    groups: list[list[Object]] = []
    closest = max(map(_host, rules), key=lambda own: (not own.startswith("*"), len(own)), default="")
    for rule in (each for each in rules if _host(each) == closest):
        to, taken = set(exports_of(rule)), False
        for group in groups:
            theirs = set(exports_of(group[0]))
            taken = to == theirs or (bool(theirs) and to > theirs)
            if taken:
                group.append(rule)
        if not taken:
            groups.append([rule])
    return groups


def _is_exported(rule: Object, caller: str) -> bool:
    to = exports_of(rule)
    return not to or EVERYBODY in to or caller in to


def _is_private(rule: Object) -> bool:
    to = set(exports_of(rule))
    return to in ({OWN}, {namespace_of(rule)})


def defines(rule: Object, host: str, subset: str) -> bool:
    """Return whether the DestinationRule *rule* is for *host*, a full name, and has *subset*."""
    return matches(_host(rule), host) and subset in Rule((rule,)).subsets


def _host(rule: Object) -> str:
    return qualify(str(rule["spec"].get("host") or ""), namespace_of(rule))


def _at_port(policy: Object, port: int | None) -> Object:
    """Return what *policy* says of *port*: its settings for the port alone, if there are any, or else all the others."""
    alone = _for_port(policy, port)
    return {key: value for key, value in policy.items() if key != "portLevelSettings"} if alone is None else alone


def _for_port(policy: Object, port: int | None) -> Object | None:
    for each in policy.get("portLevelSettings") or []:
        if port is not None and (each.get("port") or {}).get("number") == port:
            return {key: value for key, value in each.items() if key != "port"}
    return None
