"""The access log of a proxy, followed while it grows: an object a line, each line once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Followed"]


@dataclass(slots=True)
class Followed:
    """This is the log at *path*, of which at most *most_bytes* are read at a time."""

    path: Path
    most_bytes: int
    _offset: int = 0
    _rest: bytes = b""

    def skip_to_end(self) -> None:
        """Leave out what is in it by now."""
        self._offset = self.path.stat().st_size

    def new_lines(self) -> list[dict[str, Any]]:
        """Return the lines that are whole and were not returned yet; none while it cannot be read."""
        try:
            new = self._read()
        except OSError:
            # It is not there yet or any more, or is not ours to read: what it would say is absent.
            return []
        self._offset += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        parsed = (_parsed(line) for line in whole)
        return [line for line in parsed if isinstance(line, dict)]

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._offset:
                # It was cut, or another took its place: what is in it is new.
                self._offset, self._rest = 0, b""
            file.seek(self._offset)
            return file.read(self.most_bytes)


def _parsed(line: bytes) -> object:
    try:
        parsed: object = json.loads(line)
    except ValueError:
        # A dying proxy wrote half of it.
        return None
    return parsed
