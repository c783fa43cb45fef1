"""
Who else writes a VirtualService, and which other VirtualServices stand in its way.

Pure: from objects to findings. Each has a stable rule, says whether a run is
refused or only warned, and what to do. Only what can be seen in the objects is
said: a controller that leaves no mark on them is found out when it takes the
twins away (``fault_removed``).

Facts that decide: Flagger compares the whole object with what it would write,
also when no canary runs, and one annotation too many resets a canary to 0 %.
Argo Rollouts names an unnamed second route an invalid Rollout, at once. Argo CD
and Flux put ``spec.http`` back whole. A sidecar uses one VirtualService for a
host, the oldest, private ones before those exported to it before public ones;
a gateway merges them, those for everything last, the rest in an order that Istio
leaves open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from luff.claims import Coverage, coverage, hosts_of, key_of, on_mesh, service_host, standing
from luff.decide import Proxy, RequestFacts, decide, unconditional
from luff.hosts import MESH, NOBODY, covers, exports_of, namespace_of, qualify, qualify_gateway, visibility
from luff.names import http_routes, ours, suspects
from luff.targeting import Found
from luff.words import Object

__all__ = ["Finding", "find_others"]

FLAGGER_ANNOTATION = "flagger.kubernetes.io/original-configuration"
ROLLOUTS_ANNOTATION = "argo-rollouts.argoproj.io/managed-by-rollouts"
ROLLOUTS_MANAGERS = ("rollouts-controller", "argo-rollouts")
ARGO_CD_ANNOTATION = "argocd.argoproj.io/tracking-id"
ARGO_CD_LABELS = ("argocd.argoproj.io/instance", "app.kubernetes.io/instance")
ARGO_CD_MANAGERS = ("argocd-controller", "argocd-application-controller")
FLUX = "kustomize.toolkit.fluxcd.io"
FLUX_HELM = "helm.toolkit.fluxcd.io"
FLUX_LETS_GO = {"reconcile": "disabled", "ssa": "ignore"}
"""Annotations by which Flux leaves an object alone."""
WAYPOINT_LABEL = "istio.io/use-waypoint"


@dataclass(frozen=True, slots=True)
class Finding:
    """This is one thing that somebody else has to do with the object. *refuse* says that there must be no run."""

    rule: str
    refuse: bool
    message: str
    do: str

    def __str__(self) -> str:
        return f"{self.message} ({self.rule}): {self.do}"


def find_others(
    found: Found, callers: Sequence[str] = (), *, requests: Sequence[RequestFacts] = ()
) -> tuple[Finding, ...]:
    """
    Return everything that others have to do with what was *found*, refusals first.

    *callers* are the namespaces that the traffic is known to pass through, and
    *requests* what luff sends; without any, it may be anything.
    """
    findings = [
        *_controllers(found),
        *_shadowed(found, callers),
        *_gateway_merges(found, requests),
        *_hidden(found, callers),
        *_waypoints(found),
        *_strangers(found.leaf),
    ]
    return tuple(sorted(findings, key=lambda finding: not finding.refuse))


def _controllers(found: Found) -> list[Finding]:
    each = [_flagger, _rollouts, _argo_cd, _flux]
    findings = [finding for find in each for finding in find(found)]
    if found.view.kind == "cluster":
        return findings
    # In a lab no controller is at work, whatever an object copied from a cluster says.
    return [
        Finding(
            finding.rule, False, f"in a lab this harms nothing, on a cluster it would: {finding.message}", finding.do
        )
        for finding in findings
    ]


def _flagger(found: Found) -> Iterator[Finding]:
    owners = _metadata(found.leaf).get("ownerReferences") or []
    canary = next((str(owner.get("name")) for owner in owners if owner.get("kind") == "Canary"), None)
    if canary is None and FLAGGER_ANNOTATION not in _notes(found.leaf) and not _written_by(found.leaf, ["flagger"]):
        return
    who = f"Flagger (Canary {canary})" if canary else "Flagger"
    yield Finding(
        "flagger_owns_it",
        True,
        f"{who} writes {_name(found.leaf)}: it overwrites any other change at its next look, also when no canary runs, "
        "sets the weights of a running canary back, and may keep the twins as the original to go back to",
        "target a VirtualService that Flagger does not write, such as that of the next hop, or try it in a lab (--lab)",
    )


def _rollouts(found: Found) -> Iterator[Finding]:
    leaf = found.leaf
    named = _notes(leaf).get(ROLLOUTS_ANNOTATION)
    managed = {service_host(service) for service in found.view.services if ROLLOUTS_ANNOTATION in _notes(service)}
    sure = named is not None or _written_by(leaf, ROLLOUTS_MANAGERS)
    # A Service alone may belong to a blue-green Rollout, which never looks at a VirtualService; a split is a canary's.
    splits = [route for route in _theirs(leaf) if len(route.get("route") or []) > 1 and _leads_to(route, leaf, managed)]
    if not sure and not splits:
        return
    who = f"Argo Rollouts ({named})" if named else "Argo Rollouts"
    unnamed = [route for route in (_theirs(leaf) if sure else splits) if not route.get("name")]
    if unnamed:
        yield Finding(
            "rollouts_without_named_routes",
            True,
            f"{who} sets the weights of {_name(leaf)}, and {len(unnamed)} of its routes have no name: "
            "with a twin beside them the Rollout becomes invalid at once (InvalidSpec)",
            "give each http route a name and list those in the Rollout's trafficRouting.istio.virtualService.routes",
        )
        return
    yield Finding(
        "rollouts_at_work",
        False,
        f"{who} sets the weights of {_name(leaf)}; twins keep the weights that were there when they were made",
        "run while the Rollout is Healthy, and see that trafficRouting.istio.virtualService.routes lists the routes: "
        "where it names none, a twin makes the Rollout invalid (InvalidSpec)",
    )


def _leads_to(route: Object, leaf: Object, services: set[str]) -> bool:
    hosts = [str((each.get("destination") or {}).get("host", "")) for each in route.get("route") or []]
    return any(qualify(host, namespace_of(leaf)).lower() in services for host in hosts)


def _argo_cd(found: Found) -> Iterator[Finding]:
    leaf = found.leaf
    tracked = _notes(leaf).get(ARGO_CD_ANNOTATION)
    labels = _metadata(leaf).get("labels") or {}
    label = next((str(labels[key]) for key in ARGO_CD_LABELS if key in labels), None)
    application = str(tracked).split(":", 1)[0] if tracked else label
    by_helm = labels.get("app.kubernetes.io/managed-by") == "Helm" and ARGO_CD_LABELS[0] not in labels
    if tracked is None and not _written_by(leaf, ARGO_CD_MANAGERS) and (label is None or by_helm):
        return
    sure = tracked is not None or _written_by(leaf, ARGO_CD_MANAGERS)
    who = f"Argo CD ({application})" if application else "Argo CD"
    yield Finding(
        "argo_cd_may_revert",
        False,
        f"{who} {'manages' if sure else 'may manage'} {_name(leaf)}: self-heal puts spec.http back within seconds, "
        "and the run would end as inconclusive(fault_removed)",
        "for the time of the run annotate the Application with argocd.argoproj.io/skip-reconcile=true, or give it "
        'ignoreDifferences with jqPathExpressions [\'.spec.http[] | select((.name // "") | startswith("luff."))\'] '
        "and the sync option RespectIgnoreDifferences=true",
    )


def _flux(found: Found) -> Iterator[Finding]:
    leaf = found.leaf
    labels, notes = _metadata(leaf).get("labels") or {}, _notes(leaf)
    for group, kind in ((FLUX, "kustomization"), (FLUX_HELM, "helmrelease")):
        name = labels.get(f"{group}/name")
        if name is None:
            continue
        if any(str(notes.get(f"{group}/{key}", "")).lower() == value for key, value in FLUX_LETS_GO.items()):
            continue
        where = f" -n {labels[f'{group}/namespace']}" if f"{group}/namespace" in labels else ""
        yield Finding(
            "flux_may_revert",
            False,
            f"Flux ({kind} {name}) manages {_name(leaf)} and puts spec.http back at its next round; "
            "the run would end as inconclusive(fault_removed)",
            f"`flux suspend {kind} {name}{where}` for the time of the run, and `flux resume {kind} {name}{where}` after it",
        )


@dataclass(frozen=True, slots=True)
class _Rival:
    """This is another object for sidecars, and for whom of them it makes routes."""

    object_: Object
    makes_routes_for: Coverage

    def keeps_it_from(self, place: tuple[int, int, str, str, str]) -> Coverage:
        """Return for whom this, where it comes first, keeps the host from an object in *place*; see `luff.claims`."""
        by_a_wildcard = place[0] > 0
        return "everybody" if by_a_wildcard else self.makes_routes_for


def _rivals(found: Found) -> list[_Rival]:
    """Return the other objects of which sidecars may use one instead of the target's; those for everybody first."""
    root, target = found.root, found.target
    if not found.for_sidecars:
        return []
    others = [each for each in found.view.all_virtual_services if key_of(each) != key_of(root) and on_mesh(each)]
    ports = found.called_ports
    rivals = [_Rival(each, coverage(each, ports=ports, labels=target.from_)) for each in others]
    return sorted(rivals, key=lambda rival: rival.makes_routes_for != "everybody")


