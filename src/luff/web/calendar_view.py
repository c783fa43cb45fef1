"""What the calendar's page shows: what runs, what is to come and who has to agree, and what became of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from luff.errors import UsageError
from luff.gameday import check_start, in_words
from luff.model import GameDay
from luff.report.pages import left
from luff.store.diary import Pause, Remark, RemarkKind
from luff.store.occurrences import Occurrence, State
from luff.web.access import Person
from luff.web.calendar import Calendar, Coming
from luff.web.shapes import RunSummary

__all__ = ["RUNS_SHOWN", "calendar_view", "occurrence_view"]

COMING_DAYS = 366
COMING_SHOWN = 8
COMING_OF_EACH = 3
PAST_SHOWN = 50
GAME_DAYS_SHOWN = 100
RUNS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class ComingRow:
    """
    This is one firing to come. *state* is ``held``, ``waits`` for approvals, or ``skipped``; *said* says more.

    *offers* are those as whom the reader may approve it now.
    """

    id: str
    name: str
    day: str
    hour: str
    in_: str
    iso: str
    state: str
    said: str
    note: str | None
    agreed: tuple[str, ...]
    offers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PastRow:
    """This is one firing that has a row."""

    id: str
    name: str
    when: str
    at: datetime
    state: str
    reason: str | None
    said: str | None
    who: str | None
    began_at: datetime | None
    runs: tuple[str, ...]
    more: int
    due: datetime
    ended_at: datetime | None
    started_by: str | None
    finished_by: str | None
    finished_at: datetime | None
    findings: int


def calendar_view(calendar: Calendar, person: Person, now: datetime, *, may_change: bool) -> dict[str, Any]:
    """Return what the page shows to *person*; blocks on the store."""
    game_days = calendar.game_days.all
    coming = calendar.coming(now, now + timedelta(days=COMING_DAYS), limit=COMING_SHOWN, each_most=COMING_OF_EACH)
    past = calendar.past(None, now, limit=PAST_SHOWN)
    open_ = calendar.open(PAST_SHOWN)
    pauses = calendar.diary.pauses()
    remarks = calendar.diary.remarks([each.id for each in past])
    return {
        "coming": [_coming(each, person, now, may_change=may_change) for each in coming],
        "running": [_past(each, game_days) for each in open_],
        "past": [
            _past(each, game_days, remarks.get(each.id, ()))
            for each in past
            if each.state not in (State.CLAIMED, State.RUNNING)
        ],
        "game_days": [
            _game_day(each, calendar, person, pauses) for _, each in sorted(game_days.items())[:GAME_DAYS_SHOWN]
        ],
        "count": len(game_days),
        "trouble": calendar.scheduler.trouble,
        "last_tick": calendar.scheduler.last_tick,
    }


def occurrence_view(calendar: Calendar, row: Occurrence, runs: Sequence[RunSummary]) -> dict[str, Any]:
    """Return what the page of the occurrence *row* shows, with its *runs*; blocks on the store."""
    return {
        "row": _past(row, calendar.game_days.all),
        "over": row.state not in (State.CLAIMED, State.RUNNING),
        "remarks": calendar.remarks(row.id),
        "runs": runs,
    }


def _coming(coming: Coming, person: Person, now: datetime, *, may_change: bool) -> ComingRow:
    planned, zone = coming.planned, _zone(coming.planned.game_day)
    local = planned.at.astimezone(zone)
    state, said = "held", "it will be held"
    if coming.until is not None:
        state, said = _approval_words(coming, now, zone)
    if coming.skipped is not None:
        state, said = "skipped", f"will be skipped: {coming.skipped.said}"
    return ComingRow(
        id=planned.id,
        name=planned.game_day.metadata.name,
        day=f"{local:%a %-d %b %Y}",
        hour=f"{local:%H:%M %Z}",
        in_=left(planned.at, now),
        iso=planned.at.astimezone(UTC).isoformat(),
        state=state,
        said=said,
        note=planned.note,
        agreed=tuple(coming.agreed),
        offers=_offers(coming, person) if may_change and state == "waits" else (),
    )


def _approval_words(coming: Coming, now: datetime, zone: ZoneInfo) -> tuple[str, str]:
    assert coming.until is not None
    if not coming.missing:
        return "held", "it will be held"
    by = f"{coming.until.astimezone(zone):%a %-d %b %H:%M %Z}"
    count = f"{len(coming.agreed)} of {coming.needed} approval{'' if coming.needed == 1 else 's'}"
    if now > coming.until:
        return "skipped", f"will be skipped: {count} came by {by}"
    people = coming.planned.game_day.spec.people
    missing = [who for who in people.approvers if who not in coming.agreed] if people is not None else []
    return "waits", f"{count}; {' or '.join(missing)} can agree until {by}"


def _offers(coming: Coming, person: Person) -> tuple[str, ...]:
    """Return as whom *person* may approve it: as themselves; the machine's own user as anybody."""
    people = coming.planned.game_day.spec.people
    missing = [who for who in people.approvers if who not in coming.agreed] if people is not None else []
    return tuple(who for who in missing if person.token is None or who == person.name)


def _past(row: Occurrence, game_days: Mapping[str, GameDay], remarks: Sequence[Remark] = ()) -> PastRow:
    game_day = game_days.get(row.schedule)
    local = row.scheduled_for.astimezone(UTC if game_day is None else _zone(game_day))
    return PastRow(
        id=row.id,
        name=row.schedule,
        when=f"{local:%a %-d %b %Y %H:%M %Z}",
        at=row.scheduled_for,
        state=str(row.state),
        reason=None if row.reason is None else row.reason.replace("_", " "),
        said=row.said,
        who=row.who,
        began_at=row.began_at,
        runs=row.runs[:RUNS_SHOWN],
        more=max(0, len(row.runs) - RUNS_SHOWN),
        due=row.due,
        ended_at=row.ended_at,
        started_by=row.started_by,
        finished_by=row.finished_by,
        finished_at=row.finished_at,
        findings=sum(each.kind is RemarkKind.FINDING for each in remarks),
    )


def _game_day(game_day: GameDay, calendar: Calendar, person: Person, pauses: Mapping[str, Pause]) -> dict[str, Any]:
    spec = game_day.spec
    paused = pauses.get(game_day.metadata.name)
    experiments: Sequence[Any] = calendar.game_days.experiments(game_day)
    return {
        "name": game_day.metadata.name,
        "words": in_words(spec.schedule),
        "suites": ", ".join(spec.suites),
        "experiments": [each.name for each in experiments],
        "owner": None if spec.people is None else spec.people.owner,
        "file": game_day.file.rpartition("/")[2],
        "warnings": calendar.game_days.warnings_of(game_day.metadata.name),
        "paused": None if paused is None else paused.said,
        "start_as": None if paused is not None else _start_as(game_day, person),
    }


def _start_as(game_day: GameDay, person: Person) -> str | None:
    """Return as whom *person* may begin it by hand, ``None`` when they may not."""
    people = game_day.spec.people
    may = [person.name, *(() if people is None or person.token is not None else people.approvers)]
    for who in may:
        with suppress(UsageError):
            check_start(game_day, who=who)
            return who
    return None


def _zone(game_day: GameDay) -> ZoneInfo:
    return ZoneInfo(game_day.spec.schedule.time_zone)
