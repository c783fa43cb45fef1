"""From an experiment and objects to a plan, or to a refusal with a stable rule, the reason and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from luff.checks import late_most_s
from luff.errors import PlanRefused
from luff.parse import parse_documents
from luff.plan import HELD_ON_CLUSTERS, Bounds, MeshView, Plan, Stamp, make_plan
from luff.routes import apply, difference, ours
from luff.scope import Scope
from luff.words import Object


def route(host: str = "stock", **more: Any) -> Object:
    return {"route": [{"destination": {"host": host}}], **more}


def virtual_service(name: str, *routes: Object, **spec: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop", "uid": f"u-{name}", "resourceVersion": "7"},
        "spec": {"hosts": [name], "http": list(routes), **spec},
    }


def service(name: str, port_name: str = "http") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"name": port_name, "port": 80}]},
    }


def planned(
    spec: str,
    *objects: Object,
    services: tuple[Object, ...] = (service("cart"), service("stock")),
    kind: Any = "cluster",
    exists: bool = True,
    **bounds: float,
) -> Plan:
    text = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: e, namespace: shop}
spec: {fault: {abort: 503}, traffic: "GET http://cart/", expect: [{latency: {p90: 1s}}], target: stock}
"""
    overrides = dict(pair.split("=", 1) for pair in spec.split(";") if pair)
    [experiment] = parse_documents([("e.yaml", text)], overrides=overrides).experiments
    view = MeshView(kind, "shop", objects, services, namespace_exists=exists)
    chosen = Bounds(held=HELD_ON_CLUSTERS, **bounds) if bounds else None
    scope = Scope("a" * 32, "b" * 32, header=experiment.spec.scope.header, carriers=experiment.spec.scope.carriers)
    stamp = Stamp("0123456789abcdef", scope, created_s=1000, expires_s=1600)
    return make_plan(experiment, view, stamp, bounds=chosen)


