"""
The mesh, as the rest of luff sees it: a few verbs on raw Kubernetes objects.

Objects go in and come out as dicts, so a field that nobody here has heard of
survives. Writes are never retried here: whoever asked knows whether trying
again is safe. Errors are `luff.errors.MeshError`; which subclass it is says
whether a write may have been applied.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias

from luff.words import Object

__all__ = ["FIELD_MANAGER", "LAB_BUILD", "Kind", "Mesh", "Operation", "Ref", "command_on", "named"]

FIELD_MANAGER = "luff"
"""Who luff is in an object's managedFields."""
LAB_BUILD = "+luff-lab"
"""What the version of a lab's API server ends with, and that of no other."""

Operation: TypeAlias = Mapping[str, Any]
"""One operation of a JSON Patch (RFC 6902)."""


class Kind(StrEnum):
    """This is every kind of object that luff reads or writes."""

    VIRTUAL_SERVICE = "VirtualService"
    DESTINATION_RULE = "DestinationRule"
    LEASE = "Lease"
    CONFIG_MAP = "ConfigMap"
    EVENT = "Event"
    NAMESPACE = "Namespace"
    SERVICE = "Service"
    POD = "Pod"


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """This is the address of one object. *namespace* is empty for kinds that have none."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @classmethod
    def of(cls, object_: Object) -> Ref:
        """Return the address of *object_*."""
        metadata = object_["metadata"]
        return cls(Kind(object_["kind"]), metadata.get("namespace", ""), metadata["name"])


class Mesh(Protocol):
    """
    This is one API server. Every call ends within its own time limit.
    *kubeconfig* is the file that was named for it, ``None`` for the usual ones.

    All raise `luff.errors.MeshUnreachable` (outcome unknown), `MeshBusy`
    (unknown), `MeshDenied`, `NotFound`, `Conflict`, `Rejected` (not applied).
    """

    kind: Literal["lab", "cluster"]
    name: str
    kubeconfig: str | None

    async def read(self, ref: Ref) -> Object:
        """Return the object as it is now."""

    async def list(self, kind: Kind, namespace: str | None) -> list[Object]:
        """Return all objects of *kind* in *namespace*, or everywhere; each with ``kind`` and ``apiVersion`` set."""

    async def create(self, object_: Object, *, dry_run: bool = False) -> Object:
        """Create *object_*; `Conflict` when there is one by that name."""

    async def patch(self, ref: Ref, operations: Sequence[Operation], *, dry_run: bool = False) -> Object:
        """Apply a JSON Patch; a failed ``test`` or a stale resourceVersion is `Conflict`, a refusal `Rejected`."""

    async def replace(self, object_: Object) -> Object:
        """Put *object_*, which must carry the resourceVersion it was read with; `Conflict` when it is stale."""

    async def delete(self, ref: Ref, *, resource_version: str | None = None) -> None:
        """Delete the object, if *resource_version* is given only at that version."""

    async def server_time_s(self) -> float:
        """Return the API server's clock, in Unix seconds, good to one second."""


def named(mesh: Mesh, *, by_others: bool = False) -> list[str]:
    """Return the flags that name *mesh* on a command line; *by_others*, with other credentials than ours."""
    if mesh.kind == "lab":
        return ["--lab"]
    return [
        "--context",
        mesh.name,
        *([] if mesh.kubeconfig is None or by_others else ["--kubeconfig", mesh.kubeconfig]),
    ]


def command_on(mesh: Mesh, *words: str, namespace: str | None, by_others: bool = False) -> str:
    """Return the exact command ``luff WORDS`` for *mesh*, and for *namespace* unless that is everywhere."""
    where = [] if namespace is None else ["-n", namespace]
    return shlex.join(["luff", *words, *where, *named(mesh, by_others=by_others)])
