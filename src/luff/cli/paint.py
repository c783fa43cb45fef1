"""Printing outcomes for people: in colour on a terminal, plain through a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console

from luff.cli import mute
from luff.cli.options import Voice
from luff.outcome import Outcome
from luff.report.console import console

__all__ = ["console_for", "print_outcomes"]


class _Console(Console):
    """This is a console that outlives its reader: rich would end the process, and with it runs that have to restore."""

    def on_broken_pipe(self) -> None:
        """Go quiet."""
        self.quiet = True
        mute(self.file)


def console_for(voice: Voice, *, stderr: bool = False) -> Console:
    """Return rich's console for stdout or stderr, with the asked for colours."""
    return _Console(stderr=stderr, no_color=True if voice.color is False else None, highlight=False, soft_wrap=True)


def print_outcomes(outcomes: Sequence[Outcome], *, voice: Voice, stderr: bool = False) -> None:
    """Print the block of each outcome to stdout, or to stderr."""
    out = console_for(voice, stderr=stderr)
    encoding = ((sys.stderr if stderr else sys.stdout).encoding or "ascii").lower().replace("-", "")
    text = console(
        outcomes,
        today=datetime.now(UTC).date(),
        width=out.width if out.is_terminal else None,
        ascii_only=not encoding.startswith("utf"),
    )
    out.print(text, soft_wrap=True)
