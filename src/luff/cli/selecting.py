"""Which of the experiments in the given files are meant: ``-k`` and ``-l``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from luff.errors import NothingSelected, UsageError
from luff.model import Experiment

__all__ = ["matches_keyword", "matches_labels", "selected"]

_WORD = re.compile(r"\(|\)|[^\s()]+")


def selected(experiments: Sequence[Experiment], *, keyword: str | None, labels: str | None) -> tuple[Experiment, ...]:
    """Return the experiments that both filters leave, in order; `NothingSelected` when that is none."""
    if not experiments:
        raise NothingSelected("there is no experiment in these files")
    left = tuple(
        each
        for each in experiments
        if (keyword is None or matches_keyword(each.name, keyword))
        and (labels is None or matches_labels(each.metadata.labels, labels))
    )
    if not left:
        names = ", ".join(each.name for each in experiments)
        raise NothingSelected(f"nothing was selected of: {names}", next_step="loosen -k or -l")
    return left


def matches_keyword(name: str, expression: str) -> bool:
    """Return whether *name* satisfies *expression*: substrings joined by ``and``, ``or``, ``not`` and brackets."""
    words = _WORD.findall(expression)
    value, rest = _either(words, name)
    if rest:
        raise UsageError(f"-k {expression!r} cannot be read at {rest[0]!r}")
    return value


def _either(words: list[str], name: str) -> tuple[bool, list[str]]:
    value, words = _both(words, name)
    while words and words[0] == "or":
        other, words = _both(words[1:], name)
        value = value or other
    return value, words


def _both(words: list[str], name: str) -> tuple[bool, list[str]]:
    value, words = _one(words, name)
    while words and words[0] == "and":
        other, words = _one(words[1:], name)
        value = value and other
    return value, words


def _one(words: list[str], name: str) -> tuple[bool, list[str]]:
    if not words or words[0] in ("and", "or", ")"):
        raise UsageError("-k ends where a word should follow")
    first, *rest = words
    if first == "not":
        value, rest = _one(rest, name)
        return not value, rest
    if first == "(":
        value, rest = _either(rest, name)
        if not rest or rest[0] != ")":
            raise UsageError("-k has a bracket that is not closed")
        return value, rest[1:]
    return first in name, rest


def matches_labels(labels: dict[str, str], selector: str) -> bool:
    """Return whether *labels* satisfy *selector*: ``key=value``, ``key!=value``, ``key``, ``!key``, joined by commas."""
    terms = [part.strip() for part in selector.split(",")]
    if not all(terms):
        raise UsageError(f"-l {selector!r} has an empty part")
    for term in terms:
        if "!=" in term:
            key, _, value = term.partition("!=")
            holds = labels.get(key.strip()) != value.strip()
        elif "=" in term:
            key, _, value = term.replace("==", "=").partition("=")
            holds = labels.get(key.strip()) == value.strip()
        elif term.startswith("!"):
            holds = term[1:] not in labels
        else:
            holds = term in labels
        if not holds:
            return False
    return True
