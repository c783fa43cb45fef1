"""`luff trend`: what held, since when it does not, and how near to its limit it comes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from luff.cli.coverage import columns, written
from luff.cli.options import Voice, store_option, voice_options
from luff.errors import NothingSelected

if TYPE_CHECKING:
    from luff.report.trend import Change, CheckLine, NamedRun, Standing, TrendPoint

__all__ = ["trend"]

RUNS_USUAL = 1000
RUNS_MOST = 10_000
SPARKS = 48
MARKS_SHOWN = 48
ROWS_SHOWN = 12
VERSION_SHOWN = 10
"""How much of a hash is enough to find it."""
VERSION_MOST = 40
_HASH = re.compile(r"[0-9a-f]{12,}")
_ASCII: Mapping[int, str] = {
    ord(sign): plain
    for sign, plain in {"✓": "+", "✗": "x", "■": "#", "→": "->", "≤": "<=", "≥": ">=", "–": "-"}.items()
}


@click.command()
@store_option
@click.argument("experiment", required=False)
@click.option(
    "--last",
    type=click.IntRange(1, RUNS_MOST),
    default=RUNS_USUAL,
    show_default=True,
    help="With a name: how many of the newest runs to look at, of each place and each way in which it was written.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer.")
@voice_options
def trend(store: str | None, experiment: str | None, last: int, output: str, voice: Voice) -> None:
    """
    Show how an experiment did over time; without a name one line for each.

    The lab, each cluster, and each way in which the experiment was written are
    told apart: their numbers answer different questions.
    """
    from luff.report.trend import by_series, newest_first
    from luff.store import Store  # SQLAlchemy costs a third of a second

    with Store.open(store) as opened:
        standings = newest_first(opened.standings(experiment=experiment))
        points: list[TrendPoint] = []
        if experiment is not None and standings:
            for each in standings:
                points += opened.trend(each.series, limit=last)
    if not standings:
        if experiment is None:
            raise NothingSelected("no runs yet", next_step="`luff demo` makes some")
        raise NothingSelected(f"no run of {experiment!r} has ended in this history", next_step="see `luff trend`")
    now = datetime.now(UTC)
    if experiment is None:
        if output == "json":
            click.echo(json.dumps([_standing_json(each) for each in standings], indent=2))
            return
        _print(_overview(standings, now))
        return
    found = by_series(points)
    if output == "json":
        written_as = [
            {**_standing_json(each), "points": [_point_json(point) for point in found.get(each.series, [])]}
            for each in standings
        ]
        click.echo(json.dumps({"experiment": experiment, "series": written_as}, indent=2))
        return
    lines: list[str] = []
    seen: set[tuple[str, str]] = set()
    for each in standings:
        place = (each.series.mesh_kind, each.series.place)
        whole = place not in seen or voice.level > 0
        seen.add(place)
        lines += _series(each, found.get(each.series, []), now, whole=whole)
    _print(lines)


def _print(lines: Sequence[str]) -> None:
    """Print *lines*, without bars and marks that the other end has no characters for."""
    text = "\n".join(lines)
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    if not encoding.startswith("utf"):
        text = text.translate(_ASCII)
        text = text.encode("ascii", "replace").decode()
    click.echo(text)


def _overview(standings: Sequence[Standing], now: datetime) -> list[str]:
    """Return a line for each experiment and place, as it is written now."""
    from luff.report.trend import age_words
    from luff.report.words import visible

    rows = [("EXPERIMENT", "WHERE", "NOW", "RUNS", "HELD", "LAST PASS", "BROKEN SINCE")]
    seen: set[tuple[str, str, str]] = set()
    for each in standings:
        series = each.series
        place = (series.experiment, series.mesh_kind, series.place)
        if place in seen:
            continue
        seen.add(place)
        rows.append(
            (
                visible(series.experiment),
                visible(series.place),
                "–" if each.holds is None else "holds" if each.holds else "BROKEN",
                str(each.runs),
                _rate(each),
                age_words(each.last_pass_at, now),
                "" if each.broken is None else f"{_day(each.broken.at)}{_between(each)}",
            )
        )
    return columns(rows)


def _rate(each: Standing) -> str:
    ratio = each.pass_ratio
    return "–" if ratio is None else f"{_percent(ratio)} ({each.passed}/{each.passed + each.failed})"


def _percent(ratio: float) -> str:
    """Return *ratio* in percent; what is not all is never rounded up to all, nor what is not none down to none."""
    return f"{ratio * 100:.0f} %" if ratio in (0.0, 1.0) else f"{min(99.9, max(0.1, ratio * 100)):.1f} %"


def _between(each: Standing) -> str:
    """Return the commits between which it broke, else the revisions of the subject, where the runs knew theirs."""
    for name in ("commit", "revision"):
        good, broken = getattr(each.good, name, None), getattr(each.broken, name, None)
        if broken is not None:
            return f" at {_short(broken)}" if good in (None, broken) else f" in {_short(good)}..{_short(broken)}"
    return ""


def _short(version: str) -> str:
    """Return a commit or another name of a version in no more than a column can take."""
    from luff.report.words import visible

    return visible(version)[: VERSION_SHOWN if _HASH.fullmatch(version) else VERSION_MOST]


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M")


def _series(each: Standing, points: Sequence[TrendPoint], now: datetime, *, whole: bool) -> list[str]:
    from luff.report.trend import age_words, changes, check_lines
    from luff.report.words import MARKS, visible

    series = each.series
    where = "in the lab" if series.mesh_kind == "lab" else f"on the cluster {visible(series.place)}"
    head = f"{visible(series.experiment)} {where}, as written in spec {series.spec_sha256[:10]}"
    held = f"held in {_rate(each)} of the runs that proved anything, {each.runs} runs"
    if not whole:
        return [head, f"  an earlier spec: {held}, last run {_day(each.newest_at)} UTC", ""]
    lines = [head, f"  {held} from {_day(each.first_at)} to {_day(each.newest_at)} UTC"]
    lines.append(f"  last pass: {_ago(age_words(each.last_pass_at, now))}")
    lines += _broken(each)
    if points:
        lines.append("  verdicts: " + "".join(MARKS[point.verdict] for point in points[-MARKS_SHOWN:]))
        lines += _turns(changes(points))
        for line in check_lines(points):
            lines += _check(line)
    return [*lines, ""]


def _ago(words: str) -> str:
    return words if words == "never" else f"{words} ago"


def _broken(each: Standing) -> list[str]:
    broken, good = each.broken, each.good
    if broken is None:
        return []
    lines = [f"  BROKEN since {_day(broken.at)} UTC: run {broken.run} was the first to fail{_tested(broken)}"]
    if good is None:
        return [*lines, "    it never passed before"]
    lines.append(f"    the last that passed is run {good.run}{_tested(good)}")
    if good.commit and broken.commit and good.commit != broken.commit:
        lines.append(f"    see `git log {good.commit[:12]}..{broken.commit[:12]}`")
    lines.append(f"    see `luff runs diff {good.run} {broken.run}`")
    return lines


def _tested(run: NamedRun | TrendPoint) -> str:
    """Return what was tested in *run*, where it is known."""
    from luff.report.words import visible

    at = f", at commit {run.commit[:12]}" if run.commit else ""
    return at + (f", revision {visible(run.revision)[:VERSION_MOST]}" if run.revision else "")


def _turns(found: Sequence[Change]) -> list[str]:
    """Return when it broke and when it held again, the newest turns."""
    return [
        f"  {_day(change.point.started_at)} UTC  {'stopped holding' if change.broke else 'held again'}"
        f"  run {change.point.run}{_tested(change.point)}"
        for change in found[-ROWS_SHOWN:]
    ]


def _check(line: CheckLine) -> list[str]:
    """Return one check over time: bars on a terminal, and in words what they show."""
    from luff.report.trend import sparkline
    from luff.report.words import visible

    values = line.measured
    name = visible(line.id) + (" on the control arm" if line.arm == "control" else "")
    head = f"  {name}: {visible(line.expression)}"
    if not values:
        return [head, "    nothing was measured"]
    newest, worst = values[-1], (max if line.at_most else min)(values)
    said = f"    newest {_shown(newest, line)}, worst {_shown(worst, line)}, of {len(values)} runs"
    if sys.stdout.isatty():
        return [
            head,
            f"    {sparkline(values, most=SPARKS, limit=line.limit, worst=max if line.at_most else min)}",
            said,
        ]
    return [head, said]


def _shown(value: float, line: CheckLine) -> str:
    from luff.report.trend import value_words

    share = ""
    if line.limit and line.unit not in ("%", "percent"):
        share = f" ({value / line.limit * 100:.0f} % of its limit)"
    return value_words(value, line.unit) + share


def _standing_json(each: Standing) -> dict[str, Any]:
    return {
        "experiment": each.series.experiment,
        "mesh_kind": each.series.mesh_kind,
        "place": each.series.place,
        "spec_sha256": each.series.spec_sha256,
        "runs": each.runs,
        "passed": each.passed,
        "failed": each.failed,
        "pass_ratio": each.pass_ratio,
        "holds": each.holds,
        "first_at": written(each.first_at),
        "newest_at": written(each.newest_at),
        "newest_verdict": each.newest_verdict,
        "last_pass_at": written(each.last_pass_at),
        "last_fail_at": written(each.last_fail_at),
        "broken": None if each.broken is None else _broken_json(each.broken, each.good),
    }


def _broken_json(broken: NamedRun, good: NamedRun | None) -> dict[str, Any]:
    return {
        "at": written(broken.at),
        "run": broken.run,
        "commit": broken.commit,
        "revision": broken.revision,
        "good_run": None if good is None else good.run,
        "good_commit": None if good is None else good.commit,
        "good_revision": None if good is None else good.revision,
    }


def _point_json(point: TrendPoint) -> dict[str, Any]:
    from luff.report.trend import limit_in_unit

    return {
        "run": point.run,
        "started_at": written(point.started_at),
        "verdict": point.verdict,
        "reason": point.reason,
        "commit": point.commit,
        "branch": point.branch,
        "revision": point.revision,
        "checks": [
            {
                "id": check.id,
                "arm": check.arm,
                "verdict": check.verdict,
                "expression": check.expression,
                "measured": check.measured,
                "limit": limit_in_unit(check.expression, check.unit),
                "unit": check.unit,
            }
            for check in point.checks
        ],
    }
