"""
Evidence where luff itself calls through the broken hop: the twin's response header.

The twin writes the proxy's flags into its responses, also into those that the
fault filter makes itself, so the direct caller sees per request what happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from luff.model import Arm
from luff.samples import ARMS, Evidence, Flag, Samples

__all__ = ["ResponseHeader"]

_FAULT_ARM = ARMS.index(Arm.FAULT)


@dataclass(slots=True)
class ResponseHeader:
    """This is a `luff.evidence.Source` on the samples' own flags. *caller* is luff's workload name."""

    caller: str = "luff"
    evidence: Evidence = field(default_factory=lambda: Evidence("response-header", "request"))
    late_s: float = 0.0

    async def begin(self) -> None:
        """Do nothing: the samples begin by themselves."""

    async def close(self) -> None:
        """Do nothing: nothing is held."""

    async def poll(self, samples: Samples) -> None:
        evidence = self.evidence
        missing = len(samples) - len(evidence.attempts)
        evidence.attempts.extend([0] * missing)
        evidence.fired.extend([0] * missing)
        number = evidence.settled_through
        while number < len(samples) and samples.decided(number):
            flags = samples.flags[number]
            if flags & Flag.TWIN:
                self._take(number, flags, samples.arm[number])
            number += 1
        evidence.settled_through = number

    def _take(self, number: int, flags: int, arm: int) -> None:
        evidence = self.evidence
        if arm != _FAULT_ARM:
            evidence.breaches += 1
            return
        evidence.attempts[number] = 1
        evidence.fired[number] = flags
        evidence.attempts_total += 1
        evidence.callers[self.caller] += 1
        evidence.fired_total += bool(flags & (Flag.DELAY_INJECTED | Flag.FAULT_INJECTED))
