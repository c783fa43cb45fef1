"""The shapes of what the API says of game days. Requests forbid what they do not know."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from luff.errors import LuffError
from luff.gameday import in_words
from luff.model import Experiment, GameDay, SkipWhen
from luff.store.diary import Pause, Remark
from luff.store.occurrences import Occurrence
from luff.store.text import TEXT_LENGTH
from luff.web.calendar import Coming

__all__ = [
    "Approval",
    "ComingShown",
    "GameDayList",
    "GameDayShown",
    "OccurrenceList",
    "OccurrenceShown",
    "PauseShown",
    "Pausing",
    "RemarkShown",
    "Remarking",
    "ScheduleList",
    "ScheduleShown",
    "Start",
    "game_day_shown",
    "of_coming",
    "of_occurrence",
    "of_pause",
    "of_remark",
    "schedule_shown",
    "skip_words",
]


class Approval(BaseModel):
    """
    This agrees to the occurrence at *scheduled_for*.

    *who* is whoever asks when it is left out; only the machine's own user, who
    needs no token, may say for whom.
    """

    model_config = ConfigDict(extra="forbid")

    scheduled_for: Annotated[AwareDatetime, Field(description="When it is scheduled for, with a zone.")]
    who: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Start(BaseModel):
    """This begins a game day by hand. *who* is as in `Approval`."""

    model_config = ConfigDict(extra="forbid")

    who: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Pausing(BaseModel):
    """This pauses a game day, and says *why*."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH)]


class Remarking(BaseModel):
    """This is what whoever asks says of an occurrence."""

    model_config = ConfigDict(extra="forbid")

    said: Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH)]


class PauseShown(BaseModel):
    """This is why a game day is not held, who said so, and since when."""

    schedule: str
    who: str
    why: str
    at: datetime


class RemarkShown(BaseModel):
    """This is what *who* said of an occurrence: a ``note`` or a ``finding``."""

    kind: str
    who: str
    at: datetime
    said: str


class ComingShown(BaseModel):
    """
    This is a firing to come.

    *due* is *scheduled_for* and its jitter; *note* says what a change of clocks
    does; *reason* and *said* say why it will not be held, as far as that is
    certain; *approved_by* are those who have agreed, of whom it needs
    *approvals* by *approve_until*.
    """

    id: str
    schedule: str
    scheduled_for: datetime
    due: datetime
    note: str | None = None
    reason: str | None = None
    said: str | None = None
    approvals: int = 0
    approved_by: list[str] = []
    approve_until: datetime | None = None


class OccurrenceShown(BaseModel):
    """
    This is what became of a firing.

    *reason* is a stable word, *said* one sentence, *runs* lead to its runs;
    *started_by* is who began it by hand, *finished_by* who closed it, and
    *remarks* are the notes and findings, oldest first.
    """

    id: str
    schedule: str
    scheduled_for: datetime
    due: datetime
    state: str
    reason: str | None
    said: str | None
    who: str | None
    began_at: datetime | None
    ended_at: datetime | None
    runs: list[str]
    started_by: str | None
    finished_by: str | None
    finished_at: datetime | None
    remarks: list[RemarkShown] = []


class OccurrenceList(BaseModel):
    """This is what has fired, newest first, and what is *coming*, soonest first."""

    items: list[OccurrenceShown]
    coming: list[ComingShown]


class ScheduleShown(BaseModel):
    """
    This is when a game day is held.

    It is its rule, also in *words*, how it is *paused*, and its *next* firing,
    ``null`` for never again.
    """

    name: str
    cron: str
    time_zone: str
    words: str
    window_s: float
    misfire: str
    overlap: str
    jitter_s: float
    paused: PauseShown | None
    next: ComingShown | None


class ScheduleList(BaseModel):
    """
    This is every schedule, by name.

    *problem* says why the newest files are not used, *trouble* why the calendar
    could not be looked at last time, *last_tick* when it was.
    """

    items: list[ScheduleShown]
    problem: str | None = None
    trouble: str | None = None
    last_tick: datetime | None = None


class GameDayShown(BaseModel):
    """This is a game day: what it holds, who has to agree, what it expects, and *warnings* of what will surprise."""

    name: str
    words: str
    suites: list[str]
    experiments: list[str]
    owner: str | None
    approvers: list[str]
    approvals: int
    approve_by_s: float | None
    skip_when: list[str]
    expected: dict[str, str]
    file: str
    warnings: list[str] = []


class GameDayList(BaseModel):
    """This is every game day, by name; *problem* says why the newest files are not used."""

    items: list[GameDayShown]
    problem: str | None = None


def of_coming(coming: Coming) -> ComingShown:
    """Return *coming* as the API shows it."""
    planned, why = coming.planned, coming.skipped
    return ComingShown(
        id=planned.id,
        schedule=planned.game_day.metadata.name,
        scheduled_for=planned.at,
        due=planned.due,
        note=planned.note,
        reason=None if why is None else why.code,
        said=None if why is None else why.said,
        approvals=coming.needed,
        approved_by=list(coming.agreed),
        approve_until=coming.until,
    )


def of_occurrence(row: Occurrence, remarks: Iterable[Remark] = ()) -> OccurrenceShown:
    """Return *row* as the API shows it, with the *remarks* on it."""
    shown = OccurrenceShown.model_validate(row, from_attributes=True)
    shown.remarks = [of_remark(each) for each in remarks]
    return shown


def of_remark(remark: Remark) -> RemarkShown:
    """Return *remark* as the API shows it."""
    return RemarkShown.model_validate(remark, from_attributes=True)


def of_pause(pause: Pause) -> PauseShown:
    """Return *pause* as the API shows it."""
    return PauseShown.model_validate(pause, from_attributes=True)


def schedule_shown(game_day: GameDay, coming: Coming | None, paused: Pause | None) -> ScheduleShown:
    """Return the schedule of *game_day*, whose next firing is *coming*."""
    schedule = game_day.spec.schedule
    return ScheduleShown(
        name=game_day.metadata.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        words=in_words(schedule),
        window_s=schedule.window_s,
        misfire=schedule.misfire,
        overlap=schedule.overlap,
        jitter_s=schedule.jitter_s,
        paused=None if paused is None else of_pause(paused),
        next=None if coming is None else of_coming(coming),
    )


def game_day_shown(game_day: GameDay, experiments: Iterable[Experiment], warnings: Iterable[str]) -> GameDayShown:
    """Return *game_day* with the names of its *experiments*."""
    spec = game_day.spec
    people = spec.people
    return GameDayShown(
        name=game_day.metadata.name,
        words=in_words(spec.schedule),
        suites=list(spec.suites),
        experiments=[each.name for each in experiments],
        owner=None if people is None else people.owner,
        approvers=[] if people is None else list(people.approvers),
        approvals=0 if people is None else people.approvals,
        approve_by_s=None if people is None or not people.approvals else people.approve_by_s,
        skip_when=[skip_words(each) for each in spec.skip_when],
        expected={name: str(verdict) for name, verdict in spec.expected.items()},
        file=game_day.file.rpartition("/")[2],
        warnings=list(warnings),
    )


def skip_words(condition: SkipWhen) -> str:
    """Return *condition* in words."""
    if condition.ics is not None:
        return f"an event of {condition.ics}"
    if condition.prometheus is not None:
        return f"{condition.prometheus.query} is above {condition.prometheus.above:g}"
    return "a canary is progressing"


def problem_text(problem: LuffError | None) -> str | None:
    """Return why the newest files are not used, or ``None``."""
    return None if problem is None else str(problem)
