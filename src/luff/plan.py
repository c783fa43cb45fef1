"""
From an experiment and the objects as they are to a plan, or to a refusal that says why.

Pure: nothing is read or written here, so `luff plan` and `luff run` cannot
disagree. A `Plan` holds everything that a run decides beforehand: the patch,
the numbers of the traffic, one method per check. What was inferred is listed,
so that a reader sees every default that was used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from luff.checks import PlannedCheck, plan_checks
from luff.errors import PlanRefused
from luff.hosts import DOMAIN, matches, meanings, qualify
from luff.model import DEFAULT_RATE_HZ, Experiment, Object, Target
from luff.others import Surroundings, find_others
from luff.routes import Injection, Selection, inject, select
from luff.scope import Scope
from luff.units import RATE_MOST_HZ, TTL_MOST_S, istio_duration, parse_duration_s, show_duration, show_rate

__all__ = ["Bounds", "MeshView", "Plan", "Stamp", "make_plan"]

HELD_ON_CLUSTERS = 100.0
HELD_IN_LABS = 2000.0


@dataclass(frozen=True, slots=True)
class MeshView:
    """
    This is what plan needs to have read: the objects of the target's namespace, raw.

    *elsewhere* are the VirtualServices of other namespaces, as far as they may
    be read: one of those may be the one that proxies use.
    """

    kind: Literal["lab", "cluster"]
    namespace: str
    virtual_services: tuple[Object, ...]
    services: tuple[Object, ...] = ()
    namespace_exists: bool = True
    elsewhere: tuple[Object, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """This is how far a run may go. *held* is the most requests that a fault may hold in the caller at once."""

    held: float
    delay_s: float = math.inf
    rate_hz: float = RATE_MOST_HZ
    ttl_s: float = TTL_MOST_S

    @classmethod
    def usual(cls, kind: Literal["lab", "cluster"]) -> Bounds:
        """Return the bounds where no policy says otherwise."""
        return cls(held=HELD_IN_LABS if kind == "lab" else HELD_ON_CLUSTERS)


@dataclass(frozen=True, slots=True)
class Stamp:
    """This is what makes a plan one of a kind: the run id (16 hex), its scope, and its dates by the server's clock."""

    run: str
    scope: Scope
    created_s: int
    expires_s: int


@dataclass(frozen=True, slots=True)
class Plan:
    """
    This is what a run will do.

    *virtual_service* is the object as read; *subject* is judged; *caller* is
    ``None`` when only the evidence will tell; *held* how many requests the
    fault holds at once; *inferred* what was not written in the experiment, as
    (field, value, why); *warnings* what a reader should know before going on;
    *others* those of them that are about who else writes, or is in the way.
    """

    experiment: Experiment
    stamp: Stamp
    virtual_service: Object
    injection: Injection
    checks: tuple[PlannedCheck, ...]
    subject: str
    caller: str | None
    dependency: str
    rate_hz: float
    timeout_s: float
    held: float
    inferred: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def delay_s(self) -> float:
        """Return the injected delay, 0 without one."""
        delay = self.experiment.spec.fault.delay
        return 0.0 if delay is None else delay.duration_s


def make_plan(experiment: Experiment, view: MeshView, stamp: Stamp, *, bounds: Bounds | None = None) -> Plan:
    """
    Return the plan of *experiment* on *view*.

    Raises `PlanRefused` with a stable rule, the reason and what to do.
    """
    bounds = bounds or Bounds.usual(view.kind)
    spec = experiment.spec
    root = _find(spec.target, view)
    leaf, selection = _follow(root, spec.target, view)
    others = _check_others(experiment, root, leaf, view)
    _check_mechanism(experiment, leaf, selection)
    _check_grpc(experiment, leaf, view)
    timeout_s = spec.timeout_s
    rate_hz, held, inferred = _load(experiment, timeout_s, bounds)
    subject, why_subject = _subject(experiment, view)
    dependency = _dependency(spec.target, leaf)
    injection = inject(
        leaf,
        selection,
        run=stamp.run,
        created_s=stamp.created_s,
        expires_s=stamp.expires_s,
        scope=stamp.scope,
        fault=spec.fault,
        target=spec.target,
    )
    namespace = leaf["metadata"]["namespace"]
    inferred = [
        ("target", f"VirtualService {namespace}/{leaf['metadata']['name']}", _why_target(spec.target, root, leaf)),
        ("subject", subject, why_subject),
        *inferred,
    ]
    if spec.traffic.timeout_s is None:
        inferred.append(("traffic.timeout", show_duration(timeout_s), "max(10 s, 2 x delay + 5 s)"))
    return Plan(
        experiment=experiment,
        stamp=stamp,
        virtual_service=leaf,
        injection=injection,
        checks=plan_checks(experiment, rate_hz=rate_hz, timeout_s=timeout_s),
        subject=subject,
        caller=_caller(spec.target),
        dependency=dependency,
        rate_hz=rate_hz,
        timeout_s=timeout_s,
        held=held,
        inferred=tuple(inferred),
        warnings=(
            *injection.notes,
            *others,
            *_warnings(leaf, selection, experiment),
            *_unseen(view, subject, dependency),
        ),
        others=tuple(others),
    )


