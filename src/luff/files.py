"""
Files that are never half written.

A report is written beside its place, forced to disk and renamed, so that a
reader sees the old text or the new one. What is not a regular file (a device,
a pipe, ``/dev/stdout``) cannot be replaced and is written to directly.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from luff.errors import LuffError, UsageError

__all__ = ["check_writable", "is_file", "is_folder", "write_atomically"]

_OPEN_ELSEWHERE = ("/dev", "/proc")
_NEW_FILE_MODE = 0o666
"""Less the user's umask, as any other program would."""


def check_writable(path: str | Path) -> None:
    """Raise `UsageError` when *path* could not be written: to be asked before a run, not after it."""
    place = _place(Path(path))
    if is_folder(place):
        raise UsageError(f"{path} is a folder", next_step=f"name a file in it, such as {Path(path) / 'report'}")
    if _is_special(place):
        if not place.exists() or not os.access(place, os.W_OK):
            raise UsageError(f"{path} cannot be written to", next_step="choose another file")
        return
    if not is_folder(place.parent):
        raise UsageError(f"the folder of {path} does not exist", next_step=f"run `mkdir -p {Path(path).parent}` first")
    try:
        with contextlib.suppress(FileNotFoundError):
            place.stat()
        temporary = _open_beside(place)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", next_step="choose another folder") from error
    temporary.unlink()


def is_file(path: str | Path) -> bool:
    """Return whether *path* is a file, as far as one can see: `Path.is_file` raises for a name that is too long, or below a locked folder."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: str | Path) -> bool:
    """Return whether *path* is a folder, as far as one can see."""
    return os.path.isdir(path)  # noqa: PTH112


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """
    Put *content* at *path*, whole or not at all.

    A symbolic link stays, its target is replaced; an existing file keeps its
    mode. Raises `LuffError` when it cannot be done; what was there before is
    still there then.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    place = _place(Path(path))
    try:
        if _is_special(place):
            with place.open("ab") as stream:
                stream.write(data)
            return
        temporary = _open_beside(place)
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if place.exists():
                temporary.chmod(place.stat().st_mode & 0o7777)
            temporary.replace(place)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise LuffError(
            f"{path} could not be written: {error.strerror or error}",
            next_step="choose another file and write it again with `luff report`",
        ) from error


def _place(path: Path) -> Path:
    """Return where the bytes will lie: the target of a link, but ``/dev/stdout`` and its like as they are."""
    return path if _is_special(path) else Path(os.path.realpath(path))


def _is_special(path: Path) -> bool:
    """Return whether *path* must be written to, not replaced: a pipe, a device, or what another process has open."""
    if any(path.is_relative_to(folder) for folder in _OPEN_ELSEWHERE):
        return True
    try:
        return not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode))
    except OSError:
        # Not there yet, or not to be had: whoever writes will be told.
        return False


def _open_beside(place: Path) -> Path:
    temporary = place.with_name(f".{place.name[:80]}.{secrets.token_hex(4)}.part")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _NEW_FILE_MODE))
    return temporary
