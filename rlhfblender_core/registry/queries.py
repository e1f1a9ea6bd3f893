"""Reading the registry: rows become records here. Everything runs in the caller's session."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from sqlalchemy import String, select, type_coerce
from sqlalchemy.orm import Session

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry.models import (
    Base,
    Checkpoint,
    Environment,
    Episode,
    Experiment,
    Project,
    UnusableCheckpoint,
)
from rlhfblender_core.registry.records import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    Following,
    ProjectRecord,
    field_names,
)

R = TypeVar("R")

#: Values in one statement, which databases limit.
_VALUES_AT_ONCE = 1000
#: Rows that are in memory at once where all of a checkpoint's are read.
_ROWS_AT_ONCE = 5000

# Records are sorted here and not by the database: PostgreSQL's order of texts depends on its locale.


def find_environment(session: Session, env_id: str) -> EnvironmentRecord | None:
    """The environment of that id."""
    row = session.scalar(select(Environment).where(Environment.env_id == env_id))
    return None if row is None else _environment_record(row)


def list_environments(session: Session) -> list[EnvironmentRecord]:
    """All environments, by id."""
    records = [_environment_record(row) for row in session.scalars(select(Environment))]
    return sorted(records, key=lambda record: record.env_id)


def list_projects(session: Session) -> list[ProjectRecord]:
    """All projects, by name."""
    records = [ProjectRecord(name=row.name, created_at=row.created_at) for row in session.scalars(select(Project))]
    return sorted(records, key=lambda record: record.name)


def find_experiments(
    session: Session, *, name: str | None = None, project: str | None = None
) -> list[ExperimentRecord]:
    """The experiments of that name, that project, or all; by name."""
    query = select(Experiment, Project.name, Environment.env_id).join(Project).join(Environment)
    if name is not None:
        query = query.where(Experiment.name == name)
    if project is not None:
        query = query.where(Project.name == project)
    records = [_experiment_record(*row) for row in session.execute(query).tuples()]
    return sorted(records, key=lambda record: record.name)


def list_checkpoints(session: Session, experiment: str, label: str | None = None) -> list[CheckpointRecord]:
    """An experiment's checkpoints, or the one of that label; by step, those without one last."""
    query = select(Checkpoint).join(Experiment).where(Experiment.name == experiment)
    if label is not None:
        query = query.where(Checkpoint.label == label)
    records = [_checkpoint_record(experiment, row) for row in session.scalars(query)]
    return sorted(records, key=lambda record: (record.step is None, record.step or 0, record.label))


def list_episodes(session: Session, experiment: str, checkpoint: str | None = None) -> list[EpisodeRecord]:
    """An experiment's episodes, of one checkpoint or all; by checkpoint's label and number."""
    query = select(Episode, Checkpoint.label).join(Checkpoint).join(Experiment).where(Experiment.name == experiment)
    if checkpoint is not None:
        query = query.where(Checkpoint.label == checkpoint)
    records = [_episode_record(experiment, label, row) for row, label in session.execute(query).tuples()]
    return sorted(records, key=lambda record: (record.checkpoint, record.number))


def list_figures(
    session: Session, experiment: str, checkpoint: str, first: int, last: int
) -> dict[int, tuple[str | None, float, int]]:
    """Manifest's digest, return and length of the checkpoint's episodes from one number to another, by number."""
    columns = (Episode.number, Episode.manifest_sha256, Episode.episode_return, Episode.episode_length)
    query = select(*columns).join(Checkpoint).join(Experiment)
    own = (Experiment.name == experiment, Checkpoint.label == checkpoint, Episode.number.between(first, last))
    rows = session.execute(query.where(*own)).tuples()
    return {number: (sha256, total, length) for number, sha256, total, length in rows}


def episodes_from(
    session: Session, experiment: str, checkpoint: str, first: int, last: int | None = None, most: int | None = None
) -> list[EpisodeRecord]:
    """A checkpoint's episodes from one number on, up to another or so many of them; by number."""
    query = select(Episode).join(Checkpoint).join(Experiment)
    query = query.where(Experiment.name == experiment, Checkpoint.label == checkpoint, Episode.number >= first)
    if last is not None:
        query = query.where(Episode.number <= last)
    rows = session.scalars(query.order_by(Episode.number).limit(most))
    return [_episode_record(experiment, checkpoint, row) for row in rows]


