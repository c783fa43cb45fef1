"""Whether a person is there to be asked, and to watch."""

from __future__ import annotations

import os
from typing import IO

__all__ = ["interactive"]

_NO = frozenset({"", "0", "false"})


def interactive(*streams: IO[str] | None) -> bool:
    """
    Return whether each of *streams* is a terminal with a person at it.

    Many CI systems give their jobs a terminal and set ``CI``; ``CI`` as
    nothing, ``0`` or ``false`` means none.
    """
    if os.environ.get("CI", "").strip().lower() not in _NO:
        return False
    return all(stream is not None and stream.isatty() for stream in streams)
