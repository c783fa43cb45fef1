"""The laws of the route algebra, each for arbitrary objects, and one example for each refusal and each guard."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luff import routes, selection
from luff.decide import Proxy, RequestFacts, decide
from luff.errors import PlanRefused
from luff.model import Abort, Carrier, Delay, Fault, Object, Target
from luff.names import Stamp, our_run, ours, tampered
from luff.patches import apply
from luff.routes import difference, fallbacks, foreign_changes, http_hash, inject, withdrawal
from luff.scope import FLAGS_HEADER, Scope
from luff.selection import select
from luff.validation import problems, warnings
from tests.strategies import (
    CARRIER_SETS,
    OTHER_RUN,
    OTHER_SCOPE,
    RUN,
    SCOPE,
    THIRD_SCOPE,
    Case,
    cases,
    injected,
    json_values,
    proxies,
    requests,
    targets,
)

LAW = settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
COUNTED = settings(LAW, max_examples=200, derandomize=True, database=None)


def _spec(object_: Object) -> str:
    return json.dumps(object_["spec"], ensure_ascii=False)


def _withdrawn(object_: Object, run: str | None = RUN) -> Object:
    return apply(object_, withdrawal(object_, run=run))


def _carrying(request: RequestFacts, *headers: dict[str, str]) -> RequestFacts:
    return dataclasses.replace(request, headers=(*request.headers, *(pair for h in headers for pair in h.items())))


def _of(scope: Scope, carriers: tuple[Carrier, ...], number: int = 3) -> dict[str, str]:
    return dataclasses.replace(scope, carriers=carriers).headers(number)


# 1. withdraw(inject(x)) is x.


@LAW
@given(cases())
def test_withdrawing_what_was_injected_gives_the_same_bytes(case: Case) -> None:
    assert _spec(case.after) != _spec(case.before)
    assert _spec(_withdrawn(case.after)) == _spec(case.before)
    assert http_hash(_withdrawn(case.after)) == case.injection.hash_before == http_hash(case.before)


@LAW
@given(cases())
def test_injecting_changes_nothing_that_it_was_given(case: Case) -> None:
    before = copy.deepcopy(case.before)

    injected(case.before, case.target)

    assert case.before == before


# 2. Two runs, in either order.


@LAW
@given(cases(), targets())
def test_two_runs_withdrawn_in_either_order_leave_the_object_as_it_was(case: Case, target: Target) -> None:
    second = injected(case.after, target, run=OTHER_RUN, scope=OTHER_SCOPE)
    if second is None:
        assert injected(case.before, target, run=OTHER_RUN, scope=OTHER_SCOPE) is None
        return

    one_first = _withdrawn(second.after, RUN)
    other_first = _withdrawn(second.after, OTHER_RUN)

    assert _spec(_withdrawn(one_first, OTHER_RUN)) == _spec(_withdrawn(other_first, RUN)) == _spec(case.before)
    assert _spec(other_first) == _spec(case.after)
    alone = injected(case.before, target, run=OTHER_RUN, scope=OTHER_SCOPE)
    assert alone is not None
    assert _spec(one_first) == _spec(alone.after)


# 3. and 4. Who is routed where.


def _near_misses(scope: Scope) -> list[dict[str, str]]:
    trace = scope.headers(1)["traceparent"]
    return [
        {},
        scope.control_headers(3),
        OTHER_SCOPE.headers(3),
        *[THIRD_SCOPE.headers(3)] * 5,
        {"x-luff-run": scope.secret},
        {"x-luff-run": f" {scope.secret}.1"},
        {"x-luff-run": f"{scope.secret.upper()}.1"},
        {"x-other": f"{scope.secret}.1"},
        {"baggage": f"xluff-run={scope.secret}.1"},
        {"baggage": f"k=luff-run={scope.secret}.1"},
        {"baggage": f"luff-run={scope.secret}."},
        {"baggage": f"luff-run={scope.secret}.1x"},
        {"traceparent": f"01{trace[2:]}"},
        {"traceparent": trace[:18] + "-" + trace[19:]},
        {"tracestate": trace},
    ]


def test_a_request_outside_the_scope_is_routed_as_before() -> None:
    seen: Counter[str] = Counter()

    @COUNTED
    @given(st.data(), cases())
    def law(data: st.DataObject, case: Case) -> None:
        request = _carrying(data.draw(requests(case.before)), data.draw(st.sampled_from(_near_misses(SCOPE))))
        proxy = data.draw(proxies(case.before))

        before, after = decide(case.before, request, proxy), decide(case.after, request, proxy)

        assert not case.is_twin(after)
        assert case.original(after) == before
        seen["a targeted route"] += before in case.selection.indices
        seen["another"] += before is not None and before not in case.selection.indices
        seen["none"] += before is None
        seen["a twin that was left"] += before is not None and ours(case.before["spec"]["http"][before])

    law()
    assert seen["a targeted route"] > 60, seen
    assert min(seen["another"], seen["none"]) > 2, seen
    assert seen["a twin that was left"] > 0, seen


def _takes(case: Case, index: int, match: Object | None, request: RequestFacts, proxy: Proxy) -> bool:
    """Return whether this one *match* of the route takes the request, judged by an object that has no other."""
    route = {**case.before["spec"]["http"][index], "match": [] if match is None else [match]}
    return decide({**case.before, "spec": {**case.before["spec"], "http": [route]}}, request, proxy) == 0


def _is_reachable(case: Case, index: int, sent: dict[str, str], request: RequestFacts, proxy: Proxy) -> bool:
    """Return whether the twin of route *index* should take the request: said again, without the code under test."""
    target, namespace = case.target, case.before["metadata"]["namespace"]

    def full(name: str) -> str:
        return name if "/" in name or name == "mesh" else f"{namespace}/{name}"

    if any(proxy.labels.get(key) != value for key, value in target.from_.items()):
        return False
    if target.gateways and full(proxy.gateway) not in {full(name) for name in target.gateways}:
        return False
    route = case.before["spec"]["http"][index]
    ports = {
        (each["destination"].get("port") or {}).get("number")
        for each in route["route"]
        if "ratings" in each["destination"]["host"] and (len(route["route"]) == 1 or each.get("weight"))
    }
    bound = case.before["spec"].get("gateways") or ["mesh"]
    if target.port and target.port not in ports and bound == ["mesh"] and request.port != target.port:
        return False
    for match in case.before["spec"]["http"][index].get("match") or [None]:
        if not _takes(case, index, match, request, proxy):
            continue
        looked_at = {name.lower() for key in ("headers", "withoutHeaders") for name in (match or {}).get(key, {})}
        named = bool((match or {}).get("gateways"))
        callers = bool((match or {}).get("sourceLabels") or (match or {}).get("sourceNamespace"))
        if (target.from_ and named) or (target.gateways and callers and not named):
            continue
        if set(sent) - looked_at:
            return True
    return False


def test_a_request_in_scope_reaches_the_twin_of_the_route_it_would_have_taken() -> None:
    seen: Counter[str] = Counter()

    @COUNTED
    @given(st.data(), cases(), st.sampled_from(CARRIER_SETS))
    def law(data: st.DataObject, case: Case, carriers: tuple[Carrier, ...]) -> None:
        sent = _of(SCOPE, carriers)
        request = _carrying(data.draw(requests(case.before)), sent)
        proxy = data.draw(proxies(case.before))

        before, after = decide(case.before, request, proxy), decide(case.after, request, proxy)

        assert case.original(after) == before
        targeted = before is not None and before in case.selection.indices
        assert case.is_twin(after) == (
            before is not None and targeted and _is_reachable(case, before, sent, request, proxy)
        )
        seen["a twin"] += case.is_twin(after)
        seen["a twin by one carrier"] += case.is_twin(after) and len(carriers) == 1
        seen["a carrier was taken"] += targeted and not case.is_twin(after)
        seen["another route"] += before is not None and not targeted
        seen["not the first twin"] += case.is_twin(after) and after != case.injection.positions[0]

    law()
    assert min(seen["a twin"], seen["a twin by one carrier"]) > 60, seen
    assert min(seen["a carrier was taken"], seen["another route"], seen["not the first twin"]) > 2, seen


@LAW
@given(cases())
def test_only_targeted_routes_have_twins_and_each_twin_is_its_original_but_for_what_luff_sets(case: Case) -> None:
    changed = {"name", "match", "fault", "headers", "mirror", "mirrors", "mirrorPercentage", "mirrorPercent"}
    assert len(case.injection.positions) == len(case.injection.twins) == len(set(case.injection.names))
    for position, twin in zip(case.injection.positions, case.injection.twins, strict=True):
        index = case.original(position)
        assert index in case.selection.indices
        original = case.before["spec"]["http"][index]
        assert case.after["spec"]["http"][position] == twin
        assert case.after["spec"]["http"][position + 1] == original
        assert not ours(original)
        assert "route" in original
        assert {k: v for k, v in twin.items() if k not in changed} == {
            k: v for k, v in original.items() if k not in changed
        }
        assert not tampered(twin)
        assert our_run(twin) == RUN
        assert not twin.keys() & {"mirror", "mirrors", "mirrorPercentage", "mirrorPercent"}
        assert all("value" in part["percentage"] for part in twin["fault"].values())
        headers = twin["headers"]["response"]["set"]
        assert headers[FLAGS_HEADER] == "%RESPONSE_FLAGS%"
        assert [name for name in headers if name.lower() == FLAGS_HEADER] == [FLAGS_HEADER]


# 5. What others did meanwhile.

Tagged = list[tuple[bool, Object]]


def _break_name(twin: Object) -> None:
    twin["name"] = f"luff.1.{RUN}.broken"


def _lose_header(twin: Object) -> None:
    del twin["headers"]


def _lose_match(twin: Object) -> None:
    twin.pop("match", None)


def _set_timeout(twin: Object) -> None:
    twin["timeout"] = "9s"


TWIN_EDITS: list[Callable[[Object], None]] = [_break_name, _lose_header, _lose_match, _set_timeout]


@LAW
@given(st.data(), cases())
def test_withdrawing_removes_only_ours_whatever_others_did_meanwhile(data: st.DataObject, case: Case) -> None:
    there: Tagged = [
        (case.is_twin(index), copy.deepcopy(route)) for index, route in enumerate(case.after["spec"]["http"])
    ]
    there = data.draw(st.permutations(there)) if data.draw(st.booleans()) else there
    there = [entry for entry in there if data.draw(st.integers(0, 4))]
    for is_ours, route in there:
        if is_ours and data.draw(st.integers(0, 2)) == 0:
            data.draw(st.sampled_from(TWIN_EDITS))(route)
        elif not is_ours and data.draw(st.integers(0, 3)) == 0:
            route["weights"] = data.draw(json_values)
    new: Object = {"name": data.draw(st.sampled_from(["new", f"luff.1.{RUN}", "luff.frontend"])), "route": []}
    there.insert(data.draw(st.integers(0, len(there))), (False, new))
    edited = {**case.after, "spec": {**case.after["spec"], "http": [route for _, route in there]}}

    left = _withdrawn(edited)["spec"]["http"]

    assert json.dumps(left) == json.dumps([route for is_ours, route in there if not is_ours])


@LAW
@given(json_values)
def test_withdrawing_from_an_object_of_any_shape_finds_nothing(value: Any) -> None:
    for object_ in ({"spec": value}, {"spec": {"http": value}}, {"spec": {"http": [value, {"name": value}]}}):
        assert withdrawal(object_) == ()


def test_each_step_back_is_refused_where_another_route_stands_by_now() -> None:
    object_ = _object(_to(name="a", match=[{"port": 1}]), _to(name="b"))
    after = apply(object_, _make(object_).operations)
    moved = {**after, "spec": {**after["spec"], "http": [_to(name="new"), *after["spec"]["http"]]}}

    for way in (withdrawal(after, run=RUN), *fallbacks(after, run=RUN)):
        with pytest.raises(ValueError, match="testing /spec/http/"):
            apply(moved, way)


@LAW
@given(cases())
def test_the_gentler_ways_back_leave_nothing_that_acts(case: Case) -> None:
    _, without_fault, unreachable = fallbacks(case.after, run=RUN)

    harmless = apply(case.after, without_fault)
    dead = apply(case.after, unreachable)

    for position in case.injection.positions:
        assert "fault" not in harmless["spec"]["http"][position]
        request = RequestFacts(headers=tuple(SCOPE.headers(1).items()))
        assert decide(dead, request, Proxy()) != position
    assert _spec(_withdrawn(harmless)) == _spec(_withdrawn(dead)) == _spec(case.before)


# 6. What the webhook says.


def test_the_webhook_takes_what_is_made_of_what_it_took() -> None:
    seen: Counter[str] = Counter()

    @COUNTED
    @given(cases())
    def law(case: Case) -> None:
        if problems(case.before):
            seen["refused before"] += 1
            return
        assert problems(case.after) == []
        seen["taken"] += 1
        warned = warnings(case.before)
        seen["warned"] += bool(warned)
        # Where callers or gateways are narrowed, matches of two routes may become the same.
        if not case.target.from_ and not case.target.gateways:
            known = {_masked(text) for text in warned}
            new = [text for text in warnings(case.after) if _masked(text) not in known]
            assert all(_repeats(case, warned, text) for text in new), new
            seen["repeated"] += bool(new)

    law()
    assert seen["taken"] > 100, seen
    assert min(seen["warned"], seen["taken"] - seen["warned"]) > 10, seen
    assert seen["repeated"] > 5, seen


def _masked(text: str) -> str:
    """Return a warning without numbers and without what it blames: positions move when twins are put in."""
    return re.sub("[0-9]+", "n", text.split(" (")[0])


def _repeats(case: Case, warned: list[str], text: str) -> bool:
    """Return whether a warning is about a twin whose original was warned of."""
    http = case.before["spec"]["http"]
    for position, twin in zip(case.injection.positions, case.injection.twins, strict=True):
        index = case.original(position)
        assert index is not None
        called = json.dumps(http[index]["name"]) if http[index].get("name") else f"#{index}"
        if f'rule "{twin["name"]}"' in text.split(" (")[0] or f"http[{position}]:" in text:
            return any(f"rule {called} " in said or f"http[{index}]:" in said for said in warned)
    return False


# Examples: refusals, guards and the shape of what is written.


def _object(*http: Object, **spec: Any) -> Object:
    return {
        "kind": "VirtualService",
        "metadata": {"name": "ratings", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        "spec": {"hosts": ["ratings"], "http": list(http), **spec},
    }


def _to(host: str = "ratings", **fields: Any) -> Object:
    return {"route": [{"destination": {"host": host}}], **fields}


def _split(*destinations: tuple[str, str, int]) -> Object:
    return {
        "route": [{"destination": {"host": host, "subset": subset}, "weight": w} for host, subset, w in destinations]
    }


def _make(
    object_: Object, target: Object | None = None, *, scope: Scope = SCOPE, fault: Fault | None = None
) -> routes.Injection:
    wanted = Target.model_validate(target or {"host": "ratings"})
    return inject(
        select(object_, wanted, namespace="shop"),
        Stamp(RUN, scope, created_s=1, expires_s=2),
        fault or Fault(abort=Abort(http=503)),
    )


REFUSALS: list[tuple[str, Object, Object]] = [
    ("no_http_routes", _object(), {"host": "ratings"}),
    ("only_redirects", _object({"redirect": {"uri": "/x"}}, {"directResponse": {"status": 200}}), {"host": "ratings"}),
    ("no_route_to_target", _object(_to("reviews")), {"host": "ratings"}),
    ("no_route_to_target", _object(_to("reviews"), _to()), {"host": "ratings"}),
    ("no_route_to_target", _object(_to("ratings.other.svc.cluster.local")), {"host": "ratings"}),
    ("no_route_to_target", _object(_split(("ratings", "v1", 0), ("reviews", "v1", 100))), {"host": "ratings"}),
    ("no_route_to_target", _object(_to()), {"host": "ratings", "subset": "v1"}),
    ("unknown_route", _object(_to(name="a")), {"host": "ratings", "routes": ["b"]}),
    ("from_at_gateway", _object(_to(), gateways=["gw"]), {"host": "ratings", "from": {"app": "a"}}),
    ("unknown_gateway", _object(_to()), {"host": "ratings", "gateways": ["gw"]}),
    (
        "subset_on_split_route",
        _object(_split(("ratings", "v1", 50), ("ratings", "v2", 50))),
        {"host": "ratings", "subset": "v1"},
    ),
    (
        "scope_taken",
        _object(_to(match=[{"headers": {"x-luff-run": {}, "Baggage": {}}, "withoutHeaders": {"traceparent": {}}}])),
        {"host": "ratings"},
    ),
    (
        "scope_taken",
        _object(_to(match=[{"sourceLabels": {"app": "web"}}])),
        {"host": "ratings", "from": {"app": "reviews"}},
    ),
    ("scope_taken", _object(_to(match=[{"gateways": ["mesh"]}])), {"host": "ratings", "from": {"app": "reviews"}}),
    (
        "scope_taken",
        _object(_to(match=[{"gateways": ["mesh"]}]), gateways=["mesh", "gw"]),
        {"host": "ratings", "gateways": ["gw"]},
    ),
    (
        "scope_taken",
        _object(_to(match=[{"sourceLabels": {"app": "web"}}])),
        {"host": "ratings", "gateways": ["mesh"]},
    ),
    (
        "scope_taken",
        _object(_to(match=[{"sourceNamespace": "other"}])),
        {"host": "ratings", "gateways": ["mesh"]},
    ),
]


@pytest.mark.parametrize(("rule", "object_", "target"), REFUSALS, ids=[f"{n}-{r[0]}" for n, r in enumerate(REFUSALS)])
def test_what_no_request_could_reach_rightly_is_refused(rule: str, object_: Object, target: Object) -> None:
    with pytest.raises(PlanRefused) as refused:
        _make(object_, target)

    assert refused.value.rule == rule


TAKEN: list[tuple[str, Object, Object, tuple[int, ...]]] = [
    ("a redirect is passed over", _object({"redirect": {"uri": "/x"}, "match": [{"port": 1}]}, _to()), {}, (1,)),
    ("dead routes are passed over", _object(_to(), _to()), {}, (0,)),
    ("a catch-all for some callers ends nothing", _object(_to(match=[{"sourceLabels": {"a": "b"}}]), _to()), {}, (0, 2)),
    ("nor one for a port", _object(_to(match=[{"port": 80}]), _to()), {}, (0, 2)),
    ("a regex for all paths ends it", _object(_to(match=[{"uri": {"regex": ".*"}}]), _to()), {}, (0,)),
    ("a condition on the method does not", _object(_to(match=[{"method": {}}]), _to()), {}, (0, 2)),
    (
        "a destination without weight is none",
        _object(_split(("ratings", "v1", 100), ("ratings", "v2", 0))),
        {"host": "ratings", "subset": "v1"},
        (0,),
    ),
    ("a full name is the same host", _object(_to("ratings.shop.svc.cluster.local")), {"host": "ratings"}, (0,)),
    ("a name of a namespace is an address", _object(_to()), {"host": "ratings.shop"}, (0,)),
    ("a destination without a port takes any", _object(_to()), {"host": "ratings", "port": 9080}, (0,)),
    ("a gateway may be named in full", _object(_to(), gateways=["gw"]), {"host": "ratings", "gateways": ["shop/gw"]}, (0,)),
    ("only named routes", _object(_to(name="a", match=[{"port": 1}]), _to(name="b")), {"host": "ratings", "routes": ["b"]}, (1,)),
    ("twins are not twinned", apply(_object(_to()), _make(_object(_to()), scope=OTHER_SCOPE).operations), {}, (1,)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "object_", "target", "positions"), TAKEN, ids=[t[0] for t in TAKEN])
def test_twins_are_put_before(said: str, object_: Object, target: Object, positions: tuple[int, ...]) -> None:
    assert _make(object_, target).positions == positions, said


def test_a_delegate_leads_on_and_has_no_twin_itself() -> None:
    root = _object(
        {"delegate": {"name": "leaf"}, "match": [{"port": 1}]}, {"delegate": {"name": "b", "namespace": "c"}}
    )

    selection = select(root, Target.model_validate({"host": "ratings"}), namespace="shop")

    assert selection.indices == ()
    assert selection.delegates == (("shop", "leaf"), ("c", "b"))


def test_each_dose_of_a_run_has_names_of_its_own() -> None:
    once = _make(_object(_to()))
    twice = _make(apply(_object(_to()), once.operations))

    assert not set(once.names) & set(twice.names)


def test_the_fault_is_written_with_its_percentages() -> None:
    fault = Fault(delay=Delay(duration_s=0.25), abort=Abort(grpc="UNAVAILABLE", percent=0.5))

    (twin,) = _make(_object(_to(fault={"abort": {"httpStatus": 418}}))).twins
    (both,) = _make(_object(_to()), fault=fault).twins

    assert twin["fault"] == {"abort": {"httpStatus": 503, "percentage": {"value": 100.0}}}
    assert both["fault"] == {
        "delay": {"fixedDelay": "0.250s", "percentage": {"value": 100.0}},
        "abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 0.5}},
    }


def test_the_target_narrows_callers_and_gateways() -> None:
    (callers,) = _make(
        _object(_to(match=[{"sourceLabels": {"v": "2"}}])), {"host": "ratings", "from": {"app": "a"}}
    ).twins
    (gateway,) = _make(_object(_to(), gateways=["gw", "mesh"]), {"host": "ratings", "gateways": ["gw"]}).twins

    assert all(match["sourceLabels"] == {"v": "2", "app": "a"} for match in callers["match"])
    assert all(match["gateways"] == ["gw"] for match in gateway["match"])
    assert _make(_object(_to()), {"host": "ratings", "from": {"app": "a"}}).for_some_callers


def test_matches_that_become_the_same_are_written_once() -> None:
    (twin,) = _make(
        _object(_to(match=[{}, {"sourceLabels": {"app": "a"}}])), {"host": "ratings", "from": {"app": "a"}}
    ).twins

    assert len(twin["match"]) == len(Carrier)


def test_what_the_fault_hits_besides_the_target_is_said() -> None:
    notes = _make(_object(_split(("ratings", "v1", 50), ("reviews", "v1", 50)))).notes

    assert notes == ("route 0: it leads to reviews as well, and the fault hits those requests too",)


def test_a_scope_whose_carriers_share_a_header_is_refused() -> None:
    with pytest.raises(PlanRefused, match="another carrier"):
        _make(_object(_to()), scope=dataclasses.replace(SCOPE, header="baggage"))


def test_too_many_twins_are_refused() -> None:
    many = [_to(match=[{"uri": {"exact": f"/{number}"}}]) for number in range(selection.TWINS_MOST + 1)]

    assert len(select(_object(*many[1:]), Target.model_validate({"host": "ratings"}), namespace="shop").indices) == 2000
    with pytest.raises(PlanRefused, match=f"at most {selection.TWINS_MOST}"):
        select(_object(*many), Target.model_validate({"host": "ratings"}), namespace="shop")


def test_an_object_that_would_grow_too_large_is_refused_by_its_bytes() -> None:
    # Two bytes a letter: counted as letters it would just fit.
    long = "ж" * (routes.OBJECT_MOST_BYTES // 6)

    with pytest.raises(PlanRefused, match="bytes"):
        _make(_object(_to(match=[{"uri": {"exact": f"/{long}"}}])))
    _make(_object(_to(match=[{"uri": {"exact": f"/{long[: len(long) // 2]}"}}])))


def test_the_patch_is_pinned_to_the_very_object() -> None:
    operations = _make(_object(_to())).operations

    other = _object(_to())
    other["metadata"]["uid"] = "another"

    with pytest.raises(ValueError, match="uid"):
        apply(other, operations)
    assert {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"} in operations


def test_the_difference_names_what_each_twin_comes_before() -> None:
    object_ = _object(_to(name="a", match=[{"port": 1}]), _to())

    lines = difference(object_, _make(object_))

    assert "@@ spec.http[0] of 2, directly before route a @@" in lines
    assert "@@ spec.http[1] of 2, directly before route 1 @@" in lines
    assert f"+        prefix: {json.dumps(SCOPE.secret + '.')}" in lines


CHANGES: list[tuple[Object, list[str]]] = [
    (_object(_to(name="a"), _to()), []),
    (_object(_to(name="a", timeout="1s"), _to()), ["the route a was changed: timeout"]),
    (_object(_to()), ["the route a was removed"]),
    (_object(_to(name="a"), _to(), _to(name="b")), ["the route b was added"]),
    (_object(_to("other"), _to(name="a"), _to()), ["the route #0 was added"]),
    (_object(_to(), _to(name="a")), ["the routes were put in another order"]),
    (_object(_to(name="a"), _to("x")), ["the route #0 was changed: route"]),
    (_object(_to(name="a"), _to(), exportTo=["."]), ["spec.exportTo was changed"]),
]


@pytest.mark.parametrize(("after", "said"), CHANGES, ids=[str(change[1]) for change in CHANGES])
def test_what_others_changed_is_said(after: Object, said: list[str]) -> None:
    before = _object(_to(name="a"), _to())

    twinned = apply(after, _make(after, {"virtualService": "ratings"}).operations)

    assert foreign_changes(before, twinned) == said
