"""
What people have been told of game days: a row each, so that of several servers on one database one tells.

A row is written before anything is sent: what then cannot be sent is not told
twice, and is in the audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from luff.store import tables as t
from luff.store.engine import Database, insert_into
from luff.store.occurrences import Occurrence, State, made
from luff.store.text import key

if TYPE_CHECKING:
    from luff.store import Store

__all__ = ["Telling", "Tellings"]

NO_NEWS = (State.CLAIMED, State.RUNNING, State.PASSED)
LISTED_MOST = 1000
KEPT = timedelta(days=400)
"""How long after its occurrence a row is kept: nobody is told of one that is older."""


@dataclass(frozen=True, slots=True)
class Telling:
    """This is one thing to tell of the occurrence of *schedule* at *scheduled_for*: ``before 600`` (seconds), ``ended``."""

    schedule: str
    scheduled_for: datetime
    what: str


class Tellings:
    """This is who tells what; every method raises `luff.errors.StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def of(cls, store: Store) -> Tellings:
        """Return the tellings of an open *store*, on its connections."""
        return cls(store._database)

    def claim(self, wanted: Sequence[Telling], *, now: datetime) -> set[Telling]:
        """Write down that *wanted* are told, and return those that nobody had written down: they are the caller's to tell."""
        if not wanted:
            return set()
        by_key = {(key(each.schedule), each.scheduled_for, each.what): each for each in wanted}
        rows = [{"schedule": s, "scheduled_for": at, "what": what, "at": now} for s, at, what in by_key]
        c = t.telling.c
        with self._database.write() as connection:
            inserted = insert_into(connection, t.telling).on_conflict_do_nothing()
            written = inserted.returning(c.schedule, c.scheduled_for, c.what)
            mine = {tuple(row) for row in connection.execute(written, rows)}
            connection.execute(delete(t.telling).where(c.scheduled_for < now - KEPT))
        return {each for row, each in by_key.items() if row in mine}

    def bad_ends(self, since: datetime) -> list[Occurrence]:
        """Return what was skipped or lost, or did not go as expected, *since* then and is not told yet; oldest first."""
        o, told = t.occurrence.c, t.telling.c
        asked = (
            select(t.occurrence)
            .outerjoin(
                t.telling,
                (told.schedule == o.schedule) & (told.scheduled_for == o.scheduled_for) & (told.what == "ended"),
            )
            .where(o.ended_at >= since, o.state.not_in(NO_NEWS), told.what.is_(None))
            .order_by(o.scheduled_for)
            .limit(LISTED_MOST)
        )
        with self._database.read() as connection:
            return [made(row) for row in connection.execute(asked)]
