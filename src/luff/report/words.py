"""
The words in which every report speaks of an outcome, so that console, page and file say the same thing.

Nothing here trusts an outcome: what came from a service may hold anything, and
an outcome of another release may lack parts of its spec.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from luff.lifecycle import Phase
from luff.units import parse_duration_s, parse_percent, show_count, show_duration, show_percent
from luff.words import Verdict

if TYPE_CHECKING:
    from luff.outcome import CheckResult, Outcome

__all__ = [
    "MARKS",
    "bound_words",
    "defaults_words",
    "duration_s",
    "edge_words",
    "experiment_spec",
    "fault_kind",
    "fault_words",
    "measured_words",
    "namespace_of",
    "percent_of",
    "place_words",
    "restore_words",
    "sample_words",
    "visible",
    "who_words",
]

MARKS: Mapping[Verdict, str] = {
    Verdict.PASSED: "✓",
    Verdict.FAILED: "✗",
    Verdict.INCONCLUSIVE: "?",
    Verdict.ABORTED: "■",
    Verdict.ERROR: "!",
}

_WHO = {
    "caller": "the team of the calling service",
    "experiment": "the author of the experiment",
    "mesh": "whoever runs the mesh",
    "runner": "whoever runs luff",
}
_DATA_PLANE = {
    "verified": "seen clean in the proxies",
    "unobserved": "not looked at in the proxies",
    "stale": "the proxies STILL INJECT",
}
_OBJECT = {
    "identical": "identical to before",
    "identical_but_for_others": "identical to before, but for what others changed",
    "differs": "it differs from before",
    "gone": "the object is gone",
}


def visible(text: object, *, keep_newlines: bool = False) -> str:
    """
    Return *text* with nothing in it that a terminal or an XML reader would act on.

    Control characters, lone surrogates and marks that turn the direction of
    writing become ``\\x1b`` or ``\\u202e``; line breaks become spaces unless they are kept.
    """
    written = str(text)
    if written.isprintable():
        return written  # nearly everything, and a page has ten thousand of them
    return "".join(_visible(character, keep_newlines) for character in written)


def _visible(character: str, keep_newlines: bool) -> str:
    if character.isprintable():
        return character
    if character in "\r\n\t":
        return character if keep_newlines and character != "\r" else " "
    if unicodedata.category(character) == "Zs":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def experiment_spec(outcome: Outcome) -> dict[str, Any]:
    """Return the ``spec`` part of the resolved experiment."""
    spec = outcome.spec.get("spec", outcome.spec)
    return spec if isinstance(spec, dict) else {}


def namespace_of(outcome: Outcome) -> str | None:
    """Return the namespace of the target, where the resolved experiment names it."""
    for part in (experiment_spec(outcome).get("target"), outcome.spec.get("metadata")):
        if isinstance(part, dict) and part.get("namespace"):
            return str(part["namespace"])
    return None


def _fault(outcome: Outcome) -> dict[str, dict[str, Any]]:
    fault = experiment_spec(outcome).get("fault")
    if not isinstance(fault, dict):
        return {}
    return {kind: fault[kind] for kind in ("delay", "abort") if isinstance(fault.get(kind), dict)}


def fault_kind(outcome: Outcome) -> str | None:
    """Return ``delay``, ``abort``, ``delay+abort``, or ``None`` where the spec does not say."""
    return "+".join(_fault(outcome)) or None


def fault_words(outcome: Outcome) -> str:
    """Return the fault as a person would say it: ``delay 5 s``, ``abort 503 on 10 %``."""
    said = []
    fault = _fault(outcome)
    if "delay" in fault:
        said.append(f"delay {_duration_words(fault['delay'].get('duration'))}{_dose_words(fault['delay'])}")
    if "abort" in fault:
        code = fault["abort"].get("http") or fault["abort"].get("grpc") or "?"
        said.append(f"abort {visible(code)}{_dose_words(fault['abort'])}")
    return " and ".join(said)


def _duration_words(value: object) -> str:
    try:
        return show_duration(float(value) if isinstance(value, int | float) else parse_duration_s(value))
    except ValueError:
        return visible(value)


def _dose_words(part: Mapping[str, Any]) -> str:
    percent = percent_of(part.get("percent", 100))
    if percent is None:
        return f" on {visible(part['percent'])}"
    return "" if percent == 100 else f" on {show_percent(percent)}"


def percent_of(value: object) -> float | None:
    """Return the percentage that a spec holds, a number or written with its sign; ``None`` for what is none."""
    try:
        return float(value) if isinstance(value, int | float) else parse_percent(value)
    except ValueError:
        return None


def edge_words(outcome: Outcome) -> str:
    """Return the broken hop, such as ``reviews → ratings``; empty when it is not known."""
    if outcome.edge is None:
        return ""
    return f"{visible(outcome.edge.caller or 'anyone')} → {visible(outcome.edge.dependency)}"


def measured_words(check: CheckResult) -> str:
    """Return what was measured, with its unit: ``912 ms``, ``99.8 %``; a dash when nothing was."""
    if check.measured is None:
        return "–"
    if check.unit == "ms":
        return show_duration(check.measured / 1000)
    if check.unit in ("%", "percent"):
        return show_percent(check.measured)
    number = f"{check.measured:.4g}" if abs(check.measured) < 10_000 else show_count(round(check.measured))
    return f"{number} {visible(check.unit)}" if check.unit else number


def sample_words(check: CheckResult) -> str:
    """Return the counts behind a check: ``n=1 198, 3 against``; of a recovery, the seconds that were seen."""
    if check.method == "windows":
        return f"{check.n} s watched, {check.violations} unlike control" if check.n else "not watched"
    against = f", {show_count(check.violations)} against" if check.violations else ""
    return f"n={show_count(check.n)}{against}"


def bound_words(check: CheckResult) -> str:
    """
    Return how sure the numbers make it: ``at most 0.75 % against, 1 % allowed``; empty when there is no bound.

    What did not fail says as well which excess would have shown four times in five.
    """
    if check.bound is None or check.threshold is None:
        return ""
    side = "at least" if check.verdict == Verdict.FAILED else "at most"
    what = "worse" if check.method == "comparison" else "against"
    said = f"{side} {show_percent(check.bound * 100)} {what}, {show_percent(check.threshold * 100)} allowed"
    if check.verdict == Verdict.FAILED or check.mde is None:
        return said
    return f"{said}, {show_percent(round((check.threshold + check.mde) * 100, 2))} would have shown"


def place_words(check: CheckResult) -> str:
    """Return where the expectation is written: ``file:line``."""
    if check.file is None:
        return ""
    return visible(check.file) if check.line is None else f"{visible(check.file)}:{check.line}"


def restore_words(outcome: Outcome) -> str:
    """Return what is known of the routes at the end, as one sentence without its full stop."""
    receipt = outcome.restore
    if receipt is None:
        return (
            "nothing was injected" if outcome.phase is Phase.CLEAN else "it could not be shown that the routes are back"
        )
    if receipt.api == "unverified":
        return "it could NOT be shown that the routes are back"
    others = len(receipt.foreign_changes)
    changed = f" ({others} change{'' if others == 1 else 's'} by others kept)" if others else ""
    return f"routes {_OBJECT[receipt.object]}{changed}, {_DATA_PLANE[receipt.data_plane]}, {show_duration(receipt.seconds)}"


def who_words(who: str) -> str:
    """Return whose turn it is."""
    return _WHO.get(who, visible(who))


def duration_s(outcome: Outcome) -> float | None:
    """Return how long the run took, or ``None`` when its times cannot be read."""
    try:
        began, ended = datetime.fromisoformat(outcome.started_at), datetime.fromisoformat(outcome.ended_at)
        return max(0.0, (ended - began).total_seconds())
    except (ValueError, TypeError):
        return None


def defaults_words(outcome: Outcome) -> str:
    """Return what to say above the block to paste where luff's own expectations were checked; empty where they were not."""
    if outcome.default_expect is None:
        return ""
    return "nothing is expected in the file, so these checks are luff's defaults; to change them, paste this into spec"
