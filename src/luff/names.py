"""
The name of a twin, and what counts as ours.

A twin is named ``luff.1.<run>.<created>.<expires>.<n>``: the format, sixteen
hex digits, Unix seconds by the API server's clock, a number. That is all a
stranger needs to remove it. *Ours* is what has that whole name, or the prefix
together with our response header; a user's own ``luff.frontend`` is reported
and never removed. Nothing here trusts the shape of what it is given: whoever
restores must get through any object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from luff.scope import FLAGS_HEADER, Scope
from luff.words import Object

__all__ = [
    "FORMAT",
    "PREFIX",
    "Name",
    "Stamp",
    "find_name",
    "http_routes",
    "is_newer",
    "our_run",
    "ours",
    "parse_name",
    "suspects",
    "tampered",
    "why_suspect",
]

PREFIX = "luff."
FORMAT = 1
_NUMBER = r"(0|[1-9][0-9]{0,11})"
_GRAMMAR = rf"luff\.{FORMAT}\.([0-9a-f]{{16}})\.{_NUMBER}\.{_NUMBER}\.(0|[1-9][0-9]{{0,5}})"
_NAME = re.compile(_GRAMMAR)
_IN_ROUTE_NAME = re.compile(rf"(?:^|-){_GRAMMAR}(?=\.|$)")
_RUN = re.compile(r"luff\.[0-9]+\.([0-9a-f]{16})(?:\.|$)")
_FORMAT_DIGITS = 6
_SCOPE_VALUE = r"[0-9a-f]{32}"
_WHOLE_PREFIX = re.compile(rf"{_SCOPE_VALUE}|00-[0-9a-f]{{16}}")


def _whole_regexes() -> tuple[re.Pattern[str], ...]:
    """Return patterns for the regular expressions that a scope writes, whatever its secret."""
    example = Scope("0" * 32, "1" * 32)
    texts = [wanted["regex"] for _, wanted in example.matches().values() if "regex" in wanted]
    return tuple(
        re.compile(_SCOPE_VALUE.join(re.escape(part) for part in text.split(example.secret))) for text in texts
    )


_WHOLE_REGEXES = _whole_regexes()


@dataclass(frozen=True, slots=True)
class Name:
    """This is a twin's name, taken apart. Both dates are Unix seconds by the API server's clock."""

    run: str
    created_s: int
    expires_s: int
    index: int

    def __str__(self) -> str:
        return f"{PREFIX}{FORMAT}.{self.run}.{self.created_s}.{self.expires_s}.{self.index}"


@dataclass(frozen=True, slots=True)
class Stamp:
    """This is what makes the twins of a run its own: the run id (16 hex), its scope, and its dates by the server's clock."""

    run: str
    scope: Scope
    created_s: int
    expires_s: int

    def name(self, index: int) -> Name:
        """Return the name of the twin of number *index*."""
        return Name(self.run, self.created_s, self.expires_s, index)


def parse_name(text: str) -> Name | None:
    """Return *text* taken apart, or ``None`` when it is not of the whole grammar."""
    found = _NAME.fullmatch(text)
    return None if found is None else _named(found)


def find_name(route_name: str) -> Name | None:
    """
    Return the twin that an Envoy route name speaks of, or ``None``.

    Pilot appends ``.`` and the match's name, and puts the root's name and
    ``-`` before what comes from a delegate.
    """
    found = _IN_ROUTE_NAME.search(route_name)
    return None if found is None else _named(found)


def _named(found: re.Match[str]) -> Name:
    return Name(found[1], int(found[2]), int(found[3]), int(found[4]))


def http_routes(virtual_service: Object) -> list[Any]:
    """Return ``spec.http`` as it is, or an empty list when there is nothing like that."""
    spec = virtual_service.get("spec")
    routes = spec.get("http") if isinstance(spec, dict) else None
    return routes if isinstance(routes, list) else []


def ours(route: Any) -> bool:
    """Return whether *route* is a twin of luff, this version's or another's."""
    name = _name_of(route)
    return parse_name(name) is not None or (name.startswith(PREFIX) and _has_flags_header(route))


def our_run(route: Any) -> str | None:
    """
    Return the run that a route of ours belongs to, or ``None`` where the name does not tell.

    The run is read even where somebody has broken the rest of the name.
    """
    found = _RUN.match(_name_of(route)) if ours(route) else None
    return None if found is None else found[1]


def suspects(virtual_service: Object) -> list[str]:
    """Return the names of routes that begin like ours and are not: to be reported, never removed."""
    names = [_name_of(route) for route in http_routes(virtual_service) if not ours(route)]
    return [name for name in names if name.startswith(PREFIX)]


def why_suspect(name: str) -> str:
    """Return what to make of a route *name* that begins like ours and is not."""
    number = name.removeprefix(PREFIX).partition(".")[0]
    if _is_format_after_ours(number):
        return (
            f"a newer luff may have written it (format {number}, this one knows {FORMAT}), but it lacks "
            f"the response header {FLAGS_HEADER}: use that version to remove it"
        )
    return (
        f"it begins like a twin but has neither the whole name nor the response header {FLAGS_HEADER}: it is left alone"
    )


def is_newer(name: str) -> bool:
    """Return whether *name* is of a format that only a newer luff knows: its dates cannot be read here."""
    number = name.removeprefix(PREFIX).partition(".")[0]
    return name.startswith(PREFIX) and _is_format_after_ours(number)


def _is_format_after_ours(number: str) -> bool:
    return number.isascii() and number.isdigit() and len(number) < _FORMAT_DIGITS and int(number) > FORMAT


def tampered(route: Any) -> bool:
    """Return whether a twin of ours would take requests that do not carry a whole scope."""
    matches = route.get("match") if isinstance(route, dict) else None
    return not isinstance(matches, list) or not matches or not all(_is_scoped(match) for match in matches)


def _is_scoped(match: Any) -> bool:
    headers = match.get("headers") if isinstance(match, dict) else None
    return isinstance(headers, dict) and any(_is_whole(wanted) for wanted in headers.values())


def _is_whole(wanted: Any) -> bool:
    """Return whether the StringMatch *wanted* can hold for nothing but a value that has the scope in it."""
    if not isinstance(wanted, dict):
        return False
    for kind in ("prefix", "exact"):
        if isinstance(text := wanted.get(kind), str) and _WHOLE_PREFIX.match(text):
            return True
    text = wanted.get("regex")
    # A secret somewhere in a regular expression proves nothing: `.*|secret` takes everything. So: our very form.
    return isinstance(text, str) and any(whole.fullmatch(text) for whole in _WHOLE_REGEXES)


def _name_of(route: Any) -> str:
    name = route.get("name") if isinstance(route, dict) else None
    return name if isinstance(name, str) else ""


def _has_flags_header(route: Any) -> bool:
    here = route
    for key in ("headers", "response", "set"):
        here = here.get(key) if isinstance(here, dict) else None
    return isinstance(here, dict) and any(str(header).lower() == FLAGS_HEADER for header in here)
