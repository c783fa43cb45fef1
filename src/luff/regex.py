"""
Regular expressions as Envoy and istiod read them: RE2, on the whole text of a header; `search` looks anywhere in an answer.

With the ``lab`` extra installed this is RE2 itself. Without it Python's own
engine stands in: it agrees on what people write in VirtualServices, and takes
some things that RE2 refuses (look-around, back references).
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

try:
    import re2
except ImportError:  # the `lab` extra is not installed
    re2 = None

__all__ = ["EXACT", "LENGTH_MOST", "TEXT_MOST", "full_match", "search", "why_invalid", "why_slow", "why_unsearchable"]

EXACT = re2 is not None
"""Whether this is RE2 itself."""
LENGTH_MOST = 1024
"""istiod takes no longer expression."""
_COMPILED_MOST = 4096
TEXT_MOST = 4096
"""Characters that are searched where RE2 is not installed: more could take Python's engine minutes."""
_REPEATS_MOST = 1
_OPTIONAL_MOST = 5


def full_match(pattern: str, text: str) -> bool:
    """Return whether *pattern* matches the whole of *text*; one that does not compile matches nothing."""
    compiled, _ = _compile(pattern)
    try:
        return compiled is not None and compiled.fullmatch(text) is not None
    except UnicodeError:  # half of a surrogate pair, which no request can carry
        return False


def search(pattern: str, text: str) -> bool:
    """
    Return whether *pattern* matches anywhere in *text*, in time linear in both.

    Without RE2 only the first `TEXT_MOST` characters are looked at, by
    patterns that `why_unsearchable` lets pass.
    """
    compiled, _ = _compile(pattern)
    try:
        return compiled is not None and compiled.search(text if EXACT else text[:TEXT_MOST]) is not None
    except UnicodeError:
        return False


def why_unsearchable(pattern: str) -> str | None:
    """Return why answers are not searched for *pattern*, ``None`` when they can be: none may hold up a whole run."""
    why = why_invalid(pattern)
    return why if EXACT or why is not None else why_slow(pattern)


def why_slow(pattern: str) -> str | None:
    """Return why an engine that backtracks could take very long over *pattern*, ``None`` when it cannot."""
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern)
    repeats, optional = len(re.findall(r"(?<![(*+}])[*+]|\{", bare)), len(re.findall(r"(?<![(*+?}])\?", bare))
    nested = re.search(r"\)[*+{]", bare)
    if nested or repeats > _REPEATS_MOST or optional > _OPTIONAL_MOST:
        return "several repeats can take Python's own engine for ever, and RE2 is not installed (`pip install 'luff[lab]'` brings it)"
    return None


def why_invalid(pattern: str) -> str | None:
    """Return why *pattern* does not compile, or ``None`` when it does."""
    return _compile(pattern)[1]


@lru_cache(maxsize=_COMPILED_MOST)
def _compile(pattern: str) -> tuple[Any, str | None]:
    if re2 is None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return re.compile(pattern), None
        except (re.error, RecursionError, OverflowError) as error:
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
