"""`luff report`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from luff.cli.options import Voice, store_option, voice_options
from luff.errors import UsageError

__all__ = ["report"]


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="RUN|FILE...")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write one self-contained HTML page.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results as JSON.")
@click.option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="Write Markdown.")
@store_option
@voice_options
def report(
    what: tuple[str, ...],
    html_file: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    markdown_file: Path | None,
    store: str | None,
    voice: Voice,
) -> None:
    """Report stored runs (by id) or result files; several are merged. Without a format it prints to the terminal."""
    from luff.cli.paint import print_outcomes
    from luff.cli.results import ReportFiles, write_reports
    from luff.exit_codes import exit_code
    from luff.outcome import Outcome
    from luff.report.document import read_outcomes
    from luff.samples import Samples
    from luff.store import Store

    outcomes: list[Outcome] = []
    samples: dict[str, Samples] = {}
    stored = [name for name in what if not Path(name).is_file()]
    for name in what:
        if name not in stored:
            outcomes += read_outcomes(Path(name).read_text(encoding="utf-8", errors="replace"), name)
    if stored:
        missing = [name for name in stored if "/" in name or name.endswith(".json")]
        if missing:
            raise UsageError(f"there is no file {missing[0]}")
        with Store.open(store) as opened:
            for name in stored:
                outcome = opened.outcome(name)
                outcomes.append(outcome)
                kept = opened.samples(outcome.run)
                if kept is not None:
                    samples[outcome.run] = kept
    files = ReportFiles(html=html_file, json=json_file, junit=junit_file, markdown=markdown_file)
    if not files.any:
        print_outcomes(outcomes, voice=voice)
        return
    write_reports(outcomes, files, code=exit_code(outcomes, today=datetime.now(UTC).date()), samples=samples)
    if voice.level >= 0:
        for path in files.written:
            click.echo(f"wrote {path}", err=True)
