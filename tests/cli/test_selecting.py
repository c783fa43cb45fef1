"""Which experiments ``-k`` and ``-l`` leave."""

from __future__ import annotations

import pytest

from luff.cli.selecting import matches_keyword, matches_labels, selected
from luff.errors import NothingSelected, UsageError


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("slow", True),
        ("ratings", True),
        ("details", False),
        ("slow and ratings", True),
        ("slow and details", False),
        ("details or ratings", True),
        ("not details", True),
        ("not slow", False),
        ("slow and not details", True),
        ("(details or ratings) and slow", True),
        ("not (slow or details)", False),
        ("details or slow and ratings", True),
    ],
)
def test_a_keyword_expression_selects_by_parts_of_the_name(expression: str, holds: bool) -> None:
    assert matches_keyword("reviews-survives-slow-ratings", expression) is holds


@pytest.mark.parametrize("expression", ["and", "slow and", "(slow", "slow )", "", "not"])
def test_a_broken_keyword_expression_is_a_usage_error(expression: str) -> None:
    with pytest.raises(UsageError):
        matches_keyword("reviews", expression)


@pytest.mark.parametrize("expression", ["(" * 3000 + "slow" + ")" * 3000, "not " * 3000 + "slow"])
def test_a_keyword_expression_that_is_nested_too_deep_is_a_usage_error(expression: str) -> None:
    with pytest.raises(UsageError, match="nested more than 100 deep"):
        matches_keyword("slow", expression)


def test_a_long_keyword_expression_may_be_flat() -> None:
    assert matches_keyword("slow", " and ".join(["(not fast)"] * 1000))


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ("team=books", True),
        ("team==books", True),
        ("team=shop", False),
        ("team!=shop", True),
        ("team=books,tier=1", True),
        ("team=books,tier=2", False),
        ("tier", True),
        ("!tier", False),
        ("!owner", True),
    ],
)
def test_a_label_selector_selects_as_kubectl_does(selector: str, holds: bool) -> None:
    assert matches_labels({"team": "books", "tier": "1"}, selector) is holds


def test_an_empty_part_of_a_label_selector_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="empty part"):
        matches_labels({}, "team=books,,tier=1")


def test_no_experiment_at_all_is_not_green() -> None:
    with pytest.raises(NothingSelected):
        selected([], keyword=None, labels=None)
