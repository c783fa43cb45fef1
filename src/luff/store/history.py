"""
What many runs say together: since when something holds, and what was never tried.

Lab and cluster are never mixed: a number measured on a laptop says nothing
about production. Nor are two specs: they asked different questions. What may
be put into one number is a `luff.report.trend.Series`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, literal_column, select

from luff.report.trend import CheckPoint, Coverage, NamedRun, Series, Standing, TrendPoint, holds, place_of
from luff.store import tables as t
from luff.store.text import key
from luff.words import Verdict

if TYPE_CHECKING:
    from luff.outcome import Outcome

__all__ = [
    "CheckPoint",
    "Coverage",
    "Series",
    "Standing",
    "TrendPoint",
    "coverage",
    "held",
    "period",
    "standings",
    "trend",
    "verdict_before",
]


def verdict_before(connection: Connection, outcome: Outcome) -> Verdict | None:
    """Return the newest verdict in the series of *outcome* before it, ``None`` when it is the first."""
    place = place_of(outcome.mesh.kind, outcome.mesh.name)
    series = Series(outcome.experiment, outcome.mesh.kind, place, outcome.spec_sha256)
    began = datetime.fromisoformat(outcome.started_at)
    # A first try that could not tell is part of this run.
    own = [outcome.run] if outcome.first_try is None else [outcome.run, outcome.first_try.run]
    found = _edge_of(connection, series, t.run.c.id.not_in(own), t.run.c.started_at <= began, newest=True)
    return None if found is None else Verdict(found.verdict)


MOMENTS_AT_ONCE = 500
_PLACE = case((t.run.c.mesh_kind == "cluster", t.run.c.mesh_name), else_="lab").label("place")

_PASSED, _FAILED = (t.run.c.verdict == verdict for verdict in (Verdict.PASSED, Verdict.FAILED))
_LAST_PROOFS = (
    func.max(case((_PASSED, t.run.c.started_at))).label("last_pass_at"),
    func.max(case((_FAILED, t.run.c.started_at))).label("last_fail_at"),
)
_EDGE = (t.run.c.id, t.run.c.verdict, t.run.c.commit, t.run.c.revision, t.run.c.started_at)

_POINT = (
    "id", "started_at", "verdict", "reason", "spec_sha256", "mesh_name", "mesh_kind", "commit", "branch", "revision",
    "experiment",
)  # fmt: skip
_CHECK = (
    "run", "id", "kind", "arm", "expression", "verdict", "n", "violations", "threshold", "bound", "measured", "unit",
)  # fmt: skip


def trend(connection: Connection, series: Series, *, limit: int) -> list[TrendPoint]:
    """Return the newest *limit* finished runs of *series*, oldest first."""
    r = t.run.c
    where = [
        r.experiment == key(series.experiment),
        r.mesh_kind == series.mesh_kind,
        r.spec_sha256 == key(series.spec_sha256),
    ]
    if series.mesh_kind == "cluster":
        where.append(r.mesh_name == key(series.place))
    return _points(connection, *where, limit=limit)


def period(connection: Connection, *, since: datetime, until: datetime, limit: int) -> list[TrendPoint]:
    """Return the newest *limit* finished runs that began from *since* and before *until*, oldest first."""
    return _points(connection, t.run.c.started_at >= since, t.run.c.started_at < until, limit=limit)


def _points(connection: Connection, *where: ColumnElement[bool], limit: int) -> list[TrendPoint]:
    chosen = (
        select(*(t.run.c[name] for name in _POINT))
        .where(*where, t.run.c.verdict.is_not(None))
        .order_by(t.run.c.started_at.desc(), t.run.c.id.desc())
        .limit(limit)
        .subquery()
    )
    verdicts = {verdict.value: verdict for verdict in Verdict}
    checks: dict[str, list[CheckPoint]] = {}
    of_chosen = select(*(t.check_result.c[name] for name in _CHECK)).join(chosen, t.check_result.c.run == chosen.c.id)
    # All at once: one by one costs more than what is in them.
    for run, name, kind, arm, expression, verdict, *numbers in connection.execute(
        of_chosen.order_by(t.check_result.c.run, t.check_result.c.position)
    ).all():
        checks.setdefault(run, []).append(CheckPoint(name, kind, arm, expression, verdicts[verdict], *numbers))
    return [
        TrendPoint(
            run=row.id,
            started_at=row.started_at,
            verdict=verdicts[row.verdict],
            reason=row.reason,
            spec_sha256=row.spec_sha256,
            mesh_name=row.mesh_name,
            commit=row.commit,
            branch=row.branch,
            revision=row.revision,
            checks=tuple(checks.get(row.id, ())),
            experiment=row.experiment,
            mesh_kind=row.mesh_kind,
        )
        for row in connection.execute(select(chosen).order_by(chosen.c.started_at, chosen.c.id)).all()
    ]


def standings(
    connection: Connection, *, experiment: str | None = None, until: datetime | None = None
) -> list[Standing]:
    """Return where each series stands, of *experiment* alone where given, after the runs that began before *until*."""
    r = t.run.c
    where: list[ColumnElement[bool]] = [r.verdict.is_not(None)]
    if experiment is not None:
        where.append(r.experiment == key(experiment))
    if until is not None:
        where.append(_began_before(until))
    asked = _each_series(
        func.count().label("runs"),
        func.sum(case((_PASSED, 1), else_=0)).label("passed"),
        func.sum(case((_FAILED, 1), else_=0)).label("failed"),
        func.min(r.started_at).label("first_at"),
        func.max(r.started_at).label("newest_at"),
        *_LAST_PROOFS,
    ).where(*where)
    found = connection.execute(asked).all()
    moments = {at for row in found for at in (row.newest_at, row.last_pass_at) if at is not None}
    runs = _RunsAt.read(connection, moments)
    return [_standing(connection, row, runs, until) for row in found]


def held(connection: Connection, *, until: datetime) -> dict[Series, bool | None]:
    """Return whether each series held after the runs that began before *until*; ``None`` where nothing was proven yet."""
    asked = _each_series(*_LAST_PROOFS).where(t.run.c.verdict.is_not(None), _began_before(until))
    return {_series_of(row): holds(row.last_pass_at, row.last_fail_at) for row in connection.execute(asked).all()}


def _each_series(*numbers: ColumnElement[Any]) -> Select[Any]:
    """Return the question for *numbers* about each series, in the order of their names."""
    r = t.run.c
    # An expression and not the column: by an index, SQLite would look up each row of the whole history one by one.
    name = (r.experiment + literal_column("''")).label("experiment")
    series = (name, r.mesh_kind, _PLACE, r.spec_sha256)
    return select(*series, *numbers).group_by(*series).order_by(*series)


def _began_before(until: datetime) -> ColumnElement[bool]:
    # As above: what is nearly all of history is quicker read from the one index that has all that is asked.
    return func.coalesce(t.run.c.started_at, t.run.c.started_at) < until


def _series_of(row: Row[Any]) -> Series:
    return Series(row.experiment, row.mesh_kind, row.place, row.spec_sha256)


@dataclass(frozen=True, slots=True)
class _RunsAt:
    """This is which run of a series began at a moment: of all its runs, and of those that passed."""

    finished: Mapping[tuple[Series, datetime], Row[Any]]
    passed: Mapping[tuple[Series, datetime], Row[Any]]

    @classmethod
    def read(cls, connection: Connection, moments: Iterable[datetime]) -> _RunsAt:
        r = t.run.c
        columns = (r.experiment, r.mesh_kind, _PLACE, r.spec_sha256, *_EDGE)
        finished, passed = {}, {}
        for row in _at_moments(connection, moments, columns):
            at = (_series_of(row), row.started_at)
            finished[at] = row
            if row.verdict == Verdict.PASSED:
                passed[at] = row
        return cls(finished, passed)


def _at_moments(
    connection: Connection, moments: Iterable[datetime], columns: Sequence[ColumnElement[Any]]
) -> Iterator[Row[Any]]:
    """Yield *columns* of the finished runs that began at one of *moments*, by run: of two at one moment the same one is last each time."""
    r = t.run.c
    ordered = sorted(moments)
    for first in range(0, len(ordered), MOMENTS_AT_ONCE):
        some = ordered[first : first + MOMENTS_AT_ONCE]
        asked = select(*columns).where(r.started_at.in_(some), r.verdict.is_not(None)).order_by(r.id)
        yield from connection.execute(asked).all()


def _standing(connection: Connection, row: Row[Any], runs: _RunsAt, until: datetime | None) -> Standing:
    """Return where one series stands, with the runs around its break if it is broken."""
    series = _series_of(row)
    found = Standing(
        series=series,
        runs=row.runs,
        passed=row.passed,
        failed=row.failed,
        first_at=row.first_at,
        newest_at=row.newest_at,
        newest_verdict=Verdict(runs.finished[series, row.newest_at].verdict),
        last_pass_at=row.last_pass_at,
        last_fail_at=row.last_fail_at,
    )
    if found.holds is not False:
        return found
    after: list[ColumnElement[bool]] = [t.run.c.verdict == Verdict.FAILED]
    if until is not None:
        after.append(t.run.c.started_at < until)
    if row.last_pass_at is not None:
        after.append(t.run.c.started_at > row.last_pass_at)
    bad = _edge_of(connection, series, *after, newest=False)
    assert bad is not None
    good = None if row.last_pass_at is None else _named(runs.passed[series, row.last_pass_at])
    return replace(found, broken=_named(bad), good=good)


def _named(row: Row[Any]) -> NamedRun:
    return NamedRun(run=row.id, at=row.started_at, commit=row.commit, revision=row.revision)


def _edge_of(
    connection: Connection, series: Series, *where: ColumnElement[bool], newest: bool
) -> Row[*tuple[Any, ...]] | None:
    """Return the first or the newest finished run of *series* for which *where* holds."""
    r = t.run.c
    of_series = [
        r.experiment == series.experiment,
        r.mesh_kind == series.mesh_kind,
        r.spec_sha256 == series.spec_sha256,
        r.verdict.is_not(None),
    ]
    if series.mesh_kind == "cluster":
        of_series.append(r.mesh_name == series.place)
    order = (r.started_at.desc(), r.id.desc()) if newest else (r.started_at, r.id)
    asked = select(*_EDGE).where(*of_series, *where).order_by(*order).limit(1)
    return connection.execute(asked).first()


def coverage(connection: Connection, *, until: datetime | None = None) -> Sequence[Coverage]:
    """
    Return every hop that was ever broken, or was before *until*, by kind of fault and place, in alphabetical order.

    The newest run of each speaks, and what stands beside it is of that run's series alone.
    """
    r = t.run.c
    hop = (r.caller, r.dependency, r.fault, r.mesh_kind, _PLACE)
    asked = (
        select(
            *hop,
            r.experiment,
            r.spec_sha256,
            func.count().label("runs"),
            func.max(r.started_at).label("newest_at"),
            func.max(case((r.verdict == Verdict.PASSED, r.started_at))).label("last_pass_at"),
        )
        .where(r.verdict.is_not(None), r.dependency.is_not(None), *([] if until is None else [r.started_at < until]))
        .group_by(*hop, r.experiment, r.spec_sha256)
    )
    newest: dict[tuple[str | None, ...], Row[Any]] = {}
    for row in connection.execute(asked):
        at = (row.caller, row.dependency, row.fault, row.mesh_kind, row.place)
        if at not in newest or newest[at].newest_at < row.newest_at:
            newest[at] = row
    runs = _newest_runs(connection, list(newest.values()))
    found = [
        Coverage(
            caller=row.caller,
            dependency=row.dependency,
            fault=row.fault,
            mesh_kind=row.mesh_kind,
            place=row.place,
            experiment=row.experiment,
            spec_sha256=row.spec_sha256,
            runs=row.runs,
            verdict=verdict,
            run=run,
            started_at=row.newest_at,
            last_pass_at=row.last_pass_at,
        )
        for at, row in newest.items()
        for run, verdict in [runs[(*at, row.experiment, row.spec_sha256, row.newest_at)]]
    ]
    return sorted(
        found, key=lambda each: (each.dependency, each.caller or "", each.fault or "", each.mesh_kind, each.place)
    )


def _newest_runs(connection: Connection, rows: Sequence[Row[Any]]) -> dict[tuple[Any, ...], tuple[str, Verdict]]:
    """Return which run began at *newest_at* of each of *rows*, and its verdict."""
    r = t.run.c
    columns = (r.caller, r.dependency, r.fault, r.mesh_kind, _PLACE, r.experiment, r.spec_sha256, r.started_at)
    found = _at_moments(connection, {row.newest_at for row in rows}, (*columns, r.id, r.verdict))
    return {tuple(row)[: len(columns)]: (row.id, Verdict(row.verdict)) for row in found}
