"""
Lay out who may use the server, what was asked of it, and what was changed.

Revision 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels = None
depends_on = None

KEY = sa.String(253)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "token",
        sa.Column("id", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("role", KEY, nullable=False),
        sa.Column("secret_sha256", KEY, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
    )
    op.create_index("ix_token_secret_sha256", "token", ["secret_sha256"], unique=True)
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", KEY, nullable=False),
        sa.Column("role", KEY),
        sa.Column("address", KEY),
        sa.Column("action", KEY, nullable=False),
        sa.Column("object", KEY, nullable=False),
        sa.Column("note", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_table(
        "run_request",
        sa.Column("id", KEY, nullable=False),
        sa.Column("key_sha256", KEY),
        sa.Column("experiment", KEY, nullable=False),
        sa.Column("actor", KEY, nullable=False),
        sa.Column("requested_at", TIME, nullable=False),
        sa.Column("run", KEY),
        sa.PrimaryKeyConstraint("id", name="pk_run_request"),
    )
    op.create_index("ix_run_request_key_sha256", "run_request", ["key_sha256"], unique=True)


def downgrade() -> None:
    for table in ("run_request", "audit", "token"):
        op.drop_table(table)
