"""
A small JSONPath: ``$``, ``.name``, ``['name']``, ``[0]``, ``[*]``. Enough to point at things, with no expressions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["Path", "compile"]

_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[\s*(?:'([^']*)'|\"([^\"]*)\"|(-?[0-9]+)|(\*))\s*\]|\.(\*)")


@dataclass(frozen=True, slots=True)
class Path:
    """This is a path taken apart: a name, an index, or ``None`` for every one."""

    text: str
    steps: tuple[str | int | None, ...]

    def select(self, document: Any) -> list[Any]:
        """Return everything that the path leads to in *document*, in order."""
        here = [document]
        for step in self.steps:
            here = [inner for value in here for inner in _follow(value, step)]
        return here


@lru_cache(maxsize=256)
def compile(text: str) -> Path:  # noqa: A001  # as in `re`: always called as jsonpath.compile
    """Return *text* as a path; ValueError says where it cannot be read."""
    if not text.startswith("$"):
        raise ValueError(f"the path {text!r} does not begin with $")
    at, steps = 1, list[str | int | None]()
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None:
            raise ValueError(f"the path {text!r} cannot be read at {text[at:]!r}")
        # An empty name in quotes is a name too.
        name = next((each for each in found.group(1, 2, 3) if each is not None), None)
        steps.append(name if name is not None else int(found[4]) if found[4] else None)
        at = found.end()
    return Path(text, tuple(steps))


def _follow(value: Any, step: str | int | None) -> list[Any]:
    if step is None:
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if isinstance(step, str):
        return [value[step]] if isinstance(value, dict) and step in value else []
    return [value[step]] if isinstance(value, list) and -len(value) <= step < len(value) else []
