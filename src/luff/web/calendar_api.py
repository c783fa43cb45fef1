"""`/api/v1`: game days, when they are held, and what became of them."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime
from starlette.concurrency import run_in_threadpool

from luff.store.diary import RemarkKind
from luff.web.asking import Operator, Serving, Viewer
from luff.web.calendar_shapes import (
    Approval,
    ComingShown,
    GameDayList,
    OccurrenceList,
    OccurrenceShown,
    PauseShown,
    Pausing,
    Remarking,
    RemarkShown,
    ScheduleList,
    ScheduleShown,
    Start,
    game_day_shown,
    of_coming,
    of_occurrence,
    of_pause,
    of_remark,
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

CHANGES = documented("not_found", "conflict", "body_too_large", "wrong_content_type")

router = APIRouter(prefix="/api/v1", responses=documented())
Name = Annotated[str, Path(pattern=NAME)]
Id = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
Limit = Annotated[int, Query(ge=1, le=PAGE_MOST)]


@router.get("/schedules")
async def list_schedules(service: Serving, _: Viewer) -> ScheduleList:
    """Return when game days are held, each with its next firing."""
    calendar = service.calendar

    def read() -> list[ScheduleShown]:
        pauses = calendar.diary.pauses()
        return [schedule_shown(each, coming, pauses.get(each.metadata.name)) for each, coming in calendar.each_next()]

    return ScheduleList(
        items=await run_in_threadpool(read),
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
        remarks = calendar.diary.remarks([row.id for row in rows])
        coming = calendar.coming(now, end, schedule=schedule, limit=limit) if end > now else []
        return OccurrenceList(
            items=[of_occurrence(row, remarks.get(row.id, ())) for row in rows],
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


@router.post(
    "/gamedays/{game_day}:start",
    status_code=202,
    responses=documented("not_found", "conflict", "not_an_approver", "body_too_large", "wrong_content_type"),
)
async def start_game_day(service: Serving, person: Operator, game_day: Name, body: Start) -> OccurrenceShown:
    """Begin a game day by hand, at once; where it asks for an approval, only who may give it can. Not held says why."""
    return of_occurrence(await service.calendar.start_now(game_day, person, body.who))


@router.post("/gamedays/{game_day}:pause", responses=CHANGES)
async def pause_game_day(service: Serving, person: Operator, game_day: Name, body: Pausing) -> PauseShown:
    """Let a game day not be held until it is resumed. What is held now goes on."""
    return of_pause(await run_in_threadpool(service.calendar.pause, game_day, body.why, person))


@router.post("/gamedays/{game_day}:resume", responses=documented("not_found", "conflict"))
async def resume_game_day(service: Serving, person: Operator, game_day: Name) -> PauseShown:
    """Let a game day be held again, and return how it was paused."""
    return of_pause(await run_in_threadpool(service.calendar.resume, game_day, person))


@router.get("/occurrences/{occurrence}", responses=documented("not_found"))
async def get_occurrence(service: Serving, _: Viewer, occurrence: Id) -> OccurrenceShown:
    """Return what became of a firing, and what was said of it."""
    calendar = service.calendar

    def read() -> OccurrenceShown:
        return of_occurrence(calendar.occurrence(occurrence), calendar.remarks(occurrence))

    return await run_in_threadpool(read)


@router.post("/occurrences/{occurrence}:note", status_code=201, responses=CHANGES)
async def note_occurrence(service: Serving, person: Operator, occurrence: Id, body: Remarking) -> RemarkShown:
    """Write down what happens on a game day."""
    said = await run_in_threadpool(service.calendar.remark, occurrence, RemarkKind.NOTE, body.said, person)
    return of_remark(said)


@router.post("/occurrences/{occurrence}:finding", status_code=201, responses=CHANGES)
async def find_in_occurrence(service: Serving, person: Operator, occurrence: Id, body: Remarking) -> RemarkShown:
    """Write down what a game day has found, which asks for work."""
    said = await run_in_threadpool(service.calendar.remark, occurrence, RemarkKind.FINDING, body.said, person)
    return of_remark(said)


@router.post("/occurrences/{occurrence}:finish", responses=documented("not_found", "conflict"))
async def finish_occurrence(service: Serving, person: Operator, occurrence: Id) -> OccurrenceShown:
    """Close an occurrence that is over: nothing more is said of it."""
    calendar = service.calendar

    def finish() -> OccurrenceShown:
        return of_occurrence(calendar.finish(occurrence, person), calendar.remarks(occurrence))

    return await run_in_threadpool(finish)


@router.post("/occurrences/{occurrence}:stop", status_code=202, responses=documented("not_found", "conflict"))
async def stop_occurrence(service: Serving, person: Operator, occurrence: Id) -> OccurrenceShown:
    """Stop what an occurrence runs; the routes are restored. Comes back before that is done."""
    found = await service.calendar.stop_occurrence(occurrence, person)
    await service.audit_after(person, "occurrence.stop", occurrence, found.schedule)
    return of_occurrence(found)
