"""
Outcomes as GitHub's workflow commands, which it shows on the line of the YAML.

What must stay true: nothing in an outcome ends a command or begins another
one. In messages ``%``, CR and LF are escaped, in properties ``:`` and ``,`` as
well, and control characters are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luff.report.findings import Finding
from luff.report.words import visible

__all__ = ["commands"]

TITLE_MOST = 250
MESSAGE_MOST = 4000
"""GitHub cuts a message at 4 KiB."""


def commands(found: Sequence[Finding], *, locate: Callable[[str], str] = str) -> str:
    """Return a line for each of *found*; *locate* turns the name of a file into one from the repository's root."""
    return "".join(f"{_command(finding, locate)}\n" for finding in found)


def _command(finding: Finding, locate: Callable[[str], str]) -> str:
    properties = {"title": finding.title[:TITLE_MOST]}
    if finding.file is not None:
        properties = {"file": locate(finding.file), "line": str(finding.line or 1), **properties}
    written = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    message = finding.message if len(finding.message) <= MESSAGE_MOST else f"{finding.message[: MESSAGE_MOST - 1]}…"
    return f"::{finding.level} {written}::{_data(message)}"


def _data(text: str) -> str:
    return visible(text, keep_newlines=True).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(visible(text)).replace(":", "%3A").replace(",", "%2C")
