"""
Outcomes as one HTML page that needs nothing else: for a colleague, an archive, a board.

What must stay true:

1. The page loads nothing and runs nothing: no script, no font, no image from
   elsewhere. Its own policy (``default-src 'none'``, the style by its hash)
   says so to the browser, also from ``file://``.
2. Everything that came from outside is escaped by the templates; nothing is
   marked as safe but what is made here.
3. What a picture shows, a table beside it says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby

from luff import __version__
from luff.exit_codes import Standing, is_unrestored, standing
from luff.outcome import CheckResult, Outcome
from luff.report import words
from luff.report.diagram import Diagram, diagram
from luff.report.markup import Style, templates
from luff.report.plot import Plot, Window, plot, windows
from luff.report.resolved import latency_limits_ms, spec_yaml
from luff.samples import Samples
from luff.units import show_duration
from luff.words import Arm, Verdict

__all__ = ["html"]

DOTS_MOST = 1000
"""The most dots for an arm in one plot."""
DOTS_ON_PAGE = 40_000
"""The most dots for an arm on the whole page, so that many runs still make a page that opens."""
DOTS_LEAST = 60
BAR_WIDTH = 150
_EXPOSURE_PERCENT = 99.0


def html(
    outcomes: Sequence[Outcome],
    *,
    today: date,
    generated_at: str,
    samples: Mapping[str, Samples] | None = None,
    title: str | None = None,
) -> str:
    """
    Return the page about *outcomes*, in their order.

    *samples* are those of each run by its id, for the plots, where they were
    kept; *generated_at* is printed as it is; *today* decides about known failures.
    """
    kept = samples or {}
    dots = max(DOTS_LEAST, min(DOTS_MOST, DOTS_ON_PAGE // max(1, len(outcomes))))
    environment = templates()
    style = Style.of(environment, "report.css")
    return environment.get_template("report.html.j2").render(
        title=title or _title(outcomes),
        style=style.text,
        style_hash=style.sha256,
        runs=[_run(number, outcome, kept.get(outcome.run), today, dots) for number, outcome in enumerate(outcomes, 1)],
        counts=[(verdict, count) for verdict in Verdict if (count := Counter(o.verdict for o in outcomes)[verdict])],
        unrestored=sum(is_unrestored(outcome) for outcome in outcomes),
        generated_at=generated_at,
        version=__version__,
    )


@dataclass(frozen=True, slots=True)
class _Bar:
    """This is how sure a check is, drawn: shares of violations as places along a line of `BAR_WIDTH`."""

    share: float
    bound: float
    threshold: float
    label: str


@dataclass(frozen=True, slots=True)
class _Check:
    """This is a row of the table of checks."""

    result: CheckResult
    mark: str
    control: bool
    measured: str
    sample: str
    place: str
    bar: _Bar | None


@dataclass(frozen=True, slots=True)
class _Run:
    """This is everything that the template says of one run, in words."""

    number: int
    outcome: Outcome
    mark: str
    took: str
    began: str
    standing: Standing
    unrestored: bool
    restored: str
    edge: str
    fault: str
    who: str
    hypothesis: str
    diagram: Diagram
    checks: list[_Check]
    plot: Plot | None
    windows: list[tuple[str, list[Window]]]
    fired: bool
    timeline: list[tuple[str, str, str]]
    spec: str


def _run(number: int, outcome: Outcome, samples: Samples | None, today: date, dots: int) -> _Run:
    took = words.duration_s(outcome)
    return _Run(
        number=number,
        outcome=outcome,
        mark=words.MARKS[outcome.verdict],
        took="" if took is None else show_duration(took),
        began=_moment(outcome.started_at),
        standing=standing(outcome, today=today),
        unrestored=is_unrestored(outcome),
        restored=words.restore_words(outcome),
        edge=words.edge_words(outcome),
        fault=words.fault_words(outcome),
        who="" if outcome.next is None else words.who_words(outcome.next.who),
        hypothesis=str(words.experiment_spec(outcome).get("hypothesis") or ""),
        diagram=diagram(outcome),
        checks=[_check(check) for check in outcome.checks],
        plot=None if samples is None else plot(samples, limits_ms=_limits(outcome), dots_most=dots),
        windows=[]
        if samples is None
        else [(phase, list(rows)) for phase, rows in groupby(windows(samples), lambda row: row.phase)],
        fired=_fired(outcome),
        timeline=_timeline(outcome),
        spec=spec_yaml(outcome),
    )


def _fired(outcome: Outcome) -> bool:
    """Return whether as many requests took the twin as the experiment asks for."""
    asked = words.experiment_spec(outcome).get("evidence")
    at_least = words.percent_of(asked.get("atLeast")) if isinstance(asked, dict) else None
    percent = _EXPOSURE_PERCENT if at_least is None else at_least
    return outcome.evidence is not None and outcome.evidence.exposure * 100 >= percent


def _limits(outcome: Outcome) -> list[tuple[float, str]]:
    limits = latency_limits_ms(outcome)
    return [
        (limits[check.id], check.expression)
        for check in outcome.checks
        if check.kind == "latency" and check.arm == Arm.FAULT and check.id in limits
    ]


def _check(check: CheckResult) -> _Check:
    return _Check(
        result=check,
        mark=words.MARKS[check.verdict],
        control=check.arm == Arm.CONTROL,
        measured=words.measured_words(check),
        sample=words.sample_words(check),
        place=words.place_words(check),
        bar=_bar(check),
    )


def _bar(check: CheckResult) -> _Bar | None:
    if check.bound is None or check.threshold is None or check.n <= 0:
        return None
    share = check.violations / check.n
    # The claim stands in the middle unless the bound is far beyond it.
    whole = max(2 * check.threshold, 1.1 * check.bound, 1.1 * share, 1e-6)
    return _Bar(
        share=round(BAR_WIDTH * share / whole, 1),
        bound=round(BAR_WIDTH * check.bound / whole, 1),
        threshold=round(BAR_WIDTH * check.threshold / whole, 1),
        label=words.bound_words(check),
    )


def _title(outcomes: Sequence[Outcome]) -> str:
    return outcomes[0].experiment if len(outcomes) == 1 else f"{len(outcomes)} resilience experiments"


def _moment(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%d %B %Y, %H:%M:%S UTC").lstrip("0")
    except ValueError:
        return text


def _timeline(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Return each step as (how long after the first, phase, note)."""
    steps = []
    for entry in outcome.timeline:
        try:
            began, now = (datetime.fromisoformat(at) for at in (outcome.timeline[0].at, entry.at))
            after = f"+{(now - began).total_seconds():.1f} s"
        except (ValueError, TypeError):
            after = entry.at
        steps.append((after, entry.phase, entry.note or ""))
    return steps
