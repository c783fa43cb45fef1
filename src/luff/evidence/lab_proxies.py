"""
What the lab's proxies run right now, from their own admin ports.

The configuration dump is the authority: a twin is live at a proxy when its
route is in there, and gone when it is not. A proxy should have one when it has
a route of the same object that leads where a twin does: that is the original.
Of a delegate proxies know its roots alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from luff.evidence import Sighting
from luff.names import find_name
from luff.routes import Injection, Way
from luff.words import Object

__all__ = ["LabProxies"]

ANSWER_WITHIN_S = 3.0


class LabProxies:
    """This asks the Envoys at *admins* (replica to ``HOST:PORT``)."""

    def __init__(self, admins: Mapping[str, str]) -> None:
        self._admins = dict(admins)
        # trust_env: a proxy named in the environment has no business between us and loopback.
        self._client = httpx.AsyncClient(timeout=ANSWER_WITHIN_S, trust_env=False)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def look(self, injection: Injection) -> Sighting:
        """Return where the twins of *injection* are live."""
        found = await asyncio.gather(*(self._routes(replica) for replica in self._admins))
        names, ways = frozenset(injection.names), injection.ways
        concerned: set[str] = set()
        live: dict[str, frozenset[str]] = {}
        for replica, routes in zip(self._admins, found, strict=True):
            if routes is None:
                continue
            live[replica] = names & {str(find_name(str(route.get("name") or ""))) for route in routes}
            if live[replica] or any(_is_of(route, injection) and _way(route) in ways for route in routes):
                concerned.add(replica)
        return Sighting(frozenset(concerned), live, frozenset(self._admins) - live.keys())

    async def _routes(self, replica: str) -> list[Object] | None:
        """Return every route that *replica* has, ``None`` when it does not say."""
        try:
            answer = await self._client.get(
                f"http://{self._admins[replica]}/config_dump?resource=dynamic_route_configs"
            )
            return list(_routes_in(answer.json())) if answer.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, ValueError):
            return None


def _routes_in(dump: Any) -> Iterator[Object]:
    for inner in dump.values() if isinstance(dump, dict) else dump if isinstance(dump, list) else ():
        yield from _routes_in(inner)
    if isinstance(dump, dict):
        yield from (route for route in dump.get("routes") or () if isinstance(route, dict))


def _is_of(route: Object, injection: Injection) -> bool:
    """Return whether *route* was made of an object that carries the twins."""
    config = ((route.get("metadata") or {}).get("filter_metadata") or {}).get("istio", {}).get("config", "")
    return any(str(config).endswith(f"/namespaces/{ns}/virtual-service/{name}") for ns, name in injection.carriers)


def _way(route: Object) -> Way:
    action = route.get("route") or {}
    weighted = (action.get("weighted_clusters") or {}).get("clusters") or []
    clusters = [action.get("cluster"), *(each.get("name") for each in weighted)]
    parts = [str(cluster).split("|") for cluster in clusters if cluster]
    return frozenset((part[-1], part[2]) for part in parts if len(part) == 4)
