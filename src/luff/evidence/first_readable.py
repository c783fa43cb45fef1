"""The best source that can be read, found out before a fault is armed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from luff.errors import PlanRefused
from luff.evidence import Source
from luff.evidence.proxy_counts import Unreadable
from luff.samples import Evidence, Samples

__all__ = ["FirstReadable"]


@dataclass(slots=True)
class FirstReadable:
    """This is a `luff.evidence.Source`: the first of *candidates* that answers. All of them write into *evidence*."""

    evidence: Evidence
    candidates: Sequence[Source]
    _chosen: Source | None = field(default=None)

    @property
    def late_s(self) -> float:
        """Return that of the chosen one."""
        return 0.0 if self._chosen is None else self._chosen.late_s

    async def begin(self) -> None:
        """Choose. Raises `PlanRefused` with every reason when none can be read."""
        refused: list[Unreadable] = []
        for candidate in self.candidates:
            try:
                await candidate.begin()
            except Unreadable as error:
                refused.append(error)
                continue
            self._chosen = candidate
            if refused:
                self.evidence.passed_over = "; ".join(f"{each.why} ({each.next_step})" for each in refused)
            return
        raise PlanRefused(
            "evidence_unreadable",
            "the fault could not be seen, so nothing was injected: " + "; ".join(each.why for each in refused),
            next_step=", or ".join(dict.fromkeys(each.next_step for each in refused)),
        )

    async def poll(self, samples: Samples) -> None:
        if self._chosen is not None:
            await self._chosen.poll(samples)

    async def close(self) -> None:
        """Let go of all of them."""
        for candidate in self.candidates:
            await candidate.close()
