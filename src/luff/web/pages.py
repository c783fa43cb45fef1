"""
The pages: what a person sees of the API.

Every page can be read without a script. Forms carry the session's secret;
every page has the banner of what is live.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader
from starlette.concurrency import run_in_threadpool

from luff import __version__
from luff.model import Verdict
from luff.report.markup import environment_of
from luff.report.pages import ago, left
from luff.report.resolved import latency_limits_ms
from luff.report.trend import place_of
from luff.report.words import MARKS
from luff.store import Role, RunFilter
from luff.web import finding, reports
from luff.web.access import COOKIE, SESSION_S, Person, check_csrf, check_role
from luff.web.asking import Serving, SpecPrefix, person_or_none
from luff.web.calendar_shapes import problem_text
from luff.web.problems import Problem
from luff.web.service import Service
from luff.web.shapes import fault_list, of_experiment, of_job, of_row
from luff.web.views import asked, grid, newest, trend_view

__all__ = ["Changing", "Looking", "page", "prepare", "problem_page", "router"]

PAGE = 50
TREND_RUNS = 200
RECENT = 5

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


def _environment() -> Environment:
    made = environment_of("luff.web")
    made.globals.update(version=__version__, mark=lambda verdict: MARKS[Verdict(verdict)])
    return made


_templates = _environment()


def prepare() -> None:
    """Compile every page, before there is a run that the first look at each would hold up."""
    for name in _templates.list_templates(extensions=["j2"]):
        _templates.get_template(name)


async def _person(request: Request, service: Serving) -> Person:
    """Return who looks, in a session of theirs, so that every form of the page can carry its secret."""
    person = await person_or_none(request, service)
    if person is None:
        raise Problem("not_signed_in", "sign in first")
    if person.session is not None or person.token is not None:
        return person
    request.state.new_session = service.door.begin_local()
    session = service.door.session_of(request.state.new_session)
    return Person(person.name, person.role, None, person.address, session)


Looking = Annotated[Person, Depends(_person)]


def _needs_form(role: Role) -> Any:
    async def changing(request: Request, service: Serving, csrf: Annotated[str, Form(max_length=200)] = "") -> Person:
        person = await person_or_none(request, service)
        if person is None:
            raise Problem("not_signed_in", "sign in first")
        if person.session is None:
            raise Problem("csrf", "load the page again")
        check_csrf(request, person, csrf)
        check_role(person, role)
        return person

    return changing


Changing = Annotated[Person, Depends(_needs_form(Role.OPERATOR))]


async def page(
    request: Request, service: Service, person: Person | None, template: str, *, status: int = 200, **values: Any
) -> Response:
    """Answer with *template* as *person* sees it, filled with *values* and what every page shows."""
    now = datetime.now(UTC)
    common = {
        "person": person,
        "may_change": person is not None and person.role.covers(Role.OPERATOR),
        "csrf": "" if person is None or person.session is None else person.session.csrf,
        "path": request.url.path,
        "identity": service.world.identity,
        "now": now,
        "ago": lambda then: ago(then, now),
        "left": lambda until: left(until, now),
        "faults": fault_list(service.faults.seen),
        "definitions_problem": problem_text(service.definitions.problem),
        "here": {job.run: job.id for job in service.jobs if job.run is not None},
    }
    text = await run_in_threadpool(_templates.get_template(template).render, **common, **values)
    response = HTMLResponse(text.encode("utf-8", "backslashreplace"), status_code=status)
    secret = getattr(request.state, "new_session", None)
    if secret is not None:
        _set_cookie(request, response, secret)
    return response


def _set_cookie(request: Request, response: Response, secret: str) -> None:
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )


async def problem_page(request: Request, problem: Problem) -> Response | None:
    """Return the page of *problem* for who reads pages, ``None`` for a program."""
    path = request.url.path
    if path.startswith(("/api/", "/static/")) or path in ("/metrics", "/healthz", "/readyz"):
        return None
    if "text/html" not in request.headers.get("accept", ""):
        return None
    if problem.code == "not_signed_in":
        return RedirectResponse("/sign-in", status_code=303)
    service: Service = request.app.state.service
    try:
        person = await person_or_none(request, service)
    except Exception:  # the page of a problem must not fail by another one
        return None
    return await page(request, service, person, "problem.html.j2", status=problem.status, problem=problem)


@router.get("/")
async def overview(request: Request, service: Serving, person: Looking) -> Response:
    """Show every hop that was ever broken."""
    now = datetime.now(UTC)
    mesh = service.world.identity
    here = (mesh.kind, place_of(mesh.kind, mesh.name))

    def read() -> dict[str, Any]:
        rows = service.store.runs(RunFilter(mesh=mesh), limit=RECENT)
        return {
            **grid([each for each in service.store.coverage() if (each.mesh_kind, each.place) == here], now),
            "recent": [of_row(row) for row in rows],
            "count": len(service.experiments()),
        }

    values = await run_in_threadpool(read)
    return await page(request, service, person, "overview.html.j2", **values)


@router.get("/experiments")
async def experiments(request: Request, service: Serving, person: Looking) -> Response:
    """Show what may be run."""

    def read() -> list[Any]:
        mesh = service.world.identity
        return [(of_experiment(each), newest(service.store, each.name, mesh)) for each in service.experiments()]

    rows = await run_in_threadpool(read)
    return await page(request, service, person, "experiments.html.j2", rows=rows)


@router.get("/runs")
async def runs(
    request: Request, service: Serving, person: Looking, before: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """Show runs, newest first."""
    rows = await run_in_threadpool(service.store.runs, limit=PAGE, before=before)
    here = [] if before else [of_job(job) for job in service.jobs if job.state != "ended"]
    return await page(
        request,
        service,
        person,
        "runs.html.j2",
        rows=[*reversed(here), *(of_row(row) for row in rows)],
        next=rows[-1].run if len(rows) == PAGE else None,
    )


@router.get("/runs/{run}")
async def run(request: Request, service: Serving, person: Looking, run: str) -> Response:
    """Show one run: live, or its report."""
    found = await finding.find(service, run)
    if found.outcome is not None and run != found.outcome.run:
        return RedirectResponse(f"/runs/{found.outcome.run}", status_code=303)
    if found.outcome is None:
        return await page(request, service, person, "live.html.j2", run=found.summary(), live=found.live)
    outcome, samples = await finding.ended(service, run)
    whole = await run_in_threadpool(reports.made, outcome, samples, "html")
    return await page(request, service, person, "run.html.j2", outcome=outcome, report=reports.fragment(whole))


@router.get("/trends/{experiment}")
async def trend(
    request: Request, service: Serving, person: Looking, experiment: str, spec: SpecPrefix = None
) -> Response:
    """Show how an experiment went over time, where this server works and as it was written once."""
    found = await run_in_threadpool(
        asked, service.store, experiment, service.world.identity, spec=spec, limit=TREND_RUNS
    )
    known = experiment in await run_in_threadpool(service.definitions.all)
    if found.standing is None and not found.others and not known:
        raise Problem("not_found", f"there is no experiment {experiment[:63]!r}")
    limits_ms: dict[str, float] = {}
    if found.points:
        limits_ms = latency_limits_ms(await run_in_threadpool(service.store.outcome, found.points[-1].run))
    view = trend_view(found, datetime.now(UTC), limits_ms)
    return await page(request, service, person, "trend.html.j2", experiment=experiment, known=known, **view)


@router.get("/banner")
async def banner(request: Request, service: Serving, person: Looking) -> Response:
    """Show what is live, for a page that asks again."""
    return await page(request, service, person, "banner.html.j2")


@router.post("/runs")
async def start(service: Serving, person: Changing, experiment: Annotated[str, Form(max_length=63)]) -> Response:
    """Start a run, and lead to it."""
    found = await run_in_threadpool(service.definitions.get, experiment)
    id_, _ = await service.start_run(person, found, None)
    return RedirectResponse(f"/runs/{id_}", status_code=303)


@router.post("/stop")
async def stop(service: Serving, person: Changing, run: Annotated[str, Form(max_length=64)]) -> Response:
    """Stop a run, and lead to it."""
    await finding.stop(service, run, person)
    try:
        await finding.find(service, run)
    except Problem:
        return RedirectResponse("/", status_code=303)
    return RedirectResponse(f"/runs/{run}", status_code=303)


@router.get("/sign-in")
async def sign_in_page(request: Request, service: Serving) -> Response:
    """Ask for a token."""
    if await person_or_none(request, service) is not None:
        return RedirectResponse("/", status_code=303)
    return await page(request, service, None, "sign-in.html.j2", wrong=False)


@router.post("/sign-in")
async def sign_in(request: Request, service: Serving, token: Annotated[str, Form(max_length=400)]) -> Response:
    """Begin a session."""
    try:
        secret = await run_in_threadpool(service.door.sign_in, token)
    except Problem:
        return await page(request, service, None, "sign-in.html.j2", wrong=True, status=401)
    response = RedirectResponse("/", status_code=303)
    _set_cookie(request, response, secret)
    return response


@router.post("/sign-out")
async def sign_out(
    request: Request, service: Serving, _: Annotated[Person, Depends(_needs_form(Role.VIEWER))]
) -> Response:
    """End the session."""
    service.door.sign_out(request.cookies.get(COOKIE))
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(COOKIE, path="/")
    return response


_REPORT_CSS = PackageLoader("luff.report")


@router.get("/assets/report.css")
async def report_css() -> Response:
    """Return the reports' own style sheet, so that pages look like them."""
    source, _, _ = _REPORT_CSS.get_source(_templates, "report.css")
    return Response(source, media_type="text/css", headers={"cache-control": "max-age=300"})
