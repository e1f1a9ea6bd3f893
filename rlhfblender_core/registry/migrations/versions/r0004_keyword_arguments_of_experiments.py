"""Keyword arguments move from environments to the experiments that study them, which keep their spaces, too."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_MOVED = ("env_kwargs", "observation_space", "action_space")


def upgrade() -> None:
    """Gives each experiment what its environment had."""
    for name in _MOVED:
        op.add_column("experiments", sa.Column(name, sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
    environments = _table("environments", "kwargs", "spec_kwargs", "observation_space", "action_space")
    experiments = _table("experiments", "environment_id", *_MOVED)
    connection = op.get_bind()
    for row in connection.execute(sa.select(environments)).mappings().all():
        moved: dict[str, Any] = {"env_kwargs": {**row["kwargs"], **row["spec_kwargs"]}}
        moved |= {name: row[name] for name in ("observation_space", "action_space")}
        connection.execute(sa.update(experiments).where(experiments.c.environment_id == row["id"]).values(**moved))
    for name in ("kwargs", "spec_kwargs"):
        op.drop_column("environments", name)


def _table(name: str, *columns: str) -> sa.TableClause:
    kinds = {"environment_id": sa.Integer()}
    return sa.table(name, sa.column("id", sa.Integer()), *(sa.column(c, kinds.get(c, sa.JSON())) for c in columns))
