"""
Outcomes as Markdown, for the page that a pipeline shows.

What must stay true:

1. The text stays under `BYTES_MOST`: GitHub drops a whole summary that is over
   its limit. What did not fit is counted, and where it stands is said.
2. Nothing in an outcome becomes markup, a link or a mention.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date

from luff.exit_codes import is_unrestored, standing
from luff.outcome import CheckResult, Outcome
from luff.report.words import (
    MARKS,
    bound_words,
    defaults_words,
    duration_s,
    edge_words,
    fault_words,
    measured_words,
    place_words,
    restore_words,
    sample_words,
    visible,
    who_words,
)
from luff.units import show_duration
from luff.words import Arm

__all__ = ["BYTES_MOST", "markdown"]

BYTES_MOST = 900 * 1024
"""GitHub takes 1 MiB for all steps of a job together."""
_ROOM_FOR_ENDING = 1024
_TEXT_MOST = 2000
_SAID_MOST = 50

_MARKUP = re.compile(r"([\\`*_\[\]|~#])")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})


def markdown(
    outcomes: Sequence[Outcome],
    *,
    today: date,
    report_url: str | None = None,
    decision: str | None = None,
    said: Sequence[str] = (),
    bytes_most: int = BYTES_MOST,
) -> str:
    """
    Return a table of all *outcomes* and a section for each; *report_url* is where the whole report is.

    *decision* and the sentences *said* about it come first. The text has at most *bytes_most* bytes.
    """
    title = _title(outcomes) + _decided(decision, said)
    where = f"[the whole report]({_address(report_url)})" if report_url else "the HTML or JSON report"
    text, left = [title], bytes_most - _ROOM_FOR_ENDING - len(title.encode())
    for kind, pieces in (("rows", _rows(outcomes)), ("runs", _sections(outcomes, today=today))):
        skipped = 0
        for piece in pieces:
            size = len(piece.encode())
            if skipped or size > left:
                skipped += 1
                continue
            text.append(piece)
            left -= size
        if skipped:
            text.append(f"\n*{skipped} more {kind} did not fit here: see {where}.*\n")
    if report_url:
        text.append(f"\nSee {where}.\n")
    return "".join(text)


def _title(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "## luff: nothing was selected\n"
    left = sum(is_unrestored(outcome) for outcome in outcomes)
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.verdict] = counts.get(outcome.verdict, 0) + 1
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    alarm = f"\n> [!CAUTION]\n> **{left} not restored: a fault may still be live.**\n" if left else ""
    return f"## luff: {said}\n{alarm}"


def _decided(decision: str | None, said: Sequence[str]) -> str:
    if decision is None:
        return ""
    more = f"- *and {len(said) - _SAID_MOST} more*\n" if len(said) > _SAID_MOST else ""
    lines = "".join(f"- {_text(each)}\n" for each in said[:_SAID_MOST])
    return f"\n**{_text(decision)}**\n\n{lines}{more}"


def _rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for number, outcome in enumerate(outcomes):
        header = (
            "\n| | Experiment | Broken hop | Fault | Took | Run |\n|---|---|---|---|--:|---|\n" if number == 0 else ""
        )
        took = duration_s(outcome)
        cells = (
            f"{MARKS[outcome.verdict]} {outcome.verdict}",
            f"**{_text(outcome.experiment)}**",
            _text(edge_words(outcome)),
            _text(fault_words(outcome)),
            "" if took is None else show_duration(took),
            _code(outcome.run),
        )
        yield f"{header}| {' | '.join(cells)} |\n"


def _sections(outcomes: Sequence[Outcome], *, today: date) -> Iterator[str]:
    for outcome in outcomes:
        reason = "" if outcome.reason is None else f" ({_text(outcome.reason)})"
        lines = [
            f"\n### {MARKS[outcome.verdict]} {_text(outcome.experiment)}: {outcome.verdict}{reason}\n",
            f"\n{_text(outcome.explanation)}\n",
        ]
        if outcome.checks:
            lines.append(
                "\n| | Check | Expected | Measured | Sample | Certainty | Where |\n|---|---|---|--:|---|---|---|\n"
            )
            lines += [_check(check) for check in outcome.checks]
        mark = "**NOT RESTORED:**" if is_unrestored(outcome) else "Restored:"
        lines.append(f"\n{mark} {_text(restore_words(outcome))}.\n")
        counted = standing(outcome, today=today)
        if counted.note is not None:
            lines.append(f"\nNote: {_text(counted.note)}.\n")
        if defaults_words(outcome):
            block = visible(outcome.default_expect or "", keep_newlines=True).rstrip().replace("```", "ˋˋˋ")
            lines.append(f"\nDefaults: {defaults_words(outcome)}:\n\n```yaml\n{block}\n```\n")
        if outcome.next is not None:
            again = " Trying again may help." if outcome.next.retryable else ""
            lines.append(f"\nNext, for {_text(who_words(outcome.next.who))}: {_text(outcome.next.do)}.{again}\n")
        yield "".join(lines)


def _check(check: CheckResult) -> str:
    arm = "control: " if check.arm == Arm.CONTROL else ""
    cells = (
        MARKS[check.verdict],
        _text(check.id),
        _text(arm + check.expression),
        f"**{_text(measured_words(check))}**",
        _text(sample_words(check)),
        _text(bound_words(check)),
        _code(place_words(check)),
    )
    return f"| {' | '.join(cells)} |\n"


def _text(text: str) -> str:
    """Return *text* so that it reads the same once it is rendered."""
    return _MARKUP.sub(r"\\\1", _cut(visible(text))).translate(_ENTITIES)


def _code(text: str) -> str:
    """Return *text* as code; in a table, where a bar would end the cell."""
    return f"`{_cut(visible(text)).replace('`', 'ˋ').replace('|', '¦')}`" if text else ""


def _address(url: str) -> str:
    return re.sub(r"[\s()<>\\]", lambda found: f"%{ord(found[0]):02X}", visible(url))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MOST else text[: _TEXT_MOST - 1] + "…"
