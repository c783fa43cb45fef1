"""
Where a run will see that its fault fired, decided from the objects alone.

``auto`` takes the best that there is: per request where luff sees each one (the
lab's logs, or its own answers when it calls the broken hop itself), else what
the callers' proxies count, else what its own samples show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from luff.errors import PlanRefused
from luff.hosts import DOMAIN, host_of, meanings, namespace_of
from luff.model import EvidenceSource, Experiment
from luff.targeting import MeshView
from luff.words import Object

__all__ = ["PROVES", "Pods", "Proof", "plan_proof", "pods_of"]

PROVES: dict[str, str] = {
    "lab-log": "each request, from every proxy's access log",
    "response-header": "each request, in the answers of the broken hop itself",
    "pod-metrics": "how often the callers' proxies fired, read from their pods; never which requests",
    "prometheus": "how often the callers' proxies fired, as scraped; never which requests",
    "latency-shift": "that more requests than of control took as much longer as was injected, or came back with the injected "
    "status; a caller that gives up earlier or answers for itself hides it",
}
"""What each source can prove."""


@dataclass(frozen=True, slots=True)
class Pods:
    """These are the pods of *namespace* that have *labels*."""

    namespace: str
    labels: Mapping[str, str]


def pods_of(subject: str, experiment: Experiment, namespace: str, services: Sequence[Object]) -> Pods:
    """Return where the pods of *subject* are, which is where the traffic of *experiment* goes to."""
    where = _called_in(experiment, namespace)
    return Pods(where, _selector(subject, where, services) or {"app": subject})


@dataclass(frozen=True, slots=True)
class Proof:
    """
    This is where evidence is looked for: *sources*, the best first.

    The callers' pods are those of *namespace* that have *labels*; *destinations*
    are the services, by short and by full name, that the broken routes lead to.
    """

    sources: tuple[str, ...]
    namespace: str
    labels: Mapping[str, str]
    destinations: frozenset[str]
    why: str

    @property
    def per_request(self) -> bool:
        """Return whether it is seen for each request whether the fault fired."""
        return self.sources[0] in ("lab-log", "response-header")

    @property
    def sentence(self) -> str:
        """Return what will be looked at and what it can prove, for people."""
        first, *others = self.sources
        named = [f"{each} with LUFF_PROMETHEUS_URL" if each == "prometheus" else each for each in others]
        otherwise = f"; where that cannot be read, {', else '.join(named)}" if named else ""
        return f"{first} proves {PROVES[first]}{otherwise}"


def plan_proof(
    experiment: Experiment, view: MeshView, *, subject: str, dependency: str, twins: Sequence[Object]
) -> Proof:
    """
    Return where *experiment* finds its proof that the *twins* fired on the way from *subject* to *dependency*.

    Raises `PlanRefused` for a source that this mesh cannot have.
    """
    asked = experiment.spec.evidence.source
    if asked == "lab-log" and view.kind != "lab":
        raise PlanRefused(
            "evidence_unavailable",
            "evidence.source is lab-log, and a cluster's proxies are not the lab's",
            next_step="leave evidence.source out, or use --lab",
        )
    pods = pods_of(subject, experiment, view.namespace, view.services)
    labels = dict(experiment.spec.target.from_) or pods.labels
    sources, why = _sources(asked, view.kind, direct=subject == dependency)
    return Proof(sources, pods.namespace, labels, _destinations(twins, dependency, view.namespace), why)


def _sources(asked: EvidenceSource, kind: Literal["lab", "cluster"], *, direct: bool) -> tuple[tuple[str, ...], str]:
    if asked != "auto":
        return (asked,), "as written"
    if kind == "lab":
        return ("lab-log",), "the best in a lab"
    if direct:
        return ("response-header",), "luff calls the broken hop itself"
    return ("pod-metrics", "prometheus", "latency-shift"), "the traffic goes to a caller of the broken hop"


def _called_in(experiment: Experiment, namespace: str) -> str:
    """Return the namespace of the service that the traffic goes to."""
    full = meanings(host_of(experiment.spec.traffic.requests[0].url), namespace)[0]
    return full.split(".")[1] if full.endswith(f".{DOMAIN}") else namespace


def _selector(subject: str, namespace: str, services: Sequence[Object]) -> dict[str, str]:
    for service in services:
        if service["metadata"]["name"] == subject and namespace_of(service) == namespace:
            return dict((service.get("spec") or {}).get("selector") or {})
    return {}


def _destinations(twins: Sequence[Object], dependency: str, namespace: str) -> frozenset[str]:
    hosts = {dependency}
    for twin in twins:
        for each in twin.get("route") or []:
            hosts.add(str((each.get("destination") or {}).get("host") or dependency))
    names = set(hosts)
    for host in hosts:
        full = meanings(host, namespace)[0]
        names.add(full)
        if full.endswith(f".{DOMAIN}"):
            names.add(full.split(".")[0])
    return frozenset(names)
