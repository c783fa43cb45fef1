"""
What the database holds.

What must stay true:

1. `outcome.body` is the outcome as it was recorded, whole and never changed;
   the columns of `run` and `check_result` are copies of parts of it, to be
   searched.
2. `run.phase` is where the routes are *now*: a later restore moves it on,
   while the recorded outcome keeps what was known at its end.
3. The journal, `intent` and `phase_change`, stands alone. It points at no
   other table, because it is written first and must never wait for them.
4. Times are UTC and come back aware; the scope's secret is nowhere, and of a
   token only the hash.

Wide columns stand in tables of their own, so that a list of 100,000 runs
reads only narrow rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

__all__ = [
    "HEAD",
    "KEY_LENGTH",
    "UTCDateTime",
    "approval",
    "audit",
    "check_result",
    "intent",
    "lever",
    "metadata",
    "occurrence",
    "outcome",
    "pause",
    "phase_change",
    "remark",
    "run",
    "run_request",
    "sample_block",
    "schedule",
    "telling",
    "token",
]

HEAD = "0006"
"""The newest migration. Known here so that opening an up-to-date database need not import Alembic."""

KEY_LENGTH = 253
"""The longest text in a column that is searched: an index entry has a bound in PostgreSQL. A DNS name has the same."""


class UTCDateTime(TypeDecorator[datetime]):
    """This is a time that goes in aware, is stored as UTC, and comes back aware: SQLite alone would drop the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _key() -> String:
    return String(KEY_LENGTH)


def _of_run(**more: Any) -> Column[str]:
    return Column("run", _key(), ForeignKey("run.id", ondelete="CASCADE"), primary_key=True, **more)


run = Table(
    "run",
    metadata,
    Column("id", _key(), primary_key=True),
    Column("experiment", _key(), nullable=False),
    Column("namespace", _key()),
    Column("labels", JSON, nullable=False),
    # NULL until the outcome is recorded: a run that was killed never gets one.
    Column("verdict", _key()),
    Column("reason", _key()),
    Column("explanation", Text),
    Column("phase", _key(), nullable=False),
    Column("mesh_kind", _key(), nullable=False),
    Column("mesh_name", _key(), nullable=False),
    Column("mesh_uid", _key()),
    Column("subject", _key()),
    Column("caller", _key()),
    Column("dependency", _key()),
    Column("fault", _key()),
    Column("spec_sha256", _key(), nullable=False),
    Column("scope_sha256", _key()),
    Column("seed", BigInteger, nullable=False),
    Column("actor", _key(), nullable=False),
    Column("commit", _key()),
    Column("branch", _key()),
    Column("ci_url", Text),
    Column("image", Text),
    Column("revision", _key()),
    Column("luff", _key(), nullable=False),
    Column("started_at", UTCDateTime, nullable=False),
    Column("ended_at", UTCDateTime),
    Index("ix_run_started_at_id", "started_at", "id"),
    Index("ix_run_experiment_started_at", "experiment", "mesh_kind", "started_at"),
    # All that the coverage table asks for: it need not read the rows.
    Index(
        "ix_run_edge",
        "caller",
        "dependency",
        "fault",
        "mesh_kind",
        "mesh_name",
        "experiment",
        "spec_sha256",
        "verdict",
        "started_at",
    ),
)

outcome = Table(
    "outcome",
    metadata,
    _of_run(),
    Column("recorded_at", UTCDateTime, nullable=False),
    Column("body", Text, nullable=False),
)

check_result = Table(
    "check_result",
    metadata,
    _of_run(),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("id", _key(), nullable=False),
    Column("kind", _key(), nullable=False),
    Column("arm", _key(), nullable=False),
    Column("expression", Text, nullable=False),
    Column("verdict", _key(), nullable=False),
    Column("reason", _key()),
    Column("n", BigInteger, nullable=False),
    Column("violations", BigInteger, nullable=False),
    Column("threshold", Double),
    Column("bound", Double),
    Column("measured", Double),
    Column("unit", _key()),
    # The checks of a run lie side by side, so that a trend reads them in one go.
    sqlite_with_rowid=False,
)

