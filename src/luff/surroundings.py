"""
What is asked before a game day begins: the lever, and metrics.

What is left out cannot be asked, and what cannot be asked speaks against it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from luff.errors import LuffError
from luff.model import GameDay
from luff.prometheus import highest, query_url

__all__ = ["Surroundings", "prometheus"]

_ANSWERED = 200


async def _off(_: GameDay) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    This is what is asked before a game day begins.

    *lever* returns which lever is on, as a sentence, or ``None``; *metric* the
    value of a query, ``None`` when it selects nothing. What is left out cannot
    be asked. Each may raise.
    """

    lever: Callable[[GameDay], Awaitable[str | None]] = _off
    metric: Callable[[str], Awaitable[float | None]] | None = None


def prometheus(url: str, client: httpx.AsyncClient) -> Callable[[str], Awaitable[float | None]]:
    """Return a *metric* that asks the Prometheus at *url* and answers with the highest value."""

    async def value(query: str) -> float | None:
        answer = await client.get(query_url(url), params={"query": query})
        if answer.status_code != _ANSWERED:
            raise LuffError(f"Prometheus answers {answer.status_code}")
        try:
            return highest(answer.json())
        except (ValueError, LookupError, TypeError) as error:
            raise LuffError("Prometheus answers something else than a result") from error

    return value
