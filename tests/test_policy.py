"""What a Policy allows, and what is said of what it does not."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from luff.errors import InvalidFile, PlanRefused
from luff.model import Experiment, PolicySpec
from luff.parse import parse_documents
from luff.plan import Bounds
from luff.policy import bounds_of, check_context, check_policy, named_context
from luff.units import TTL_MOST_S

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def experiment(url: str = "http://front.shop/cart", via: str = "{}") -> Experiment:
    text = (
        "apiVersion: luff.dev/v1alpha1\nkind: Experiment\nmetadata: {name: e, namespace: shop}\n"
        f"spec: {{target: stock, subject: front, fault: {{abort: 503}}, traffic: {{requests: [GET {url}], via: {via}}}}}\n"
    )
    [found] = parse_documents([("e.yaml", text)]).experiments
    return found


def refused(policy: PolicySpec, each: Experiment | None = None, *, now: datetime = NOON) -> PlanRefused | None:
    """Return how *policy* refuses, ``None`` when it does not."""
    try:
        check_policy(policy, each or experiment(), namespace="shop", now=now)
    except PlanRefused as error:
        return error
    return None


@pytest.mark.parametrize(
    ("policy", "rule", "allowed"),
    [
        (PolicySpec(), None, ""),
        (PolicySpec(namespaces=("books", "sh*")), None, ""),
        (PolicySpec(namespaces=("books", "bank-*")), "namespace_not_allowed", "books, bank-*"),
        (PolicySpec(hours="09:00-17:00"), None, ""),
        (PolicySpec(hours="13:00-17:00"), "outside_hours", "13:00-17:00 UTC"),
        (PolicySpec(hours="09:00-12:30 Europe/Berlin"), "outside_hours", "there it is 13:00"),
        (PolicySpec(hours="22:00-12:30"), None, ""),
        (PolicySpec(hosts=("*.shop",)), None, ""),
        (PolicySpec(hosts=("front.shop.svc.cluster.local",)), None, ""),
        (PolicySpec(hosts=("FRONT.*",)), None, ""),
        (PolicySpec(hosts=("*.books", "example.com")), "host_not_allowed", "*.books, example.com"),
    ],
)
def test_a_policy_refuses_by_rule_and_says_what_it_allows(policy: PolicySpec, rule: str | None, allowed: str) -> None:
    error = refused(policy)

    assert (None if error is None else error.rule) == rule
    assert error is None or allowed in error.message


def test_where_a_connection_goes_counts_and_not_only_the_url() -> None:
    error = refused(PolicySpec(hosts=("*.shop",)), experiment(via="{connect: '10.0.0.7:80'}"))

    assert error is not None
    assert "10.0.0.7" in error.message


def test_numbers_of_a_policy_are_the_bounds_of_a_plan() -> None:
    policy = PolicySpec(max_delay_s=2.0, max_rate_hz=5.0, max_held=7.0, max_ttl_s=60.0)

    assert bounds_of(policy, "cluster") == Bounds(held=7.0, delay_s=2.0, rate_hz=5.0, ttl_s=60.0)
    assert bounds_of(None, "lab") == Bounds.usual("lab")
    assert bounds_of(PolicySpec(), "cluster").delay_s == math.inf


def test_a_policy_can_only_shorten_the_life_of_a_twin() -> None:
    text = "apiVersion: luff.dev/v1alpha1\nkind: Policy\nmetadata: {name: p}\nspec: {maxTtl: 2h}\n"

    with pytest.raises(InvalidFile, match=r"p.yaml:4:16: maxTtl can only lower .*write 3600s"):
        parse_documents([("p.yaml", text)])
    assert bounds_of(PolicySpec(max_ttl_s=2 * TTL_MOST_S), "cluster").ttl_s == TTL_MOST_S


@pytest.mark.parametrize(
    ("contexts", "named"),
    [((), None), (("prod",), "prod"), (("prod", "staging"), None), (("prod-*",), None), (("prod-[ab]",), None)],
)
def test_only_one_context_that_is_no_pattern_names_a_cluster(contexts: tuple[str, ...], named: str | None) -> None:
    assert named_context(PolicySpec(contexts=contexts)) == named


def test_a_policy_for_other_clusters_refuses_this_one() -> None:
    check_context(PolicySpec(contexts=("prod-*",)), "prod-eu")
    check_context(None, "prod-eu")

    with pytest.raises(PlanRefused, match=r"contexts prod-\*, not for staging") as caught:
        check_context(PolicySpec(contexts=("prod-*",)), "staging")

    assert caught.value.rule == "context_not_allowed"
