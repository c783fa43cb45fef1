"""
Which of the experiments in the given files are meant: suites, ``-k``, ``-l``, ``--shard``, ``--last-failed``.

They are applied in this order, each on what the one before left, so that the
shards of one selection are the same on every machine, whatever its history.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from luff.errors import NothingSelected, UsageError

if TYPE_CHECKING:
    from luff.model import Experiment
    from luff.outcome import Outcome

__all__ = ["Choice", "choose", "matches_keyword", "matches_labels", "selected"]

NESTED_MOST = 100
"""How deep brackets and ``not`` may be nested in ``-k``."""
_WORD = re.compile(r"\(|\)|[^\s()]+")


@dataclass(frozen=True, slots=True)
class Choice:
    """This is what the command line said about which experiments are meant."""

    keyword: str | None = None
    labels: str | None = None
    shard: str | None = None
    last_failed: bool = False


def choose(
    experiments: Sequence[Experiment],
    choice: Choice,
    *,
    newest: Callable[[Sequence[Experiment]], Mapping[str, Outcome]],
    today: date,
) -> tuple[Experiment, ...]:
    """Return the experiments that *choice* leaves, in order; *newest* is asked for their newest outcomes if need be."""
    from luff.suite import last_failed, parse_shard, shard  # a list of runs needs no documents

    part = None if choice.shard is None else parse_shard(choice.shard)
    left = selected(experiments, keyword=choice.keyword, labels=choice.labels)
    if part is not None:
        whole, left = len(left), shard(left, *part)
        if not left:
            raise NothingSelected(
                f"shard {choice.shard} is empty: {whole} selected", next_step=f"use at most {whole} shards"
            )
    if choice.last_failed:
        left = last_failed(left, newest(left), today=today)
        if not left:
            raise NothingSelected(
                "none of the selected experiments failed in its newest run here", next_step="leave out --last-failed"
            )
    return left


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
    value, rest = _either(words, name, 0)
    if rest:
        raise UsageError(f"-k {expression!r} cannot be read at {rest[0]!r}")
    return value


def _either(words: list[str], name: str, depth: int) -> tuple[bool, list[str]]:
    value, words = _both(words, name, depth)
    while words and words[0] == "or":
        other, words = _both(words[1:], name, depth)
        value = value or other
    return value, words


def _both(words: list[str], name: str, depth: int) -> tuple[bool, list[str]]:
    value, words = _one(words, name, depth)
    while words and words[0] == "and":
        other, words = _one(words[1:], name, depth)
        value = value and other
    return value, words


def _one(words: list[str], name: str, depth: int) -> tuple[bool, list[str]]:
    if depth > NESTED_MOST:
        raise UsageError(f"-k is nested more than {NESTED_MOST} deep", next_step="select with -l, or name the files")
    if not words or words[0] in ("and", "or", ")"):
        raise UsageError("-k ends where a word should follow")
    first, *rest = words
    if first == "not":
        value, rest = _one(rest, name, depth + 1)
        return not value, rest
    if first == "(":
        value, rest = _either(rest, name, depth + 1)
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
