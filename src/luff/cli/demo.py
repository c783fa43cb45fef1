"""`luff demo`: the tour."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from luff.cli import tell
from luff.cli.options import MeshOptions, Voice, option, store_option, voice_options
from luff.errors import UsageError

if TYPE_CHECKING:
    from luff.cli.results import ReportFiles
    from luff.cli.running import RunSettings
    from luff.outcome import Outcome
    from luff.parse import Documents

__all__ = ["demo"]

REPORT = "luff-report.html"


@click.command()
@option("--report-dir", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where the report goes.")
@option("--keep-lab", is_flag=True, help="Leave the lab running afterwards.")
@store_option
@voice_options
def demo(report_dir: Path, keep_lab: bool, store: str | None, voice: Voice) -> int:
    """
    Start a local mesh with the real Envoy, run the shipped bookinfo experiments, write a report.

    Exits 0 when every experiment ended with its expected verdict and every route is back.
    """
    from luff.cli.files import read_documents
    from luff.cli.mesh_choice import bookinfo
    from luff.cli.results import ReportFiles
    from luff.cli.running import RunSettings
    from luff.lab import lifetimes as labs
    from luff.shipped import shipped

    try:
        report_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{report_dir} cannot be made: {error.strerror}", next_step="name another --report-dir"
        ) from error
    files = ReportFiles(html=report_dir / REPORT)
    files.check()
    documents = read_documents([_as_seen_from_here(shipped("experiments") / "bookinfo")])
    kept = Path(labs.start(bookinfo(), detach=True).directory) if keep_lab else None
    try:
        mesh = MeshOptions(lab=True, context=None, kubeconfig=None, namespace=None, lab_dir=kept)
        settings = RunSettings(mesh=mesh, store=store, seed=None, fail_fast=False, voice=voice)
        return _tour(documents, settings, files)
    finally:
        if kept is not None:
            where = f"--dir {shlex.quote(str(kept))}"
            tell(f'the lab is still up: eval "$(luff lab env {where})"; end it with `luff lab down {where}`', err=True)


def _tour(documents: Documents, settings: RunSettings, files: ReportFiles) -> int:
    """Run the experiments, write the report, say how they ended, and return the exit code."""
    from luff.cli.paint import print_outcomes
    from luff.cli.results import all_written, write_reports
    from luff.cli.running import run_all
    from luff.exit_codes import RESTORE_NOT_VERIFIED, exit_code

    voice = settings.voice
    done = run_all(documents.experiments, documents, settings, each=lambda o: print_outcomes([o], voice=voice))
    code = exit_code(done.outcomes, today=datetime.now(UTC).date(), signal=done.signal)
    surprises = _surprises(done.outcomes)
    if done.signal is None and code != RESTORE_NOT_VERIFIED:
        code = 1 if surprises or len(done.outcomes) < len(documents.experiments) else 0
    written = all_written(lambda: write_reports(done.outcomes, files, code=code, samples=done.samples), code=code)
    _conclude(done.outcomes, surprises, files.html if written else None)
    return code


def _as_seen_from_here(path: Path) -> Path:
    """Return *path* as a person in this folder would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _surprises(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the outcomes that are not as the experiment's annotation says, as sentences."""
    found = []
    for outcome in outcomes:
        said = str(outcome.verdict) + (f"({outcome.reason})" if outcome.reason else "")
        if outcome.expected is not None and outcome.expected not in (str(outcome.verdict), said):
            found.append(f"{outcome.experiment} was expected to be {outcome.expected} and is {said}")
    return found


def _conclude(outcomes: Sequence[Outcome], surprises: Sequence[str], page: Path | None) -> None:
    back = sum(outcome.restore is not None and outcome.restore.api == "verified" for outcome in outcomes)
    injected = sum(outcome.restore is not None for outcome in outcomes)
    tell("")
    for surprise in surprises:
        tell(f"SURPRISE: {surprise}")
    if not surprises:
        tell(
            f"{len(outcomes)} of {len(outcomes)} experiments ended as expected, {back} of {injected} restores verified."
        )
    if page is not None:
        tell(f"report: {page.resolve()}")
