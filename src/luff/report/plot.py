"""
Latency over time as the geometry of an inline SVG: points in, coordinates out.

What must stay true:

1. Of each arm the slowest request and every shown kind of error survive
   thinning: a plot must not look better than the run was.
2. A request is drawn where it fell *due*, at the latency from then.
3. The size of a plot is bounded, whatever the run's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from luff.samples import PENDING, Failure, Samples
from luff.units import show_duration
from luff.words import Arm, Phase

__all__ = ["PHASE_WORDS", "Plot", "Series", "Window", "plot", "windows"]

WIDTH, HEIGHT = 760.0, 320.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 14.0, 22.0, 34.0
LOGARITHMIC_FROM = 25.0
"""The ratio of the slowest to the fastest from which a linear axis would hide the faster arm."""
TICKS_MOST = 8
MEDIANS_MOST = 90
ERRORS_MOST = 200
_STEPS = (1, 2, 5)
PHASE_WORDS = {Phase.WARMUP: "before", Phase.FAULT: "fault live", Phase.RECOVERY: "after"}


@dataclass(frozen=True, slots=True)
class Series:
    """This is one arm: SVG paths of its answers, of its errors and of its running median, and how many were thinned."""

    arm: Arm
    dots: str
    errors: str
    median: str
    drawn: int
    total: int


@dataclass(frozen=True, slots=True)
class Plot:
    """This is all coordinates of one plot. *fault* is where the fault was live, as x from and to."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    fault: tuple[float, float] | None
    limits: tuple[tuple[float, str], ...]
    series: tuple[Series, ...]
    logarithmic: bool


@dataclass(frozen=True, slots=True)
class Window:
    """This is a row of the table beside the plot: one phase of one arm, latencies in milliseconds."""

    phase: str
    arm: Arm
    sent: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None


@dataclass(frozen=True, slots=True)
class _Point:
    at_s: float
    latency_ms: float
    error: bool
    phase: Phase


def plot(samples: Samples, *, limits_ms: Sequence[tuple[float, str]] = (), dots_most: int = 1000) -> Plot | None:
    """Return the plot of *samples*, at most about *dots_most* dots for each arm; ``None`` when nothing came back."""
    arms = {arm: _points(samples, arm) for arm in Arm}
    everything = [point for points in arms.values() for point in points]
    if not everything:
        return None
    first_s, last_s = min(point.at_s for point in everything), max(point.at_s for point in everything)
    lowest, highest = _extent([point.latency_ms for point in everything] + [limit for limit, _ in limits_ms])
    logarithmic = highest / lowest >= LOGARITHMIC_FROM
    y_values = _ladder(lowest, highest) if logarithmic else _nice(0.0, highest)
    scale = _Scale(first_s, max(last_s, first_s + 0.001), y_values[0], y_values[-1], logarithmic)
    return Plot(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        x_ticks=tuple((scale.x(first_s + value), f"{value:g} s") for value in _nice(0.0, last_s - first_s) if first_s + value <= last_s),
        y_ticks=tuple((scale.y(value), show_duration(value / 1000)) for value in (_ticks(y_values) if logarithmic else y_values)),
        fault=_fault(arms, scale),
        limits=tuple((scale.y(limit), label) for limit, label in limits_ms),
        series=tuple(_series(arm, points, scale, dots_most) for arm, points in arms.items() if points),
        logarithmic=logarithmic,
    )  # fmt: skip


def windows(samples: Samples) -> list[Window]:
    """Return the table beside the plot: each phase and arm in which something was sent."""
    rows = []
    for phase, words in PHASE_WORDS.items():
        for arm in Arm:
            sent = sum(1 for _ in samples.rows(arm=arm, phase=phase))
            points = [point for point in _points(samples, arm) if point.phase is phase]
            answered = sorted(point.latency_ms for point in points if not point.error)
            if sent:
                rows.append(
                    Window(
                        phase=words,
                        arm=arm,
                        sent=sent,
                        errors=sum(point.error for point in points),
                        p50_ms=_rank(answered, 0.5),
                        p99_ms=_rank(answered, 0.99),
                        max_ms=_rank(answered, 1.0),
                    )
                )
    return rows


def _points(samples: Samples, arm: Arm) -> list[_Point]:
    """Return what was decided of *arm*, in order of due time; what the run's end cut off is not drawn."""
    points = []
    for number in samples.rows(arm=arm):
        if samples.done_ns[number] == PENDING or samples.failure[number] == Failure.CUT:
            continue
        sample = samples[number]
        error = sample.failure != Failure.NONE or sample.status >= 500
        points.append(_Point(sample.due_ns / 1e9, max(sample.latency_s * 1000, 0.01), error, sample.phase))
    return points


