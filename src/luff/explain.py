"""
Saying what the numbers mean, in sentences, from what was measured and never from a table of known services.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from luff.model import Verdict
from luff.samples import Call
from luff.units import show_duration, show_percent

__all__ = ["GiveUp", "Pauses", "give_up", "pauses_on", "sentence_for"]

SAME_WITHIN = 0.25
"""Two waits are the same when they differ by no more than this share."""
SHARE_LEAST = 0.5
"""Of the requests looked at, this many must show the pattern."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """
    This is a caller that gave up on a peer while the broken hop still held the inner call.

    *attempts* waits of about *waited_s* each; *inner_open* says that the inner
    call was still waiting when its caller was cut off, and *inner* whose call
    on what that was.
    """

    caller: str
    peer: str
    waited_s: float
    attempts: int
    inner: tuple[str, str] | None
    inner_open: bool
    seen: int

    def sentence(self) -> str:
        """Return it in words, with the measured numbers."""
        times = "" if self.attempts == 1 else f" × {self.attempts}"
        waited = f"{self.waited_s:.1f} s" if self.waited_s >= 1 else show_duration(self.waited_s)
        said = f"{self.caller} gave up on {self.peer} after {waited}{times}"
        if self.inner is not None and self.inner_open:
            said += f", while the inner call {self.inner[0]} → {self.inner[1]} was still waiting when it was cut"
        return said


def give_up(calls: Sequence[Call]) -> GiveUp | None:
    """
    Return the give-up that most of the requests show, or ``None``.

    A give-up is an outbound call that ended because its own caller left
    (Envoy's flag DC), above the one through the twin.
    """
    by_request: dict[int, list[Call]] = {}
    for call in calls:
        by_request.setdefault(call.number, []).append(call)
    found = [seen for group in by_request.values() if (seen := _in_request(group)) is not None]
    if not found or len(found) < SHARE_LEAST * len(by_request):
        return None
    (caller, peer, attempts), count = Counter((g.caller, g.peer, g.attempts) for g in found).most_common(1)[0]
    same = [g for g in found if (g.caller, g.peer, g.attempts) == (caller, peer, attempts)]
    waits = sorted(g.waited_s for g in same)
    open_inside = [g for g in same if g.inner_open]
    example = open_inside[0] if open_inside else same[0]
    return GiveUp(caller, peer, waits[len(waits) // 2], attempts, example.inner, len(open_inside) * 2 >= count, count)


def _in_request(calls: Sequence[Call]) -> GiveUp | None:
    left = [c for c in calls if c.direction == "outbound" and "DC" in c.flags.split(",") and not _twin(c)]
    if not left:
        return None
    outer = min(left, key=lambda call: call.started_s)
    same = [c for c in left if (c.workload, c.destination) == (outer.workload, outer.destination)]
    twins = [c for c in calls if _twin(c)]
    open_inside = any(t.started_s <= c.ended_s <= t.ended_s + 0.05 for t in twins for c in same)
    inner = (twins[0].workload, twins[0].destination) if twins else None
    waited_s = sum(c.ended_s - c.started_s for c in same) / len(same)
    return GiveUp(outer.workload, outer.destination, waited_s, len(same), inner, open_inside, 1)


def _twin(call: Call) -> bool:
    return call.route.startswith("luff.")


@dataclass(frozen=True, slots=True)
class Pauses:
    """This is how long callers waited before they made a call again: of *seen* pauses, the least and the median, in seconds."""

    least_s: float
    median_s: float
    seen: int

    def sentence(self) -> str:
        """Return it in words, with the measured numbers."""
        least, median = (show_duration(round(each, 3)) for each in (self.least_s, self.median_s))
        soon = "at once" if self.median_s < AT_ONCE_S else f"after {median}"
        return f"calls were made again {soon} (pauses seen: {self.seen}, median {median}, least {least})"


AT_ONCE_S = 0.01
"""A pause below this spares nobody anything."""


def pauses_on(calls: Sequence[Call], host: str | None) -> Pauses | None:
    """
    Return the pauses between the tries of one call to *host*, ``None`` for the broken hop; ``None`` where none was made again.

    A pause is from the end of a call to the beginning of the next one by the
    same workload for the same request and path, 0 where that came first. What a
    proxy tries again by itself is within one call and is not seen.
    """
    name = None if host is None else host.split(".")[0]
    tries: dict[tuple[int, str, str], list[Call]] = {}
    for call in calls:
        if _twin(call) if name is None else call.direction == "outbound" and call.destination == name:
            tries.setdefault((call.number, call.workload, call.path), []).append(call)
    found = []
    for group in tries.values():
        group.sort(key=lambda call: call.started_s)
        found += [max(0.0, after.started_s - before.ended_s) for before, after in pairwise(group)]
    found.sort()
    return Pauses(found[0], found[len(found) // 2], len(found)) if found else None


def sentence_for(
    check: Any,
    verdict: Verdict,
    reason: str | None,
    *,
    n: int,
    violations: int,
    measured: float | None,
    unit: str | None,
) -> str:
    """Return one sentence for one check. *check* is a `luff.checks.PlannedCheck`."""
    value = _value(measured, unit)
    if check.method == "windows":
        return f"{check.expression}: " + (
            f"normal again {value} after the fault was gone"
            if verdict is Verdict.PASSED
            else "it was not back to normal in time"
            if verdict is Verdict.FAILED
            else "it was not watched for that long"
        )
    if reason == "not_discriminating":
        return f"{check.expression} holds without the fault as well, so it proves nothing"
    if reason == "dependent_samples":
        return f"{check.expression}: the {violations} violations of {n} come in bursts, so this sample says less than its size"
    if not n:
        return f"{check.expression}: no request was judged"
    what = f"{violations} of {n} requests were against it" if violations else f"none of {n} requests was against it"
    if verdict is Verdict.INCONCLUSIVE:
        return f"{check.expression}: measured {value}, {what}; that is not enough to say either way"
    return f"{check.expression}: measured {value}, {what}{_if_in_bursts(check, verdict, n, violations)}"


_BURST = 10


def _if_in_bursts(check: Any, verdict: Verdict, n: int, violations: int) -> str:
    """Return what a pass without any violation does not say: nothing was seen of how they would come."""
    missed = math.exp(-n * check.threshold / _BURST)
    if verdict is not Verdict.PASSED or violations or check.method == "comparison" or missed <= 0.05:
        return ""
    return (
        "; this is for violations that come singly: of a service at this limit that has ten in a row, "
        f"{show_percent(round(100 * missed))} of such runs would show none"
    )


def _value(measured: float | None, unit: str | None) -> str:
    if measured is None:
        return "no answer"
    if unit == "ms":
        return show_duration(measured / 1000)
    if unit == "s":
        return show_duration(measured)
    return show_percent(measured) if unit == "%" else f"{measured:g} {unit or ''}".strip()
