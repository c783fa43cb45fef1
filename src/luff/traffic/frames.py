"""
What goes over the pipes between the process that decides when and those that send, as bytes.

A frame is a kind, a length and so many bytes. Orders and answers are rows of a
fixed size, many to a frame, since there are thousands a second. Laws:

1. `orders_in` is the inverse of `Order.packed`, one after another, and `answers_in` that of `Answered.packed`.
2. What a process is told first, and once, is the only thing that is pickled:
   it comes from its own parent, over a pipe that nobody else has.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from luff.samples import ARMS, Failure
from luff.words import Arm

__all__ = [
    "HEAD",
    "Answered",
    "Kind",
    "Order",
    "answers_in",
    "frame",
    "head_of",
    "numbers_in",
    "orders_in",
    "packed_numbers",
]

_HEAD = struct.Struct("<BI")
HEAD = _HEAD.size
"""How many bytes say what comes, and how much of it."""
_ORDER = struct.Struct("<QqBH")
_ANSWERED = struct.Struct("<QqqHBBI")
_NUMBER = struct.Struct("<Q")


class Kind(IntEnum):
    """This is what a frame is. The first five are said to a process that sends, the others by it."""

    JOB = 1
    """What all its requests have in common; once, before anything else."""
    SEND = 2
    """Orders, each to be carried out at its due time."""
    END = 3
    """No more orders for now: say `PULSE` when the last one is out."""
    HALT = 4
    """What is not sent yet is not to be sent."""
    CUT = 5
    """What is in flight is over."""
    READY = 6
    """Its clock now, in nanoseconds."""
    DONE = 7
    """Answers."""
    DROPPED = 8
    """The numbers of requests that were not sent, since it was told to halt."""
    PULSE = 9
    """How its event loop did and what CPU it used since it was given orders; it sends nothing until there are new ones."""
    MISTAKE = 10
    """A mistake of luff's own, as text with its trace."""
    WAITED = 11
    """How its event loop did since then, until the last answer was there or it was given orders again."""


class Order(NamedTuple):
    """This is one request to be sent at *due_ns* of the samples' time; *request* is its index in ``traffic.requests``."""

    number: int
    due_ns: int
    arm: Arm
    request: int

    def packed(self) -> bytes:
        """Return it as a row."""
        return _ORDER.pack(self.number, self.due_ns, ARMS.index(self.arm), self.request)


class Answered(NamedTuple):
    """This is what became of one request. *sent_ns* is `luff.samples.PENDING` where it was never sent."""

    number: int
    sent_ns: int
    done_ns: int
    status: int = 0
    failure: Failure = Failure.NONE
    flags: int = 0
    holds: int = 0

    def packed(self) -> bytes:
        """Return it as a row."""
        return _ANSWERED.pack(*self)


def frame(kind: Kind, content: bytes | bytearray = b"") -> bytes:
    """Return *content* as a frame."""
    return _HEAD.pack(kind, len(content)) + content


def head_of(data: bytes) -> tuple[Kind, int]:
    """Return what the `HEAD` bytes of a frame say: its kind, and how many bytes follow."""
    kind, length = _HEAD.unpack(data)
    return Kind(kind), length


def orders_in(content: bytes) -> Iterator[Order]:
    """Yield the orders of a frame."""
    for number, due_ns, arm, request in _ORDER.iter_unpack(content):
        yield Order(number, due_ns, ARMS[arm], request)


def answers_in(content: bytes) -> Iterator[Answered]:
    """Yield the answers of a frame."""
    for number, sent_ns, done_ns, status, failure, flags, holds in _ANSWERED.iter_unpack(content):
        yield Answered(number, sent_ns, done_ns, status, Failure(failure), flags, holds)


def packed_numbers(numbers: list[int]) -> bytes:
    """Return *numbers* as rows."""
    return b"".join(map(_NUMBER.pack, numbers))


def numbers_in(content: bytes) -> list[int]:
    """Return the numbers of a frame."""
    return [number for (number,) in _NUMBER.iter_unpack(content)]
