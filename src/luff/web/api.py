"""`/api/v1`: what programs may ask for. Every error is a problem of `luff.web.problems`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from luff.errors import StoreError, UsageError
from luff.lever import SYSTEM_NAMESPACE, LeverPulled, in_both, let_go, levers, pull, recorded
from luff.model import Verdict
from luff.outcome import MeshIdentity
from luff.report.document import read_outcomes
from luff.run import plan_only
from luff.store import RunFilter
from luff.web import finding, reports
from luff.web.asking import Admin, Operator, Serving, SpecPrefix, Viewer
from luff.web.problems import Problem, documented
from luff.web.reports import Format
from luff.web.shapes import (
    NAME,
    AuditList,
    ExperimentList,
    ExperimentSummary,
    FaultList,
    LeverChange,
    LeverList,
    LeverShown,
    Named,
    PlanSummary,
    RunList,
    RunSummary,
    Trend,
    audit_list,
    fault_list,
    of_experiment,
    of_job,
    of_row,
    trend_of,
)
from luff.web.views import asked, newest

__all__ = ["router"]

PAGE = 50
PAGE_MOST = 1000
KEY_MOST = 200
EVENT_MOST = 2**53
RETRY_MS = 2000
LAB = "lab"
"""The place of every lab's runs, see `luff.report.trend.place_of`."""

CHANGES = ("body_too_large", "wrong_content_type")
router = APIRouter(prefix="/api/v1", responses=documented())

Id = Annotated[
    str, Path(pattern=r"^[0-9a-zA-Z][0-9a-zA-Z_.-]{0,63}$", description="The id of a run, or of the request for one.")
]
ExperimentName = Annotated[str, Path(pattern=NAME)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MOST)]


@router.get("/experiments")
async def list_experiments(service: Serving, _: Viewer) -> ExperimentList:
    """Return what may be run."""
    found = await run_in_threadpool(service.experiments)
    problem = service.definitions.problem
    return ExperimentList(
        items=[of_experiment(each) for each in found], problem=None if problem is None else str(problem)
    )


@router.get("/experiments/{experiment}", responses=documented("not_found"))
async def get_experiment(service: Serving, _: Viewer, experiment: ExperimentName) -> ExperimentSummary:
    """Return one experiment."""
    return of_experiment(await run_in_threadpool(service.definitions.get, experiment))


@router.post("/plans", responses=documented("not_found", "mesh", "host_not_allowed", "policy", *CHANGES))
async def make_plan(service: Serving, _: Viewer, body: Named) -> PlanSummary:
    """Return what a run would do now. Nothing is changed, and nothing is kept."""
    experiment = await run_in_threadpool(service.definitions.get, body.experiment)
    await run_in_threadpool(service.check_allowed, experiment)
    rails = service.rails
    made = await plan_only(experiment, service.world.mesh, namespace=rails.namespace, policy=rails.policy)
    return PlanSummary(
        experiment=experiment.name,
        namespace=made.injection.namespace,
        virtual_service=made.injection.virtual_service,
        subject=made.subject,
        dependency=made.dependency,
        rate_hz=made.rate_hz,
        timeout_s=made.timeout_s,
        held=made.held,
        inferred=list(made.inferred),
        warnings=list(made.warnings),
        # The scope's secret is in them: who could send it could take the fault without a run.
        operations=[{"op": each["op"], "path": each["path"]} for each in made.injection.operations],
    )


@router.get("/runs", responses=documented("not_found"))
async def list_runs(
    service: Serving,
    _: Viewer,
    experiment: Annotated[str | None, Query(pattern=NAME)] = None,
    verdict: Verdict | None = None,
    dependency: Annotated[str | None, Query(max_length=253)] = None,
    since: datetime | None = None,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    limit: Limit = PAGE,
) -> RunList:
    """Return runs, newest first; those that wait or run here come before all others, on the first page."""
    if since is not None and since.tzinfo is None:
        raise Problem("invalid", "query.since: a time needs its zone, such as 2026-11-23T10:00:00Z")
    where = RunFilter(experiment=experiment, verdict=verdict, dependency=dependency, since=since)

    def read() -> RunList:
        try:
            rows = service.store.runs(where, limit=limit, before=cursor)
        except StoreError as error:
            if cursor is not None and ("no run" in error.message or "several runs" in error.message):
                raise Problem("not_found", "the cursor leads to no run") from error
            raise
        return RunList(items=[of_row(row) for row in rows], next=rows[-1].run if len(rows) == limit else None)

    found = await run_in_threadpool(read)
    if cursor is None and verdict is None and dependency is None and since is None:
        here = [
            of_job(job) for job in service.jobs if job.state != "ended" and experiment in (None, job.experiment.name)
        ]
        found.items = [*reversed(here), *found.items]
    return found