sample_block = Table(
    "sample_block",
    metadata,
    _of_run(),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("rows", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

intent = Table(
    "intent",
    metadata,
    Column("run", _key(), primary_key=True),
    Column("namespace", _key(), nullable=False),
    Column("virtual_service", _key(), nullable=False),
    Column("uid", _key(), nullable=False),
    Column("resource_version", _key(), nullable=False),
    Column("names", JSON, nullable=False),
    Column("expires_s", BigInteger, nullable=False),
    Column("hash_before", _key(), nullable=False),
    Column("phase", _key(), nullable=False),
    Column("mesh_kind", _key()),
    Column("mesh_name", _key()),
    Column("mesh_uid", _key()),
    Column("updated_at", UTCDateTime, nullable=False),
    Index("ix_intent_phase", "phase"),
)

phase_change = Table(
    "phase_change",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", _key(), nullable=False),
    Column("phase", _key(), nullable=False),
    Column("at", UTCDateTime, nullable=False),
    Column("note", Text),
    Index("ix_phase_change_run_id", "run", "id"),
)

token = Table(
    "token",
    metadata,
    Column("id", _key(), primary_key=True),
    Column("name", _key(), nullable=False),
    Column("role", _key(), nullable=False),
    Column("secret_sha256", _key(), nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("revoked_at", UTCDateTime),
    Index("ix_token_secret_sha256", "secret_sha256", unique=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", UTCDateTime, nullable=False),
    Column("actor", _key(), nullable=False),
    Column("role", _key()),
    Column("address", _key()),
    Column("action", _key(), nullable=False),
    Column("object", _key(), nullable=False),
    Column("note", Text),
)

# What the server was asked to run: the id that was answered with, and the run that came of it, NULL until there is one.
run_request = Table(
    "run_request",
    metadata,
    Column("id", _key(), primary_key=True),
    Column("key_sha256", _key()),
    Column("experiment", _key(), nullable=False),
    Column("actor", _key(), nullable=False),
    Column("requested_at", UTCDateTime, nullable=False),
    Column("run", _key()),
    Index("ix_run_request_key_sha256", "key_sha256", unique=True),
)

# How far the firings of a schedule have rows. One whose file is gone is not active, and nothing is held against it.
schedule = Table(
    "schedule",
    metadata,
    Column("name", _key(), primary_key=True),
    Column("cron", _key(), nullable=False),
    Column("time_zone", _key(), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("settled_until", UTCDateTime, nullable=False),
)

occurrence = Table(
    "occurrence",
    metadata,
    Column("id", _key(), primary_key=True),
    Column("schedule", _key(), nullable=False),
    Column("scheduled_for", UTCDateTime, nullable=False),
    Column("due", UTCDateTime, nullable=False),
    Column("state", _key(), nullable=False),
    Column("reason", _key()),
    Column("said", Text),
    Column("claimed_by", _key()),
    Column("claimed_until", UTCDateTime),
    Column("began_at", UTCDateTime),
    Column("ended_at", UTCDateTime),
    Column("runs", JSON, nullable=False),
    # Who has begun it by hand, NULL for one of the calendar, and who has closed it once it was over.
    Column("started_by", _key()),
    Column("finished_by", _key()),
    Column("finished_at", UTCDateTime),
    # Whoever inserts it is the one who holds it.
    Index("ix_occurrence_schedule_scheduled_for", "schedule", "scheduled_for", unique=True),
    Index("ix_occurrence_scheduled_for", "scheduled_for"),
    Index("ix_occurrence_state_claimed_until", "state", "claimed_until"),
    Index("ix_occurrence_ended_at", "ended_at"),
)

approval = Table(
    "approval",
    metadata,
    Column("schedule", _key(), primary_key=True),
    Column("scheduled_for", UTCDateTime, primary_key=True),
    Column("who", _key(), primary_key=True),
    Column("at", UTCDateTime, nullable=False),
)

# A game day that is not held until somebody resumes it.
pause = Table(
    "pause",
    metadata,
    Column("schedule", _key(), primary_key=True),
    Column("who", _key(), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", UTCDateTime, nullable=False),
)

# What people say of an occurrence.
remark = Table(
    "remark",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("occurrence", _key(), nullable=False),
    Column("kind", _key(), nullable=False),
    Column("who", _key(), nullable=False),
    Column("at", UTCDateTime, nullable=False),
    Column("said", Text, nullable=False),
    Index("ix_remark_occurrence_id", "occurrence", "id"),
)

# What people were told of an occurrence, or are about to be. Whoever inserts it is the one who tells.
telling = Table(
    "telling",
    metadata,
    Column("schedule", _key(), primary_key=True),
    Column("scheduled_for", UTCDateTime, primary_key=True),
    Column("what", _key(), primary_key=True),
    Column("at", UTCDateTime, nullable=False),
)

# A lever that is on. An empty uid is a mesh that has none; the namespace "*" is all of them: no namespace has that name.
lever = Table(
    "lever",
    metadata,
    Column("mesh_kind", _key(), primary_key=True),
    Column("mesh_name", _key(), primary_key=True),
    Column("mesh_uid", _key(), primary_key=True),
    Column("namespace", _key(), primary_key=True),
    Column("who", _key(), nullable=False),
    Column("why", Text, nullable=False),
    Column("at", UTCDateTime, nullable=False),
)
