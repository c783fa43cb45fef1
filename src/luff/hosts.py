"""
Names as Istio reads them: hosts, gateways, wildcards, and to whom an object is visible.

A name is read in the namespace of the object that says it. What a person
writes in an experiment or a URL may mean more than one full name, since in a
cluster ``ratings.bookinfo`` is an address, while in a VirtualService it is a
full name by itself; `meanings` has both, `qualify` only what Istio makes of it.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from luff.words import Object

__all__ = [
    "DOMAIN",
    "EVERYBODY",
    "MESH",
    "NOBODY",
    "OWN",
    "covers",
    "exports_of",
    "host_of",
    "is_ip",
    "matches",
    "meanings",
    "namespace_of",
    "qualify",
    "qualify_gateway",
    "visibility",
]

DOMAIN = "svc.cluster.local"
MESH = "mesh"
"""The word for all sidecars, where gateways are named."""
NOBODY, OWN, EVERYBODY = "~", ".", "*"
"""What ``exportTo`` may say besides the names of namespaces."""


def namespace_of(object_: Object) -> str:
    """Return the namespace of *object_*, in which the names that it says are read."""
    return str((object_.get("metadata") or {}).get("namespace") or "default")


def exports_of(object_: Object) -> list[str]:
    """Return the ``exportTo`` of *object_*; empty means everybody."""
    return [str(each) for each in (object_.get("spec") or {}).get("exportTo") or []]


def visibility(object_: Object, caller: str) -> int | None:
    """Return 0 for private to *caller*, 1 for exported to it by name, 2 for everybody; ``None`` when it does not see it."""
    namespace, to = namespace_of(object_), exports_of(object_)
    if not to or EVERYBODY in to:
        return 2
    if NOBODY in to:
        return None
    if caller == namespace and (OWN in to or namespace in to):
        return 0
    return 1 if caller in to else None


def host_of(url: str) -> str:
    """Return the host of *url*, in lower case and without a port; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def qualify(host: str, namespace: str) -> str:
    """
    Return the full name that *host* has in an object of *namespace*, as pilot resolves it.

    Only a name without a dot is completed; addresses, wildcards and everything
    with a dot stay as they are.
    """
    if not host or "." in host or host == "*" or is_ip(host):
        return host
    return f"{host}.{namespace}.{DOMAIN}"


def meanings(host: str, namespace: str) -> tuple[str, ...]:
    """Return the full names that a person in *namespace* may mean by *host*, the likeliest first, in lower case."""
    host = host.lower().removesuffix(".")
    if "." not in host or "*" in host or is_ip(host):
        return (qualify(host, namespace),)
    parts = host.split(".")
    if len(parts) == 2:
        return (f"{host}.{DOMAIN}", host)
    if len(parts) == 3 and parts[2] == "svc":
        return (f"{host}.cluster.local", host)
    return (host,)


def matches(pattern: str, host: str) -> bool:
    """Return whether *pattern*, a full name or a wildcard such as ``*`` or ``*.example.com``, takes *host*."""
    pattern, host = pattern.lower(), host.lower().removesuffix(".")
    if pattern.startswith("*"):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return pattern.removesuffix(".") == host


def covers(pattern: str, other: str) -> bool:
    """Return whether *pattern* takes everything that *other*, a name or a wildcard too, takes."""
    if other.startswith("*"):
        return pattern.startswith("*") and other.endswith(pattern[1:])
    return other.endswith(pattern[1:]) if pattern.startswith("*") else pattern == other


def qualify_gateway(name: str, namespace: str) -> str:
    """Return ``namespace/name`` for a gateway that an object of *namespace* names; `MESH` stays as it is."""
    if name == MESH:
        return name
    if "/" in name:
        head, _, tail = name.partition("/")
        return f"{namespace}/{tail}" if head == "." else name
    if "." in name:
        # The form of long ago, gateway.namespace.svc.cluster.local.
        short, of, *_ = name.split(".")
        return f"{of}/{short}"
    return f"{namespace}/{name}"


def is_ip(host: str) -> bool:
    """Return whether *host* is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
