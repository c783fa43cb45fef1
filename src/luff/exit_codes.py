"""
From outcomes to the one exit code of a command, by the table of the contract.

What must stay true:

1. A restore that is not verified, 7, beats everything and cannot be switched off.
2. Of several runs the most severe decides, in the order of `SEVERITY`.
3. A known failure excuses a failed expectation, until its date, and nothing
   else: not a breach of isolation, not a run that could not be judged. Passing
   is then the surprise, and counts as a failure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from luff.errors import UsageError
from luff.lifecycle import Phase
from luff.outcome import Outcome
from luff.words import Verdict

__all__ = [
    "FAIL_ON",
    "NOTHING_SELECTED",
    "RESTORE_NOT_VERIFIED",
    "SEVERITY",
    "Standing",
    "exit_code",
    "is_unrestored",
    "parse_fail_on",
    "standing",
]

RESTORE_NOT_VERIFIED = 7
NOTHING_SELECTED = 6

SEVERITY = (RESTORE_NOT_VERIFIED, 130, 143, 1, 4, 5, 3, NOTHING_SELECTED, 0)
"""The exit codes that outcomes can lead to, the most severe first."""

CODES: Mapping[Verdict, int] = {
    Verdict.PASSED: 0,
    Verdict.FAILED: 1,
    Verdict.INCONCLUSIVE: 3,
    Verdict.ABORTED: 4,
    Verdict.ERROR: 5,
}

FAIL_ON = frozenset({"fail", "inconclusive", "aborted", "error"})
"""The words of ``--fail-on``, and its default: a verdict that is not listed counts as 0."""

_WORDS: Mapping[Verdict, str] = {
    Verdict.FAILED: "fail",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.ABORTED: "aborted",
    Verdict.ERROR: "error",
}
_SAME = {"failed": "fail"}


@dataclass(frozen=True, slots=True)
class Standing:
    """
    This is how an outcome counts.

    *counts_as* is its verdict, unless a failure is known: then failing counts
    as passed (*excused*), and passing as failed (*surprising*). *note* says so
    in a sentence, ``None`` where nothing is out of the ordinary.
    """

    counts_as: Verdict
    excused: bool = False
    surprising: bool = False
    note: str | None = None


def standing(outcome: Outcome, *, today: date) -> Standing:
    """Return how *outcome* counts on *today*; a known failure counts through its last day."""
    known = outcome.known_failure
    if known is None:
        return Standing(outcome.verdict)
    reason, until = str(known.get("reason") or "no reason given"), known.get("until")
    if until is not None and _is_over(str(until), today):
        note = f"the known failure ({reason}) was excused until {until}: no longer"
        return Standing(outcome.verdict, note=note if outcome.verdict is Verdict.FAILED else None)
    if outcome.verdict is Verdict.PASSED:
        note = f"this was known to fail ({reason}) and passed: remove knownFailure"
        return Standing(Verdict.FAILED, surprising=True, note=note)
    if outcome.verdict is Verdict.FAILED and outcome.reason is None:
        note = f"known failure: {reason}" + (f" (until {until})" if until is not None else "")
        return Standing(Verdict.PASSED, excused=True, note=note)
    return Standing(outcome.verdict)


def _is_over(until: str, today: date) -> bool:
    try:
        return date.fromisoformat(until) < today
    except ValueError:
        # An excuse whose end cannot be read excuses nothing.
        return True


def is_unrestored(outcome: Outcome) -> bool:
    """Return whether a fault may still be live: stranded, not verified in the API, or still seen in the proxies."""
    receipt = outcome.restore
    return outcome.phase is Phase.STRANDED or (
        receipt is not None and (receipt.api == "unverified" or receipt.data_plane == "stale")
    )


def exit_code(
    outcomes: Sequence[Outcome],
    *,
    today: date,
    fail_on: Collection[str] = FAIL_ON,
    soft_fail: bool = False,
    signal: int | None = None,
    restore_unverified: bool = False,
) -> int:
    """
    Return the exit code of a command that ended with *outcomes*.

    *signal* is what ended it early (2 or 15), if anything did;
    *restore_unverified* is known beside the outcomes. *soft_fail* makes every
    verdict count as 0, but neither a signal nor an unverified restore.
    """
    codes = {0 if outcomes else NOTHING_SELECTED}
    if restore_unverified or any(is_unrestored(outcome) for outcome in outcomes):
        codes.add(RESTORE_NOT_VERIFIED)
    if signal is not None:
        codes.add(128 + signal)
    for outcome in outcomes:
        counts_as = standing(outcome, today=today).counts_as
        if not soft_fail and _WORDS.get(counts_as) in fail_on:
            codes.add(CODES[counts_as])
    return min(codes, key=SEVERITY.index)


def parse_fail_on(text: str) -> frozenset[str]:
    """Return the words in *text*, such as ``fail,error``; ``UsageError`` for one that means nothing."""
    words = frozenset(_SAME.get(word.strip(), word.strip()) for word in text.split(",") if word.strip())
    unknown = sorted(words - FAIL_ON)
    if unknown:
        raise UsageError(
            f"--fail-on does not know {unknown[0]!r}",
            next_step=f"use any of {','.join(sorted(FAIL_ON))}, or --soft-fail",
        )
    return words
