"""
Kubernetes Events on the VirtualService, for whoever looks at it with kubectl.

Best effort and never in anybody's way: they are written beside the run, after
the fact, and what becomes of that is a line of its timeline. They say who, what
and until when; the scope's secret is never in them.
"""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from luff.mesh import Kind, Mesh, Ref
from luff.words import Object

__all__ = ["FAULT_INJECTED", "FAULT_REMOVED", "RESTORE_FAILED", "Announcement", "announce", "reaped", "reaper_says"]

FAULT_INJECTED = "LuffFaultInjected"
FAULT_REMOVED = "LuffFaultRemoved"
RESTORE_FAILED = "LuffRestoreFailed"
CONTROLLER = "luff.dev/luff"
NOTE_MOST_BYTES = 1024
"""The API's own bound."""
INSTANCE_MOST = 128
NAME_MOST = 253


@dataclass(frozen=True, slots=True)
class Announcement:
    """This is what is said about an object: one of the reasons above, and a sentence. *at_s* is when it came to pass."""

    reason: str
    note: str
    at_s: float

    @property
    def type(self) -> Literal["Normal", "Warning"]:
        """Return how kubectl marks it."""
        return "Normal" if self.reason == FAULT_REMOVED else "Warning"


async def announce(mesh: Mesh, virtual_service: Object, announcement: Announcement) -> None:
    """Write *announcement* as an Event on *virtual_service*; raises `luff.errors.MeshError` when it cannot be."""
    await mesh.create(event(virtual_service, announcement))


def reaper_says(identity: str, run: str, reason: str) -> str:
    """Return the note of the Event with which a reaper, *identity*, says that it took out *run*, and why."""
    return f"{_reaper_says(run)} ({identity}): {reason}"


def _reaper_says(run: str) -> str:
    return f"a reaper of luff took out run {run}"


async def reaped(mesh: Mesh, ref: Ref, run: str) -> str | None:
    """Return what a reaper said of taking *run* out of *ref*, ``None`` when none did; `luff.errors.MeshError` when it cannot be read."""
    for each in await mesh.list(Kind.EVENT, ref.namespace):
        about, note = each.get("regarding") or {}, str(each.get("note") or "")
        mine = each.get("reason") == FAULT_REMOVED and about.get("name") == ref.name
        if mine and note.startswith(f"{_reaper_says(run)} ("):
            return note
    return None


def event(virtual_service: Object, announcement: Announcement) -> Object:
    """Return *announcement* as an object of ``events.k8s.io/v1``."""
    metadata = virtual_service["metadata"]
    suffix = f".{secrets.token_hex(8)}"
    at = datetime.fromtimestamp(announcement.at_s, UTC)
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": str(Kind.EVENT),
        "metadata": {
            "name": metadata["name"][: NAME_MOST - len(suffix)] + suffix,
            "namespace": metadata["namespace"],
        },
        "eventTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": f"luff-{socket.gethostname()}"[:INSTANCE_MOST],
        "action": announcement.reason.removeprefix("Luff"),
        "reason": announcement.reason,
        "type": announcement.type,
        "note": _shortened(announcement.note),
        "regarding": {
            "apiVersion": virtual_service.get("apiVersion", "networking.istio.io/v1"),
            "kind": str(Kind.VIRTUAL_SERVICE),
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }


def _shortened(note: str) -> str:
    whole, dots = note.encode(errors="replace"), "…"
    if len(whole) <= NOTE_MOST_BYTES:
        return note
    # A letter of which only a part fits is left out.
    return whole[: NOTE_MOST_BYTES - len(dots.encode())].decode(errors="ignore") + dots
