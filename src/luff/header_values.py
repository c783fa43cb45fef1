"""
What istiod's webhook says of headers that are set, added or removed: their names, and the ``%…%`` in their values.

A value is read as Envoy's formatter would read it, one character at a time; each
state is a function of the next character, which returns the state after it.
Names of commands are not looked at: ``%NOPE%`` passes here and is Envoy's to refuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from luff.words import Object

__all__ = ["is_authority", "name_problems", "operation_problems"]

# Of RFC 9110's token; istiod writes `+-.` as a range, by which it takes a comma as well.
_NAME = re.compile(r"[-!#$%&'*+,.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What may come next, by what was read so far: a character to the state after it. ``None`` stands for every other
# character but a space, which changes nothing; where it is missing, any other character is wrong.
_TEXT, _COMMAND, _ARGUMENTS, _NEXT_STRING, _STRING, _AFTER_STRING, _AFTER_LIST, _END = range(8)
_NEXT: Mapping[int, Mapping[str | None, int]] = {
    _TEXT: {"%": _COMMAND, None: _TEXT},
    _COMMAND: {"%": _TEXT, "(": _ARGUMENTS, None: _COMMAND},
    _ARGUMENTS: {"[": _NEXT_STRING, None: _STRING},
    _NEXT_STRING: {'"': _STRING},
    _STRING: {")": _END, '"': _AFTER_STRING, None: _STRING},
    _AFTER_STRING: {",": _NEXT_STRING, "]": _AFTER_LIST},
    _AFTER_LIST: {")": _END},
    _END: {"%": _TEXT},
}
_EXPECTED = {_NEXT_STRING: '"', _AFTER_STRING: "',' or ']'", _AFTER_LIST: "')'", _END: "'%'"}


def is_authority(name: str) -> bool:
    """Return whether *name* is that of the header which says whom a request is for."""
    return name.lower() in ("host", ":authority")


def name_problems(name: str) -> Iterator[str]:
    """Say why *name* cannot be matched or listed as a header."""
    if not name:
        yield "header name cannot be empty"
    elif not _NAME.fullmatch(name):
        yield f"header name {name} is not a valid header name"


def operation_problems(headers: Object) -> Iterator[str]:
    """Say what is wrong with the header operations of a route or of one destination."""
    for side in ("request", "response"):
        operations = headers.get(side) or {}
        for key in ("set", "add"):
            for name, value in (operations.get(key) or {}).items():
                yield from _operation_name(name, authority=side == "request")
                problem = _value_problem(value)
                if problem is not None:
                    yield f"header value configuration: {problem}"
        for name in operations.get("remove") or []:
            yield from _operation_name(name)


def _operation_name(name: str, *, authority: bool = False) -> Iterator[str]:
    # The webhook takes any other character here, where it would not in a match.
    if not name:
        yield "header name cannot be empty"
    elif authority and is_authority(name):
        return
    elif name.lower() == "host":
        yield f"invalid header {name!r}: cannot set Host header"
    elif name.startswith(":"):
        yield f"invalid header {name!r}: header cannot have ':' prefix"


def _value_problem(value: str) -> str | None:
    """Return why *value* cannot be set as a header, or ``None`` when it can."""
    if _CONTROL.search(value):
        return f"{value!r} has control characters"
    state, place = _TEXT, 0
    while place < len(value):
        character = value[place]
        if state == _TEXT and value.startswith("%%", place):
            place += 2
            continue
        if state == _TEXT and character == "%" and place + 1 == len(value):
            return f"un-escaped % at the end of {value!r}; write %% for one"
        if state == _STRING and character == "\\":
            if place + 1 == len(value):
                return f"un-terminated backslash in {value!r}"
            place += 2
            continue
        ways = _NEXT[state]
        if character in ways:
            state = ways[character]
        elif None in ways and not (state == _ARGUMENTS and character == " "):
            state = ways[None]
        elif character != " ":
            return f"expecting {_EXPECTED[state]} or a space at character {place + 1} of {value!r}"
        place += 1
    return None if state == _TEXT else f"un-terminated variable expression {value!r}"
