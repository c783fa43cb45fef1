"""`/api/v1`: game days, when they are held, and what became of them."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime
from starlette.concurrency import run_in_threadpool

from luff.web.asking import Operator, Serving, Viewer
from luff.web.calendar_shapes import (
    Approval,
    ComingShown,
    GameDayList,
    OccurrenceList,
    OccurrenceShown,
    ScheduleList,
    game_day_shown,
    of_coming,
    of_occurrence,
    problem_text,
    schedule_shown,
)
from luff.web.problems import Problem, documented
from luff.web.shapes import NAME

__all__ = ["router"]

PAGE = 50
PAGE_MOST = 1000
COMING_DAYS = 31
COMING_DAYS_MOST = 366
YEAR_LAST = 9000

router = APIRouter(prefix="/api/v1", responses=documented())
Name = Annotated[str, Path(pattern=NAME)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MOST)]


@router.get("/schedules")
async def list_schedules(service: Serving, _: Viewer) -> ScheduleList:
    """Return when game days are held, each with its next firing."""
    calendar = service.calendar
    found = await run_in_threadpool(calendar.each_next)
    return ScheduleList(
        items=[schedule_shown(*each) for each in found],
        problem=problem_text(calendar.game_days.problem),
        trouble=calendar.scheduler.trouble,
        last_tick=calendar.scheduler.last_tick,
    )


@router.get("/occurrences")
async def list_occurrences(
    service: Serving,
    _: Viewer,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    schedule: Annotated[str | None, Query(pattern=NAME)] = None,
    limit: Limit = PAGE,
) -> OccurrenceList:
    """
    Return what has fired since *since*, newest first, and what is to come until *until*, soonest first.

    Of both at most *limit*. Without *until* it is a month from now, and it is a year at most.
    """
    if until is not None and until.year > YEAR_LAST:
        raise Problem("invalid", f"query.until: the year is at most {YEAR_LAST}")
    calendar = service.calendar
    now = calendar.now()
    end = min(until or now + timedelta(days=COMING_DAYS), now + timedelta(days=COMING_DAYS_MOST))

    def read() -> OccurrenceList:
        rows = calendar.past(since, until, schedule=schedule, limit=limit)
        coming = calendar.coming(now, end, schedule=schedule, limit=limit) if end > now else []
        return OccurrenceList(
            items=[of_occurrence(row) for row in rows],
            coming=[of_coming(each) for each in coming if since is None or each.planned.at >= since],
        )

    return await run_in_threadpool(read)


@router.get("/gamedays")
async def list_game_days(service: Serving, _: Viewer) -> GameDayList:
    """Return the game days of the definitions."""
    game_days = service.calendar.game_days

    def read() -> GameDayList:
        items = [
            game_day_shown(each, game_days.experiments(each), game_days.warnings_of(name))
            for name, each in sorted(game_days.all.items())
        ]
        return GameDayList(items=items, problem=problem_text(game_days.problem))

    return await run_in_threadpool(read)


@router.post(
    "/gamedays/{game_day}:approve",
    responses=documented("not_found", "conflict", "not_an_approver", "body_too_large", "wrong_content_type"),
)
async def approve_game_day(service: Serving, person: Operator, game_day: Name, body: Approval) -> ComingShown:
    """Agree to an occurrence to come. Only whom the game day names as approvers may; twice is once."""
    if not body.scheduled_for.year <= YEAR_LAST:
        raise Problem("invalid", f"body.scheduled_for: the year is at most {YEAR_LAST}")
    audit = partial(service.audit, person, "gameday.approve", game_day)
    return of_coming(await service.calendar.approve(game_day, body.scheduled_for, person, body.who, audit))


@router.post("/occurrences/{occurrence}:stop", status_code=202, responses=documented("not_found", "conflict"))
async def stop_occurrence(
    service: Serving, person: Operator, occurrence: Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
) -> OccurrenceShown:
    """Stop what an occurrence runs; the routes are restored. Comes back before that is done."""
    found = await service.calendar.stop_occurrence(occurrence, person)
    await service.audit_after(person, "occurrence.stop", occurrence, found.schedule)
    return of_occurrence(found)
