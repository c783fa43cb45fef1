"""
Conditions that stop a run early, read from outside: a Prometheus query, an HTTP check.

The control arm's own tripwire is not here; `luff.checks.Judge` watches it. One
that cannot be read stops the run as well: a run must not be watched by nobody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx

from luff.clock import Clock
from luff.errors import RunAborted, UsageError
from luff.model import Experiment, HttpTripwire, PrometheusTripwire
from luff.predicates import status_in
from luff.prometheus import highest, query_url

__all__ = ["check_tripwires", "tripwires"]

LOOK_EVERY_S = 2.0
ANSWER_WITHIN_S = 5.0
MISSED_MOST = 3
"""How many looks in a row may go wrong before that is a reason to stop."""
UNREADABLE = (
    httpx.HTTPError,
    httpx.InvalidURL,
    TimeoutError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    RecursionError,
)


def tripwires(
    experiment: Experiment,
    clock: Clock,
    stop: Callable[[RunAborted], None],
    *,
    answer_within_s: float = ANSWER_WITHIN_S,
) -> list[Coroutine[Any, Any, None]]:
    """
    Return the work of watching *experiment*'s tripwires, each until cancelled.

    *stop* is called once by each at most. A look that has no whole answer
    within *answer_within_s* went wrong.
    """
    made: list[Coroutine[Any, Any, None]] = []
    for tripwire in experiment.spec.abort_on:
        if isinstance(tripwire, PrometheusTripwire):
            made.append(_prometheus(tripwire, _prometheus_url(), _Watch(clock, stop, answer_within_s)))
        elif isinstance(tripwire, HttpTripwire):
            made.append(_http(tripwire, _Watch(clock, stop, answer_within_s)))
    return made


def check_tripwires(experiment: Experiment) -> None:
    """Raise `UsageError` when a tripwire of *experiment* could not be watched here."""
    if any(isinstance(tripwire, PrometheusTripwire) for tripwire in experiment.spec.abort_on):
        _prometheus_url()


def _prometheus_url() -> str:
    url = os.environ.get("LUFF_PROMETHEUS_URL")
    if not url:
        raise UsageError(
            "abortOn has a Prometheus query, and there is no Prometheus", next_step="set LUFF_PROMETHEUS_URL"
        )
    return query_url(url)


@dataclass(frozen=True, slots=True)
class _Watch:
    """This is what all tripwires of a run have in common."""

    clock: Clock
    stop: Callable[[RunAborted], None]
    answer_within_s: float


async def _prometheus(tripwire: PrometheusTripwire, url: str, watch: _Watch) -> None:
    above_since_s: float | None = None

    async def look(client: httpx.AsyncClient) -> str | None:
        nonlocal above_since_s
        answer = await client.get(url, params={"query": tripwire.query})
        if not answer.is_success:
            # Not by httpx, whose words have the whole URL, with the password that may be in it.
            raise ValueError(f"Prometheus answers {answer.status_code}")
        value = highest(answer.json())
        if value is None or value <= tripwire.above:
            above_since_s = None
            return None
        now_s = watch.clock.monotonic_s()
        above_since_s = now_s if above_since_s is None else above_since_s
        return f"{tripwire.query} is {value:g}" if now_s - above_since_s >= tripwire.for_s else None

    await _watch(look, tripwire.query, watch)


async def _http(tripwire: HttpTripwire, watch: _Watch) -> None:
    async def look(client: httpx.AsyncClient) -> str | None:
        answer = await client.get(tripwire.url)
        good = status_in(answer.status_code, tripwire.status)
        return None if good else f"{tripwire.url} answers {answer.status_code}"

    await _watch(look, tripwire.url, watch)


async def _watch(
    look: Callable[[httpx.AsyncClient], Coroutine[Any, Any, str | None]], name: str, watch: _Watch
) -> None:
    missed = 0
    # The limit is on the whole of a look: an answer that drips for ever is none.
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113
        while True:
            try:
                async with asyncio.timeout(watch.answer_within_s):
                    tripped = await look(client)
                missed = 0
            except UNREADABLE as error:
                missed += 1
                tripped = None
                if missed >= MISSED_MOST:
                    tripped = f"{name} could not be read {missed} times in a row: {error!r}"
            if tripped is not None:
                watch.stop(RunAborted("tripwire", tripped))
                return
            await watch.clock.sleep(LOOK_EVERY_S)
