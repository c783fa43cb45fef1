"""
What happened in a run, collected while it happens, and made into one `Outcome`.

Every step writes here as soon as it is known, so that whatever ends the run
early still leaves an outcome that says how far it came. The scope's secret
never enters: what is collected holds its hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from luff import __version__
from luff.builds import Build
from luff.default_claims import expect_block
from luff.exposure import Exposure, exposure
from luff.inject import Live
from luff.lifecycle import Phase
from luff.model import Arm, Experiment, Verdict
from luff.model import Phase as Part
from luff.outcome import (
    ArmSummary,
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
from luff.plan import Plan
from luff.routes import foreign_changes
from luff.samples import PENDING, Evidence, Failure, Samples
from luff.settle import Settled
from luff.stats import quantile
from luff.verdicts import Judgement
from luff.written import spec_sha256, written

__all__ = ["Record", "iso"]

_DATA_PLANE: dict[str, Literal["verified", "unobserved", "stale"]] = {"gone": "verified", "stale": "stale"}
EXPECTED_ANNOTATION = "luff.dev/expected"


def iso(unix_s: float) -> str:
    """Return *unix_s* as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Record:
    """This is one run so far."""

    experiment: Experiment
    run: str
    mesh: MeshIdentity
    actor: str
    seed: int
    context: Context
    started_s: float
    samples: Samples = field(default_factory=Samples)
    timeline: list[TimelineEntry] = field(default_factory=list)
    plan: Plan | None = None
    live: Live | None = None
    settled: Settled | None = None
    gone: Settled | None = None
    evidence: Evidence | None = None
    generator: Generator | None = None

    def step(self, now_s: float, phase: str, note: str | None = None) -> None:
        """Write one line of the timeline."""
        self.timeline.append(TimelineEntry(at=iso(now_s), phase=phase, note=note))

    def note_build(self, found: Build) -> None:
        """Write down what is tested, unless whoever began the run knew."""
        known = {"image": self.context.image or found.image, "revision": self.context.revision or found.revision}
        self.context = self.context.model_copy(update=known)

    @property
    def phase(self) -> Literal[Phase.CLEAN, Phase.STRANDED]:
        """Return where the routes are at the end."""
        # Clean is what was proven: an injection without a withdrawal is stranded, whoever forgot to say so.
        open_ = self.live is not None and self.live.injection is not None and self.live.withdrawal is None
        return Phase.STRANDED if open_ else Phase.CLEAN

    def outcome(self, judgement: Judgement, *, ended_s: float, measured: bool = True) -> Outcome:
        """Return the outcome, with *judgement* as what was learnt; without *measured* only that and where the routes are."""
        return Outcome(
            run=self.run,
            experiment=self.experiment.name,
            labels=dict(self.experiment.metadata.labels),
            actor=self.actor,
            mesh=self.mesh,
            subject=None if self.plan is None else self.plan.subject,
            edge=self.edge if measured else None,
            verdict=judgement.verdict,
            reason=judgement.reason,
            explanation=self._redacted(judgement.explanation),
            next=judgement.next,
            phase=self.phase,
            restore=self._receipt(compared=measured),
            spec=self.spec,
            spec_sha256=self.spec_sha256,
            scope=self.scope if measured else None,
            evidence=self._evidence(judgement.met) if measured else None,
            arms=self._arms() if measured else {},
            checks=list(judgement.checks),
            timeline=self.timeline,
            generator=self.generator if measured else None,
            seed=self.seed,
            context=self.context,
            started_at=iso(self.started_s),
            ended_at=iso(ended_s),
            luff=__version__,
            known_failure=None
            if self.experiment.spec.known_failure is None
            else self.experiment.spec.known_failure.model_dump(mode="json"),
            expected=self.experiment.metadata.annotations.get(EXPECTED_ANNOTATION),
            default_expect=expect_block(self.experiment) if self.experiment.defaults else None,
        )

    @property
    def spec(self) -> dict[str, Any]:
        """Return the resolved experiment, as the document that `luff run` takes."""
        return written(self.experiment)

    @property
    def spec_sha256(self) -> str:
        """Return the hash by which history tells experiments of one name apart: of what it means, however that is written."""
        return spec_sha256(self.experiment)

    def _redacted(self, text: str) -> str:
        return text if self.plan is None else self.plan.stamp.scope.redact(text)

    @property
    def _injected(self) -> bool:
        return self.live is not None and self.live.injection is not None and self.live.maybe_applied

    @property
    def edge(self) -> Edge | None:
        """Return the broken hop as far as it is known."""
        if self.plan is None:
            return None
        callers = self.evidence.callers if self.evidence is not None else None
        seen = callers.most_common(1)[0][0] if callers else None
        return Edge(caller=self.plan.caller or seen, dependency=self.plan.dependency)

    @property
    def scope(self) -> ScopeSummary | None:
        """Return what marks the requests, without the secret."""
        if self.plan is None:
            return None
        arrived = sorted(str(carrier) for carrier in self.evidence.arrived) if self.evidence is not None else []
        return ScopeSummary(
            carrier=self.experiment.spec.scope.carrier, arrived=arrived, value_sha256=self.plan.stamp.scope.digest
        )

    def _receipt(self, *, compared: bool) -> RestoreReceipt | None:
        """Return what is known about the routes; unless *compared*, not what others changed meanwhile."""
        if not self._injected or self.plan is None or self.live is None or self.live.injection is None:
            return None
        before = self.live.injection.hash_before
        data_plane = _DATA_PLANE.get(self.gone.state if self.gone else "", "unobserved")
        done = self.live.withdrawal
        if done is None:
            return RestoreReceipt(api="unverified", data_plane=data_plane, object="differs", hash_before=before)
        changes = []
        if compared and done.object_ is not None:
            changes = foreign_changes(self.plan.virtual_service, done.object_)
        state: Literal["identical", "identical_but_for_others", "differs", "gone"]
        state = "gone" if done.object_ is None else "identical"
        if done.object_ is not None and done.hash_after != before:
            state = "identical_but_for_others" if changes else "differs"
        return RestoreReceipt(
            api="verified",
            data_plane=data_plane,
            object=state,
            foreign_changes=[self._redacted(change) for change in changes],
            hash_before=before,
            hash_after=done.hash_after,
            probes=self.gone.looks if self.gone else 0,
            seconds=round(done.seconds + (self.gone.seconds if self.gone else 0.0), 4),
        )

    def _evidence(self, met: Exposure | None) -> EvidenceSummary | None:
        if self.evidence is None or not self._injected:
            return None
        met = met or exposure(self.samples, self.evidence, self.experiment)
        mean = met.calls_per_request
        return EvidenceSummary(
            source=self.evidence.source,
            per=self.evidence.per,
            expected=met.sent,
            observed=met.least,
            exposure=round(met.least / met.sent, 4) if met.sent else 0.0,
            calls_per_request=None if mean is None else round(mean, 3),
            note=self._redacted(self.evidence.remarks) or None,
            bystanders=[self._redacted(name) for name in met.elsewhere.names(self.experiment)],
        )

    def _arms(self) -> dict[str, ArmSummary]:
        if not self._injected:
            return {}
        return {str(arm): self._arm(arm) for arm in Arm}

    def _arm(self, arm: Arm) -> ArmSummary:
        samples = self.samples
        sent = judged = errors = 0
        latencies_ms: list[float] = []
        for number in samples.rows(arm=arm, phase=Part.FAULT):
            # What was handed over ahead of its time, and called back before it, was never sent.
            sent += samples.failure[number] != Failure.CUT or samples.sent_ns[number] != PENDING
            if not samples.judged(number):
                continue
            judged += 1
            failure = samples.failure[number]
            errors += failure != Failure.NONE or samples.status[number] >= 500
            if failure == Failure.NONE:
                latencies_ms.append((samples.done_ns[number] - samples.due_ns[number]) / 1e6)
        latencies_ms.sort()

        def at(share: float) -> float | None:
            return round(quantile(latencies_ms, share), 3) if latencies_ms else None

        return ArmSummary(
            sent=sent,
            judged=judged,
            errors=errors,
            latency_ms=LatencySummary(p50=at(0.5), p90=at(0.9), p99=at(0.99), max=at(1.0)),
        )


def stopped(verdict: Verdict, reason: str | None, explanation: str, next_: Next | None) -> Judgement:
    """Return the judgement of a run that ended before anything could be judged."""
    return Judgement(verdict=verdict, reason=reason, explanation=explanation, next=next_, checks=())
