"""Who else writes a VirtualService, or stands before it: each with a stable rule and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest

from luff.decide import RequestFacts
from luff.errors import PlanRefused
from luff.model import Target
from luff.others import Finding, find_others
from luff.selection import Selection
from luff.targeting import Found, MeshView
from luff.words import Object
from tests.test_plan import planned, route, service

TWIN = {"name": "luff.1.0123456789abcdef.1000.1600.0", "fault": {"abort": {"httpStatus": 503}}}


def thing(name: str = "stock", namespace: str = "shop", *, age: str = "2026-01-02T00:00:00Z", **more: Any) -> Object:
    """Return a VirtualService for *name*; metadata and spec are taken from *more* by their keys."""
    metadata = {
        key: more.pop(key) for key in ("labels", "annotations", "ownerReferences", "managedFields") if key in more
    }
    spec = {"hosts": ["stock"], "http": [route(name="all")], **more}
    where = {"name": name, "namespace": namespace, "uid": f"u-{name}", "resourceVersion": "7", "creationTimestamp": age}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {**where, **metadata}, "spec": spec}  # fmt: skip


def found(
    root: Object,
    *others: Object,
    leaf: Object | None = None,
    target: dict[str, Any] | None = None,
    kind: Literal["lab", "cluster"] = "cluster",
    services: tuple[Object, ...] = (),
    callers: tuple[str, ...] = (),
    requests: tuple[RequestFacts, ...] = (),
) -> list[Finding]:
    view = MeshView(kind, "shop", (root, *([leaf] if leaf else []), *others), services)
    selection = Selection(leaf or root, Target.model_validate(target or {"host": "stock"}), "shop", (0,))
    return list(find_others(Found(view, root, selection), callers, requests=requests))


def owned_by(manager: str) -> list[Object]:
    return [{"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {"f:http": {}}}}]


def of_rollouts(name: str) -> Object:
    made = service(name)
    made["metadata"]["annotations"] = {"argo-rollouts.argoproj.io/managed-by-rollouts": "stock"}
    return made


def by_waypoint(name: str) -> Object:
    made = service(name)
    made["metadata"]["labels"] = {"istio.io/use-waypoint": "gate"}
    return made


SPLIT = {"route": [{"destination": {"host": "stock"}, "weight": 90}, {"destination": {"host": "stock-canary"}, "weight": 10}]}  # fmt: skip
UNNAMED = [route()]
SOME = {**route(name="some"), "match": [{"uri": {"prefix": "/b"}}]}
CANARY = [{"kind": "Canary", "name": "stock", "apiVersion": "flagger.app/v1beta1", "uid": "u"}]
YOUNGER, OLDER = "2026-02-01T00:00:00Z", "2025-01-01T00:00:00Z"

CASES: list[tuple[str, str | None, bool, dict[str, Any], list[Object], dict[str, Any], list[str]]] = [
    # what, rule, refuse, the target's object, other objects, surroundings, words
    ("nobody", None, False, {}, [], {}, []),
    ("flagger's owner reference", "flagger_owns_it", True, {"ownerReferences": CANARY}, [], {}, ["Canary stock", "--lab"]),
    ("flagger took it over", "flagger_owns_it", True, {"annotations": {"flagger.kubernetes.io/original-configuration": "{}"}}, [], {}, ["weights"]),
    ("flagger wrote the routes", "flagger_owns_it", True, {"managedFields": owned_by("flagger")}, [], {}, ["overwrites"]),
    ("flagger's object in a lab", "flagger_owns_it", False, {"ownerReferences": CANARY}, [], {"kind": "lab"}, ["in a lab"]),
    ("another's owner reference", None, False, {"ownerReferences": [{"kind": "Shop", "name": "stock"}]}, [], {}, []),
    ("rollouts, no names", "rollouts_without_named_routes", True, {"managedFields": owned_by("rollouts-controller"), "http": UNNAMED}, [], {}, ["InvalidSpec", "trafficRouting.istio.virtualService.routes"]),
    ("rollouts, by annotation", "rollouts_without_named_routes", True, {"annotations": {"argo-rollouts.argoproj.io/managed-by-rollouts": "stock"}, "http": UNNAMED}, [], {}, ["(stock)"]),
    ("rollouts, named", "rollouts_at_work", False, {"managedFields": owned_by("rollouts-controller")}, [], {}, ["Healthy"]),
    ("rollouts, by its services, split", "rollouts_without_named_routes", True, {"http": [SPLIT]}, [], {"services": (service("stock"), of_rollouts("stock-canary"))}, ["no name"]),
    ("rollouts, by its services, split and named", "rollouts_at_work", False, {"http": [{**SPLIT, "name": "main"}]}, [], {"services": (of_rollouts("stock-canary"),)}, ["weights"]),
    ("a blue-green rollout's service", None, False, {"http": UNNAMED}, [], {"services": (of_rollouts("stock"),)}, []),
    ("rollouts and a twin of ours", "rollouts_at_work", False, {"managedFields": owned_by("rollouts-controller"), "http": [TWIN, route(name="all")]}, [], {}, []),
    ("argo cd, tracking id", "argo_cd_may_revert", False, {"annotations": {"argocd.argoproj.io/tracking-id": "shop:networking.istio.io/VirtualService:shop/stock"}}, [], {}, ["(shop) manages", "skip-reconcile", "ignoreDifferences", "fault_removed"]),
    ("argo cd, label", "argo_cd_may_revert", False, {"labels": {"app.kubernetes.io/instance": "shop"}}, [], {}, ["may manage"]),
    ("argo cd, manager", "argo_cd_may_revert", False, {"managedFields": owned_by("argocd-controller")}, [], {}, ["manages"]),
    ("helm's label", None, False, {"labels": {"app.kubernetes.io/instance": "shop", "app.kubernetes.io/managed-by": "Helm"}}, [], {}, []),
    ("flux", "flux_may_revert", False, {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}}, [], {}, ["flux suspend kustomization apps -n flux-system", "flux resume"]),
    ("flux helm", "flux_may_revert", False, {"labels": {"helm.toolkit.fluxcd.io/name": "shop"}}, [], {}, ["flux suspend helmrelease shop`"]),
    ("flux, told to let go", None, False, {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}, "annotations": {"kustomize.toolkit.fluxcd.io/reconcile": "disabled"}}, [], {}, []),
    ("an older one", "shadowed_virtual_service", True, {}, [thing("old", age=OLDER)], {}, ["shop/old", "oldest", "target.virtualService"]),
    ("a younger one", "second_virtual_service", False, {}, [thing("young", age=YOUNGER)], {}, ["ignore", "never delete"]),
    ("the same age: by name", "shadowed_virtual_service", True, {}, [thing("again")], {}, ["shop/again"]),
    ("private before public, though younger", "shadowed_virtual_service", True, {}, [thing("young", age=YOUNGER, exportTo=["."])], {}, ["exported to few"]),
    ("ours is private", "second_virtual_service", False, {"exportTo": ["."]}, [thing("old", age=OLDER)], {}, []),
    ("elsewhere, older, for all", "shadowed_virtual_service", True, {}, [thing("old", "platform", age=OLDER, hosts=["stock.shop.svc.cluster.local"])], {}, ["platform/old", "target.namespace platform"]),
    ("elsewhere, exported to others", None, False, {}, [thing("old", "platform", age=OLDER, hosts=["stock.shop.svc.cluster.local"], exportTo=["."])], {}, []),
    ("elsewhere, for some callers", "shadowed_virtual_service", False, {}, [thing("old", "front", age=OLDER, hosts=["stock.shop.svc.cluster.local"], exportTo=["."])], {"callers": ("front",)}, ["sidecars in front"]),
    ("elsewhere, the same short name", None, False, {}, [thing("old", "platform", age=OLDER)], {}, []),
    ("an older wildcard", None, False, {}, [thing("old", age=OLDER, hosts=["*.shop.svc.cluster.local"])], {}, []),
    ("an exact one beside our wildcard", "shadowed_virtual_service", True, {"hosts": ["*.shop.svc.cluster.local"]}, [thing("young", age=YOUNGER)], {}, ["more exact"]),
    ("an exact one without routes beside our wildcard", "shadowed_virtual_service", True, {"hosts": ["*.shop.svc.cluster.local"]}, [thing("tcp", age=YOUNGER, http=[])], {}, ["shop/tcp", "more exact"]),
    ("an older wildcard without routes beside our own", "shadowed_virtual_service", True, {"hosts": ["*.shop.svc.cluster.local"]}, [thing("tcp", age=OLDER, hosts=["*.shop.svc.cluster.local"], http=[])], {}, ["oldest"]),
    ("an exact one without routes beside ours", None, False, {}, [thing("tcp", age=OLDER, http=[])], {}, []),
    ("an older one at a gateway only", None, False, {}, [thing("old", age=OLDER, gateways=["gw"])], {}, []),
    ("the same gateway, ours for everything", "gateway_merge", True, {"gateways": ["gw"]}, [thing("old", gateways=["shop/gw"], http=[SOME])], {}, ["shop/gw", "route all", "target.routes"]),
    ("the same gateway, ours for everything, a request of theirs", "gateway_merge", True, {"gateways": ["gw"], "hosts": ["shop.example.com"]}, [thing("old", gateways=["shop/gw"], hosts=["shop.example.com"], http=[SOME])], {"requests": (RequestFacts(path="/a", authority="shop.example.com"), RequestFacts(path="/b/1", authority="shop.example.com"))}, ["shop/old"]),
    ("the same gateway, ours for everything, no request of theirs", "gateway_merge", False, {"gateways": ["gw"], "hosts": ["shop.example.com"]}, [thing("old", gateways=["shop/gw"], hosts=["shop.example.com"], http=[SOME])], {"requests": (RequestFacts(path="/a", authority="shop.example.com"), RequestFacts(path="/b/1", authority="stock"))}, ["takes none of this run's requests", "exposure"]),
    ("the same gateway, and sidecars", "gateway_merge", True, {"gateways": ["gw", "mesh"]}, [thing("old", gateways=["shop/gw"])], {}, ["target.gateways to [mesh]"]),
    ("the same gateway, both for everything", "gateway_merge", True, {"gateways": ["gw"]}, [thing("old", gateways=["shop/gw"])], {}, ["shop/old"]),
    ("the same gateway, ours for some", "gateway_merge", False, {"gateways": ["gw"], "http": [SOME]}, [thing("old", gateways=["shop/gw"], http=[SOME])], {}, ["have a match", "exposure"]),
    ("the same gateway, theirs comes last", None, False, {"gateways": ["gw"], "http": [SOME]}, [thing("old", gateways=["shop/gw"])], {}, []),
    ("the same gateway, ours for everything at another", "gateway_merge", False, {"gateways": ["gw", "x"], "http": [{**SOME, "match": [{"gateways": ["x"]}, *SOME["match"]]}]}, [thing("old", gateways=["gw"], http=[SOME])], {"target": {"host": "stock", "gateways": ["gw"]}}, ["exposure"]),
    ("the same gateway, theirs for the mesh alone", None, False, {"gateways": ["gw"]}, [thing("old", age=YOUNGER, hosts=["other", "stock"], gateways=["gw", "mesh"], http=[{**SOME, "match": [{"gateways": ["mesh"]}]}])], {"target": {"host": "stock", "gateways": ["gw"]}}, []),
    ("the same gateway, a wider host", "gateway_merge", False, {"gateways": ["gw"], "hosts": ["shop.example.com"]}, [thing("old", gateways=["shop/gw"], hosts=["*"], http=[SOME])], {}, ["shop/old", "no wider", "route all"]),
    ("the same gateway, a narrower host", "gateway_merge", False, {"gateways": ["gw"], "hosts": ["*.example.com"]}, [thing("old", gateways=["shop/gw"], hosts=["shop.example.com"], http=[SOME])], {}, ["no wider"]),
    ("the same gateway, another host", None, False, {"gateways": ["gw"], "hosts": ["shop.example.com"]}, [thing("old", gateways=["shop/gw"], hosts=["*.example.org"])], {}, []),
    ("another gateway", None, False, {"gateways": ["gw"]}, [thing("old", age=OLDER, gateways=["other/gw"])], {}, []),
    ("exported to nobody", "exported_to_nobody", True, {"exportTo": ["~"]}, [], {}, ["no proxy"]),
    ("exported to others", "hidden_from_callers", False, {"exportTo": ["front"]}, [], {}, ["leaves out shop"]),
    ("not exported to the traffic", "hidden_from_callers", False, {"exportTo": ["."]}, [], {"callers": ("front",)}, ["leaves out front"]),
    ("exported by name", None, False, {"exportTo": ["shop"]}, [], {}, []),
    ("a foreign fault", "foreign_fault", False, {"http": [route(name="all", fault={"abort": {"httpStatus": 500}})]}, [], {}, ["control requests meet it too", "route all"]),
    ("a twin of ours is no foreign fault", None, False, {"http": [TWIN, route()]}, [], {}, []),
    ("looks like ours", "looks_like_ours", False, {"http": [route(name="luff.frontend")]}, [], {}, ["left alone"]),
    ("behind a waypoint", "waypoint", False, {}, [], {"services": (by_waypoint("stock"),)}, ["waypoint gate"]),
    ("another service behind a waypoint", None, False, {}, [], {"services": (by_waypoint("cart"),)}, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "rule", "refuse", "mine", "others", "more", "words"), CASES, ids=[c[0] for c in CASES]
)
def test_others_are_found_and_what_to_do_is_said(
    what: str, rule: str | None, refuse: bool, mine: dict[str, Any], others: list[Object], more: dict[str, Any],
    words: list[str],
) -> None:  # fmt: skip
    findings = found(thing(**mine), *others, **more)

    assert [(each.rule, each.refuse) for each in findings] == ([] if rule is None else [(rule, refuse)]), what
    assert all(word in str(findings[0]) for word in words), findings


def test_a_waypoint_does_not_look_at_who_calls() -> None:
    [finding] = found(thing(), services=(by_waypoint("stock"),), target={"host": "stock", "from": {"app": "cart"}})

    assert (finding.rule, finding.refuse) == ("waypoint_ignores_from", True)


def test_a_delegate_that_its_root_does_not_see_is_ignored_by_istio() -> None:
    root = thing("root", http=[{"delegate": {"name": "leaf", "namespace": "team"}}])
    leaf = thing("leaf", "team", hosts=[], exportTo=["."])

    [finding] = found(root, leaf=leaf)

    assert (finding.rule, finding.refuse) == ("delegate_not_exported", True)


def test_a_gateway_that_the_target_leaves_out_is_not_looked_at() -> None:
    mine, other = thing(gateways=["gw", "mesh"]), thing("young", age=YOUNGER, gateways=["gw"])

    assert found(mine, other, target={"host": "stock", "gateways": ["mesh"]}) == []
    assert found(mine, other, target={"host": "stock", "from": {"app": "cart"}}) == []
    assert [each.rule for each in found(mine, other)] == ["gateway_merge"]


def test_refusals_come_first() -> None:
    mine = thing(
        ownerReferences=CANARY, annotations={"argocd.argoproj.io/tracking-id": "shop:x"}, http=[route(fault={})]
    )

    assert [each.refuse for each in found(mine)] == [True, False]


def test_what_has_no_shape_is_got_through() -> None:
    assert found({"metadata": {"name": "stock", "namespace": "shop"}, "spec": None}) == []
    assert found({"metadata": {"managedFields": ["x", {}]}, "spec": {"hosts": None, "http": [None, 1]}}) == []


def test_plan_refuses_with_the_rule_and_warns_with_what_to_do() -> None:
    with pytest.raises(PlanRefused) as caught:
        planned("spec.target={virtualService: stock}", thing(), thing("old", age=OLDER))
    assert caught.value.rule == "shadowed_virtual_service"
    assert caught.value.next_step is not None

    plan = planned("", thing(annotations={"argocd.argoproj.io/tracking-id": "shop:x"}))
    assert any("argo_cd_may_revert" in warning and "skip-reconcile" in warning for warning in plan.warnings)


class Counted(tuple[Object, ...]):
    """Objects that count how often they are gone through."""

    times = 0

    def __iter__(self) -> Iterator[Object]:
        type(self).times += 1
        return super().__iter__()


def test_services_are_gone_through_as_often_however_many_others_there_are() -> None:
    gone_through = []
    for count in (1, 50):
        Counted.times = 0
        others = [thing(f"v{n}", hosts=[f"v{n}"]) for n in range(count)]
        assert found(thing(), *others, services=Counted([service("stock")])) == []
        gone_through.append(Counted.times)

    assert gone_through[0] == gone_through[1]
