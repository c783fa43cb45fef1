"""
What is said of a run that ended before there was anything to judge: a table of errors, and one of aborts.

The routes come first: while a fault may still be live, what has to be done about that is the next step,
whatever ended the run.
"""

from __future__ import annotations

from dataclasses import replace

from luff.errors import (
    Conflict,
    InternalError,
    LockHeld,
    LuffError,
    NoGuard,
    NotFound,
    PlanRefused,
    RestoreNotVerified,
    RunAborted,
    StoreError,
)
from luff.outcome import Next, Who
from luff.verdicts import NEXT, Judgement, Situation
from luff.words import Verdict

__all__ = ["ERRORS", "ended_early"]


def ended_early(
    error: LuffError | None, situation: Situation, *, unrestored: RestoreNotVerified | None = None
) -> Judgement:
    """
    Return the judgement of a run that ended before there was anything to judge.

    *unrestored* says that a fault may still be live. Whatever ended the run,
    what has to be done about that comes first.
    """
    if unrestored is None:
        return _ended_early(error, situation)
    ended = _ended_early(error or unrestored, situation)
    explanation = ended.explanation if error is None else f"{ended.explanation}; and {unrestored.message}"
    next_ = Next(who="runner", retryable=False, do=unrestored.next_step or "run `luff restore --all`")
    return replace(ended, explanation=explanation, next=next_)


def _ended_early(error: LuffError | None, situation: Situation) -> Judgement:
    if error is None:
        rule, reason = _early(situation)
        return Judgement(Verdict.INCONCLUSIVE, reason, rule, NEXT[reason])
    if isinstance(error, RunAborted):
        next_ = Next(who="runner", retryable=True, do=error.next_step or _AFTER_ABORT[error.reason])
        return Judgement(Verdict.ABORTED, error.reason, error.message, next_)
    reason, who, retryable = next((r, w, again) for kind, r, w, again in ERRORS if isinstance(error, kind))
    if isinstance(error, PlanRefused):
        reason += error.rule
    next_ = Next(who=who, retryable=retryable, do=error.next_step or "see the message")
    return Judgement(Verdict.ERROR, reason, error.message, next_)


ERRORS: tuple[tuple[type[LuffError], str, Who, bool], ...] = (
    (PlanRefused, "plan_refused:", "experiment", False),
    (LockHeld, "plan_refused:locked", "runner", True),
    (NoGuard, "plan_refused:no_guard", "runner", True),
    (NotFound, "target_not_found", "experiment", False),
    (Conflict, "plan_refused:overtaken", "mesh", True),
    (StoreError, "store_unreachable", "runner", True),
    (InternalError, "internal", "runner", False),
    (RestoreNotVerified, "restore_not_verified", "runner", False),
    (LuffError, "mesh_unreachable", "mesh", True),
)
"""What an error means for who runs luff: the reason, who can act, whether trying again may help."""

_AFTER_ABORT = {
    "operator": "run it again when it suits; the routes are back",
    "lever": "see `luff lever status` for who pulled it and why",
    "tripwire": "look at what tripped before running it again",
    "bound": "remove what ran into the bound, then run it again",
}


def _early(situation: Situation) -> tuple[str, str]:
    if situation.control_unhealthy is not None:
        return situation.control_unhealthy, "control_unhealthy"
    if situation.route_not_live:
        return "the twins never reached the proxies", "route_not_live"
    return "nothing was sent", "not_enough_samples"
