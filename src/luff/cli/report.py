"""`luff report`."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli.options import Voice, store_option, voice_options
from luff.errors import NothingSelected, UsageError
from luff.files import check_writable

if TYPE_CHECKING:
    from luff.report.period import Facts
    from luff.store import Store

__all__ = ["report"]


@click.command()
@click.argument("what", nargs=-1, metavar="RUN|FILE...")
@click.option(
    "--since", metavar="TIME", help="Instead of runs, all of history since a date, or so long ago, such as 30d."
)
@click.option("--until", metavar="TIME", help="All of history until a date, that day included; by default until now.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write one self-contained HTML page.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results as JSON.")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="Write Markdown.")
@store_option
@voice_options
def report(
    what: tuple[str, ...],
    since: str | None,
    until: str | None,
    html_file: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    markdown_file: Path | None,
    store: str | None,
    voice: Voice,
) -> None:
    """
    Report stored runs (by id) or result files; several are merged. Without a format it prints to the terminal.

    With --since or --until the report is about that time: one HTML page that says what was
    tested, what held, what stopped holding and when, and what was not proven for long.
    """
    if since is None and until is None:
        _report_runs(what, html_file, json_file, junit_file, markdown_file, store=store, voice=voice)
        return
    if what:
        raise UsageError("name either runs or a time, not both", next_step="leave out --since and --until, or the runs")
    if html_file is None or any((json_file, junit_file, markdown_file)):
        raise UsageError("the report about a time is an HTML page", next_step="give --html FILE, and no other format")
    check_writable(html_file)
    _write_period(since, until, html_file, store)
    _tell(voice, html_file)


def _report_runs(what: tuple[str, ...], *formats: Path | None, store: str | None, voice: Voice) -> None:
    from luff.cli.paint import print_outcomes
    from luff.cli.results import ReportFiles, write_reports
    from luff.exit_codes import exit_code

    files = ReportFiles(*formats)
    if not what:
        raise UsageError("say what to report", next_step="name runs or files, or a time with --since")
    outcomes, samples = _outcomes(what, store)
    if not files.any:
        print_outcomes(outcomes, voice=voice)
        return
    write_reports(outcomes, files, code=exit_code(outcomes, today=datetime.now(UTC).date()), samples=samples)
    _tell(voice, *files.written)


def _tell(voice: Voice, *paths: Path) -> None:
    if voice.level >= 0:
        for path in paths:
            click.echo(f"wrote {path}", err=True)


if TYPE_CHECKING:
    from luff.outcome import Outcome
    from luff.samples import Samples


def _outcomes(what: tuple[str, ...], store: str | None) -> tuple[list[Outcome], dict[str, Samples]]:
    from luff.cli.runs import means_file, read_file
    from luff.store import Store

    outcomes: list[Outcome] = []
    samples: dict[str, Samples] = {}
    stored = [name for name in what if not means_file(name)]
    for name in what:
        if name not in stored:
            outcomes += read_file(name)
    if stored:
        with Store.open(store) as opened:
            for name in stored:
                outcome = opened.outcome(name)
                outcomes.append(outcome)
                kept = opened.samples(outcome.run)
                if kept is not None:
                    samples[outcome.run] = kept
    return outcomes, samples


def _write_period(since: str | None, until: str | None, path: Path, store: str | None) -> None:
    from luff.files import write_atomically
    from luff.report.period import period_html
    from luff.report.trend import moment
    from luff.store import Store

    now = datetime.now(UTC)
    end = now if until is None else moment(until, "--until", now=now, end=True)
    begin = None if since is None else moment(since, "--since", now=now)
    if begin is not None and begin >= end:
        raise UsageError("--since is not before --until", next_step="turn them round")
    if begin is not None and begin > now:
        raise UsageError(f"--since {since!r} has not come yet", next_step="give a time that has")
    with _nothing_let_go():
        with Store.open(store) as opened:
            facts = _facts(opened, begin, end)
        page = period_html(facts, generated_at=now.strftime("%Y-%m-%d %H:%M UTC"), now=now)
    write_atomically(path, page)


@contextlib.contextmanager
def _nothing_let_go() -> Iterator[None]:
    """Look for no garbage meanwhile: a page holds on to all that it reads, and looking through that takes a sixth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _facts(opened: Store, begin: datetime | None, end: datetime) -> Facts:
    from luff.lifecycle import Phase
    from luff.report.period import Facts
    from luff.store import PERIOD_RUNS, RunFilter

    after = opened.standings(until=end)
    if not after:
        raise NothingSelected(
            "no run had ended by then in this history, so there is nothing to report", next_step="see `luff runs list`"
        )
    first = min(each.first_at for each in after)
    since = first if begin is None else begin
    points = opened.period(since=since, until=end)
    lost = RunFilter(phases=(Phase.ARMED, Phase.LIVE, Phase.WITHDRAWING, Phase.STRANDED), until=end)
    return Facts(
        since=since,
        until=end,
        points=points,
        before={} if since <= first else opened.held(until=since),
        after=after,
        coverage=opened.coverage(until=end),
        unrestored=[row.run for row in opened.runs(lost, limit=1000)],
        left_out=len(points) >= PERIOD_RUNS,
    )
