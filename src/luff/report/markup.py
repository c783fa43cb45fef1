"""
The templates of every page that needs nothing else, and its style.

What must stay true: everything that came from outside is escaped, and its
control characters are shown, whoever wrote the template.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from luff.report import words
from luff.units import show_count, show_duration, show_percent

__all__ = ["Style", "environment_of", "templates"]

_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=(?:%|(?:ms|s|h|[0-9]{3})\b))|(?<=[≤≥=]) (?=[0-9])")


def environment_of(package: str) -> Environment:
    """Return the templates of *package*; all that reaches a page is escaped by them."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )


def templates() -> Environment:
    """Return the templates of reports, with what they call."""
    environment = environment_of("luff.report")
    environment.filters.update(
        prose=_prose,
        tight=_tight,
        duration_ms=lambda value: "–" if value is None else show_duration(value / 1000),
        duration_s=show_duration,
        count=show_count,
        percent=show_percent,
    )
    return environment


@dataclass(frozen=True, slots=True)
class Style:
    """This is a page's own style, and its hash by which the page's policy knows it."""

    text: Markup

    @classmethod
    def of(cls, environment: Environment, *names: str) -> Style:
        """Return the style sheets *names* as one. Nothing from outside is in them."""
        assert environment.loader is not None
        sheets = [environment.loader.get_source(environment, name)[0] for name in names]
        return cls(Markup("".join(sheets)))  # noqa: S704  # our own files

    @property
    def sha256(self) -> str:
        """Return the hash as a policy names it."""
        return base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode()


def _shown(value: Any) -> Any:
    """Let every text that reaches the page pass here: control characters are shown, not sent to the browser."""
    return (
        value if isinstance(value, Markup) or not isinstance(value, str) else words.visible(value, keep_newlines=True)
    )


def _prose(text: str) -> Markup:
    """Return *text* escaped, with what stands between backquotes as code."""
    parts = words.visible(text).split("`")
    if len(parts) % 2 == 0:
        return escape(_tight("`".join(parts)))
    return Markup().join(Markup("<code>{}</code>").format(part) if number % 2 else escape(_tight(part)) for number, part in enumerate(parts))  # fmt: skip


def _tight(text: str) -> str:
    """Return *text* with each number and its unit, or its groups of digits, kept on one line."""
    return _BEFORE_UNIT.sub("\u00a0", text)
