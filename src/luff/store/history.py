"""
What many runs say together: since when something holds, and what was never tried.

Lab and cluster are never mixed: a number measured on a laptop says nothing
about production.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, case, func, select

from luff.model import Verdict
from luff.store import tables as t
from luff.store.runs import RunRow, made
from luff.store.text import key

__all__ = ["CheckPoint", "Coverage", "TrendPoint", "coverage", "last", "trend"]


@dataclass(frozen=True, slots=True)
class CheckPoint:
    """This is one check of one run, as a trend shows it; see `luff.outcome.CheckResult`."""

    id: str
    kind: str
    arm: str
    expression: str
    verdict: Verdict
    n: int
    violations: int
    threshold: float | None
    bound: float | None
    measured: float | None
    unit: str | None


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """This is one run of an experiment. Runs with another *spec_sha256* asked another question."""

    run: str
    started_at: datetime
    verdict: Verdict
    reason: str | None
    spec_sha256: str
    mesh_name: str
    commit: str | None
    branch: str | None
    revision: str | None
    checks: tuple[CheckPoint, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """This is one hop and one kind of fault: the newest verdict, when it last passed, and how often it was tried."""

    caller: str | None
    dependency: str
    fault: str | None
    mesh_kind: str
    runs: int
    verdict: Verdict
    run: str
    started_at: datetime
    last_pass_at: datetime | None


def last(connection: Connection, experiment: str, verdict: Verdict, *, mesh_kind: str | None) -> RunRow | None:
    """Return the newest run of *experiment* that ended with *verdict*, on meshes of *mesh_kind* where given."""
    asked = select(t.run).where(t.run.c.experiment == key(experiment), t.run.c.verdict == verdict)
    if mesh_kind is not None:
        asked = asked.where(t.run.c.mesh_kind == mesh_kind)
    found = connection.execute(asked.order_by(t.run.c.started_at.desc(), t.run.c.id.desc()).limit(1)).first()
    return None if found is None else made(found)


def trend(connection: Connection, experiment: str, *, mesh_kind: str, limit: int) -> list[TrendPoint]:
    """Return the newest *limit* finished runs of *experiment* on meshes of *mesh_kind*, oldest first."""
    columns = ("id", "started_at", "verdict", "reason", "spec_sha256", "mesh_name", "commit", "branch", "revision")
    chosen = (
        select(*(t.run.c[name] for name in columns))
        .where(t.run.c.experiment == key(experiment), t.run.c.mesh_kind == mesh_kind, t.run.c.verdict.is_not(None))
        .order_by(t.run.c.started_at.desc(), t.run.c.id.desc())
        .limit(limit)
        .subquery()
    )
    checks: dict[str, list[CheckPoint]] = {}
    of_chosen = select(t.check_result).join(chosen, t.check_result.c.run == chosen.c.id)
    for row in connection.execute(of_chosen.order_by(t.check_result.c.run, t.check_result.c.position)):
        checks.setdefault(row.run, []).append(
            CheckPoint(
                id=row.id,
                kind=row.kind,
                arm=row.arm,
                expression=row.expression,
                verdict=Verdict(row.verdict),
                n=row.n,
                violations=row.violations,
                threshold=row.threshold,
                bound=row.bound,
                measured=row.measured,
                unit=row.unit,
            )
        )
    return [
        TrendPoint(
            run=row.id,
            started_at=row.started_at,
            verdict=Verdict(row.verdict),
            reason=row.reason,
            spec_sha256=row.spec_sha256,
            mesh_name=row.mesh_name,
            commit=row.commit,
            branch=row.branch,
            revision=row.revision,
            checks=tuple(checks.get(row.id, ())),
        )
        for row in connection.execute(select(chosen).order_by(chosen.c.started_at, chosen.c.id))
    ]


def coverage(connection: Connection) -> Sequence[Coverage]:
    """Return every hop that was ever broken, with each kind of fault, in alphabetical order."""
    r = t.run.c
    edge = (r.caller, r.dependency, r.fault, r.mesh_kind)
    newest = (
        select(
            *edge,
            func.count().label("runs"),
            func.max(r.started_at).label("newest_at"),
            func.max(case((r.verdict == Verdict.PASSED, r.started_at))).label("last_pass_at"),
        )
        .where(r.verdict.is_not(None), r.dependency.is_not(None))
        .group_by(*edge)
        .subquery()
    )
    same_edge = and_(*(column.is_not_distinct_from(newest.c[column.name]) for column in edge))
    asked = (
        select(newest, r.id, r.verdict)
        .join(t.run, and_(same_edge, r.started_at == newest.c.newest_at, r.verdict.is_not(None)))
        .order_by(newest.c.dependency, newest.c.caller, newest.c.fault, newest.c.mesh_kind, r.id.desc())
    )
    found: dict[tuple[str | None, ...], Coverage] = {}
    for row in connection.execute(asked):
        # Two runs of one millisecond: either is the newest.
        found.setdefault(
            (row.caller, row.dependency, row.fault, row.mesh_kind),
            Coverage(
                caller=row.caller,
                dependency=row.dependency,
                fault=row.fault,
                mesh_kind=row.mesh_kind,
                runs=row.runs,
                verdict=Verdict(row.verdict),
                run=row.id,
                started_at=row.newest_at,
                last_pass_at=row.last_pass_at,
            ),
        )
    return list(found.values())
