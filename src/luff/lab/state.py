"""
What a running lab says about itself, and where running labs are found.

``lab.json`` in a lab's folder is that description. A lab is alive as long as
its supervisor holds the lock on ``lab.lock`` beside it: a process id could
belong to somebody else by now, a lock cannot.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from luff.errors import LabError
from luff.files import write_atomically

__all__ = [
    "CONTEXT",
    "LOCK",
    "STATE",
    "LabState",
    "WorkloadState",
    "is_alive",
    "labs_folder",
    "read_state",
    "registered",
]

FORMAT = 1
STATE = "lab.json"
LOCK = "lab.lock"
CONTEXT = "luff-lab"
KEPT_MOST = 5
YOUNG_S = 120.0
"""From making its folder to taking its lock, a lab needs less, however busy the machine."""


@dataclass(frozen=True, slots=True)
class WorkloadState:
    """
    This is one replica and its sidecar.

    *admin*, *inbound* and *application* are ``HOST:PORT``; *peers* its own
    outbound listeners by ``HOST:PORT`` of the peer. *pid* is the program's,
    ``None`` for one that luff did not start; *proxy_pid* its Envoy's.
    *exit_code* is there when either has ended by itself.
    """

    name: str
    namespace: str
    service: str | None
    replica: int
    admin: str
    access_log: str
    labels: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    inbound: str | None = None
    application: str | None = None
    peers: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None
    proxy_pid: int | None = None
    output: str | None = None
    exit_code: int | None = None

    @property
    def full_name(self) -> str:
        """Return the name with the replica's number, as logs and proxies have it."""
        return f"{self.name}-{self.replica}"


@dataclass(frozen=True, slots=True)
class LabState:
    """
    This is one lab. *api*, *ingress* and *sidecar* (luff's own, for any host) are ``HOST:PORT``.

    *scope_headers* are the headers that its access logs hold; *skipped* the objects
    of which no configuration could be made, each with the reason.
    """

    name: str
    uid: str
    pid: int
    started_at: str
    directory: str
    kubeconfig: str
    api: str
    ingress: str
    sidecar: str
    logs: str
    workloads: tuple[WorkloadState, ...]
    scope_headers: tuple[str, ...] = ("x-luff-run",)
    skipped: tuple[str, ...] = ()

    def write(self) -> None:
        """Write ``lab.json``, whole or not at all."""
        content = {"format": FORMAT, **asdict(self)}
        write_atomically(Path(self.directory) / STATE, json.dumps(content, indent=2) + "\n")


def read_state(directory: Path) -> LabState | None:
    """Return the lab described in *directory*, alive or not; ``None`` when there is no such description."""
    try:
        content = json.loads((directory / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    workloads = tuple(WorkloadState(**_known(WorkloadState, each)) for each in content.pop("workloads"))
    found = _known(LabState, content)
    for name in ("scope_headers", "skipped"):
        found[name] = tuple(found.get(name, ()))
    return LabState(**found, workloads=workloads)


def _known(kind: type, content: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in content.items() if name in names}


def is_alive(directory: Path) -> bool:
    """Return whether a supervisor holds the lab in *directory*."""
    try:
        with (directory / LOCK).open("r+") as lock:
            # Shared, so that two who look at the same time do not take each other for the lab.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def labs_folder() -> Path:
    """Return the folder in which labs are registered, made if need be."""
    folder = platformdirs.user_state_path("luff", appauthor=False) / "labs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"the folder {folder} cannot be made: {error.strerror}",
            next_step="set XDG_STATE_HOME to a folder that can be written",
        ) from error
    return folder


def forget_old(keep: int = KEPT_MOST) -> None:
    """
    Remove the folders of dead labs in `labs_folder`, but for the *keep* newest: their logs may still be wanted.

    A young one may be that of a lab that is about to take its lock, and stays too.
    """
    changed_at = {}
    for entry in labs_folder().iterdir():
        # Others forget at the same time, and a lab that ends takes its own away.
        with contextlib.suppress(OSError):
            if entry.is_dir() and not is_alive(entry):
                changed_at[entry] = entry.stat().st_mtime
    old = [entry for entry in changed_at if changed_at[entry] < time.time() - YOUNG_S]
    surplus = len(changed_at) - keep
    for entry in sorted(old, key=lambda each: changed_at[each])[: max(surplus, 0)]:
        shutil.rmtree(entry, ignore_errors=True)


def registered() -> list[LabState]:
    """Return every registered lab that is alive, the newest first; what died is struck off."""
    found = []
    for entry in labs_folder().glob("*.dir"):
        try:
            directory = Path(entry.read_text(encoding="utf-8").strip())
        except OSError:
            continue
        state = read_state(directory)
        if state is not None and is_alive(directory):
            found.append(state)
        else:
            entry.unlink(missing_ok=True)
    return sorted(found, key=lambda state: state.started_at, reverse=True)
