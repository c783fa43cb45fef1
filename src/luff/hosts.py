"""
Short names and wildcards, as Istio reads them. A short host is of the namespace of the object that names it.
"""

from __future__ import annotations

__all__ = ["DOMAIN", "matches", "qualify"]

DOMAIN = "svc.cluster.local"


def qualify(host: str, namespace: str) -> str:
    """Return *host* as a full name: one without a dot is a service of *namespace*; everything else stays as it is."""
    host = host.lower().removesuffix(".")
    if not host or "*" in host:
        return host
    parts = host.split(".")
    if len(parts) == 1:
        return f"{host}.{namespace}.{DOMAIN}"
    if len(parts) == 2 and parts[1] == namespace:
        return f"{host}.{DOMAIN}"
    if len(parts) == 3 and parts[2] == "svc":
        return f"{host}.cluster.local"
    return host


def matches(pattern: str, host: str) -> bool:
    """Return whether *pattern*, a full name or ``*`` or ``*.suffix``, takes *host*."""
    pattern, host = pattern.lower(), host.lower()
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return pattern == host
