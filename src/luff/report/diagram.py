"""
The broken hop as a picture: who sends, who is judged, who calls whom, and where it was broken.
"""

from __future__ import annotations

from dataclasses import dataclass

from luff.outcome import Outcome
from luff.report.words import fault_kind, fault_words, visible

__all__ = ["Box", "Diagram", "diagram"]

BOX_WIDTH = 168.0
GAP = 96.0
BROKEN_GAP = 210.0
LABEL_MOST = 20
"""The longest name that fits in a box; a longer one is cut, and whole in the text beside."""


@dataclass(frozen=True, slots=True)
class Box:
    """This is one service. *x* is its left edge; *role* what it is in this run."""

    x: float
    label: str
    name: str
    role: str
    judged: bool = False


@dataclass(frozen=True, slots=True)
class Diagram:
    """
    This is the chain from left to right.

    *arrows* are (from, to, whether other services may lie between); *broken*
    is the arrow with the fault, ``None`` when the hop is not known.
    """

    width: float
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[float, float, bool], ...]
    broken: tuple[float, float] | None
    kind: str
    fault: str
    sentence: str


def diagram(outcome: Outcome) -> Diagram:
    """Return the picture of *outcome*."""
    subject, edge = outcome.subject, outcome.edge
    chain = [("luff", "test traffic", False)]
    caller = None if edge is None else edge.caller
    if subject is not None and subject != caller:
        chain.append((subject, "judged", True))
    if edge is not None:
        chain.append(
            (caller or "whoever calls", "judged, calls" if subject == caller and caller else "calls", subject == caller)
        )
        chain.append((edge.dependency, "broken for test traffic only", False))
    boxes: list[Box] = []
    arrows: list[tuple[float, float, bool]] = []
    x, broken = 0.0, None
    for place, (name, role, judged) in enumerate(chain):
        if place:
            last = edge is not None and place == len(chain) - 1
            start, x = x + BOX_WIDTH, x + BOX_WIDTH + (BROKEN_GAP if last else GAP)
            if last:
                broken = (start, x)
            else:
                arrows.append((start, x, place == 2))
        boxes.append(Box(x, _cut(visible(name)), visible(name), role, judged))
    fault = fault_words(outcome)
    return Diagram(
        width=x + BOX_WIDTH,
        boxes=tuple(boxes),
        arrows=tuple(arrows),
        broken=broken,
        kind=fault_kind(outcome) or "",
        fault=fault,
        sentence=_sentence(outcome, fault),
    )


def _sentence(outcome: Outcome, fault: str) -> str:
    if outcome.edge is None:
        return "The broken hop is not known: nothing was planned."
    caller = outcome.edge.caller or "whoever calls it"
    judged = f" {outcome.subject} is judged." if outcome.subject else ""
    return (
        f"On the hop from {caller} to {outcome.edge.dependency}, for test traffic only: {fault or 'a fault'}.{judged}"
    )


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_MOST else text[: LABEL_MOST - 1] + "…"
