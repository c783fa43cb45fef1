"""
Which VirtualService a sidecar uses for a host: it uses one, and does not even look at the others.

The most exact host wins, then who is exported to few before who is exported to
all, then the oldest. Among those that name the host itself, one that makes no
HTTP route for a proxy does not count there: the next of them is used. A wildcard
is looked at only where nobody names the host, and then the first in line alone.
Where nothing is left, the service has its plain route.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from luff.hosts import MESH, matches, namespace_of, qualify, visibility
from luff.names import http_routes
from luff.words import Object

__all__ = ["Coverage", "coverage", "hosts_of", "key_of", "on_mesh", "ports_of", "service_host", "standing"]

Coverage = Literal["everybody", "some", "nobody"]
"""For which sidecars a VirtualService makes HTTP routes, as far as that can be told."""


def key_of(virtual_service: Object) -> tuple[str, str]:
    """Return the namespace and the name of *virtual_service*."""
    return namespace_of(virtual_service), str((virtual_service.get("metadata") or {}).get("name", ""))


def standing(virtual_service: Object, host: str, caller: str) -> tuple[int, int, str, str, str] | None:
    """Return the place of *virtual_service* in line for *host* as seen from *caller*, the smallest wins; ``None`` if not in line."""
    fits = [own for own in hosts_of(virtual_service) if (own == host if host.startswith("*") else matches(own, host))]
    seen = visibility(virtual_service, caller)
    if not fits or seen is None:
        return None
    namespace, name = key_of(virtual_service)
    # An exact name, then the longest wildcard, wins whatever its age.
    closest = min(0 if not own.startswith("*") else 1_000 - len(own) for own in fits)
    return closest, seen, str((virtual_service.get("metadata") or {}).get("creationTimestamp") or ""), name, namespace


def _spec(virtual_service: Object) -> Object:
    return virtual_service.get("spec") or {}


def hosts_of(virtual_service: Object) -> list[str]:
    """Return the full names of the hosts that *virtual_service* claims, in lower case; none for a delegate."""
    namespace = key_of(virtual_service)[0]
    return [qualify(str(host), namespace).lower() for host in _spec(virtual_service).get("hosts") or []]


def on_mesh(virtual_service: Object) -> bool:
    """Return whether *virtual_service* is for sidecars."""
    gateways = _spec(virtual_service).get("gateways")
    return not gateways or MESH in gateways


def service_host(service: Object) -> str:
    """Return the full name of *service*, in lower case."""
    return qualify(str((service.get("metadata") or {}).get("name", "")), namespace_of(service)).lower()


def ports_of(hosts: Collection[str], services: Iterable[Object]) -> set[int]:
    """Return the ports of those *services* whose full names are among *hosts*; empty when they are not known."""
    return {
        int(port["port"])
        for service in services
        if service_host(service) in hosts
        for port in (service.get("spec") or {}).get("ports") or []
        if port.get("port")
    }


def coverage(virtual_service: Object, *, ports: Collection[int], labels: Mapping[str, str]) -> Coverage:
    """
    Return for which sidecars *virtual_service* makes HTTP routes.

    *ports* are those that callers call, empty when they are not known; *labels*
    are what is known of the callers' labels.
    """
    found: Coverage = "nobody"
    for route in http_routes(virtual_service):
        matches_of_it = (route.get("match") or [{}]) if isinstance(route, dict) else []
        for match in matches_of_it:
            one = _match_coverage(match or {}, ports, labels)
            if one == "everybody":
                return one
            found = found if one == "nobody" else one
    return found


def _match_coverage(match: Any, ports: Collection[int], labels: Mapping[str, str]) -> Coverage:
    if not isinstance(match, dict):
        return "everybody"
    port = match.get("port")
    if port and ports and port not in ports:
        return "nobody"
    wanted, namespace = match.get("sourceLabels") or {}, match.get("sourceNamespace")
    if match.get("gateways"):
        # Where gateways are named, Istio does not look at the callers.
        wanted, namespace = {}, None
        if MESH not in match["gateways"]:
            return "nobody"
    if any(labels.get(name, value) != value for name, value in wanted.items()):
        return "nobody"
    limited = namespace or wanted.keys() - labels.keys() or (port and len(ports) != 1)
    return "some" if limited else "everybody"
