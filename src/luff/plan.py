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
from luff.claims import hosts_of, key_of, on_mesh
from luff.errors import PlanRefused
from luff.hosts import DOMAIN, matches, meanings, qualify
from luff.mechanism import check_frozen, check_grpc, check_timeouts, retries_unseen
from luff.model import DEFAULT_RATE_HZ, AttemptsExpectation, Experiment, Object, Target
from luff.others import Surroundings, find_others
from luff.pacing import load_of
from luff.proof import Proof, plan_proof
from luff.routes import Injection, inject
from luff.run_bounds import HELD_IN_LABS, HELD_ON_CLUSTERS, fits_hz, too_many_held
from luff.scope import Scope
from luff.targeting import Found, MeshView, find
from luff.units import RATE_MOST_HZ, TTL_MOST_S, show_duration, show_rate

__all__ = ["Bounds", "MeshView", "Plan", "Stamp", "make_plan"]


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
    ``None`` when only the evidence will tell; *proof* where it is seen that
    the fault fired; *held* how many requests the fault holds at once;
    *inferred* what was not written in the experiment, as (field, value, why);
    *warnings* what a reader should know before going on; *others* those of
    them that are about who else writes, or is in the way; *other_hops* the
    hosts, as they are written, whose attempts are counted beside the broken hop's.
    """

    experiment: Experiment
    stamp: Stamp
    virtual_service: Object
    injection: Injection
    checks: tuple[PlannedCheck, ...]
    subject: str
    caller: str | None
    dependency: str
    proof: Proof
    rate_hz: float
    timeout_s: float
    held: float
    inferred: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...]
    others: tuple[str, ...] = ()
    other_hops: tuple[str, ...] = ()

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
    found = find(spec.target, view)
    leaf = found.leaf
    others = [*_check_others(experiment, found, view), *check_frozen(found, view)]
    check_timeouts(experiment, found)
    grpc = check_grpc(experiment, found, view)
    timeout_s = spec.timeout_s
    rate_hz, held, inferred = _load(experiment, timeout_s, bounds)
    subject, why_subject = _subject(experiment, view)
    dependency = _dependency(spec.target, leaf)
    injection = inject(
        leaf,
        found.selection,
        run=stamp.run,
        created_s=stamp.created_s,
        expires_s=stamp.expires_s,
        scope=stamp.scope,
        fault=spec.fault,
        target=spec.target,
        roots=found.roots,
        namespace=found.namespace,
    )
    namespace = leaf["metadata"]["namespace"]
    proof = plan_proof(
        experiment,
        kind=view.kind,
        namespace=view.namespace,
        services=view.services,
        subject=subject,
        dependency=dependency,
        twins=injection.twins,
    )
    inferred = [
        ("target", f"VirtualService {namespace}/{leaf['metadata']['name']}", _why_target(spec.target, found)),
        ("subject", subject, why_subject),
        *inferred,
    ]
    if spec.traffic.timeout_s is None:
        inferred.append(("traffic.timeout", show_duration(timeout_s), "max(10 s, 2 x delay + 5 s)"))
    _check_attempts(experiment, view, dependency, proof)
    if spec.evidence.source == "auto":
        inferred.append(("evidence.source", proof.sources[0], proof.why))
    return Plan(
        experiment=experiment,
        stamp=stamp,
        virtual_service=leaf,
        injection=injection,
        checks=plan_checks(experiment, rate_hz=rate_hz, timeout_s=timeout_s),
        subject=subject,
        caller=_caller(spec.target),
        dependency=dependency,
        other_hops=_other_hops(experiment, view.namespace, dependency),
        proof=proof,
        rate_hz=rate_hz,
        timeout_s=timeout_s,
        held=held,
        inferred=tuple(inferred),
        warnings=(
            *injection.notes,
            *others,
            *grpc,
            *retries_unseen(experiment, found),
            *_aborted(experiment),
            *_delegating(found),
            *_unseen(proof),
        ),
        others=tuple(others),
    )


def _check_others(experiment: Experiment, found: Found, view: MeshView) -> list[str]:
    """Refuse where somebody else's work stands in the way, and return what to be warned of."""
    spec = experiment.spec
    full = [meanings(urlsplit(request.url).hostname or "", view.namespace)[0] for request in spec.traffic.requests]
    around = Surroundings(
        found.root,
        found.leaf,
        view.all_virtual_services,
        view.services,
        callers=[host.split(".")[1] for host in full if host.endswith(f".{DOMAIN}")],
        controllers=view.kind == "cluster",
    )
    findings = find_others(around, spec.target)
    for finding in findings:
        if finding.refuse:
            raise PlanRefused(finding.rule, finding.message, next_step=finding.do)
    return [str(finding) for finding in findings]


def _aborted(experiment: Experiment) -> list[str]:
    if experiment.spec.fault.abort is None:
        return []
    return [
        "an injected abort never reaches the dependency, so outlier detection and connection pools see nothing of it"
    ]


