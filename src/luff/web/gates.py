"""
A suite as a gate: go, stop, or wait until its runs are over.

What must stay true:

1. An answer never waits for a run, and never starts one that is under way or whose result still counts.
2. It is go only by `luff.gate.decide`, over an outcome for each experiment of the suite.
3. One experiment of a suite runs at a time, as `luff gate` does it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from luff.errors import LuffError
from luff.gate import decide, spec_sha256, why_no_proof
from luff.model import Experiment
from luff.outcome import Outcome
from luff.store import RunFilter
from luff.web import finding
from luff.web.access import Person
from luff.web.jobs import State
from luff.web.problems import Problem
from luff.web.service import Service

__all__ = ["Evaluation", "Gates"]

KEPT_MOST = 100


class GateRun(BaseModel):
    """This is the run that counts for one experiment."""

    experiment: str
    run: str
    verdict: str


class Evaluation(BaseModel):
    """
    This is what a gate says. *said* are sentences that say why.

    *waiting* are the experiments that are not over; *exit_code* is that of
    `luff gate`, ``null`` while it is wait.
    """

    suite: str
    decision: Literal["go", "stop", "wait"]
    exit_code: int | None = None
    said: list[str] = []
    waiting: list[str] = []
    runs: list[GateRun] = []


@dataclass(slots=True)
class _Seen:
    """This is how far a suite is: what has ended, what is under way, what nobody has asked for, and what never will end."""

    outcomes: list[Outcome] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    unasked: list[Experiment] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Asking:
    """This is one question: whose, about which suite, under which *key* if any, and how old a result may be."""

    person: Person
    suite: str
    key: str | None
    max_age_s: float

    def request(self, experiment: Experiment, now: datetime) -> str:
        """Return the Idempotency-Key of its run: one for the key, or one for each span of *max_age_s* and each change of its spec."""
        if self.key is not None:
            return f"gate/{self.suite}/{experiment.name}/key/{self.key}"
        span = int(now.timestamp() // max(1.0, self.max_age_s))
        return f"gate/{self.suite}/{experiment.name}/span/{span}/{spec_sha256(experiment)}"

    @property
    def name(self) -> str:
        """Return what it shares with the same question."""
        return f"{self.suite}/{self.key or ''}/{self.person.name if self.key is not None else ''}"


class Gates:
    """This evaluates suites of *service*'s definitions."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._running: dict[str, asyncio.Task[None]] = {}
        self._refused: OrderedDict[str, dict[str, str]] = OrderedDict()
        """Why experiments were not let in, by the name of the question, until it was said."""

    async def evaluate(self, suite: str, person: Person, *, key: str | None, max_age_s: float) -> Evaluation:
        """
        Say go, stop or wait, and start what has to run first.

        With *key* the runs of that key count, and no others; without one the
        newest of each experiment, if it is at most *max_age_s* old.
        """
        asking = _Asking(person, suite, key, max_age_s)
        experiments = await run_in_threadpool(self._experiments, suite)
        seen = await run_in_threadpool(self._look, asking, experiments)
        if not seen.waiting:
            # It is said now: who asks again lets it be tried again.
            self._refused.pop(asking.name, None)
        if seen.unasked and asking.name not in self._running:
            task = asyncio.create_task(self._run(asking, seen.unasked), name=f"luff-gate-{asking.name}")
            self._running[asking.name] = task
            task.add_done_callback(lambda _: self._running.pop(asking.name, None))
        return _said(suite, seen)

    async def newest(self, suite: str, person: Person, *, max_age_s: float) -> Evaluation:
        """Say go or stop by the newest results, and start nothing: what is too old or missing is no go."""
        asking = _Asking(person, suite, None, max_age_s)
        experiments = await run_in_threadpool(self._experiments, suite)

        def look() -> _Seen:
            seen = _Seen()
            for each in experiments:
                self._take_newest(seen, each, asking)
            return seen

        return _said(suite, await run_in_threadpool(look))

    def _experiments(self, suite: str) -> tuple[Experiment, ...]:
        self._service.definitions.all()
        found = self._service.definitions.game_days.suite(suite)
        if found is None:
            raise Problem("not_found", f"there is no suite {suite[:63]!r} in the definitions")
        return found

    def _look(self, asking: _Asking, experiments: Sequence[Experiment]) -> _Seen:
        seen = _Seen()
        under_way = {job.experiment.name for job in self._service.jobs if job.state is not State.ENDED}
        refused = self._refused.get(asking.name, {})
        for each in experiments:
            if asking.key is None and self._take_newest(seen, each, asking):
                continue
            missing = seen.missing.pop(each.name, None)
            if asking.key is None and each.name in under_way:
                seen.waiting.append(each.name)
            elif each.name in refused and asking.name not in self._running:
                seen.missing[each.name] = refused[each.name]
            else:
                self._take_asked(seen, each, asking, missing)
        return seen

    def _take_newest(self, seen: _Seen, experiment: Experiment, asking: _Asking) -> bool:
        """Take the newest outcome of *experiment* if it counts, else say why not; return whether it does."""
        service = self._service
        where = RunFilter(experiment=experiment.name, ended=True, mesh=service.world.identity)
        rows = service.store.runs(where, limit=1)
        outcome = service.store.outcome(rows[0].run) if rows else None
        why = why_no_proof(experiment, outcome, now=datetime.now(UTC), max_age_s=asking.max_age_s)
        if why is not None:
            seen.missing[experiment.name] = why
            return False
        assert outcome is not None
        seen.outcomes.append(outcome)
        return True

    def _take_asked(self, seen: _Seen, experiment: Experiment, asking: _Asking, missing: str | None) -> None:
        service, name = self._service, experiment.name
        key = asking.request(experiment, datetime.now(UTC))
        asked = service.store.access.requested(actor=asking.person.name, idempotency_key=key)
        if asked is None:
            seen.unasked.append(experiment)
            seen.waiting.append(name)
            return
        job = service.jobs.get(asked.id)
        outcome = None if job is None else job.outcome
        # A request is written down before it has a job: until then it is only seen by who asks for it.
        asked_for_now = job is None and asking.name in self._running
        if asked_for_now or (job is not None and job.state is not State.ENDED):
            seen.waiting.append(name)
        elif outcome is None and asked.run is None:
            seen.missing[name] = "the server ended before it was over" if job is None else str(job.why_not)
        elif missing is not None:
            seen.missing[name] = missing
        else:
            outcome = outcome or finding.stored(service, asked.id).outcome
            if outcome is None:
                seen.missing[name] = finding.PRUNED
            else:
                seen.outcomes.append(outcome)

    async def _run(self, asking: _Asking, experiments: Sequence[Experiment]) -> None:
        refused: dict[str, str] = {}
        jobs = self._service.jobs
        for experiment in experiments:
            key = asking.request(experiment, datetime.now(UTC))
            await jobs.until(lambda: not jobs.full)
            try:
                _, job = await self._service.start_run(asking.person, experiment, key)
            except Problem as error:
                refused[experiment.name] = error.detail
            except LuffError as error:
                refused[experiment.name] = error.message
            else:
                await jobs.until(lambda job=job: job is None or job.state is State.ENDED)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        self._refused[asking.name] = refused
        while len(self._refused) > KEPT_MOST:
            self._refused.popitem(last=False)


def _said(suite: str, seen: _Seen) -> Evaluation:
    runs = [GateRun(experiment=each.experiment, run=each.run, verdict=str(each.verdict)) for each in seen.outcomes]
    if seen.waiting:
        return Evaluation(suite=suite, decision="wait", waiting=seen.waiting, runs=runs)
    decided = decide(seen.outcomes, today=datetime.now(UTC).date(), missing=seen.missing)
    return Evaluation(
        suite=suite,
        decision="go" if decided.go else "stop",
        exit_code=decided.exit_code,
        said=list(decided.said),
        runs=runs,
    )
