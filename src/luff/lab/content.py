"""
What a lab's program is made of, as a hash: it stands where a cluster's pods have the digest of their image.

Hashed are the command, its environment as it is written, and the files that
the command names: a script, a program, or for ``python -m NAME`` the module, of
a package all its modules. What those read or import from elsewhere is not seen.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from luff.model import LabWorkload

__all__ = ["content_of"]

FILES_MOST = 1000
BYTES_MOST = 64 << 20
"""The most of one file that is hashed."""


def content_of(workload: LabWorkload) -> str | None:
    """Return the hash, 64 hex digits; ``None`` for what runs already and is only named by its address."""
    run = workload.spec.run
    if run is None:
        return None
    found = hashlib.sha256(repr((run, sorted(workload.spec.env.items()))).encode())
    folder = (Path(workload.file).parent / workload.spec.cwd).resolve()
    for number, file in enumerate(_files(run, folder)):
        if number == FILES_MOST:
            break
        found.update(hashlib.sha256(_read(file)).digest())
    return found.hexdigest()


def _files(run: Sequence[str], folder: Path) -> Iterator[Path]:
    for before, word in zip(("", *run), run, strict=False):
        if before == "-m":
            yield from _module(word, folder)
        elif _is_file(folder / word):
            yield folder / word


def _module(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files of the module *name*, as Python would find it from *folder*, without running any of it."""
    places: Sequence[str] | None = [str(folder), *sys.path]
    whole, origin = "", None
    for part in name.split("."):
        whole = f"{whole}.{part}" if whole else part
        spec = PathFinder.find_spec(whole, places) if places else None
        if spec is None:
            return
        origin, places = spec.origin, spec.submodule_search_locations
    if places:
        yield from (file for place in places for file in sorted(Path(place).rglob("*.py")))
    elif origin is not None and _is_file(Path(origin)):
        yield Path(origin)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a word that no file can be called
        return False


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(BYTES_MOST)
    except OSError:
        return b""