def _find(target: Target, view: MeshView) -> Object:
    if not view.namespace_exists:
        raise PlanRefused(
            "unknown_namespace",
            f"there is no namespace {view.namespace}",
            next_step="name the right one in target.namespace, metadata.namespace or with -n",
        )
    if target.virtual_service is not None:
        for candidate in view.virtual_services:
            if candidate["metadata"]["name"] == target.virtual_service:
                return candidate
        known = ", ".join(sorted(c["metadata"]["name"] for c in view.virtual_services)) or "none"
        raise PlanRefused(
            "unknown_virtual_service",
            f"there is no VirtualService {target.virtual_service} in the namespace {view.namespace}; there are: {known}",
            next_step="correct target.virtualService, or name the host instead",
        )
    assert target.host is not None, "parse sees to it that a target has a host or a VirtualService"
    return _for_host(target.host, view)


def _for_host(host: str, view: MeshView) -> Object:
    # The likeliest meaning that some object claims by its very name wins, then any that a wildcard takes.
    wanted = meanings(host, view.namespace)
    found = _claims(wanted, view, exact=True) or _claims(wanted, view, exact=False)
    if len(found) > 1:
        names = ", ".join(sorted(c["metadata"]["name"] for c in found))
        raise PlanRefused(
            "several_virtual_services",
            f"{names} all claim the host {wanted[0]}; sidecars do not merge them and use only the oldest",
            next_step="keep one VirtualService per host, or name the one that counts in target.virtualService",
        )
    if found:
        return found[0]
    services = {service["metadata"]["name"] for service in view.services}
    short = wanted[0].removesuffix(f".{view.namespace}.{DOMAIN}")
    if view.services and short not in services:
        known = ", ".join(sorted(services)) or "none"
        raise PlanRefused(
            "unknown_host",
            f"there is no service {short} in the namespace {view.namespace}; there are: {known}",
            next_step="correct target.host",
        )
    raise PlanRefused(
        "no_virtual_service",
        f"the host {wanted[0]} has no VirtualService in the namespace {view.namespace}, so there is no route to copy",
        next_step=f"commit this one and run again:\n{_plain(short, view.namespace)}",
    )


def _claims(wanted: Sequence[str], view: MeshView, *, exact: bool) -> list[Object]:
    """Return the objects for sidecars that claim the first of *wanted* that any claims."""
    for host in wanted:
        found = []
        for candidate in view.virtual_services:
            owned = [qualify(str(own), view.namespace) for own in (candidate.get("spec") or {}).get("hosts") or []]
            takes = any(matches(own, host) and not (exact and own.startswith("*")) for own in owned)
            if takes and _on_mesh(candidate):
                found.append(candidate)
        if found:
            return found
    return []


def _plain(host: str, namespace: str) -> str:
    return (
        "apiVersion: networking.istio.io/v1\n"
        "kind: VirtualService\n"
        f"metadata: {{name: {host.split('.')[0]}, namespace: {namespace}}}\n"
        "spec:\n"
        f"  hosts: [{host}]\n"
        "  http:\n"
        f"    - route: [{{destination: {{host: {host}}}}}]"
    )


def _on_mesh(virtual_service: Object) -> bool:
    gateways = virtual_service.get("spec", {}).get("gateways")
    return not gateways or "mesh" in gateways


