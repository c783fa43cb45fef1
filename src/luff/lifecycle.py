"""
Where the routes of a run are, and the only ways from one place to the next.

Rule 1: everything that decides which phase may follow which is in `NEXT`.
Rule 2: a phase says where the *routes* are. What was learnt is a `Verdict`,
and the two never share a field.
Rule 3: a phase is written to the journal before the act that it announces, so
that whoever reads the journal after a crash knows at least as much as the
process that died.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

__all__ = ["EXPIRY_MARGIN_S", "LIVE_WITHIN_S", "NEXT", "Intent", "Journal", "Phase", "StoredLever", "check_way"]

LIVE_WITHIN_S = 30.0
"""How long a run that is armed waits for the proxies to have the twins."""
EXPIRY_MARGIN_S = 5.0
"""So long before the twins expire the run ends itself: afterwards anybody may remove them."""


class Phase(StrEnum):
    """This is where the routes of a run are."""

    PLANNED = "planned"
    """Nothing was sent to the mesh."""
    ARMED = "armed"
    """The journal says that a patch may be sent; whether it arrived is not known."""
    LIVE = "live"
    """The twins were read back and seen to work."""
    WITHDRAWING = "withdrawing"
    """The removal may have been sent."""
    CLEAN = "clean"
    """The object was read back without anything of ours. Final."""
    STRANDED = "stranded"
    """It could not be shown that nothing of ours is left. Somebody has to act; a later restore may still clean it."""


NEXT: MappingProxyType[Phase, frozenset[Phase]] = MappingProxyType(
    {
        Phase.PLANNED: frozenset({Phase.ARMED, Phase.CLEAN}),
        Phase.ARMED: frozenset({Phase.LIVE, Phase.WITHDRAWING}),
        Phase.LIVE: frozenset({Phase.WITHDRAWING}),
        Phase.WITHDRAWING: frozenset({Phase.CLEAN, Phase.STRANDED}),
        Phase.STRANDED: frozenset({Phase.WITHDRAWING}),
        Phase.CLEAN: frozenset(),
    }
)
"""The one table of ways between phases. From anything armed there is no way to clean except through withdrawing."""


def check_way(before: Phase, after: Phase) -> None:
    """Raise ValueError unless *after* may follow *before*. Staying where one is is always a way (a repeated write)."""
    if after is not before and after not in NEXT[before]:
        raise ValueError(f"no way from {before} to {after}; from {before} one may go to {sorted(NEXT[before])}")


@dataclass(frozen=True, slots=True)
class Intent:
    """
    This is what is written down before a patch is sent: enough to take it back.

    *hash_before* is the SHA-256 of the canonical ``spec.http``;
    *expires_s* is in Unix seconds by the API server's clock.
    """

    run: str
    namespace: str
    virtual_service: str
    uid: str
    resource_version: str
    names: tuple[str, ...]
    expires_s: int
    hash_before: str


class Journal(Protocol):
    """
    This is the durable record of phases.

    `arm` returns only when the row is committed. Both raise
    `luff.errors.StoreError`; a failure in `mark` never stops a withdrawal.
    """

    async def arm(self, intent: Intent) -> None:
        """Commit that a patch may be sent: phase armed."""

    async def mark(self, run: str, phase: Phase, *, note: str | None = None) -> None:
        """Commit that *run* is now in *phase*; ValueError when there is no such way."""


@dataclass(frozen=True, slots=True)
class StoredLever:
    """This is a lever that is on in the store, by whom, why and since when; without a *namespace* it is for all of them."""

    namespace: str | None
    who: str
    why: str
    at: datetime
