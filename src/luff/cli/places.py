"""Where luff keeps things on this machine."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

__all__ = ["guard_dies_with_us", "guard_log", "keep_traceback", "needs_reaper", "state_folder"]

_MACHINE_INITS = frozenset({"systemd", "init", "launchd", "runit", "dinit", "openrc-init"})
"""What the first process of a machine is called; a container has any other: its program, a script, a shim, a supervisor."""
_IN_A_POD = "KUBERNETES_SERVICE_HOST"
"""Every pod has this variable, also one that sees the processes of its machine."""


def state_folder() -> Path:
    """Return luff's own folder under the XDG state folder, made if need be."""
    folder = platformdirs.user_state_path("luff", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def guard_log() -> Path | None:
    """Return where a guard writes what it has to say after our end; ``None`` where there is no folder for it, which stops no run."""
    try:
        return state_folder() / "guard.log"
    except (OSError, RuntimeError):
        return None


def keep_traceback(trace: str) -> str:
    """Keep the trace of a mistake of luff's own, in the state folder or else in a temporary file; returns where. Never raises."""
    try:
        path = state_folder() / "last-internal-error.txt"
        path.write_text(trace, encoding="utf-8", errors="backslashreplace")
    except (OSError, RuntimeError):
        # RuntimeError: there is no home folder.
        try:
            with tempfile.NamedTemporaryFile(
                "w",
                prefix="luff-internal-error-",
                suffix=".txt",
                delete=False,
                encoding="utf-8",
                errors="backslashreplace",
            ) as file:
                file.write(trace)
        except OSError:
            return "no file: none can be written"
        return file.name
    return str(path)


def guard_dies_with_us(*, first: str | None = None) -> bool:
    """
    Return whether whatever ends this process may end its children with it: this is a container, and no machine.

    How far below the first process we are says nothing: the guard outlives us,
    and the container ends it. *first* is the name of process 1, found out unless
    given; where it cannot be read this counts as a machine.
    """
    if os.environ.get(_IN_A_POD):
        return True
    if first is None:
        try:
            first = Path("/proc/1/comm").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return False
    # WSL adds the distribution: init(Ubuntu).
    return first.partition("(")[0] not in _MACHINE_INITS


def needs_reaper(*, in_lab: bool, accepted: bool, dies_with_us: bool | None = None) -> bool:
    """
    Return whether a reaper has to be at work before this process may inject: on a cluster, where its guard ends with it.

    A lab, *in_lab*, ends with the machine or container as well. *accepted* says that a person takes the risk of a twin that hits nobody;
    *dies_with_us* is found out unless given.
    """
    return not in_lab and not accepted and (guard_dies_with_us() if dies_with_us is None else dies_with_us)
