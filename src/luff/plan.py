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
from luff.claims import hosts_of, key_of, on_mesh, service_host
from luff.decide import RequestFacts
from luff.defences import Strain, check_defences
from luff.errors import PlanRefused
from luff.hosts import DOMAIN, host_of, matches, meanings
from luff.mechanism import check_fault, check_frozen
from luff.model import DEFAULT_RATE_HZ, AttemptsExpectation, Experiment, Object, Request
from luff.names import Stamp
from luff.others import find_others
from luff.pacing import load_of
from luff.proof import Pods, Proof, plan_proof, pods_of
from luff.routes import Injection, inject
from luff.run_bounds import HELD_IN_LABS, HELD_ON_CLUSTERS, fits_hz, too_many_held
from luff.sample_sizes import seconds_for, too_small
from luff.selection import destinations
from luff.targeting import Found, MeshView, find
from luff.units import RATE_MOST_HZ, TTL_MOST_S, show_duration, show_rate

__all__ = ["Bounds", "Plan", "make_plan"]

Inferred = tuple[str, str, str]
"""What was not written in an experiment: the field, its value, and why."""


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
class Plan:
    """
    This is what a run will do.

    *virtual_service* is the object as read; *subject* is judged; *proof* where
    it is seen that the fault fired; *pods* are the subject's; *held* how many requests the fault holds at
    once; *inferred* what was not written in the experiment; *warnings* what a
    reader should know before going on; *others* those of them that are about
    who else writes, or is in the way; *other_hops* the hosts, as they are
    written, whose attempts are counted beside the broken hop's.
    """

    experiment: Experiment
    stamp: Stamp
    virtual_service: Object
    injection: Injection
    checks: tuple[PlannedCheck, ...]
    subject: str
    dependency: str
    proof: Proof
    pods: Pods
    rate_hz: float
    held: float
    inferred: tuple[Inferred, ...]
    warnings: tuple[str, ...]
    others: tuple[str, ...] = ()
    other_hops: tuple[str, ...] = ()

    @property
    def caller(self) -> str | None:
        """Return who calls the dependency; ``None`` when only the evidence will tell."""
        wanted = self.experiment.spec.target.from_
        return wanted.get("app") or next(iter(wanted.values()), None)

    @property
    def delay_s(self) -> float:
        """Return the injected delay, 0 without one."""
        return self.experiment.spec.delay_s

    @property
    def timeout_s(self) -> float:
        """Return the total time that one request may take."""
        return self.experiment.spec.timeout_s


@dataclass(frozen=True, slots=True)
class _Edge:
    """This is who is judged and *why*, and what it depends on."""

    subject: str
    why: str
    dependency: str


@dataclass(frozen=True, slots=True)
class _Pace:
    """This is the rate per arm, its highest, and *why* it is so where it was not written as one rate."""

    rate_hz: float
    most_hz: float
    why: str | None = None


def make_plan(experiment: Experiment, view: MeshView, stamp: Stamp, *, bounds: Bounds | None = None) -> Plan:
    """
    Return the plan of *experiment* on *view*.

    Raises `PlanRefused` with a stable rule, the reason and what to do.
    """
    bounds = bounds or Bounds.usual(view.kind)
    found = find(experiment.spec.target, view)
    others = (*_check_others(experiment, found), *check_frozen(found))
    not_shown = check_fault(experiment, found)
    _check_bounds(experiment, bounds)
    pace = _pace(experiment, bounds)
    _check_sizes(experiment, pace)
    edge = _edge(experiment, found)
    injection = inject(found.selection, stamp, experiment.spec.fault)
    proof = plan_proof(experiment, view, subject=edge.subject, dependency=edge.dependency, twins=injection.twins)
    pods = pods_of(edge.subject, experiment, view.namespace, view.services)
    held = pace.most_hz * experiment.spec.hold_s
    waiting = _waiting(experiment, view, edge, pods)
    not_shown += check_defences(experiment, found, Strain(proof.namespace, waiting, held, experiment.spec.hold_s))
    other_hops = _other_hops(experiment, view.namespace, edge.dependency)
    _check_attempts(experiment, proof, edge.dependency, other_hops)
    return Plan(
        experiment=experiment,
        stamp=stamp,
        virtual_service=found.leaf,
        injection=injection,
        checks=plan_checks(experiment, rate_hz=pace.rate_hz),
        subject=edge.subject,
        dependency=edge.dependency,
        other_hops=other_hops,
        proof=proof,
        pods=pods,
        rate_hz=pace.rate_hz,
        held=held,
        inferred=(*_inferred_target(found, edge), *_inferred_traffic(experiment, pace, proof)),
        warnings=(*injection.notes, *others, *not_shown, *_delegating(found), *_unseen(proof)),
        others=others,
    )


