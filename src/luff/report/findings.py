"""
What a code host should show beside a line of YAML: one finding for each expectation that did not hold.

A run that did not pass and has no expectation to blame gives one finding at
the experiment itself, so that whatever counts is shown somewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luff.exit_codes import is_unrestored
from luff.outcome import CheckResult, Outcome
from luff.report.words import bound_words, measured_words, restore_words, sample_words, who_words
from luff.words import Verdict

__all__ = ["LEVELS", "Finding", "Level", "findings"]

Level = Literal["error", "warning", "notice"]
LEVELS: tuple[Level, ...] = ("error", "warning", "notice")


@dataclass(frozen=True, slots=True)
class Finding:
    """This is one thing to show. *file* is ``None`` where it is not known, *line* counts from 1; *kind* is a stable word."""

    level: Level
    kind: str
    experiment: str
    check: str | None
    title: str
    message: str
    file: str | None
    line: int | None


def findings(
    outcomes: Sequence[Outcome],
    *,
    level: Callable[[Outcome], Level],
    excused: Mapping[str, str] | None = None,
    places: Mapping[str, tuple[str, int]] | None = None,
) -> list[Finding]:
    """
    Return the findings of *outcomes*, the loudest first.

    *level* says how loud a run is that did not simply pass, *excused* why one
    does not count, by run; *places* are the file and line of experiments.
    """
    found = [
        finding
        for outcome in outcomes
        for finding in _of(outcome, level(outcome), (excused or {}).get(outcome.run), (places or {}))
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _of(outcome: Outcome, level: Level, excuse: str | None, places: Mapping[str, tuple[str, int]]) -> Iterator[Finding]:
    blamed = False
    for check in outcome.checks:
        if check.verdict is Verdict.PASSED:
            continue
        blamed = blamed or check.verdict is outcome.verdict
        yield Finding(
            level=level,
            kind=str(check.kind),
            experiment=outcome.experiment,
            check=check.id,
            title=f"{outcome.experiment}: {check.id} {check.verdict}",
            message=_measured(check) + "\n".join(["", *_ending(outcome, excuse, said=check.explanation)]),
            file=check.file,
            line=check.line,
        )
    place = places.get(outcome.experiment) or _first_place(outcome)
    file, line = place if place is not None else (None, None)
    if outcome.verdict is not Verdict.PASSED and not blamed:
        reason = "" if outcome.reason is None else f" ({outcome.reason})"
        title = f"{outcome.experiment}: {outcome.verdict}{reason}"
        yield Finding(
            level,
            str(outcome.verdict),
            outcome.experiment,
            None,
            title,
            "\n".join(_ending(outcome, excuse)),
            file,
            line,
        )
    elif outcome.verdict is Verdict.PASSED and level == "error" and not is_unrestored(outcome):
        title = f"{outcome.experiment}: passed, though it is known to fail"
        yield Finding(
            level, "known-failure", outcome.experiment, None, title, "remove knownFailure from it", file, line
        )
    if is_unrestored(outcome):
        title = f"{outcome.experiment}: routes not restored"
        yield Finding(
            "error", "restore-not-verified", outcome.experiment, None, title, _unrestored(outcome), file, line
        )


def _measured(check: CheckResult) -> str:
    said = check.explanation
    if not said.startswith(check.expression):
        said = f"{check.expression}: measured {measured_words(check)}, {sample_words(check)}. {said}"
    bound = bound_words(check)
    return f"{said}; {bound}" if bound else said


def _ending(outcome: Outcome, excuse: str | None, *, said: str = "") -> Iterator[str]:
    if outcome.explanation != said:
        yield outcome.explanation
    if excuse is not None:
        yield f"It does not count: {excuse}."
    if outcome.next is not None:
        yield f"Next, for {who_words(outcome.next.who)}: {outcome.next.do}"


def _unrestored(outcome: Outcome) -> str:
    do = f"\nNext: {outcome.next.do}" if outcome.next is not None else ""
    return f"A fault may still be live: {restore_words(outcome)}.{do}"


def _first_place(outcome: Outcome) -> tuple[str, int] | None:
    return next(((check.file, check.line or 1) for check in outcome.checks if check.file is not None), None)