def _shadowed(found: Found, callers: Sequence[str]) -> Iterator[Finding]:
    """Find the other objects for the same host on sidecars: one of them is used, the rest is not even looked at."""
    root, rivals, wanted = found.root, _rivals(found), found.hosts
    lost: dict[tuple[str, str], tuple[Object, Coverage]] = {}
    beaten: dict[str, Object] = {}
    everywhere = [(caller, host) for caller in dict.fromkeys([namespace_of(root), *callers]) for host in wanted]
    for caller, host in everywhere:
        mine = standing(root, host, caller)
        for rival in rivals:
            theirs = standing(rival.object_, host, caller)
            if theirs is None or mine is None or rival.keeps_it_from(mine) == "nobody":
                continue
            if theirs < mine:
                lost.setdefault((caller, host), (rival.object_, rival.keeps_it_from(mine)))
            else:
                beaten[host] = rival.object_
    if lost:
        refuse = len(lost) == len(everywhere) and all(whom == "everybody" for _, whom in lost.values())
        seen, (winner, _) = next(iter(lost.items()))
        yield _shadow(root, winner, seen, refuse=refuse)
        return
    second = [(host, other) for host, other in beaten.items() if host.startswith("*") or host in hosts_of(other)]
    for host, other in second[:1]:
        yield Finding(
            "second_virtual_service",
            False,
            f"{_name(other)} is for {host} as well; sidecars ignore it as long as {_name(root)} comes first",
            "keep one VirtualService per host; until then never delete and create this one anew, it would lose its place",
        )


