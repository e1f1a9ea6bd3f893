"""Which experiments are followed: new checkpoints in their model folders get episodes. None of before is."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Adds the column."""
    op.add_column("experiments", sa.Column("following", sa.String(), nullable=True))
