"""
Labs from their beginning to their end, and which one is meant.

`start` brings one up, `find` finds the one that is meant, `stop` takes it down.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from luff.errors import LabError
from luff.lab.accepted import refused
from luff.lab.processes import clean_environment, tail
from luff.lab.program import find_envoy
from luff.lab.state import (
    CONTEXT,
    LOCK,
    STATE,
    LabState,
    forget_old,
    is_alive,
    labs_folder,
    read_state,
    registered,
)

if TYPE_CHECKING:
    from luff.parse import Documents

__all__ = [
    "CONTEXT",
    "LabState",
    "ReplicaStatus",
    "find",
    "is_alive",
    "running",
    "start",
    "status",
    "stop",
    "troubles",
    "workloads_missing",
]

STOP_WITHIN_S = 15.0
UP_WITHIN_S = 60.0
"""On top of what workloads ask for."""
LOOK_EVERY_S = 0.02
ANSWER_WITHIN_S = 10.0
"""How long a lab that runs is asked until it counts as one that does not answer."""
_ASK_WITHIN_S = 5.0
_WRITTEN = {"kubeconfig", "logs", "order.json", "proxies", "supervisor.log", STATE}
"""What a lab writes into its folder, or takes away there; the lock, which says that a lab was there, is beside it."""
_supervisors: list[subprocess.Popen[bytes]] = []
"""Those that were started here and may outlive us; kept, so that the ended are reaped."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """This is how one replica is: ``running`` or ``died``."""

    name: str
    state: str
    admin: str
    output: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def find(directory: Path | None = None) -> LabState | None:
    """
    Return the lab in *directory*, else in ``LUFF_LAB_DIR``, else the newest one that answers; ``None`` without.

    Raises `LabError` when the lab that is named runs and does not answer, and
    when ``LUFF_LAB_DIR`` names a folder that holds no lab: whoever set it means
    that one, and no other.
    """
    if _named(directory) is None:
        return next((state for state in registered() if _answers(state)), None)
    state = running(directory)
    if state is None or _answers(state):
        return state
    if is_alive(Path(state.directory)):
        raise LabError(
            f"the lab in {state.directory} does not answer",
            next_step=f"try again, or take it down with `luff lab down --dir {state.directory}`",
        )
    return None


def running(directory: Path | None = None) -> LabState | None:
    """Return the lab that is meant, as `find` does, whether or not it answers; without a name the newest."""
    named = _named(directory)
    if named is None:
        return next(iter(registered()), None)
    state = read_state(named)
    if state is None and directory is None:
        what = "which is no lab: it has no lab.json" if named.is_dir() else "which is no folder"
        raise LabError(
            f"LUFF_LAB_DIR names {named}, {what}",
            next_step=f"name a lab's folder, unset it, or start one there with `luff lab up --detach --dir {named}`",
        )
    return state if is_alive(named) else None


def _named(directory: Path | None) -> Path | None:
    variable = os.environ.get("LUFF_LAB_DIR")
    named = directory or (Path(variable) if variable else None)
    return None if named is None else named.absolute()


def _answers(state: LabState) -> bool:
    """Return whether the lab's API is there; a lab that runs is asked again, for it may only be busy."""
    until_s = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            return httpx.get(f"http://{state.api}/readyz", timeout=_ASK_WITHIN_S, trust_env=False).is_success
        except httpx.HTTPError:
            if time.monotonic() > until_s or not is_alive(Path(state.directory)):
                return False
        time.sleep(LOOK_EVERY_S)


def troubles(state: LabState) -> list[str]:
    """Return what the proxies were not given and what they did not take, as sentences; empty when all is well."""
    now = read_state(Path(state.directory)) or state
    said = [f"left out: {text}" for text in now.skipped]
    return said + [text for each in now.workloads if each.exit_code is None for text in refused(each, now)]


def status(state: LabState) -> list[ReplicaStatus]:
    """Return how each replica is now."""
    now = read_state(Path(state.directory)) or state
    return [
        ReplicaStatus(each.full_name, "running" if each.exit_code is None else "died", each.admin, each.output)
        for each in now.workloads
    ]


def workloads_missing(state: LabState, documents: Documents) -> list[str]:
    """Return the names of the workloads in *documents* that the lab does not run."""
    have = {(each.namespace, each.name) for each in state.workloads}
    return [
        each.metadata.name
        for each in documents.workloads
        if (each.metadata.namespace or "default", each.metadata.name) not in have
    ]


