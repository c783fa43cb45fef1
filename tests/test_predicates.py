"""What an answer is: each part of an expectation, and what no part may be fooled by."""

from __future__ import annotations

import json
import pickle
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff import regex
from luff.model import Answer, Experiment
from luff.predicates import answers_of, holds, observer, status_in

BODY = {
    "stock": "unknown",
    "count": 0,
    "sold": False,
    "gone": None,
    "flags": [{"on": True}],
    "reviews": [{"stars": 5}, {}],
}
DEEP = b"[" * 100_000 + b"]" * 100_000

HOLDS: list[tuple[str, dict[str, Any], bool]] = [
    ("nothing asked", {}, True),
    ("the status", {"status": ["200"]}, True),
    ("one of several statuses", {"status": ["404", "2xx"]}, True),
    ("another status", {"status": ["404", "5xx"]}, False),
    ("text in the body", {"body": {"contains": "unknown"}}, True),
    ("no such text", {"body": {"contains": "in stock"}}, False),
    ("a pattern somewhere", {"body": {"matches": '"stock": *"unk'}}, True),
    ("no such pattern", {"body": {"matches": "^stock"}}, False),
    ("both", {"body": {"contains": "unknown", "matches": "in stock"}}, False),
    ("letters of all kinds", {"body": {"contains": "Zoë"}}, False),
    ("a header", {"header": {"name": "X-Served-By", "equals": "cache"}}, True),
    ("a header of another value", {"header": {"name": "x-served-by", "equals": "Cache"}}, False),
    ("a header's pattern", {"header": {"name": "x-served-by", "matches": "ach"}}, True),
    ("a header that is there", {"header": {"name": "x-empty"}}, True),
    ("a header that is not", {"header": {"name": "x-other"}}, False),
    ("a value", {"json": {"path": "$.stock", "equals": "unknown"}}, True),
    ("another value", {"json": {"path": "$.stock", "equals": "in stock"}}, False),
    ("a value that is not there", {"json": {"path": "$.price", "equals": 0}}, False),
    ("a null that is meant", {"json": {"path": "$.gone", "equals": None}}, True),
    ("a null that is not there", {"json": {"path": "$.price", "equals": None}}, False),
    ("false is not zero", {"json": {"path": "$.sold", "equals": 0}}, False),
    ("zero is not false", {"json": {"path": "$.count", "equals": False}}, False),
    ("false", {"json": {"path": "$.sold", "equals": False}}, True),
    ("zero, however written", {"json": {"path": "$.count", "equals": 0.0}}, True),
    ("it is there", {"json": {"path": "$.gone", "exists": True}}, True),
    ("it is not there", {"json": {"path": "$.price", "exists": False}}, True),
    ("it is there after all", {"json": {"path": "$.reviews[*].stars", "exists": False}}, False),
    ("it is there, and another value", {"json": {"path": "$.stock", "exists": True, "equals": "in stock"}}, False),
    ("it is there, and the value", {"json": {"path": "$.stock", "exists": True, "equals": "unknown"}}, True),
    ("it is there, and no such pattern", {"json": {"path": "$.stock", "exists": True, "matches": "^in"}}, False),
    ("another value of the pattern", {"json": {"path": "$.stock", "equals": "in stock", "matches": ".*"}}, False),
    ("the value, and no such pattern", {"json": {"path": "$.stock", "equals": "unknown", "matches": "^in"}}, False),
    ("the value of the pattern", {"json": {"path": "$.stock", "equals": "unknown", "matches": "^unk"}}, True),
    ("only a path", {"json": {"path": "$.stock"}}, True),
    ("only a path to nothing", {"json": {"path": "$.price"}}, False),
    ("a pattern in a text", {"json": {"path": "$.stock", "matches": "^unk"}}, True),
    ("a pattern in what is no text", {"json": {"path": "$.count", "matches": "^0$"}}, True),
    ("all that is selected", {"json": {"path": "$.reviews[*].stars", "equals": 5}}, True),
    ("not all that is selected", {"json": {"path": "$[*]", "equals": 0}}, False),
    ("true is not one, however deep", {"json": {"path": "$.flags", "equals": [{"on": 1}]}}, False),
    ("true, however deep", {"json": {"path": "$.flags", "equals": [{"on": True}]}}, True),
    ("a whole object", {"json": {"path": "$.reviews", "equals": [{"stars": 5}, {}]}}, True),
    ("all parts", {"status": ["200"], "json": {"path": "$.stock", "equals": "unknown"}}, True),
    ("not all parts", {"status": ["500"], "json": {"path": "$.stock", "equals": "unknown"}}, False),
]