def _follow(root: Object, target: Target, view: MeshView) -> tuple[Object, Selection]:
    """Return the object whose routes are to be copied: *root*, or the one leaf that it delegates to."""
    selection = select(root, target, namespace=root["metadata"]["namespace"])
    if not selection.delegates:
        return root, selection
    if selection.indices or len(set(selection.delegates)) > 1:
        raise PlanRefused(
            "several_objects",
            f"VirtualService {root['metadata']['name']} routes to the target itself and through delegates; one run patches one object",
            next_step="name the object that you mean in target.virtualService, or the routes in target.routes",
        )
    namespace, name = selection.delegates[0]
    for candidate in view.virtual_services:
        if (candidate["metadata"]["namespace"], candidate["metadata"]["name"]) == (namespace or view.namespace, name):
            return candidate, select(candidate, target, namespace=candidate["metadata"]["namespace"])
    raise PlanRefused(
        "delegate_missing",
        f"VirtualService {root['metadata']['name']} delegates to {namespace}/{name}, which is not there: Istio ignores that route",
        next_step=f"create {namespace}/{name}, or take the delegate out",
    )


def _check_others(experiment: Experiment, root: Object, leaf: Object, view: MeshView) -> list[str]:
    """Refuse where somebody else's work stands in the way, and return what to be warned of."""
    spec = experiment.spec
    full = [meanings(urlsplit(request.url).hostname or "", view.namespace)[0] for request in spec.traffic.requests]
    around = Surroundings(
        root,
        leaf,
        (*view.virtual_services, *view.elsewhere),
        view.services,
        callers=[host.split(".")[1] for host in full if host.endswith(f".{DOMAIN}")],
        controllers=view.kind == "cluster",
    )
    found = find_others(around, spec.target)
    for finding in found:
        if finding.refuse:
            raise PlanRefused(finding.rule, finding.message, next_step=finding.do)
    return [str(finding) for finding in found]


def _check_mechanism(experiment: Experiment, leaf: Object, selection: Selection) -> None:
    """Refuse a delay that the same route's timeout would have cut in real life: Istio's fault never sees that timeout."""
    delay = experiment.spec.fault.delay
    if delay is None:
        return
    for index in selection.indices:
        route = leaf["spec"]["http"][index]
        timeout_s = _istio_seconds(route.get("timeout"))
        if timeout_s is not None and timeout_s < delay.duration_s:
            raise PlanRefused(
                "timeout_hides_delay",
                f"the route {route.get('name') or index} has a timeout of {show_duration(timeout_s)}, and a fault is injected before it: "
                f"callers would wait {show_duration(delay.duration_s)}, which a slow dependency could never make them do",
                next_step="break it as they would really see it: "
                f"fault: {{delay: {istio_duration(timeout_s)}, abort: 504}}",
            )


def _warnings(leaf: Object, selection: Selection, experiment: Experiment) -> list[str]:
    said = []
    for index in selection.indices:
        route = leaf["spec"]["http"][index]
        attempts = (route.get("retries") or {}).get("attempts")
        if attempts:
            said.append(
                f"the route {route.get('name') or index} retries {attempts} times, but a fault is injected before its router: "
                f"those retries are not exercised (a really failing dependency would see up to {attempts + 1} attempts)"
            )
    if experiment.spec.fault.abort is not None:
        said.append(
            "an injected abort never reaches the dependency, so outlier detection and connection pools see nothing of it"
        )
    return said


def _unseen(view: MeshView, subject: str, dependency: str) -> list[str]:
    if view.kind == "lab" or subject == dependency:
        return []
    return [
        (
            f"on a cluster luff sees the fault only in answers of {dependency} itself, and the traffic goes to {subject}: "
            "the run will end as inconclusive(fault_not_observed); try it with --lab, or send traffic to the hop itself"
        )
    ]