def start(
    documents: Documents,
    *,
    directory: Path | None = None,
    port: int | None = None,
    detach: bool = False,
    lifeline_fd: int | None = None,
) -> LabState:
    """
    Bring up a lab of *documents* and return it once everything in it answers.

    With *detach* it stays; otherwise it ends when every holder of the other
    end of *lifeline_fd* is gone. *port* is its API's. Raises `LabError` with
    nothing left running.
    """
    envoy = find_envoy()
    forget_old()
    folder = _folder(directory)
    headers = dict.fromkeys(["x-luff-run", *(each.spec.scope.header for each in documents.experiments)])
    order = {
        "temporary": not detach and directory is None,
        "workloads": [
            {"document": each.model_dump(mode="json", by_alias=True), "file": each.file} for each in documents.workloads
        ],
        "manifests": [{"file": each.file, "line": each.line, "object": each.object} for each in documents.manifests],
        "environment": dict(os.environ),
        "envoy": envoy,
        "port": port,
        "scope_headers": list(headers),
    }
    (folder / "order.json").touch(mode=0o600)
    (folder / "order.json").write_text(json.dumps(order), encoding="utf-8")
    within_s = UP_WITHIN_S + max(
        (each.spec.ready.within_s for each in documents.workloads if each.spec.ready), default=0
    )
    _supervise(folder, lifeline_fd=lifeline_fd, within_s=within_s)
    state = read_state(folder)
    if state is None:
        raise LabError(f"the lab in {folder} ended at once", next_step=f"read {folder / 'supervisor.log'}")
    return state


def _folder(directory: Path | None) -> Path:
    """Return the folder for a new lab, without what an earlier one left in it."""
    folder = (
        directory.absolute() if directory is not None else labs_folder() / f"lab-{os.getpid()}-{time.time_ns() % 10**6}"
    )
    if is_alive(folder):
        raise LabError(
            f"a lab is already running in {folder}", next_step=f"take it down with `luff lab down --dir {folder}`"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {each.name for each in folder.iterdir()}
        if LOCK not in there and (foreign := sorted(there & _WRITTEN)):
            raise LabError(f"{folder} holds {foreign[0]}, which no lab made", next_step="name an empty folder")
        (folder / LOCK).touch()
        for ours in ("proxies", "logs"):
            shutil.rmtree(folder / ours, ignore_errors=True)
            (folder / ours).mkdir()
    except OSError as error:
        raise LabError(
            f"{folder} cannot be used: {error.strerror}", next_step="name another folder with --dir"
        ) from error
    return folder


def _supervise(folder: Path, *, lifeline_fd: int | None, within_s: float) -> None:
    reader, writer = os.pipe()
    passed = [writer] if lifeline_fd is None else [writer, lifeline_fd]
    log = folder / "supervisor.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "luff.lab.supervisor", str(folder), *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=passed,
            start_new_session=True,
            env=clean_environment(os.environ),
        )
    os.close(writer)
    _reap()
    _supervisors.append(process)
    try:
        said = _read_all(reader, within_s)
    except BaseException:
        _end(process)
        raise
    finally:
        os.close(reader)
    if said is None:
        _end(process)
        raise LabError(f"the lab was not up within {within_s:g} s", next_step=f"read {log}")
    if not said.get("ok"):
        process.wait(STOP_WITHIN_S)
        message = said.get("error") or f"the lab's supervisor ended:\n{tail(log)}"
        raise LabError(message, next_step=said.get("next") or f"the logs are in {folder}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _reap() -> None:
    _supervisors[:] = [each for each in _supervisors if each.poll() is None]


def _read_all(descriptor: int, within_s: float) -> dict[str, Any] | None:
    """Return the message on *descriptor*; empty when it was closed without one, ``None`` when none came in time."""
    until_s = time.monotonic() + within_s
    said = b""
    while True:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return None
        more = os.read(descriptor, 65536)
        if not more:
            break
        said += more
    found = json.loads(said) if said else {}
    return found if isinstance(found, dict) else {}


def stop(state: LabState) -> None:
    """Take the lab down and return when nothing of it is left; a supervisor that does not listen is killed."""
    folder = Path(state.directory)
    for send, number in ((os.kill, signal.SIGTERM), (os.killpg, signal.SIGKILL)):
        if is_alive(folder):
            with contextlib.suppress(ProcessLookupError):
                send(state.pid, number)
        until_s = time.monotonic() + STOP_WITHIN_S
        while is_alive(folder) and time.monotonic() < until_s:
            time.sleep(LOOK_EVERY_S)
    _reap()
    if is_alive(folder):
        raise LabError(f"the lab in {folder} does not end", next_step=f"kill -9 -{state.pid}")
