"""Twins' names, what counts as ours, and when a twin takes too much."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.hosts import covers, matches, meanings, qualify, qualify_gateway
from luff.model import Object
from luff.names import Name, find_name, http_routes, our_run, ours, parse_name, suspects, tampered, why_suspect
from luff.patches import apply, same
from luff.regex import full_match, why_invalid
from luff.scope import Scope
from tests.strategies import SCOPE, json_values

RUN = "0123456789abcdef"
FLAGS = {"headers": {"response": {"set": {"X-Luff-Flags": "%RESPONSE_FLAGS%"}}}}
NAMES = st.builds(
    Name,
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.integers(0, 10**12 - 1),
    st.integers(0, 10**12 - 1),
    st.integers(0, 10**6 - 1),
)


@given(NAMES)
def test_a_name_reads_back(name: Name) -> None:
    assert parse_name(str(name)) == name
    assert find_name(str(name)) == find_name(f"root-{name}.match") == name
    assert ours({"name": str(name)})
    assert our_run({"name": str(name)}) == name.run


OURS: list[tuple[Object, bool, str | None]] = [
    ({"name": f"luff.1.{RUN}.1.2.0"}, True, RUN),
    ({"name": f"luff.1.{RUN}.01.2.0"}, False, None),
    ({"name": f"luff.1.{RUN}.1.2"}, False, None),
    ({"name": f"luff.1.{RUN}.1.2.0.x"}, False, None),
    ({"name": f"luff.1.{RUN}.1.2.0\n"}, False, None),
    ({"name": f"luff.1.{RUN.upper()}.1.2.0"}, False, None),
    ({"name": f"xluff.1.{RUN}.1.2.0"}, False, None),
    ({"name": f"luff.2.{RUN}.1.2.0"}, False, None),
    ({"name": f"luff.2.{RUN}.1.2.0", **FLAGS}, True, RUN),
    ({"name": f"luff.1.{RUN}.broken", **FLAGS}, True, RUN),
    ({"name": "luff.frontend", **FLAGS}, True, None),
    ({"name": "luff.frontend"}, False, None),
    ({"name": "luffy", **FLAGS}, False, None),
    ({"name": "frontend", **FLAGS}, False, None),
    (FLAGS, False, None),
]


@pytest.mark.parametrize(("route", "is_ours", "run"), OURS)
def test_ours_is_the_whole_grammar_or_the_prefix_with_our_header(route: Object, is_ours: bool, run: str | None) -> None:
    assert ours(route) is is_ours
    assert our_run(route) == run


def test_what_only_begins_like_ours_is_reported() -> None:
    names = ["luff.frontend", f"luff.1.{RUN}.1.2.0", f"luff.2.{RUN}.1.2.0", "x"]

    assert suspects({"spec": {"http": [{"name": name} for name in names]}}) == [names[0], names[2]]
    assert "newer luff" in why_suspect(names[2])
    assert "left alone" in why_suspect(names[0])


@settings(max_examples=60)
@given(json_values, st.sampled_from(["name", "match", "headers", "spec"]))
def test_nothing_of_any_shape_raises(value: Any, key: str) -> None:
    for route in (value, {key: value}, {"name": f"luff.1.{RUN}.1.2.0", "match": [value], key: value}):
        ours(route)
        our_run(route)
        tampered(route)
    assert isinstance(http_routes({"spec": value}), list)
    suspects({"spec": {"http": [value, {key: value}]}})


@given(st.text("0123456789abcdef", min_size=32, max_size=32))
def test_each_match_of_a_scope_is_whole(secret: str) -> None:
    scope = Scope(secret, ("1" if secret[0] == "0" else "0") * 32)

    for header, wanted in scope.matches().values():
        assert not tampered({"match": [{"headers": {header: wanted}}]})


BAGGAGE = SCOPE.matches()[list(SCOPE.matches())[1]][1]["regex"]
WHOLE = {"headers": {"x-luff-run": {"prefix": f"{SCOPE.secret}."}}}
TAMPERED: list[tuple[Object, bool]] = [
    ({"match": [WHOLE]}, False),
    ({"match": [{**WHOLE, "uri": {"prefix": "/"}}]}, False),
    ({"match": [WHOLE, {}]}, True),
    ({"match": []}, True),
    ({"match": None}, True),
    ({}, True),
    ({"match": [{"headers": {"x-luff-run": {"prefix": SCOPE.secret[:31]}}}]}, True),
    ({"match": [{"headers": {"x-luff-run": {}}}]}, True),
    ({"match": [{"withoutHeaders": WHOLE["headers"]}]}, True),
    ({"match": [{"headers": {"baggage": {"regex": BAGGAGE}}}]}, False),
    ({"match": [{"headers": {"baggage": {"regex": f".*|{BAGGAGE}"}}}]}, True),
    ({"match": [{"headers": {"baggage": {"regex": f".*{SCOPE.secret}?.*"}}}]}, True),
    ({"match": [{"headers": {"traceparent": {"prefix": "00-0123456789abcde"}}}]}, True),
]


@pytest.mark.parametrize(("route", "is_tampered"), TAMPERED)
def test_a_twin_that_takes_more_than_its_scope_is_tampered_with(route: Object, is_tampered: bool) -> None:
    assert tampered(route) is is_tampered


@pytest.mark.parametrize(
    ("host", "full"),
    [
        ("ratings", "ratings.shop.svc.cluster.local"),
        ("ratings.bookinfo", "ratings.bookinfo"),
        ("ratings.bookinfo.svc.cluster.local", "ratings.bookinfo.svc.cluster.local"),
        ("*", "*"),
        ("10.0.0.1", "10.0.0.1"),
        ("", ""),
    ],
)
def test_only_a_name_without_a_dot_is_completed(host: str, full: str) -> None:
    assert qualify(host, "shop") == full


def test_what_a_person_writes_may_mean_an_address() -> None:
    assert meanings("Ratings", "shop") == ("ratings.shop.svc.cluster.local",)
    assert meanings("ratings.bookinfo", "shop") == ("ratings.bookinfo.svc.cluster.local", "ratings.bookinfo")
    assert meanings("ratings.shop.svc", "x") == ("ratings.shop.svc.cluster.local", "ratings.shop.svc")
    assert meanings("www.example.com.", "x") == ("www.example.com",)


def test_wildcards_take_what_ends_like_them() -> None:
    assert matches("*.example.com", "a.example.com")
    assert matches("*", "a")
    assert not matches("*.example.com", "example.com")
    assert matches("Example.com.", "example.COM")
    assert covers("*.com", "*.example.com")
    assert not covers("*.example.com", "*.com")
    assert not covers("a.com", "*.com")
    assert covers("*.com", "a.com")


def test_gateways_have_one_full_name() -> None:
    names = ["mesh", "gw", "./gw", "other/gw", "gw.other.svc.cluster.local"]

    assert [qualify_gateway(name, "shop") for name in names] == ["mesh", "shop/gw", "shop/gw", "other/gw", "other/gw"]


def test_a_regex_is_for_the_whole_text_and_of_re2() -> None:
    assert full_match("a|ab", "ab")
    assert not full_match("a", "ab")
    assert not full_match("(", "(")
    assert why_invalid("(")
    assert why_invalid("a") is None
    assert why_invalid("(?=a)")
    assert why_invalid("\ud800")
    assert not full_match(".", "\ud800")


FAILING: list[Object] = [
    {"op": "test", "path": "/a", "value": [1, 3]},
    {"op": "test", "path": "/b", "value": 1},
    {"op": "remove", "path": "/a/2"},
    {"op": "remove", "path": "/c"},
    {"op": "remove", "path": "/a/01"},
    {"op": "remove", "path": "/a/-"},
    {"op": "replace", "path": "/c", "value": 1},
    {"op": "add", "path": "/a/3", "value": 1},
    {"op": "add", "path": "/a/x", "value": 1},
    {"op": "add", "path": "/c/d", "value": 1},
    {"op": "add", "path": "/b/c", "value": 1},
    {"op": "add", "path": "a", "value": 1},
    {"op": "move", "path": "/a", "from": "/b"},
]


@pytest.mark.parametrize("operation", FAILING)
def test_a_patch_that_cannot_be_applied_changes_nothing(operation: Object) -> None:
    object_ = {"a": [1, 2], "b": True}

    with pytest.raises(ValueError):
        apply(object_, [{"op": "remove", "path": "/a/0"}, {"op": "add", "path": "/a/0", "value": 1}, operation])

    assert object_ == {"a": [1, 2], "b": True}


def test_a_patch_works_in_order_on_a_copy() -> None:
    value: list[Any] = [{}]

    made = apply(
        {"a~/b": [1], "keep": None},
        [
            {"op": "test", "path": "/a~0~1b/0", "value": 1.0},
            {"op": "add", "path": "/a~0~1b/-", "value": value},
            {"op": "add", "path": "/a~0~1b/0", "value": 0},
            {"op": "replace", "path": "/keep", "value": 2},
        ],
    )
    value[0]["later"] = True

    assert made == {"a~/b": [0, 1, [{}]], "keep": 2}
    assert not same([True], [1])
    assert not same({"a": 1}, {"a": 1, "b": 1})
