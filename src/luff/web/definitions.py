"""
The experiments that the operator has put down, read again when their files change.

A mistake in the files is said, and what was read before goes on: a typing
error must not stop a game day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from luff.errors import LuffError
from luff.model import Experiment
from luff.web.problems import Problem

__all__ = ["Definitions"]

LOOK_EVERY_S = 2.0


class Definitions:
    """
    This is what may be run.

    *stamp* says cheaply whether the files have changed; *read* reads them, and
    raises a `LuffError` for what is wrong.
    """

    def __init__(self, stamp: Callable[[], object], read: Callable[[], Sequence[Experiment]]) -> None:
        self._stamp = stamp
        self._read = read
        self._seen: object = None
        self._looked_s = -1e9
        self._experiments: Mapping[str, Experiment] = {}
        self.problem: LuffError | None = None

    def load(self) -> None:
        """Read the files; raises when they are not valid."""
        self._seen = self._stamp()
        self._experiments = {each.name: each for each in self._read()}
        self._looked_s = time.monotonic()

    def all(self) -> Mapping[str, Experiment]:
        """Return the experiments by name, as the files have them now. Blocks on the disk."""
        if time.monotonic() - self._looked_s > LOOK_EVERY_S:
            self._looked_s = time.monotonic()
            stamp = self._stamp()
            if stamp != self._seen:
                try:
                    self.load()
                    self.problem = None
                except LuffError as error:
                    self._seen, self.problem = stamp, error
        return self._experiments

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
