"""Where luff keeps things on this machine."""

from __future__ import annotations

from pathlib import Path

import platformdirs

__all__ = ["state_folder"]


def state_folder() -> Path:
    """Return luff's own folder under the XDG state folder, made if need be."""
    folder = platformdirs.user_state_path("luff", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
