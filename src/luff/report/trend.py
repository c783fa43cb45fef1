"""
One question asked many times: how often it held, since when it does not, and how near to its limit it comes.

What must stay true:

1. A `Series` is one experiment, written in one way (its spec's hash), in one
   place: the lab, or one cluster. Two of them are never put into one number.
2. Only passed and failed runs count as proof. Whatever else ended a run says
   nothing for or against.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

from luff.errors import UsageError
from luff.units import parse_duration_s, show_duration, show_percent
from luff.words import Verdict

__all__ = [
    "STALE_AFTER",
    "Change",
    "CheckLine",
    "CheckPoint",
    "Coverage",
    "NamedRun",
    "Series",
    "Standing",
    "TrendPoint",
    "age_words",
    "by_series",
    "changes",
    "check_lines",
    "holds",
    "limit_in_unit",
    "moment",
    "newest_first",
    "place_of",
    "sparkline",
    "thinned",
    "value_words",
]

STALE_AFTER = timedelta(days=30)
"""A proof older than this is called old."""


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """This is what may be compared with itself. *place* is ``lab``, whatever the lab's name, or the cluster's name."""

    experiment: str
    mesh_kind: str
    place: str
    spec_sha256: str


class CheckPoint(NamedTuple):
    """
    This is one check of one run, as a trend shows it; see `luff.outcome.CheckResult`.

    A tuple, because there are half a million of them in a long history: a dataclass takes four times as long to make.
    """

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
    experiment: str
    mesh_kind: str

    @property
    def series(self) -> Series:
        """Return what this run may be compared with."""
        return Series(self.experiment, self.mesh_kind, place_of(self.mesh_kind, self.mesh_name), self.spec_sha256)


@dataclass(frozen=True, slots=True)
class Coverage:
    """
    This is one hop and one kind of fault in one place: the newest verdict, and what asked for it.

    *runs* and *last_pass_at* are those of that experiment as it was written then.
    """

    caller: str | None
    dependency: str
    fault: str | None
    mesh_kind: str
    place: str
    experiment: str
    spec_sha256: str
    runs: int
    verdict: Verdict
    run: str
    started_at: datetime
    last_pass_at: datetime | None


@dataclass(frozen=True, slots=True)
class NamedRun:
    """This is a run and what was tested in it: the commit of whoever ran it, and the revision of the subject."""

    run: str
    at: datetime
    commit: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """
    This is where a series stands after all its finished runs.

    *broken* is the first failed run after the last pass, ``None`` where the
    newest proof is a pass; *good* is the last pass before it.
    """

    series: Series
    runs: int
    passed: int
    failed: int
    first_at: datetime
    newest_at: datetime
    newest_verdict: Verdict
    last_pass_at: datetime | None
    last_fail_at: datetime | None
    broken: NamedRun | None = None
    good: NamedRun | None = None

    @property
    def pass_ratio(self) -> float | None:
        """Return passed runs / runs that proved anything; ``None`` when none did."""
        judged = self.passed + self.failed
        return self.passed / judged if judged else None

    @property
    def holds(self) -> bool | None:
        """Return whether the newest proof is a pass; ``None`` when nothing was ever proven."""
        return holds(self.last_pass_at, self.last_fail_at)

    @property
    def proven_at(self) -> datetime | None:
        """Return when anything was last proven, for or against."""
        return max((at for at in (self.last_pass_at, self.last_fail_at) if at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """This is a proof that says the opposite of the one before it: *point* and, where it is known, *before*."""

    point: TrendPoint
    before: TrendPoint | None

    @property
    def broke(self) -> bool:
        """Return whether it held before and does not any more."""
        return self.point.verdict is Verdict.FAILED


@dataclass(frozen=True, slots=True)
class CheckLine:
    """This is one check of a series over time. *limit* is in *unit*; each of *points* is the run, and what was measured."""

    id: str
    arm: str
    expression: str
    unit: str | None
    limit: float | None
    at_most: bool
    points: tuple[tuple[TrendPoint, CheckPoint], ...]

    @property
    def measured(self) -> tuple[float, ...]:
        """Return what was measured, oldest first, without the runs that measured nothing."""
        return tuple(check.measured for _, check in self.points if check.measured is not None)


def holds(last_pass_at: datetime | None, last_fail_at: datetime | None) -> bool | None:
    """Return whether the newest proof is a pass; ``None`` when nothing was ever proven."""
    if last_pass_at is None:
        return None if last_fail_at is None else False
    return last_fail_at is None or last_fail_at <= last_pass_at


def place_of(mesh_kind: str, mesh_name: str) -> str:
    """Return the place of a series. A lab has another name each time it starts, and is the same lab."""
    return "lab" if mesh_kind == "lab" else mesh_name


def by_series(points: Iterable[TrendPoint]) -> dict[Series, list[TrendPoint]]:
    """Return *points* by their series, in the order in which they come."""
    found: dict[Series, list[TrendPoint]] = {}
    for point in points:
        found.setdefault(point.series, []).append(point)
    return found


def newest_first(standings: Iterable[Standing]) -> list[Standing]:
    """Return *standings* by experiment and place, the newest way of writing an experiment first."""
    ordered = sorted(standings, key=lambda each: each.newest_at, reverse=True)
    return sorted(ordered, key=lambda each: (each.series.experiment, each.series.mesh_kind, each.series.place))


def changes(points: Sequence[TrendPoint], *, held_before: bool | None = None) -> list[Change]:
    """
    Return each proof of one series that says the opposite of the one before.

    *held_before* is what the last proof before *points* said; ``None`` when
    there was none, and then the first proof changes nothing.
    """
    found: list[Change] = []
    held, before = held_before, None
    for point in points:
        if point.verdict not in (Verdict.PASSED, Verdict.FAILED):
            continue
        holds = point.verdict is Verdict.PASSED
        if held is not None and held is not holds:
            found.append(Change(point, before))
        held, before = holds, point
    return found


def check_lines(points: Sequence[TrendPoint]) -> list[CheckLine]:
    """Return each check of the runs of one series over time, in the order of the newest run that has checks."""
    rows: dict[tuple[str, str], list[tuple[TrendPoint, CheckPoint]]] = {}
    for point in reversed(points):
        for check in point.checks:
            rows.setdefault((check.id, check.arm), []).append((point, check))
    lines = []
    for (name, arm), found in rows.items():
        newest = found[0][1]
        unit = next((check.unit for _, check in found if check.unit is not None), None)
        lines.append(
            CheckLine(
                id=name,
                arm=arm,
                expression=newest.expression,
                unit=unit,
                limit=limit_in_unit(newest.expression, unit),
                at_most="≥" not in newest.expression,
                points=tuple(reversed(found)),
            )
        )
    return lines


_LIMIT = re.compile(r"(?:≤|≥|\bwithin)\s*([0-9][0-9hms .]*?)\s*(ms|s|%)?$")
_UNIT_SIZE: Mapping[str, float] = {"ms": 0.001, "s": 1.0}


def limit_in_unit(expression: str, unit: str | None) -> float | None:
    """Return the limit that *expression* names, such as ``p95 ≤ 1 s``, in *unit*; ``None`` where it cannot be compared."""
    found = _LIMIT.search(expression)
    if found is None:
        return None
    text = (found[1] + (found[2] or "")).replace(" ", "")
    if unit is not None and unit in _UNIT_SIZE:
        try:
            return round(parse_duration_s(text) / _UNIT_SIZE[unit], 9)
        except ValueError:
            return None
    if (unit in ("%", "percent")) != text.endswith("%"):
        return None
    try:
        return float(text.removesuffix("%"))
    except ValueError:
        return None


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(
    values: Sequence[float],
    *,
    most: int,
    limit: float | None = None,
    worst: Callable[[Sequence[float]], float] = max,
) -> str:
    """Return *values* as at most *most* bars from zero up; each bar is the *worst* of its share of them."""
    drawn = thinned(values, most, worst=worst)
    top = max([*drawn, *([] if limit is None else [limit])], default=0.0)
    if not drawn or top <= 0:
        return _BARS[0] * len(drawn)
    return "".join(_BARS[min(len(_BARS) - 1, int(max(value, 0.0) / top * len(_BARS)))] for value in drawn)


def thinned(values: Sequence[float], most: int, *, worst: Callable[[Sequence[float]], float] = max) -> list[float]:
    """Return at most *most* of *values* in their order, the *worst* of each share of them."""
    if len(values) <= most:
        return list(values)
    edges = [round(place * len(values) / most) for place in range(most + 1)]
    return [worst(values[low:high]) for low, high in itertools.pairwise(edges)]


def value_words(value: float, unit: str | None) -> str:
    """Return *value* as a person would write it: ``912 ms``, ``99.8 %``."""
    if unit is not None and unit in _UNIT_SIZE:
        return show_duration(value * _UNIT_SIZE[unit])
    if unit in ("%", "percent"):
        return show_percent(value)
    return f"{value:.4g}" + (f" {unit}" if unit else "")


def age_words(at: datetime | None, now: datetime) -> str:
    """Return how long ago *at* was: ``3 days``; ``never`` for ``None``."""
    if at is None:
        return "never"
    seconds = max(0.0, (now - at).total_seconds())
    for size, unit in ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            whole = int(seconds // size)
            return f"{whole} {unit}{'' if whole == 1 else 's'}"
    return "under a minute"


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def moment(text: str, flag: str, *, now: datetime, end: bool = False) -> datetime:
    """
    Return the time that *text* means: a day, a day and time (UTC unless it says otherwise), or how long ago (``7d``).

    A day is its first moment, or with *end* the first one after it, so that ``--until`` a day has that day in it.
    """
    try:
        if _DAY.fullmatch(text.strip()):
            day = datetime.combine(datetime.fromisoformat(text.strip()).date(), time(), UTC)
            return day + timedelta(days=1) if end else day
        if text.strip()[:1].isdigit() and "-" not in text:
            return now - timedelta(seconds=parse_duration_s(text))
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{flag} {text!r} is neither a date nor a duration",
            next_step="write 2027-01-31, 2027-01-31T18:00, or how long ago, such as 7d",
        ) from error
