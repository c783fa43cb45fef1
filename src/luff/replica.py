"""
The name of this process among those that share a database, and which others are certainly gone.

A name is ``host:pid:place.token``: *place* says which machine, boot and process namespace the pid counts in, and *token*
is new for each process. Only of a pid that counts here too, and that nobody has, it is known that its process is gone;
of all others a claim has to run out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
from pathlib import Path

__all__ = ["is_gone", "own_name"]

PLACE_DIGITS = 8


def own_name() -> str:
    """Return a new name for this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_place()}.{secrets.token_hex(4)}"


def is_gone(name: str) -> bool:
    """Return whether the process of that *name* is known to have ended."""
    rest, _, tail = name.rpartition(":")
    pid = rest.rpartition(":")[2]
    place = _place()
    if not place or tail.partition(".")[0] != place or not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _place() -> str:
    """Return what tells the pids here from those elsewhere, empty where that cannot be told."""
    parts: list[str] = []
    with contextlib.suppress(OSError):
        parts = [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
            str(Path("/proc/self/ns/pid").stat().st_ino),
        ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:PLACE_DIGITS] if parts else ""
