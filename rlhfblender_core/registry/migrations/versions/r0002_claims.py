"""Runs under way, the episodes that they have claimed, and what was reported of watched checkpoints."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("digests", sa.JSON(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("heartbeat", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", "experiment", name="pk_runs"),
    )
    op.create_table(
        "claims",
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "checkpoint", "number", name="pk_claims"),
    )
    op.create_table(
        "unusable_checkpoints",
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "label", name="pk_unusable_checkpoints"),
    )
