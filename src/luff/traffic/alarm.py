"""
Waking up at a time, to the tenth of a millisecond, without burning a core for it.

What must stay true: nobody is woken before the time. Timers of event loops
have whole milliseconds and are up to one late. Linux has timers that are files
(timerfd): one of those wakes the loop just in time. Elsewhere the last
milliseconds are waited in short steps, which costs what it costs.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

__all__ = ["Alarm"]

SPIN_S = 0.0015
"""Timers of an event loop are about this coarse."""
_CLOCK_MONOTONIC = 1  # what `time.perf_counter_ns` reads on Linux
_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)  # TFD_NONBLOCK and TFD_CLOEXEC are the same bits
_ABSOLUTE = 1


class Alarm:
    """
    This wakes one waiter at a time.

    *precise* ``False`` does without the system's timer files. *now_ns* is the
    clock, where that is not the machine's: the event loop has to go by it too.
    """

    def __init__(self, now_ns: Callable[[], int] = time.perf_counter_ns, *, precise: bool = True) -> None:
        real = now_ns is time.perf_counter_ns
        self._now_ns = now_ns
        self._spin_s = SPIN_S if real else 0.0
        self._libc = _libc() if real and precise else None
        self._timer = -1
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        if self._libc is not None:
            # Without a file to be had this is -1, and the waiting is done in steps.
            self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, _FLAGS)
        if self._timer >= 0:
            asyncio.get_running_loop().add_reader(self._timer, self._fired)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer >= 0:
            asyncio.get_running_loop().remove_reader(self._timer)
            os.close(self._timer)
            self._timer = -1

    async def wait(self, until_ns: int) -> None:
        """Come back at *until_ns* of the clock, or just after."""
        while (left_ns := until_ns - self._now_ns()) > 0:
            if self._timer >= 0:
                await self._sleep_until(until_ns)
            else:
                left_s = left_ns / 1e9
                await asyncio.sleep(left_s - self._spin_s if left_s > 2 * self._spin_s else 0)

    async def _sleep_until(self, until_ns: int) -> None:
        assert self._libc is not None
        self._waiter = asyncio.get_running_loop().create_future()
        # No interval, then the time at which it fires.
        spec = (ctypes.c_long * 4)(0, 0, until_ns // 1_000_000_000, until_ns % 1_000_000_000)
        self._libc.timerfd_settime(self._timer, _ABSOLUTE, spec, None)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _fired(self) -> None:
        try:
            os.read(self._timer, 8)
        except BlockingIOError:
            # It was set anew before this was called.
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _libc() -> Any:
    """Return the C library where it has timer files, else ``None``."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_long) != 8:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "timerfd_create") else None
