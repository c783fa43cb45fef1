"""
The server's life, without HTTP: what it holds, how it begins and how it ends.

It begins by taking out what a dead one left, and ends by stopping all that
runs; both with a bound. The calendar begins last and ends first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from luff.clock import Clock
from luff.errors import LuffError, RestoreNotVerified, RunAborted, StoreError
from luff.lever import SYSTEM_NAMESPACE, levers
from luff.lifecycle import Phase
from luff.lock import LEASE_S
from luff.mesh import command_on
from luff.metrics import Metrics
from luff.model import Experiment, GameDay, Verdict
from luff.notify import Channels
from luff.outcome import Outcome
from luff.report.trend import place_of
from luff.run import Options, World
from luff.store import RunFilter, Store
from luff.surroundings import Surroundings
from luff.web.access import Door, Person
from luff.web.calendar import Calendar
from luff.web.definitions import Definitions
from luff.web.faults import Faults
from luff.web.holding import Holder
from luff.web.jobs import Job, Jobs
from luff.web.problems import Problem
from luff.web.rails import Rails
from luff.web.telling import Teller
from luff.withdraw import restore_command

__all__ = ["Service"]

CLOSE_WITHIN_S = 60.0
STALE_S = 30.0
"""How old the newest look at the mesh may be for the server to be ready."""
LEASE_MARGIN_S = 3.0

_log = logging.getLogger("luff.web")


@dataclass
class Service:
    """
    This is the server.

    *local_user* is who asks where no token is needed, *open_* whether that may
    be; *needs_reaper* says that its guard ends when it does, so that no run may
    begin unless a reaper is at work. *metric* asks Prometheus before
    a game day begins; *calendar_clock* is the calendar's own where it is not
    the world's.
    """

    world: World
    store: Store
    definitions: Definitions
    rails: Rails
    local_user: str
    open_: bool
    needs_reaper: bool
    metric: Callable[[str], Awaitable[float | None]] | None = None
    calendar_clock: Clock | None = None
    channels: Channels = field(default_factory=Channels)
    metrics: Metrics = field(default_factory=Metrics)
    ready: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.door = Door(self.store.access, open_=self.open_, local_user=self.local_user)
        self.faults = Faults(self.world.mesh, self.world.clock, namespaces=self.namespaces, metrics=self.metrics)
        self.jobs = Jobs(
            self.world,
            self.store,
            options=Options(
                actor=self.local_user,
                namespace=self.rails.namespace,
                policy=self.rails.policy,
                needs_reaper=self.needs_reaper,
            ),
            ended=self._ended,
        )
        clock = self.calendar_clock or self.world.clock
        self.teller = Teller(self.store, self.channels, self.definitions.game_days, clock)
        self.calendar = Calendar(
            self.store,
            self.definitions.game_days,
            Holder(self.jobs, self.store, self.definitions.game_days, allowed=self.check_allowed).hold,
            surroundings=Surroundings(lever=self._pulled, metric=self.metric),
            clock=clock,
        )

    def namespaces(self) -> list[str]:
        """Return the namespaces that the definitions are about."""
        return sorted({self.rails.namespace_of(each) for each in self.experiments()})

    def experiments(self) -> Sequence[Experiment]:
        """Return every experiment, by name. Blocks on the disk when files have changed."""
        found = self.definitions.all()
        self.metrics.know(found)
        return [found[name] for name in sorted(found)]

    async def start(self) -> int:
        """Restore what a dead server left, begin to look after faults, and return how much was left."""
        await asyncio.to_thread(lambda: self._remember([each.name for each in self.experiments()]))
        left = await self._restore_leftovers()
        await self.faults.look()
        self._tasks = [asyncio.create_task(self.faults.keep_looking())]
        await self.calendar.start()
        self._tasks.append(asyncio.create_task(self.teller.keep_looking()))
        self.ready = True
        return left

    async def close(self, why: RunAborted) -> bool:
        """Start no more runs, stop and restore all, and return whether that was done in time."""
        self.ready = False
        # First, so that what a game day runs is seen to end with the server, not to fail.
        self.calendar.begin_stopping()
        ended = await self.jobs.close(why, within_s=CLOSE_WITHIN_S)
        await self.calendar.stop()
        await self.faults.settle(within_s=CLOSE_WITHIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Last: the routes are back, and how runs ended is news.
        await self.teller.close()
        return ended

    def not_ended(self) -> RestoreNotVerified:
        """Return what is to be said where `close` came back too early: runs go on, and who sees to their routes."""
        mesh = self.world.mesh
        going = [(job.ref, job.run) for job in self.jobs.running]
        commands = [f"`{restore_command(mesh, ref, run)}`" for ref, run in going if ref is not None and run is not None]
        look = f"look with `{command_on(mesh, 'status', namespace=None)}`"
        return RestoreNotVerified(
            "a run did not end in time; its guard restores it",
            next_step=f"{look}; if it is still there, run {' and '.join(commands)}" if commands else look,
        )

    def begin_closing(self, why: RunAborted) -> None:
        """Start no more runs and stop all, without waiting: who watches sees them end."""
        self.ready = False
        self.calendar.begin_stopping()
        self.jobs.closing = why
        self.jobs.stop_all(why)

    async def unready(self) -> str | None:
        """Return why the server is not ready, or ``None``."""
        if not self.ready:
            return "it is starting, or leaving"
        seen = self.faults.seen
        if self.world.clock.monotonic_s() - seen.looked_s > STALE_S:
            return f"the mesh was not seen for a while: {seen.error}"
        try:
            await asyncio.to_thread(self.store.access.any_tokens)
        except StoreError as error:
            return error.message
        return self.calendar.trouble()

    async def audit(self, person: Person, action: str, object_: str, note: str | None = None) -> None:
        """Write down what *person* does; raises `StoreError`, and then it must not be done."""
        await asyncio.to_thread(
            self.store.access.audit,
            action,
            object_,
            actor=person.name,
            role=person.role,
            address=person.address,
            note=note,
        )

    async def audit_after(self, person: Person, action: str, object_: str, note: str | None = None) -> None:
        """Write down what *person* did. A stop waits for no database, so it is only logged when that fails."""
        try:
            await self.audit(person, action, object_, note)
        except StoreError as error:
            _log.error("not in the audit: %s by %s on %s: %s", action, person.name, object_, error)

    async def _restore_leftovers(self) -> int:
        try:
            intents = await asyncio.to_thread(self.store.open_intents, self.world.identity)
        except StoreError as error:
            # Restoring never needs the store.
            _log.error("the journal cannot be read: %s", error)
            intents = []
        recorded = [each.intent for each in intents]
        until_s = self.world.clock.monotonic_s() + LEASE_S + LEASE_MARGIN_S
        left = 0
        while True:
            done = await self.faults.restore_leftovers(recorded)
            left += done.left
            for run in sorted(done.back):
                await self._settle(run)
            recorded = [each for each in recorded if each.run in done.may_be_live]
            # A Lease outlives its holder for a while; one that is still renewed then is another process's, and stays.
            if not recorded or self.world.clock.monotonic_s() > until_s:
                return left
            await self.world.clock.sleep(1.0)

    async def _settle(self, run: str) -> None:
        """Bring the journal of *run*, whose routes are proven back, to its end."""
        try:
            for phase in (Phase.WITHDRAWING, Phase.CLEAN):
                await self.world.journal.mark(run, phase, note="found when the server started")
        except (StoreError, ValueError) as error:
            _log.error("the journal of run %s cannot be brought to its end: %s", run, error)

    def _remember(self, experiments: Sequence[str]) -> None:
        """Let the metrics say what history has of *experiments* on this mesh."""
        try:
            for each in experiments:
                here = RunFilter(experiment=each, ended=True, mesh=self.world.identity)
                newest = self.store.runs(here, limit=1)
                proof = self.store.runs(replace(here, verdict=Verdict.PASSED), limit=1)
                self.metrics.remember(each, newest[0].verdict if newest else None, proof[0].ended_at if proof else None)
        except LuffError as error:
            _log.error("history cannot be read: %s", error)

    def _ended(self, outcome: Outcome) -> None:
        self.metrics.ended(outcome)
        self.teller.ended(outcome)

    def pushed(self, outcome: Outcome) -> None:
        """Count *outcome*, which another machine has brought and the store has now, if it is of this mesh. Blocks on the database."""
        here, there = self.world.identity, outcome.mesh
        if (here.kind, place_of(here.kind, here.name)) != (there.kind, place_of(there.kind, there.name)):
            return
        self.metrics.ended(outcome)
        # It may be older than what is known here.
        self._remember([outcome.experiment])

    async def start_run(
        self, person: Person, experiment: Experiment, idempotency_key: str | None
    ) -> tuple[str, Job | None]:
        """
        Start a run, or find the one that *person* has started with this key; returns the id that leads to it.

        The `Job` is ``None`` when it was found. Raises `Problem` when the run may not be, and `StoreError`.
        """
        if idempotency_key is None:
            await asyncio.to_thread(self.check_run, experiment)
        access = self.store.access
        asked, new = await asyncio.to_thread(
            access.request_run, experiment.name, actor=person.name, idempotency_key=idempotency_key
        )
        if not new:
            if asked.experiment != experiment.name:
                raise Problem("key_reused", f"this Idempotency-Key has started {asked.experiment}")
            return asked.id, None
        try:
            await asyncio.to_thread(self.check_run, experiment)
            await self.audit(person, "run.start", asked.id, experiment.name)
        except (Problem, StoreError):
            # It was refused: the same key may ask again.
            await asyncio.to_thread(access.withdraw_request, asked.id)
            raise
        return asked.id, await self.jobs.submit(experiment, asked)

    def check_run(self, experiment: Experiment) -> None:
        """Raise `Problem` when *experiment* may not run now."""
        self.jobs.check_open()
        if not self.ready:
            raise Problem("closing", "the server is starting, or leaving")
        self.check_allowed(experiment)

    def check_allowed(self, experiment: Experiment) -> None:
        """Raise `Problem` when the rails do not let *experiment* run now."""
        self.rails.check(experiment, self.experiments(), now=datetime.now(UTC))

    async def _pulled(self, game_day: GameDay) -> str | None:
        """Return which lever stops *game_day*, in words."""
        experiments = self.definitions.game_days.experiments(game_day)
        namespaces = sorted({self.rails.namespace_of(each) for each in experiments})
        pulled = await levers(self.world.mesh, [SYSTEM_NAMESPACE, *namespaces])
        return str(pulled[0]) if pulled else None
