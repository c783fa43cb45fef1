"""
Lay out what people do on game days: pause one, begin one by hand, say something of it, finish it.

Revision 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels = None
depends_on = None

KEY = sa.String(253)
TIME = sa.DateTime(timezone=True)
OF_OCCURRENCE = {"started_by": KEY, "finished_by": KEY, "finished_at": TIME}


def upgrade() -> None:
    op.create_table(
        "pause",
        sa.Column("schedule", KEY, nullable=False),
        sa.Column("who", KEY, nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("schedule", name="pk_pause"),
    )
    op.create_table(
        "remark",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("occurrence", KEY, nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("who", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_remark"),
    )
    op.create_index("ix_remark_occurrence_id", "remark", ["occurrence", "id"])
    for name, type_ in OF_OCCURRENCE.items():
        op.add_column("occurrence", sa.Column(name, type_))


def downgrade() -> None:
    for name in OF_OCCURRENCE:
        op.drop_column("occurrence", name)
    for table in ("remark", "pause"):
        op.drop_table(table)
