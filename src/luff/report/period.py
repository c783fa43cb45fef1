"""
A stretch of time as one HTML page, for a reader who was not there.

What must stay true:

1. The page loads nothing and runs nothing; see `luff.report.html`.
2. The lab, each cluster and each way of writing an experiment are told apart,
   in numbers and in plots; what says "now" is about how it is written now.
3. Its size is bounded, whatever the history's, and what was left out is said.
4. What a picture shows, a table beside it says; thinning keeps the worst.
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from markupsafe import Markup, escape

from luff import __version__
from luff.report import words
from luff.report.markup import Style, templates
from luff.report.trend import (
    STALE_AFTER,
    Change,
    CheckLine,
    Coverage,
    NamedRun,
    Series,
    Standing,
    TrendPoint,
    age_words,
    by_series,
    changes,
    check_lines,
    newest_first,
    value_words,
)
from luff.units import show_count
from luff.words import Arm, Verdict

__all__ = ["Facts", "period_html"]

RUNS_LISTED = 2500
"""The most runs in the list; those that did not pass come first, then the newest."""
SERIES_DRAWN = 120
CHECKS_DRAWN = 4
POINTS_ON_PAGE = 40_000
POINTS_MOST, POINTS_LEAST = 240, 40
FAILS_DRAWN = 60
BUCKETS_MOST = 8
TICK_APART = 12.0
TURNS_LISTED = 40
VERSION_SHOWN = 12
PLOT_WIDTH, PLOT_HEIGHT = 460.0, 128.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 10.0, 10.0, 24.0


@dataclass(frozen=True, slots=True)
class Facts:
    """
    This is what a page is made of.

    *points* are the finished runs from *since* and before *until*, oldest
    first; *before* is whether each series held when they began, *after* where it
    stands at the end, *coverage* that at the end. *unrestored* are the runs whose routes are not known to be
    back; *left_out* is whether *points* had to leave out the oldest.
    """

    since: datetime
    until: datetime
    points: Sequence[TrendPoint]
    before: Mapping[Series, bool | None]
    after: Sequence[Standing]
    coverage: Sequence[Coverage]
    unrestored: Sequence[str] = ()
    left_out: bool = False


@dataclass(frozen=True, slots=True)
class _Turn:
    """This is something that stopped holding: when, which runs and revisions are around it, and whether it holds again."""

    experiment: str
    place: str
    anchor: str | None
    when: str
    run: str
    before: str
    why: str
    versions: str
    now: str
    mended: bool


@dataclass(frozen=True, slots=True)
class _Plot:
    """This is one check over time, as coordinates. *said* is the same in words; what is *flat* needs no picture."""

    name: str
    expression: str
    said: str
    label: str
    flat: bool
    line: str
    crosses: str
    limit: float | None
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str, str], ...]


@dataclass(frozen=True, slots=True)
class _Bucket:
    """This is a row of the table beside the plots: a part of the period, and the worst of each drawn check in it."""

    when: str
    runs: int
    passed: int
    failed: int
    worst: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    """This is all about one series."""

    anchor: str
    experiment: str
    place: str
    spec: str
    earlier: bool
    state: str
    verdict: str
    said: str
    plots: list[_Plot]
    checks: list[str]
    buckets: list[_Bucket]


def period_html(facts: Facts, *, generated_at: str, now: datetime) -> str:
    """Return the page about *facts*. *now* decides how old a proof is where the period has not ended yet."""
    end = min(facts.until, now)
    found = by_series(facts.points)
    current = _current(facts.after)
    sections = _sections(facts, found, current)
    anchors = {series: section.anchor for series, section in sections}
    turns = _turns(
        found, facts.before, {each.series: each for each in facts.after}, {each.series for each in current}, anchors
    )
    mended = _mended(found, facts.before)
    run_now = [each for each in current if each.series in found]
    broken = [each for each in run_now if each.holds is False]
    stopped = {series for series, _ in turns}
    stale = _stale(current, end, anchors)
    listed = _listed(facts.points)
    environment = templates()
    style = Style.of(environment, "report.css", "period.css")
    return environment.get_template("period.html.j2").render(
        title=f"Resilience, {_days(facts.since, end)}",
        style=style.text,
        style_hash=style.sha256,
        unrestored=list(facts.unrestored),
        summary=_summary(facts, found, run_now, end),
        cards=[
            ("passed", sum(each.holds is True for each in run_now), "hold now"),
            ("failed", len(broken), "do not hold now"),
            ("inconclusive", sum(each.holds is None for each in run_now), "never proven either way"),
            ("aborted", len(stale), f"not proven for {STALE_AFTER.days} days or more"),
        ],
        turns=[turn for _, turn in turns[:TURNS_LISTED]],
        turns_more=max(0, len(turns) - TURNS_LISTED),
        all_along=[_named(each, anchors) for each in broken if each.series not in stopped],
        mended=[_named(each, anchors) for each in run_now if each.holds and each.series in mended - stopped],
        held=[_named(each, anchors) for each in run_now if each.holds and each.series not in stopped | mended],
        stale=stale,
        stale_days=STALE_AFTER.days,
        coverage=[_covered(line, end) for line in facts.coverage],
        sections=[section for _, section in sections],
        sections_more=len(found) - len(sections),
        runs=[_run_row(point) for point in listed],
        runs_more=len(facts.points) - len(listed),
        left_out=facts.left_out,
        total=len(facts.points),
        generated_at=generated_at,
        version=__version__,
    )


def _current(standings: Iterable[Standing]) -> list[Standing]:
    """Return the standing of each experiment in each place as it is written now."""
    found: dict[tuple[str, str, str], Standing] = {}
    for each in newest_first(standings):
        found.setdefault((each.series.experiment, each.series.mesh_kind, each.series.place), each)
    return list(found.values())


def _place_words(series: Series) -> str:
    return "in the lab" if series.mesh_kind == "lab" else f"on {words.visible(series.place)}"


def _summary(facts: Facts, found: dict[Series, list[TrendPoint]], run_now: list[Standing], end: datetime) -> list[str]:
    """Return what there is to know first, as sentences."""
    when = f"between {_day(facts.since)} and {_day(end)}"
    if not facts.points:
        return [f"Nothing was tested {when}. What is said below rests on older runs."]
    experiments = {series.experiment for series in found}
    hops = {(line.caller, line.dependency) for line in facts.coverage if line.started_at >= facts.since}
    places = list(dict.fromkeys(_place_words(series) for series in sorted(found, key=lambda each: each.mesh_kind)))
    counts = Counter(point.verdict for point in facts.points)
    undecided = sum(count for verdict, count in counts.items() if verdict not in (Verdict.PASSED, Verdict.FAILED))
    broken = sum(each.holds is False for each in run_now)
    tested = f"{_number(len(experiments), 'experiment')} broke {_number(len(hops), 'hop')} of the mesh for test traffic"
    told = f"in {show_count(counts[Verdict.FAILED])} they did not"
    unsure = f"; {_number(undecided, 'run')} could not tell" if undecided else ""
    sentences = [
        f"{tested}, {_number(len(facts.points), 'time')} {when}, {_joined(places)}.",
        f"In {_number(counts[Verdict.PASSED], 'run')} the callers coped as expected, {told}{unsure}.",
    ]
    if broken:
        apart = ", each place counted apart" if len(places) > 1 else ""
        sentences.append(
            f"At the end {show_count(broken)} of {_number(len(run_now), 'experiment')} did not hold{apart}."
        )
    elif any(each.holds for each in run_now):
        sentences.append("At the end everything that was proven held.")
    if any(series.mesh_kind == "lab" for series in found):
        sentences.append("Numbers from the lab say how the code behaves; they say nothing about production's latency.")
    return sentences  # fmt: skip


def _number(count: int, noun: str) -> str:
    return f"{show_count(count)} {noun}{'' if count == 1 else 's'}"


def _joined(parts: Sequence[str]) -> str:
    if len(parts) > 5:
        parts = [*parts[:4], f"{len(parts) - 4} other places"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _turns(
    found: dict[Series, list[TrendPoint]],
    held_before: Mapping[Series, bool | None],
    after: dict[Series, Standing],
    current: Container[Series],
    anchors: dict[Series, str],
) -> list[tuple[Series, _Turn]]:
    """Return what stopped holding, what still does not first, then the newest; of each series its last time."""
    turns: list[tuple[Series, Change, _Turn]] = []
    for series, points in found.items():
        turned = changes(points, held_before=held_before.get(series))
        broke = [number for number, change in enumerate(turned) if change.broke]
        if not broke:
            continue
        mended = next((change for change in turned[broke[-1] + 1 :] if not change.broke), None)
        now = "still does not hold" if series in current else "written differently since"
        if mended is not None:
            now = f"holds again since {_moment(mended.point.started_at)}"
        turn = _turn(
            series, turned[broke[-1]], after.get(series), anchors.get(series), len(broke), now, mended is not None
        )
        turns.append((series, turned[broke[-1]], turn))
    turns.sort(key=lambda each: each[1].point.started_at, reverse=True)
    turns.sort(key=lambda each: (each[2].mended, each[0] not in current))
    return [(series, turn) for series, _, turn in turns]


def _turn(
    series: Series, broke: Change, standing: Standing | None, anchor: str | None, times: int, now: str, mended: bool
) -> _Turn:
    point = broke.point
    good: TrendPoint | NamedRun | None = broke.before
    if good is None and standing is not None and standing.broken is not None and standing.broken.run == point.run:
        good = standing.good
    return _Turn(
        experiment=series.experiment,
        place=_place_words(series),
        anchor=anchor,
        when=_moment(point.started_at) + ("" if times == 1 else f", the last of {times} times"),
        run=point.run,
        before="" if good is None else good.run,
        why="; ".join(
            f"{check.id} {'nothing' if check.measured is None else value_words(check.measured, check.unit)}, expected {check.expression}"
            for check in point.checks
            if check.verdict is Verdict.FAILED
        ),
        versions=_versions(good, point),
        now=now,
        mended=mended,
    )


def _mended(found: dict[Series, list[TrendPoint]], held_before: Mapping[Series, bool | None]) -> set[Series]:
    """Return the series that did not hold when the period began, and were proven to hold in it."""
    turned = {series: changes(points, held_before=held_before.get(series)) for series, points in found.items()}
    return {series for series, each in turned.items() if each and not each[-1].broke}


def _versions(good: TrendPoint | NamedRun | None, bad: TrendPoint) -> str:
    """Return the commits around a break and the revisions of the subject, as far as the runs knew them."""
    pairs = [(name, getattr(good, name, None), getattr(bad, name)) for name in ("commit", "revision")]
    return ", ".join(f"{name}s {_between(before, now)}" for name, before, now in pairs if now is not None)


def _between(good: str | None, bad: str) -> str:
    shown = words.visible(bad)[:VERSION_SHOWN]
    if good is None:
        return shown
    return f"{shown} both times" if good == bad else f"{words.visible(good)[:VERSION_SHOWN]}..{shown}"


def _stale(
    current: Sequence[Standing], end: datetime, anchors: dict[Series, str]
) -> list[tuple[str, str, str | None, str]]:
    """Return what was not proven for long: experiment, place, anchor, and since when; what waits longest first."""
    first = datetime.min.replace(tzinfo=UTC)
    old = [each for each in current if each.proven_at is None or end - each.proven_at >= STALE_AFTER]
    old.sort(key=lambda each: each.proven_at or first)
    return [
        (
            each.series.experiment,
            _place_words(each.series),
            anchors.get(each.series),
            "never proven"
            if each.proven_at is None
            else f"{age_words(each.proven_at, end)} ago, {'held' if each.holds else 'did not hold'} then",
        )
        for each in old
    ]  # fmt: skip


def _named(each: Standing, anchors: dict[Series, str]) -> tuple[str, str, str | None]:
    return each.series.experiment, _place_words(each.series), anchors.get(each.series)


def _covered(line: Coverage, end: datetime) -> tuple[str, str, str, Verdict, str, str, str, bool]:
    return (
        f"{line.caller or 'anyone'} → {line.dependency}",
        line.fault or "–",
        words.visible(line.place),
        line.verdict,
        words.MARKS[line.verdict],
        age_words(line.started_at, end),
        age_words(line.last_pass_at, end),
        line.last_pass_at is None or end - line.last_pass_at >= STALE_AFTER,
    )


def _sections(
    facts: Facts, found: dict[Series, list[TrendPoint]], current: Sequence[Standing]
) -> list[tuple[Series, _Section]]:
    """Return a section for each series, what does not hold first; no more than fit."""
    is_current = {each.series for each in current}
    standings = {each.series: each for each in facts.after}

    def urgency(series: Series) -> tuple[bool, int, Series]:
        holds = standings[series].holds if series in standings else None
        return series not in is_current, 0 if holds is False else 1 if holds is None else 2, series

    ordered = sorted(found, key=urgency)[:SERIES_DRAWN]
    lines = {series: _drawn_lines(found[series]) for series in ordered}
    plots = sum(len(each) for each in lines.values())
    points_most = max(POINTS_LEAST, min(POINTS_MOST, POINTS_ON_PAGE // max(1, plots)))
    first = min((point.started_at for point in facts.points), default=facts.since)
    last = max((point.started_at for point in facts.points), default=facts.until)
    span = (first, max(last, first + timedelta(seconds=1)))
    return [
        (
            series,
            _section(
                number, series, found[series], lines[series], standings.get(series), span, points_most,
                earlier=series not in is_current,
            ),
        )
        for number, series in enumerate(ordered, 1)
    ]  # fmt: skip


def _drawn_lines(points: Sequence[TrendPoint]) -> list[CheckLine]:
    """Return the checks worth a plot: those that measured something, of the fault arm first."""
    lines = [line for line in check_lines(points) if line.measured]
    lines.sort(key=lambda line: (line.arm != Arm.FAULT, line.limit is None, not any(line.measured)))
    return lines[:CHECKS_DRAWN]


def _section(
    number: int,
    series: Series,
    points: Sequence[TrendPoint],
    lines: Sequence[CheckLine],
    standing: Standing | None,
    span: tuple[datetime, datetime],
    points_most: int,
    *,
    earlier: bool,
) -> _Section:
    counts = Counter(point.verdict for point in points)
    holds = None if standing is None else standing.holds
    state = "never proven" if holds is None else "holds" if holds else "does not hold"
    others = len(points) - counts[Verdict.PASSED] - counts[Verdict.FAILED]
    said = f"{_number(len(points), 'run')}: {show_count(counts[Verdict.PASSED])} passed, {show_count(counts[Verdict.FAILED])} failed"
    if others:
        said += f", {show_count(others)} could not tell"
    if standing is not None and standing.broken is not None:
        said += f". Broken since {_moment(standing.broken.at)}"
    return _Section(
        anchor=f"series-{number}",
        experiment=series.experiment,
        place=_place_words(series),
        spec=series.spec_sha256[:10],
        earlier=earlier,
        state=state,
        verdict="inconclusive" if holds is None else "passed" if holds else "failed",
        said=said,
        plots=[_plot(line, span, points_most) for line in lines],
        checks=[line.id for line in lines],
        buckets=_buckets(points, lines),
    )


def _worst_of(line: CheckLine) -> Callable[[Sequence[float]], float]:
    return max if line.at_most else min


def _plot(line: CheckLine, span: tuple[datetime, datetime], points_most: int) -> _Plot:
    """Return the geometry of *line*: its values, thinned to the worst ones, the limit, and a cross for each failed run."""
    worst = _worst_of(line)
    first, last = span
    length_s = (last - first).total_seconds()
    measured = [(point, check) for point, check in line.points if check.measured is not None]
    values = line.measured
    top = max([*values, line.limit or 0.0, 0.0]) * 1.06 or 1.0

    def x(at: datetime) -> float:
        return round(LEFT + (PLOT_WIDTH - LEFT - RIGHT) * (at - first).total_seconds() / length_s, 1)

    def y(value: float) -> float:
        return round(TOP + (PLOT_HEIGHT - TOP - BOTTOM) * (1 - max(0.0, value) / top), 1)

    shares = max(1, -(-len(measured) // points_most))
    drawn = []
    for low in range(0, len(measured), shares):
        part = values[low : low + shares]
        place = low + part.index(worst(part))
        drawn.append((x(measured[place][0].started_at), y(values[place])))
    failed = [
        (x(point.started_at), y(check.measured or 0.0)) for point, check in measured if check.verdict is Verdict.FAILED
    ]
    crosses = list(dict.fromkeys(failed))
    crosses = crosses[:: max(1, -(-len(crosses) // FAILS_DRAWN))]
    said = f"{value_words(values[-1], line.unit)} in the newest run, {value_words(worst(values), line.unit)} at worst"
    ticks: list[tuple[float, str]] = []
    for value in dict.fromkeys([max(values) if line.limit is None else line.limit, max(values), 0.0]):
        if all(abs(y(value) - other) >= TICK_APART for other, _ in ticks):
            ticks.append((y(value), value_words(value, line.unit) if value else "0"))
    within_days = last - first < timedelta(days=2)
    ends = [f"{at:%Y-%m-%d %H:%M}" if within_days else _day(at) for at in span]
    return _Plot(
        name=line.id + (" (control arm)" if line.arm == Arm.CONTROL else ""),
        expression=line.expression,
        said=said,
        label=f"{line.id} over time, {line.expression}: {said}",
        flat=not any(values) and not crosses,
        line="M" + "L".join(f"{left:g} {down:g}" for left, down in drawn) + ("h.1" if len(drawn) == 1 else ""),
        crosses="".join(f"M{left - 3:g} {down - 3:g}l6 6m0-6l-6 6" for left, down in crosses),
        limit=None if line.limit is None else y(line.limit),
        y_ticks=tuple(ticks),
        x_ticks=((LEFT, "start", ends[0]), (PLOT_WIDTH - RIGHT, "end", ends[1])),
    )  # fmt: skip


def _buckets(points: Sequence[TrendPoint], lines: Sequence[CheckLine]) -> list[_Bucket]:
    """Return the table beside the plots: each run where there are few, else parts of the period with as many runs each."""
    whole = min(BUCKETS_MOST, len(points))
    edges = [round(place * len(points) / whole) for place in range(whole + 1)]
    values = [{point.run: check.measured for point, check in line.points} for line in lines]
    rows = []
    for low, high in itertools.pairwise(edges):
        part = points[low:high]
        counts = Counter(point.verdict for point in part)
        worst = []
        for line, of_run in zip(lines, values, strict=True):
            measured = [value for point in part if (value := of_run.get(point.run)) is not None]
            worst.append(value_words(_worst_of(line)(measured), line.unit) if measured else "–")
        when = f"{part[0].started_at:%Y-%m-%d}"
        if high - low == 1 or part[0].started_at.date() == part[-1].started_at.date():
            when = f"{part[0].started_at:%Y-%m-%d %H:%M}"
        rows.append(_Bucket(when, len(part), counts[Verdict.PASSED], counts[Verdict.FAILED], tuple(worst)))
    return rows


def _listed(points: Sequence[TrendPoint]) -> list[TrendPoint]:
    """Return the runs to list, newest first; where they are too many, those that did not pass before those that did."""
    newest = list(reversed(points))
    if len(newest) <= RUNS_LISTED:
        return newest
    chosen = [point for point in newest if point.verdict is not Verdict.PASSED][:RUNS_LISTED]
    chosen += [point for point in newest if point.verdict is Verdict.PASSED][: RUNS_LISTED - len(chosen)]
    return sorted(chosen, key=lambda point: (point.started_at, point.run), reverse=True)


def _run_row(point: TrendPoint) -> tuple[Markup, ...]:
    place = "lab" if point.mesh_kind == "lab" else point.mesh_name
    when = f"{point.started_at:%Y-%m-%d %H:%M}"
    texts = (
        when,
        point.verdict,
        words.MARKS[point.verdict],
        point.experiment,
        place,
        point.run,
        (point.commit or "")[:8],
    )
    return tuple(_escaped(text) for text in texts)


@functools.lru_cache(maxsize=4096)
def _escaped(text: str) -> Markup:
    """Return *text* as the page shows it; a long list says the same words again and again."""
    return escape(words.visible(text))


def _day(at: datetime) -> str:
    return f"{at.day} {at:%B %Y}"


def _days(since: datetime, until: datetime) -> str:
    last = until - timedelta(microseconds=1)
    return _day(since) if since.date() == last.date() else f"{_day(since)} to {_day(last)}"


def _moment(at: datetime) -> str:
    return f"{at.day} {at:%B %Y, %H:%M} UTC"
