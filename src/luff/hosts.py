"""
Names as Istio reads them: hosts, gateways, wildcards.

A name is read in the namespace of the object that says it. What a person
writes in an experiment or a URL may mean more than one full name, since in a
cluster ``ratings.bookinfo`` is an address, while in a VirtualService it is a
full name by itself; `meanings` has both, `qualify` only what Istio makes of it.
"""

from __future__ import annotations

import ipaddress

__all__ = ["DOMAIN", "MESH", "covers", "is_ip", "matches", "meanings", "qualify", "qualify_gateway"]

DOMAIN = "svc.cluster.local"
MESH = "mesh"
"""The word for all sidecars, where gateways are named."""


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
