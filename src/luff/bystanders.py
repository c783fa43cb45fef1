"""
Which of ``traffic.requests`` never reach the target: bystanders that travel with the fault arm.

They are inferred only where that is safe: each request is seen, others of them
did meet the fault, and nobody was seen to lose the scope. Else a caller that
drops the header on one of its paths would be excused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from luff.model import Experiment
from luff.samples import Evidence, Samples
from luff.words import Arm

__all__ = ["BYSTANDER_FROM", "Bystanders", "bystanders_of"]

BYSTANDER_FROM = 20
"""Of fewer requests of one kind it is not said that they go elsewhere."""


@dataclass(frozen=True, slots=True)
class Bystanders:
    """
    This is how many requests of each kind went elsewhere, by its place in ``traffic.requests``.

    *hurt* of them failed, or had a 5xx.
    """

    sent: dict[int, int] = field(default_factory=dict)
    hurt: int = 0

    @property
    def total(self) -> int:
        """Return how many requests never could meet the fault."""
        return sum(self.sent.values())

    def names(self, experiment: Experiment) -> list[str]:
        """Return their names, or what they ask where they have none."""
        requests = experiment.spec.traffic.requests
        return [requests[place].name or f"{requests[place].method} {requests[place].url}" for place in self.sent]


def bystanders_of(samples: Samples, evidence: Evidence) -> Bystanders:
    """Return the bystanders of the fault arm while the fault was live."""
    if evidence.per == "aggregate" or evidence.lost_at or len(set(samples.request)) < 2:
        return Bystanders()
    rows, kind, attempts = samples.ended_rows(Arm.FAULT), samples.request, evidence.attempts
    known = rows[: bisect_left(rows, len(attempts))]
    exposed = {kind[n] for n in known if attempts[n]}
    sent = Counter(map(kind.__getitem__, rows)) if exposed else Counter[int]()
    found = {k: count for k, count in sorted(sent.items()) if k not in exposed and count >= BYSTANDER_FROM}
    hurt = sum(1 for n in rows if kind[n] in found and (samples.failure[n] or samples.status[n] >= 500)) if found else 0
    return Bystanders(found, hurt)
