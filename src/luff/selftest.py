"""
Every check against its planted defect: a table of cases, and the documents that it stands for.

A case is a service of `luff.lab.fleet`, a fault, what every service of the
fleet is expected to do, and what must come of it: the verdict and exactly which
expectations catch the defect. A healthy service must be caught by none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from luff.outcome import Outcome
from luff.parse import Documents, parse_documents
from luff.words import Verdict

__all__ = ["CASES", "Case", "Finding", "documents_for", "finding_for"]

NAMESPACE = "selftest"
BACKEND = "stock"
PORT = 8080
EXPOSURE = "exposure"
"""What catches a service that loses the scope: the proof that the fault fired, which is no expectation."""
CONTROL = "control tripwire"
"""What catches a service that fails bystanders: the tripwire on control, which is no expectation either."""

_SLOW = {"delay": "1s"}
_FAILING = {"abort": 503}
_BYSTANDERS = {"id": "bystanders", "arm": "control", "noWorseThan": {"arm": "control", "by": "20%"}}
_NO_SLOWER = {"id": "no-slower", "noWorseThan": {"arm": "control", "by": "30%"}}
_CONTROL_IN_TIME = {"id": "control-in-time", "arm": "control", "latency": {"p95": "500ms"}}
"""It needs twice as many requests as the others, so that the breaker opens while the fault is there."""
_RECOVERY = {"id": "recovers", "recovery": {"within": "5s"}}


@dataclass(frozen=True, slots=True)
class Case:
    """
    This is one service, one fault, and what must come of it.

    *defect* says in words what is wrong with the service, ``None`` when it is
    healthy. *caught_by* are the ids of the expectations that fail, or
    `EXPOSURE` or `CONTROL`; *expected* is the verdict with its reason. *also* are
    expectations beside those of every case, *at_least* the exposure asked for,
    *attempts_most* the attempts allowed, *duration* and *stop_early* the
    traffic's, *habit* the service's when it is not named like the case, and
    *elsewhere* how many requests go where no backend is needed, for each that
    needs it.
    """

    name: str
    defect: str | None
    fault: dict[str, Any]
    expected: str
    caught_by: frozenset[str] = frozenset()
    also: tuple[dict[str, Any], ...] = ()
    at_least: str = "99%"
    attempts_most: int = 3
    duration: str = "8s"
    stop_early: bool = True
    habit: str = ""
    elsewhere: int = 0

    @property
    def service(self) -> str:
        """Return the name of the service: the case's own, unless it shares one."""
        return self.habit or self.name


CASES: tuple[Case, ...] = (
    Case("healthy-when-slow", None, _SLOW, "passed", also=(_RECOVERY,), habit="healthy"),
    Case("healthy-when-failing", None, _FAILING, "passed", also=(_RECOVERY,), habit="healthy"),
    Case("healthy-breaker", None, _FAILING, "passed", also=(_NO_SLOWER, _RECOVERY), at_least="5%", attempts_most=1),
    Case("healthy-pool", None, _SLOW, "passed", also=(_BYSTANDERS,), duration="2s", stop_early=False),
    Case("no-timeout", "waits as long as it takes", _SLOW, "failed", frozenset({"in-time", "falls-back"})),
    Case("timeout-too-long", "gives up after 0.7 s, and has 0.5 s", _SLOW, "failed", frozenset({"in-time"})),
    Case(
        "retries-without-end",
        "tries again until it works",
        _FAILING,
        "failed",
        frozenset({"in-time", "few-errors", "keeps-the-name", "falls-back", "few-attempts"}),
    ),
    Case("retries-without-pause", "tries 12 times at once", _FAILING, "failed", frozenset({"few-attempts"})),
    Case(
        "breaker-never-opens",
        "a breaker that lets every retry through",
        _FAILING,
        "failed",
        frozenset({"few-attempts"}),
        at_least="5%",
        attempts_most=1,
    ),
    Case(
        "breaker-never-closes",
        "a breaker that stays open for ever",
        _FAILING,
        "failed",
        frozenset({"recovers"}),
        also=(_CONTROL_IN_TIME, _RECOVERY),
        at_least="5%",
        # It opens with the last of the run's 320 requests: few enough fail by it, and then it is not seen to close.
        stop_early=False,
    ),
    Case("never-recovers", "is slow ever after", _FAILING, "failed", frozenset({"recovers"}), also=(_RECOVERY,)),
    Case("wrong-fallback", "says 0 where it does not know", _FAILING, "failed", frozenset({"falls-back"})),
    Case(
        "half-an-answer",
        "falls back, and drops the rest",
        _FAILING,
        "failed",
        frozenset({"keeps-the-name"}),
        duration="2s",
        stop_early=False,
    ),
    Case(
        "slow-fallback",
        "falls back, and takes its time",
        _FAILING,
        "failed",
        frozenset({"no-slower"}),
        also=(_NO_SLOWER,),
    ),
    Case(
        "fallback-without-need",
        "the fallback is all it ever serves",
        _FAILING,
        "inconclusive(not_discriminating)",
        frozenset({"falls-back"}),
    ),
    Case("error-status", "the right fallback with status 503", _FAILING, "failed", frozenset({"few-errors"})),
    Case(
        "pool-makes-all-wait",
        "everybody waits for one pool",
        _SLOW,
        "failed",
        frozenset({"bystanders"}),
        also=(_BYSTANDERS,),
    ),
    Case(
        "pool-refuses-all",
        "one full pool refuses everybody",
        _SLOW,
        "failed(isolation_breach)",
        frozenset({CONTROL}),
        at_least="5%",
    ),
    Case("healthy-elsewhere", None, _SLOW, "passed", habit="healthy-pool", elsewhere=2),
    Case(
        "pool-refuses-elsewhere",
        "who needs no backend is refused too",
        _SLOW,
        "failed(isolation_breach)",
        frozenset({CONTROL}),
        at_least="5%",
        habit="pool-refuses-all",
        elsewhere=2,
    ),
    Case(
        "lost-header",
        "forwards no carrier of the scope",
        _FAILING,
        "inconclusive(fault_not_observed)",
        frozenset({EXPOSURE}),
        duration="3s",
    ),
)
"""The matrix: healthy services first, then each defect."""


