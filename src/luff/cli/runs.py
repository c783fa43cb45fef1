"""`luff runs list|show`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from luff.cli.options import Voice, option, store_option, voice_options

__all__ = ["runs"]

LIST_USUAL = 20
LIST_MOST = 1000


@click.group()
def runs() -> None:
    """Look at history."""


@runs.command("list")
@store_option
@option(
    "--limit", type=click.IntRange(1, LIST_MOST), default=LIST_USUAL, show_default=True, help="How many, newest first."
)
@click.option("--experiment", metavar="NAME", help="Only runs of this experiment.")
@click.option(
    "--verdict", type=click.Choice(["passed", "failed", "inconclusive", "aborted", "error"]), help="Only these."
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "name"]), default="table", help="The shape of the answer."
)
@voice_options
def list_(
    store: str | None, limit: int, experiment: str | None, verdict: str | None, output: str, voice: Voice
) -> None:
    """List runs, newest first."""
    from luff.store import RunFilter, Store  # SQLAlchemy costs a third of a second

    with Store.open(store) as opened:
        rows = opened.runs(RunFilter(experiment=experiment, verdict=verdict), limit=limit)
    if output == "name":
        click.echo("".join(f"{row.run}\n" for row in rows), nl=False)
        return
    found = [
        {
            "run": row.run,
            "experiment": row.experiment,
            "verdict": row.verdict,
            "reason": row.reason,
            "phase": row.phase,
            "mesh": row.mesh_name,
            "started_at": row.started_at.isoformat().replace("+00:00", "Z"),
        }
        for row in rows
    ]
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        if voice.level >= 0:
            click.echo("no runs yet; `luff demo` makes some", err=True)
        return
    now = datetime.now(UTC)
    click.echo(f"{'RUN':<17} {'AGE':>6} {'VERDICT':<13} {'ROUTES':<11} EXPERIMENT")
    for row in rows:
        verdict_shown = (row.verdict or "unfinished") + ("" if row.reason is None else "*")
        click.echo(
            f"{row.run:<17} {_age((now - row.started_at).total_seconds()):>6} {verdict_shown:<13} {row.phase:<11} {row.experiment}"
        )


@runs.command()
@store_option
@click.argument("run")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", help="The shape of the answer.")
@voice_options
def show(store: str | None, run: str, output: str, voice: Voice) -> None:
    """Show one run; a unique beginning of its id is enough."""
    from luff.cli.paint import print_outcomes
    from luff.report.document import render
    from luff.store import Store  # SQLAlchemy costs a third of a second

    with Store.open(store) as opened:
        outcome = opened.outcome(run)
    if output == "json":
        click.echo(render(outcome), nl=False)
        return
    print_outcomes([outcome], voice=voice)


def _age(seconds: float) -> str:
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
