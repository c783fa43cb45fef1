"""
Text as both databases can hold it.

PostgreSQL refuses NUL, neither can hold half a surrogate pair, and an index
entry has a longest length. These columns are copies for searching; the outcome
itself is kept whole, as JSON in ASCII.
"""

from __future__ import annotations

import re
from typing import overload

from luff.store.tables import KEY_LENGTH

__all__ = ["TEXT_LENGTH", "key", "long_text"]

TEXT_LENGTH = 10_000
"""The longest explanation that is copied into a column to be shown in a list."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@overload
def key(text: str) -> str: ...
@overload
def key(text: None) -> None: ...
@overload
def key(text: str | None) -> str | None: ...
def key(text: str | None) -> str | None:
    """Return *text* as it stands in a column that is searched."""
    return None if text is None else _UNSTORABLE.sub("\ufffd", text)[:KEY_LENGTH]


def long_text(text: str | None) -> str | None:
    """Return *text* as it stands in a column that is only shown."""
    return None if text is None else _UNSTORABLE.sub("\ufffd", text)[:TEXT_LENGTH]