@pytest.mark.parametrize(("what", "answer", "expected"), HOLDS, ids=[what for what, *_ in HOLDS])
def test_parts_of_an_answer(what: str, answer: dict[str, Any], *, expected: bool) -> None:
    headers = httpx.Headers({"X-Served-By": "cache", "x-empty": ""})
    assert holds(Answer.model_validate(answer), 200, headers, json.dumps(BODY).encode()) is expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe\x00", b"{", DEEP, b"1" * 5000, b'{"a": 1} extra'], ids=lambda body: repr(body[:9])
)  # fmt: skip
@pytest.mark.parametrize("claim", [{"exists": False}, {"exists": True}, {"equals": None}, {"matches": ".*"}])
def test_what_is_not_json_proves_nothing_about_json(body: bytes, claim: dict[str, Any]) -> None:
    answer = Answer.model_validate({"json": {"path": "$.stars", **claim}})
    assert not holds(answer, 200, {}, body)


def test_text_that_is_no_text_is_read_as_well_as_it_goes() -> None:
    answer = Answer.model_validate({"body": {"contains": "ok"}})
    assert holds(answer, 200, {}, b"\xff\xfeok\xc3")


@pytest.mark.parametrize(
    ("status", "wanted", "expected"),
    [
        (503, ("503",), True),
        (503, ("5xx",), True),
        (503, ("5XX",), True),
        (503, ("4xx", "200"), False),
        (50, ("5xx",), True),
        (200, (), False),
    ],
)
def test_statuses(status: int, wanted: tuple[str, ...], *, expected: bool) -> None:
    assert status_in(status, wanted) is expected


def _experiment(*answers: dict[str, Any]) -> Experiment:
    return Experiment.model_validate(
        {
            "metadata": {"name": "cart"},
            "spec": {
                "target": {"host": "inventory"},
                "fault": {"abort": {"http": 503}},
                "traffic": {"requests": [{"url": "http://checkout/"}]},
                "expect": [
                    {"id": f"check-{place}", "kind": "answer" if place % 2 else "fallback", "answer": answer}
                    for place, answer in enumerate(answers)
                ],
            },
        }
    )


def test_each_distinct_answer_has_a_bit() -> None:
    experiment = _experiment({"status": ["200"]}, {"status": ["404"]}, {"status": ["200"]}, {"body": {"contains": "a"}})
    assert len(answers_of(experiment)) == 3
    observe = observer(experiment)
    assert observe(200, {}, b"a") == 0b101
    assert observe(404, {}, b"") == 0b010
    assert observe(500, {}, b"b") == 0


def test_another_process_observes_the_same() -> None:
    observe = observer(_experiment({"status": ["200"]}, {"json": {"path": "$.a", "equals": 1}}))

    elsewhere = pickle.loads(pickle.dumps(observe))

    for status, body in ((200, b""), (404, b'{"a": 1}'), (200, b'{"a": 1}')):
        assert elsewhere(status, {}, body) == observe(status, {}, body)


@settings(max_examples=100)
@given(
    wanted=st.lists(st.sampled_from(["200", "404", "2xx", "4xx", "5xx"]), min_size=1, max_size=4, unique=True),
    status=st.integers(200, 599),
)
def test_a_bit_is_what_its_answer_says(wanted: list[str], status: int) -> None:
    experiment = _experiment(*({"status": [each]} for each in wanted))
    bits = observer(experiment)(status, {}, b"")
    for index, answer in enumerate(answers_of(experiment)):
        assert bool(bits >> index & 1) is holds(answer, status, {}, b"")


@pytest.mark.skipif(not regex.EXACT, reason="RE2 is not installed, so such a pattern is refused")
def test_a_pattern_that_backtracks_for_ever_elsewhere_is_searched_in_linear_time() -> None:
    # Python's own engine would need 2 to the power of 200,000 steps for this one, and hold the run all that time.
    wanted = Answer.model_validate({"body": {"matches": "(a+)+b"}})
    assert not holds(wanted, 200, {}, b"a" * 200_000)
    assert holds(wanted, 200, {}, b"a" * 200_000 + b"b")


@pytest.mark.parametrize(
    ("pattern", "slow"),
    [
        ("in stock", False),
        (r"^stock: \d+$", False),
        (r"left\? [*+?{] \*\+", False),
        ("colou?r", False),
        ("a.*b", False),
        ("(?:sold|out)", False),
        ("a.*?b", False),
        ("(a+)+b", True),
        ("(a|aa)+b", True),
        ("(a|a)*b*", True),
        (".*.*x", True),
        ("(a|aa){1,50}b+", True),
        ("a?a?a?a?a?a?aaaaaa", True),
    ],
)
def test_without_re2_what_could_backtrack_for_ever_is_told_apart(pattern: str, *, slow: bool) -> None:
    assert (regex.why_slow(pattern) is not None) is slow