def _inferred_target(found: Found, edge: _Edge) -> list[Inferred]:
    if found.leaf is not found.root:
        why = f"{found.root['metadata']['name']} delegates to it"
    else:
        why = "as written" if found.target.virtual_service else f"it routes {found.target.host}"
    return [("target", "VirtualService " + "/".join(key_of(found.leaf)), why), ("subject", edge.subject, edge.why)]


def _inferred_traffic(experiment: Experiment, pace: _Pace, proof: Proof) -> list[Inferred]:
    spec = experiment.spec
    inferred = [] if pace.why is None else [("traffic.rate", show_rate(pace.rate_hz), pace.why)]
    if spec.traffic.timeout_s is None:
        inferred.append(("traffic.timeout", show_duration(spec.timeout_s), "max(10 s, 2 x delay + 5 s)"))
    if spec.evidence.source == "auto":
        inferred.append(("evidence.source", proof.sources[0], proof.why))
    return inferred


def _facts_of(request: Request) -> RequestFacts:
    """Return what a route can see of *request*, but for secrets."""
    parts = urlsplit(request.url)
    written = {name.lower(): value for name, value in request.headers.items() if isinstance(value, str)}
    return RequestFacts(
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        method=request.method,
        authority=written.get("host", host_of(request.url)),
        scheme=parts.scheme,
        headers=tuple(written.items()),
    )


def _check_others(experiment: Experiment, found: Found) -> list[str]:
    """Refuse where somebody else's work stands in the way, and return what to be warned of."""
    urls = [request.url for request in experiment.spec.traffic.requests]
    full = [meanings(host_of(url), found.view.namespace)[0] for url in urls]
    callers = [host.split(".")[1] for host in full if host.endswith(f".{DOMAIN}")]
    findings = find_others(found, callers, requests=[_facts_of(each) for each in experiment.spec.traffic.requests])
    for finding in findings:
        if finding.refuse:
            raise PlanRefused(finding.rule, finding.message, next_step=finding.do)
    return [str(finding) for finding in findings]


def _delegating(found: Found) -> list[str]:
    """Say who else meets the twins of a delegate, and that nobody does where nothing delegates to it."""
    name = "/".join(key_of(found.leaf))
    if found.also:
        return [
            f"{', '.join(found.also)} delegates to {name} by another route as well: requests in scope meet the twins there too"
        ]
    if not found.selection.roots and not hosts_of(found.leaf):
        return [
            f"no VirtualService that could be read delegates to {name}, which has no hosts: no proxy has its routes"
        ]
    return []


def _other_hops(experiment: Experiment, namespace: str, dependency: str) -> tuple[str, ...]:
    hosts = [each.of for each in experiment.spec.expect if isinstance(each, AttemptsExpectation)]
    return tuple(h for h in dict.fromkeys(hosts) if meanings(h, namespace)[0].split(".")[0] != dependency)


def _check_attempts(experiment: Experiment, proof: Proof, dependency: str, other_hops: Sequence[str]) -> None:
    """Refuse to count attempts on a hop where nobody would see them, or where nobody knows whose they are."""
    asked = [each.id for each in experiment.spec.expect if isinstance(each, AttemptsExpectation)]
    if asked and not proof.per_request:
        raise PlanRefused(
            "attempts_not_per_request",
            f"{asked[0]} is about the attempts of each request, and {proof.sources[0]} counts calls without telling whose they are",
            next_step="run it with --lab, where every proxy's log is read, or leave it out here and look at the mean, "
            "evidence.calls_per_request in the outcome",
        )
    if other_hops and proof.sources != ("lab-log",):
        raise PlanRefused(
            "attempts_elsewhere",
            f"the attempts on {other_hops[0]} cannot be counted by {proof.sources[0]}, which sees the broken hop alone",
            next_step=f"expect attempts of {dependency}, or run it with --lab, where every proxy's log is read",
        )


def _unseen(proof: Proof) -> list[str]:
    if proof.per_request:
        return []
    return ["luff will not know for each request whether the fault fired: " + proof.sentence]


def _check_bounds(experiment: Experiment, bounds: Bounds) -> None:
    """Refuse a delay, a rate or a life of the twins that was written and is over its bound."""
    spec = experiment.spec
    written_hz = load_of(spec.traffic).most_hz if _is_paced(experiment) else 0.0
    for what, path, value, most, show in (
        ("delay", "spec.fault.delay", spec.delay_s, bounds.delay_s, show_duration),
        ("rate", _rate_path(experiment), written_hz, bounds.rate_hz, show_rate),
        ("ttl", "spec.restore.ttl", spec.restore.ttl_s, bounds.ttl_s, show_duration),
    ):
        if value > most:
            raise PlanRefused(
                f"{what}_over_bound",
                _placed(experiment, path, f"the {what} of {show(value)} is over the {show(most)} that is allowed here"),
                next_step=f"lower it to {show(most)}",
            )


def _pace(experiment: Experiment, bounds: Bounds) -> _Pace:
    """Return how fast requests are sent, a rate that was not written lowered to every bound."""
    return _written_pace(experiment, bounds) if _is_paced(experiment) else _usual_pace(experiment, bounds)


