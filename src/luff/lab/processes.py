"""
Child processes of the lab: started so that they cannot outlive it, and ended with what they started themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["PROXY_VARIABLES", "clean_environment", "end_all", "spawn", "tail", "todo_after"]

PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
END_WITHIN_S = 5.0
LOOK_EVERY_S = 0.02
TAIL_LINES = 8
_TAIL_BYTES = 8192
_ASSERTION = "[critical][assert]"
_PR_SET_PDEATHSIG = 1


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return *environment* without proxies: what is meant for the way out has no business on loopback."""
    return {name: value for name, value in environment.items() if name.lower() not in PROXY_VARIABLES}


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child does before it becomes its program, so that the kernel ends it when its parent dies."""
    if not sys.platform.startswith("linux"):
        return None
    # Found before the fork: between fork and exec nothing may be looked up or locked.
    prctl = ctypes.CDLL(None).prctl

    def set_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    return set_signal


_DIE_WITH_PARENT = _die_with_parent()


def spawn(
    command: Sequence[str], *, output: Path, environment: Mapping[str, str], cwd: Path
) -> subprocess.Popen[bytes]:
    """
    Start *command* with stdout and stderr going to *output*; raises `OSError` when it cannot be started.

    To be called from a thread that lives as long as the lab: on Linux a child
    is ended when the thread that started it ends.
    """
    with output.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            cwd=cwd,
            preexec_fn=_DIE_WITH_PARENT,
        )


def end_all(children: Sequence[subprocess.Popen[bytes]], *, within_s: float = END_WITHIN_S) -> None:
    """End *children*, politely first."""
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
    until_s = time.monotonic() + within_s
    while any(child.poll() is None for child in children) and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
    for child in children:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            child.wait()


def tail(path: Path, lines: int = TAIL_LINES) -> str:
    """Return the last *lines* of a log, for an error message."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
            said = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # Where Envoy gave up on an assertion, that line says why, and a page of addresses follows it.
    failed = [line for line in said if _ASSERTION in line]
    return "\n".join(failed[-1:] or said[-lines:])


def todo_after(said: str) -> str:
    """Return what to do about *said*, the last words of a program that did not come up."""
    if "inotify" in said:
        return (
            "raise it with `sysctl fs.inotify.max_user_instances=1024`, or end other labs: each proxy takes two to five"
        )
    return "correct what it says"
