"""What the pages show of history: the grid of the overview, and a trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from luff.model import Verdict
from luff.outcome import MeshIdentity
from luff.report.pages import STALE_AFTER, Cell, ago, fault_head, picture
from luff.report.trend import Standing, newest_first, place_of
from luff.store import Coverage, RunFilter, RunRow, Store, TrendPoint

__all__ = ["Asked", "asked", "grid", "newest", "trend_view"]


def grid(coverage: Sequence[Coverage], now: datetime) -> dict[str, Any]:
    """Return the columns and the rows of the overview: a hop a row, a kind of fault a column."""
    faults = sorted({each.fault or "" for each in coverage})
    rows: dict[tuple[str, str], dict[str, Cell]] = {}
    for each in coverage:
        proof = each.last_pass_at
        rows.setdefault((each.caller or "any caller", each.dependency), {})[each.fault or ""] = Cell(
            verdict=each.verdict,
            run=each.run,
            age=ago(each.started_at, now),
            proof="never proven" if proof is None else f"last passed {ago(proof, now)}",
            runs=each.runs,
            stale=now - each.started_at > STALE_AFTER,
        )
    return {
        "faults_shown": [(fault, fault_head(fault or None)) for fault in faults],
        "hops": [(caller, dependency, cells) for (caller, dependency), cells in sorted(rows.items())],
        "counts": [(verdict, sum(each.verdict is verdict for each in coverage)) for verdict in Verdict],
    }


@dataclass(frozen=True, slots=True)
class Asked:
    """
    This is one experiment in one place: where the series that is shown stands, its newest runs, and the other series.

    *standing* is ``None`` when it never ran there in the way that was asked for. *others* are written in other ways, the newest first.
    """

    standing: Standing | None
    points: Sequence[TrendPoint]
    others: Sequence[Standing]


def asked(store: Store, experiment: str, mesh: MeshIdentity, *, spec: str | None = None, limit: int) -> Asked:
    """
    Return the newest *limit* runs of *experiment* on *mesh*, written in the way whose hash begins with *spec*.

    Without *spec* it is the way of the newest run. Blocks on the database.
    """
    place = place_of(mesh.kind, mesh.name)
    here = [
        each
        for each in newest_first(store.standings(experiment=experiment))
        if (each.series.mesh_kind, each.series.place) == (mesh.kind, place)
    ]
    shown = next((each for each in here if each.series.spec_sha256.startswith(spec or "")), None)
    if shown is None:
        return Asked(None, [], here)
    return Asked(shown, store.trend(shown.series, limit=limit), [each for each in here if each is not shown])


def newest(store: Store, experiment: str, mesh: MeshIdentity) -> RunRow | None:
    """Return the newest finished run of *experiment* on *mesh*, however it was written then."""
    found = store.runs(RunFilter(experiment=experiment, ended=True, mesh=mesh), limit=1)
    return found[0] if found else None


def trend_view(found: Asked, now: datetime, limits_ms: Mapping[str, float]) -> dict[str, Any]:
    """
    Return what the page of a trend shows, all of it of one series.

    *limits_ms* are the latencies that the newest run's checks allow, by their ids.
    """
    standing = found.standing
    decided = 0 if standing is None else standing.passed + standing.failed
    passed_at = None if standing is None else standing.last_pass_at
    return {
        "standing": standing,
        "points": list(reversed(found.points)),
        "decided": decided,
        "passed": 0 if standing is None else standing.passed,
        "proof": "never" if passed_at is None else ago(passed_at, now),
        "others": found.others,
        "pictures": _pictures(found.points, limits_ms),
    }


def _pictures(points: Sequence[TrendPoint], limits_ms: Mapping[str, float]) -> list[tuple[str, str, str, Any]]:
    """Return (check, what is expected, unit, picture) for each check with measured values."""
    found: dict[str, list[tuple[str, datetime, Verdict, float]]] = {}
    said: dict[str, tuple[str, str]] = {}
    for point in points:
        for check in point.checks:
            if check.measured is not None:
                values = (point.run, point.started_at, check.verdict, check.measured)
                found.setdefault(check.id, []).append(values)
                said[check.id] = (check.expression, check.unit or "")
    made = []
    for id_, series in found.items():
        expression, unit = said[id_]
        limit = (limits_ms[id_], expression) if id_ in limits_ms and unit == "ms" else None
        if unit == "%" and "≥" in expression:
            # A share that must be large is seen against all.
            limit = (100.0, "")
        made.append((id_, expression, unit, picture(series, unit=unit, limit=limit)))
    return made