@router.post(
    "/runs",
    status_code=202,
    responses={
        **documented("not_found", "host_not_allowed", "queue_full", "closing", *CHANGES),
        202: {"headers": {"Location": {"description": "The run.", "schema": {"type": "string"}}}},
    },
)
async def post_run(
    service: Serving,
    person: Operator,
    body: Named,
    request: Request,
    response: Response,
    idempotency_key: Annotated[str | None, Header(max_length=KEY_MOST)] = None,
) -> RunSummary:
    """Start a run as soon as its object is free. The same Idempotency-Key again leads to the same run."""
    experiment = await run_in_threadpool(service.definitions.get, body.experiment)
    id_, job = await service.start_run(person, experiment, idempotency_key)
    response.headers["location"] = f"/api/v1/runs/{id_}"
    return of_job(job) if job is not None else (await finding.find(service, id_)).summary()


@router.post("/runs/{run}:stop", status_code=202, responses=documented("not_found", "conflict", "mesh"))
async def stop_run(service: Serving, person: Operator, run: Id) -> dict[str, str]:
    """Stop a run, wherever it runs; its routes are restored. Comes back before that is done."""
    await finding.stop(service, run, person)
    return {"state": "stopping"}


@router.get("/runs/{run}", responses=documented("not_found"))
async def get_run(service: Serving, _: Viewer, run: Id) -> RunSummary:
    """Return one run, with its whole outcome once it has ended."""
    return (await finding.find(service, run)).summary()


@router.get(
    "/runs/{run}/events",
    response_class=StreamingResponse,
    responses={**documented("not_found"), 200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def run_events(
    service: Serving, _: Viewer, run: Id, last_event_id: Annotated[str | None, Header(max_length=20)] = None
) -> StreamingResponse:
    """Send what happens as server-sent events, from the first or from after Last-Event-ID, until the run has ended."""
    number = (last_event_id or "0").strip() or "0"
    if not number.isdecimal() or not number.isascii() or int(number) > EVENT_MOST:
        raise Problem("invalid", "header.last-event-id: it is not one of ours")
    found = await finding.find(service, run)

    async def lines() -> AsyncIterator[str]:
        yield f"retry: {RETRY_MS}\n\n"
        async for event in finding.events(found, int(number)):
            yield (
                ": still here\n\n" if event is None else f"id: {event.id}\nevent: {event.name}\ndata: {event.data}\n\n"
            )

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})


@router.get(
    "/runs/{run}/report.{format}",
    response_class=Response,
    responses={
        **documented("not_found", "conflict"),
        200: {"content": {kind.partition(";")[0]: {} for kind in reports.TYPES.values()}},
    },
)
async def run_report(
    service: Serving, _: Viewer, run: Id, format_: Annotated[Format, Path(alias="format")]
) -> Response:
    """Return the report of a run that has ended."""
    outcome, samples = await finding.ended(service, run)
    text = await run_in_threadpool(reports.made, outcome, samples, format_)
    headers = {"content-security-policy": reports.policy_of(text)} if format_ == "html" else {}
    return Response(text.encode("utf-8", "backslashreplace"), media_type=reports.TYPES[format_], headers=headers)


