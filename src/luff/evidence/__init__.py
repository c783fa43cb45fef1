"""
Proof that the fault fired for the requests that it should have: where it is read.

A source is polled while traffic runs and fills its `luff.samples.Evidence` in
place. Per-request evidence knows which requests took the twin; aggregate
evidence only how many attempts did.
"""

from __future__ import annotations

from typing import Protocol

from luff.samples import Evidence, Samples

__all__ = ["Source"]


class Source(Protocol):
    """This is one way of getting evidence."""

    evidence: Evidence

    async def poll(self, samples: Samples) -> None:
        """Read what is new and bring `evidence` up to date. Never raises for a missing line: absence is evidence too."""
