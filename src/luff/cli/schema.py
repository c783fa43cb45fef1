"""`luff schema`."""

from __future__ import annotations

import json

import click

from luff.errors import UsageError

__all__ = ["schema"]


@click.command()
@click.argument("kind")
def schema(kind: str) -> None:
    """
    Print the JSON Schema of KIND: Experiment, LabWorkload, Suite, GameDay, Policy, outcome or report.

    Editors read it: `luff schema Experiment > experiment.json`, then
    `# yaml-language-server: $schema=experiment.json` on top of the file.
    """
    from luff.schema import KINDS, schema_for  # pydantic costs a tenth of a second

    known = {name.lower(): name for name in KINDS}
    if kind.lower() not in known:
        raise UsageError(f"there is no kind {kind}", next_step="the kinds are: " + ", ".join(KINDS))
    click.echo(json.dumps(schema_for(known[kind.lower()]), indent=2))
