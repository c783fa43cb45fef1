"""What DestinationRules make of a fault: refused, warned of with the object's name and what to do, or not worth a word."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from luff.errors import PlanRefused
from luff.mesh import Kind, Ref
from luff.names import Stamp
from luff.parse import parse_documents
from luff.plan import Plan, make_plan
from luff.preflight import read_view
from luff.scope import Scope
from luff.targeting import MeshView
from luff.testing import Cluster, SimMesh, Trouble
from luff.words import Object

TEXT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: e, namespace: shop}
spec:
  target: stock
  fault: {FAULT}
  traffic: {requests: [{url: "http://SUBJECT/"}], rate: 10/s}
  expect: [{recovery: {within: 10s}}]
"""
ABORT, DELAY = "abort: 503", "delay: 4s"


def rule(host: str = "stock", *, name: str = "", namespace: str = "shop", **spec: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": name or host, "namespace": namespace},
        "spec": {"host": host, **spec},
    }


def pool(**http: int) -> Object:
    return {"trafficPolicy": {"connectionPool": {"http": http}}}


def routes(*destinations: Object) -> Object:
    named = [{"destination": {"host": "stock"}}] if not destinations else list(destinations)
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "stock", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
        "spec": {"hosts": ["stock"], "http": [{"route": named}]},
    }


def to(subset: str, **more: Any) -> Object:
    return {"destination": {"host": "stock", "subset": subset}, **more}


