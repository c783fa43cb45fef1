"""
Ctrl-C and SIGTERM while routes are at stake, and afterwards.

What must stay true: from the first run to the end of the process there is no
moment at which a signal ends the command on the spot. While runs go on they
are told; afterwards what was learnt is written, and the exit code stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["heeded"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def heeded(hear: Callable[[int], None]) -> Iterator[None]:
    """Call *hear* with each signal in the running loop, for the life of the body; later ones only get a line on stderr."""
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, hear, number)
    try:
        yield
    finally:
        # One that comes between these two lines waits for the second.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, _too_late)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


def _too_late(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"luff: the runs have ended; writing what was learnt\n")
