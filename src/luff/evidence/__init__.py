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

from luff.samples import Evidence, Samples

__all__ = ["DataPlane", "Sighting", "Source"]


class Source(Protocol):
    """This is one way of getting evidence."""

    evidence: Evidence

    async def poll(self, samples: Samples) -> None:
        """Read what is new and bring `evidence` up to date. Never raises for a missing line: absence is evidence too."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """
    This is one look at the proxies.

    *concerned* are those that route the VirtualService at all; *names* says
    for each that answered which of the asked routes it has; *silent* did not
    answer, so nothing is known of them.
    """

    concerned: frozenset[str]
    names: Mapping[str, frozenset[str]]
    silent: frozenset[str]


class DataPlane(Protocol):
    """This is a way of seeing what proxies run, as opposed to what the API server holds."""

    async def look(self, namespace: str, virtual_service: str, names: tuple[str, ...]) -> Sighting:
        """Return where the routes *names* of a VirtualService are live. Never raises: a proxy may be silent."""