def unusable_checkpoints(session: Session, experiment: str) -> dict[str, str]:
    """Why checkpoints in the experiment's watched folder were reported as unusable, by label."""
    query = select(UnusableCheckpoint.label, UnusableCheckpoint.reason)
    return dict(session.execute(query.where(UnusableCheckpoint.experiment == experiment)).tuples().all())


def find_episodes(session: Session, experiment: str, checkpoint: str, numbers: Iterable[int]) -> list[EpisodeRecord]:
    """Those among the episodes that have a row, by number."""
    query = select(Episode).join(Checkpoint).join(Experiment)
    query = query.where(Experiment.name == experiment, Checkpoint.label == checkpoint)
    rows = (row for part in in_parts(numbers) for row in session.scalars(query.where(Episode.number.in_(part))))
    records = [_episode_record(experiment, checkpoint, row) for row in rows]
    return sorted(records, key=lambda record: record.number)


def find_indexed(session: Session, experiment: str, checkpoint: str, numbers: Iterable[int]) -> set[int]:
    """Those among the episodes that have a row."""
    query = select(Episode.number).join(Checkpoint).join(Experiment)
    query = query.where(Experiment.name == experiment, Checkpoint.label == checkpoint)
    return {number for part in in_parts(numbers) for number in session.scalars(query.where(Episode.number.in_(part)))}


def each_number(session: Session, experiment: str, checkpoint: str) -> Iterator[int]:
    """Of all of a checkpoint's episodes, ascending."""
    query = select(Episode.number).join(Checkpoint).join(Experiment)
    query = query.where(Experiment.name == experiment, Checkpoint.label == checkpoint).order_by(Episode.number)
    yield from session.scalars(query.execution_options(yield_per=_ROWS_AT_ONCE))


def iterate_index(
    session: Session, experiment: str, checkpoint: str
) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Of each of a checkpoint's episodes the number, the request's and the manifest's digest, and the sizes as text."""
    sizes = type_coerce(Episode.sizes, String)
    query = select(Episode.number, Episode.request_digest, Episode.manifest_sha256, sizes).join(Checkpoint)
    query = query.join(Experiment).where(Experiment.name == experiment, Checkpoint.label == checkpoint)
    rows = session.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)).tuples()
    yield from rows


def in_parts(numbers: Iterable[int]) -> Iterator[list[int]]:
    """The numbers, so many at once as a statement may hold."""
    ordered = sorted(set(numbers))
    return (ordered[start : start + _VALUES_AT_ONCE] for start in range(0, len(ordered), _VALUES_AT_ONCE))


def checkpoint_row_ids(session: Session, experiment: str) -> dict[str, int]:
    """Primary keys of an experiment's checkpoints, by label."""
    query = select(Checkpoint.label, Checkpoint.id).join(Experiment).where(Experiment.name == experiment)
    return dict(session.execute(query).tuples().all())


def experiment_row_id(session: Session, name: str) -> int:
    """An experiment's primary key.

    Raises:
        InvalidParameterError: no experiment of that name is registered.
    """
    row_id = session.scalar(select(Experiment.id).where(Experiment.name == name))
    if row_id is None:
        raise InvalidParameterError(f"Experiment {name!r} is not registered. See `python flows/register.py --list`.")
    return row_id


def _environment_record(row: Environment) -> EnvironmentRecord:
    names = None if row.action_names is None else tuple(row.action_names)
    return _record(EnvironmentRecord, row, additional_packages=tuple(row.additional_packages), action_names=names)


def _experiment_record(row: Experiment, project: str, env_id: str) -> ExperimentRecord:
    following = None if row.following is None else Following.from_json(row.following)
    return _record(ExperimentRecord, row, project=project, env_id=env_id, following=following)


def _checkpoint_record(experiment: str, row: Checkpoint) -> CheckpointRecord:
    return _record(CheckpointRecord, row, experiment=experiment)


def _episode_record(experiment: str, checkpoint: str, row: Episode) -> EpisodeRecord:
    others = {"experiment": experiment, "checkpoint": checkpoint, "warnings": tuple(row.warnings or ())}
    return _record(EpisodeRecord, row, **others)


def _record(kind: Callable[..., R], row: Base, **others: Any) -> R:
    """A record: the columns that are called like its fields, and what they don't say."""
    columns = {name: getattr(row, name) for name in field_names(kind) if name not in others}
    return kind(**columns, **others)
