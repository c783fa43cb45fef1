"""
The last resort: what luff's own samples show of the fault, where nothing else can be read.

`luff.exposure` counts the requests of the fault arm that took at least 0.8 of the
injected delay longer than control usually does, or that came back with the
injected status, beyond the share of control that did so by itself: without
control it proves nothing. It cannot tell a fault that the caller cut short or answered
for from one that never fired, nor who slowed the request down.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from luff.samples import Evidence, Samples

__all__ = ["LatencyShift"]


@dataclass(slots=True)
class LatencyShift:
    """This is a `luff.evidence.Source` on the samples themselves."""

    evidence: Evidence = field(default_factory=lambda: Evidence("latency-shift", "aggregate"))
    late_s: float = 0.0

    async def begin(self) -> None:
        """Say that this is what there is."""
        self.evidence.source, self.evidence.per = "latency-shift", "aggregate"

    async def poll(self, samples: Samples) -> None:
        number = self.evidence.settled_through
        while number < len(samples) and samples.decided(number):
            number += 1
        self.evidence.settled_through = number

    async def close(self) -> None:
        """Do nothing: nothing is held."""
