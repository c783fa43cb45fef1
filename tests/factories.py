"""
Outcomes and samples to test with, that look like real ones.

Every outcome is one that luff could have made: `valid` holds them to the
published schema, and so every outcome that a test's run ends with.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jsonschema

from luff import __version__, stats
from luff.lifecycle import Phase as RoutePhase
from luff.model import Abort, Arm, Experiment, Fault, Object, Phase, Target, Verdict
from luff.names import Stamp
from luff.outcome import (
    ArmSummary,
    CheckResult,
    Context,
    Edge,
    EvidenceSummary,
    Generator,
    LatencySummary,
    MeshIdentity,
    Next,
    Outcome,
    RestoreReceipt,
    ScopeSummary,
    TimelineEntry,
)
from luff.routes import Injection, inject
from luff.samples import Failure, Flag, Samples
from luff.schema import schema_for
from luff.scope import Scope
from luff.selection import select
from luff.tallies import Tally
from luff.written import written

__all__ = [
    "EVERY_VERDICT",
    "aborted",
    "check",
    "errored",
    "failed",
    "inconclusive",
    "injection",
    "outcome",
    "passed",
    "resolved",
    "run_id",
    "samples",
    "stale",
    "stranded",
    "valid",
    "validate",
]

FILE = "experiments/bookinfo/reviews.yaml"
LAB = MeshIdentity(kind="lab", name="luff-lab", uid="6f7a4a0e-0000-4000-8000-000000000001")


_VALIDATORS = {kind: jsonschema.Draft7Validator(schema_for(kind)) for kind in ("outcome", "report")}


def validate(document: Any) -> None:
    """Assert that *document*, an outcome or a report as JSON, is what the published schema says."""
    kind = "report" if "outcomes" in document else "outcome"
    _VALIDATORS[kind].validate(document)


def valid(outcome: Outcome) -> Outcome:
    """Return *outcome*, which must be what the published schema says."""
    validate(outcome.model_dump(mode="json", by_alias=True))
    return outcome


def run_id(seed: object) -> str:
    """Return a run id of 16 hex digits that *seed* decides."""
    return hashlib.sha256(str(seed).encode()).hexdigest()[:16]


def resolved(**changes: Any) -> dict[str, Any]:
    """Return a resolved experiment, as an outcome carries it; *changes* are parts of its ``spec``."""
    spec = {
        "hypothesis": "When ratings slows down by 5 s, reviews answers within 2.8 s and leaves the stars out.",
        "target": {"host": "ratings"},
        "subject": "reviews",
        "fault": {"delay": {"duration": "5s"}},
        "traffic": {"requests": [{"name": "page", "url": "http://reviews.bookinfo:9080/reviews/0"}], "rate": "20/s"},
        "expect": [{"id": "gives-up-in-time", "quantile": 0.99, "limit": "2800ms"}],
        **changes,
    }
    metadata = {"name": "reviews-survives-slow-ratings", "namespace": "bookinfo", "labels": {"team": "books"}}
    experiment = Experiment.model_validate({"metadata": metadata, "spec": spec})
    return written(experiment)


def check(**changes: Any) -> CheckResult:
    """Return a passed latency check with *changes*."""
    return CheckResult.model_validate(
        {
            "id": "gives-up-in-time",
            "kind": "latency",
            "arm": "fault",
            "expression": "p99 ≤ 2.8 s",
            "verdict": Verdict.PASSED,
            "method": "sequential",
            "n": 1198,
            "violations": 0,
            "threshold": 0.01,
            "bound": 0.0075,
            "e_value": 41.2,
            "alpha": 0.05,
            "mde": 0.011,
            "measured": 2512.4,
            "unit": "ms",
            "rule": "the bound holds",
            "file": FILE,
            "line": 23,
            "explanation": "1 198 requests came back within 2.8 s of their due time.",
            **changes,
        }
    )


def outcome(**changes: Any) -> Outcome:
    """Return a passed outcome with *changes*."""
    spec = changes.pop("spec", None) or resolved()
    made = {
        "run": run_id("passed"),
        "experiment": "reviews-survives-slow-ratings",
        "labels": {"team": "books", "tier": "1"},
        "actor": "ada@build-7",
        "mesh": LAB,
        "subject": "reviews",
        "edge": Edge(caller="reviews", dependency="ratings"),
        "verdict": Verdict.PASSED,
        "explanation": "reviews gave up on ratings after 2.5 s and left the stars out, for 1 198 of 1 198 requests.",
        "phase": RoutePhase.CLEAN,
        "restore": RestoreReceipt(
            api="verified",
            data_plane="verified",
            object="identical",
            hash_before="a" * 64,
            hash_after="a" * 64,
            probes=12,
            seconds=0.21,
        ),
        "spec": spec,
        "spec_sha256": hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest(),
        "scope": ScopeSummary(carrier="any", arrived=["baggage", "header", "traceparent"], value_sha256="b" * 64),
        "evidence": EvidenceSummary(source="lab-log", per="request", expected=1198, observed=1198, exposure=1.0),
        "arms": {
            "fault": _arm(sent=1200, errors=0, p50=2504.1, p90=2507.9, p99=2512.4, most=2519.0),
            "control": _arm(sent=1200, errors=0, p50=11.2, p90=14.0, p99=21.7, most=38.1),
        },
        "checks": [
            check(),
            check(id="leaves-the-stars-out", kind="fallback", expression="answer without stars ≥ 99 %", line=24,
                  measured=100.0, unit="%", explanation="Every answer left the stars out; none did on the control arm."),
            check(id="bystanders", arm="control", expression="p95 ≤ 300 ms", line=26, n=1200, measured=17.3),
            check(id="recovers", kind="recovery", expression="within 10 s", line=27, n=9, bound=None, threshold=None,
                  measured=1.2, unit="s", explanation="Three windows in a row were like control after 1.2 s."),
        ],
        "timeline": [
            TimelineEntry(at="2026-11-23T10:00:00.000Z", phase="planned"),
            TimelineEntry(at="2026-11-23T10:00:00.112Z", phase="armed", note="2 twins"),
            TimelineEntry(at="2026-11-23T10:00:03.310Z", phase="live", note="seen in 2 of 2 proxies"),
            TimelineEntry(at="2026-11-23T10:01:03.400Z", phase="withdrawing"),
            TimelineEntry(at="2026-11-23T10:01:03.610Z", phase="clean", note="identical to before"),
        ],
        "generator": Generator(late_p99_ms=0.4, healthy=True),
        "seed": 7,
        "context": Context(commit="4f1c2d9e8b7a6f5e4d3c2b1a0f9e8d7c6b5a4f3e", branch="main",
                           ci_url="https://ci.example/jobs/1741",
                           trace_id="4bf92f3577b34da6a3ce929d0e0e4736"),
        "started_at": "2026-11-23T10:00:00.000Z",
        "ended_at": "2026-11-23T10:01:14.800Z",
        "luff": __version__,
        "expected": "passed",
        **changes,
    }  # fmt: skip
    return Outcome.model_validate(made)


def _arm(*, sent: int, errors: int, p50: float, p90: float, p99: float, most: float) -> ArmSummary:
    latency = LatencySummary(p50=p50, p90=p90, p99=p99, max=most)
    return ArmSummary(sent=sent, judged=sent - 2, errors=errors, latency_ms=latency)


def passed(**changes: Any) -> Outcome:
    """Return a run that passed."""
    return outcome(**changes)


def failed(**changes: Any) -> Outcome:
    """Return a run in which a caller did not cope."""
    usual = {
        "run": run_id("failed"),
        "experiment": "productpage-survives-slow-ratings",
        "subject": "productpage",
        "edge": Edge(caller="reviews", dependency="ratings"),
        "verdict": Verdict.FAILED,
        "explanation": "productpage gave up on reviews twice after 3.0 s and showed no reviews at all; the inner call "
        "to ratings, which waits 10 s, was still open each time it was cut.",
        "next": Next(who="caller", retryable=False, do="give reviews a timeout for ratings below 3.0 s"),
        "spec": resolved(
            subject="productpage",
            fault={"delay": {"duration": "7s"}},
            hypothesis="When ratings slows down by 7 s, productpage still shows the reviews within 3 s.",
            expect=[{"id": "gives-up-in-time", "quantile": 0.99, "limit": "3s"}],
        ),
        "evidence": EvidenceSummary(source="lab-log", per="request", expected=242, observed=242, exposure=1.0),
        "arms": {
            "fault": _arm(sent=244, errors=0, p50=6021.4, p90=6030.0, p99=6044.8, most=6051.2),
            "control": _arm(sent=244, errors=0, p50=18.9, p90=24.4, p99=37.7, most=61.0),
        },
        "checks": [
            check(
                verdict=Verdict.FAILED,
                expression="p99 ≤ 3 s",
                n=242,
                violations=242,
                bound=0.978,
                measured=6044.8,
                e_value=1.8e9,
                rule="the bound is broken",
                explanation="242 of 242 requests took longer than 3 s.",
            ),
            check(id="shows-reviews", kind="fallback", expression="answer contains “reviews” ≥ 99 %", line=25,
                  verdict=Verdict.FAILED, n=242, violations=242, bound=0.978, measured=0.0, unit="%",
                  explanation="No answer showed a review."),
            check(id="bystanders", arm="control", expression="p95 ≤ 300 ms", line=26, n=244, measured=26.1),
        ],
        "expected": "failed",
    }  # fmt: skip
    return outcome(**{**usual, **changes})


def inconclusive(**changes: Any) -> Outcome:
    """Return a run whose requests never reached the twin."""
    usual = {
        "run": run_id("inconclusive"),
        "experiment": "details-with-lost-scope",
        "edge": Edge(caller=None, dependency="details"),
        "subject": "storefront",
        "verdict": Verdict.INCONCLUSIVE,
        "reason": "fault_not_observed",
        "explanation": "The route was live, but 0 of 220 requests reached it: every carrier was gone at storefront.",
        "next": Next(who="caller", retryable=False, do="forward `baggage`, `traceparent` or `x-luff-run` in storefront"),
        "spec": resolved(subject="storefront", fault={"abort": {"http": 503, "percent": 25}}),
        "evidence": EvidenceSummary(source="lab-log", per="request", expected=220, observed=0, exposure=0.0),
        "scope": ScopeSummary(carrier="any", arrived=[], value_sha256="c" * 64),
        "arms": {
            "fault": _arm(sent=222, errors=0, p50=12.0, p90=15.0, p99=22.0, most=30.0),
            "control": _arm(sent=222, errors=0, p50=12.1, p90=15.2, p99=21.0, most=33.0),
        },
        "checks": [
            check(id="few-errors", kind="errors", expression="errors ≤ 1 %", verdict=Verdict.INCONCLUSIVE,
                  reason="fault_not_observed", n=220, measured=0.0, unit="%", rule="the fault was not observed",
                  explanation="Nothing can be said about a fault that did not fire."),
        ],
        "expected": None,
    }  # fmt: skip
    return outcome(**{**usual, **changes})


def aborted(**changes: Any) -> Outcome:
    """Return a run that a tripwire stopped; its routes are back but one edit of somebody else's was kept."""
    usual = {
        "run": run_id("aborted"),
        "verdict": Verdict.ABORTED,
        "reason": "tripwire",
        "explanation": "The control arm erred in 9 % of its requests, above the 5 % that stop a run.",
        "next": Next(who="mesh", retryable=True, do="find out why unmarked requests to reviews fail"),
        "restore": RestoreReceipt(
            api="verified",
            data_plane="unobserved",
            object="identical_but_for_others",
            foreign_changes=["spec.http[0].timeout: 3s → 2s"],
            hash_before="a" * 64,
            hash_after="d" * 64,
            seconds=0.4,
        ),
        "checks": [],
        "expected": None,
    }
    return outcome(**{**usual, **changes})


