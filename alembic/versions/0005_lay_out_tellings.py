"""
Lay out what people have been told of game days, and keep places and specs apart in the index of hops.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels = None
depends_on = None

KEY = sa.String(253)
HOP = ("caller", "dependency", "fault", "mesh_kind")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "telling",
        sa.Column("schedule", KEY, nullable=False),
        sa.Column("scheduled_for", TIME, nullable=False),
        sa.Column("what", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("schedule", "scheduled_for", "what", name="pk_telling"),
    )
    op.create_index("ix_occurrence_ended_at", "occurrence", ["ended_at"])
    op.drop_index("ix_run_edge", "run")
    op.create_index("ix_run_edge", "run", [*HOP, "mesh_name", "experiment", "spec_sha256", "verdict", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_run_edge", "run")
    op.create_index("ix_run_edge", "run", [*HOP, "verdict", "started_at"])
    op.drop_index("ix_occurrence_ended_at", "occurrence")
    op.drop_table("telling")
