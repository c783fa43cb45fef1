"""
The name of a twin, and what counts as ours.

A twin is named ``luff.1.<run>.<created>.<expires>.<n>``: the format, sixteen
hex digits, Unix seconds by the API server's clock, a number. That is all a
stranger needs to remove it. *Ours* is what has that whole name, or the prefix
together with our response header; a user's own ``luff.frontend`` is reported
and never removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from luff.model import Object
from luff.scope import FLAGS_HEADER

__all__ = ["PREFIX", "Name", "our_run", "ours", "parse_name", "suspects", "tampered"]

PREFIX = "luff."
_NAME = re.compile(r"luff\.1\.([0-9a-f]{16})\.([0-9]{1,12})\.([0-9]{1,12})\.([0-9]{1,6})")
_SECRET = re.compile(r"[0-9a-f]{32}")
_TRACE = re.compile(r"00-[0-9a-f]{16,}")


@dataclass(frozen=True, slots=True)
class Name:
    """This is a twin's name, taken apart. Both dates are Unix seconds by the API server's clock."""

    run: str
    created_s: int
    expires_s: int
    index: int

    def __str__(self) -> str:
        return f"{PREFIX}1.{self.run}.{self.created_s}.{self.expires_s}.{self.index}"


def parse_name(text: str) -> Name | None:
    """Return *text* taken apart, or ``None`` when it is not of the whole grammar."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    return Name(found[1], int(found[2]), int(found[3]), int(found[4]))


def ours(route: Object) -> bool:
    """Return whether *route* is a twin of luff, this version's or another's."""
    name = str(route.get("name") or "")
    return parse_name(name) is not None or (name.startswith(PREFIX) and _has_flags_header(route))


def our_run(route: Object) -> str | None:
    """Return the run that a route of ours belongs to, or ``None`` where the name does not tell."""
    name = parse_name(str(route.get("name") or ""))
    return None if name is None else name.run


def suspects(virtual_service: Object) -> list[str]:
    """Return the names of routes that begin like ours and are not: to be reported, never removed."""
    routes = (virtual_service.get("spec") or {}).get("http") or []
    names = [str(route.get("name") or "") for route in routes if not ours(route)]
    return [name for name in names if name.startswith(PREFIX)]


def tampered(route: Object) -> bool:
    """Return whether a twin of ours would take requests that do not carry a whole scope."""
    matches = route.get("match") or []
    return not matches or not all(_scoped(match) for match in matches)


def _has_flags_header(route: Object) -> bool:
    response = ((route.get("headers") or {}).get("response") or {}).get("set") or {}
    return any(str(header).lower() == FLAGS_HEADER for header in response)


def _scoped(match: Object) -> bool:
    for value in (match.get("headers") or {}).values():
        wanted = value if isinstance(value, dict) else {}
        prefix = str(wanted.get("prefix") or wanted.get("exact") or "")
        if _SECRET.match(prefix) or _TRACE.match(prefix) or _SECRET.search(str(wanted.get("regex") or "")):
            return True
    return False
