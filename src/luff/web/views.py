"""What the pages show of history: the grid of the overview, and a trend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from luff.model import Verdict
from luff.report.pages import STALE_AFTER, Cell, ago, fault_head, picture
from luff.store import Coverage, Store, TrendPoint

__all__ = ["grid", "newest", "trend_view"]


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


def newest(store: Store, experiment: str, mesh_kind: str) -> TrendPoint | None:
    """Return the newest finished run of *experiment*."""
    found = store.trend(experiment, mesh_kind=mesh_kind, limit=1)
    return found[-1] if found else None


def trend_view(points: Sequence[TrendPoint], now: datetime, limits_ms: Mapping[str, float]) -> dict[str, Any]:
    """
    Return what the page of a trend shows; pictures only of runs that asked the same question as the newest.

    *limits_ms* are the latencies that the newest run's checks allow, by their ids.
    """
    decided = [each for each in points if each.verdict in (Verdict.PASSED, Verdict.FAILED)]
    passed = [each for each in decided if each.verdict is Verdict.PASSED]
    same = [each for each in points if each.spec_sha256 == points[-1].spec_sha256] if points else []
    return {
        "points": list(reversed(points)),
        "decided": len(decided),
        "passed": len(passed),
        "proof": ago(passed[-1].started_at, now) if passed else "never",
        "broken": _broken(decided),
        "other_questions": len(points) - len(same),
        "pictures": _pictures(same, limits_ms),
    }


def _broken(decided: Sequence[TrendPoint]) -> TrendPoint | None:
    """Return the first run since which it fails, ``None`` when the newest that was decided passed."""
    first = None
    for point in reversed(decided):
        if point.verdict is Verdict.PASSED:
            break
        first = point
    return first


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
