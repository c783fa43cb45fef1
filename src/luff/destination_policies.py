"""
Which DestinationRules a proxy goes by for a host, and what they say of a port and of a subset.

The rules are those of Istio's ``pilot/pkg/model/push_context.go`` and
``destination_rule.go``. Pure, and used both to configure the lab's proxies and
to say beforehand what a cluster's will do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from luff.hosts import matches, namespace_of, qualify
from luff.mesh_state import age, imported
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
        return {**_at_port(common, port), **_at_port(own, port)}


def rule_for(host: str, rules: Iterable[Object], *, caller: str, home: str) -> Rule:
    """
    Return what a proxy in the namespace *caller* goes by for *host*, a full name whose service is in *home*.

    The caller's namespace is looked in first, then the service's own, then the
    mesh's root; in each the most specific host counts.
    """
    every = list(rules)
    seen = imported(every, caller)
    for place in dict.fromkeys((caller, home, ROOT_NAMESPACE)):
        # What is in a namespace is always seen from there.
        found: dict[str, list[Object]] = {}
        for each in sorted(every if place == caller else seen, key=age):
            if namespace_of(each) == place and matches(_host(each), host):
                found.setdefault(_host(each), []).append(each)
        if found:
            return Rule(tuple(found[max(found, key=lambda own: (not own.startswith("*"), len(own)))]))
    return Rule()


def defines(rule: Object, host: str, subset: str) -> bool:
    """Return whether the DestinationRule *rule* is for *host*, a full name, and has *subset*."""
    return matches(_host(rule), host) and subset in Rule((rule,)).subsets


def _host(rule: Object) -> str:
    return qualify(str(rule["spec"].get("host") or ""), namespace_of(rule))


def _at_port(policy: Object, port: int | None) -> Object:
    """Return what *policy* says of *port*: its settings for the port alone, if there are any, or else all the others."""
    for each in policy.get("portLevelSettings") or []:
        if port is not None and (each.get("port") or {}).get("number") == port:
            return {key: value for key, value in each.items() if key != "port"}
    return {key: value for key, value in policy.items() if key != "portLevelSettings"}
