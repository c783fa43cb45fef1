"""The pages of game days: the calendar, one occurrence, and what people do with them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import AwareDatetime
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from luff.store import Role
from luff.store.diary import RemarkKind
from luff.store.text import TEXT_LENGTH
from luff.web import finding
from luff.web.asking import Serving
from luff.web.calendar_view import RUNS_SHOWN, calendar_view, occurrence_view
from luff.web.pages import Changing, Looking, page
from luff.web.problems import Problem
from luff.web.service import Service
from luff.web.shapes import RunSummary

__all__ = ["router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
ID = "^[0-9a-f]{16}$"
GameDayName = Annotated[str, Form(max_length=63)]
OccurrenceId = Annotated[str, Form(pattern=ID)]
Said = Annotated[str, Form(max_length=TEXT_LENGTH)]


@router.get("/calendar")
async def calendar(request: Request, service: Serving, person: Looking) -> Response:
    """Show game days: what is held, what is to come and needs whom, and what became of the rest."""
    may_change = person.role.covers(Role.OPERATOR)
    now = service.calendar.now()
    view = await run_in_threadpool(calendar_view, service.calendar, person, now, may_change=may_change)
    return await page(request, service, person, "calendar.html.j2", **view)


@router.post("/calendar/approve")
async def approve(
    service: Serving,
    person: Changing,
    game_day: GameDayName,
    scheduled_for: Annotated[AwareDatetime, Form()],
    who: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Agree to a game day, and lead back to the calendar."""
    audit = partial(service.audit, person, "gameday.approve", game_day)
    await service.calendar.approve(game_day, scheduled_for, person, who or None, audit)
    return RedirectResponse("/calendar", status_code=303)


@router.post("/calendar/stop")
async def stop_game_day(service: Serving, person: Changing, occurrence: OccurrenceId) -> Response:
    """Stop what a game day runs, and lead back to the calendar."""
    found = await service.calendar.stop_occurrence(occurrence, person)
    await service.audit_after(person, "occurrence.stop", occurrence, found.schedule)
    return RedirectResponse("/calendar", status_code=303)


@router.post("/calendar/start")
async def start_game_day(
    service: Serving, person: Changing, game_day: GameDayName, who: Annotated[str, Form(max_length=200)] = ""
) -> Response:
    """Begin a game day by hand, and lead to its occurrence."""
    found = await service.calendar.start_now(game_day, person, who or None)
    return _to(found.id)


@router.post("/calendar/pause")
async def pause_game_day(service: Serving, person: Changing, game_day: GameDayName, why: Said = "") -> Response:
    """Let a game day not be held, and lead back to the calendar."""
    await run_in_threadpool(service.calendar.pause, game_day, why, person)
    return RedirectResponse("/calendar", status_code=303)


@router.post("/calendar/resume")
async def resume_game_day(service: Serving, person: Changing, game_day: GameDayName) -> Response:
    """Let a game day be held again, and lead back to the calendar."""
    await run_in_threadpool(service.calendar.resume, game_day, person)
    return RedirectResponse("/calendar", status_code=303)


@router.post("/calendar/remark")
async def remark(
    service: Serving,
    person: Changing,
    occurrence: OccurrenceId,
    kind: Annotated[RemarkKind, Form()],
    said: Said = "",
) -> Response:
    """Write down a note or a finding, and lead back to the occurrence."""
    await run_in_threadpool(service.calendar.remark, occurrence, kind, said, person)
    return _to(occurrence)


@router.post("/calendar/finish")
async def finish(service: Serving, person: Changing, occurrence: OccurrenceId) -> Response:
    """Close an occurrence, and lead back to it."""
    await run_in_threadpool(service.calendar.finish, occurrence, person)
    return _to(occurrence)


@router.get("/calendar/{occurrence}")
async def show_occurrence(
    request: Request, service: Serving, person: Looking, occurrence: Annotated[str, Path(pattern=ID)]
) -> Response:
    """Show what became of one firing, its runs, and what was said of it."""
    row = await run_in_threadpool(service.calendar.occurrence, occurrence)
    runs = [found for run in row.runs[:RUNS_SHOWN] if (found := await _run(service, run)) is not None]
    view = await run_in_threadpool(occurrence_view, service.calendar, row, runs)
    return await page(request, service, person, "occurrence.html.j2", **view)


async def _run(service: Service, run: str) -> RunSummary | None:
    """Return what is known of *run*, ``None`` where it has been pruned."""
    try:
        return (await finding.find(service, run)).summary()
    except Problem:
        return None


def _to(occurrence: str) -> Response:
    return RedirectResponse(f"/calendar/{occurrence}", status_code=303)
