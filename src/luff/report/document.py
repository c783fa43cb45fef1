"""
Outcomes as JSON and back: the shape that all other reports are made from.

What is written can be read by any JSON reader: no NaN, no half characters. What
is read is checked, and told apart by its ``schema``: ours, a newer luff's, or
somebody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from luff.errors import UsageError
from luff.outcome import OUTCOME_SCHEMA, REPORT_SCHEMA, Outcome, Report

__all__ = ["read_outcomes", "render", "report"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_PROBLEMS_SHOWN = 3


def report(
    outcomes: Sequence[Outcome],
    exit_code: int,
    *,
    waivers_used: Sequence[str] = (),
    quarantined: Sequence[str] = (),
) -> Report:
    """Return the document that ``--json`` writes: go exactly when the exit code is 0."""
    return Report(
        decision="go" if exit_code == 0 else "stop",
        exit_code=exit_code,
        waivers_used=list(waivers_used),
        quarantined=list(quarantined),
        outcomes=list(outcomes),
    )


def render(document: Outcome | Report) -> str:
    """Return *document* as indented JSON that ends with a line break."""
    text = json.dumps(document.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair can be written in JSON, but in no encoding.
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def read_outcomes(text: str, file: str) -> list[Outcome]:
    """Return the outcomes in *text*: one outcome, or a report of many. Raises `UsageError` for anything else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{file} is not JSON: {error}", next_step="give a file that `luff run --json` wrote, or the id of a run"
        ) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    try:
        if schema == OUTCOME_SCHEMA:
            return [Outcome.model_validate(document)]
        if schema == REPORT_SCHEMA:
            return list(Report.model_validate(document).outcomes)
    except ValidationError as error:
        raise UsageError(f"{file} is not a whole outcome: {_problems(error)}", next_step="write it again") from error
    raise _foreign(schema, file)


def _foreign(schema: Any, file: str) -> UsageError:
    if isinstance(schema, str) and re.match(r"luff\.dev/(outcome|report)/v[0-9]+$", schema):
        return UsageError(f"{file} was written by a newer luff ({schema})", next_step="upgrade luff to read it")
    return UsageError(
        f"{file} is no outcome of luff: its schema is {schema!r}, not {OUTCOME_SCHEMA!r} or {REPORT_SCHEMA!r}",
        next_step="give a file that `luff run --json` wrote",
    )


def _problems(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    said = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in problems[:_PROBLEMS_SHOWN]]
    more = len(problems) - len(said)
    return "; ".join(said) + (f"; and {more} more" if more else "")