def _rank(ordered: Sequence[float], share: float) -> float | None:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


@dataclass(frozen=True, slots=True)
class _Scale:
    first_s: float
    last_s: float
    lowest: float
    highest: float
    logarithmic: bool

    def x(self, at_s: float) -> float:
        share = (at_s - self.first_s) / (self.last_s - self.first_s)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        if self.logarithmic:
            share = math.log(max(value, self.lowest) / self.lowest) / math.log(self.highest / self.lowest)
        else:
            share = (value - self.lowest) / (self.highest - self.lowest)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def _extent(values: Sequence[float]) -> tuple[float, float]:
    positive = [value for value in values if value > 0]
    return min(positive), max(positive)


def _ladder(lowest: float, highest: float) -> list[float]:
    """Return the round values from the last at or below *lowest* to the first at or above *highest*: 1, 2, 5, 10, ..."""
    first, last = math.floor(math.log10(lowest)), math.ceil(math.log10(highest))
    values = [step * 10.0**power for power in range(first, last + 1) for step in _STEPS]
    below = max(value for value in values if value <= lowest)
    above = min(value for value in values if value >= highest)
    return [value for value in values if below <= value <= above]


def _ticks(ladder: Sequence[float]) -> list[float]:
    """Return the values of *ladder* that are written beside a logarithmic axis: all, or the powers of ten when they are many."""
    if len(ladder) <= TICKS_MOST:
        return list(ladder)
    return [value for value in ladder if math.isclose(math.log10(value), round(math.log10(value)))]


def _nice(lowest: float, highest: float) -> list[float]:
    """Return five to ten round values from *lowest* to at or above *highest*."""
    span = max(highest - lowest, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(step * power for step in (*_STEPS, 10) if span / (step * power) <= 8)
    count = math.ceil(span / step - 1e-9)
    return [lowest + number * step for number in range(count + 1)]


def _fault(arms: dict[Arm, list[_Point]], scale: _Scale) -> tuple[float, float] | None:
    live = [point.at_s for points in arms.values() for point in points if point.phase is Phase.FAULT]
    after = [point.at_s for points in arms.values() for point in points if point.phase is Phase.RECOVERY]
    if not live:
        return None
    return scale.x(min(live)), scale.x(min(after) if after else max(live))


def _series(arm: Arm, points: Sequence[_Point], scale: _Scale, dots_most: int) -> Series:
    answers = [point for point in points if not point.error]
    errors = [point for point in points if point.error]
    shown, crossed = _thinned(answers, dots_most), _thinned(errors, ERRORS_MOST)
    return Series(
        arm=arm,
        dots="".join(f"M{scale.x(p.at_s):g} {scale.y(p.latency_ms):g}h0" for p in shown),
        errors="".join(f"M{scale.x(p.at_s) - 3:g} {scale.y(p.latency_ms) - 3:g}l6 6m-6 0l6-6" for p in crossed),
        median=_median_path(answers, scale),
        drawn=len(shown) + len(crossed),
        total=len(points),
    )


def _thinned(points: Sequence[_Point], most: int) -> list[_Point]:
    """Return at most about *most* of *points*: of each stretch of time the fastest, the slowest and one between."""
    if len(points) <= most:
        return list(points)
    kept = []
    for stretch in _stretches(points, max(1, most // 3)):
        ordered = sorted(stretch, key=lambda point: point.latency_ms)
        kept += list({id(point): point for point in (ordered[0], ordered[len(ordered) // 2], ordered[-1])}.values())
    return kept


def _median_path(points: Sequence[_Point], scale: _Scale) -> str:
    """Return the running median as a path, broken where a phase ends: what lies between was not measured."""
    path, phase = "", None
    for stretch in _stretches(points, MEDIANS_MOST):
        for part in PHASE_WORDS:
            inside = [point for point in stretch if point.phase is part]
            if not inside:
                continue
            ordered = sorted(point.latency_ms for point in inside)
            middle = inside[len(inside) // 2]
            command = "L" if part is phase else "M"
            path += f"{command}{scale.x(middle.at_s):g} {scale.y(ordered[len(ordered) // 2]):g}"
            phase = part
    return path


def _stretches(points: Sequence[_Point], count: int) -> list[Sequence[_Point]]:
    size = max(1, math.ceil(len(points) / count))
    return [points[first : first + size] for first in range(0, len(points), size)]
