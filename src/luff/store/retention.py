"""
What may be forgotten.

What must stay true:

1. Never deleted: of each series of runs that may be compared (an experiment,
   a spec, the lab or one cluster) the last pass and the last fail; a run whose
   routes are not known to be back; a run that may still be going on.
2. A run goes whole: its outcome, checks, samples and journal with it.
3. Deleting never holds the write lock for long: a run that wants to arm waits
   for one batch at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, or_, select

from luff.errors import UsageError
from luff.lifecycle import Phase
from luff.store import tables as t
from luff.store.engine import Database
from luff.words import Verdict

__all__ = ["Keep", "Pruned", "prune"]

BATCH = 200
UNFINISHED_FOR = timedelta(days=1)
"""A run that has no outcome after this long was killed."""
_BACK = (Phase.PLANNED, Phase.CLEAN)


@dataclass(frozen=True, slots=True)
class Keep:
    """This is what to keep: the runs of the last *days*, or the *last* so many of each experiment in each place."""

    days: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        if (self.days is None) == (self.last is None):
            raise UsageError("say what to keep, in one way", next_step="give either --keep-days or --keep-last")


@dataclass(frozen=True, slots=True)
class Pruned:
    """This is what was deleted, oldest first, and how many runs *keep* would have let go but rule 1 keeps."""

    runs: tuple[str, ...]
    protected: int
    left: int


def prune(database: Database, keep: Keep, *, now: datetime, dry_run: bool) -> Pruned:
    """Delete what *keep* does not keep and rule 1 does not protect; with *dry_run* only say what it would be."""
    with database.read() as connection:
        whole = connection.execute(select(func.count()).select_from(t.run)).scalar_one()
        old = _old(connection, keep, now)
        protected = _protected(connection, now) if old else set()
    runs = [run for run in old if run not in protected]
    deleted: list[str] = []
    for first in range(0, 0 if dry_run else len(runs), BATCH):
        with database.write() as connection:
            deleted += _delete(connection, runs[first : first + BATCH])
    gone = runs if dry_run else deleted
    return Pruned(tuple(gone), protected=len(old) - len(gone), left=whole - len(gone))


def _place() -> ColumnElement[str]:
    return case((t.run.c.mesh_kind == "cluster", t.run.c.mesh_name), else_="lab")


def _old(connection: Connection, keep: Keep, now: datetime) -> list[str]:
    r = t.run.c
    if keep.days is not None:
        try:
            before = now - timedelta(days=keep.days)
        except OverflowError:
            return []
        asked = select(r.id).where(r.started_at < before).order_by(r.started_at, r.id)
        return list(connection.execute(asked).scalars())
    newest_first = (r.started_at.desc(), r.id.desc())
    number = func.row_number().over(partition_by=(r.experiment, r.mesh_kind, _place()), order_by=newest_first)
    ranked = select(r.id, r.started_at, number.label("number")).subquery()
    asked = select(ranked.c.id).where(ranked.c.number > keep.last).order_by(ranked.c.started_at, ranked.c.id)
    return list(connection.execute(asked).scalars())


def _protected(connection: Connection, now: datetime) -> set[str]:
    r = t.run.c
    place = _place()
    series = (r.experiment, r.mesh_kind, place, r.spec_sha256, r.verdict)
    last = (
        select(
            *(column.label(f"part_{number}") for number, column in enumerate(series)),
            func.max(r.started_at).label("newest_at"),
        )
        .where(r.verdict.in_((Verdict.PASSED, Verdict.FAILED)))
        .group_by(*series)
        .subquery()
    )
    same = and_(*(column == last.c[f"part_{number}"] for number, column in enumerate(series)))
    proofs = select(r.id).join(last, and_(same, r.started_at == last.c.newest_at))
    intents = select(t.intent.c.run).where(t.intent.c.phase.not_in(_BACK))
    return set(connection.execute(proofs).scalars()) | set(
        connection.execute(select(r.id).where(or_(_going_on(now), r.id.in_(intents)))).scalars()
    )


def _going_on(now: datetime) -> ColumnElement[bool]:
    """Return what holds for a run whose routes are not back, or that may not have ended."""
    r = t.run.c
    return or_(r.phase.not_in(_BACK), and_(r.verdict.is_(None), r.started_at >= now - UNFINISHED_FOR))


def _delete(connection: Connection, runs: Sequence[str]) -> list[str]:
    """Delete *runs* but those whose routes turned out, meanwhile, not to be back."""
    open_intents = select(t.intent.c.run).where(t.intent.c.phase.not_in(_BACK))
    sure = t.run.c.phase.in_(_BACK) & t.run.c.id.not_in(open_intents)
    gone = list(connection.execute(select(t.run.c.id).where(t.run.c.id.in_(runs), sure)).scalars())
    for column in (t.phase_change.c.run, t.intent.c.run, t.sample_block.c.run, t.check_result.c.run, t.outcome.c.run):
        connection.execute(delete(column.table).where(column.in_(gone)))
    connection.execute(delete(t.run).where(t.run.c.id.in_(gone)))
    found = set(gone)
    return [run for run in runs if run in found]
