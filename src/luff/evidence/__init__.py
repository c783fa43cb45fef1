"""
Proof that the fault fired for the requests that it should have: where it is read.

A source is polled while traffic runs and fills its `luff.samples.Evidence` in
place. Per-request evidence knows which requests took the twin; aggregate
evidence only how many attempts did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from luff.routes import Injection
from luff.samples import Evidence, Samples

__all__ = ["DataPlane", "Sighting", "Source"]


class Source(Protocol):
    """
    This is one way of getting evidence.

    *evidence* is the same object from the first to the last. *late_s* is how
    long after the last request something may still be learnt of it.
    """

    evidence: Evidence

    @property
    def late_s(self) -> float: ...

    async def begin(self) -> None:
        """Begin: the fault is about to be armed. Raises `luff.errors.PlanRefused` when nothing could be proven."""

    async def poll(self, samples: Samples) -> None:
        """Read what is new and bring `evidence` up to date. Never raises for a missing line: absence is evidence too."""

    async def close(self) -> None:
        """Let go of what it reads from."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """
    This is one look at the proxies.

    *concerned* are those that should have twins: they have a route that one
    stands before. *names* says for each that answered which twins it has; *silent* did not
    answer, so nothing is known of them.
    """

    concerned: frozenset[str]
    names: Mapping[str, frozenset[str]]
    silent: frozenset[str]


class DataPlane(Protocol):
    """This is a way of seeing what proxies run, as opposed to what the API server holds."""

    async def look(self, injection: Injection) -> Sighting:
        """Return where the twins of *injection* are live. Never raises: a proxy may be silent."""
