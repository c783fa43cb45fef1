"""
Regular expressions as Envoy and istiod read them: RE2, always on the whole text.

With the ``lab`` extra installed this is RE2 itself. Without it Python's own
engine stands in: it agrees on what people write in VirtualServices, and takes
some things that RE2 refuses (look-around, back references).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

try:
    import re2
except ImportError:  # the `lab` extra is not installed
    re2 = None

__all__ = ["EXACT", "LENGTH_MOST", "full_match", "why_invalid"]

EXACT = re2 is not None
"""Whether this is RE2 itself."""
LENGTH_MOST = 1024
"""istiod takes no longer expression."""
_COMPILED_MOST = 4096


def full_match(pattern: str, text: str) -> bool:
    """Return whether *pattern* matches the whole of *text*; one that does not compile matches nothing."""
    compiled, _ = _compile(pattern)
    try:
        return compiled is not None and compiled.fullmatch(text) is not None
    except UnicodeError:  # half of a surrogate pair, which no request can carry
        return False


def why_invalid(pattern: str) -> str | None:
    """Return why *pattern* does not compile, or ``None`` when it does."""
    return _compile(pattern)[1]


@lru_cache(maxsize=_COMPILED_MOST)
def _compile(pattern: str) -> tuple[Any, str | None]:
    if re2 is None:
        try:
            return re.compile(pattern), None
        except re.error as error:
            return None, str(error)
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options), None
    except re2.error as error:
        said = error.args[0] if error.args else error
        return None, said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    except UnicodeError:
        return None, "it is not UTF-8"
