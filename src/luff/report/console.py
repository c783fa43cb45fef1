"""
Outcomes as a block of lines for people: the verdict first, then what it rests on.

What must stay true:

1. With a *width* no line is wider, and without one none is broken, so that a
   pipe can be searched line by line.
2. Nothing in an outcome can move the cursor, change a colour or clear the screen.
3. Everything said in colour is said in words as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from rich.cells import cell_len, chop_cells
from rich.text import Text

from luff.exit_codes import Standing, is_unrestored, standing
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
from luff.words import Arm, Verdict

__all__ = ["console"]

NARROWEST = 24
"""A terminal that claims to be narrower gets lines of this width."""

_STYLES = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.ABORTED: "magenta",
    Verdict.ERROR: "red",
}
_ALARM = "bold white on red"
_ASCII = str.maketrans(
    {"✓": "+", "✗": "x", "■": "#", "→": "->", "≤": "<=", "≥": ">=", "–": "-", "…": "...", "·": "|", "×": "x", "Δ": "d"}
)
_INDENT = 2
_HANGING = 8
_BLOCK = 4
_GAP = 2

Chunk = tuple[str, str]
"""Text that stands together, and its style."""
Line = tuple[int, list[Chunk]]
"""An indentation, and the chunks after it."""


def console(outcomes: Sequence[Outcome], *, today: date, width: int | None = None, ascii_only: bool = False) -> Text:
    """
    Return the block of each outcome and, for several, a closing line that counts them.

    *width* is that of the terminal, ``None`` for a pipe. *today* decides
    whether a known failure is still excused.
    """
    page = _Page(width=None if width is None else max(NARROWEST, width), ascii_only=ascii_only)
    for outcome in outcomes:
        page.block(outcome, today=today)
        page.lines.append(Text())
    if len(outcomes) > 1:
        page.flow(0, _closing(outcomes))
    elif page.lines:
        page.lines.pop()
    return Text("\n").join(page.lines)


class _Page:
    """This is the lines so far. Chunks are fitted to the width as they come."""

    def __init__(self, *, width: int | None, ascii_only: bool) -> None:
        self.width = width
        self.ascii_only = ascii_only
        self.lines: list[Text] = []

    def block(self, outcome: Outcome, *, today: date) -> None:
        """Add all that is said of one outcome."""
        self.flow(0, _headline(outcome, today=today))
        self.flow(_INDENT, [(part, "") for part in _setting(outcome)], between=", ")
        self.table([_check_chunks(check) for check in outcome.checks], then=_restored(outcome))
        for label, text, style in _remarks(outcome, today=today):
            self.prose(label, text, style)
        if defaults_words(outcome):
            self.prose("defaults", f"{defaults_words(outcome)}:", "")
            # As it is, whatever the width: it is there to be copied.
            self.lines += [
                Text(" " * _HANGING + self.clean(line)) for line in (outcome.default_expect or "").splitlines()
            ]

    def clean(self, text: str) -> str:
        """Return *text* as this page can show it."""
        text = visible(text)
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self.ascii_only else text

    def flow(self, indent: int, chunks: Iterable[Chunk], *, between: str = " " * _GAP) -> None:
        """Add *chunks* one after the other, going on in the next line where the width ends."""
        line, used = Text(" " * indent), indent
        for text, style in chunks:
            for piece in self.pieces(self.clean(text), indent + _HANGING):
                joint = "" if used == indent else " " if used == indent + 1 else between
                if self.width is not None and used > indent and used + len(joint) + cell_len(piece) > self.width:
                    self.lines.append(line)
                    indent = max(indent, _HANGING) if indent else _INDENT
                    line, used, joint = Text(" " * indent), indent, ""
                line.append(joint).append(piece, style)
                used += len(joint) + cell_len(piece)
        if used > indent:
            self.lines.append(line)

    def pieces(self, text: str, indent: int) -> Iterator[str]:
        """Yield *text* in pieces that fit on a line of their own; words stay whole where they can."""
        if self.width is None or cell_len(text) <= self.width - indent:
            yield from [text] if text else []
            return
        line = ""
        for word in text.split(" "):
            for part in chop_cells(word, self.width - indent) or [""]:
                if line and cell_len(line) + 1 + cell_len(part) > self.width - indent:
                    yield line
                    line = part
                else:
                    line = f"{line} {part}" if line else part
        if line:
            yield line

    def table(self, rows: Sequence[list[Chunk]], *, then: list[Chunk]) -> None:
        """
        Add *rows* in columns, *then* (a mark, a name, a sentence) under them.

        Where the width does not allow it, the last columns go to a second
        line; where even that is too wide, chunks flow.
        """
        cleaned = [[(self.clean(text), style) for text, style in row] for row in rows]
        last = [(self.clean(text), style) for text, style in then]
        widths = [max((cell_len(row[place][0]) for row in cleaned), default=0) for place in range(_COLUMNS)]
        widths[1] = max(widths[1], cell_len(last[1][0]))
        kept = next((kept for kept in _KEPT if self.width is None or _line_width(widths[:kept]) <= self.width), 0)
        for row in cleaned:
            if kept:
                self.lines.append(_aligned(row[:kept], widths))
                self.flow(_INDENT + _GAP, [chunk for chunk in row[kept:] if chunk[0]])
            else:
                self.flow(_INDENT, row)
        begin = _aligned(last[:2], widths if kept else [1, cell_len(last[1][0])], strip=False)
        self.hang(begin, last[2])

    def hang(self, begin: Text, chunk: Chunk) -> None:
        """Add *begin* and the words of *chunk*, its further lines indented as far as *begin* reaches, or less on narrow terminals."""
        indent = begin.cell_len
        if self.width is not None and indent > self.width // 2:
            begin.rstrip()
            self.lines.append(begin)
            indent, begin = _INDENT + _GAP, Text(" " * (_INDENT + _GAP))
        for number, piece in enumerate(self.pieces(self.clean(chunk[0]), indent)):
            self.lines.append((begin if number == 0 else Text(" " * indent)).append(piece, chunk[1]))

    def prose(self, label: str, text: str, style: str) -> None:
        """Add a labelled sentence; what follows its first line is to be pasted, so it stands below as it is."""
        sentence, *block = text.rstrip("\n").split("\n")
        self.hang(Text(" " * _INDENT).append(f"{label}: ", "bold"), (sentence, style))
        for line in block:
            for piece in self.pieces(self.clean(line), _BLOCK):
                self.lines.append(Text(" " * _BLOCK).append(piece))


_COLUMNS = 7
_MEASURED = 3
_KEPT = (7, 5, 4)
"""How many columns may stand in the first line of a check, the most that fit."""


def _line_width(widths: Sequence[int]) -> int:
    return _INDENT + sum(widths) + 1 + _GAP * (len(widths) - 2)


def _aligned(row: Sequence[Chunk], widths: Sequence[int], *, strip: bool = True) -> Text:
    """Return *row* with each chunk as wide as its column: what was measured lined up at its end, words at their beginning."""
    line = Text(" " * _INDENT)
    for place, (text, style) in enumerate(row):
        padding = " " * max(0, widths[place] - cell_len(text))
        if place == _MEASURED:
            line.append(padding).append(text, style)
        else:
            line.append(text, style).append(padding)
        line.append(" " * (1 if place == 0 else _GAP))
    if strip:
        line.rstrip()
    return line


def _headline(outcome: Outcome, *, today: date) -> list[Chunk]:
    took = duration_s(outcome)
    chunks = [
        _verdict(outcome, standing(outcome, today=today)),
        (outcome.experiment, "bold"),
        ("" if took is None else show_duration(took), ""),
        (f"run {outcome.run}", "dim"),
    ]
    return [chunk for chunk in chunks if chunk[0]]


def _verdict(outcome: Outcome, counted: Standing) -> Chunk:
    """Return the verdict as it counts: a known failure and its exit code must not seem to contradict one another."""
    mark, style = MARKS[counted.counts_as], f"bold {_STYLES[counted.counts_as]}"
    if counted.excused:
        until = (outcome.known_failure or {}).get("until")
        return f"{mark} FAILED AS KNOWN" + ("" if until is None else f" (until {until})"), style
    if counted.surprising:
        return f"{mark} PASSED, BUT KNOWN TO FAIL", style
    reason = "" if outcome.reason is None else f" ({outcome.reason})"
    return f"{mark} {outcome.verdict.upper()}{reason}", style


def _setting(outcome: Outcome) -> list[str]:
    edge, fault = edge_words(outcome), fault_words(outcome)
    where = f"in the lab {outcome.mesh.name}" if outcome.mesh.kind == "lab" else f"on the cluster {outcome.mesh.name}"
    broken = f"{edge}: {fault}" if edge and fault else edge or fault
    judged = "" if outcome.subject is None else f"{outcome.subject} is judged"
    return [part for part in (broken, judged, where) if part]


def _check_chunks(check: CheckResult) -> list[Chunk]:
    style = _STYLES[check.verdict]
    arm = "control: " if check.arm == Arm.CONTROL else ""
    reason = "" if check.reason is None else f" ({check.reason})"
    return [
        (MARKS[check.verdict], f"bold {style}"),
        (check.id, ""),
        (arm + check.expression, ""),
        (measured_words(check) + reason, f"bold {style}"),
        (sample_words(check), "dim"),
        (bound_words(check), "dim"),
        (place_words(check), "dim"),
    ]


def _restored(outcome: Outcome) -> list[Chunk]:
    if is_unrestored(outcome):
        command = "" if outcome.next is None else f": {outcome.next.do}"
        return [("!", _ALARM), ("NOT RESTORED", _ALARM), (restore_words(outcome) + command, _ALARM)]
    if outcome.restore is None:
        return [(MARKS[Verdict.PASSED], "dim"), ("restored", ""), (restore_words(outcome), "dim")]
    return [(MARKS[Verdict.PASSED], "bold green"), ("restored", ""), (restore_words(outcome), "")]


def _remarks(outcome: Outcome, *, today: date) -> Iterator[tuple[str, str, str]]:
    yield "why", outcome.explanation, ""
    for change in [] if outcome.restore is None else outcome.restore.foreign_changes:
        yield "kept", f"a change by somebody else: {change}", ""
    counted = standing(outcome, today=today)
    if counted.note is not None:
        yield "note", counted.note, "" if counted.excused else "bold"
    if outcome.next is not None and (not counted.excused or is_unrestored(outcome)):
        again = "; trying again may help" if outcome.next.retryable else ""
        sentence, *block = outcome.next.do.split("\n")
        said = "\n".join([f"{sentence} ({who_words(outcome.next.who)}{again})", *block])
        yield "next", said, _ALARM if is_unrestored(outcome) else ""


def _closing(outcomes: Sequence[Outcome]) -> list[Chunk]:
    counts = Counter(outcome.verdict for outcome in outcomes)
    chunks = [
        (_counted(verdict, counts[verdict]), f"bold {_STYLES[verdict]}") for verdict in Verdict if counts[verdict]
    ]
    left = sum(is_unrestored(outcome) for outcome in outcomes)
    if left:
        return [*chunks, (f"{left} NOT RESTORED: A FAULT MAY STILL BE LIVE", _ALARM)]
    return [*chunks, ("every route is back", "green")]


def _counted(verdict: Verdict, count: int) -> str:
    return f"{count} {verdict}{'s' if verdict is Verdict.ERROR and count > 1 else ''}"