def service(name: str, port: int = 80) -> Object:
    metadata = {"name": name, "namespace": "shop"}
    spec = {"ports": [{"port": port}], "selector": {"app": name}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def planned(
    fault: str,
    rules: Sequence[Object] | None,
    *,
    routed: Object | None = None,
    subject: str = "cart",
    target: str = "stock",
    every_rule: bool = True,
    also: Sequence[Object] = (),
) -> Plan:
    text = TEXT.replace("FAULT", fault).replace("SUBJECT", subject).replace("target: stock", f"target: {target}")
    [experiment] = parse_documents([("e.yaml", text)]).experiments
    view = MeshView(
        "cluster",
        "shop",
        (routes() if routed is None else routed,),
        (service("cart"), service("basket"), service("stock"), *also),
        destination_rules=None if rules is None else tuple(rules),
        every_rule=every_rule,
    )
    scope = Scope("a" * 32, "b" * 32, header=experiment.spec.scope.header, carriers=experiment.spec.scope.carriers)
    return make_plan(experiment, view, Stamp("0123456789abcdef", scope, created_s=1000, expires_s=1600))


def said(plan: Plan) -> list[str]:
    return [each for each in plan.warnings if "DestinationRule" in each]


EJECTS: Object = {"trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 7, "consecutiveGatewayErrors": 3}}}
WARNED: list[tuple[str, str, Object, list[str]]] = [
    ("the hop's ejection", ABORT, rule(**EJECTS), ["shop/stock", "3 errors in a row", "all pods in place", "let one pod fail"]),
    ("an ejection by default", ABORT, rule(trafficPolicy={"outlierDetection": {}}), ["5 errors in a row"]),
    ("the hop's limit", DELAY, rule(**pool(http2MaxRequests=40)), ["lets 40 requests", "up to 40", "http2MaxRequests", "503 at once", "rate of 9.7/s"]),
    ("the lower limit", DELAY, rule(trafficPolicy={"connectionPool": {"http": {"http2MaxRequests": 30, "http1MaxPendingRequests": 8}, "tcp": {"maxConnections": 1}}}), ["lets 1 requests", "wait for a connection, and beyond 8", "a shorter delay"]),
    ("a port's own", DELAY, rule(trafficPolicy={"portLevelSettings": [{"port": {"number": 80}, "connectionPool": {"http": {"http2MaxRequests": 2}}}]}), ["lets 2 requests"]),
    ("one that the mesh has", DELAY, rule("stock.shop.svc.cluster.local", namespace="istio-system", **pool(http2MaxRequests=2)), ["istio-system/stock"]),
    ("the subject's ejection", ABORT, rule("cart", **EJECTS), ["shop/cart", "if cart answers", "for everybody's requests"]),
    ("the subject's, and a delay", DELAY, rule("cart", **EJECTS), ["if cart answers"]),
    ("the subject's limit", DELAY, rule("cart", **pool(http2MaxRequests=20)), ["lets 20 requests be at cart", "holds up to 40", "control requests", "rate of 4.7/s"]),
    ("the subject's limit for a subset", DELAY, rule("cart", subsets=[{"name": "v1", **pool(http2MaxRequests=20)}]), ["lets 20 requests be at cart"]),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "written", "words"), [row[1:] for row in WARNED], ids=[row[0] for row in WARNED])
def test_what_a_rule_makes_of_the_fault_is_said_with_its_name_and_what_to_do(
    fault: str, written: Object, words: list[str]
) -> None:
    [warning] = said(planned(fault, [written]))

    assert all(word in warning for word in words), warning


SILENT: list[tuple[str, str, Object]] = [
    ("a delay that no ejection would see", DELAY, rule(**EJECTS)),
    ("an abort that holds nothing", ABORT, rule(**pool(http2MaxRequests=1))),
    ("a limit that is not reached", DELAY, rule(**pool(http2MaxRequests=41))),
    ("a limit of none", DELAY, rule(**pool(http2MaxRequests=0))),
    ("the subject's limit that is not reached", DELAY, rule("cart", **pool(http2MaxRequests=41))),
    ("an ejection that is off", ABORT, rule(trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 0}})),
    ("another host's", ABORT, rule("till", **EJECTS)),
    ("a short name of elsewhere", ABORT, rule(namespace="other", **EJECTS)),
    ("one that is not exported", ABORT, rule("stock.shop.svc.cluster.local", namespace="istio-system", exportTo=["."], **EJECTS)),
    ("another port's", DELAY, rule(trafficPolicy={"portLevelSettings": [{"port": {"number": 81}, "connectionPool": {"http": {"http2MaxRequests": 2}}}]})),
    ("how requests are shared out", ABORT, rule(trafficPolicy={"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}})),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "written"), [row[1:] for row in SILENT], ids=[row[0] for row in SILENT])
def test_what_changes_nothing_for_the_run_is_not_said(fault: str, written: Object) -> None:
    plan = planned(fault, [written])

    assert not said(plan)
    assert "outlier detection" not in " ".join(plan.warnings)


def test_the_policy_of_the_subset_that_is_called_counts() -> None:
    subsets = [{"name": "v1"}, {"name": "v2", **pool(http2MaxRequests=2)}]
    written = rule(subsets=subsets, **pool(http2MaxRequests=1000))

    [warning] = said(planned(DELAY, [written], routed=routes(to("v2"))))

    assert "lets 2 requests be at stock (subset v2)" in warning
    assert not said(planned(DELAY, [written], routed=routes(to("v1"))))


def test_where_luff_calls_the_broken_hop_itself_nothing_waits_or_fails_behind_it() -> None:
    [warning] = said(planned("abort: 503", [rule(**EJECTS)], subject="stock"))

    assert "counts for none" in warning


def test_the_service_that_calls_the_broken_hop_waits_as_well_as_the_judged_one() -> None:
    rules = [rule("basket", **pool(http2MaxRequests=20)), rule("cart", **EJECTS)]

    judged, calling = said(planned(DELAY, rules, target="{host: stock, from: {app: basket, version: v1}}"))

    assert "a pod of cart" in judged
    assert "lets 20 requests be at basket" in calling
    assert not said(planned(DELAY, rules[:1]))


def test_a_subset_that_no_rule_defines_is_refused_where_requests_go_nowhere_else() -> None:
    rules = [rule(subsets=[{"name": "v1"}]), rule("till", subsets=[{"name": "v9"}])]

    with pytest.raises(
        PlanRefused, match=r"subset v9 of stock.shop.svc.cluster.local, which no DestinationRule"
    ) as caught:
        planned(ABORT, rules, routed=routes(to("v9")))

    assert caught.value.rule == "unknown_subset"
    assert "define it" in str(caught.value.next_step)


def test_a_subset_that_no_rule_defines_is_warned_of_where_only_a_part_of_the_requests_goes_there() -> None:
    split = routes(to("v1", weight=90), to("v9", weight=10))

    [warning] = said(planned(DELAY, [rule(subsets=[{"name": "v1"}])], routed=split))

    assert "requests to the subset v9 of stock.shop.svc.cluster.local get 503" in warning


def test_a_subset_without_a_share_of_the_traffic_is_not_looked_for() -> None:
    planned(ABORT, [rule(subsets=[{"name": "v1"}])], routed=routes(to("v1", weight=100), to("v9", weight=0)))


def test_where_not_every_rule_could_be_read_a_subset_may_be_defined_elsewhere() -> None:
    planned(ABORT, [], routed=routes(to("v9")), every_rule=False)
    planned(ABORT, None, routed=routes(to("v9")), every_rule=False)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([rule(subsets=[{"name": "v1"}]), "other"], "go by DestinationRule shop/stock, which lacks it"),
        (["other"], "see no DestinationRule for it"),
    ],
)
def test_a_subset_that_is_defined_and_not_for_these_callers_is_warned_of(rules: list[Any], why: str) -> None:
    other = rule("stock.shop.svc.cluster.local", namespace="other", subsets=[{"name": "v9"}])
    written = [other if each == "other" else each for each in rules]

    [warning] = said(planned(DELAY, written, routed=routes(to("v9"))))

    assert f"callers in shop {why}" in warning
    assert "503" in warning


def test_several_rules_for_one_host_are_named_together() -> None:
    written = [rule(name="a", **EJECTS), rule(name="b", subsets=[{"name": "v1"}])]

    [warning] = said(planned(ABORT, written))

    assert warning.startswith("by DestinationRules shop/a, shop/b a proxy takes")


def test_the_rule_of_a_wildcard_is_for_both_ends() -> None:
    own, subjects = said(planned(DELAY, [rule("*.shop.svc.cluster.local", name="all", **pool(http2MaxRequests=2))]))

    assert own.startswith("by DestinationRule shop/all a proxy lets 2 requests be at stock")
    assert subjects.startswith("by DestinationRule shop/all a proxy lets 2 requests be at cart")


def test_where_no_rule_could_be_read_that_is_said() -> None:
    [warning] = said(planned(ABORT, None))

    assert "outlier detection" in warning
    assert not said(planned(DELAY, None))


@pytest.mark.parametrize(
    ("denied", "everywhere", "names", "every_rule"),
    [
        ((), True, {"stock", "far"}, True),
        (("",), True, {"stock"}, False),
        (("", "shop"), True, None, False),
        ((), False, None, False),
    ],
)
def test_the_rules_are_read_as_far_as_they_may_be(
    denied: Sequence[str], everywhere: bool, names: set[str] | None, every_rule: bool
) -> None:
    cluster = Cluster()
    for each in (rule(), rule(name="far", namespace="other")):
        cluster.add(each)

    def trouble(_verb: str, ref: Ref) -> Trouble:
        return Trouble.DENIED if ref.kind is Kind.DESTINATION_RULE and ref.namespace in denied else Trouble.NONE

    view = asyncio.run(read_view(SimMesh(cluster, trouble), "shop", everywhere=everywhere))

    read = view.destination_rules
    assert (None if read is None else {each["metadata"]["name"] for each in read}) == names
    assert view.every_rule is every_rule


@pytest.mark.parametrize(("gateways", "reached"), [([], 80), (["mesh", "gw"], 80), (["gw"], 8080)])
def test_a_destination_without_a_port_is_where_the_caller_calls_and_at_a_gateway_where_its_service_is(
    gateways: list[str], reached: int
) -> None:
    routed = routes({"destination": {"host": "depot"}})
    routed["spec"]["gateways"] = gateways

    def limited(port: int) -> list[str]:
        settings = {"port": {"number": port}, "connectionPool": {"http": {"http2MaxRequests": 2}}}
        limits = rule("depot", trafficPolicy={"portLevelSettings": [settings]})
        target = "{virtualService: stock}"
        return said(planned(DELAY, [limits], routed=routed, target=target, also=[service("depot", 8080)]))

    assert [port for port in (80, 8080) if any("lets 2 requests" in text for text in limited(port))] == [reached]
