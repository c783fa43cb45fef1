"""
How far a run that was asked for by HTTP may go: the operator's policy (`luff.policy`), and what holds without one.

Traffic goes only where it may: to the hosts of ``Policy.spec.hosts``, or,
without any, to services in the namespaces that the definitions are about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from luff.errors import PlanRefused
from luff.hosts import DOMAIN
from luff.model import Experiment, PolicySpec
from luff.policy import check_policy, unlisted_host
from luff.web.problems import Problem

__all__ = ["Rails"]


@dataclass(frozen=True, slots=True)
class Rails:
    """This is the policy, or its absence, applied. *namespace* is where experiments are that name none."""

    policy: PolicySpec | None
    namespace: str

    def check(self, experiment: Experiment, definitions: Iterable[Experiment], *, now: datetime) -> None:
        """Raise `Problem` when *experiment* may not run now."""
        namespace = self.namespace_of(experiment)
        try:
            check_policy(self.policy, experiment, namespace=namespace, now=now)
        except PlanRefused as refused:
            code = "host_not_allowed" if refused.rule == "host_not_allowed" else "policy"
            raise Problem(code, refused.message, next_step=refused.next_step) from refused
        if self.policy is not None and self.policy.hosts:
            return
        own = {f"*.{self.namespace_of(each)}.{DOMAIN}" for each in definitions}
        host = unlisted_host(experiment, own, namespace)
        if host is not None:
            raise Problem(
                "host_not_allowed",
                f"{experiment.name} sends to {host}; allowed are services of its own mesh",
                next_step="add it to spec.hosts of the Policy that the server was started with",
            )

    def namespace_of(self, experiment: Experiment) -> str:
        """Return the namespace that *experiment* breaks something in."""
        return experiment.spec.target.namespace or experiment.metadata.namespace or self.namespace