@dataclass(frozen=True, slots=True)
class Finding:
    """This is what came of a case. *caught_by* is what really caught it, in the order of the experiment."""

    case: Case
    outcome: Outcome | None
    verdict: str = "did not run"
    caught_by: tuple[str, ...] = ()
    ok: bool = False

    @property
    def trouble(self) -> str:
        """Return what is wrong when it is not ok."""
        if self.case.defect is None:
            return "BLAMED" if self.caught_by else "NOT PASSED"
        return "NOT CAUGHT"

    @property
    def may_be_chance(self) -> bool:
        """Return whether it is not ok, and running it again may help."""
        again = self.outcome is not None and self.outcome.next is not None and self.outcome.next.retryable
        return not self.ok and again

    @property
    def sentence(self) -> str:
        """Return the first sentence of the explanation."""
        return "" if self.outcome is None else self.outcome.explanation.split("; ")[0]


def documents_for(cases: Sequence[Case]) -> Documents:
    """Return the services that *cases* need, their routes, and one experiment for each."""
    services = dict.fromkeys(case.service for case in cases)
    made = [_workload(BACKEND, {"HABIT": BACKEND})]
    peer = f"${{peer:{BACKEND}:{PORT}}}"
    made += [_workload(service, {"HABIT": service, "STOCK_URL": peer}) for service in services]
    made += [_virtual_service(), *(_experiment(case) for case in cases)]
    return parse_documents([("selftest.yaml", yaml.safe_dump_all(made, sort_keys=False))])


def finding_for(case: Case, outcome: Outcome | None) -> Finding:
    """Return what *outcome* says of *case*: the defect is caught by exactly what must, and nothing else is blamed."""
    if outcome is None:
        return Finding(case, None)
    verdict = str(outcome.verdict) + (f"({outcome.reason})" if outcome.reason else "")
    caught_by = _caught_by(outcome)
    ok = verdict == case.expected and (_beyond_checks(case) or frozenset(caught_by) == case.caught_by)
    return Finding(case, outcome, verdict, caught_by, ok)


def _beyond_checks(case: Case) -> bool:
    """Return whether the run as a whole says it, so that the checks have nothing to decide."""
    return bool(case.caught_by & {EXPOSURE, CONTROL})


def _caught_by(outcome: Outcome) -> tuple[str, ...]:
    if outcome.reason == "isolation_breach":
        return (CONTROL,)
    if outcome.reason == "fault_not_observed":
        return (EXPOSURE,)
    blamed = [
        check.id for check in outcome.checks if check.verdict is Verdict.FAILED or check.reason == "not_discriminating"
    ]
    return tuple(blamed)


def _workload(service: str, environment: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "luff.dev/v1alpha1",
        "kind": "LabWorkload",
        "metadata": {"name": f"{service}-v1", "namespace": NAMESPACE},
        "spec": {
            "service": service,
            "port": PORT,
            "run": ["python", "-m", "luff.lab.fleet"],
            "env": environment,
            "ready": {"path": "/health", "within": "60s"},
        },
    }


def _virtual_service() -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": BACKEND, "namespace": NAMESPACE},
        "spec": {"hosts": [BACKEND], "http": [{"route": [{"destination": {"host": BACKEND}}]}]},
    }


def _experiment(case: Case) -> dict[str, Any]:
    return {
        "apiVersion": "luff.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {
            "name": case.name,
            "namespace": NAMESPACE,
            "annotations": {"luff.dev/expected": case.expected},
        },
        "spec": {
            "target": {"host": BACKEND, "from": {"app": case.service}},
            "scope": {"header": "x-tenant"},
            "fault": case.fault,
            "traffic": {
                "requests": _requests(case),
                "rate": "40/s",
                "duration": case.duration,
                "timeout": "2s",
                "warmup": "1s",
            },
            "stopEarly": case.stop_early,
            "evidence": {"atLeast": case.at_least},
            "expect": _expectations(case),
        },
    }


def _requests(case: Case) -> list[Any]:
    here = f"http://{case.service}.{NAMESPACE}:{PORT}"
    elsewhere = [{"url": f"{here}/elsewhere", "weight": case.elsewhere}] if case.elsewhere else []
    return [f"GET {here}/", *elsewhere]


def _expectations(case: Case) -> list[dict[str, Any]]:
    """Return what every service is expected to do. Each claim is loose, so that few requests carry it."""
    return [
        {"id": "in-time", "latency": {"p90": "500ms"}},
        {"id": "few-errors", "errors": {"atMost": "10%"}},
        {"id": "keeps-the-name", "answer": {"json": {"path": "$.name", "equals": "lamp"}, "atLeast": "90%"}},
        {"id": "falls-back", "fallback": {"json": {"path": "$.stock", "equals": "unknown"}, "atLeast": "90%"}},
        {"id": "few-attempts", "attempts": {"of": BACKEND, "atMost": case.attempts_most, "atLeast": "80%"}},
        *case.also,
    ]
