"""What a run needs to know of finished episodes, so that it reads no manifest of theirs.

Rows of before say nothing of it: the next run reads those episodes' manifests, once.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns."""
    for name in ("sizes", "warnings"):
        op.add_column("episodes", sa.Column(name, sa.String(), nullable=True))
