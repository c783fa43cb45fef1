"""
Seeing the twins on the way that luff's own requests take, where proxies cannot be looked into.

Where luff itself calls the broken hop, an answer says whether the twin took the
request. Requests in scope that are no samples tell so whether the way has the
twins, before traffic counts on it, and whether it has let go of them. Of the
proxies on other ways they say nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from luff.evidence import Sighting
from luff.routes import Injection

__all__ = ["FIRST_NUMBER", "PROBES", "Probes"]

PROBES = 14
"""Requests for one look: 95 % sure to meet each of up to five proxies that share the way evenly."""
FIRST_NUMBER = 1_000_000_000
"""Probes carry numbers past all samples."""
_WITH = "luff's own way"
_WITHOUT = "luff's own way, in part"
_OTHERS = "the proxies of other callers"


@dataclass(slots=True)
class Probes:
    """
    This is a `luff.evidence.DataPlane` by *send*.

    *send* makes the request of that number and returns whether a twin took it, ``None`` without an answer.
    """

    send: Callable[[int], Awaitable[bool | None]]
    _sent: int = 0

    async def look(self, injection: Injection) -> Sighting:
        """Return where the twins of *injection* are live, as far as `PROBES` requests tell."""
        numbers = range(FIRST_NUMBER + self._sent, FIRST_NUMBER + self._sent + PROBES)
        self._sent += PROBES
        answers = await asyncio.gather(*(self.send(number) for number in numbers))
        seen: dict[str, frozenset[str]] = {}
        if True in answers:
            seen[_WITH] = frozenset(injection.names)
        if False in answers:
            seen[_WITHOUT] = frozenset()
        silent = {_OTHERS, _WITH} if None in answers else {_OTHERS}
        return Sighting(frozenset(seen), seen, frozenset(silent))
