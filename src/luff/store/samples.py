"""
The samples of a run as bytes: columns, not rows.

Laws:

1. ``decode(encode(samples))`` has the same columns, to the nanosecond.
2. A block says what it is; anything else is refused, never misread.

Times are kept as differences (due from the request before, sent and done from
due), whose high bytes hardly change; the bytes of each significance stand
together, so that zlib finds that. What remains is the noise of the
measurements themselves.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import add, sub

from luff.samples import Samples

__all__ = ["BLOCK_ROWS", "decode", "encode"]

BLOCK_ROWS = 65_536
"""How many requests a block holds at most, so that reading one needs little memory."""

_MAGIC = b"luffS1\n"
_HEADER = struct.Struct("<7sII")
_LEVEL = 6
_BYTES = ("arm", "phase", "request", "failure", "flags")


def encode(samples: Samples) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of *samples*, each with its number of requests."""
    for first in range(0, len(samples), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        due = samples.due_ns[rows]
        columns = [
            *(getattr(samples, name)[rows].tobytes() for name in _BYTES),
            _planes(array("H", samples.status[rows])),
            _planes(array("Q", samples.holds[rows])),
            _planes(array("q", map(sub, due, [0, *due[:-1]]))),
            _planes(array("q", map(sub, samples.sent_ns[rows], due))),
            _planes(array("q", map(sub, samples.done_ns[rows], due))),
        ]
        body = zlib.compress(b"".join(columns), _LEVEL)
        yield len(due), _HEADER.pack(_MAGIC, len(due), _checksum(len(due), body)) + body


def decode(blocks: Sequence[bytes]) -> Samples:
    """Return the samples in *blocks*, which stand in order. Raises ValueError for what is not a block of ours."""
    samples = Samples()
    for block in blocks:
        _append(samples, block)
    return samples


def _append(samples: Samples, block: bytes) -> None:
    if len(block) < _HEADER.size or not block.startswith(_MAGIC):
        raise ValueError("this is not a block of samples, or one of a newer luff")
    _, count, checksum = _HEADER.unpack_from(block)
    body = block[_HEADER.size :]
    if _checksum(count, body) != checksum:
        raise ValueError("a block of samples is damaged")
    data = memoryview(zlib.decompress(body))

    def take(size: int) -> bytes:
        nonlocal data
        taken, data = bytes(data[: size * count]), data[size * count :]
        return taken

    for name in _BYTES:
        getattr(samples, name).frombytes(take(1))
    samples.status.extend(_numbers("H", take(2)))
    samples.holds.extend(array("L", _numbers("Q", take(8))))
    due = array("q", accumulate(_numbers("q", take(8))))
    samples.due_ns.extend(due)
    samples.sent_ns.extend(array("q", map(add, _numbers("q", take(8)), due)))
    samples.done_ns.extend(array("q", map(add, _numbers("q", take(8)), due)))


def _checksum(count: int, body: bytes) -> int:
    return zlib.crc32(body, count)


def _planes(numbers: array[int]) -> bytes:
    """Return the bytes of *numbers* ordered by significance: all lowest bytes first."""
    data = _little(numbers).tobytes()
    return b"".join(data[plane :: numbers.itemsize] for plane in range(numbers.itemsize))


def _numbers(typecode: str, planes: bytes) -> array[int]:
    numbers = array(typecode)
    data = bytearray(len(planes))
    count = len(planes) // numbers.itemsize
    for plane in range(numbers.itemsize):
        data[plane :: numbers.itemsize] = planes[plane * count : (plane + 1) * count]
    numbers.frombytes(bytes(data))
    return _little(numbers)


def _little(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
