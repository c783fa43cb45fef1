"""
How names in Istio's objects must be spelled: domains, namespaces, gateways, ports, labels, subnets.

Each function yields what istiod's webhook would say, and nothing where it would say nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

__all__ = ["domain", "export_to", "gateway_names", "labels", "namespace", "port", "status", "subnet", "subset_name"]

_DNS_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_WILDCARD_LABEL = re.compile(r"\*|(?:\*|\*-)?[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_LABEL_TEXT = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_NAME_LONGEST = 63
_STATUS = re.compile(r"\+?0*([0-9]{3})")
_STATUSES_WITH_A_TEXT = {
    *range(100, 104), *range(200, 209), 226, *range(300, 306), 307, 308, *range(400, 419), *range(421, 427), 428, 429,
    431, 451, *range(500, 509), 510, 511,
}  # fmt: skip


def domain(name: str, *, wildcard: bool = True) -> Iterator[str]:
    """Say why *name* is no domain name; with *wildcard* its first label may be or begin with a star."""
    if not name:
        yield "empty domain name not allowed"
        return
    if len(name.encode(errors="replace")) > 255:
        yield f"domain name {name!r} too long (max 255)"
        return
    first, *rest = name.split(".")
    bad = [] if (_WILDCARD_LABEL if wildcard else _DNS_LABEL).fullmatch(first) and len(first) <= 63 else [first]
    if rest and rest[-1] == "":
        rest.pop()  # the dot at the end of an unambiguous name
    # Where a wildcard may stand, a name of one label is not looked at as a top level domain.
    top = rest[-1] if rest else ("" if wildcard else first)
    if top.isdecimal():
        yield f"domain name {name!r} invalid (top level domain {top!r} cannot be all-numeric)"
    for label in bad + [label for label in rest if not _DNS_LABEL.fullmatch(label)]:
        yield f"domain name {name!r} invalid (label {label!r} invalid)"


def namespace(name: str, called: str) -> Iterator[str]:
    """Say why *name*, which is *called* so, is no namespace."""
    if not _DNS_LABEL.fullmatch(name):
        yield f"{called} {name} is invalid"


def gateway_names(names: list[str]) -> Iterator[str]:
    """Say why *names* cannot be those of gateways. Like istiod, look no further than the first without a slash."""
    for name in names:
        place, slash, short = name.partition("/")
        if not slash:
            yield from domain(name, wildcard=False)
            return
        if not _DNS_LABEL.fullmatch(place):
            yield f"invalid value for namespace: {place!r}"
        if not _DNS_LABEL.fullmatch(short):
            yield f"invalid value for gateway name: {short!r}"


def export_to(names: list[str], own: str) -> Iterator[str]:
    """Say why an object in the namespace *own* cannot be exported to *names*."""
    meant = [own if name == "." else name for name in names]
    for name in dict.fromkeys(meant):
        if meant.count(name) < 2:
            continue
        if names.count(name) < meant.count(name) and name in names:
            yield f"duplicate entries in exportTo: . and current namespace {own}"
        else:
            yield f"duplicate entries in exportTo for entry {'.' if name not in names else name}"
    if "*" in names and len(names) > 1:
        yield "cannot have both public (i.e. *) and other values in exportTo"
    for name in names:
        if name not in ("*", ".") and not _DNS_LABEL.fullmatch(name):
            yield f"invalid value for exportTo: {name!r}"


def subset_name(name: str) -> Iterator[str]:
    """Say why *name* cannot be a subset's."""
    if not name:
        yield "subset name cannot be empty"
    elif not _DNS_LABEL.fullmatch(name):
        yield f"subset name is invalid: {name}"


def port(number: int) -> Iterator[str]:
    """Say why *number* is no port."""
    if not 1 <= number <= 65535:
        yield f"port number {number} must be in the range 1..65535"


def labels(wanted: Mapping[str, str]) -> Iterator[str]:
    """Say why *wanted* cannot be labels. Like istiod, let values be longer than any label of Kubernetes."""
    for key, value in wanted.items():
        prefix, slash, name = key.rpartition("/")
        if (
            not _LABEL_TEXT.fullmatch(name)
            or len(name) > _LABEL_NAME_LONGEST
            or (slash and not all(_DNS_LABEL.fullmatch(label) for label in prefix.split(".")))
        ):
            yield f"invalid tag key: {key!r}"
        if value and not _LABEL_TEXT.fullmatch(value):
            yield f"invalid tag value: {value!r}"


def subnet(text: str) -> Iterator[str]:
    """Say why *text* is neither an address nor a block of them."""
    address, slash, length = text.partition("/")
    try:
        most: int = ipaddress.ip_address(address).max_prefixlen
    except ValueError:
        most = -1
    # A zone (fe80::1%eth0) names an interface, which a block has not.
    is_block = "%" not in address and re.fullmatch("0|[1-9][0-9]{0,2}", length) and int(length) <= most
    if most < 0 or (slash and not is_block):
        yield f"{text} is not a valid {'CIDR block' if slash else 'IP'}"


def status(text: str) -> int | None:
    """Return the HTTP status that *text* is, as Go reads a number; ``None`` when it is none that has a text."""
    found = _STATUS.fullmatch(text)
    return int(found[1]) if found and int(found[1]) in _STATUSES_WITH_A_TEXT else None