def _written_pace(experiment: Experiment, bounds: Bounds) -> _Pace:
    asked = load_of(experiment.spec.traffic)
    wrong = too_many_held(experiment, asked.most_hz, most=bounds.held)
    if wrong is not None:
        raise PlanRefused("too_many_held", _placed(experiment, _rate_path(experiment), wrong[0]), next_step=wrong[1])
    staged = "the mean over the stages, for warm-up and recovery" if experiment.spec.traffic.stages else None
    return _Pace(asked.mean_hz, asked.most_hz, staged)


def _usual_pace(experiment: Experiment, bounds: Bounds) -> _Pace:
    rate_hz, why = DEFAULT_RATE_HZ, "the default"
    if bounds.rate_hz < rate_hz:
        rate_hz, why = bounds.rate_hz, "the default, lowered to what is allowed here"
    wrong = too_many_held(experiment, rate_hz, most=bounds.held)
    if wrong is not None:
        rate_hz = fits_hz(bounds.held, experiment.spec.hold_s)
        why = f"the default, lowered so that at most {bounds.held:g} requests are held"
        if not rate_hz:
            raise PlanRefused("too_many_held", _placed(experiment, "spec.fault.delay", wrong[0]), next_step=wrong[1])
    return _Pace(rate_hz, rate_hz, why)


def _check_sizes(experiment: Experiment, pace: _Pace) -> None:
    """Refuse a claim that the traffic could carry, but not at the rate to which it was lowered."""
    for expectation in experiment.spec.expect:
        found = too_small(experiment, expectation, rate_hz=pace.rate_hz)
        if found is not None and not _is_paced(experiment):
            message, needed = found
            path = "spec.traffic" if experiment.defaults else expectation.id
            raise PlanRefused(
                "sample_too_small",
                _placed(experiment, path, f"{message} ({pace.why})"),
                next_step=f"set traffic.duration to {seconds_for(needed, pace.rate_hz)}s",
            )


def _is_paced(experiment: Experiment) -> bool:
    """Return whether the experiment says how fast requests are sent."""
    return experiment.spec.traffic.rate_hz is not None or bool(experiment.spec.traffic.stages)


def _rate_path(experiment: Experiment) -> str:
    return "spec.traffic.stages" if experiment.spec.traffic.stages else "spec.traffic.rate"


def _placed(experiment: Experiment, path: str, message: str) -> str:
    place = experiment.place(path)
    return message if place is None else f"{place}: {message}"


def _edge(experiment: Experiment, found: Found) -> _Edge:
    dependency = _dependency(experiment, found)
    if experiment.spec.subject is not None:
        return _Edge(experiment.spec.subject, "as written", dependency)
    return _Edge(_subject(experiment, found.view), "the host of the traffic's URL", dependency)


def _dependency(experiment: Experiment, found: Found) -> str:
    """Return the first label of the target's name; of a wildcard, that of the one service its routes lead to, or what the object is called."""
    leaf = found.leaf
    [name, *_] = [experiment.spec.target.host] if experiment.spec.target.host else leaf["spec"].get("hosts") or [""]
    if name and not name.startswith("*"):
        return str(name).split(".")[0]
    routes = (leaf["spec"]["http"][index] for index in found.selection.indices)
    led = {str(each.get("host") or "").split(".")[0] for route in routes for each in destinations(route)}
    return led.pop() if name and len(led) == 1 else str(leaf["metadata"]["name"])


def _waiting(experiment: Experiment, view: MeshView, edge: _Edge, pods: Pods) -> tuple[str, ...]:
    """Return the full names of the services that wait for the dependency: the judged one, and those of the callers named."""
    judged = [] if edge.subject == edge.dependency else [meanings(edge.subject, pods.namespace)[0]]
    labels = experiment.spec.target.from_.items()
    selectors = [(service_host(each), (each.get("spec") or {}).get("selector") or {}) for each in view.services]
    return tuple(dict.fromkeys([*judged, *(host for host, wanted in selectors if wanted and wanted.items() <= labels)]))


def _subject(experiment: Experiment, view: MeshView) -> str:
    """Return the service that the traffic calls; parse sees to it that all requests call the same where none is named."""
    host = host_of(experiment.spec.traffic.requests[0].url)
    for service in view.services:
        if service_host(service) in meanings(host, view.namespace):
            return str(service["metadata"]["name"])
    at_gateway = any(
        matches(own, host) and not on_mesh(candidate)
        for candidate in view.virtual_services
        for own in candidate.get("spec", {}).get("hosts") or []
    )
    if at_gateway or view.services:
        raise PlanRefused(
            "subject_unknown",
            f"{host} is not a service of the namespace {view.namespace}, so it is not clear which service is judged",
            next_step="name it: spec.subject",
        )
    return host.split(".")[0]
