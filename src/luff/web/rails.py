"""
How far a run that was asked for by HTTP may go: the operator's policy, and what holds without one.

Traffic goes only where it may: to the hosts of ``Policy.spec.hosts``, or,
without any, to services in the namespaces that the definitions are about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from luff.errors import UsageError
from luff.hosts import DOMAIN, meanings
from luff.model import Experiment, PolicySpec
from luff.plan import Bounds
from luff.web.problems import Problem

__all__ = ["Rails"]


@dataclass(frozen=True, slots=True)
class Rails:
    """This is the policy, or its absence, applied. *namespace* is where experiments are that name none."""

    policy: PolicySpec | None
    kind: Literal["lab", "cluster"]
    namespace: str

    def bounds(self) -> Bounds:
        """Return the bounds of every plan."""
        usual = Bounds.usual(self.kind)
        policy = self.policy
        if policy is None:
            return usual
        return Bounds(
            held=policy.max_held or usual.held,
            delay_s=math.inf if policy.max_delay_s is None else policy.max_delay_s,
            rate_hz=usual.rate_hz if policy.max_rate_hz is None else policy.max_rate_hz,
            ttl_s=usual.ttl_s if policy.max_ttl_s is None else min(usual.ttl_s, policy.max_ttl_s),
        )

    def check_context(self, name: str) -> None:
        """Raise `UsageError` when the policy is for other clusters than *name*."""
        contexts = () if self.policy is None or self.kind == "lab" else self.policy.contexts
        if contexts and not _is_listed(name, contexts):
            raise UsageError(
                f"the policy is for {', '.join(contexts)}, not for {name}",
                next_step="name another --context or --policy",
            )

    def check(self, experiment: Experiment, definitions: Iterable[Experiment], *, now: datetime) -> None:
        """Raise `Problem` when *experiment* may not run now."""
        namespace = self.namespace_of(experiment)
        policy = self.policy
        if policy is not None and policy.namespaces and not _is_listed(namespace, policy.namespaces):
            raise Problem("policy", f"the policy allows {', '.join(policy.namespaces)}, not {namespace}")
        if policy is not None and policy.hours is not None and not _within(policy.hours, now):
            raise Problem("policy", f"the policy allows runs {policy.hours} only")
        namespaces = {self.namespace_of(each) for each in definitions}
        for host in _hosts(experiment):
            if not self._may_send(host, namespace, namespaces):
                allowed = ", ".join(policy.hosts) if policy is not None and policy.hosts else "services of its own mesh"
                raise Problem(
                    "host_not_allowed",
                    f"{experiment.name} sends to {host}; allowed are {allowed}",
                    next_step="add it to spec.hosts of the Policy that the server was started with",
                )

    def namespace_of(self, experiment: Experiment) -> str:
        """Return the namespace that *experiment* breaks something in."""
        return experiment.spec.target.namespace or experiment.metadata.namespace or self.namespace

    def _may_send(self, host: str, namespace: str, namespaces: set[str]) -> bool:
        names = {host, *meanings(host, namespace)}
        if self.policy is not None and self.policy.hosts:
            short = {name.removesuffix(f".{DOMAIN}") for name in names}
            return any(fnmatchcase(name, pattern.lower()) for name in names | short for pattern in self.policy.hosts)
        return any(name.endswith(f".{each}.{DOMAIN}") for name in names for each in namespaces)


def _is_listed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _hosts(experiment: Experiment) -> list[str]:
    found = []
    traffic = experiment.spec.traffic
    for url in (request.url for request in traffic.requests):
        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None
        found.append((host or url).lower())
    if traffic.via.connect:
        found.append(traffic.via.connect.rpartition(":")[0].lower())
    return found


def _within(hours: str, now: datetime) -> bool:
    span, _, zone = hours.partition(" ")
    try:
        here = now.astimezone(ZoneInfo(zone) if zone else UTC).time()
    except ZoneInfoNotFoundError:
        return False
    start, end = (time.fromisoformat(text) for text in span.split("-"))
    return start <= here < end if start <= end else here >= start or here < end
