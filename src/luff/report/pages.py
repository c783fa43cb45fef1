"""
What the server's pages show, as values: the grid of hops, a trend's picture, words for how long ago.

Pure, like every report: the clock is passed in, and what a picture shows a
table beside it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from luff.report.words import MARKS
from luff.words import Verdict

__all__ = ["Bar", "Cell", "Dot", "Picture", "ago", "fault_head", "left", "picture"]

WIDTH, HEIGHT = 1040.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 12.0, 22.0, 14.0
_STEPS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
STALE_AFTER = timedelta(days=30)
"""How old a proof may be before a page shows it as old."""


def ago(then: datetime | None, now: datetime) -> str:
    """Return how long *then* is ago, such as ``3 h ago``."""
    if then is None:
        return "never"
    seconds = max(0.0, (now - then).total_seconds())
    for step, name in _STEPS:
        if seconds >= step:
            return f"{seconds // step:.0f}\u00a0{name} ago"
    return "just now"


def left(until: datetime | None, now: datetime) -> str:
    """Return how long it is to *until*, such as ``in 3 min``."""
    if until is None:
        return "unknown"
    seconds = (until - now).total_seconds()
    if seconds <= 0:
        return "over already"
    for step, name in _STEPS:
        if seconds >= step:
            return f"in {seconds // step:.0f}\u00a0{name}"
    return "now"


def fault_head(fault: str | None) -> str:
    """Return the head of a column of the grid."""
    return (fault or "unknown").replace("+", " and ")


@dataclass(frozen=True, slots=True)
class Cell:
    """This is one place of the grid: the newest verdict of one hop under one kind of fault."""

    verdict: Verdict
    run: str
    age: str
    proof: str
    runs: int
    stale: bool

    @property
    def mark(self) -> str:
        """Return the verdict's sign, so that colour is not all that tells."""
        return MARKS[self.verdict]


@dataclass(frozen=True, slots=True)
class Dot:
    """This is one run in the picture. *href* leads to it."""

    x: float
    y: float
    verdict: Verdict
    run: str
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """This is one line across: a tick of the axis, or the threshold."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Picture:
    """This is a check's measured values over runs, as coordinates."""

    width: float
    height: float
    left: float
    right: float
    dots: tuple[Dot, ...]
    line: str
    ticks: tuple[Bar, ...]
    limit: Bar | None


def _nice(value: float) -> float:
    """Return the next round number that is not below *value*."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def picture(
    points: Sequence[tuple[str, datetime, Verdict, float]], *, unit: str, limit: tuple[float, str] | None = None
) -> Picture:
    """
    Return *points*, (run, when, verdict, measured value), oldest first, as a picture; by order, not by time.

    *limit* is a value that is drawn across, with what it says.
    """
    top = _nice(max(max((value for *_, value in points), default=0.0), limit[0] if limit else 0.0) or 1.0)
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    step = across / max(1, len(points) - 1)

    def y(value: float) -> float:
        return round(TOP + down * (1 - value / top), 1)

    dots = tuple(
        Dot(
            round(LEFT + (step * number if len(points) > 1 else across / 2), 1),
            y(value),
            verdict,
            run,
            f"{when:%Y-%m-%d %H:%M} UTC: {verdict}, {value:,.4g} {unit}".rstrip(),
        )
        for number, (run, when, verdict, value) in enumerate(points)
    )
    ticks = tuple(Bar(y(top * share), f"{top * share:,.4g}") for share in (0.0, 0.5, 1.0))
    line = "M" + "L".join(f"{dot.x} {dot.y}" for dot in dots) if dots else ""
    across_at = None if limit is None else Bar(y(limit[0]), limit[1])
    return Picture(WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, dots, line, ticks, across_at)
