"""Whom a command tells: `--notify FILE`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from luff.cli.options import option

__all__ = ["channels_of", "notify_option"]

F = TypeVar("F", bound=Callable[..., Any])


def notify_option(command: F) -> F:
    """Add ``--notify``."""
    return option(
        "--notify",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Tell the channels in FILE when a verdict changes or a restore is not proven.",
    )(command)


def channels_of(path: Path, beside: Sequence[Path]) -> Any:
    """
    Return the `luff.notify.Channels` in *path*.

    It is refused within a folder of *beside*, or within that of a file there:
    who writes experiments says not who is told.
    """
    from luff.errors import UsageError
    from luff.files import is_folder
    from luff.notify import read_channels

    own = path.resolve()
    for given in beside:
        folder = given if is_folder(given) else given.parent
        if own.is_relative_to(folder.resolve()):
            raise UsageError(
                f"--notify {path} lies in {folder}, among the experiments: who writes those would say who is told",
                next_step="keep it elsewhere",
            )
    return read_channels(path)
