"""Twins in delegates: what istiod merges of root and leaf is what counts, for each thing that a root can say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from luff.decide import Proxy, RequestFacts, decide
from luff.delegates import merged_routes, root_routes
from luff.errors import PlanRefused
from luff.model import Abort, Fault, Object, Target
from luff.names import Stamp, find_name
from luff.patches import apply
from luff.routes import Injection, inject
from luff.scope import FLAGS_HEADER
from luff.selection import select
from luff.validation import problems
from tests.strategies import RUN, SCOPE, proxies, requests, virtual_services

TO: Object = {"route": [{"destination": {"host": "ratings.shop.svc.cluster.local"}}]}


def _object(name: str, *http: Object, namespace: str = "shop", **spec: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": "7"},
        "spec": {**spec, "http": list(http)},
    }


def _root(*http: Object, of: str = "shop", **spec: Any) -> Object:
    """Return a root in ``shop`` whose routes delegate to ``leaf`` in the namespace *of*."""
    routes = [{"delegate": {"name": "leaf", "namespace": of}, **route} for route in http]
    return _object("root", *routes, hosts=["ratings"], **spec)


def _leaf(*http: Object, namespace: str = "shop") -> Object:
    return _object("leaf", *(http or (TO,)), namespace=namespace)


def _inject(root: Object, leaf: Object, target: Object | None = None) -> Injection:
    wanted = Target.model_validate({"host": "ratings", **(target or {})})
    return inject(
        select(leaf, wanted, namespace="shop", roots=root_routes(leaf, [root, leaf])),
        Stamp(RUN, SCOPE, created_s=1, expires_s=2),
        Fault(abort=Abort(http=503)),
    )


def _merged(root: Object, leaf: Object, target: Object | None = None) -> list[Object]:
    """Return what proxies are given once the twins are in."""
    patched = apply(leaf, _inject(root, leaf, target).operations)
    assert problems(patched) == []
    return merged_routes(root, [root, patched])


def _is_twin(route: Object) -> bool:
    return find_name(str(route.get("name", ""))) is not None


def _headers(route: Object) -> list[set[str]]:
    return [set(match.get("headers", {})) for match in route["match"]]


SURVIVES: list[tuple[str, Object, Object]] = [
    ("nothing", {}, {}),
    ("a path", {"match": [{"uri": {"prefix": "/a"}}]}, {}),
    ("a path whose case is ignored", {"match": [{"uri": {"prefix": "/a"}, "ignoreUriCase": True}]}, {}),
    ("a namespace of callers", {"match": [{"sourceNamespace": "shop"}]}, {}),
    ("both, in two matches", {"match": [{"sourceNamespace": "shop"}, {"ignoreUriCase": True}]}, {}),
    ("a header", {"match": [{"headers": {"x": {"exact": "1"}}}]}, {}),
    ("a carrier", {"match": [{"headers": {"baggage": {"prefix": "tenant=a"}}}]}, {}),
    ("a carrier that has to be there", {"match": [{"headers": {"traceparent": {}}}]}, {}),
    ("callers, and so does the target", {"match": [{"sourceLabels": {"app": "a"}}]}, {"from": {"app": "a", "v": "1"}}),
    ("gateways, and so does the target", {"match": [{"gateways": ["mesh", "gw"]}]}, {"gateways": ["mesh"]}),
]


@pytest.mark.parametrize(("said", "route", "target"), SURVIVES, ids=[each[0] for each in SURVIVES])
@pytest.mark.parametrize("namespace", ["shop", "team"])
def test_a_twin_stays_in_what_istiod_merges_whatever_the_root_says(
    said: str, route: Object, target: Object, namespace: str
) -> None:
    twin, original = _merged(_root({"name": "r", **route}, of=namespace), _leaf(namespace=namespace), target)

    assert _is_twin(twin), said
    assert not _is_twin(original), said
    assert twin["fault"]["abort"]["httpStatus"] == 503


def test_a_carrier_that_the_root_looks_at_is_left_out() -> None:
    leaf = _leaf()
    injection = _inject(_root({"match": [{"headers": {"Baggage": {"prefix": "a"}}}]}), leaf)

    assert _headers(injection.twins[0]) == [{"x-luff-run"}, {"traceparent"}]
    assert injection.notes == ("route 0: a match already looks at baggage, so the baggage carrier is not used there",)


def test_a_twin_keeps_the_headers_that_its_original_takes_over_from_the_root() -> None:
    headers = {"request": {"set": {"x-tenant": "a"}}, "response": {"set": {"y": "1"}}}

    twin, original = _merged(_root({"headers": headers}), _leaf())
    own, _ = _merged(_root({"headers": headers}), _leaf({**TO, "headers": {"request": {"set": {"z": "1"}}}}))

    assert original["headers"] == headers
    assert twin["headers"] == {**headers, "response": {"set": {"y": "1", FLAGS_HEADER: "%RESPONSE_FLAGS%"}}}
    assert own["headers"]["request"] == {"set": {"z": "1"}}


@pytest.mark.parametrize(
    "mirrored",
    [
        {"mirror": {"host": "shadow"}},
        {"mirror": {"host": "shadow"}, "mirrorPercentage": {"value": 50}},
        {"mirror": {"host": "shadow"}, "mirrorPercent": 50},
        {"mirrors": [{"destination": {"host": "shadow"}, "percentage": {"value": 10}}, {"destination": {"host": "b"}}]},
    ],
)
def test_what_the_root_mirrors_is_not_mirrored_of_a_twin(mirrored: Object) -> None:
    twin, original = _merged(_root(mirrored, of="team"), _leaf({**TO, "timeout": "1s"}, namespace="team"))

    shares = [each["percentage"] for each in twin.get("mirrors", [])]
    shares += [twin["mirrorPercentage"]] if "mirror" in twin else []
    assert shares
    assert all(share == {"value": 0} for share in shares)
    assert [each["destination"] for each in twin.get("mirrors", [])] == [
        each["destination"] for each in original.get("mirrors", [])
    ], "named so that the leaf's namespace does not change them"


REFUSED: list[tuple[str, str, list[Object], list[Object], Object]] = [
    (
        "every carrier is looked at",
        "scope_taken",
        [{"match": [{"headers": {"baggage": {}, "traceparent": {}, "x-luff-run": {}}}]}],
        [TO],
        {},
    ),
    ("callers that the target is not about", "scope_taken", [{"match": [{"sourceLabels": {"app": "a"}}]}], [TO], {"from": {"app": "b"}}),
    ("gateways, and the target callers", "scope_taken", [{"match": [{"gateways": ["mesh"]}]}], [TO], {"from": {"app": "b"}}),
    ("gateways beside, and the target callers", "delegate_conflict", [{"match": [{"gateways": ["gw"]}, {}]}], [TO], {"from": {"app": "b"}}),
    ("callers, and the target gateways", "scope_taken", [{"match": [{"sourceLabels": {"app": "a"}}]}], [TO], {"gateways": ["mesh"]}),
    ("callers beside, and the target gateways", "delegate_conflict", [{"match": [{"sourceLabels": {"app": "a"}}, {}]}], [TO], {"gateways": ["mesh"]}),
    ("different headers", "delegate_conflict", [{"match": [{"uri": {"prefix": "/a"}}], "headers": {"request": {"set": {"x": "1"}}}}, {}], [TO], {}),
    ("routes that no match fits", "delegate_conflict", [{"match": [{"uri": {"prefix": "/a"}, "ignoreUriCase": True}]}, {"match": [{"uri": {"prefix": "/b"}}]}], [TO], {}),
    ("a twin below a root that drops its original", "delegate_conflict", [{"match": [{"uri": {"prefix": "/a"}}]}, {}], [{**TO, "match": [{"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}, "sourceLabels": {"app": "a"}}]}], {"from": {"app": "b"}}),
    ("an original that is dropped", "scope_taken", [{"match": [{"uri": {"prefix": "/a"}}]}], [{**TO, "match": [{"uri": {"prefix": "/b"}}]}], {}),
]  # fmt: skip


@pytest.mark.parametrize(("said", "rule", "http", "leaf", "target"), REFUSED, ids=[each[0] for each in REFUSED])
def test_a_twin_that_would_be_dropped_or_hit_too_much_is_refused(
    said: str, rule: str, http: list[Object], leaf: list[Object], target: Object
) -> None:
    with pytest.raises(PlanRefused) as caught:
        _inject(_root(*http), _leaf(*leaf), target)

    assert caught.value.rule == rule, said


def test_a_gateway_of_the_target_is_named_in_full_in_another_namespace() -> None:
    root = _root({}, of="team", gateways=["gw"])

    twin, _ = _merged(root, _leaf(namespace="team"), {"gateways": ["gw"]})

    assert [match["gateways"] for match in twin["match"]] == [["shop/gw"]] * 3


def test_nothing_of_ours_is_counted_where_the_owner_counts() -> None:
    matched = {"match": [{"uri": {"prefix": "/"}, "statPrefix": "shop"}]}
    alone = _inject(_object("other"), _leaf({**TO, **matched}))
    twin, original = _merged(_root(matched), _leaf())

    assert all("statPrefix" not in match for match in alone.twins[0]["match"])
    assert [match["statPrefix"] for match in original["match"]] == ["shop"]
    assert {match["statPrefix"] for match in twin["match"]} == {"luff"}


PORTS: list[tuple[str, Object, Object, list[int | None] | None]] = [
    ("a destination without a port", {}, {}, [9080] * 3),
    ("a destination with it", {"destination": {"port": {"number": 9080}}}, {}, [None] * 3),
    ("a match with it", {"match": [{"port": 9080}]}, {}, [9080] * 3),
    ("a match with another", {"match": [{"port": 8080}]}, {}, None),
    ("at a gateway", {}, {"gateways": ["gw"]}, [None] * 3),
]


@pytest.mark.parametrize(("said", "route", "spec", "ports"), PORTS, ids=[each[0] for each in PORTS])
def test_the_port_of_the_target_narrows(said: str, route: Object, spec: Object, ports: list[int | None] | None) -> None:
    destination = {"host": "ratings", **route.get("destination", {})}
    thing = _object("v", {"route": [{"destination": destination}], **{k: route[k] for k in route if k == "match"}}, hosts=["ratings"], **spec)  # fmt: skip

    if ports is None:
        with pytest.raises(PlanRefused, match="a match is for port 8080"):
            _inject(thing, thing, {"port": 9080})
        return
    injection = _inject(thing, thing, {"port": 9080})

    assert [match.get("port") for match in injection.twins[0]["match"]] == ports, said
    assert bool(injection.notes) == (said == "at a gateway")


# Laws 3 and 4, on what istiod makes of a root and a delegate.


@st.composite
def _families(draw: Callable[..., Any]) -> tuple[Object, Object]:
    """Return a root and its leaf, made of the same words as objects are elsewhere."""
    outer, inner = draw(virtual_services(twins=False)), draw(virtual_services(twins=False))
    forwarding = [route for route in inner["spec"]["http"] if "route" in route and "delegate" not in route] or [TO]
    # A field of the leaf's own is left as it is, so that a merged route tells which of the leaf's it was.
    forwarding = [{**route, "origin": index} for index, route in enumerate(forwarding)]
    delegating = [
        {**{key: value for key, value in route.items() if key not in _ACTIONS}, "delegate": {"name": "leaf"}}
        if index % 2 == 0
        else route
        for index, route in enumerate(outer["spec"]["http"])
    ]
    bound = {key: value for key, value in outer["spec"].items() if key == "gateways"}
    return _object("root", *delegating, hosts=["ratings"], **bound), _leaf(*forwarding)


_ACTIONS = ("route", "redirect", "directResponse", "delegate")


def _can_be_told_apart(route: Object, root: Object, request: RequestFacts, proxy: Proxy) -> bool:
    """Return whether a match by which *route*, as merged, takes the scoped *request* leaves a carrier to look at."""
    for match in route.get("match") or [{}]:
        alone = {**root, "spec": {**root["spec"], "http": [{**route, "match": [match]}]}}
        looked_at = {name.lower() for key in ("headers", "withoutHeaders") for name in match.get(key) or {}}
        if decide(alone, request, proxy) == 0 and SCOPE.headers(3).keys() - looked_at:
            return True
    return False


def test_what_istiod_merges_keeps_the_laws_of_twins() -> None:
    seen: Counter[str] = Counter()
    check = settings(
        max_examples=100,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )

    @check
    @given(st.data(), _families())
    def law(data: st.DataObject, family: tuple[Object, Object]) -> None:
        root, leaf = family
        try:
            injection = _inject(root, leaf, {"host": "ratings"})
        except PlanRefused as refused:
            seen[refused.rule] += 1
            assume(False)
        patched = apply(leaf, injection.operations)
        before = {**root, "spec": {**root["spec"], "http": merged_routes(root, [root, leaf])}}
        after = {**root, "spec": {**root["spec"], "http": merged_routes(root, [root, patched])}}
        assert [route for route in after["spec"]["http"] if not _is_twin(route)] == before["spec"]["http"]
        request = data.draw(requests(before))
        proxy = data.draw(proxies(root))
        scoped = RequestFacts(
            request.path, request.method, request.authority, request.scheme,
            (*request.headers, *SCOPE.headers(3).items()), request.port,
        )  # fmt: skip
        for asked, inside in ((request, False), (scoped, True)):
            was, now = decide(before, asked, proxy), decide(after, asked, proxy)
            routes = after["spec"]["http"]
            twin = now is not None and _is_twin(routes[now])
            assert now is None or now - sum(map(_is_twin, routes[:now])) == was
            assert (now is None) == (was is None)
            assert inside or not twin
            if inside and was is not None and not any("differ" in note for note in injection.notes):
                route = before["spec"]["http"][was]
                selected = route.get("origin") in {at - n for n, at in enumerate(injection.positions)}
                assert twin == (selected and _can_be_told_apart(route, root, asked, proxy))
                seen["told"] += 1
            seen["a twin"] += twin
            seen["another"] += inside and not twin

    law()
    assert min(seen["a twin"], seen["another"], seen["told"]) > 10, seen
