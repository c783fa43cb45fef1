"""
Lay out runs, outcomes, checks, samples and the journal.

Revision 0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels = None
depends_on = None

KEY = sa.String(253)
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "run",
        sa.Column("id", KEY, nullable=False),
        sa.Column("experiment", KEY, nullable=False),
        sa.Column("namespace", KEY),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("verdict", KEY),
        sa.Column("reason", KEY),
        sa.Column("explanation", sa.Text()),
        sa.Column("phase", KEY, nullable=False),
        sa.Column("mesh_kind", KEY, nullable=False),
        sa.Column("mesh_name", KEY, nullable=False),
        sa.Column("mesh_uid", KEY),
        sa.Column("subject", KEY),
        sa.Column("caller", KEY),
        sa.Column("dependency", KEY),
        sa.Column("fault", KEY),
        sa.Column("spec_sha256", KEY, nullable=False),
        sa.Column("scope_sha256", KEY),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("actor", KEY, nullable=False),
        sa.Column("commit", KEY),
        sa.Column("branch", KEY),
        sa.Column("ci_url", sa.Text()),
        sa.Column("image", sa.Text()),
        sa.Column("revision", KEY),
        sa.Column("luff", KEY, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
    )
    op.create_index("ix_run_started_at_id", "run", ["started_at", "id"])
    op.create_index("ix_run_experiment_started_at", "run", ["experiment", "mesh_kind", "started_at"])
    op.create_index("ix_run_edge", "run", ["caller", "dependency", "fault", "mesh_kind", "verdict", "started_at"])
    op.create_table(
        "outcome",
        sa.Column("run", KEY, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_outcome"),
        sa.ForeignKeyConstraint(["run"], ["run.id"], name="fk_outcome_run_run", ondelete="CASCADE"),
    )
    op.create_table(
        "check_result",
        sa.Column("run", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("id", KEY, nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("arm", KEY, nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("verdict", KEY, nullable=False),
        sa.Column("reason", KEY),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("violations", sa.BigInteger(), nullable=False),
        sa.Column("threshold", sa.Double()),
        sa.Column("bound", sa.Double()),
        sa.Column("measured", sa.Double()),
        sa.Column("unit", KEY),
        sa.PrimaryKeyConstraint("run", "position", name="pk_check_result"),
        sa.ForeignKeyConstraint(["run"], ["run.id"], name="fk_check_result_run_run", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sample_block",
        sa.Column("run", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run", "position", name="pk_sample_block"),
        sa.ForeignKeyConstraint(["run"], ["run.id"], name="fk_sample_block_run_run", ondelete="CASCADE"),
    )
    op.create_table(
        "intent",
        sa.Column("run", KEY, nullable=False),
        sa.Column("namespace", KEY, nullable=False),
        sa.Column("virtual_service", KEY, nullable=False),
        sa.Column("uid", KEY, nullable=False),
        sa.Column("resource_version", KEY, nullable=False),
        sa.Column("names", sa.JSON(), nullable=False),
        sa.Column("expires_s", sa.BigInteger(), nullable=False),
        sa.Column("hash_before", KEY, nullable=False),
        sa.Column("phase", KEY, nullable=False),
        sa.Column("mesh_kind", KEY),
        sa.Column("mesh_name", KEY),
        sa.Column("mesh_uid", KEY),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("run", name="pk_intent"),
    )
    op.create_index("ix_intent_phase", "intent", ["phase"])
    op.create_table(
        "phase_change",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run", KEY, nullable=False),
        sa.Column("phase", KEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("note", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_phase_change"),
    )
    op.create_index("ix_phase_change_run_id", "phase_change", ["run", "id"])


def downgrade() -> None:
    for table in ("phase_change", "intent", "sample_block", "check_result", "outcome", "run"):
        op.drop_table(table)
