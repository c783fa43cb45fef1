"""The services of the fleet: one caller with the habit that ``HABIT`` names, and the backend that it asks."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from luff.lab.bookinfo.server import Answer, Client, Handler, Incoming, serve

__all__ = ["HABITS", "Habit", "backend", "caller"]

BACKEND = "stock"
BACKEND_TAKES_S = 0.03
"""The backend is not instant, so that a machine's own hiccups are small beside what is usual."""
PIECES = 7
ELSEWHERE = "/elsewhere"
"""What needs no backend, and yet a place in the pool."""
TENANT = "x-tenant"
"""Who is served: what a service keeps apart, it keeps apart by this header's part before the first dot."""

_FORWARDED = ("traceparent", "tracestate", "baggage", "x-request-id", "x-luff-run", TENANT)


@dataclass(frozen=True, slots=True)
class Habit:
    """
    This is how a caller treats what it depends on; as it stands here, well.

    One call waits *timeout_s* at most, all calls of a request *budget_s*. An
    error is tried again *pause_s* later, *attempts* times in all. The breaker
    opens after *opens_after* failed calls in a row, if ever, and tries one call
    every *probes_every_s*, if ever. *pool* is how many calls may be under way
    at once, and *pool_full* what becomes of the others after *pool_wait_s*.
    """

    timeout_s: float = 0.2
    budget_s: float = 0.2
    attempts: int = 3
    pause_s: float = 0.03
    forwards: tuple[str, ...] = _FORWARDED
    fallback: Mapping[str, Any] = field(default_factory=lambda: {"name": "lamp", "stock": "unknown"})
    fallback_status: int = 200
    fallback_takes_s: float = 0.0
    always_falls_back: bool = False
    opens_after: float = math.inf
    probes_every_s: float = 0.05
    open_status: int = 200
    limps_s: float = 0.0
    pool: int = 0
    pool_wait_s: float = 0.1
    pool_full: Literal["overflow", "refuse"] = "overflow"
    pool_per_tenant: bool = False


HABITS: dict[str, Habit] = {
    "healthy": Habit(),
    "healthy-breaker": Habit(opens_after=5),
    "healthy-pool": Habit(pool=4, pool_per_tenant=True),
    "no-timeout": Habit(timeout_s=60.0, budget_s=60.0),
    "timeout-too-long": Habit(timeout_s=0.7, budget_s=0.7),
    "retries-without-end": Habit(attempts=1_000_000, pause_s=0.1, budget_s=60.0),
    "retries-without-pause": Habit(attempts=12, pause_s=0.0),
    "breaker-never-opens": Habit(opens_after=math.inf),
    "breaker-never-closes": Habit(opens_after=945, probes_every_s=math.inf, open_status=503),
    "never-recovers": Habit(limps_s=0.3),
    "wrong-fallback": Habit(fallback={"name": "lamp", "stock": 0}),
    "half-an-answer": Habit(fallback={"stock": "unknown"}),
    "slow-fallback": Habit(fallback_takes_s=0.2),
    "fallback-without-need": Habit(always_falls_back=True),
    "error-status": Habit(fallback_status=503),
    "pool-makes-all-wait": Habit(pool=4),
    "pool-refuses-all": Habit(pool=4, pool_wait_s=0.0, pool_full="refuse"),
    "lost-header": Habit(forwards=("x-request-id",)),
}
"""Every service of the fleet by its name."""


@dataclass(slots=True)
class _Breaker:
    """This counts failed calls in a row, and lets none through while open but a probe now and then."""

    habit: Habit
    failed: int = 0
    probed_s: float = -math.inf

    @property
    def open(self) -> bool:
        return self.failed >= self.habit.opens_after

    def lets_through(self) -> bool:
        if not self.open:
            return True
        if time.monotonic() - self.probed_s < self.habit.probes_every_s:
            return False
        self.probed_s = time.monotonic()
        return True

    def note(self, *, ok: bool) -> None:
        self.failed = 0 if ok else self.failed + 1
        if not ok and self.failed == self.habit.opens_after:
            self.probed_s = time.monotonic()


class _Full(Exception):
    pass


@dataclass(slots=True)
class _Caller:
    """This is a caller at work. What went wrong is remembered by tenant."""

    habit: Habit
    url: str
    client: Client
    breakers: dict[str, _Breaker] = field(default_factory=dict)
    pools: dict[str, asyncio.Semaphore] = field(default_factory=dict)
    hurt: set[str] = field(default_factory=set)

    async def answer(self, incoming: Incoming) -> Answer:
        if incoming.path == "/health":
            return Answer(200, "healthy")
        habit = self.habit
        tenant = incoming.headers.get(TENANT, "").partition(".")[0]
        breaker = self.breakers.setdefault(tenant, _Breaker(habit))
        if not breaker.lets_through():
            return Answer(habit.open_status, habit.fallback)
        try:
            async with self._slot(tenant):
                pieces = await self._ask(incoming, breaker) if incoming.path != ELSEWHERE else PIECES
        except _Full:
            return Answer(503, {"error": "too busy"})
        if pieces is None:
            self.hurt.add(tenant)
            await asyncio.sleep(habit.fallback_takes_s)
        elif tenant in self.hurt:
            await asyncio.sleep(habit.limps_s)
        if pieces is None or habit.always_falls_back:
            return Answer(habit.fallback_status if pieces is None else 200, habit.fallback)
        return Answer(200, {"name": "lamp", "stock": pieces})

    async def _ask(self, incoming: Incoming, breaker: _Breaker) -> int | None:
        """Return how many pieces there are, or ``None``. What timed out is not asked again."""
        until_s = time.monotonic() + self.habit.budget_s
        headers = {name: incoming.headers[name] for name in self.habit.forwards if name in incoming.headers}
        for attempt in range(self.habit.attempts):
            if attempt:
                if breaker.open:
                    return None
                await asyncio.sleep(self.habit.pause_s)
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return None
            found = await self.client.get(self.url, headers, within_s=min(self.habit.timeout_s, left_s))
            ok = found is not None and found[0] == 200
            breaker.note(ok=ok)
            if found is None:
                return None
            if ok:
                return int(found[1]["pieces"])
        return None

    @asynccontextmanager
    async def _slot(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a place in the pool. Who waits too long gets one beyond it, or is refused."""
        if not self.habit.pool:
            yield
            return
        whose = tenant if self.habit.pool_per_tenant else ""
        pool = self.pools.setdefault(whose, asyncio.Semaphore(self.habit.pool))
        if pool.locked() and not self.habit.pool_wait_s:
            raise _Full
        try:
            async with asyncio.timeout(self.habit.pool_wait_s or None):
                await pool.acquire()
        except TimeoutError:
            if self.habit.pool_full == "refuse":
                raise _Full from None
            yield
            return
        try:
            yield
        finally:
            pool.release()


def caller(environment: Mapping[str, str]) -> Handler:
    """Return the service that ``HABIT`` names; it asks the backend at ``STOCK_URL``."""
    return _Caller(HABITS[environment["HABIT"]], f"{environment['STOCK_URL']}/pieces", Client()).answer


def backend() -> Handler:
    """Return the service that all others ask. It has no defect."""

    async def answer(incoming: Incoming) -> Answer:
        if incoming.path == "/health":
            return Answer(200, "healthy")
        await asyncio.sleep(BACKEND_TAKES_S)
        return Answer(200, {"pieces": PIECES})

    return answer


if __name__ == "__main__":
    asyncio.run(serve(backend() if os.environ["HABIT"] == BACKEND else caller(os.environ)))
