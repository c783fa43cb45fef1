"""`luff run`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from luff.cli.options import MeshOptions, Voice, consent, mesh_options, option, store_option, voice_options

__all__ = ["run"]


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@option(
    "-k",
    "keyword",
    "--keyword",
    metavar="EXPR",
    help="Only experiments whose name holds EXPR (words with and, or, not).",
)
@option(
    "-l",
    "labels",
    "--selector",
    metavar="LABELS",
    help="Only experiments with these labels, such as team=books,tier=1.",
)
@option("-x", "--fail-fast", is_flag=True, help="Stop after the first that did not pass.")
@click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Change a field, such as spec.traffic.rate=10/s."
)
@option("--seed", type=click.IntRange(0), help="The seed of everything random but the secrets.")
@option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results as JSON.")
@option("--junit", "junit_file", type=click.Path(path_type=Path), help="Write JUnit XML.")
@option("--html", "html_file", type=click.Path(path_type=Path), help="Write one self-contained HTML page.")
@option("--markdown", "markdown_file", type=click.Path(path_type=Path), help="Write Markdown.")
@option("--fail-on", default="fail,inconclusive,aborted,error", show_default=True, help="Which verdicts are not 0.")
@option("--soft-fail", is_flag=True, help="Exit 0 whatever the verdicts; an unverified restore is still 7.")
@consent("--yes", is_flag=True, help="Use the kubeconfig's current context.")
@mesh_options
@store_option
@voice_options
def run(
    files: tuple[Path, ...],
    keyword: str | None,
    labels: str | None,
    fail_fast: bool,
    overrides: tuple[str, ...],
    seed: int | None,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    markdown_file: Path | None,
    fail_on: str,
    soft_fail: bool,
    yes: bool,
    mesh: MeshOptions,
    store: str | None,
    voice: Voice,
) -> int:
    """Run the experiments in FILES and say what was learnt. Every route is put back, whatever happens."""
    from luff.cli.files import overrides_of, read_documents
    from luff.cli.paint import print_outcomes
    from luff.cli.results import ReportFiles, write_reports
    from luff.cli.running import RunSettings, run_all
    from luff.cli.selecting import selected
    from luff.exit_codes import exit_code, parse_fail_on

    verdicts = parse_fail_on(fail_on)
    reports = ReportFiles(html=html_file, json=json_file, junit=junit_file, markdown=markdown_file)
    reports.check()
    documents = read_documents(files, overrides=overrides_of(overrides))
    experiments = selected(documents.experiments, keyword=keyword, labels=labels)
    settings = RunSettings(mesh=mesh, store=store, seed=seed, fail_fast=fail_fast, voice=voice)
    done = run_all(experiments, documents, settings, each=lambda outcome: print_outcomes([outcome], voice=voice))
    code = exit_code(
        done.outcomes, today=datetime.now(UTC).date(), fail_on=verdicts, soft_fail=soft_fail, signal=done.signal
    )
    write_reports(done.outcomes, reports, code=code, samples=done.samples)
    return code
