"""
What the fields of documents are made of: numbers with a unit, names, addresses, and the base of every modelled part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from luff.units import (
    DURATION_MOST_S,
    RATE_MOST_HZ,
    parse_duration_s,
    parse_percent,
    parse_rate_hz,
    write_duration,
    write_percent,
    write_rate,
)

__all__ = [
    "API_VERSION",
    "Address",
    "DnsLabel",
    "Document",
    "DurationS",
    "Host",
    "Means",
    "Percent",
    "RateHz",
    "Status",
    "Text",
    "Written",
]

API_VERSION = "luff.dev/v1alpha1"

_DURATION_SCHEMA = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}
_PERCENT_SCHEMA = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?\s*%?$", "minimum": 0, "maximum": 100}
_RATE_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?/(s|m|h)$"}


@dataclass(frozen=True, slots=True)
class Written:
    """This says that a number is written as text with a unit: *parse* reads it, *write* is its inverse."""

    parse: Callable[[object], float]
    write: Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Means:
    """This says in words what a text must be, where a pattern says it for machines; *example* is one that would do."""

    words: str
    example: str


def _read(parse: Any) -> BeforeValidator:
    """Let a model be built from text, by *parse*, or from a value that is already a number in our unit."""
    return BeforeValidator(lambda value: value if isinstance(value, float) else parse(value))


DurationS = Annotated[
    float,
    _read(parse_duration_s),
    Field(ge=0, le=DURATION_MOST_S),
    Written(parse_duration_s, write_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
Percent = Annotated[
    float,
    _read(parse_percent),
    Field(ge=0, le=100),
    Written(parse_percent, write_percent),
    WithJsonSchema(_PERCENT_SCHEMA),
]
RateHz = Annotated[
    float,
    _read(parse_rate_hz),
    Field(gt=0, le=RATE_MOST_HZ),
    Written(parse_rate_hz, write_rate),
    WithJsonSchema(_RATE_SCHEMA),
]

_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DnsLabel = Annotated[
    str,
    Field(pattern=_LABEL),
    Means("a DNS label: lower-case letters, digits and '-', at most 63 of them", "slow-ratings"),
]
Host = Annotated[
    str,
    Field(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"),
    Means("a host name without scheme, port or path", "reviews.bookinfo"),
]
Status = Annotated[
    str,
    Field(pattern=r"^[1-5]([0-9][0-9]|xx)$"),
    Means("a status such as 503, or a class of them such as 5xx", "5xx"),
]
_DIALLED = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([-A-Za-z0-9._]{0,251}[A-Za-z0-9._])?)"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Address = Annotated[
    str,
    Field(pattern=f"^{_DIALLED}:{_PORT}$"),
    Means("an address: HOST:PORT, with a port from 1 to 65535, and an IPv6 address in brackets", "127.0.0.1:8080"),
]
Text = Annotated[str, Field(min_length=1)]


class Document(BaseModel):
    """This is the base of every modelled part: frozen, and unknown fields are errors. Keys are written in camelCase."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        defer_build=True,  # most commands read no documents, and the guard has to be there at once
        alias_generator=lambda name: _camel(name),
    )


def _camel(name: str) -> str:
    for unit in ("_s", "_hz", "_percent"):
        name = name.removesuffix(unit)
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)
