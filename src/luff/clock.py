"""
Time, as a value that is passed in.

The restore protocol takes its time from here, so that a simulation can run the
same code through hours in milliseconds.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """This is what waiting code needs of time."""

    def monotonic_s(self) -> float:
        """Return seconds that only grow; their zero means nothing."""

    def now_s(self) -> float:
        """Return this machine's Unix time in seconds. It may be wrong and may jump."""

    async def sleep(self, seconds: float) -> None:
        """Come back after *seconds*."""


class SystemClock:
    """This is the machine's own time."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def now_s(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
