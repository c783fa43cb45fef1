"""Which route takes a request: one row for each of Istio's rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luff.decide import Proxy, RequestFacts, catches_all, decide, unconditional
from luff.model import Object
from tests.strategies import proxies, requests, virtual_services


def _object(*http: Object, **spec: Any) -> Object:
    return {"metadata": {"namespace": "shop"}, "spec": {"http": list(http), **spec}}


def _request(path: str = "/", /, *headers: tuple[str, str], **facts: Any) -> RequestFacts:
    return RequestFacts(path=path, headers=headers, **facts)


def _header(wanted: Object, name: str = "x") -> Object:
    return {"headers": {name: wanted}}


def _without(wanted: Object) -> Object:
    return {"withoutHeaders": {"x": wanted}}


HOLDS: list[tuple[str, Object, RequestFacts, bool]] = [
    ("an exact path", {"uri": {"exact": "/a"}}, _request("/a"), True),
    ("an exact path, without the query", {"uri": {"exact": "/a"}}, _request("/a?b=c"), True),
    ("an exact path is not a prefix", {"uri": {"exact": "/a"}}, _request("/a/b"), False),
    ("a prefix is plain text", {"uri": {"prefix": "/foo"}}, _request("/foobar"), True),
    ("an empty prefix takes all", {"uri": {"prefix": ""}}, _request("/foobar"), True),
    ("a regex is for the whole path", {"uri": {"regex": "/foo"}}, _request("/foobar"), False),
    ("a regex is RE2", {"uri": {"regex": "/(?i)FOO"}}, _request("/foo"), True),
    ("what RE2 does not know holds never", {"uri": {"regex": "/(?=f)foo"}}, _request("/foo"), False),
    ("case counts", {"uri": {"prefix": "/A"}}, _request("/a"), False),
    ("unless told", {"uri": {"prefix": "/A"}, "ignoreUriCase": True}, _request("/ab"), True),
    ("but not in a regex", {"uri": {"regex": "/A"}, "ignoreUriCase": True}, _request("/a"), False),
    ("no path is any path", {"uri": {}}, _request("/a"), True),
    ("a header", _header({"exact": "1"}), _request("/", ("x", "1")), True),
    ("a header's name in any case", _header({"exact": "1"}, "X-A"), _request("/", ("x-a", "1")), True),
    ("a header's value in this case", _header({"exact": "a"}), _request("/", ("x", "A")), False),
    ("a header that is not there", _header({"exact": ""}), _request("/"), False),
    ("a header's prefix", _header({"prefix": "a"}), _request("/", ("x", "ab")), True),
    ("a header's regex, whole", _header({"regex": "a"}), _request("/", ("x", "ab")), False),
    ("presence", _header({}), _request("/", ("x", "")), True),
    ("presence by a star", _header({"regex": "*"}), _request("/", ("x", "any")), True),
    ("no presence", _header({}), _request("/"), False),
    ("one of a repeated header", _header({"exact": "v1"}), _request("/", ("x", "v1"), ("x", "v2")), True),
    ("the last of a repeated header", _header({"exact": "v2"}), _request("/", ("x", "v1"), ("x", "v2")), True),
    ("two values on one line", _header({"exact": "v1"}), _request("/", ("x", "v1,v2")), False),
    ("several headers are ANDed", {"headers": {"x": {}, "y": {}}}, _request("/", ("x", "1")), False),
    ("the path as a header", _header({"prefix": "/a?b"}, ":path"), _request("/a?b=c"), True),
    ("the host as a header", _header({"exact": "h"}, "Host"), _request("/", authority="h"), True),
    ("a claim is unknown", _header({"exact": "h"}, "@request.auth.claims.sub"), _request("/"), False),
    ("without a header that is not there", _without({"exact": "1"}), _request("/"), True),
    ("without a header of another value", _without({"exact": "1"}), _request("/", ("x", "2")), True),
    ("without a header of this value", _without({"exact": "1"}), _request("/", ("x", "1")), False),
    ("any offending value blocks", _without({"exact": "1"}), _request("/", ("x", "2"), ("x", "1")), False),
    ("a missing header counts as empty", _without({"regex": ".*"}), _request("/"), False),
    ("but not for presence", _without({"regex": "*"}), _request("/"), True),
    ("presence without", _without({}), _request("/", ("x", "1")), False),
    ("a method", {"method": {"exact": "GET"}}, _request(method="POST"), False),
    ("any method", {"method": {}}, _request(method="POST"), True),
    ("any method by a star", {"method": {"regex": "*"}}, _request(method="POST"), True),
    ("an authority", {"authority": {"prefix": "shop."}}, _request(authority="shop.example"), True),
    ("a scheme", {"scheme": {"exact": "https"}}, _request(), False),
    ("a query parameter", {"queryParams": {"q": {"exact": "1"}}}, _request("/?p=2&q=1"), True),
    ("a query parameter that is not there", {"queryParams": {"q": {"regex": ".*"}}}, _request("/?p=2"), False),
    ("the first of several", {"queryParams": {"q": {"exact": "2"}}}, _request("/?q=1&q=2"), False),
    ("a query parameter's presence", {"queryParams": {"q": {}}}, _request("/?q"), True),
    ("its presence by a star", {"queryParams": {"q": {"regex": "*"}}}, _request("/?q=1"), True),
    ("a query parameter is not decoded", {"queryParams": {"q": {"exact": "a b"}}}, _request("/?q=a+b"), False),
    ("nulls are nothing", {"uri": None, "headers": None, "port": None, "name": None}, _request("/a"), True),
]


@pytest.mark.parametrize(("said", "match", "request_", "holds"), HOLDS, ids=[row[0] for row in HOLDS])
def test_a_match_holds_for(said: str, match: Object, request_: RequestFacts, holds: bool) -> None:
    assert (decide(_object({"match": [match]}), request_, Proxy()) == 0) is holds, said


MESH, GATEWAY = (
    Proxy(labels={"app": "a", "v": "1"}, namespace="shop"),
    Proxy(gateway="shop/gw", namespace="istio-system"),
)
APPLIES: list[tuple[str, Object, Proxy, bool]] = [
    ("all labels", {"sourceLabels": {"app": "a", "v": "1"}}, MESH, True),
    ("one label differs", {"sourceLabels": {"app": "a", "v": "2"}}, MESH, False),
    ("the namespace", {"sourceNamespace": "shop"}, MESH, True),
    ("another namespace", {"sourceNamespace": "other"}, MESH, False),
    ("the port", {"port": 80}, MESH, True),
    ("another port", {"port": 81}, MESH, False),
    ("the gateway", {"gateways": ["gw"]}, GATEWAY, True),
    ("the gateway in full", {"gateways": ["shop/gw"]}, GATEWAY, True),
    ("the gateway as of old", {"gateways": ["gw.shop.svc.cluster.local"]}, GATEWAY, True),
    ("a gateway elsewhere", {"gateways": ["other/gw"]}, GATEWAY, False),
    ("sidecars", {"gateways": ["mesh"]}, GATEWAY, False),
    ("labels are not looked at with gateways", {"gateways": ["mesh"], "sourceLabels": {"app": "b"}}, MESH, True),
    ("nor is the namespace", {"gateways": ["mesh"], "sourceNamespace": "other"}, MESH, True),
    ("but the port is", {"gateways": ["mesh"], "port": 81}, MESH, False),
]


@pytest.mark.parametrize(("said", "match", "proxy", "applies"), APPLIES, ids=[row[0] for row in APPLIES])
def test_a_match_is_made_for_a_proxy_by(said: str, match: Object, proxy: Proxy, applies: bool) -> None:
    object_ = _object({"match": [match]}, gateways=["mesh", "gw"])

    assert (decide(object_, _request("/"), proxy) == 0) is applies, said


def test_an_object_is_for_its_gateways_only() -> None:
    assert decide(_object({}), _request("/"), GATEWAY) is None
    assert decide(_object({}, gateways=["gw"]), _request("/"), GATEWAY) == 0
    assert decide(_object({}, gateways=["gw"]), _request("/"), MESH) is None


def test_matches_are_ored_and_routes_tried_in_order() -> None:
    object_ = _object({"match": [{"uri": {"exact": "/a"}}, {"uri": {"exact": "/b"}}]}, {"match": [{}]}, {})

    assert [decide(object_, _request(path), Proxy()) for path in ("/a", "/b", "/c")] == [0, 0, 1]
    assert decide(_object({"match": [{"uri": {"exact": "/a"}}]}), _request("/c"), Proxy()) is None
    assert decide(_object(), _request("/c"), Proxy()) is None


def test_nothing_after_a_catch_all_exists() -> None:
    # A path such as `*` is not below "/", and pilot has stopped there.
    object_ = _object({"match": [{"uri": {"prefix": "/"}}]}, {"name": "never"})

    assert decide(object_, _request("*", method="OPTIONS"), Proxy()) is None
    assert decide(_object({"match": [{"uri": {"prefix": "/"}, "port": 1}]}, {}), _request("*"), Proxy()) == 1


@pytest.mark.parametrize(
    ("route", "all_", "somewhere"),
    [
        ({}, True, True),
        ({"match": []}, True, True),
        ({"match": [{}]}, True, True),
        ({"match": [{"uri": {"prefix": "/"}}]}, True, True),
        ({"match": [{"uri": {"regex": ".*"}}]}, True, True),
        ({"match": [{"uri": {"prefix": ""}}]}, False, False),
        ({"match": [{"headers": {}}]}, True, True),
        ({"match": [{"headers": {"x": {}}}]}, False, False),
        ({"match": [{"withoutHeaders": {"x": {}}}]}, False, False),
        ({"match": [{"queryParams": {"x": {}}}]}, False, False),
        ({"match": [{"method": {}}]}, False, False),
        ({"match": [{"sourceLabels": {"a": "b"}}]}, False, True),
        ({"match": [{"sourceNamespace": "b"}]}, False, True),
        ({"match": [{"gateways": ["mesh"]}]}, False, True),
        ({"match": [{"port": 80}]}, False, True),
        ({"match": [{"port": 80}, {"name": "all"}]}, True, True),
    ],
)
def test_a_catch_all_is(route: Object, all_: bool, somewhere: bool) -> None:
    assert catches_all(route) is all_
    assert any(unconditional(match) for match in route.get("match") or [{}]) is somewhere


@settings(max_examples=100)
@given(st.data(), virtual_services())
def test_who_takes_a_request_does_not_depend_on_later_routes(data: st.DataObject, object_: Object) -> None:
    request, proxy = data.draw(requests(object_)), data.draw(proxies(object_))
    index = decide(object_, request, proxy)
    http = object_["spec"]["http"]

    if index is not None:
        cut = {**object_, "spec": {**object_["spec"], "http": http[: index + 1]}}
        assert decide(cut, request, proxy) == index
        assert not any(catches_all(route) for route in http[:index])