def _shadow(root: Object, other: Object, seen: tuple[str, str], *, refuse: bool) -> Finding:
    """Return that *other* is used and not *root*, as *seen* from a caller's namespace for a host."""
    caller, host = seen
    namespace, name = key_of(other)
    return Finding(
        "shadowed_virtual_service",
        refuse,
        f"sidecars in {caller} use {_name(other)} for {host} and not {_name(root)}: {_why_first(other, root, host, caller)}",
        f"name {name} in target.virtualService"
        + ("" if namespace == namespace_of(root) else f" with target.namespace {namespace}")
        + ", or keep one VirtualService per host",
    )


def _why_first(other: Object, root: Object, host: str, caller: str) -> str:
    theirs, mine = standing(other, host, caller), standing(root, host, caller)
    if theirs is None or mine is None or theirs[0] != mine[0]:
        return "its host is the more exact one"
    if theirs[1] != mine[1]:
        return "one exported to few comes before one for all"
    return "the oldest wins, and they are not merged"


def _gateway_merges(found: Found, requests: Sequence[RequestFacts]) -> Iterator[Finding]:
    """
    Find the other objects whose routes a gateway puts together with the target's, those for everything last.

    A twin of a route for everything has a condition, and so is not last: where it comes
    before what others have, it takes requests in scope that are theirs. That is a refusal
    where one of luff's own *requests* is.
    """
    root, target = found.root, found.target
    if target.from_:
        return
    mine = _gateways(root) & ({qualify_gateway(name, key_of(root)[0]) for name in target.gateways} or _gateways(root))
    sharing = [
        other
        for other in found.view.all_virtual_services
        if key_of(other) != key_of(root) and _matches_at(mine & _gateways(other), _theirs(other), other)
        if any(covers(own, theirs) or covers(theirs, own) for own in hosts_of(root) for theirs in hosts_of(other))
    ]
    mine = mine.intersection(gateway for other in sharing for gateway in _gateways(other))
    where = f"the gateway {', '.join(sorted(mine))}"
    for called, route in found.merged if sharing else ():
        if not any(map(unconditional, _matches_at(mine, [route], root))):
            continue
        same = [other for other in sharing if set(hosts_of(root)) & set(hosts_of(other))]
        certain = [other for other in same if not requests or _takes_one_of(requests, other, mine)]
        met = (
            f"a twin of {called} may come before their routes, and requests in scope which are theirs go where it leads"
        )
        sidecars = "set target.gateways to [mesh], " if found.for_sidecars else ""
        do = f"{sidecars}name routes with a match in target.routes, or keep one VirtualService per host and gateway"
        if certain:
            yield Finding("gateway_merge", True, f"{where} merges {_name(root)} with {_names(certain)}: {met}", do)
        elif same:
            yield Finding(
                "gateway_merge",
                False,
                f"{where} merges {_name(root)} with {_names(same)}, which takes none of this run's requests: {met}, "
                "if services send such through it",
                f"look at the run's exposure before you believe it, or {do}",
            )
        else:
            yield Finding(
                "gateway_merge",
                False,
                f"{where} merges {_name(root)} with {_names(sharing)} if its own host is no wider than theirs: {met}",
                f"look at the hosts of that Gateway, and if it is so, {do}",
            )
        return
    first = [
        other
        for other in sharing
        if not all(map(unconditional, _matches_at(mine & _gateways(other), _theirs(other), other)))
    ]
    if first:
        yield Finding(
            "gateway_merge",
            False,
            f"{where} merges {_name(root)} with {_names(first)}, in an order that Istio leaves open: "
            "what those of their routes that have a match take first never meets the twins",
            "keep one VirtualService per host and gateway, or look at the run's exposure before you believe it",
        )


