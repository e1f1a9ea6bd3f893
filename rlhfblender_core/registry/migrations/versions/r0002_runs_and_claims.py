"""Runs that are under way, and the episodes that they have claimed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes the two tables. No foreign key: a claim outlives its run, and a run needs no registered experiment."""
    op.create_table(
        "runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("digests", sa.JSON(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("staging", sa.String(), nullable=True),
        sa.Column("heartbeat", sa.Float(53), nullable=False),
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