def _check_grpc(experiment: Experiment, leaf: Object, view: MeshView) -> None:
    abort = experiment.spec.fault.abort
    if abort is None or abort.grpc is None:
        return
    wanted = {qualify(own, view.namespace).split(".")[0] for own in leaf["spec"].get("hosts") or []}
    for service in view.services:
        if service["metadata"]["name"] not in wanted:
            continue
        ports = (service.get("spec") or {}).get("ports") or []
        protocols = {str(port.get("appProtocol") or port.get("name") or "") for port in ports}
        if not any(protocol.startswith("grpc") for protocol in protocols):
            raise PlanRefused(
                "grpc_abort_on_http",
                f"{service['metadata']['name']} is not a gRPC service (its ports are {', '.join(sorted(protocols)) or 'unnamed'}): "
                "Envoy would answer 200 with the body 'fault filter abort'",
                next_step="use abort: 503, or name the port grpc-…",
            )


def _istio_seconds(text: object) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        return parse_duration_s(text)
    except ValueError:
        return None


def _load(experiment: Experiment, timeout_s: float, bounds: Bounds) -> tuple[float, float, list[tuple[str, str, str]]]:
    """Return the rate per arm, the requests held by the fault, and what was inferred."""
    spec = experiment.spec
    delay_s = 0.0 if spec.fault.delay is None else spec.fault.delay.duration_s
    for what, value, most, show in (
        ("delay", delay_s, bounds.delay_s, show_duration),
        ("rate", spec.traffic.rate_hz or 0.0, bounds.rate_hz, show_rate),
        ("ttl", spec.restore.ttl_s, bounds.ttl_s, show_duration),
    ):
        if value > most:
            raise PlanRefused(
                f"{what}_over_bound",
                f"the {what} of {show(value)} is over the {show(most)} that is allowed here",
                next_step=f"lower it to {show(most)}",
            )
    hold_s = min(delay_s, timeout_s)
    if spec.traffic.rate_hz is not None:
        held = spec.traffic.rate_hz * hold_s
        if held > bounds.held:
            fits_hz = bounds.held / hold_s
            raise PlanRefused(
                "too_many_held",
                f"{show_rate(spec.traffic.rate_hz)} x {show_duration(hold_s)} would hold {held:.0f} requests in the caller; {bounds.held:.0f} are allowed here",
                next_step=f"lower traffic.rate to {show_rate(math.floor(fits_hz * 10) / 10)}",
            )
        return spec.traffic.rate_hz, held, []
    rate_hz = DEFAULT_RATE_HZ
    why = "the default"
    if hold_s and rate_hz * hold_s > bounds.held:
        rate_hz = math.floor(bounds.held / hold_s * 10) / 10
        why = f"the default, lowered so that at most {bounds.held:.0f} requests are held"
    return rate_hz, rate_hz * hold_s, [("traffic.rate", show_rate(rate_hz), why)]


def _subject(experiment: Experiment, view: MeshView) -> tuple[str, str]:
    spec = experiment.spec
    if spec.subject is not None:
        return spec.subject, "as written"
    hosts = {urlsplit(request.url).hostname or "" for request in spec.traffic.requests}
    if len(hosts) > 1:
        raise PlanRefused(
            "subject_unknown",
            f"the traffic goes to several hosts ({', '.join(sorted(hosts))}), so it is not clear which service is judged",
            next_step="name it: spec.subject",
        )
    host = hosts.pop()
    for service in view.services:
        name = service["metadata"]["name"]
        where = service["metadata"].get("namespace", view.namespace)
        if qualify(name, where) in meanings(host, view.namespace):
            return str(name), "the host of the traffic's URL"
    at_gateway = any(
        matches(own, host) and not _on_mesh(candidate)
        for candidate in view.virtual_services
        for own in candidate.get("spec", {}).get("hosts") or []
    )
    if at_gateway or view.services:
        raise PlanRefused(
            "subject_unknown",
            f"{host} is not a service of the namespace {view.namespace}, so it is not clear which service is judged",
            next_step="name it: spec.subject",
        )
    return host.split(".")[0], "the host of the traffic's URL"


def _why_target(target: Target, root: Object, leaf: Object) -> str:
    if leaf is not root:
        return f"{root['metadata']['name']} delegates to it"
    return "as written" if target.virtual_service else f"it routes {target.host}"


def _caller(target: Target) -> str | None:
    return target.from_.get("app") or next(iter(target.from_.values()), None)


def _dependency(target: Target, leaf: Object) -> str:
    if target.host:
        return target.host.split(".")[0]
    hosts: Sequence[str] = leaf["spec"].get("hosts") or [leaf["metadata"]["name"]]
    return hosts[0].split(".")[0]
