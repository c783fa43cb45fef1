"""Writing the result files that a command line asked for, and what code hosts want to see."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click

from luff.cli import tell
from luff.errors import LuffError, UsageError
from luff.exit_codes import FAIL_ON, SEVERITY
from luff.files import check_writable, write_atomically
from luff.gate import Decision
from luff.outcome import Outcome
from luff.report.document import render, report
from luff.report.findings import Finding, findings
from luff.report.github import commands
from luff.report.gitlab import CODE_QUALITY, JUNIT, code_quality
from luff.report.junit import junit
from luff.report.markdown import BYTES_MOST, markdown
from luff.samples import Samples

__all__ = ["ReportFiles", "all_written", "write_reports", "write_to_github"]

SUMMARY_BYTES_MOST = 1000 * 1024
"""GitHub drops the whole summary of a step above 1 MiB; what stands in it already counts."""
SUMMARY_BYTES_LEAST = 4096


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """This is which files are wanted, each ``None`` where it is not; with *stdout* what would be in *json* is printed, too."""

    html: Path | None = None
    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    gitlab_dir: Path | None = None
    stdout: bool = field(default=False, kw_only=True)

    @property
    def written(self) -> tuple[Path, ...]:
        """Return the paths that were asked for."""
        in_gitlab_dir = () if self.gitlab_dir is None else (self.gitlab_dir / CODE_QUALITY, self.gitlab_dir / JUNIT)
        single = (self.json, self.junit, self.html, self.markdown)
        return tuple(path for path in (*single, *in_gitlab_dir) if path is not None)

    @property
    def any(self) -> bool:
        """Return whether any file was asked for."""
        return bool(self.written)

    def check(self) -> None:
        """Raise `UsageError` now when a file could not be written later."""
        if self.gitlab_dir is not None:
            try:
                self.gitlab_dir.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"--gitlab-dir {self.gitlab_dir} cannot be made: {error.strerror}",
                    next_step="choose another folder",
                ) from error
        for path in self.written:
            check_writable(path)


def all_written(write: Callable[[], None], *, code: int) -> bool:
    """
    Do *write*, and return whether all was written, after runs that end with *code*.

    A report that could not be written hides neither a fault that may be live,
    nor a signal or a failure: beside those it is only said.
    """
    try:
        write()
    except BrokenPipeError:
        # Who read what goes to stdout has left.
        return False
    except Exception as error:
        if SEVERITY.index(code) > SEVERITY.index(LuffError.exit_code):
            raise
        tell(f"luff: {error.message if isinstance(error, LuffError) else f'a report is missing: {error!r}'}", err=True)
        return False
    return True


def write_reports(
    outcomes: Sequence[Outcome],
    files: ReportFiles,
    *,
    code: int,
    samples: Mapping[str, Samples] | None = None,
    decision: Decision | None = None,
    fail_on: Collection[str] = FAIL_ON,
    places: Mapping[str, tuple[str, int]] | None = None,
) -> None:
    """Write each file whole or not at all. *places* are where experiments are written, by name."""
    now = datetime.now(UTC)
    decided = decision or Decision(code)
    document = report(outcomes, code, waivers_used=decided.waivers_used, quarantined=decided.quarantined)
    if files.json is not None:
        write_atomically(files.json, render(document))
    if files.junit is not None:
        write_atomically(files.junit, junit(outcomes, today=now.date(), fail_on=fail_on, excused=decided.excused))
    if files.markdown is not None:
        write_atomically(files.markdown, _markdown(outcomes, decision, BYTES_MOST))
    if files.html is not None:
        from luff.report.html import html  # its templates take a twentieth of what it costs to start

        page = html(outcomes, today=now.date(), samples=samples or {}, generated_at=now.strftime("%Y-%m-%d %H:%M UTC"))
        write_atomically(files.html, page)
    if files.gitlab_dir is not None:
        found = code_quality(_findings(outcomes, decided, places), locate=_from_root(os.environ.get("CI_PROJECT_DIR")))
        write_atomically(files.gitlab_dir / CODE_QUALITY, found)
        text = junit(outcomes, today=now.date(), fail_on=fail_on, excused=decided.excused)
        write_atomically(files.gitlab_dir / JUNIT, text)
    if files.stdout:
        # JSON is in UTF-8, whatever a terminal's encoding is. Last, since of all these it alone cannot be written again.
        click.echo(render(document).rstrip("\n").encode())


def write_to_github(
    outcomes: Sequence[Outcome],
    decision: Decision,
    *,
    places: Mapping[str, tuple[str, int]] | None = None,
    err: bool = False,
) -> None:
    """Print workflow commands to stdout, or with *err* to stderr, and add to the file that ``GITHUB_STEP_SUMMARY`` names, if it does."""
    locate = _from_root(os.environ.get("GITHUB_WORKSPACE"))
    click.echo(commands(_findings(outcomes, decision, places), locate=locate), nl=False, err=err)
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    path = Path(summary)
    try:
        left = SUMMARY_BYTES_MOST - (path.stat().st_size if path.exists() else 0)
        if left < SUMMARY_BYTES_LEAST:
            click.echo("luff: the step summary is full already; see the other reports", err=True)
            return
        with path.open("ab") as stream:
            stream.write(_markdown(outcomes, decision, min(left, BYTES_MOST)).encode("utf-8", "backslashreplace"))
    except OSError as error:
        # The verdict stands without it, and the exit code must not change for it.
        click.echo(f"luff: the step summary {path} could not be written: {error.strerror}", err=True)


def _markdown(outcomes: Sequence[Outcome], decision: Decision | None, bytes_most: int) -> str:
    return markdown(
        outcomes,
        today=datetime.now(UTC).date(),
        decision=None if decision is None else decision.words,
        said=() if decision is None else decision.said,
        bytes_most=bytes_most,
    )


def _findings(
    outcomes: Sequence[Outcome], decision: Decision, places: Mapping[str, tuple[str, int]] | None
) -> list[Finding]:
    return findings(outcomes, level=decision.level, excused=decision.excused, places=places)


def _from_root(root: str | None) -> Callable[[str], str]:
    """Return what turns the name of a file into one from *root*; it stays as it is where there is none, or outside of it."""

    def locate(file: str) -> str:
        if root is None:
            return file
        try:
            return Path(os.path.abspath(file)).relative_to(os.path.abspath(root)).as_posix()  # noqa: PTH100  # links stay
        except ValueError:
            return file

    return locate
