"""
How many requests of the fault arm met the fault, as far as the evidence tells.

Per-request evidence counts them. Aggregate evidence counts *calls*: a caller
that tries again makes more of them, so a hundred calls may be fifty requests
that met the fault and fifty that did not. What is certain is less:

- no more requests than calls met it;
- where the most calls that a request causes is declared, at least calls / most did;
- and at least as many as differ from control. Both arms are alike but for the
  fault, so a request that it did not reach looks like control: the share of the
  fault arm beyond what control shows (the total variation distance of what is
  seen) cannot be more than the share that it reached.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat

from luff import stats
from luff.bystanders import Bystanders, bystanders_of
from luff.model import Experiment
from luff.samples import Evidence, Failure, Samples
from luff.words import Arm

__all__ = ["Exposure", "dose_percent", "exposure"]

SHIFT_LEAST = 0.8
"""The part of the injected delay that a request has to take longer than control usually does."""
CHANCE = 0.001
"""How likely it may be at most that requests which met no fault look as if they had."""

_Seen = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Exposure:
    """
    This is how many of *sent* requests met the fault: *least* for certain, *most* at the most.

    *fired* is what was counted: calls, or requests where luff saw them itself.
    Where each request is seen, *sent* is without those that go *elsewhere*.
    *calls* is how many calls on the broken hop they caused, ``None`` where
    those are not counted, or only those that a percentage drew.
    """

    sent: int
    least: int
    most: int
    fired: int
    elsewhere: Bystanders = field(default_factory=Bystanders)
    calls: int | None = None

    @property
    def calls_per_request(self) -> float | None:
        """Return the mean over all that were sent. It says nothing of a single one."""
        return None if self.calls is None or not self.sent else self.calls / self.sent


def exposure(samples: Samples, evidence: Evidence, experiment: Experiment) -> Exposure:
    """Return how many requests of the fault arm met the fault."""
    rows = samples.ended_rows(Arm.FAULT)
    sent = len(rows)
    if evidence.per == "request":
        attempts, elsewhere = evidence.attempts, bystanders_of(samples, evidence)
        if elsewhere.sent:
            rows = [n for n in rows if samples.request[n] not in elsewhere.sent]
        each = [attempts[n] for n in rows[: bisect_left(rows, len(attempts))]]
        reached = sum(map(bool, each))
        return Exposure(len(rows), reached, reached, reached, elsewhere, calls=sum(each))
    if evidence.source == "latency-shift":
        fired = _shifted(samples, rows, experiment)
        least = most = fired
    else:
        fired = evidence.fired_total
        most = min(sent, fired)
        declared = experiment.spec.evidence.calls_per_request
        least = min(most, fired // declared if declared else 0)
        least = least if least == most else min(most, max(least, _differing(samples, rows)))
    percent = dose_percent(experiment)
    if percent >= 100 or not fired:
        counted = percent >= 100 and evidence.source != "latency-shift"
        return Exposure(sent, least, most, fired, calls=fired if counted else None)
    # Only what fired can be seen: as many as the dose makes of everything that was sent stand for all of it.
    # Who tries again may be hit more often than it was asked.
    if fired * 100 > sent * percent or stats.within_dose(fired, sent, percent):
        return Exposure(sent, sent, sent, fired)
    scaled = min(sent, int(fired * 100 / percent))
    return Exposure(sent, scaled, scaled, fired)


def dose_percent(experiment: Experiment) -> float:
    """Return the share of requests, in percent, into which the fault is injected at all: delay and abort draw apart."""
    fault = experiment.spec.fault
    spared = 1.0
    for part in (fault.delay, fault.abort):
        if part is not None:
            spared *= 1 - part.percent / 100
    return 100 * (1 - spared)


def _shifted(samples: Samples, rows: list[int], experiment: Experiment) -> int:
    """
    Return how many of *rows* look as the fault would make them, beyond the share of control that does by itself.

    It is 0 without control, and where what is beyond may be chance.
    """
    control = samples.ended_rows(Arm.CONTROL)
    if not rows or not control:
        return 0
    fault = experiment.spec.fault
    usual = sorted(_took_ns(samples, [n for n in control if samples.failure[n] == Failure.NONE]))
    abort = None if fault.abort is None else fault.abort.http
    slow_ns = None
    if fault.delay is not None and usual:
        slow_ns = stats.quantile(usual, 0.5) + SHIFT_LEAST * fault.delay.duration_s * 1e9

    def alike(those: list[int]) -> int:
        took_ns = _took_ns(samples, those)
        return sum(
            (abort is not None and samples.status[n] == abort) or (slow_ns is not None and took >= slow_ns)
            for n, took in zip(those, took_ns, strict=True)
        )

    hit, anyway = alike(rows), alike(control) / len(control)
    if stats.lower_bound(hit, len(rows), alpha=CHANCE) <= anyway:
        return 0
    return int((hit / len(rows) - anyway) * len(rows) + 1e-9)


def _differing(samples: Samples, rows: list[int]) -> int:
    """Return how many of *rows* are beyond what control shows, by what was answered or by how long it took."""
    control = samples.ended_rows(Arm.CONTROL)
    if not rows or not control:
        return 0
    answers, usual = _seen(samples, rows), Counter(_seen(samples, control))
    by_answer = sum(
        max(0.0, count / len(rows) - usual[seen] / len(control)) for seen, count in Counter(answers).items()
    )
    if by_answer >= 1.0:
        return len(rows)
    took_ns, usual_ns = _took_ns(samples, rows), sorted(_took_ns(samples, control))
    new = sum(took > usual_ns[-1] or seen not in usual for seen, took in zip(answers, took_ns, strict=True))
    return int(max(by_answer, new / len(rows), _lag(sorted(took_ns), usual_ns)) * len(rows) + 1e-9)


def _took_ns(samples: Samples, rows: list[int]) -> list[int]:
    done, due = samples.done_ns, samples.due_ns
    return [done[n] - due[n] for n in rows]


def _seen(samples: Samples, rows: Sequence[int]) -> list[_Seen]:
    columns = (samples.failure, samples.status, samples.holds)
    return list(zip(*(map(column.__getitem__, rows) for column in columns), strict=True))


def _lag(slow: list[int], fast: list[int]) -> float:
    """Return the most by which the share of *slow* over some limit exceeds that of *fast*. Both are sorted."""
    at = map(bisect_left, repeat(fast), slow)
    most = max(below * len(slow) - index * len(fast) for index, below in enumerate(at))
    return max(0, most) / (len(slow) * len(fast))