def errored(**changes: Any) -> Outcome:
    """Return a run that was refused before anything was injected."""
    usual = {
        "run": run_id("errored"),
        "verdict": Verdict.ERROR,
        "reason": "plan_refused:no_virtual_service",
        "explanation": "no VirtualService in bookinfo routes to inventory",
        "next": Next(who="experiment", retryable=False, do="commit the VirtualService that `luff plan` prints"),
        "restore": None,
        "evidence": None,
        "scope": None,
        "edge": None,
        "arms": {},
        "checks": [],
        "timeline": [TimelineEntry(at="2026-11-23T10:00:00.000Z", phase="planned")],
        "generator": None,
        "expected": None,
    }
    return outcome(**{**usual, **changes})


def stranded(**changes: Any) -> Outcome:
    """Return a run whose routes could not be shown to be back."""
    usual = {
        "run": run_id("stranded"),
        "verdict": Verdict.ERROR,
        "reason": "restore_not_verified",
        "explanation": "The API server stopped answering; bookinfo/ratings may still carry this run's routes.",
        "next": Next(
            who="runner", retryable=False, do=f"run `luff restore {run_id('stranded')} -n bookinfo --context prod`"
        ),
        "mesh": MeshIdentity(kind="cluster", name="prod", istio="1.30.0"),
        "phase": RoutePhase.STRANDED,
        "timeline": [
            TimelineEntry(at="2026-11-23T10:00:00.000Z", phase="planned"),
            TimelineEntry(at="2026-11-23T10:00:00.112Z", phase="armed", note="2 twins"),
            TimelineEntry(at="2026-11-23T10:00:03.310Z", phase="live"),
            TimelineEntry(at="2026-11-23T10:01:03.400Z", phase="withdrawing"),
            TimelineEntry(at="2026-11-23T10:03:03.401Z", phase="stranded", note="no answer for 120 s"),
        ],
        "restore": RestoreReceipt(api="unverified", data_plane="unobserved", object="differs", hash_before="a" * 64),
        "checks": [],
        "expected": None,
    }
    return outcome(**{**usual, **changes})


