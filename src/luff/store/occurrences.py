"""
Which firings of which game day became what: the calendar's memory, shared by every replica.

What must stay true:

1. A firing is one row, ever: (schedule, scheduled_for) is unique, and whoever inserts it is the one who holds it.
2. A schedule's *settled_until* moves on in the transaction that writes the rows up to it: what fired later has no row
   yet, whatever died, and gets one when somebody is there again.
3. A row goes from claimed to running only for who has claimed it, and under ``overlap: forbid`` only when none of its
   schedule is running.
4. What did not run says why: every row that is skipped or lost has a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, bindparam, func, select, update

from luff.store import tables as t
from luff.store.access import Actor, write_audit
from luff.store.diary import Diary
from luff.store.engine import Database, insert_into
from luff.store.text import key, long_text

if TYPE_CHECKING:
    from luff.store import Store

__all__ = ["Known", "New", "Occurrence", "Occurrences", "Rule", "State", "made"]

ROWS_AT_ONCE = 1000
LISTED_MOST = 10_000
LEASE_S = 90.0
"""How long a claim is good without being renewed."""


class State(StrEnum):
    """This is what became of a firing."""

    CLAIMED = "claimed"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    ABORTED = "aborted"
    SKIPPED = "skipped"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """
    This is one firing of one game day.

    *due* is *scheduled_for* and its jitter; *who* has or had it. *started_by*
    is who began it by hand, *finished_by* who closed it once it was over.
    """

    id: str
    schedule: str
    scheduled_for: datetime
    due: datetime
    state: State
    reason: str | None = None
    said: str | None = None
    who: str | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    runs: tuple[str, ...] = ()
    started_by: str | None = None
    finished_by: str | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class New:
    """
    This is a firing that is to be written down: to be held, or skipped with a *reason*.

    *started_by* is who begins it by hand, ``None`` for one of the calendar.
    """

    id: str
    schedule: str
    scheduled_for: datetime
    due: datetime
    reason: str | None = None
    said: str | None = None
    started_by: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """This is when a schedule fires."""

    cron: str
    time_zone: str


@dataclass(frozen=True, slots=True)
class Known:
    """This is how far a schedule is settled; *former* is its rule before, if that was another, and how far that was settled."""

    settled_until: datetime
    former: tuple[Rule, datetime] | None = None


class Occurrences:
    """This is the part of the store that the calendar needs; every method raises `luff.errors.StoreError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def of(cls, store: Store) -> Occurrences:
        """Return the occurrences of an open *store*, on its connections."""
        return cls(store._database)

    @property
    def diary(self) -> Diary:
        """Return what people do on these game days."""
        return Diary(self._database)

    def sync(self, rules: Mapping[str, Rule], now: datetime) -> dict[str, Known]:
        """
        Write down which schedules there are now, and return how far each is settled.

        One that is new, or was away, or has another rule, is settled until
        *now*: nothing before is held against it.
        """
        with self._database.write() as connection:
            rows = {row.name: row for row in connection.execute(select(t.schedule))}
            known: dict[str, Known] = {}
            changed: list[dict[str, Any]] = []
            fresh: list[dict[str, Any]] = []
            for name, rule in rules.items():
                row = rows.get(name)
                values = {"cron": rule.cron, "time_zone": rule.time_zone, "active": True, "settled_until": now}
                if row is None:
                    fresh.append({"name": name, **values})
                    known[name] = Known(now)
                elif (row.cron, row.time_zone, row.active) == (rule.cron, rule.time_zone, True):
                    known[name] = Known(row.settled_until)
                else:
                    changed.append({"name_": name, **values})
                    former = (Rule(row.cron, row.time_zone), row.settled_until) if row.active else None
                    known[name] = Known(max(now, row.settled_until), former)
            gone = [{"name_": name, "active": False} for name, row in rows.items() if row.active and name not in rules]
            for part in _parts(fresh):
                connection.execute(insert_into(connection, t.schedule).on_conflict_do_nothing(), part)
            by_name = update(t.schedule).where(t.schedule.c.name == bindparam("name_"))
            if changed:
                connection.execute(
                    by_name.values({c: bindparam(c) for c in ("cron", "time_zone", "active", "settled_until")}), changed
                )
            if gone:
                connection.execute(by_name.values(active=bindparam("active")), gone)
            return known

    def settled(self) -> dict[str, tuple[Rule, datetime]]:
        """Return the rule of each schedule that is there, and how far it is settled."""
        s = t.schedule.c
        asked = select(s.name, s.cron, s.time_zone, s.settled_until).where(s.active)
        with self._database.read() as connection:
            return {row.name: (Rule(row.cron, row.time_zone), row.settled_until) for row in connection.execute(asked)}

    def settle(self, firings: Sequence[New], *, who: str, now: datetime) -> list[str]:
        """Write down *firings*, and return the ids of those that are *who*'s to hold: new, and without a reason."""
        if not firings:
            return []
        until: dict[str, datetime] = {}
        for each in firings:
            until[each.schedule] = max(each.scheduled_for, until.get(each.schedule, each.scheduled_for))
        rows = [_new_row(each, who, now) for each in firings]
        won: set[str] = set()
        with self._database.write() as connection:
            for part in _parts(rows):
                written = insert_into(connection, t.occurrence).on_conflict_do_nothing().returning(t.occurrence.c.id)
                won.update(connection.scalars(written, part))
            settled = update(t.schedule).where(
                t.schedule.c.name == bindparam("name_"), t.schedule.c.settled_until < bindparam("at")
            )
            connection.execute(
                settled.values(settled_until=bindparam("at")), [{"name_": name, "at": at} for name, at in until.items()]
            )
        return [each.id for each in firings if each.reason is None and each.id in won]

    def start(self, new: New, *, actor: Actor, now: datetime) -> None:
        """Write down that *actor* begins *new* by hand, and that in the audit; whoever reaps next holds it."""
        row = {**_new_row(new, actor.name, now), "claimed_until": now - timedelta(microseconds=1)}
        with self._database.write() as connection:
            connection.execute(insert_into(connection, t.occurrence), [row])
            write_audit(connection, "gameday.start", new.schedule, actor, at=now, note=new.id)

    def begin(self, occurrence: str, *, who: str, now: datetime, alone: bool) -> str | None:
        """
        Move *occurrence* to running, and return ``None``; or return why not: ``taken`` or ``overlap``.

        *alone* asks that none of its schedule is running. Asked again by *who* began it, whose answer was lost, it is
        ``None`` again.
        """
        o = t.occurrence.c
        with self._database.write() as connection:
            mine = connection.execute(
                select(o.schedule, o.state).where(
                    o.id == occurrence, o.state.in_([State.CLAIMED, State.RUNNING]), o.claimed_by == key(who)
                )
            ).first()
            if mine is None:
                return "taken"
            if mine.state == State.RUNNING:
                return None
            # PostgreSQL would let two of one schedule begin side by side; SQLite has one writer.
            connection.execute(select(t.schedule.c.name).where(t.schedule.c.name == mine.schedule).with_for_update())
            if alone:
                other = select(o.id).where(
                    o.schedule == mine.schedule, o.state == State.RUNNING, o.id != occurrence, o.claimed_until > now
                )
                if connection.execute(other.limit(1)).first() is not None:
                    return "overlap"
            begun = update(t.occurrence).where(o.id == occurrence)
            connection.execute(
                begun.values(state=State.RUNNING, began_at=now, claimed_until=now + timedelta(seconds=LEASE_S))
            )
            return None

    def end(
        self,
        occurrence: str,
        state: State,
        *,
        who: str,
        now: datetime,
        reason: str | None = None,
        said: str | None = None,
        runs: Sequence[str] | None = None,
    ) -> bool:
        """
        Write down how *occurrence* ended for *who* had it; False when it was somebody else's by then.

        *runs* ``None`` leaves those that `ran` has written.
        """
        o = t.occurrence.c
        ended = update(t.occurrence).where(
            o.id == occurrence, o.claimed_by == key(who), o.state.in_([State.CLAIMED, State.RUNNING, State.LOST])
        )
        values: dict[str, Any] = {"state": state, "reason": key(reason), "said": long_text(said), "ended_at": now}
        if runs is not None:
            values["runs"] = list(runs)
        with self._database.write() as connection:
            return connection.execute(ended.values(**values)).rowcount > 0

    def ran(self, occurrence: str, *, who: str, runs: Sequence[str]) -> None:
        """Write down which *runs*, or requests for one, *occurrence* has begun so far."""
        o = t.occurrence.c
        mine = update(t.occurrence).where(o.id == occurrence, o.claimed_by == key(who), o.state == State.RUNNING)
        with self._database.write() as connection:
            connection.execute(mine.values(runs=list(runs)))

    def renew(self, occurrences: Collection[str], *, who: str, now: datetime) -> None:
        """Keep *who*'s claims on *occurrences*."""
        if not occurrences:
            return
        o = t.occurrence.c
        with self._database.write() as connection:
            for part in _parts(sorted(occurrences)):
                mine = o.id.in_(part) & (o.claimed_by == key(who))
                connection.execute(
                    update(t.occurrence).where(mine).values(claimed_until=now + timedelta(seconds=LEASE_S))
                )

    def release(self, occurrence: str, *, who: str, now: datetime) -> None:
        """Give up *who*'s claim on *occurrence*, which has not begun: whoever reaps next has it."""
        o = t.occurrence.c
        mine = (o.id == occurrence) & (o.claimed_by == key(who)) & (o.state == State.CLAIMED)
        with self._database.write() as connection:
            connection.execute(update(t.occurrence).where(mine).values(claimed_until=now - timedelta(seconds=1)))

    def reap(self, *, who: str, now: datetime, is_gone: Callable[[str], bool] = lambda _: False) -> list[Occurrence]:
        """
        Settle what a dead replica had: running becomes lost; what never began is claimed by *who*, and returned.

        Dead is whose claim has run out, and before that who *is_gone*.
        """
        o = t.occurrence.c
        with self._database.read() as connection:
            open_ = o.state.in_([State.CLAIMED, State.RUNNING])
            asked = select(o.claimed_by, func.min(o.claimed_until)).where(open_).group_by(o.claimed_by)
            claims = connection.execute(asked).all()
            gone = [other for other, _ in claims if other is not None and other != key(who) and is_gone(other)]
            if not gone and not any(until is not None and until < now for _, until in claims):
                return []
        stale = (o.claimed_until < now) | o.claimed_by.in_(gone)
        with self._database.write() as connection:
            lost = update(t.occurrence).where(o.state == State.RUNNING, stale)
            connection.execute(
                lost.values(
                    state=State.LOST, reason="server_died", said="the server that held it died meanwhile", ended_at=now
                )
            )
            taken = update(t.occurrence).where(o.state == State.CLAIMED, stale).returning(t.occurrence)
            values = {"claimed_by": key(who), "claimed_until": now + timedelta(seconds=LEASE_S)}
            return [made(row) for row in connection.execute(taken.values(**values))]

    def approve(self, schedule: str, scheduled_for: datetime, *, who: str, now: datetime) -> None:
        """Write down that *who* agrees to this occurrence; twice is once."""
        row = {"schedule": key(schedule), "scheduled_for": scheduled_for, "who": key(who), "at": now}
        with self._database.write() as connection:
            connection.execute(insert_into(connection, t.approval).on_conflict_do_nothing(), [row])

    def approvals(self, schedule: str, scheduled_for: datetime) -> dict[str, datetime]:
        """Return who agreed to this occurrence, and when."""
        a = t.approval.c
        asked = select(a.who, a.at).where(a.schedule == key(schedule), a.scheduled_for == scheduled_for).order_by(a.at)
        with self._database.read() as connection:
            return {row.who: row.at for row in connection.execute(asked)}

    def approvals_since(self, since: datetime) -> dict[tuple[str, datetime], dict[str, datetime]]:
        """Return who agreed to what is scheduled from *since* on, and when."""
        a = t.approval.c
        asked = select(t.approval).where(a.scheduled_for >= since).order_by(a.at)
        found: dict[tuple[str, datetime], dict[str, datetime]] = {}
        with self._database.read() as connection:
            for row in connection.execute(asked):
                found.setdefault((row.schedule, row.scheduled_for), {})[row.who] = row.at
        return found

    def get(self, occurrence: str) -> Occurrence | None:
        """Return the occurrence with this id, or ``None`` when it has not fired yet."""
        with self._database.read() as connection:
            row = connection.execute(select(t.occurrence).where(t.occurrence.c.id == key(occurrence))).first()
            return None if row is None else made(row)

    def between(
        self,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        schedule: str | None = None,
        limit: int = 1000,
    ) -> list[Occurrence]:
        """Return at most *limit* occurrences from *since* up to *until*, newest first."""
        o = t.occurrence.c
        asked = select(t.occurrence).order_by(o.scheduled_for.desc(), o.schedule).limit(min(limit, LISTED_MOST))
        if since is not None:
            asked = asked.where(o.scheduled_for >= since)
        if until is not None:
            asked = asked.where(o.scheduled_for <= until)
        if schedule is not None:
            asked = asked.where(o.schedule == key(schedule))
        with self._database.read() as connection:
            return [made(row) for row in connection.execute(asked)]

    def open_ones(self, limit: int = 1000) -> list[Occurrence]:
        """Return at most *limit* occurrences that are claimed or running, oldest first."""
        o = t.occurrence.c
        asked = select(t.occurrence).where(o.state.in_([State.CLAIMED, State.RUNNING])).order_by(o.scheduled_for)
        with self._database.read() as connection:
            return [made(row) for row in connection.execute(asked.limit(min(limit, LISTED_MOST)))]

    def counts(self) -> dict[tuple[str, State], int]:
        """Return how many occurrences of each schedule have come to each state, those that are not over left out."""
        o = t.occurrence.c
        over = o.state.not_in([State.CLAIMED, State.RUNNING])
        asked = select(o.schedule, o.state, func.count()).where(over).group_by(o.schedule, o.state)
        with self._database.read() as connection:
            return {(name, State(state)): count for name, state, count in connection.execute(asked)}


def _parts(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (rows[first : first + ROWS_AT_ONCE] for first in range(0, len(rows), ROWS_AT_ONCE))


def _new_row(new: New, who: str, now: datetime) -> dict[str, Any]:
    mine = new.reason is None
    return {
        "id": new.id,
        "schedule": key(new.schedule),
        "scheduled_for": new.scheduled_for.astimezone(UTC),
        "due": new.due,
        "state": State.CLAIMED if mine else State.SKIPPED,
        "reason": key(new.reason),
        "said": long_text(new.said),
        "claimed_by": key(who),
        "claimed_until": now + timedelta(seconds=LEASE_S) if mine else None,
        "ended_at": None if mine else now,
        "runs": [],
        "started_by": key(new.started_by),
    }


def made(row: Row[Any]) -> Occurrence:
    """Return *row* of the table of occurrences as a value."""
    return Occurrence(
        id=row.id,
        schedule=row.schedule,
        scheduled_for=row.scheduled_for,
        due=row.due,
        state=State(row.state),
        reason=row.reason,
        said=row.said,
        who=row.claimed_by,
        began_at=row.began_at,
        ended_at=row.ended_at,
        runs=tuple(row.runs or ()),
        started_by=row.started_by,
        finished_by=row.finished_by,
        finished_at=row.finished_at,
    )
