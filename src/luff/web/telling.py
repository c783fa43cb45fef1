"""Who tells people elsewhere, in a server: how runs ended, game days ahead, and game days that were not held."""

from __future__ import annotations

import asyncio
import logging

from luff.clock import Clock
from luff.errors import LuffError, StoreError
from luff.gameday_files import GameDays
from luff.notify import Channels, Notifier, Untold
from luff.outcome import Outcome
from luff.store import Store
from luff.tidings import GameDayTidings, RunTidings

__all__ = ["Teller"]

TOLD_WITHIN_S = 10.0
"""How long a server that leaves waits for who is still to be told."""
LOOK_EVERY_S = 15.0

_log = logging.getLogger("luff.web")


class Teller:
    """This tells *channels*; who could not be told of what is in the log and in the audit. *clock* is the calendar's."""

    def __init__(self, store: Store, channels: Channels, game_days: GameDays, clock: Clock) -> None:
        self._access = store.access
        self._notifier = Notifier(channels.by_name.values(), untold=self._untold, link=channels.link)
        self._runs = RunTidings(store, self._notifier, clock) if channels.by_name else None
        self._game_days = GameDayTidings(store, self._notifier, game_days, clock) if channels.by_name else None
        self._looking: asyncio.Task[None] | None = None
        self._noting: set[asyncio.Task[None]] = set()

    def ended(self, outcome: Outcome) -> None:
        """Tell *outcome* if it is news. Comes back at once, and never raises."""
        if self._runs is not None:
            self._runs.ended(outcome)

    async def look(self) -> None:
        """Tell what there is to tell of game days now; never raises."""
        if self._game_days is None:
            return
        try:
            await self._game_days.look()
        except LuffError as error:
            _log.error("nobody is told of game days: %s", error)
        except Exception:  # a mistake here must not end the server
            _log.exception("nobody is told of game days")

    async def keep_looking(self) -> None:
        """Look for what there is to tell of game days, until cancelled."""
        while self._game_days is not None:
            # What a look has claimed nobody else tells: one that has begun is not broken off.
            self._looking = asyncio.create_task(self.look(), name="luff-tidings-look")
            await asyncio.shield(self._looking)
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Come back once everything is told, or after a short while; what a game day's end brought is told as well."""
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=TOLD_WITHIN_S)
        await self.look()
        if self._runs is not None:
            await self._runs.close(within_s=TOLD_WITHIN_S)
        if self._noting:
            await asyncio.wait(self._noting, timeout=TOLD_WITHIN_S)

    def _untold(self, untold: Untold) -> None:
        _log.error("%s", untold)
        task = asyncio.create_task(self._note(untold))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _note(self, untold: Untold) -> None:
        name, why = untold.channel.name, f"{untold.why}: {untold.notice.text}"
        try:
            await asyncio.to_thread(self._access.audit, "notify.failed", name, actor="luff", note=why)
        except StoreError as error:
            _log.error("not in the audit: %s was not told: %s", name, error)