def stale(**changes: Any) -> Outcome:
    """Return a run whose object is clean, while proxies still run its fault, with *changes*."""
    usual = {
        "verdict": Verdict.ERROR,
        "reason": "restore_not_verified",
        "explanation": "bookinfo/ratings is clean in the API, but reviews-v2 still runs the fault.",
        "next": Next(who="runner", retryable=False, do="see `istioctl proxy-status --context prod`"),
        "checks": (),
    }
    made = passed(**{**usual, **changes})
    assert made.restore is not None
    return valid(made.model_copy(update={"restore": made.restore.model_copy(update={"data_plane": "stale"})}))


EVERY_VERDICT: Sequence[Callable[..., Outcome]] = (passed, failed, inconclusive, aborted, errored, stranded)
"""One maker for each way in which a run can end."""


def samples(
    *,
    seconds: float = 30.0,
    rate_hz: float = 20.0,
    seed: int = 7,
    fault_ms: float = 2504.0,
    control_ms: float = 12.0,
    error_share: Mapping[Arm, float] | None = None,
) -> Samples:
    """Return the samples of a run: 3 s of warm-up, *seconds* of fault, 5 s of recovery, both arms."""
    chance = random.Random(seed)
    made = Samples()
    phases = (
        (Phase.WARMUP, 0.0, 3.0),
        (Phase.FAULT, 3.0, 3.0 + seconds),
        (Phase.RECOVERY, 3.0 + seconds, 8.0 + seconds),
    )
    for phase, from_s, until_s in phases:
        for step in range(math.floor((until_s - from_s) * rate_hz)):
            for arm in Arm:
                due_ns = round((from_s + step / rate_hz + chance.random() * 0.02) * 1e9)
                slow = phase is Phase.FAULT and arm is Arm.FAULT
                latency_ms = chance.lognormvariate(0, 0.004 if slow else 0.3) * (fault_ms if slow else control_ms)
                number = made.open(arm, phase, 0, due_ns)
                made.sent_ns[number] = due_ns + round(chance.lognormvariate(0, 0.5) * 1e5)
                if chance.random() < (error_share or {}).get(arm, 0.0):
                    made.close(number, done_ns=due_ns + round(latency_ms * 1e6), failure=Failure.DEADLINE)
                else:
                    flags = Flag.TWIN | Flag.DELAY_INJECTED if slow else 0
                    made.close(number, done_ns=due_ns + round(latency_ms * 1e6), status=200, flags=flags, holds=1)
    return made


