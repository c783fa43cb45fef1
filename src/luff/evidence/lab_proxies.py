"""
What the lab's proxies run right now, from their own admin ports.

The configuration dump is the authority: a twin is live at a proxy when its
route is in there, and gone when it is not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import httpx

from luff.evidence import Sighting

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

    async def look(self, namespace: str, virtual_service: str, names: tuple[str, ...]) -> Sighting:
        """Return where the routes *names* of a VirtualService are live."""
        found = await asyncio.gather(*(self._routes(replica) for replica in self._admins))
        marker = f"/namespaces/{namespace}/virtual-service/{virtual_service}"
        concerned: set[str] = set()
        live: dict[str, frozenset[str]] = {}
        silent: set[str] = set()
        for replica, dump in zip(self._admins, found, strict=True):
            if dump is None:
                silent.add(replica)
                continue
            live[replica] = frozenset(name for name in names if _is_named(name, dump))
            if marker + '"' in dump or live[replica]:
                concerned.add(replica)
        return Sighting(frozenset(concerned), live, frozenset(silent))

    async def _routes(self, replica: str) -> str | None:
        try:
            answer = await self._client.get(
                f"http://{self._admins[replica]}/config_dump?resource=dynamic_route_configs"
            )
        except httpx.HTTPError:
            return None
        return json.dumps(answer.json()) if answer.status_code == httpx.codes.OK else None


def _is_named(name: str, dump: str) -> bool:
    """Return whether a route of *dump* is the twin *name*: a match may have a name after it, a delegate's root one before it."""
    return any(f"{before}{name}{after}" in dump for before in '"-' for after in '".')
