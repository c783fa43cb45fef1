"""What marks a request: the four laws of a scope."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from luff import regex
from luff.scope import Scope
from luff.words import Carrier

LAW = settings(max_examples=150)
SECRETS = st.text(alphabet="0123456789abcdef", min_size=32, max_size=32)
NUMBERS = st.one_of(st.integers(0, 5000), st.integers(0, (1 << 63) - 1))
HEADERS = {Carrier.HEADER: "x-luff-run", Carrier.BAGGAGE: "baggage", Carrier.TRACEPARENT: "traceparent"}


@st.composite
def _scopes(draw: Callable[..., Any]) -> Scope:
    secret, decoy = draw(SECRETS), draw(SECRETS)
    assume(secret != decoy)
    carriers = draw(st.lists(st.sampled_from(list(Carrier)), min_size=1, unique=True))
    return Scope(secret, decoy, carriers=tuple(carriers))


def _matched(scope: Scope, headers: dict[str, str]) -> set[Carrier]:
    """Return the carriers whose match, as Envoy reads it, takes *headers*."""
    found = set()
    for carrier, (header, match) in scope.matches().items():
        value = headers.get(header)
        if value is not None and (
            value.startswith(match["prefix"]) if "prefix" in match else regex.full_match(match["regex"], value)
        ):
            found.add(carrier)
    return found


@LAW
@given(scope=_scopes(), number=NUMBERS)
def test_a_scoped_request_satisfies_every_match(scope: Scope, number: int) -> None:
    assert _matched(scope, scope.headers(number)) == set(scope.carriers)
    assert set(scope.headers(number)) == {HEADERS[carrier] for carrier in scope.carriers}


@LAW
@given(scope=_scopes(), number=NUMBERS)
def test_a_control_request_looks_the_same_and_satisfies_none(scope: Scope, number: int) -> None:
    fault, control = scope.headers(number), scope.control_headers(number)
    assert not _matched(scope, control)
    assert fault.keys() == control.keys()
    for name in fault:
        assert re.sub("[0-9a-f]", "x", fault[name]) == re.sub("[0-9a-f]", "x", control[name])
    assert scope.number_in(control) is None


@LAW
@given(scope=_scopes(), number=NUMBERS, data=st.data())
def test_a_number_is_read_back_from_whatever_carrier_arrives(scope: Scope, number: int, data: st.DataObject) -> None:
    arriving = data.draw(st.lists(st.sampled_from(scope.carriers), min_size=1, unique=True))
    for headers, read in ((scope.headers(number), scope.number_in), (scope.control_headers(number), scope.control_number_in)):  # fmt: skip
        found = read({HEADERS[carrier]: headers[HEADERS[carrier]] for carrier in arriving})
        assert found is not None
        assert (found[0], set(found[1])) == (number, set(arriving))


@LAW
@given(scope=_scopes(), number=NUMBERS)
def test_nothing_prints_the_secret(scope: Scope, number: int) -> None:
    shown = f"{scope!r} {scope} {scope.digest}"
    for value in (scope.secret, scope.decoy):
        assert value not in shown
    assert re.fullmatch("[0-9a-f]{64}", scope.digest)
    said = scope.redact(f"{scope.headers(number)} {scope.control_headers(number)} {scope.matches()}")
    for value in (scope.secret, scope.decoy):
        assert value not in said
    for headers in (scope.headers(number), scope.control_headers(number)):
        if "traceparent" in headers:
            assert headers["traceparent"][3:19] not in said


@LAW
@given(scope=_scopes(), numbers=st.lists(st.integers(0, 10**6), min_size=2, max_size=20, unique=True))
def test_no_two_requests_carry_the_same(scope: Scope, numbers: list[int]) -> None:
    for name in scope.headers(0):
        assert len({scope.headers(number)[name] for number in numbers}) == len(numbers)


@LAW
@given(scope=_scopes(), number=NUMBERS)
def test_a_trace_parent_is_one(scope: Scope, number: int) -> None:
    for headers in (scope.headers(number), scope.control_headers(number)):
        if "traceparent" in headers:
            assert re.fullmatch(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01", headers["traceparent"])


@LAW
@given(scope=_scopes(), number=NUMBERS)
def test_a_traceparent_says_nothing_of_the_secret_the_number_or_another_request(scope: Scope, number: int) -> None:
    """With the same wire values and another key, nothing after the prefix is the same."""
    other = Scope(scope.secret, scope.decoy, carriers=scope.carriers, key=b"another")
    assume(Carrier.TRACEPARENT in scope.carriers)

    parents = [
        each(at)["traceparent"]
        for each in (scope.headers, scope.control_headers, other.headers, other.control_headers)
        for at in (number, number + 1)
    ]

    suffixes = [parent[19:35] for parent in parents]
    spans = [parent[36:52] for parent in parents]
    assert len({*suffixes, *spans}) == 2 * len(parents)


def test_the_bits_of_trace_ids_are_even_and_those_of_neighbours_independent() -> None:
    """64 bits, 2,000 numbers: a count further than 5 standard deviations from the half would be no chance."""
    scope = Scope("0" * 32, "1" * 32, key=bytes(32))
    ids = [int(scope.headers(number)["traceparent"][19:35], 16) for number in range(2001)]

    for values in (ids[1:], [one ^ other for one, other in pairwise(ids)]):
        counts = [sum(value >> bit & 1 for value in values) for bit in range(64)]
        assert all(abs(count - 1000) < 5 * (2000 / 4) ** 0.5 for count in counts)


def test_two_scopes_of_the_same_values_and_key_read_each_other() -> None:
    for key in (b"", b"k"):
        one, other = (Scope("0" * 32, "1" * 32, key=key) for _ in range(2))
        assert one == other
        assert other.number_in({"traceparent": one.headers(5)["traceparent"]}) == (5, (Carrier.TRACEPARENT,))


SCOPE = Scope("0123456789abcdef" * 2, "fedcba9876543210" * 2)
MEMBER = f"luff-run={SCOPE.secret}.7"
BAGGAGE = [
    (MEMBER, True),
    (f"userId=alice,{MEMBER}", True),
    (f"userId=alice, {MEMBER} ,serverNode=DF%2028", True),
    (f"{MEMBER};ttl=5;x=y,a=b", True),
    (f"luff-run = {SCOPE.secret}.7", True),
    (f"not-luff-run={SCOPE.secret}.7", False),
    (f"a=b;{MEMBER}", False),
    (f"luff-run={SCOPE.decoy}.7", False),
    (f"luff-run={SCOPE.secret}", False),
    (f"luff-run=x{SCOPE.secret}.7", False),
    ("", False),
]


@pytest.mark.parametrize(("value", "ours"), BAGGAGE)
def test_a_baggage_member_is_found_among_others(value: str, *, ours: bool) -> None:
    assert _matched(SCOPE, {"baggage": value}) == ({Carrier.BAGGAGE} if ours else set())
    assert SCOPE.number_in({"baggage": value}) == ((7, (Carrier.BAGGAGE,)) if ours else None)


def test_a_tracer_may_make_a_span_of_its_own() -> None:
    version, trace, _, flags = SCOPE.headers(7)["traceparent"].split("-")
    child = f"{version}-{trace}-{'ab' * 8}-{flags}"
    assert _matched(SCOPE, {"traceparent": child}) == {Carrier.TRACEPARENT}
    assert SCOPE.number_in({"traceparent": child}) == (7, (Carrier.TRACEPARENT,))


def test_another_header_can_be_named() -> None:
    scope = Scope(SCOPE.secret, SCOPE.decoy, header="x-chaos")
    assert scope.headers(3)["x-chaos"] == f"{SCOPE.secret}.3"
    assert scope.number_in({"x-chaos": f"{SCOPE.secret}.3"}) == (3, (Carrier.HEADER,))
    assert scope.number_in({"x-luff-run": f"{SCOPE.secret}.3"}) is None


@pytest.mark.parametrize(
    ("secret", "decoy", "carriers"),
    [
        ("a" * 31, "b" * 32, tuple(Carrier)),
        ("a" * 32, "B" * 32, tuple(Carrier)),
        ("a" * 32, "a" * 32, tuple(Carrier)),
        ("a" * 32, "b" * 32 + "\n", tuple(Carrier)),
        ("a" * 32, "b" * 32, ()),
    ],
)
def test_what_is_no_scope_is_refused(secret: str, decoy: str, carriers: tuple[Carrier, ...]) -> None:
    with pytest.raises(ValueError):
        Scope(secret, decoy, carriers=carriers)


@LAW
@given(scope=_scopes(), number=NUMBERS)
def test_another_process_of_luff_is_given_the_same_scope(scope: Scope, number: int) -> None:
    given_scope = pickle.loads(pickle.dumps(scope))

    assert given_scope == scope
    assert given_scope.headers(number) == scope.headers(number)
    assert given_scope.control_headers(number) == scope.control_headers(number)
