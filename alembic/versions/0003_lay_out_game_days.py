"""
Lay out how far the calendar is settled, what became of each firing, and who agreed to it.

Revision 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels = None
depends_on = None

KEY = sa.String(253)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "schedule",
        sa.Column("name", KEY, nullable=False),
        sa.Column("cron", KEY, nullable=False),
        sa.Column("time_zone", KEY, nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("settled_until", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_schedule"),
    )
    op.create_table(
        "occurrence",
        sa.Column("id", KEY, nullable=False),
        sa.Column("schedule", KEY, nullable=False),
        sa.Column("scheduled_for", TIME, nullable=False),
        sa.Column("due", TIME, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("reason", KEY),
        sa.Column("said", sa.Text()),
        sa.Column("claimed_by", KEY),
        sa.Column("claimed_until", TIME),
        sa.Column("began_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("runs", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_occurrence"),
    )
    op.create_index("ix_occurrence_schedule_scheduled_for", "occurrence", ["schedule", "scheduled_for"], unique=True)
    op.create_index("ix_occurrence_scheduled_for", "occurrence", ["scheduled_for"])
    op.create_index("ix_occurrence_state_claimed_until", "occurrence", ["state", "claimed_until"])
    op.create_table(
        "approval",
        sa.Column("schedule", KEY, nullable=False),
        sa.Column("scheduled_for", TIME, nullable=False),
        sa.Column("who", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("schedule", "scheduled_for", "who", name="pk_approval"),
    )


def downgrade() -> None:
    for table in ("approval", "occurrence", "schedule"):
        op.drop_table(table)