def large_virtual_service(routes: int, targeted: int) -> Object:
    """Return a VirtualService with *routes* http routes of which *targeted* lead to the host ``target``."""
    every = routes // targeted
    http = [
        {
            "name": f"route-{number}",
            "match": [{"uri": {"prefix": f"/p{number}/"}, "headers": {"x-tenant": {"exact": f"t{number}"}}}],
            "route": [{"destination": {"host": "target" if number % every == 0 else f"other-{number}"}}],
        }
        for number in range(routes)
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "large", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
        "spec": {"hosts": ["target"], "http": http},
    }


def first_decision(
    positions: Sequence[int], requests: int, threshold: float, *, alpha_fail: float = 0.005
) -> tuple[str, int, int] | None:
    """Return what a tally of *requests* with violations at *positions* (from 1) decides first, after how many, with how many violations."""
    tally, passed, failed = Tally(threshold), math.log(20), -math.log(alpha_fail)
    for position in [*positions, requests + 1]:
        k = len(tally.positions)
        begins = tally.n
        tally.add_all((), position - 1 - tally.n)
        tally.weigh()
        if tally.log_e_fail >= failed:
            return "failed", stats.FAIL_FLOOR, k
        if tally.log_e_pass >= passed:
            return "passed", max(begins, stats.passes_from(k, threshold, 0.05)), k
        if position <= requests:
            tally.add_all((0,), 1)
            tally.weigh()
            if tally.log_e_fail >= failed:
                return "failed", tally.n, k + 1
    return None


def injection(
    object_: Object, host: str, *, fault: Fault | None = None, scope: Scope | None = None, **stamp: Any
) -> Injection:
    """Return the twins for *host* in *object_*: aborts with 503, for ten minutes, but for what is told."""
    usual: dict[str, Any] = {"run": "0123456789abcdef", "created_s": 1_700_000_000, "expires_s": 1_700_000_600}
    return inject(
        select(object_, Target(host=host), namespace=object_["metadata"]["namespace"]),
        Stamp(scope=scope or Scope("a" * 32, "b" * 32), **(usual | stamp)),
        fault or Fault(abort=Abort(http=503)),
    )
