"""
How a game day is held: every experiment of its suites, by the same way as a request for one.

What must stay true:

1. Each experiment of an occurrence is started once at most, within the same rails as a request, and leaves a row in the
   audit.
2. An occurrence is good only if every experiment ran, came out as expected, and has its routes back.
3. Whoever is cancelled stops its runs, and comes back once they have put their routes back.
4. A game day leaves room in the queue for people.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from luff.errors import LuffError, RunAborted, StoreError
from luff.exit_codes import is_unrestored, standing
from luff.gameday_files import GameDays
from luff.model import Experiment, GameDay, Verdict
from luff.schedule import Held
from luff.store import RunRequest, Store
from luff.store.occurrences import Occurrence, Occurrences
from luff.web.jobs import Job, Jobs, State
from luff.web.problems import Problem

__all__ = ["Holder"]

AT_ONCE_MOST = 1
"""How many runs of one occurrence wait or run at once, as `luff gate` does it: callers that two share would feel both."""
STOP_WITHIN_S = 60.0
SAID_MOST = 10
_log = logging.getLogger("luff.web")


@dataclass(slots=True)
class _Part:
    """This is one experiment of an occurrence. *request* is ``None`` until it was asked for, *why_not* why it never was."""

    experiment: Experiment
    request: str | None = None
    job: Job | None = None
    why_not: str | None = None

    @property
    def id(self) -> str | None:
        """Return what leads to its run."""
        outcome = None if self.job is None else self.job.outcome
        return self.request if outcome is None else outcome.run


class Holder:
    """This holds occurrences with *jobs*. *allowed* raises `Problem` for an experiment that may not run now; it may block."""

    def __init__(
        self, jobs: Jobs, store: Store, definitions: GameDays, *, allowed: Callable[[Experiment], None]
    ) -> None:
        self._jobs = jobs
        self._access = store.access
        self._occurrences = Occurrences.of(store)
        self._definitions = definitions
        self._allowed = allowed

    async def hold(self, game_day: GameDay, occurrence: Occurrence) -> Held:
        """Run every experiment of *game_day*, and return how that went."""
        parts = [_Part(each) for each in self._definitions.experiments(game_day)]
        try:
            for part in parts:
                await self._jobs.until(lambda: not self._jobs.full and _open(parts) < AT_ONCE_MOST)
                await self._start(part, game_day, occurrence)
                await self._note(parts, occurrence)
            await self._jobs.until(lambda: not _open(parts))
        except BaseException as error:
            why = str(error) if isinstance(error, asyncio.CancelledError) else f"its game day cannot go on: {error}"
            await self._stop(parts, RunAborted("operator", why or "the game day was stopped"))
            await self._note(parts, occurrence)
            raise
        return _held(parts, game_day, datetime.now(UTC).date())

    async def _start(self, part: _Part, game_day: GameDay, occurrence: Occurrence) -> None:
        name, actor = part.experiment.name, f"game day {game_day.metadata.name}"

        def ask() -> RunRequest:
            self._allowed(part.experiment)
            asked, new = self._access.request_run(name, actor=actor, idempotency_key=f"{occurrence.id}/{name}")
            if not new:
                raise Problem("conflict", "this occurrence has started it before")
            try:
                self._access.audit("run.start", asked.id, actor=actor, note=name)
            except StoreError:
                self._access.withdraw_request(asked.id)
                raise
            return asked

        try:
            asked = await asyncio.to_thread(ask)
            part.request = asked.id
            part.job = await self._jobs.submit(part.experiment, asked)
        except Problem as error:
            part.why_not = error.detail
        except LuffError as error:
            part.why_not = error.message

    async def _stop(self, parts: Sequence[_Part], why: RunAborted) -> None:
        for part in parts:
            if part.job is None and part.request is not None:
                # It was cancelled while it was let in.
                part.job = self._jobs.get(part.request)
            if part.job is not None:
                self._jobs.abort(part.job, why)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._jobs.until(lambda: not _open(parts))
        except TimeoutError:
            _log.error("runs of a game day have not ended within %s s of being stopped", STOP_WITHIN_S)

    async def _note(self, parts: Sequence[_Part], occurrence: Occurrence) -> None:
        """Write down what was begun, for who looks meanwhile and for when this server dies."""
        runs = [id_ for part in parts if (id_ := part.id) is not None]
        try:
            await asyncio.to_thread(self._occurrences.ran, occurrence.id, who=occurrence.who or "", runs=runs)
        except StoreError as error:
            _log.error("the runs of occurrence %s are not written down: %s", occurrence.id, error)


def _open(parts: Sequence[_Part]) -> int:
    return sum(part.job is not None and part.job.state is not State.ENDED for part in parts)


def _held(parts: Sequence[_Part], game_day: GameDay, today: date) -> Held:
    against = [said for part in parts if (said := _against(part, game_day, today)) is not None]
    runs = tuple(id_ for part in parts if part.job is not None and part.job.outcome is not None and (id_ := part.id))
    if not against:
        return Held(good=True, said=_as_expected(parts), runs=runs)
    more = f"; and {len(against) - SAID_MOST} more" if len(against) > SAID_MOST else ""
    return Held(good=False, said="; ".join(against[:SAID_MOST]) + more, runs=runs)


def _against(part: _Part, game_day: GameDay, today: date) -> str | None:
    """Return why *part* is not as it was expected, or ``None``."""
    name, job = part.experiment.name, part.job
    outcome = None if job is None else job.outcome
    if outcome is None:
        why = part.why_not or (job and job.why_not) or "nobody knows why"
        if job is not None and job.run is not None:
            return f"{name} has no outcome, and a fault may still be live, run {job.run}: {why}"
        return f"{name} did not run: {why}"
    if is_unrestored(outcome):
        return f"{name}: a fault may still be live, run {outcome.run}"
    expected = game_day.spec.expected.get(name, Verdict.PASSED)
    known = standing(outcome, today=today)
    if expected is Verdict.PASSED:
        good = known.counts_as is Verdict.PASSED
    else:
        good = outcome.verdict is expected and outcome.reason != "isolation_breach"
    if good:
        return None
    reason = "" if outcome.reason is None else f" ({outcome.reason})"
    note = "" if known.note is None else f": {known.note}"
    return f"{name} is {outcome.verdict}{reason}, expected was {expected}{note}"


def _as_expected(parts: Sequence[_Part]) -> str:
    count = len(parts)
    others = sum(
        part.job is not None and part.job.outcome is not None and part.job.outcome.verdict is not Verdict.PASSED
        for part in parts
    )
    said = "1 experiment is" if count == 1 else f"all {count} experiments are"
    return f"{said} as expected" + (f", {others} of them not passed" if others else "")