@router.post(
    "/outcomes",
    status_code=201,
    responses={**documented("conflict", *CHANGES), 200: {"description": "It was here already"}},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def post_outcomes(
    service: Serving, person: Operator, request: Request, response: Response
) -> dict[str, list[str]]:
    """Keep results of another machine: an outcome, or a report of several (see `luff schema outcome`)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Problem("wrong_content_type", "send application/json")
    body = await request.body()
    try:
        outcomes = read_outcomes(body.decode("utf-8"), "the body")
    except UnicodeDecodeError as error:
        raise Problem("bad_request", f"the body is not UTF-8 (byte {error.start})") from error
    except UsageError as error:
        raise Problem("invalid", error.message, next_step=error.next_step) from error
    if not outcomes:
        raise Problem("invalid", "there is no outcome in it")
    fresh = await run_in_threadpool(service.store.bring, outcomes, actor=person.actor)
    for outcome in fresh:
        await run_in_threadpool(service.pushed, outcome)
    response.status_code = 201 if fresh else 200
    response.headers["location"] = f"/api/v1/runs/{outcomes[0].run}"
    return {"runs": [each.run for each in outcomes]}


@router.get("/faults")
async def list_faults(service: Serving, _: Viewer) -> FaultList:
    """Return what is injected right now, whoever did it. With `error` it could not be looked."""
    return fault_list(await service.faults.look())


@router.get("/lever", responses=documented("mesh"))
async def get_lever(service: Serving, _: Viewer) -> LeverList:
    """Return every lever that is on, everywhere or in the namespaces of the definitions. `error` says that the store's half is unknown."""
    namespaces = await run_in_threadpool(service.namespaces)
    in_cluster = await levers(service.world.mesh, [SYSTEM_NAMESPACE, *namespaces])
    in_store: list[LeverPulled] = []
    error = None
    if service.world.levers is not None:
        try:
            in_store = await recorded(service.world.levers)
        except StoreError as raised:
            error = raised.message
    shown = [
        LeverShown(namespace=p.namespace, who=p.who, why=p.why, when=p.when, cluster=p.cluster, store=p.store)
        for p in in_both(in_cluster, in_store)
    ]
    return LeverList(levers=shown, error=error)


@router.post("/lever", responses=documented("mesh", *CHANGES))
async def change_lever(service: Serving, person: Operator, body: LeverChange) -> LeverList:
    """Pull the lever in the cluster and in the store: every run stops and restores, new ones are refused; or put it back."""
    where = body.namespace or SYSTEM_NAMESPACE
    world = service.world
    if body.on:
        why = body.why.strip()
        if not why:
            raise Problem("invalid", "body.why: a lever needs a reason")
        done = await pull(world.mesh, world.levers, body.namespace, who=person.name, why=why, clock=world.clock)
        await service.audit_after(person, "lever.on", where, body.why)
        if done.cluster_error is not None and not done.holds:
            raise done.cluster_error
    else:
        await service.audit(person, "lever.off", where, body.why)
        left = await let_go(world.mesh, world.levers, body.namespace)
        for _, error in left.cluster_errors:
            raise error
        if left.store_error is not None:
            raise left.store_error
    return await get_lever(service, person)


@router.get("/trends")
async def get_trend(
    service: Serving,
    _: Viewer,
    experiment: Annotated[str, Query(pattern=NAME)],
    mesh: Literal["lab", "cluster"] | None = None,
    place: Annotated[str | None, Query(max_length=253)] = None,
    spec: SpecPrefix = None,
    limit: Limit = 200,
) -> Trend:
    """
    Return the newest runs of an experiment in one place, written one way, oldest first.

    Lab and cluster, two clusters, and two ways of writing it are never mixed:
    without *mesh* and *place* it is where this server works, without *spec* (the
    beginning of a hash) as it was written for the newest run there.
    """
    meant = _meant(service.world.identity, mesh, place)
    found = await run_in_threadpool(asked, service.store, experiment, meant, spec=spec, limit=limit)
    return trend_of(experiment, meant.kind, meant.name, found)


def _meant(here: MeshIdentity, kind: Literal["lab", "cluster"] | None, place: str | None) -> MeshIdentity:
    """Return the mesh that a question of a server *here* is about, *place* being the name of a cluster."""
    kind = kind or here.kind
    if kind == "lab":
        if place not in (None, LAB):
            raise Problem("invalid", "query.place: a lab has no places", next_step="add mesh=cluster")
        return MeshIdentity(kind="lab", name=LAB)
    if place is None and here.kind == "lab":
        raise Problem("invalid", "query.place: which cluster is meant is not said", next_step="add place=NAME")
    return MeshIdentity(kind="cluster", name=place or here.name)


@router.get("/badges/{experiment}.svg", response_class=Response, responses={200: {"content": {"image/svg+xml": {}}}})
async def get_badge(service: Serving, _: Viewer, experiment: ExperimentName) -> Response:
    """Return a badge with the newest verdict of an experiment where this server works."""
    found = await run_in_threadpool(newest, service.store, experiment, service.world.identity)
    return Response(reports.badge(experiment, found.verdict if found else None), media_type="image/svg+xml")


@router.get("/audit")
async def list_audit(
    service: Serving, _: Admin, before: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None, limit: Limit = PAGE
) -> AuditList:
    """Return who changed what, newest first."""
    rows = await run_in_threadpool(lambda: service.store.access.audits(limit=limit, before=before))
    return audit_list(rows, limit)
