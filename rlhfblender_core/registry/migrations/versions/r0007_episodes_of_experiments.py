"""How many episodes each checkpoint of an experiment gets. Of those of before it isn't known; what they have counts."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("experiments", sa.Column("num_episodes", sa.Integer(), nullable=True))
