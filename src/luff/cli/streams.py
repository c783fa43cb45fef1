"""
Standard input, output and error, each of which may be closed, full, or without a reader.

What must stay true: talk that nobody can have any more ends nothing and
changes no exit code; data that could not be written is never taken for written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import IO, Any

import click

__all__ = ["OutputLost", "flush", "make_usable", "may_be_lost", "mute", "tell"]

_GONE = frozenset({errno.EPIPE, errno.EBADF, errno.EIO})
"""These say that nobody will ever read it. Anything else, as a full disk, may be over at the next line of a server."""


class OutputLost(OSError):
    """This is data that could not be written to stdout. A reader who has left is a `BrokenPipeError`."""


class _Data(io.FileIO):
    """This is stdout. It raises `OutputLost`, or once a `BrokenPipeError` that click does not take for its own."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError as error:
            mute(self)
            raise BrokenPipeError("the reader of stdout has left") from error
        except OSError as error:
            if error.errno in _GONE:
                mute(self)
            raise OutputLost(error.strerror or str(error)) from error


class _Talk(io.FileIO):
    """This is stderr. It raises nothing."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno in _GONE:
                mute(self)
            return len(data)


def make_usable() -> None:
    """Open the null device in place of each stream that is closed, and let the others fail in the way of `_Data` and `_Talk`."""
    # In this order each gets its own number, so that nothing else that is opened later is taken for it.
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = _nowhere("w") if sys.stdout is None else _over(_Data, sys.stdout)
    sys.stderr = _nowhere("w") if sys.stderr is None else _over(_Talk, sys.stderr)


def _nowhere(mode: str) -> IO[str]:
    stream = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115  # for the life of the process
    # Children get it as well, as they get any other of the three.
    os.set_inheritable(stream.fileno(), True)
    return stream


def _over(kind: type[io.FileIO], stream: IO[str]) -> IO[str]:
    """Return a stream of *kind* that is otherwise as *stream*, but escapes what its encoding cannot say."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    buffer = io.BufferedWriter(kind(stream.fileno(), "w", closefd=False))
    # PYTHONUNBUFFERED makes it write through; a line at a time is as good.
    by_line = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(buffer, stream.encoding, errors, line_buffering=by_line)


def flush() -> None:
    """Write what is still to be written; what cannot be is lost, since a command that has ended keeps its exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            mute(stream)


def tell(text: str | bytes, *, err: bool = False) -> None:
    """Print *text* to stdout, or to stderr; that it cannot be written ends nothing and changes no exit code."""
    with may_be_lost(err=err):
        click.echo(text, err=err)


@contextlib.contextmanager
def may_be_lost(*, err: bool = False) -> Iterator[None]:
    """Let what the body prints to stdout, or to stderr, be lost where it cannot be written, rather than end anything."""
    try:
        yield
    except OutputLost:
        # It stays in the buffer, and goes out with what comes next where it can be written by then.
        return
    except (OSError, ValueError):
        mute(sys.stderr if err else sys.stdout)


def mute(*streams: IO[Any] | io.FileIO | None) -> None:
    """Let what is still written to *streams* go nowhere: they cannot be written, and an exit code must not change for it."""
    for stream in streams:
        if stream is None:
            continue
        with contextlib.suppress(OSError, ValueError):
            number = stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            # It is the same number where that was closed meanwhile.
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
