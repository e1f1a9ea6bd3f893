"""The registry's tables as SQLAlchemy's typed ORM. Rows stay inside this package.

A change here needs a migration beside it (:mod:`rlhfblender_core.registry.migrations`); a test compares the two.
"""

import json
import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Float, ForeignKey, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from rlhfblender_core.registry.records import ExperimentKind, JsonDict


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, on SQLite too, which knows no time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The same moment in UTC.

        Raises:
            ValueError: the datetime has no time zone.
        """
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; the registry stores moments in UTC")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """The stored moment, aware and in UTC (PostgreSQL answers in the session's time zone)."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class MissingIsNaN(TypeDecorator[float]):
    """Floats whose NaN is stored as NULL, as SQLite does by itself and PostgreSQL doesn't."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """NULL for NaN."""
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:  # noqa: ARG002
        """NaN for NULL."""
        return math.nan if value is None else value


class JsonText(TypeDecorator[Any]):
    """JSON as a canonical text, which both databases compare and group; NULL for None and what is empty."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """The text."""
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """What the text says."""
        return None if value is None else json.loads(value)


def now() -> datetime:
    """This moment, aware and in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of all tables; constraints carry the names that migrations refer to."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map = {str: String, datetime: UtcDateTime, JsonDict: JSON}  # noqa: RUF012 (SQLAlchemy's protocol)


class Project(Base):
    """A row of projects."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Environment(Base):
    """A row of environments."""

    __tablename__ = "environments"

    id: Mapped[int] = mapped_column(primary_key=True)
    env_id: Mapped[str] = mapped_column(unique=True)
    display_name: Mapped[str | None]
    description: Mapped[str | None]
    entry_point: Mapped[str | None]
    additional_packages: Mapped[list[str]] = mapped_column(JSON)
    observation_space: Mapped[JsonDict]
    action_space: Mapped[JsonDict]
    action_names: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Experiment(Base):
    """A row of experiments."""

    __tablename__ = "experiments"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    environment_id: Mapped[int] = mapped_column(ForeignKey("environments.id"))
    kind: Mapped[ExperimentKind] = mapped_column(String)
    model_path: Mapped[str | None]
    settings: Mapped[JsonDict]
    env_kwargs: Mapped[JsonDict]
    observation_space: Mapped[JsonDict]
    action_space: Mapped[JsonDict]
    following: Mapped[JsonDict | None] = mapped_column(JsonText)
    num_episodes: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class Checkpoint(Base):
    """A row of checkpoints; goes with its experiment."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("experiment_id", "label"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    label: Mapped[str]
    step: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None]
    algorithm: Mapped[str | None]


class Episode(Base):
    """A row of episodes; goes with its checkpoint."""

    __tablename__ = "episodes"
    __table_args__ = (UniqueConstraint("checkpoint_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[int] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"))
    number: Mapped[int]
    seed: Mapped[int | None] = mapped_column(BigInteger)
    episode_return: Mapped[float] = mapped_column(MissingIsNaN, nullable=True)
    episode_length: Mapped[int] = mapped_column(BigInteger)
    terminated: Mapped[bool]
    truncated: Mapped[bool]
    request_digest: Mapped[str]
    manifest_sha256: Mapped[str | None]
    sizes: Mapped[dict[str, int] | None] = mapped_column(JsonText)
    warnings: Mapped[list[str] | None] = mapped_column(JsonText)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Run(Base):
    """A row of runs: one that is at work on an experiment, or died and hasn't been noticed yet.

    It refers to no other table: an experiment is claimed before it is registered, and while it is deleted.
    """

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(primary_key=True)
    digests: Mapped[JsonDict]
    machine: Mapped[str]
    staging: Mapped[str | None]
    #: Seconds since 1970 by the database's own clock, as a number that SQLite and PostgreSQL subtract alike.
    heartbeat: Mapped[float] = mapped_column(Float(53))


class Claim(Base):
    """A row of claims: an episode that a run makes. Outlives the run, so that what it left is known as ours."""

    __tablename__ = "claims"

    experiment: Mapped[str] = mapped_column(primary_key=True)
    checkpoint: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    run_id: Mapped[str]


class UnusableCheckpoint(Base):
    """A row of unusable checkpoints: one in a watched folder that was reported as unusable, and why."""

    __tablename__ = "unusable_checkpoints"

    experiment: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