def _takes_one_of(requests: Iterable[RequestFacts], other: Object, gateways: set[str]) -> bool:
    """Return whether *other* has a route for one of *requests* at one of *gateways*."""
    at = [Proxy(gateway=gateway) for gateway in gateways & _gateways(other)]
    hosts = hosts_of(other)
    return any(
        decide(other, request, proxy) is not None
        for request in requests
        if any(covers(host, request.authority) for host in hosts)
        for proxy in at
    )


def _matches_at(gateways: set[str], routes: Iterable[Object], virtual_service: Object) -> list[Object]:
    """Return the matches of *routes* that count at one of *gateways*; one that asks for nothing for a route without."""
    if not gateways:
        return []
    every = [match or {} for route in routes for match in route.get("match") or [{}]]
    namespace = key_of(virtual_service)[0]
    named = [
        ({qualify_gateway(str(name), namespace) for name in match.get("gateways") or []}, match) for match in every
    ]
    return [match for only_at, match in named if not only_at or only_at & gateways]


def _names(virtual_services: Iterable[Object]) -> str:
    return ", ".join(map(_name, virtual_services))


def _hidden(found: Found, callers: Sequence[str]) -> Iterator[Finding]:
    root, leaf, target = found.root, found.leaf, found.target
    namespace = key_of(root)[0]
    for each in {key_of(root): root, key_of(leaf): leaf}.values():
        if NOBODY in exports_of(each):
            yield Finding(
                "exported_to_nobody",
                True,
                f"{_name(each)} has exportTo: ['~'], so no proxy has it",
                "export it to the callers' namespace, or target the VirtualService that they do use",
            )
            return
    if leaf is not root and visibility(leaf, namespace) is None:
        yield Finding(
            "delegate_not_exported",
            True,
            f"{_name(root)} delegates to {_name(leaf)}, whose exportTo leaves out the namespace {namespace}: Istio ignores that route",
            f"add {namespace} to its exportTo",
        )
    blind = [caller for caller in dict.fromkeys([namespace, *callers]) if visibility(root, caller) is None]
    if blind and on_mesh(root) and not target.gateways:
        yield Finding(
            "hidden_from_callers",
            False,
            f"exportTo of {_name(root)} leaves out {', '.join(blind)}: callers there do not see it and are not faulted",
            "if the callers are there, add their namespace to exportTo; otherwise look at the run's exposure",
        )


