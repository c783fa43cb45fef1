"""
One run under way: what it needs from outside, and what its steps hand on to one another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from luff.clock import Clock
from luff.errors import RestoreNotVerified, RunAborted
from luff.evidence import DataPlane, Source
from luff.inject import Hands, Live, Watcher
from luff.lever import Record as LeverRecord
from luff.lifecycle import Journal
from luff.mesh import Mesh
from luff.model import Experiment, PolicySpec
from luff.model import Phase as Part
from luff.outcome import Context, MeshIdentity
from luff.plan import Plan
from luff.record import Record
from luff.tallies import Judge
from luff.targeting import MeshView
from luff.traffic.crew import Spread
from luff.traffic.driver import Driver
from luff.verdicts import Situation

__all__ = ["POLL_EVERY_S", "Options", "Progress", "Run", "Stopper", "World"]

POLL_EVERY_S = 0.1
"""How often a waiting step looks whether it is over."""

_log = logging.getLogger("luff.run")


def _to_the_log(trace: str) -> str:
    _log.error("luff made a mistake:\n%s", trace)
    return "luff's log"


async def _alone(_plan: Plan) -> None:
    """Let this process send everything."""


class Progress(Protocol):
    """This is who is told how a run goes, for people to watch."""

    def step(self, name: str, note: str = "") -> None:
        """Say that the run is now at *name*."""

    def traffic(self, driver: Driver, *, phase: Part, most_s: float) -> None:
        """Show the traffic, several times a second."""


@dataclass(frozen=True, slots=True)
class World:
    """
    This is everything outside that a run needs, chosen by whoever starts it.

    *source* makes the evidence source for a plan and the samples' zero on the
    monotonic clock; *transport* the way out, and *spread* who else is to send
    over it, ``None`` where this process does alone; *plane* is ``None`` where proxies
    cannot be seen; *probes* makes one of requests over that way out, where those can see; *watcher_died* comes back when nobody guards any more;
    *begin* is told of a run that is about to touch something; *keep_traceback*
    keeps the trace of a mistake of luff's own and says where; *levers* is the
    store's half of the levers, ``None`` where there is no store; *in_lab* says
    that this is a lab's API, also where it is gone to as to a cluster.
    """

    mesh: Mesh
    identity: MeshIdentity
    journal: Journal
    watcher: Watcher
    watcher_died: Callable[[], Coroutine[Any, Any, int]]
    clock: Clock
    transport: Callable[[Experiment], httpx.AsyncBaseTransport]
    source: Callable[[Plan, float], Source]
    plane: DataPlane | None
    spread: Callable[[Plan], Awaitable[Spread | None]] = _alone
    probes: Callable[[Plan, httpx.AsyncBaseTransport], DataPlane | None] = lambda _plan, _transport: None
    begin: Callable[[Record], Awaitable[None]] | None = None
    keep_traceback: Callable[[str], str] = _to_the_log
    levers: LeverRecord | None = None
    in_lab: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """
    This is what the person who starts a run decides.

    *namespace* is used where the experiment names none; *needs_reaper* says
    that the guard may not outlive us, so that somebody else must be there; *run*
    is the run id to use (16 hex digits), made here unless given; *policy* says
    where, when and how far runs may go.
    """

    actor: str
    namespace: str | None = None
    seed: int | None = None
    context: Context = field(default_factory=Context)
    needs_reaper: bool = False
    run: str | None = None
    policy: PolicySpec | None = None


@dataclass(slots=True)
class Stopper:
    """This ends the story once, and remembers why. It is what a signal, the lever, a lost lock or a tripwire calls."""

    task: asyncio.Task[None] | None = None
    reason: RunAborted | None = None

    def __call__(self, reason: RunAborted) -> None:
        if self.reason is None:
            self.reason = reason
            if self.task is not None:
                self.task.cancel()


@dataclass(slots=True)
class Run:
    """This is one run under way: what its steps hand on to one another."""

    experiment: Experiment
    world: World
    options: Options
    progress: Progress
    record: Record
    rng: random.Random
    stop: Stopper
    situation: Situation = field(default_factory=Situation)
    live: Live = field(default_factory=Live)
    plan: Plan | None = None
    view: MeshView | None = None
    judge: Judge | None = None
    source: Source | None = None
    plane: DataPlane | None = None
    stale: RestoreNotVerified | None = None
    aside: list[tuple[str, asyncio.Task[None]]] = field(default_factory=list)

    @property
    def unrestored(self) -> RestoreNotVerified | None:
        """Return what says that a fault may still be live, in the API or in the proxies; ``None`` when nothing does."""
        return self.live.stranded or self.stale

    @property
    def hands(self) -> Hands:
        """Return what carries out the injection."""
        world = self.world
        return Hands(world.mesh, world.journal, world.watcher, world.clock, say=self.step)

    def redacted(self, text: str) -> str:
        """Return *text* without the scope's secret."""
        return text if self.plan is None else self.plan.stamp.scope.redact(text)

    def mind(self, warning: str) -> None:
        """Write down what a reader of the outcome should know."""
        self.record.step(self.world.clock.now_s(), "mind", self.redacted(warning))

    def step(self, name: str, note: str = "") -> None:
        """Say where the run is, in its record and to who watches."""
        self.record.step(self.world.clock.now_s(), name, note or None)
        # Who watches may have left (`luff run 2>&1 | head`); the run goes on without them.
        with contextlib.suppress(OSError, ValueError):
            self.progress.step(name, note)

    def beside(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Let *work* be done beside the run, which it neither delays nor fails."""
        self.aside.append((what, asyncio.create_task(work)))
