"""Delegates are merged into their roots as istiod merges them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from luff.delegates import merged_routes
from luff.model import Object

TO_A: Object = {"route": [{"destination": {"host": "a.shop.svc.cluster.local"}}]}


def _object(name: str, http: list[Object], *, namespace: str = "shop", **spec: Any) -> Object:
    return {
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {**spec, "http": http},
    }


def _merged(root: Object, *leaves: Object, namespace: str = "shop", **spec: Any) -> list[Object]:
    """Return the routes of a root with one route that delegates to ``leaf``."""
    route = {"delegate": {"name": "leaf", "namespace": namespace}, **root}
    outer = _object("root", [route], hosts=["a"])
    leaf = _object("leaf", list(leaves), namespace=namespace, **spec)
    before = copy.deepcopy([outer, leaf])
    found = merged_routes(outer, [outer, leaf])
    assert [outer, leaf] == before, "what was given is not changed"
    return found


def test_routes_without_a_delegate_stay_as_they_are() -> None:
    routes = [{**TO_A, "name": "one"}, {"redirect": {"uri": "/"}}]
    assert merged_routes(_object("root", routes, hosts=["a"]), []) == routes


def test_an_empty_delegate_is_one_of_nobody_and_drops_its_route() -> None:
    routes = [{"directResponse": {"status": 503}, "delegate": {}}, TO_A]
    assert merged_routes(_object("root", routes, hosts=["a"]), []) == [TO_A]


def test_each_route_of_the_delegate_is_put_in_its_place() -> None:
    root = _object(
        "root", [{**TO_A, "name": "first"}, {"delegate": {"name": "leaf"}}, {**TO_A, "name": "last"}], hosts=["a"]
    )
    leaf = _object("leaf", [{**TO_A, "name": "x"}, {**TO_A, "name": "y"}])
    assert [route["name"] for route in merged_routes(root, [root, leaf])] == ["first", "x", "y", "last"]


@pytest.mark.parametrize(
    ("root", "leaf", "expected"),
    [("r", "l", "r-l"), ("r", None, "r"), (None, "l", "l"), (None, None, None)],
)
def test_names(root: str | None, leaf: str | None, expected: str | None) -> None:
    outer = {"name": root, "match": [{"name": root}]} if root else {"match": [{}]}
    inner = {"name": leaf, "match": [{"name": leaf}]} if leaf else {"match": [{}]}
    [found] = _merged(outer, {**TO_A, **inner})
    assert found.get("name") == expected
    assert found["match"][0].get("name") == expected


@pytest.mark.parametrize(
    ("key", "root", "leaf"),
    [
        ("timeout", "5s", "1s"),
        ("retries", {"attempts": 5}, {"attempts": 0}),
        ("fault", {"abort": {"httpStatus": 503}}, {"delay": {"fixedDelay": "1s"}}),
        ("rewrite", {"uri": "/r"}, {"uri": "/l"}),
        ("mirror", {"host": "r.shop.svc.cluster.local"}, {"host": "l.shop.svc.cluster.local"}),
        ("mirrorPercentage", {"value": 1}, {"value": 2}),
        ("mirrors", [{"destination": {"host": "r.x"}}], []),
        ("corsPolicy", {"maxAge": "1s"}, {}),
        ("headers", {"request": {"set": {"a": "1"}, "remove": ["b"]}}, {"request": {"set": {"c": "2"}}}),
        ("directResponse", {"status": 500}, {"status": 404}),
    ],
)
def test_the_delegates_own_wins_as_a_whole_and_the_roots_fills_in(key: str, root: Any, leaf: Any) -> None:
    [found] = _merged({key: root}, {**TO_A, key: leaf})
    assert found[key] == leaf
    [found] = _merged({key: root}, TO_A)
    assert found[key] == root
    assert "delegate" not in found


MATCHES: list[tuple[str, Object, Object, Object | None]] = [
    ("prefix in prefix", {"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a/b"}}),
    ("wider prefix", {"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}, None),
    ("exact in prefix", {"uri": {"prefix": "/a"}}, {"uri": {"exact": "/ab"}}, {"uri": {"exact": "/ab"}}),
    ("exact outside", {"uri": {"prefix": "/a"}}, {"uri": {"exact": "/b"}}, None),
    ("same exact", {"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}),
    ("other exact", {"uri": {"exact": "/a"}}, {"uri": {"exact": "/b"}}, None),
    ("prefix in exact", {"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, None),
    ("regex in both", {"uri": {"regex": "/a"}}, {"uri": {"regex": "/a"}}, None),
    ("regex in the root", {"uri": {"regex": "/a"}}, {"uri": {"exact": "/a"}}, None),
    ("regex in the leaf", {"uri": {"prefix": "/"}}, {"uri": {"regex": "/a"}}, None),
    (
        "regex in the root alone",
        {"uri": {"regex": "/a"}},
        {"method": {"exact": "GET"}},
        {"uri": {"regex": "/a"}, "method": {"exact": "GET"}},
    ),
    ("method", {"method": {"exact": "GET"}}, {"method": {"exact": "PUT"}}, None),
    (
        "headers together",
        {"headers": {"a": {"exact": "1"}}},
        {"headers": {"b": {}}},
        {"headers": {"a": {"exact": "1"}, "b": {}}},
    ),
    ("header conflict", {"headers": {"a": {"exact": "1"}}}, {"headers": {"a": {"exact": "2"}}}, None),
    ("presence on both sides", {"headers": {"a": {}}}, {"headers": {"a": {}}}, None),
    ("presence in the root", {"headers": {"a": {}}}, {"headers": {"a": {"exact": "1"}}}, None),
    ("withoutHeaders conflict", {"withoutHeaders": {"a": {"exact": "1"}}}, {"withoutHeaders": {"a": {}}}, None),
    ("query conflict", {"queryParams": {"a": {"exact": "1"}}}, {"queryParams": {"a": {"exact": "2"}}}, None),
    ("case", {"ignoreUriCase": True}, {"uri": {"exact": "/a"}}, None),
    ("port", {"port": 80}, {"port": 81}, None),
    ("port of the root", {"port": 80}, {}, {"port": 80}),
    ("sourceNamespace", {"sourceNamespace": "a"}, {"sourceNamespace": "b"}, None),
    ("sourceNamespace of the root alone", {"sourceNamespace": "a"}, {}, None),
    ("sourceNamespace of the leaf alone", {}, {"sourceNamespace": "a"}, {"sourceNamespace": "a"}),
    ("labels conflict", {"sourceLabels": {"a": "1"}}, {"sourceLabels": {"a": "2"}}, None),
    (
        "labels together",
        {"sourceLabels": {"a": "1"}},
        {"sourceLabels": {"b": "2"}},
        {"sourceLabels": {"a": "1", "b": "2"}},
    ),
    ("other gateway", {"gateways": ["x/a"]}, {"gateways": ["x/b"]}, None),
    ("one of the gateways", {"gateways": ["gw", "mesh"]}, {"gateways": ["shop/gw"]}, {"gateways": ["shop/gw"]}),
]


@pytest.mark.parametrize(
    ("root", "leaf", "expected"), [case[1:] for case in MATCHES], ids=[case[0] for case in MATCHES]
)
def test_matches_narrow_or_conflict(root: Object, leaf: Object, expected: Object | None) -> None:
    found = _merged({"match": [root]}, {**TO_A, "match": [leaf]})
    assert [route["match"] for route in found] == ([] if expected is None else [[expected]])


def test_every_agreeing_pair_of_matches_counts_and_one_without_any_drops_the_route() -> None:
    outer = {"match": [{"uri": {"prefix": "/a"}}, {"headers": {"h": {"exact": "1"}}}]}
    [found] = _merged(outer, {**TO_A, "match": [{"uri": {"prefix": "/a/b"}}]})
    assert found["match"] == [
        {"uri": {"prefix": "/a/b"}},
        {"uri": {"prefix": "/a/b"}, "headers": {"h": {"exact": "1"}}},
    ]
    lost = {**TO_A, "match": [{"uri": {"exact": "/a"}}, {"uri": {"exact": "/z"}, "headers": {"h": {"exact": "2"}}}]}
    assert _merged(outer, lost, TO_A) == [{**TO_A, **outer}]


@pytest.mark.parametrize(
    ("namespace", "exported", "visible"),
    [
        ("shop", None, True), ("shop", ["."], True), ("shop", ["shop"], True), ("shop", ["other"], False),
        ("other", None, True), ("other", ["*"], True), ("other", ["shop"], True), ("other", ["."], False),
        ("other", ["third"], False),
    ],
)  # fmt: skip
def test_who_sees_a_delegate(namespace: str, exported: list[str] | None, visible: bool) -> None:
    spec = {"exportTo": exported} if exported else {}
    assert bool(_merged({}, TO_A, namespace=namespace, **spec)) is visible


def test_a_missing_delegate_and_one_with_hosts_are_passed_over() -> None:
    root = _object("root", [{"delegate": {"name": "leaf"}}, TO_A], hosts=["a"])
    assert merged_routes(root, [root]) == [TO_A]
    assert merged_routes(root, [root, _object("leaf", [{**TO_A, "name": "x"}], hosts=["b"])]) == [TO_A]


def test_what_a_delegate_names_is_read_in_its_own_namespace() -> None:
    leaf = {
        "match": [{"gateways": ["gw", "./gw", "mesh"]}],
        "route": [{"destination": {"host": "a"}}],
        "mirrors": [{"destination": {"host": "m"}}],
    }
    [found] = _merged({"mirror": {"host": "n"}}, leaf, namespace="other")
    assert found["match"] == [{"gateways": ["other/gw", "other/gw", "mesh"]}]
    assert found["route"] == [{"destination": {"host": "a.other.svc.cluster.local"}}]
    assert found["mirrors"] == [{"destination": {"host": "m.other.svc.cluster.local"}}]
    assert found["mirror"] == {"host": "n.shop.svc.cluster.local"}
