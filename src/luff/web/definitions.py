"""
The experiments that the operator has put down, read again when their files change.

A mistake in the files is said, and what was read before goes on: a typing
error must not stop a game day.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

from luff.errors import LuffError
from luff.gameday_files import GameDays
from luff.model import Experiment
from luff.web.problems import Problem

__all__ = ["Definitions"]

LOOK_EVERY_S = 2.0


class Definitions:
    """This is what may be run: the experiments in the files of *game_days*, of which there is one reading for all."""

    def __init__(self, game_days: GameDays) -> None:
        self.game_days = game_days
        self._looked_s = -1e9

    @property
    def problem(self) -> LuffError | None:
        """Return why the newest files are not used, or ``None``."""
        return self.game_days.problem

    def all(self) -> Mapping[str, Experiment]:
        """Return the experiments by name, as the files have them now. Blocks on the disk."""
        if time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            self.game_days.refresh(datetime.now(UTC))
        return self.game_days.every_experiment

    def get(self, name: str) -> Experiment:
        """Return the experiment *name*, or raise `Problem`."""
        found = self.all().get(name)
        if found is None:
            raise Problem(
                "not_found",
                f"there is no experiment {name[:63]!r} in the definitions",
                next_step="see /api/v1/experiments",
            )
        return found
