"""
Where the data that comes with luff lies: migrations and experiments.

In a wheel it is inside the package; in a checkout, which an editable install
points to, it stands at the repository's root. Nothing here depends on the
current directory.
"""

from __future__ import annotations

from pathlib import Path

from luff.errors import LuffError

__all__ = ["shipped"]

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "_shipped", _PACKAGE.parent.parent)


def shipped(name: str) -> Path:
    """Return the folder *name*, such as ``alembic`` or ``experiments``, of what luff ships."""
    for root in _ROOTS:
        if (root / name).is_dir():
            return root / name
    raise LuffError(
        f"this installation of luff lacks its folder {name!r} (looked in {', '.join(str(root) for root in _ROOTS)})",
        next_step="install luff again: `pip install --force-reinstall luff`",
    )
