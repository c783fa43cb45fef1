"""
Ctrl-C and SIGTERM while routes are at stake, and afterwards.

What must stay true: from the first run, or the first look at what is to be put
back, to the end of the process there is no moment at which a signal ends the
command on the spot. While runs go on they are told, and a restore is finished;
afterwards what was learnt is written, and the exit code stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from luff.cli import tell, tell_error
from luff.errors import LuffError, RestoreNotVerified

__all__ = ["NOT_SKIPPED", "heeded", "to_the_end"]

_ENDING = (signal.SIGINT, signal.SIGTERM)
NOT_SKIPPED = "luff: restoring; this is not skipped"
"""What a second signal is answered with."""


async def to_the_end(work: Awaitable[int]) -> int:
    """
    Do *work*, which puts routes back within a bound of its own, and return its exit code; no signal cuts it short.

    After a signal the code is 130 or 143, whatever *work* ends with, except
    that it raises `RestoreNotVerified`.
    """
    heard: list[int] = []

    def hear(number: int) -> None:
        first = (
            f"luff: {signal.Signals(number).name}: finishing what is under way, until every route is known to be back"
        )
        tell(NOT_SKIPPED if heard else first, err=True)
        heard.append(number)

    with heeded(hear, late="ending; what was under way is finished"):
        try:
            code = await work
        except RestoreNotVerified:
            raise
        except LuffError as error:
            if not heard:
                raise
            tell_error(error)
        return 128 + heard[0] if heard else code


@contextmanager
def heeded(
    hear: Callable[[int], None], *, late: str = "the runs have ended; writing what was learnt"
) -> Iterator[None]:
    """Call *hear* with each signal in the running loop, for the life of the body; later ones only get the line *late* on stderr."""
    loop = asyncio.get_running_loop()

    def too_late(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"luff: {late}\n".encode())

    for number in _ENDING:
        loop.add_signal_handler(number, hear, number)
    try:
        yield
    finally:
        # One that comes between these two lines waits for the second.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        for number in _ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, too_late)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
