"""From an experiment and objects to a plan, or to a refusal with a stable rule, the reason and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from luff.checks import lateness_of
from luff.errors import PlanRefused
from luff.names import Stamp, ours
from luff.parse import parse_documents
from luff.patches import apply
from luff.plan import Bounds, Plan, make_plan
from luff.routes import difference
from luff.run_bounds import HELD_ON_CLUSTERS
from luff.scope import Scope
from luff.targeting import MeshView
from luff.words import Object


def route(host: str = "stock", **more: Any) -> Object:
    return {"route": [{"destination": {"host": host}}], **more}


def virtual_service(name: str, *routes: Object, namespace: str = "shop", **spec: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": "7"},
        "spec": {"hosts": [name], "http": list(routes), **spec},
    }


def service(name: str, port_name: str = "http", **port: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"name": port_name, "port": 80, **port}]},
    }


TEXT = """\
apiVersion: luff.dev/v1alpha1
kind: Experiment
metadata: {name: e, namespace: shop}
spec:
  fault: {abort: 503}
  traffic: GET http://cart/
  expect: [{latency: {p90: 1s}}]
  target: stock
"""


def planned(
    spec: str,
    *objects: Object,
    text: str = TEXT,
    services: tuple[Object, ...] = (service("cart"), service("stock")),
    kind: Any = "cluster",
    exists: bool = True,
    elsewhere: tuple[Object, ...] = (),
    everywhere: bool = True,
    **bounds: float,
) -> Plan:
    overrides = dict(pair.split("=", 1) for pair in spec.split(";") if pair)
    [experiment] = parse_documents([("e.yaml", text)], overrides=overrides).experiments
    view = MeshView(
        kind, "shop", objects, services, namespace_exists=exists, elsewhere=elsewhere, everywhere=everywhere
    )
    chosen = Bounds(**{"held": HELD_ON_CLUSTERS, **bounds}) if bounds else None
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
    (
        "several_virtual_services",
        "",
        {},
        [virtual_service("wide", route(), hosts=["*.local"]), virtual_service("tcp", hosts=["*.local"])],
        ["tcp", "wide", "oldest"],
    ),
    ("no_http_routes", "", {}, [virtual_service("stock")], ["http routes"]),
    ("only_redirects", "", {}, [virtual_service("stock", {"redirect": {"uri": "/"}})], ["redirect"]),
    (
        "attempts_elsewhere",
        "spec.expect=[{attempts: {of: till, atMost: 2}}];spec.subject=stock",
        {},
        [virtual_service("stock", route())],
        ["till", "response-header", "stock", "--lab"],
    ),
    (
        "attempts_not_per_request",
        "spec.expect=[{attempts: {of: stock, atMost: 2}}]",
        {},
        [virtual_service("stock", route())],
        ["attempts", "pod-metrics", "--lab", "evidence.calls_per_request"],
    ),
    ("evidence_unavailable", "spec.evidence={source: lab-log}", {}, [virtual_service("stock", route())], ["lab-log", "--lab"]),
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
    ("timeout_hides_delay", "spec.fault={delay: {duration: 5s, percent: 50%}}", {}, [virtual_service("stock", route(timeout="2s"))], ["less than 2 s", "for 50 %", "apart"]),
    ("timeout_hides_delay", "spec.fault={delay: 5s}", {}, [virtual_service("stock", route(retries={"attempts": 2, "perTryTimeout": "1s"}))], ["perTryTimeout of 1 s", "delay: 1s, abort: 504"]),
    ("timeout_hides_delay", "spec.fault={delay: 5s}", {}, [virtual_service("stock", route(retries={"attempts": 2, "perTryTimeout": "1s", "retryOn": "reset,5xx"}))], ["perTryTimeout of 1 s", "delay: 3s, abort: 504"]),
    ("timeout_hides_delay", "spec.fault={delay: 5s}", {}, [virtual_service("stock", route(timeout="2s", retries={"attempts": 2, "perTryTimeout": "1s", "retryOn": "504"}))], ["perTryTimeout of 1 s", "delay: 2s, abort: 504"]),
    ("grpc_abort_on_http", "spec.fault={abort: {grpc: UNAVAILABLE}}", {}, [virtual_service("stock", route())], ["503"]),
    (
        "too_many_held",
        "spec.fault={delay: 20s};spec.traffic={requests: [GET http://cart/], rate: 50/s};spec.expect=[{recovery: {within: 10s}}]",
        {},
        [virtual_service("stock", route())],
        ["traffic.rate to 5/s", "1000 requests"],
    ),
    ("too_many_held", "spec.fault={delay: 20s};spec.expect=[{recovery: {within: 10s}}]", {"held": 1.0}, [virtual_service("stock", route())], ["1 are allowed", "shorten the delay to 10 s"]),
    ("delay_over_bound", "spec.fault={delay: 5s};spec.expect=[{recovery: {within: 10s}}]", {"delay_s": 2.0}, [virtual_service("stock", route())], ["2 s"]),
    ("ttl_over_bound", "", {"ttl_s": 60.0}, [virtual_service("stock", route())], ["1m00s", "60 s"]),
    (
        "subject_unknown",
        "spec.traffic=GET http://front/",
        {},
        [virtual_service("stock", route()), virtual_service("front", route("cart"), hosts=["front"], gateways=["gw"])],
        ["spec.subject"],
    ),
    ("scope_taken", "spec.scope={carrier: header}", {}, [virtual_service("stock", route(match=[{"headers": {"x-luff-run": {"exact": "a"}}}]))], ["carrier"]),
    ("unknown_route", "spec.target={host: stock, routes: [nope]}", {}, [virtual_service("stock", route(name="all"))], ["all"]),
]  # fmt: skip


LEAF = virtual_service("leaf", route(), hosts=[])
FAR_LEAF = virtual_service("leaf", route("stock.shop.svc.cluster.local"), namespace="team", hosts=[])


def root(of: str = "shop", **more: Any) -> Object:
    return virtual_service("stock", {"delegate": {"name": "leaf", "namespace": of}, **more})


REFUSALS += [
    ("timeout_hides_delay", "spec.fault={delay: 3s}", {}, [root(timeout="1s"), LEAF], ["route 0", "delay: 1s"]),
    ("grpc_abort_on_http", "spec.fault={abort: {grpc: UNAVAILABLE}}", {}, [root(), LEAF], ["stock", "503"]),
    (
        "grpc_abort_on_http",
        "spec.target={virtualService: front};spec.fault={abort: {grpc: UNAVAILABLE}}",
        {},
        [virtual_service("front", route(), hosts=["shop.example.com"])],
        ["stock is not"],
    ),
    ("scope_taken", "spec.target={host: stock, from: {app: cart}}", {}, [root(match=[{"gateways": ["mesh"]}]), LEAF], ["gateways"]),
    ("delegate_conflict", "spec.target={host: stock, from: {app: cart}}", {}, [root(match=[{"gateways": ["mesh"]}, {"uri": {"prefix": "/"}}]), LEAF], ["target.from"]),
    ("delegate_missing", "", {}, [root("team")], ["team/leaf", "not there"]),
    ("delegate_unread", "", {"everywhere": False}, [root("team")], ["team/leaf", "could not be read"]),
    ("delegate_missing", "", {}, [root(), virtual_service("leaf", route())], ["has hosts"]),
    ("unknown_gateway", "spec.target={virtualService: leaf, gateways: [gw]}", {}, [root(), LEAF], ["shop/stock is not bound to the gateway gw"]),
    ("no_route_to_target", "spec.target={host: stock, subset: v11}", {}, [virtual_service("stock", {"route": [{"destination": {"host": "stock", "subset": "v1"}}]})], ["v1", "did you mean v1?"]),
    ("no_virtual_service", "", {"services": (), "elsewhere": (virtual_service("stock", route(), namespace="depot"),)}, [], ["set metadata.namespace: depot"]),
    ("unknown_host", "", {"services": (service("cart"),), "elsewhere": (virtual_service("stock", route(), namespace="depot"),)}, [], ["set metadata.namespace: depot"]),
    ("unknown_virtual_service", "spec.target={virtualService: stock}", {"elsewhere": (virtual_service("stock", route(), namespace="depot"),)}, [], ["set metadata.namespace: depot"]),
    ("no_route_to_target", "", {}, [{**virtual_service("stock"), "spec": {"hosts": ["stock"], "http": [None]}}], ["nothing in it"]),
    ("routes_frozen", "", {}, [virtual_service("stock", route()), virtual_service("cart", route("cart", fault={"abort": {"httpStatus": 600}}))], ["shop/cart", "600"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "spec", "more", "objects", "words"), REFUSALS, ids=[f"{n}-{each[0]}" for n, each in enumerate(REFUSALS)]
)
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
    assert {name for name, _, _ in plan.inferred} == {
        "target",
        "subject",
        "traffic.rate",
        "traffic.timeout",
        "evidence.source",
    }


def test_what_is_over_a_bound_is_said_with_its_place() -> None:
    text = TEXT.replace("fault: {abort: 503}", "fault: {delay: 3s}").replace(
        "traffic: GET http://cart/", "traffic: {requests: [GET http://cart/], rate: 50/s}"
    )

    with pytest.raises(PlanRefused) as caught:
        planned("spec.expect=[{recovery: {within: 10s}}]", virtual_service("stock", route()), text=text)

    line = text.splitlines().index(next(line for line in text.splitlines() if "rate:" in line)) + 1
    column = text.splitlines()[line - 1].index("rate:") + 1
    assert caught.value.message.startswith(f"e.yaml:{line}:{column}: 50/s x 3 s would hold 150 requests")
    assert caught.value.next_step == "lower traffic.rate to 33.3/s"


def test_a_rate_that_was_not_written_is_lowered_to_fit() -> None:
    plan = planned("spec.fault={delay: 20s};spec.expect=[{recovery: {within: 10s}}]", virtual_service("stock", route()))

    assert plan.rate_hz == 5.0
    assert plan.held <= HELD_ON_CLUSTERS
    assert any(name == "traffic.rate" and "lowered" in why for name, _, why in plan.inferred)


@pytest.mark.parametrize(
    ("spec", "claim", "seconds"),
    [
        (
            "spec.expect=[{errors: {atMost: 1%}}]",
            "errors of at most 1 % at 95 % confidence needs at least 328 requests",
            66,
        ),
        (
            "spec.expect=[{latency: {p99: 1s}}];spec.stopEarly=false;spec.confidence=99%",
            "p99 at 99 % confidence needs at least 459",
            92,
        ),
    ],
)
def test_a_claim_that_the_lowered_rate_can_never_carry_is_refused_with_what_would_do(
    spec: str, claim: str, seconds: int
) -> None:
    with pytest.raises(PlanRefused) as caught:
        planned(f"spec.fault={{delay: 20s}};{spec}", virtual_service("stock", route()))

    assert caught.value.rule == "sample_too_small"
    assert claim in caught.value.message
    assert "5/s for 60 s sends 300" in caught.value.message
    assert caught.value.next_step == f"set traffic.duration to {seconds}s"
    again = f"spec.fault={{delay: 20s}};spec.traffic.duration={seconds}s;{spec}"
    text = TEXT.replace("GET http://cart/", "{requests: [GET http://cart/]}")
    assert planned(again, virtual_service("stock", route()), text=text).checks[0].tolerated >= 0


def test_defaults_that_the_lowered_rate_can_never_carry_are_refused_as_well() -> None:
    text = TEXT.replace("  expect: [{latency: {p90: 1s}}]\n", "")

    with pytest.raises(PlanRefused) as caught:
        planned("spec.fault={delay: 20s}", virtual_service("stock", route()), text=text)

    assert (caught.value.rule, caught.value.next_step) == ("sample_too_small", "set traffic.duration to 66s")
    assert caught.value.message.startswith("e.yaml:6:3: errors of at most 1 %")


def test_a_claim_that_the_lowered_rate_can_never_carry_is_refused_with_its_place() -> None:
    text = TEXT.replace("p90: 1s", "p99: 1s")

    with pytest.raises(PlanRefused) as caught:
        planned("spec.fault={delay: 20s}", virtual_service("stock", route()), text=text)

    assert caught.value.message.startswith("e.yaml:7:1: p99 at 95 % confidence")


def test_a_rate_that_was_not_written_is_no_higher_than_allowed() -> None:
    plan = planned("", virtual_service("stock", route()), rate_hz=5.0)

    assert plan.rate_hz == 5.0
    assert ("traffic.rate", "5/s", "the default, lowered to what is allowed here") in plan.inferred


def test_a_delegate_is_followed_and_the_leaf_is_patched() -> None:
    leaf = virtual_service("leaf", route(), hosts=[])

    plan = planned("", virtual_service("stock", {"delegate": {"name": "leaf"}}), leaf)

    assert plan.injection.virtual_service == "leaf"


def test_an_empty_delegate_takes_no_request_and_hides_no_route() -> None:
    plan = planned("", virtual_service("stock", {"delegate": {}}, route()))

    assert plan.injection.positions == (1,)


def test_a_delegate_in_another_namespace_is_followed() -> None:
    plan = planned("", root("team"), elsewhere=(FAR_LEAF,))

    assert (plan.injection.namespace, plan.injection.virtual_service) == ("team", "leaf")
    assert plan.injection.positions == (0,), "its names are read where it is, the target's where that is"


def test_a_delegate_that_was_named_itself_is_judged_below_its_roots() -> None:
    plan = planned("spec.target={virtualService: leaf}", root(match=[{"ignoreUriCase": True}]), LEAF)
    lonely = planned("spec.target={virtualService: leaf}", LEAF)

    assert all(match["ignoreUriCase"] for match in plan.injection.twins[0]["match"])
    assert any("no VirtualService that could be read delegates to shop/leaf" in said for said in lonely.warnings)
    assert not any("delegates" in said for said in plan.warnings)


def test_a_route_of_the_root_can_be_named_and_who_else_delegates_is_said() -> None:
    routes = [{"name": each, "match": [{"uri": {"prefix": f"/{each}"}}], "delegate": {"name": "leaf"}} for each in "ab"]
    plan = planned("spec.target={host: stock, routes: [b]}", virtual_service("stock", *routes), LEAF)

    assert any("shop/stock delegates to shop/leaf by another route" in said for said in plan.warnings)


def test_retries_of_the_root_are_not_exercised_either() -> None:
    assert any("retries 3 times" in said for said in planned("", root(retries={"attempts": 3}), LEAF).warnings)


@pytest.mark.parametrize(
    "port", [{"name": "http2-api"}, {"name": "h2c"}, {"name": "x", "appProtocol": "kubernetes.io/h2c"}]
)
def test_where_grpc_may_be_spoken_a_grpc_status_is_warned_of(port: Object) -> None:
    services = (
        service("cart"),
        service("stock", port.get("name", "x"), **{key: port[key] for key in port if key != "name"}),
    )

    plan = planned("spec.fault={abort: {grpc: UNAVAILABLE}}", virtual_service("stock", route()), services=services)

    assert any("Envoy would answer 200" in said for said in plan.warnings)


def test_only_the_port_that_is_called_has_to_speak_grpc() -> None:
    stock = service("stock", "grpc-api")
    stock["spec"]["ports"].append({"name": "http-admin", "port": 8080})
    to_admin = {"route": [{"destination": {"host": "stock", "port": {"number": 8080}}}]}
    spec = "spec.fault={abort: {grpc: UNAVAILABLE}}"

    assert planned(spec, virtual_service("stock", route()), services=(service("cart"), stock)).injection.names
    with pytest.raises(PlanRefused, match="http"):
        planned(spec, virtual_service("stock", to_admin), services=(service("cart"), stock))


def test_the_closest_wildcard_is_used_whatever_its_age() -> None:
    wide, close = virtual_service("a", route()), virtual_service("b", route())
    wide["spec"]["hosts"], close["spec"]["hosts"] = ["*.svc.cluster.local"], ["*.shop.svc.cluster.local"]

    assert planned("", wide, close).injection.virtual_service == "b"


TCP: Object = {"hosts": ["stock"], "tcp": [{"match": [{"port": 9000}], "route": [{"destination": {"host": "stock"}}]}]}


@pytest.mark.parametrize("spec", ["", "spec.target={virtualService: stock}"])
@pytest.mark.parametrize(
    "other",
    [
        TCP,
        {"hosts": ["stock"], "http": [route(match=[{"port": 9000}])]},
        {"hosts": ["stock"], "http": [route(match=[{"gateways": ["gw"]}])], "gateways": ["mesh", "gw"]},
    ],
)
def test_one_that_makes_no_route_for_the_callers_does_not_claim_the_host(other: Object, spec: str) -> None:
    older, mine = {**virtual_service("older"), "spec": other}, virtual_service("stock", route())
    older["metadata"]["creationTimestamp"], mine["metadata"]["creationTimestamp"] = "2020-01-01", "2024-01-01"

    plan = planned(spec, older, mine)

    assert plan.injection.virtual_service == "stock"
    assert not any("VirtualService shop/older" in said for said in plan.others)


def test_one_that_is_for_some_callers_only_shadows_for_those() -> None:
    older = virtual_service("older", route(match=[{"sourceLabels": {"app": "web"}}]), hosts=["stock"])
    mine = virtual_service("stock", route())
    older["metadata"]["creationTimestamp"], mine["metadata"]["creationTimestamp"] = "2020-01-01", "2024-01-01"

    plan = planned("spec.target={virtualService: stock}", older, mine)
    other = planned("spec.target={host: stock, from: {app: cart}}", older, mine)

    assert any("shadowed_virtual_service" in said for said in plan.others)
    assert other.others == ()


def test_what_envoy_would_refuse_elsewhere_is_warned_of() -> None:
    broken = route("cart", fault={"abort": {"httpStatus": 600}})
    far = virtual_service("cart", broken, namespace="depot")
    other_port = service("cart", port=81)

    plan = planned("", virtual_service("stock", route()), elsewhere=(far,))
    near = planned(
        "", virtual_service("stock", route()), virtual_service("cart", broken), services=(other_port, service("stock"))
    )
    gateway = planned("", virtual_service("stock", route()), virtual_service("cart", broken, gateways=["gw"]))

    for each in (plan, near, gateway):
        assert any("Envoy refuses" in said and "cart" in said for said in each.warnings)


def test_the_patch_is_the_one_that_the_plan_shows() -> None:
    thing = virtual_service("stock", route(name="all"))
    plan = planned("", thing)

    after = apply(thing, [dict(operation) for operation in plan.injection.operations])

    assert [ours(each) for each in after["spec"]["http"]] == [True, False]
    shown = "\n".join(difference(thing, plan.injection))
    assert f'+name: "{plan.injection.names[0]}"' in shown
    assert after["metadata"] == thing["metadata"], "no annotation is written"


@pytest.mark.parametrize(
    "kept",
    [
        {"timeout": "0s"},
        {"timeout": "7s"},
        {"retries": {"attempts": 2, "perTryTimeout": "0s"}},
        {"retries": {"attempts": 0, "perTryTimeout": "1s"}},
        {"retries": {"attempts": 2, "perTryTimeout": "6s"}},
        {"timeout": "1h"},
    ],
)
def test_a_timeout_that_cuts_nothing_hides_no_delay(kept: dict[str, Any]) -> None:
    thing = virtual_service("stock", route(**kept))

    plan = planned("spec.fault={delay: 5s};spec.expect=[{recovery: {within: 10s}}]", thing)

    assert plan.injection.virtual_service == "stock"


@pytest.mark.parametrize("written", [".5s", "500000us", "0.5s", "+500ms", "0s500ms"])
def test_a_timeout_is_read_as_istio_reads_it(written: str) -> None:
    with pytest.raises(PlanRefused, match="a timeout of 500 ms"):
        planned(
            "spec.fault={delay: 5s};spec.expect=[{recovery: {within: 10s}}]",
            virtual_service("stock", route(timeout=written)),
        )


@pytest.mark.parametrize(
    ("fault", "retries", "words"),
    [
        ("{abort: 503}", None, ["tries 2 times more", "before Istio 1.24"]),
        ("{abort: {http: 503, percent: 50%}}", None, ["fails 50 % of its calls", "see 12 % fail"]),
        ("{abort: {http: 500, percent: 10%}}", {"attempts": 3}, ["up to 4 attempts", "see 0.01 % fail"]),
        ("{abort: 500}", None, []),
        ("{abort: 503}", {"attempts": 0}, []),
        ("{delay: 1s}", None, []),
    ],
)
def test_retries_that_would_hide_failures_in_real_life_are_reckoned(
    fault: str, retries: Object | None, words: list[str]
) -> None:
    kept: dict[str, Any] = {} if retries is None else {"retries": retries}

    plan = planned(
        f"spec.fault={fault};spec.expect=[{{recovery: {{within: 10s}}}}]", virtual_service("stock", route(**kept))
    )

    said = " ".join(plan.warnings)
    assert all(word in said for word in words), said
    assert ("not exercised" in said) is bool(words)


@pytest.mark.parametrize(
    ("fault", "expect", "borne"),
    [
        ("{abort: {http: 503, percent: 1}}", "[{errors: {atMost: 5%}}]", "errors ≤ 5 % bears 5 %"),
        ("{delay: {duration: 3s, percent: 5}}", "[{latency: {p90: 1s}}]", "p90 ≤ 1 s bears 10 %"),
        ("{delay: {duration: 3s, percent: 10}}", "[{latency: {p90: 1s}}]", "the fault hits 10 % of the calls"),
        ("{delay: {duration: 3s, percent: 11}}", "[{latency: {p90: 1s}}]", None),
        ("{abort: 503}", "[{errors: {atMost: 5%}}]", None),
        ("{abort: {http: 503, percent: 1}}", "[{recovery: {within: 10s}}]", None),
        ("{abort: {http: 503, percent: 1}}", "[{arm: control, errors: {atMost: 5%}}]", None),
    ],
)
def test_a_dose_that_a_check_bears_anyway_is_warned_of(fault: str, expect: str, borne: str | None) -> None:
    plan = planned(f"spec.fault={fault};spec.expect={expect}", virtual_service("stock", route()))

    said = " ".join(plan.warnings)
    assert ("without any defence" in said) is (borne is not None), said
    assert (borne or "") in said


@pytest.mark.parametrize(
    ("hosts", "routes", "dependency"),
    [
        (["*.example.com"], [route("stock")], "stock"),
        (["*"], [route("stock.shop.svc.cluster.local"), route("stock")], "stock"),
        (["*"], [route("stock"), route("till")], "front"),
        (["shop.example.com"], [route("stock")], "shop"),
    ],
)
def test_the_hop_behind_a_wildcard_is_called_what_its_routes_lead_to(
    hosts: list[str], routes: list[Object], dependency: str
) -> None:
    routes = [
        {"name": f"r{place}", "match": [{"uri": {"prefix": f"/{place}"}}], **each} for place, each in enumerate(routes)
    ]

    plan = planned("spec.target={virtualService: front}", virtual_service("front", *routes, hosts=hosts))

    assert plan.dependency == dependency


def test_what_the_fault_cannot_exercise_is_said() -> None:
    plan = planned("", virtual_service("stock", route(retries={"attempts": 3})))

    said = " ".join(plan.warnings)
    assert "up to 4 attempts" in said
    assert "outlier detection" in said


def test_where_the_fault_will_be_seen_is_said_beforehand() -> None:
    thing = virtual_service("stock", route())

    indirect = planned("", thing)
    assert indirect.proof.sources == ("pod-metrics", "prometheus", "latency-shift")
    assert any("not know for each request" in said and "pod-metrics" in said for said in indirect.warnings)
    for plan, source in (
        (planned("", thing, kind="lab"), "lab-log"),
        (planned("spec.subject=stock", thing), "response-header"),
    ):
        assert plan.proof.sources == (source,)
        assert not any("for each request" in said for said in plan.warnings)
    asked = planned("spec.evidence={source: latency-shift}", thing)
    assert asked.proof.sources == ("latency-shift",)
    assert any("hides it" in said for said in asked.warnings), "what the last resort cannot tell is said"


def test_the_callers_pods_are_those_of_the_rule_or_of_the_judged_service() -> None:
    two = [{"destination": {"host": host}, "weight": 50} for host in ("stock", "stock-v2.shop.svc.cluster.local")]
    thing = virtual_service("stock", {"route": two})
    selecting = {**service("cart"), "spec": {**service("cart")["spec"], "selector": {"app": "basket"}}}

    assert planned("", thing).proof.labels == {"app": "cart"}
    assert planned("", thing, services=(selecting, service("stock"))).proof.labels == {"app": "basket"}
    named = planned("spec.target={host: stock, from: {app: till}}", thing)
    assert (named.proof.labels, named.proof.namespace) == ({"app": "till"}, "shop")
    assert {"stock", "stock-v2", "stock-v2.shop.svc.cluster.local"} <= named.proof.destinations


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

    assert lateness_of(plan.checks, timeout_s=plan.timeout_s).most_s == pytest.approx(most_s)


def test_attempts_on_another_hop_are_counted_where_every_log_is_read() -> None:
    thing = virtual_service("stock", route())
    expect = "spec.expect=[{attempts: {of: till.shop, atMost: 2}}, {attempts: {of: stock, atMost: 2}}]"

    assert planned(expect, thing, kind="lab").other_hops == ("till.shop",)
    own = "spec.expect=[{attempts: {of: stock.shop, atMost: 2}}];spec.subject=stock"
    assert planned(own, thing).other_hops == ()