def _delegating(found: Found) -> list[str]:
    """Say who else meets the twins of a delegate, and that nobody does where nothing delegates to it."""
    name = "/".join(key_of(found.leaf))
    if found.also:
        return [
            f"{', '.join(found.also)} delegates to {name} by another route as well: requests in scope meet the twins there too"
        ]
    if not found.roots and not hosts_of(found.leaf):
        return [
            f"no VirtualService that could be read delegates to {name}, which has no hosts: no proxy has its routes"
        ]
    return []


def _other_hops(experiment: Experiment, namespace: str, dependency: str) -> tuple[str, ...]:
    hosts = [each.of for each in experiment.spec.expect if isinstance(each, AttemptsExpectation)]
    return tuple(h for h in dict.fromkeys(hosts) if meanings(h, namespace)[0].split(".")[0] != dependency)


def _check_attempts(experiment: Experiment, view: MeshView, dependency: str, proof: Proof) -> None:
    """Refuse to count attempts on a hop where nobody would see them, or where nobody knows whose they are."""
    asked = [each.id for each in experiment.spec.expect if isinstance(each, AttemptsExpectation)]
    if asked and proof.sources[0] not in ("lab-log", "response-header"):
        raise PlanRefused(
            "attempts_not_per_request",
            f"{asked[0]} is about the attempts of each request, and {proof.sources[0]} counts calls without telling whose they are",
            next_step="run it with --lab, where every proxy's log is read, or leave it out here",
        )
    elsewhere = _other_hops(experiment, view.namespace, dependency)
    if elsewhere and proof.sources != ("lab-log",):
        raise PlanRefused(
            "attempts_elsewhere",
            f"the attempts on {elsewhere[0]} cannot be counted by {proof.sources[0]}, which sees the broken hop alone",
            next_step=f"expect attempts of {dependency}, or run it with --lab, where every proxy's log is read",
        )


def _unseen(proof: Proof) -> list[str]:
    if proof.sources[0] in ("lab-log", "response-header"):
        return []
    return ["luff will not know for each request whether the fault fired: " + proof.sentence]


def _load(experiment: Experiment, timeout_s: float, bounds: Bounds) -> tuple[float, float, list[tuple[str, str, str]]]:
    """Return the rate per arm, the requests held by the fault, and what was inferred."""
    spec = experiment.spec
    delay_s = 0.0 if spec.fault.delay is None else spec.fault.delay.duration_s
    asked, written = load_of(spec.traffic), bool(spec.traffic.rate_hz or spec.traffic.stages)
    rate_path = "spec.traffic.stages" if spec.traffic.stages else "spec.traffic.rate"
    for what, path, value, most, show in (
        ("delay", "spec.fault.delay", delay_s, bounds.delay_s, show_duration),
        ("rate", rate_path, asked.most_hz if written else 0.0, bounds.rate_hz, show_rate),
        ("ttl", "spec.restore.ttl", spec.restore.ttl_s, bounds.ttl_s, show_duration),
    ):
        if value > most:
            raise PlanRefused(
                f"{what}_over_bound",
                _placed(experiment, path, f"the {what} of {show(value)} is over the {show(most)} that is allowed here"),
                next_step=f"lower it to {show(most)}",
            )
    hold_s = min(delay_s, timeout_s)
    if written:
        wrong = too_many_held(experiment, asked.most_hz, most=bounds.held)
        if wrong is not None:
            raise PlanRefused("too_many_held", _placed(experiment, rate_path, wrong[0]), next_step=wrong[1])
        held = asked.most_hz * hold_s
        if not spec.traffic.stages:
            return asked.mean_hz, held, []
        why = "the mean over the stages, for warm-up and recovery"
        return asked.mean_hz, held, [("traffic.rate", show_rate(asked.mean_hz), why)]
    rate_hz, why = DEFAULT_RATE_HZ, "the default"
    if bounds.rate_hz < rate_hz:
        rate_hz, why = bounds.rate_hz, "the default, lowered to what is allowed here"
    wrong = too_many_held(experiment, rate_hz, most=bounds.held)
    if wrong is not None:
        rate_hz = fits_hz(bounds.held, hold_s)
        if not rate_hz:
            raise PlanRefused("too_many_held", _placed(experiment, "spec.fault.delay", wrong[0]), next_step=wrong[1])
        why = f"the default, lowered so that at most {bounds.held:g} requests are held"
    return rate_hz, rate_hz * hold_s, [("traffic.rate", show_rate(rate_hz), why)]


def _placed(experiment: Experiment, path: str, message: str) -> str:
    place = experiment.place(path)
    return message if place is None else f"{place}: {message}"


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
    return host.split(".")[0], "the host of the traffic's URL"


def _why_target(target: Target, found: Found) -> str:
    if found.leaf is not found.root:
        return f"{found.root['metadata']['name']} delegates to it"
    return "as written" if target.virtual_service else f"it routes {target.host}"


def _caller(target: Target) -> str | None:
    return target.from_.get("app") or next(iter(target.from_.values()), None)


def _dependency(target: Target, leaf: Object) -> str:
    if target.host:
        return target.host.split(".")[0]
    hosts: Sequence[str] = leaf["spec"].get("hosts") or [leaf["metadata"]["name"]]
    return hosts[0].split(".")[0]
