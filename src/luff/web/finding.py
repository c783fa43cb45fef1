"""
One run, wherever it is known: among this server's jobs, in history, in the mesh.

A request's id and its run's own id lead to the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from luff.errors import StoreError
from luff.lifecycle import Phase
from luff.outcome import Outcome
from luff.samples import Samples
from luff.store import RunRequest, RunRow
from luff.web.access import Person
from luff.web.jobs import Event, Job, State
from luff.web.problems import Problem
from luff.web.service import Service
from luff.web.shapes import RunSummary, of_job, of_row

__all__ = ["PRUNED", "Found", "ended", "events", "find", "stop", "stored"]

PRUNED = "this run has ended, and was pruned from history since"


@dataclass(frozen=True, slots=True)
class Found:
    """This is what is known of one run; at least one of the three is there."""

    job: Job | None = None
    row: RunRow | None = None
    outcome: Outcome | None = None
    request: RunRequest | None = None

    @property
    def live(self) -> bool:
        """Return whether this server is at it, or will be."""
        return self.job is not None and self.job.state is not State.ENDED

    def summary(self) -> RunSummary:
        """Return it as the API shows it."""
        if self.job is not None:
            made = of_job(self.job)
        elif self.row is not None:
            made = of_row(self.row)
        else:
            assert self.request is not None
            # Which run it became is written down once that is in history.
            pruned = self.request.run is not None
            made = RunSummary(
                id=self.request.id,
                run=self.request.run,
                experiment=self.request.experiment,
                state="ended" if pruned else "lost",
                actor=self.request.actor,
                started_at=self.request.requested_at,
                explanation=PRUNED if pruned else "the server ended before this run began",
            )
        if self.outcome is not None:
            made = made.model_copy(update={"outcome": self.outcome.model_dump(mode="json", by_alias=True)})
        return made


async def find(service: Service, id_: str) -> Found:
    """Return the run with this id, its own or its request's; raises `Problem` when there is none."""
    job = service.jobs.get(id_)
    if job is not None:
        return Found(job=job, outcome=job.outcome)
    return await run_in_threadpool(stored, service, id_)


def stored(service: Service, id_: str) -> Found:
    """Return what the store has of the run with this id, its own or its request's; raises `Problem` when there is nothing. Blocks."""
    request = service.store.access.request(id_)
    run = id_ if request is None else request.run
    if run is not None:
        # Only whole ids: the beginning of one may mean another run tomorrow.
        try:
            row = service.store.run(run)
        except StoreError as error:
            if "no run" not in error.message and "beginning of several" not in error.message:
                raise
            row = None
        if row is not None and row.run == run:
            return Found(row=row, outcome=None if row.verdict is None else service.store.outcome(run), request=request)
    if request is not None:
        return Found(request=request)
    raise Problem("not_found", f"there is no run {id_[:63]!r}", next_step="see /api/v1/runs")


async def ended(service: Service, id_: str) -> tuple[Outcome, Samples | None]:
    """Return the outcome and samples of a run that has ended; raises `Problem` when it has not."""
    found = await find(service, id_)
    if found.outcome is None:
        raise Problem("conflict", "this run has no outcome, or not yet", next_step="watch its events")
    try:
        return found.outcome, await run_in_threadpool(service.store.samples, found.outcome.run)
    except StoreError:
        return found.outcome, None


async def events(found: Found, after: int) -> AsyncIterator[Event | None]:
    """Yield what happens, or happened, after event *after*; ``None`` when there is nothing new for a while."""
    if found.job is not None:
        async for event in found.job.watch(after):
            yield event
        return
    number = 0
    for entry in [] if found.outcome is None else found.outcome.timeline:
        number += 1
        if number > after:
            said = {"at": entry.at, "step": entry.phase, "note": entry.note or ""}
            yield Event(number, "step", json.dumps(said))
    summary = found.summary()
    said = {name: getattr(summary, name) for name in ("run", "verdict", "reason", "explanation", "phase")}
    if number + 1 > after:
        yield Event(number + 1, "outcome", json.dumps(said))


async def stop(service: Service, id_: str, person: Person) -> None:
    """Stop the run with this id wherever it runs; raises `Problem` when there is nothing to stop."""
    job = service.jobs.get(id_)
    if job is not None and job.state is not State.ENDED:
        service.jobs.stop(job, person.name)
        await service.audit_after(person, "run.stop", job.run or job.id, job.experiment.name)
        return
    run = id_ if job is None else job.run
    if job is None:
        try:
            found = await run_in_threadpool(stored, service, id_)
            run = found.row.run if found.row is not None else id_
            over = found.row is not None and found.row.phase is Phase.CLEAN
        except (Problem, StoreError):
            # Neither here nor in history: it may still be in the mesh.
            over = False
    else:
        over = True
    seen = await service.faults.look()
    if any(each.run == run for each in seen.faults):
        service.faults.stop_elsewhere(run or id_, who=person.name)
        await service.audit_after(person, "run.stop", run or id_)
        return
    if over:
        raise Problem("conflict", "this run has ended already")
    if seen.error is not None:
        raise Problem("mesh", f"it cannot be seen whether it is live: {seen.error}", next_step="run `luff stop`")
    raise Problem("not_found", f"no run {id_[:63]!r} is live", next_step="see /api/v1/faults")
