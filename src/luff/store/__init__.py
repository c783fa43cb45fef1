"""
The store: every run, its outcome and samples, and the journal of what was done to the routes.

Restoring never needs it. What must stay true is said where it is kept: the
layout in `luff.store.tables`, transactions in `luff.store.engine`, migrations
in `luff.store.migrate`, phases in `luff.store.journal`. Everything here is
synchronous and may be called from several threads; only the journal and the
levers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from luff.lifecycle import Journal
from luff.samples import Samples
from luff.store import history, journal, retention, runs
from luff.store.access import Access, Actor, AuditRow, Role, RunRequest, Token
from luff.store.engine import Database
from luff.store.history import CheckPoint, Coverage, Series, Standing, TrendPoint
from luff.store.journal import OpenIntent, PhaseChange
from luff.store.levers import Levers
from luff.store.migrate import Revision, current, downgrade, ensure_current, upgrade
from luff.store.retention import Keep, Pruned
from luff.store.runs import Beginning, RunFilter, RunRow
from luff.words import Verdict

if TYPE_CHECKING:
    from luff.outcome import MeshIdentity, Outcome

__all__ = [
    "Access",
    "AuditRow",
    "Beginning",
    "CheckPoint",
    "Coverage",
    "Keep",
    "Levers",
    "OpenIntent",
    "PhaseChange",
    "Pruned",
    "Revision",
    "Role",
    "RunFilter",
    "RunRequest",
    "RunRow",
    "Series",
    "Standing",
    "Store",
    "Token",
    "TrendPoint",
    "current",
    "downgrade",
    "upgrade",
]

RUNS_SHOWN = 50
TREND_RUNS = 1000
PERIOD_RUNS = 100_000


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Store:
    """
    This is an open store. Every method raises `luff.errors.StoreError` when the database cannot do it.

    Where a method takes a *run*, the beginning of its id is enough when no
    other run has the same.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._database = database
        self._now = now
        self._journal_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="luff-journal")

    @classmethod
    def open(cls, url: str | None = None) -> Store:
        """
        Open the database at *url*, by default a SQLite file in the XDG state folder.

        A SQLite file is created and migrated; a server's database must be
        at the newest layout already, see `upgrade`.
        """
        return cls(ensure_current(url))

    def close(self) -> None:
        """Write what the journal still has to write, and close every connection."""
        self._journal_thread.shutdown(wait=True)
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Return the address, without its password."""
        return self._database.shown

    @property
    def access(self) -> Access:
        """Return who may use the server, what was asked of it, and what was changed by whom."""
        return Access(self._database, self._now)

    def journal(self, mesh: MeshIdentity | None = None) -> Journal:
        """Return the journal. *mesh* is where its runs work, for whoever has to restore them."""
        return journal.StoreJournal(self._database, self._journal_thread, self._now, mesh)

    def levers(self, mesh: MeshIdentity) -> Levers:
        """Return the store's half of the levers of *mesh*."""
        return Levers(self._database, self._now, mesh)

    def begin(self, beginning: Beginning) -> None:
        """Write down that a run begins, so that one which is killed is not forgotten."""
        with self._database.write() as connection:
            runs.begin(connection, beginning)

    def record(self, outcome: Outcome, samples: Samples | None = None) -> None:
        """Write down how a run ended, once and whole; the journal is brought to its phase."""
        with self._database.write() as connection:
            runs.record(connection, outcome, samples, at=self._now())

    def bring(self, outcomes: Sequence[Outcome], *, actor: Actor | None = None) -> list[Outcome]:
        """
        Write down *outcomes* of other machines, all or none, and return those that were not here yet.

        With an *actor* in the audit too. Raises `luff.errors.OutcomeRefused`
        for one that contradicts what is here, and `luff.errors.UsageError`.
        """
        with self._database.write() as connection:
            return runs.bring(connection, outcomes, actor=actor, at=self._now())

    def outcome(self, run: str) -> Outcome:
        """Return the outcome of *run* as it was recorded."""
        with self._database.read() as connection:
            return runs.outcome_of(connection, run)

    def run(self, run: str) -> RunRow:
        """Return what a list shows of *run*; its phase is where the routes are now."""
        with self._database.read() as connection:
            return runs.row_of(connection, run)

    def samples(self, run: str) -> Samples | None:
        """Return the samples of *run*, or ``None`` when none were kept."""
        with self._database.read() as connection:
            return runs.samples_of(connection, run)

    def runs(
        self, where: RunFilter | None = None, *, limit: int = RUNS_SHOWN, before: str | None = None
    ) -> list[RunRow]:
        """Return at most *limit* runs, newest first; *before* is the last run of the page before."""
        with self._database.read() as connection:
            return runs.listed(connection, where or RunFilter(), limit=limit, before=before)

    def timeline(self, run: str) -> list[PhaseChange]:
        """Return what the journal says of *run* (its whole id), in order."""
        with self._database.read() as connection:
            return journal.timeline(connection, run)

    def open_intents(self, mesh: MeshIdentity | None = None) -> list[OpenIntent]:
        """Return the runs whose routes are not known to be back: armed, live, withdrawing or stranded; oldest first."""
        with self._database.read() as connection:
            return journal.open_intents(connection, mesh)

    def verdict_before(self, outcome: Outcome) -> Verdict | None:
        """Return the newest verdict before *outcome* of the same experiment, written the same way, in the same place."""
        with self._database.read() as connection:
            return history.verdict_before(connection, outcome)

    def trend(self, series: Series, *, limit: int = TREND_RUNS) -> list[TrendPoint]:
        """Return the newest *limit* finished runs of *series* with their checks, oldest first."""
        with self._database.read() as connection:
            return history.trend(connection, series, limit=limit)

    def coverage(self, *, until: datetime | None = None) -> Sequence[Coverage]:
        """Return every hop that was ever broken, or was before *until*, by kind of fault, with its newest verdict."""
        with self._database.read() as connection:
            return history.coverage(connection, until=until)

    def standings(self, *, experiment: str | None = None, until: datetime | None = None) -> list[Standing]:
        """Return where each series of runs that may be compared stands: pass rate, last proof, first broken run."""
        with self._database.read() as connection:
            return history.standings(connection, experiment=experiment, until=until)

    def held(self, *, until: datetime) -> dict[Series, bool | None]:
        """Return whether each series held after the runs that began before *until*; ``None`` where nothing was proven yet."""
        with self._database.read() as connection:
            return history.held(connection, until=until)

    def period(self, *, since: datetime, until: datetime, limit: int = PERIOD_RUNS) -> list[TrendPoint]:
        """Return the newest *limit* finished runs that began from *since* and before *until*, with their checks, oldest first."""
        with self._database.read() as connection:
            return history.period(connection, since=since, until=until, limit=limit)

    def prune(self, keep: Keep, *, dry_run: bool = False) -> Pruned:
        """Delete the runs that *keep* does not keep, with all that belongs to them; with *dry_run* only count them."""
        return retention.prune(self._database, keep, now=self._now(), dry_run=dry_run)
