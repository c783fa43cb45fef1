"""
What configuration is made from: services with their endpoints, and Istio's objects as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from luff.hosts import DOMAIN
from luff.units import parse_duration_s
from luff.words import Object

__all__ = ["Endpoint", "MeshState", "Service", "age", "imported", "namespace_of", "protobuf_seconds"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """This is one replica's inbound address, and the labels that subsets select it by."""

    host: str
    port: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Service:
    """This is one service with one port."""

    name: str
    namespace: str
    port: int
    endpoints: tuple[Endpoint, ...] = ()

    @property
    def host(self) -> str:
        """Return its full name."""
        return f"{self.name}.{self.namespace}.{DOMAIN}"


@dataclass(frozen=True, slots=True)
class MeshState:
    """This is all that configuration is made from; the objects are raw, in any order."""

    services: tuple[Service, ...] = ()
    virtual_services: tuple[Object, ...] = ()
    destination_rules: tuple[Object, ...] = ()
    gateways: tuple[Object, ...] = ()


def namespace_of(thing: Object) -> str:
    return str(thing["metadata"].get("namespace") or "default")


def age(thing: Object) -> tuple[str, str, str]:
    metadata = thing["metadata"]
    return str(metadata.get("creationTimestamp") or ""), str(metadata["name"]), namespace_of(thing)


def imported(objects: Iterable[Object], namespace: str) -> list[Object]:
    """Return what *namespace* sees, in pilot's order: private to it, exported to it, public; each the oldest first."""
    groups: tuple[list[Object], list[Object], list[Object]] = ([], [], [])
    for thing in sorted(objects, key=age):
        exported = (thing.get("spec") or {}).get("exportTo") or ["*"]
        own = namespace_of(thing)
        if "*" in exported:
            groups[2].append(thing)
        elif own == namespace and ("." in exported or own in exported):
            groups[0].append(thing)
        elif namespace in exported:
            groups[1].append(thing)
    return [thing for group in groups for thing in group]


def protobuf_seconds(text: Any) -> str | None:
    """Return an Istio duration such as ``1m30s`` as protobuf's JSON has it: ``90s``."""
    if text is None:
        return None
    value_s = 0.0 if text in ("0", "0s") else parse_duration_s(text)
    return f"{value_s:.9f}".rstrip("0").rstrip(".") + "s"
