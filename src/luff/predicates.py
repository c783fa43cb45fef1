"""
What an answer is: the parts of an `answer` or `fallback` expectation, decided when the answer comes.

Bodies are not kept. Each distinct answer of an experiment has a bit, and what
is stored of a response is the bits that held.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from luff.jsonpath import compile as compile_path
from luff.model import Answer, AnswerExpectation, Experiment, FallbackExpectation, JsonMatch
from luff.patches import same
from luff.regex import search

__all__ = ["BITS_MOST", "answers_of", "holds", "observer", "status_in"]

BITS_MOST = 32


def status_in(status: int, wanted: tuple[str, ...]) -> bool:
    """Return whether *status* is one of *wanted*: codes such as ``503``, classes such as ``5xx``."""
    return any(w == str(status) or (w[1:].lower() == "xx" and w[0] == str(status)[0]) for w in wanted)


def answers_of(experiment: Experiment) -> tuple[Answer, ...]:
    """Return the distinct answers that the experiment speaks of; the index of each is its bit."""
    found = [e.answer for e in experiment.spec.expect if isinstance(e, AnswerExpectation | FallbackExpectation)]
    distinct: list[Answer] = []
    for answer in found:
        if answer not in distinct:
            distinct.append(answer)
    return tuple(distinct)


def observer(experiment: Experiment) -> Callable[[int, Mapping[str, str], bytes], int]:
    """Return the function that turns a response into bits. It can be pickled."""
    return partial(_observe, answers_of(experiment))


def _observe(answers: tuple[Answer, ...], status: int, headers: Mapping[str, str], body: bytes) -> int:
    bits = 0
    for index, answer in enumerate(answers):
        bits |= holds(answer, status, headers, body) << index
    return bits


def holds(answer: Answer, status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether every part of *answer* holds. *headers* has names in lower case."""
    if answer.status is not None and not status_in(status, answer.status):
        return False
    if answer.header is not None:
        value = headers.get(answer.header.name.lower())
        if value is None or not _text_is(value, equals=answer.header.equals, matches=answer.header.matches):
            return False
    if answer.body is not None:
        text = body.decode("utf-8", errors="replace")
        if answer.body.contains is not None and answer.body.contains not in text:
            return False
        if answer.body.matches is not None and not search(answer.body.matches, text):
            return False
    return answer.json_ is None or _json_is(answer.json_, body)


def _text_is(value: str, *, equals: str | None, matches: str | None) -> bool:
    return (equals is None or value == equals) and (matches is None or search(matches, value))


def _json_is(wanted: JsonMatch, body: bytes) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        # What is not JSON has nothing anywhere: that is no proof of a thing's absence.
        return False
    found: list[Any] = compile_path(wanted.path).select(document)
    if wanted.exists is False or not found:
        # Of what is not there nothing more can be claimed: a file with both is refused.
        return wanted.exists is False and not found
    if wanted.matches is not None and not all(
        search(wanted.matches, value if isinstance(value, str) else json.dumps(value)) for value in found
    ):
        return False
    return "equals" not in wanted.model_fields_set or all(same(value, wanted.equals) for value in found)
