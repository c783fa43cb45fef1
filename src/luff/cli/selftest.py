"""`luff selftest`: the matrix of planted defects and the checks that must catch them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from luff.cli.options import MeshOptions, Voice, voice_options
from luff.errors import UsageError

if TYPE_CHECKING:
    from luff.cli.running import Done, RunSettings
    from luff.outcome import Outcome
    from luff.selftest import Case, Finding

__all__ = ["selftest"]

ROUNDS = 2
"""What says that another run may help, as on a machine that was busy, gets one more."""


@click.command()
@click.option("--defect", "names", metavar="NAME", multiple=True, help="Only this row; may be given several times.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="The shape of the answer.")
@voice_options
def selftest(names: Sequence[str], output: str, voice: Voice) -> int:
    """
    Run every check against its planted defect, in a local mesh with the real Envoy.

    Exits 0 when every defect was caught by exactly the checks that must catch
    it and no healthy service was blamed, else 1. Nothing goes into history.
    """
    from luff.cli.running import RunSettings
    from luff.exit_codes import RESTORE_NOT_VERIFIED, is_unrestored

    cases = _chosen(names)
    mesh = MeshOptions(lab=True, context=None, kubeconfig=None, namespace=None)
    with tempfile.TemporaryDirectory(prefix="luff-selftest-", ignore_cleanup_errors=True) as folder:
        store = f"sqlite:///{Path(folder) / 'runs.db'}"
        settings = RunSettings(mesh=mesh, store=store, seed=None, fail_fast=False, voice=Voice(-1, voice.color))
        findings, done = _findings(cases, settings, talk=voice.level >= 0)
    if output == "json":
        click.echo(json.dumps([_as_json(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    if any(finding.outcome is not None and is_unrestored(finding.outcome) for finding in findings):
        return RESTORE_NOT_VERIFIED
    if done.signal is not None:
        return 128 + done.signal
    return 0 if all(finding.ok for finding in findings) else 1


def _chosen(names: Sequence[str]) -> list[Case]:
    from luff.selftest import CASES

    known = [case.name for case in CASES]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no row {name}", next_step="the rows are: " + ", ".join(known))
    return [case for case in CASES if not names or case.name in names]


def _findings(cases: Sequence[Case], settings: RunSettings, *, talk: bool) -> tuple[list[Finding], Done]:
    """Return what came of each of *cases*, in their order, and what the last round ended with."""
    from luff.cli.running import run_all
    from luff.selftest import documents_for, finding_for

    by_name = {case.name: case for case in cases}
    found: dict[str, Finding] = {}

    def take(outcome: Outcome) -> None:
        finding = finding_for(by_name[outcome.experiment], outcome)
        found[outcome.experiment] = finding
        if talk:
            said = "ok" if finding.ok else finding.trouble
            click.echo(f"{len(found):>3} of {len(cases)}  {outcome.experiment}: {finding.verdict}, {said}", err=True)

    left = list(cases)
    for _ in range(ROUNDS):
        documents = documents_for(left)
        done = run_all(documents.experiments, documents, settings, each=take)
        left = [case for case in left if (finding := found.get(case.name)) is not None and finding.may_be_chance]
        if not left or done.signal is not None:
            break
        if talk:
            click.echo(f"once more, the machine may have been busy: {', '.join(case.name for case in left)}", err=True)
    return [found.get(case.name) or finding_for(case, None) for case in cases], done


def _print(findings: Sequence[Finding]) -> None:
    from luff.cli.coverage import columns

    rows: list[tuple[str, ...]] = [("ROW", "DEFECT", "CAUGHT BY", "VERDICT", "", "BECAUSE")]
    rows += [
        (
            finding.case.name,
            finding.case.defect or "none",
            ", ".join(finding.caught_by) or "-",
            finding.verdict,
            "ok" if finding.ok else finding.trouble,
            finding.sentence,
        )
        for finding in findings
    ]
    for line in columns(rows):
        click.echo(line)
    defects = [finding for finding in findings if finding.case.defect is not None]
    healthy = [finding for finding in findings if finding.case.defect is None]
    click.echo()
    click.echo(
        f"{sum(f.ok for f in defects)} of {len(defects)} defects caught, "
        f"{sum(f.ok for f in healthy)} of {len(healthy)} healthy services passed."
    )


def _as_json(finding: Finding) -> dict[str, Any]:
    case, outcome = finding.case, finding.outcome
    return {
        "name": case.name,
        "defect": case.defect,
        "must": {"verdict": case.expected, "caughtBy": sorted(case.caught_by)},
        "verdict": finding.verdict,
        "caughtBy": list(finding.caught_by),
        "ok": finding.ok,
        "because": finding.sentence,
        "outcome": None if outcome is None else outcome.model_dump(mode="json", by_alias=True),
    }
