"""
How far a run may go: what a Policy allows, and what holds without one.

Pure: a policy and an experiment go in, a refusal comes out. The command line
and the server ask the same questions here; only the server asks one more, since
who sends a request is not who wrote the experiment (`luff.web.rails`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, time
from fnmatch import fnmatchcase
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from luff.errors import PlanRefused, UsageError
from luff.hosts import DOMAIN, host_of, meanings
from luff.model import Experiment, PolicySpec
from luff.plan import Bounds

__all__ = ["Hours", "bounds_of", "check_context", "check_policy", "named_context", "parse_hours", "unlisted_host"]

_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Hours:
    """This is a part of every day, by the clocks of *zone*. It may reach over midnight."""

    begin: time
    end: time
    zone: ZoneInfo

    def __contains__(self, at: datetime) -> bool:
        clock = at.astimezone(self.zone).time()
        if self.begin <= self.end:
            return self.begin <= clock < self.end
        return clock >= self.begin or clock < self.end

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M} {self.zone.key}"


def parse_hours(text: str) -> Hours:
    """Return the hours that a `Policy` writes as ``09:00-17:00 Europe/Berlin``; without a zone they are UTC."""
    span, _, zone = text.strip().partition(" ")
    begin, dash, end = span.partition("-")
    try:
        return Hours(time.fromisoformat(begin), time.fromisoformat(end if dash else ""), ZoneInfo(zone or "UTC"))
    except (ValueError, ZoneInfoNotFoundError, OSError):
        raise UsageError(f"{text[:60]!r} are no hours", next_step="such as 09:00-17:00 Europe/Berlin") from None


def bounds_of(policy: PolicySpec | None, kind: Literal["lab", "cluster"]) -> Bounds:
    """Return the bounds of every plan under *policy*. The life of a twin it can only shorten."""
    usual = Bounds.usual(kind)
    if policy is None:
        return usual
    return Bounds(
        held=policy.max_held or usual.held,
        delay_s=math.inf if policy.max_delay_s is None else policy.max_delay_s,
        rate_hz=usual.rate_hz if policy.max_rate_hz is None else policy.max_rate_hz,
        ttl_s=usual.ttl_s if policy.max_ttl_s is None else min(usual.ttl_s, policy.max_ttl_s),
    )


def named_context(policy: PolicySpec | None) -> str | None:
    """Return the one cluster that *policy* names, ``None`` when it names several, a pattern, or none."""
    contexts = () if policy is None else policy.contexts
    return contexts[0] if len(contexts) == 1 and not _WILD & set(contexts[0]) else None


def check_context(policy: PolicySpec | None, name: str) -> None:
    """Raise `PlanRefused` when *policy* is for other clusters than the one of the context *name*."""
    if policy is not None and policy.contexts and not _is_listed(name, policy.contexts):
        raise PlanRefused(
            "context_not_allowed",
            f"the policy is for the contexts {', '.join(policy.contexts)}, not for {name}",
            next_step="name another --context or --policy",
        )


def check_policy(policy: PolicySpec | None, experiment: Experiment, *, namespace: str, now: datetime) -> None:
    """
    Raise `PlanRefused` when *policy* does not allow *experiment*, which breaks something in *namespace*, *now*.

    What it says of numbers is in `bounds_of`.
    """
    if policy is None:
        return
    if policy.namespaces and not _is_listed(namespace, policy.namespaces):
        raise PlanRefused(
            "namespace_not_allowed",
            f"the policy allows the namespaces {', '.join(policy.namespaces)}, not {namespace}",
            next_step="run it there, or have spec.namespaces of the Policy widened",
        )
    if policy.hours is not None and now not in (hours := parse_hours(policy.hours)):
        raise PlanRefused(
            "outside_hours",
            f"the policy allows runs {hours} only, and there it is {now.astimezone(hours.zone):%H:%M}",
            next_step="run it within these hours",
        )
    host = unlisted_host(experiment, policy.hosts, namespace) if policy.hosts else None
    if host is not None:
        raise PlanRefused(
            "host_not_allowed",
            f"{experiment.name} sends to {host}; the policy allows {', '.join(policy.hosts)}",
            next_step="send it there, or have spec.hosts of the Policy widened",
        )


def unlisted_host(experiment: Experiment, patterns: Collection[str], namespace: str) -> str | None:
    """Return the first host to which *experiment* sends and that no pattern covers, as a person in *namespace* means it."""
    for host in _hosts(experiment):
        names = {host, *meanings(host, namespace)}
        names |= {name.removesuffix(f".{DOMAIN}") for name in names}
        if not any(fnmatchcase(name, pattern.lower()) for name in names for pattern in patterns):
            return host
    return None


def _is_listed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _hosts(experiment: Experiment) -> list[str]:
    traffic = experiment.spec.traffic
    found = [host_of(request.url) or request.url.lower() for request in traffic.requests]
    if traffic.via.connect:
        found.append(traffic.via.connect.rpartition(":")[0].lower())
    return found
