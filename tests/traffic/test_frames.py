"""What goes over the pipes between the process that decides when and those that send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luff.samples import PENDING, Failure
from luff.traffic.frames import (
    HEAD,
    Answered,
    Kind,
    Order,
    answers_in,
    frame,
    head_of,
    numbers_in,
    orders_in,
    packed_numbers,
)
from luff.words import Arm

NUMBERS = st.integers(0, 2**63 - 1)
TIMES_NS = st.integers(PENDING, 2**62)
ORDERS = st.builds(Order, NUMBERS, TIMES_NS, st.sampled_from(Arm), st.integers(0, 2**16 - 1))
ANSWERS = st.builds(
    Answered,
    NUMBERS,
    TIMES_NS,
    TIMES_NS,
    st.integers(0, 999),
    st.sampled_from(Failure),
    st.integers(0, 31),
    st.integers(0, 2**32 - 1),
)


@given(orders=st.lists(ORDERS), answers=st.lists(ANSWERS), numbers=st.lists(NUMBERS))
def test_what_is_packed_is_read_back_in_its_order(
    orders: list[Order], answers: list[Answered], numbers: list[int]
) -> None:
    assert list(orders_in(b"".join(order.packed() for order in orders))) == orders
    assert list(answers_in(b"".join(answered.packed() for answered in answers))) == answers
    assert numbers_in(packed_numbers(numbers)) == numbers


@given(kind=st.sampled_from(Kind), content=st.binary(max_size=1000))
def test_the_head_of_a_frame_says_what_comes_and_how_much(kind: Kind, content: bytes) -> None:
    made = frame(kind, content)

    assert head_of(made[:HEAD]) == (kind, len(content))
    assert made[HEAD:] == content
