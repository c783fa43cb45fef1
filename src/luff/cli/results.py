"""Writing the result files that a command line asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from luff.files import check_writable, write_atomically
from luff.outcome import Outcome
from luff.report.document import render, report
from luff.report.html import html
from luff.report.junit import junit
from luff.report.markdown import markdown
from luff.samples import Samples

__all__ = ["ReportFiles", "write_reports"]


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """This is which files are wanted, each ``None`` where it is not."""

    html: Path | None = None
    json: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None

    @property
    def written(self) -> tuple[Path, ...]:
        """Return the paths that were asked for."""
        return tuple(path for path in (self.json, self.junit, self.html, self.markdown) if path is not None)

    @property
    def any(self) -> bool:
        """Return whether any file was asked for."""
        return bool(self.written)

    def check(self) -> None:
        """Raise `UsageError` now when a file could not be written later."""
        for path in self.written:
            check_writable(path)


def write_reports(
    outcomes: Sequence[Outcome], files: ReportFiles, *, code: int, samples: Mapping[str, Samples] | None = None
) -> None:
    """Write each file whole or not at all."""
    now = datetime.now(UTC)
    if files.json is not None:
        write_atomically(files.json, render(report(outcomes, code)))
    if files.junit is not None:
        write_atomically(files.junit, junit(outcomes, today=now.date()))
    if files.markdown is not None:
        write_atomically(files.markdown, markdown(outcomes, today=now.date()))
    if files.html is not None:
        page = html(outcomes, today=now.date(), samples=samples or {}, generated_at=now.strftime("%Y-%m-%d %H:%M UTC"))
        write_atomically(files.html, page)
