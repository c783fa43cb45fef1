"""
What configuration is made from: services with their endpoints, and Istio's objects as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from luff.crd import nanoseconds
from luff.hosts import DOMAIN, namespace_of, visibility
from luff.words import Object

__all__ = ["Endpoint", "MeshState", "Service", "age", "imported", "protobuf_seconds"]


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


def age(thing: Object) -> tuple[str, str, str]:
    metadata = thing["metadata"]
    return str(metadata.get("creationTimestamp") or ""), str(metadata["name"]), namespace_of(thing)


def imported(objects: Iterable[Object], namespace: str) -> list[Object]:
    """Return what *namespace* sees, in pilot's order: private to it, exported to it, public; each the oldest first."""
    seen = [(place, thing) for thing in objects if (place := visibility(thing, namespace)) is not None]
    return [thing for _, thing in sorted(seen, key=lambda each: (each[0], age(each[1])))]


def protobuf_seconds(text: Any) -> str | None:
    """Return an Istio duration such as ``1m30s`` as protobuf's JSON has it: ``90s``; `ValueError` when it is none."""
    if text is None:
        return None
    value_ns = nanoseconds(str(text))
    if value_ns is None:
        raise ValueError(f"{text!r} is not a duration")
    whole, rest_ns = divmod(int(value_ns), 10**9)
    return f"{whole}.{rest_ns:09}".rstrip("0").rstrip(".") + "s"
