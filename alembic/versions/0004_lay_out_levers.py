"""
Lay out which levers are on, in which mesh and where in it.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels = None
depends_on = None

KEY = sa.String(253)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "lever",
        sa.Column("mesh_kind", KEY, nullable=False),
        sa.Column("mesh_name", KEY, nullable=False),
        sa.Column("mesh_uid", KEY, nullable=False),
        sa.Column("namespace", KEY, nullable=False),
        sa.Column("who", KEY, nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("mesh_kind", "mesh_name", "mesh_uid", "namespace", name="pk_lever"),
    )


def downgrade() -> None:
    op.drop_table("lever")
