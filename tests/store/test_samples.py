"""Samples as bytes: nothing lost, little room taken, damage noticed."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luff.samples import Samples
from luff.store.samples import BLOCK_ROWS, decode, encode

FAR_NS = 2**61
"""Beyond any run: 73 years in nanoseconds."""
times = st.integers(-1, FAR_NS)
row = st.tuples(
    *(st.integers(0, 255) for _ in range(5)), times, times, times, st.integers(0, 65_535), st.integers(0, 2**32 - 1)
)


def from_rows(rows: list[tuple[int, ...]]) -> Samples:
    made = Samples()
    for name, values in (
        zip(
            ("arm", "phase", "request", "failure", "flags", "due_ns", "sent_ns", "done_ns", "status", "holds"),
            zip(*rows, strict=True),
            strict=True,
        )
        if rows
        else ()
    ):
        getattr(made, name).extend(values)
    return made


@given(st.lists(row, max_size=40))
def test_decoding_what_was_encoded_gives_the_same_columns(rows: list[tuple[int, ...]]) -> None:
    made = from_rows(rows)

    back = decode([body for _, body in encode(made)])

    assert vars(back) == vars(made)


@given(st.lists(row, min_size=1, max_size=5), st.data())
def test_a_damaged_block_is_refused(rows: list[tuple[int, ...]], data: st.DataObject) -> None:
    ((_, block),) = encode(from_rows(rows))
    place = data.draw(st.integers(0, len(block) - 1))
    damaged = block[:place] + bytes([block[place] ^ data.draw(st.integers(1, 255))]) + block[place + 1 :]

    # A changed count is the one thing that the checksum of the body alone would not see.
    with pytest.raises(ValueError, match="block of samples"):
        decode([damaged])


@pytest.mark.parametrize("block", [b"", b"luffS1\n", b"something else entirely, of some length"])
def test_what_is_no_block_is_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match="not a block of samples"):
        decode([block])


def test_a_million_samples_take_less_than_20_megabytes() -> None:
    made = million()

    blocks = list(encode(made))
    back = decode([body for _, body in blocks])

    assert sum(len(body) for _, body in blocks) < 20_000_000
    assert all(rows <= BLOCK_ROWS for rows, _ in blocks)
    assert vars(back) == vars(made)


def million() -> Samples:
    """Return a million samples whose times are noise to the nanosecond: the hardest case for compression."""
    chance = random.Random(7)
    count = 1_000_000
    made = Samples()
    made.arm = array("B", [0, 1]) * (count // 2)
    made.phase = array("B", [1]) * count
    made.request = array("B", [0]) * count
    gaps = chance.choices(range(1, 100_000_000), k=1000)
    due = 0
    for number in range(count):
        due += gaps[number % 1000] ^ (number * 2654435761 & 0xFFFFF)
        made.due_ns.append(due)
    made.sent_ns = array(
        "q", [due + (noise & 0x3FFFF) for due, noise in zip(made.due_ns, noises(chance, count), strict=True)]
    )
    made.done_ns = array("q", [due + noise for due, noise in zip(made.due_ns, noises(chance, count), strict=True)])
    made.status = array("H", chance.choices([200, 503], [0.95, 0.05], k=count))
    made.failure = array("B", [0]) * count
    made.flags = array("B", chance.choices([3, 1], k=count))
    made.holds = array("L", chance.choices(range(8), k=count))
    return made


def noises(chance: random.Random, count: int) -> array[int]:
    """Return *count* latencies of up to 4 s."""
    data = array("I")
    data.frombytes(chance.randbytes(4 * count))
    return data