REFUSALS: list[tuple[str, str, dict[str, Any], list[Object], list[str]]] = [
    ("unknown_namespace", "", {"exists": False}, [virtual_service("stock", route())], ["shop"]),
    ("unknown_virtual_service", "spec.target={virtualService: nope}", {}, [virtual_service("stock", route())], ["stock"]),
    ("unknown_host", "spec.target=stick", {}, [virtual_service("stock", route())], ["stick", "stock"]),
    ("no_virtual_service", "", {}, [virtual_service("cart", route("cart"))], ["kind: VirtualService", "hosts: [stock]"]),
    (
        "several_virtual_services",
        "",
        {},
        [virtual_service("stock", route()), virtual_service("again", route(), hosts=["stock"])],
        ["again", "oldest"],
    ),
    ("no_http_routes", "", {}, [virtual_service("stock")], ["http routes"]),
    ("only_redirects", "", {}, [virtual_service("stock", {"redirect": {"uri": "/"}})], ["redirect"]),
    ("no_route_to_target", "spec.target={host: stock, subset: v9}", {}, [virtual_service("stock", route())], ["target"]),
    (
        "delegate_missing",
        "",
        {},
        [virtual_service("stock", {"delegate": {"name": "leaf"}})],
        ["shop/leaf"],
    ),
    (
        "several_objects",
        "",
        {},
        [
            virtual_service("stock", {"match": [{"uri": {"prefix": "/a"}}], "delegate": {"name": "leaf"}}, route()),
            virtual_service("leaf", route(), hosts=[]),
        ],
        ["one object"],
    ),
    (
        "timeout_hides_delay",
        "spec.fault={delay: 5s}",
        {},
        [virtual_service("stock", route(timeout="2s"))],
        ["abort: 504", "delay: 2s"],
    ),
    ("grpc_abort_on_http", "spec.fault={abort: {grpc: UNAVAILABLE}}", {}, [virtual_service("stock", route())], ["503"]),
    (
        "too_many_held",
        "spec.fault={delay: 20s};spec.traffic={requests: [GET http://cart/], rate: 50/s};spec.expect=[{recovery: {within: 10s}}]",
        {},
        [virtual_service("stock", route())],
        ["traffic.rate to 5/s", "1000 requests"],
    ),
    ("delay_over_bound", "spec.fault={delay: 5s};spec.expect=[{recovery: {within: 10s}}]", {"delay_s": 2.0}, [virtual_service("stock", route())], ["2 s"]),
    ("ttl_over_bound", "", {"ttl_s": 60.0}, [virtual_service("stock", route())], ["1m00s", "60 s"]),
    (
        "subject_unknown",
        "spec.traffic=GET http://shop.example.com/",
        {},
        [virtual_service("stock", route()), virtual_service("front", route("cart"), hosts=["shop.example.com"], gateways=["gw"])],
        ["spec.subject"],
    ),
    ("scope_taken", "spec.scope={carrier: header}", {}, [virtual_service("stock", route(match=[{"headers": {"x-luff-run": {"exact": "a"}}}]))], ["carrier"]),
    ("unknown_route", "spec.target={host: stock, routes: [nope]}", {}, [virtual_service("stock", route(name="all"))], ["all"]),
    (
        "from_with_gateways",
        "spec.target={host: stock, from: {app: cart}, gateways: [mesh]}",
        {},
        [virtual_service("stock", route())],
        ["one of them"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "spec", "more", "objects", "words"), REFUSALS, ids=[each[0] for each in REFUSALS])
def test_what_cannot_be_done_is_refused_with_what_to_do(
    rule: str, spec: str, more: dict[str, Any], objects: list[Object], words: list[str]
) -> None:
    with pytest.raises(PlanRefused) as caught:
        planned(spec, *objects, **more)

    assert caught.value.rule == rule, caught.value
    said = str(caught.value)
    assert any(word in said for word in words) if rule == "ttl_over_bound" else all(word in said for word in words), (
        said
    )
    assert caught.value.next_step


def test_what_was_not_written_is_inferred_and_listed() -> None:
    plan = planned("", virtual_service("stock", route()))

    assert plan.subject == "cart"
    assert plan.dependency == "stock"
    assert plan.caller is None
    assert plan.rate_hz == 20.0
    assert plan.timeout_s == 10.0
    assert {name for name, _, _ in plan.inferred} == {"target", "subject", "traffic.rate", "traffic.timeout"}


def test_a_rate_that_was_not_written_is_lowered_to_fit() -> None:
    plan = planned("spec.fault={delay: 20s};spec.expect=[{recovery: {within: 10s}}]", virtual_service("stock", route()))

    assert plan.rate_hz == 5.0
    assert plan.held <= HELD_ON_CLUSTERS
    assert any(name == "traffic.rate" and "lowered" in why for name, _, why in plan.inferred)


def test_a_delegate_is_followed_and_the_leaf_is_patched() -> None:
    leaf = virtual_service("leaf", route(), hosts=[])

    plan = planned("", virtual_service("stock", {"delegate": {"name": "leaf"}}), leaf)

    assert plan.injection.virtual_service == "leaf"


def test_the_patch_is_the_one_that_the_plan_shows() -> None:
    thing = virtual_service("stock", route(name="all"))
    plan = planned("", thing)

    after = apply(thing, [dict(operation) for operation in plan.injection.operations])

    assert [ours(each) for each in after["spec"]["http"]] == [True, False]
    shown = "\n".join(difference(thing, plan.injection))
    assert f'+name: "{plan.injection.names[0]}"' in shown
    assert after["metadata"] == thing["metadata"], "no annotation is written"


def test_what_the_fault_cannot_exercise_is_said() -> None:
    plan = planned("", virtual_service("stock", route(retries={"attempts": 3})))

    said = " ".join(plan.warnings)
    assert "up to 4 attempts" in said
    assert "outlier detection" in said


def test_what_cannot_be_seen_on_a_cluster_is_said_beforehand() -> None:
    thing = virtual_service("stock", route())

    assert any("fault_not_observed" in said for said in planned("", thing).warnings)
    assert not any("fault_not_observed" in said for said in planned("", thing, kind="lab").warnings)
    assert not any("fault_not_observed" in said for said in planned("spec.subject=stock", thing).warnings)


def test_every_check_has_its_method_and_what_it_tolerates() -> None:
    plan = planned("spec.expect=[{latency: {p90: 1s}}, {recovery: {within: 10s}}]", virtual_service("stock", route()))

    assert [(check.id, check.method) for check in plan.checks] == [
        ("latency-p90", "sequential"),
        ("recovery", "windows"),
    ]
    assert plan.checks[0].tolerated > 0
    assert plan.checks[0].sample_most == 1200


@pytest.mark.parametrize(
    ("expect", "most_s"),
    [
        ("[{latency: {p90: 150ms}}]", 0.02),
        ("[{latency: {p90: 1s}}, {latency: {p90: 4s}}]", 0.1),
        ("[{latency: {p90: 8s}}]", 0.25),
        ("[{errors: {atMost: 10%}}]", 0.25),
        ("[{latency: {p90: 4s}}, {arm: control, noWorseThan: {arm: control, by: 5%}}]", 0.02),
    ],
)
def test_how_late_the_generator_may_be_depends_on_what_is_claimed(expect: str, most_s: float) -> None:
    plan = planned(f"spec.expect={expect}", virtual_service("stock", route()))

    assert late_most_s(plan.checks) == pytest.approx(most_s)
