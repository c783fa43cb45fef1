"""
What people do on game days: pause one, say something of an occurrence, finish it.

What must stay true:

1. A change and its row in the audit are one transaction.
2. What is written stays: a pause ends, but a note, a finding and a finish are never changed.
3. Nothing is added to what is finished, and only what is over is finished.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from luff.errors import UsageError
from luff.store import tables as t
from luff.store.access import Actor, write_audit
from luff.store.engine import Database, insert_into
from luff.store.text import TEXT_LENGTH, key, long_text

if TYPE_CHECKING:
    from luff.store import Store

__all__ = ["REMARKS_MOST", "Diary", "Pause", "Remark", "RemarkKind"]

REMARKS_MOST = 1000
"""How many notes and findings one occurrence may have."""


class RemarkKind(StrEnum):
    """This is what somebody says of an occurrence: a *note* of what happens, or a *finding*, which asks for work."""

    NOTE = "note"
    FINDING = "finding"


@dataclass(frozen=True, slots=True)
class Pause:
    """This is why *schedule* is not held, who said so, and since when."""

    schedule: str
    who: str
    why: str
    at: datetime

    @property
    def said(self) -> str:
        """Return it as a sentence."""
        return f"{self.who} paused it at {self.at:%Y-%m-%d %H:%M %Z}: {self.why}"


@dataclass(frozen=True, slots=True)
class Remark:
    """This is what *who* said of an occurrence."""

    kind: RemarkKind
    who: str
    at: datetime
    said: str


class Diary:
    """This is the part of the store for what people do on game days; every method raises `luff.errors.StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def of(cls, store: Store) -> Diary:
        """Return the diary of an open *store*, on its connections."""
        return cls(store._database)

    def pause(self, schedule: str, why: str, *, actor: Actor, now: datetime) -> Pause:
        """Let *schedule* not be held until `resume`; `UsageError` when it is paused already, or for no reason."""
        why = _said(why, "say why it is paused")
        with self._database.write() as connection:
            row = {"schedule": key(schedule), "who": key(actor.name), "why": why, "at": now}
            written = insert_into(connection, t.pause).values(**row).on_conflict_do_nothing()
            if connection.execute(written.returning(t.pause.c.schedule)).first() is None:
                there = _pause(connection, schedule)
                said = "" if there is None else f": {there.said}"
                raise UsageError(f"{schedule} is paused already{said}", next_step="resume it first")
            write_audit(connection, "gameday.pause", schedule, actor, at=now, note=why)
        return Pause(schedule, actor.name, why, now)

    def resume(self, schedule: str, *, actor: Actor, now: datetime) -> Pause:
        """Let *schedule* be held again, and return how it was paused; `UsageError` when it was not."""
        with self._database.write() as connection:
            there = _pause(connection, schedule)
            if there is None:
                raise UsageError(f"{schedule} is not paused")
            connection.execute(delete(t.pause).where(t.pause.c.schedule == key(schedule)))
            write_audit(connection, "gameday.resume", schedule, actor, at=now, note=there.said)
        return there

    def pauses(self) -> dict[str, Pause]:
        """Return how each game day that is paused is paused."""
        with self._database.read() as connection:
            return {row.schedule: _made(row) for row in connection.execute(select(t.pause))}

    def remark(self, occurrence: str, kind: RemarkKind, said: str, *, actor: Actor, now: datetime) -> Remark:
        """Add to *occurrence* what *actor* says of it; `UsageError` when it has not fired, or is finished."""
        said = _said(said, f"say what the {kind} is")
        with self._database.write() as connection:
            _check_unfinished(_occurrence(connection, occurrence))
            of_it = t.remark.c.occurrence == key(occurrence)
            if connection.execute(select(func.count()).where(of_it)).scalar_one() >= REMARKS_MOST:
                raise UsageError(f"{occurrence} has {REMARKS_MOST} notes and findings", next_step="finish it")
            row = {"kind": kind, "who": key(actor.name), "at": now, "said": said}
            connection.execute(insert(t.remark).values(occurrence=key(occurrence), **row))
            write_audit(connection, f"occurrence.{kind}", occurrence, actor, at=now, note=said)
        return Remark(kind, actor.name, now, said)

    def finish(self, occurrence: str, *, actor: Actor, now: datetime) -> None:
        """Close *occurrence*: nothing more is said of it. `UsageError` when it is not over, or is finished already."""
        with self._database.write() as connection:
            row = _occurrence(connection, occurrence)
            _check_unfinished(row)
            if row.ended_at is None:
                raise UsageError(f"{row.schedule} is not over: it is {row.state}", next_step="let it end, or stop it")
            found = update(t.occurrence).where(t.occurrence.c.id == row.id)
            connection.execute(found.values(finished_by=key(actor.name), finished_at=now))
            write_audit(connection, "occurrence.finish", occurrence, actor, at=now, note=row.schedule)

    def remarks(self, occurrences: Collection[str]) -> dict[str, list[Remark]]:
        """Return what was said of each of *occurrences*, oldest first; those of which nothing was are left out."""
        r = t.remark.c
        asked = select(t.remark).where(r.occurrence.in_([key(each) for each in occurrences])).order_by(r.id)
        found: dict[str, list[Remark]] = {}
        with self._database.read() as connection:
            for row in connection.execute(asked):
                found.setdefault(row.occurrence, []).append(Remark(RemarkKind(row.kind), row.who, row.at, row.said))
        return found


def _said(text: str, otherwise: str) -> str:
    said = (long_text(text) or "").strip()
    if not said:
        raise UsageError(otherwise)
    if len(text) > TEXT_LENGTH:
        raise UsageError(f"it is longer than {TEXT_LENGTH} characters", next_step="say it in parts")
    return said


def _pause(connection: Connection, schedule: str) -> Pause | None:
    row = connection.execute(select(t.pause).where(t.pause.c.schedule == key(schedule)).with_for_update()).first()
    return None if row is None else _made(row)


def _made(row: Row[Any]) -> Pause:
    return Pause(row.schedule, row.who, row.why, row.at)


def _occurrence(connection: Connection, occurrence: str) -> Row[Any]:
    asked = select(t.occurrence).where(t.occurrence.c.id == key(occurrence)).with_for_update()
    row = connection.execute(asked).first()
    if row is None:
        raise UsageError(f"no occurrence {occurrence[:63]!r} has fired", next_step="`luff schedule history` lists them")
    return row


def _check_unfinished(row: Row[Any]) -> None:
    if row.finished_at is not None:
        raise UsageError(f"{row.schedule} was finished by {row.finished_by} at {row.finished_at:%Y-%m-%d %H:%M %Z}")
