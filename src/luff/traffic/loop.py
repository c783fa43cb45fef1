"""The event loop on which traffic is sent: uvloop where there is one, since it sends twice as much on the same core."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")

GARBAGE_AFTER = (700, 10, 10)
"""The thresholds that Python begins with up to 3.12: whoever looks often, looks through little."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do *work* on a new event loop and return what it returns."""
    # What is there by now stays for good; to look through it in mid-run would hold up a restore, and the traffic.
    gc.freeze()
    gc.set_threshold(*GARBAGE_AFTER)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)
