"""`luff runs coverage`: what was ever broken, and what is known since."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from luff.cli.options import store_option
from luff.errors import NothingSelected

__all__ = ["coverage"]


@click.command()
@store_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
def coverage(store: str | None, output: str) -> None:
    """Show each hop that was ever broken, by kind of fault: the newest verdict and the age of the last proof."""
    from luff.report.trend import age_words
    from luff.report.words import visible
    from luff.store import Store  # SQLAlchemy costs a third of a second

    with Store.open(store) as opened:
        lines = opened.coverage()
    if output == "json":
        found: list[dict[str, Any]] = [
            {
                "caller": line.caller,
                "dependency": line.dependency,
                "fault": line.fault,
                "mesh_kind": line.mesh_kind,
                "place": line.place,
                "experiment": line.experiment,
                "spec_sha256": line.spec_sha256,
                "verdict": line.verdict,
                "run": line.run,
                "started_at": written(line.started_at),
                "last_pass_at": written(line.last_pass_at),
                "runs": line.runs,
            }
            for line in lines
        ]
        click.echo(json.dumps(found, indent=2))
        return
    if not lines:
        raise NothingSelected("no hop was ever broken in this history", next_step="`luff demo` breaks some")
    now = datetime.now(UTC)
    rows = [("HOP", "FAULT", "WHERE", "VERDICT", "AGE", "LAST PASS", "RUNS")]
    rows += [
        (
            visible(f"{line.caller or 'anyone'} → {line.dependency}"),
            visible(line.fault or "–"),
            visible(line.place),
            line.verdict.value,
            age_words(line.started_at, now),
            age_words(line.last_pass_at, now),
            str(line.runs),
        )
        for line in lines
    ]
    click.echo("\n".join(columns(rows)))


def written(at: datetime | None) -> str | None:
    """Return *at* as ISO 8601."""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return *rows* as lines with their columns under each other."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
