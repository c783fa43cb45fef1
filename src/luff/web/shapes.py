"""The shapes of the API's requests and answers. Requests forbid what they do not know."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from luff.model import Experiment
from luff.report.words import fault_kind
from luff.store import AuditRow, RunRow
from luff.units import show_duration
from luff.web.faults import Seen
from luff.web.jobs import Job
from luff.web.views import Asked

__all__ = [
    "AuditList",
    "ExperimentList",
    "ExperimentSummary",
    "FaultList",
    "LeverChange",
    "LeverList",
    "Named",
    "PlanSummary",
    "RunList",
    "RunSummary",
    "Trend",
    "fault_list",
    "fault_text",
    "of_experiment",
    "of_job",
    "of_row",
    "trend_of",
]

NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Named(_Request):
    """This names an experiment of the definitions. Nothing else about a run comes with a request."""

    experiment: Annotated[str, Field(pattern=NAME, description="The name of an experiment in the definitions.")]


class LeverChange(_Request):
    """This pulls the lever or puts it back; *namespace* ``null`` is everywhere."""

    on: bool
    why: Annotated[str, Field(max_length=500)] = ""
    namespace: Annotated[str, Field(pattern=NAME)] | None = None


class ExperimentSummary(BaseModel):
    """This is an experiment that may be run."""

    name: str
    namespace: str | None
    labels: dict[str, str]
    hypothesis: str | None
    target: str
    fault: str
    file: str


class ExperimentList(BaseModel):
    """This is every experiment; *problem* says why the newest definitions are not used."""

    items: list[ExperimentSummary]
    problem: str | None = None


class PlanSummary(BaseModel):
    """This is what a run would do now."""

    experiment: str
    namespace: str
    virtual_service: str
    subject: str
    dependency: str
    rate_hz: float
    timeout_s: float
    held: float
    inferred: list[tuple[str, str, str]]
    warnings: list[str]
    operations: list[dict[str, Any]]


class RunSummary(BaseModel):
    """
    This is one run, or one that was asked for.

    *id* leads to it; *run* is the run's own id, ``null`` until there is one.
    *state* ``lost`` is one that its server or its process did not finish.
    """

    id: str
    run: str | None
    experiment: str
    state: Literal["waiting", "running", "ended", "lost"]
    actor: str
    verdict: str | None = None
    reason: str | None = None
    explanation: str | None = None
    phase: str | None = None
    mesh: str | None = None
    caller: str | None = None
    dependency: str | None = None
    fault: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: dict[str, Any] | None = None


class RunList(BaseModel):
    """This is a page of runs, newest first; *next* is the cursor of the page after, ``null`` on the last."""

    items: list[RunSummary]
    next: str | None = None


class FaultShown(BaseModel):
    """
    This is what one run has in one object.

    *state* is ``live``, ``unknown`` (its Lease could not be read, so that it may be live), ``newer``, ``expired``
    or ``orphaned``.
    """

    namespace: str
    virtual_service: str
    run: str | None
    state: str
    holder: str | None
    since: datetime | None
    until: datetime | None
    routes: list[str]


class FaultList(BaseModel):
    """This is what is injected, whoever did it. With *error* it could not be looked, and *items* are older."""

    items: list[FaultShown]
    doubtful: list[str]
    error: str | None
    seen_at: datetime | None


class LeverShown(BaseModel):
    """This is a lever that is on, in the cluster, in the store, or in both."""

    namespace: str
    who: str
    why: str
    when: str
    cluster: bool
    store: bool


class LeverList(BaseModel):
    """This is every lever that is on; none when empty. *error* says why those of the store are not known."""

    levers: list[LeverShown]
    error: str | None = None


class TrendCheck(BaseModel):
    """This is one check of one run."""

    id: str
    verdict: str
    measured: float | None
    threshold: float | None
    unit: str | None
    n: int
    violations: int


class TrendRun(BaseModel):
    """This is one run of a trend."""

    run: str
    started_at: datetime
    verdict: str
    reason: str | None
    spec_sha256: str
    commit: str | None
    checks: list[TrendCheck]


class OtherSpec(BaseModel):
    """This is another way in which the experiment was written there."""

    spec_sha256: str
    runs: int
    newest_at: datetime


class Trend(BaseModel):
    """This is the newest runs of an experiment in one place, written one way, oldest first; *others* were written otherwise."""

    experiment: str
    mesh: str
    place: str
    spec_sha256: str | None
    items: list[TrendRun]
    others: list[OtherSpec]


class AuditShown(BaseModel):
    """This is one change."""

    id: int
    at: datetime
    actor: str
    role: str | None
    address: str | None
    action: str
    object: str
    note: str | None


class AuditList(BaseModel):
    """This is a page of the audit, newest first."""

    items: list[AuditShown]
    next: int | None = None


def fault_text(experiment: Experiment) -> str:
    """Return the fault of *experiment* in words."""
    fault, said = experiment.spec.fault, []
    if fault.delay is not None:
        said.append(f"delay {show_duration(fault.delay.duration_s)}")
    if fault.abort is not None:
        said.append(f"abort {fault.abort.grpc or fault.abort.http}")
    return " + ".join(said)


def of_experiment(experiment: Experiment) -> ExperimentSummary:
    """Return what a list says of *experiment*."""
    target = experiment.spec.target
    return ExperimentSummary(
        name=experiment.name,
        namespace=experiment.metadata.namespace,
        labels=dict(experiment.metadata.labels),
        hypothesis=experiment.spec.hypothesis,
        target=target.host or target.virtual_service or "",
        fault=fault_text(experiment),
        file=experiment.file.rpartition("/")[2],
    )


def of_job(job: Job) -> RunSummary:
    """Return what is known of *job*."""
    outcome = job.outcome
    made = RunSummary(
        id=job.id,
        run=job.run,
        experiment=job.experiment.name,
        state=job.state.value,
        actor=job.actor,
        explanation=job.why_not,
        started_at=job.requested_at,
    )
    if outcome is None:
        return made
    edge = outcome.edge
    return made.model_copy(
        update={
            "verdict": str(outcome.verdict),
            "reason": outcome.reason,
            "explanation": outcome.explanation,
            "phase": str(outcome.phase),
            "mesh": f"{outcome.mesh.kind} {outcome.mesh.name}",
            "caller": None if edge is None else edge.caller,
            "dependency": None if edge is None else edge.dependency,
            "fault": fault_kind(outcome),
            "outcome": outcome.model_dump(mode="json", by_alias=True),
        }
    )


def of_row(row: RunRow) -> RunSummary:
    """Return what history's list says of a run."""
    return RunSummary(
        id=row.run,
        run=row.run,
        experiment=row.experiment,
        state="lost" if row.verdict is None else "ended",
        actor=row.actor,
        verdict=None if row.verdict is None else str(row.verdict),
        reason=row.reason,
        explanation=row.explanation,
        phase=str(row.phase),
        mesh=f"{row.mesh.kind} {row.mesh.name}",
        caller=row.caller,
        dependency=row.dependency,
        fault=row.fault,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def fault_list(seen: Seen) -> FaultList:
    """Return what was *seen*."""
    items = [
        FaultShown(
            namespace=each.namespace,
            virtual_service=each.virtual_service,
            run=each.run,
            state=each.state,
            holder=each.holder,
            since=each.since,
            until=each.until,
            routes=list(each.names),
        )
        for each in seen.faults
    ]
    return FaultList(items=items, doubtful=list(seen.doubtful), error=seen.error, seen_at=seen.at)


def trend_of(experiment: str, mesh: str, place: str, found: Asked) -> Trend:
    """Return what was *found* as the API shows it."""
    items = [
        TrendRun(
            run=point.run,
            started_at=point.started_at,
            verdict=str(point.verdict),
            reason=point.reason,
            spec_sha256=point.spec_sha256,
            commit=point.commit,
            checks=[
                TrendCheck(
                    id=check.id,
                    verdict=str(check.verdict),
                    measured=check.measured,
                    threshold=check.threshold,
                    unit=check.unit,
                    n=check.n,
                    violations=check.violations,
                )
                for check in point.checks
            ],
        )
        for point in found.points
    ]
    others = [
        OtherSpec(spec_sha256=each.series.spec_sha256, runs=each.runs, newest_at=each.newest_at)
        for each in found.others
    ]
    spec = None if found.standing is None else found.standing.series.spec_sha256
    return Trend(experiment=experiment, mesh=mesh, place=place, spec_sha256=spec, items=items, others=others)


def audit_list(rows: list[AuditRow], limit: int) -> AuditList:
    """Return a page of the audit."""
    items = [AuditShown(**{name: getattr(row, name) for name in AuditShown.model_fields}) for row in rows]
    return AuditList(items=items, next=items[-1].id if len(items) == limit else None)