def _waypoints(found: Found) -> Iterator[Finding]:
    wanted = set(found.hosts)
    for service in found.view.services:
        waypoint = str((_metadata(service).get("labels") or {}).get(WAYPOINT_LABEL) or "none")
        if waypoint == "none" or service_host(service) not in wanted:
            continue
        name = str(_metadata(service).get("name"))
        if found.target.from_:
            yield Finding(
                "waypoint_ignores_from",
                True,
                f"requests to {name} are routed by the waypoint {waypoint}, which skips matches on the caller's labels: "
                "the twins would hit nobody",
                "leave target.from out; only requests with the scope are hit, whoever the caller is",
            )
        else:
            yield Finding(
                "waypoint",
                False,
                f"requests to {name} are routed by the waypoint {waypoint}, for all callers at once, and waypoints put "
                "the routes of several VirtualServices together without an order",
                "look at the run's exposure before you believe it",
            )


def _strangers(leaf: Object) -> Iterator[Finding]:
    for name in suspects(leaf):
        yield Finding(
            "looks_like_ours",
            False,
            f"{_name(leaf)} has a route {name}, which looks like ours and is not",
            "nothing: it is left alone",
        )
    for index, route in enumerate(http_routes(leaf)):
        if isinstance(route, dict) and route.get("fault") and not ours(route):
            yield Finding(
                "foreign_fault",
                False,
                f"{_name(leaf)} has a fault of somebody else's on the route {route.get('name') or index}",
                "take it out first if that is not meant: control requests meet it too, and scoped ones meet ours instead",
            )


def _metadata(object_: Object) -> Object:
    return object_.get("metadata") or {}


def _notes(object_: Object) -> Object:
    return _metadata(object_).get("annotations") or {}


def _name(virtual_service: Object) -> str:
    return "VirtualService " + "/".join(key_of(virtual_service))


def _theirs(virtual_service: Object) -> list[Object]:
    return [route for route in http_routes(virtual_service) if isinstance(route, dict) and not ours(route)]


def _written_by(object_: Object, managers: Iterable[str]) -> bool:
    """Return whether one of *managers* owns the routes of *object_* by its managedFields."""
    wanted = set(managers)
    return any(
        entry.get("manager") in wanted and "f:http" in ((entry.get("fieldsV1") or {}).get("f:spec") or {})
        for entry in _metadata(object_).get("managedFields") or []
        if isinstance(entry, dict)
    )


def _gateways(virtual_service: Object) -> set[str]:
    named = (virtual_service.get("spec") or {}).get("gateways") or []
    return {qualify_gateway(str(name), key_of(virtual_service)[0]) for name in named} - {MESH}
