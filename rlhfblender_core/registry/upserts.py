"""Writing the registry, exact under any number of writers. Everything runs in the caller's transaction.

Rows are inserted with ``ON CONFLICT``, never after asking whether they are there: two processes may ask at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Any

from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from rlhfblender_core.errors import (
    EnvironmentNotUsableError,
    InvalidParameterError,
    RegistryConflictError,
    RegistryUnavailableError,
)
from rlhfblender_core.registry import conflicts, queries
from rlhfblender_core.registry.models import (
    Base,
    Checkpoint,
    Claim,
    Environment,
    Episode,
    Experiment,
    Project,
    UnusableCheckpoint,
    now,
)
from rlhfblender_core.registry.records import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    field_names,
)
from rlhfblender_core.wording import counted

#: "RLHF" in ASCII: sets our advisory locks apart from others' on the same PostgreSQL database.
_ADVISORY_LOCKS = 0x524C4846
_EPISODE_FIELDS = (
    "number",
    "seed",
    "episode_return",
    "episode_length",
    "terminated",
    "truncated",
    "request_digest",
    "manifest_sha256",
    "sizes",
    "warnings",
)
_CHECKPOINT_FIELDS = ("step", "sha256", "algorithm")
#: What other tables have, what is written in another form, and what the row gets when it is written.
_NOT_OF_EXPERIMENTS = ("project", "env_id", "following", "created_at", "updated_at")
_EPISODE_KEY = ("checkpoint_id", "number")


def ensure_environment(session: Session, wanted: EnvironmentRecord) -> EnvironmentRecord:
    """The environment as registered, after inserting it or updating what may change.

    Raises:
        RegistryConflictError: it is registered as another environment.
    """
    statement = insert_into(session, Environment).values(
        env_id=wanted.env_id,
        display_name=wanted.display_name,
        description=wanted.description,
        entry_point=wanted.entry_point,
        additional_packages=list(wanted.additional_packages),
        observation_space=wanted.observation_space,
        action_space=wanted.action_space,
        action_names=wanted.action_names,
    )
    session.execute(statement.on_conflict_do_nothing(index_elements=["env_id"]))
    registered = registered_environment(session, wanted.env_id)
    if conflict := conflicts.environment_conflict(registered, wanted):
        raise RegistryConflictError(conflict)
    return update_environment(session, wanted.env_id, conflicts.environment_changes(registered, wanted))


def update_environment(session: Session, env_id: str, changes: dict[str, Any]) -> EnvironmentRecord:
    """The environment after these columns were changed; without changes nothing is written."""
    if changes:
        session.execute(update(Environment).where(Environment.env_id == env_id).values(**changes))
        session.expire_all()
    return registered_environment(session, env_id)


def delete_environment(session: Session, env_id: str) -> None:
    """Deletes the environment's row, if it is there.

    Raises:
        RegistryConflictError: experiments study it.
    """
    row_id = session.scalar(select(Environment.id).where(Environment.env_id == env_id))
    users = session.scalars(select(Experiment.name).where(Experiment.environment_id == row_id)).all()
    if users:
        raise RegistryConflictError(
            f"Environment {env_id!r} is used by {counted(len(users), 'experiment')}: {', '.join(sorted(users))}. "
            f"Delete them first, e.g. by `python flows/delete.py --exp {quote(min(users))}`."
        )
    session.execute(delete(Environment).where(Environment.id == row_id))


def registered_environment(session: Session, env_id: str) -> EnvironmentRecord:
    """The environment of that id.

    Raises:
        EnvironmentNotUsableError: none is registered.
    """
    record = queries.find_environment(session, env_id)
    if record is None:
        raise EnvironmentNotUsableError(
            f"Environment {env_id!r} is not registered. Register it: `python flows/register.py --env {quote(env_id)}`."
        )
    return record


def ensure_project(session: Session, name: str) -> None:
    """Inserts the project if it isn't there."""
    session.execute(insert_into(session, Project).values(name=name).on_conflict_do_nothing(index_elements=["name"]))


def ensure_experiment(session: Session, wanted: ExperimentRecord, *, replace_settings: bool) -> ExperimentRecord:
    """The experiment as registered, after inserting it and its project or replacing its settings.

    Raises:
        EnvironmentNotUsableError: its environment isn't registered.
        RegistryConflictError: it is registered with something else that may not change, or another name is that
            differs in case only.
    """
    registered_environment(session, wanted.env_id)
    if not queries.find_experiments(session, name=wanted.name):
        _insert_experiment(session, wanted)
    registered = _registered_experiment(session, wanted.name)
    conflict = conflicts.experiment_conflict(registered, wanted, replace_settings=replace_settings)
    if conflict:
        raise RegistryConflictError(conflict)
    changes = conflicts.experiment_changes(registered, wanted, replace_settings=replace_settings)
    if not changes:
        return registered
    session.execute(update(Experiment).where(Experiment.name == wanted.name).values(**changes))
    session.expire_all()
    return _registered_experiment(session, wanted.name)


def update_experiment(session: Session, name: str, changes: dict[str, Any]) -> ExperimentRecord:
    """The experiment after these columns were changed; ``project`` is a project's name."""
    if "project" in changes:
        ensure_project(session, changes["project"])
        project_id = session.scalar(select(Project.id).where(Project.name == changes["project"]))
        changes = {**changes, "project_id": project_id}
        del changes["project"]
    if changes:
        session.execute(update(Experiment).where(Experiment.name == name).values(**changes))
        session.expire_all()
    return _registered_experiment(session, name)


def _registered_experiment(session: Session, name: str) -> ExperimentRecord:
    records = queries.find_experiments(session, name=name)
    if not records:
        raise RegistryUnavailableError(f"Experiment {name!r} was deleted by another run just now. Try again.")
    return records[0]


def _insert_experiment(session: Session, wanted: ExperimentRecord) -> None:
    lock_name(session, wanted.name.casefold())  # two runs may register names at once that differ in case only
    if conflict := conflicts.name_conflict(wanted.name, queries.find_experiments(session)):
        raise RegistryConflictError(conflict)
    ensure_project(session, wanted.project)
    own = [name for name in field_names(ExperimentRecord) if name not in _NOT_OF_EXPERIMENTS]
    experiment = insert_into(session, Experiment).values(
        project_id=session.scalar(select(Project.id).where(Project.name == wanted.project)),
        environment_id=session.scalar(select(Environment.id).where(Environment.env_id == wanted.env_id)),
        following=wanted.following and wanted.following.to_json(),
        **{name: getattr(wanted, name) for name in own},
    )
    session.execute(experiment.on_conflict_do_nothing(index_elements=["name"]))


def ensure_checkpoints(session: Session, experiment: str, wanted: Sequence[CheckpointRecord]) -> None:
    """Inserts an experiment's checkpoints, or updates what is given of them.

    Raises:
        InvalidParameterError: the experiment isn't registered.
    """
    row_id = queries.experiment_row_id(session, experiment)
    statement = insert_into(session, Checkpoint)
    given = {name: func.coalesce(statement.excluded[name], getattr(Checkpoint, name)) for name in _CHECKPOINT_FIELDS}
    rows = [
        {"experiment_id": row_id, "label": record.label} | {name: getattr(record, name) for name in _CHECKPOINT_FIELDS}
        for record in wanted
    ]
    session.execute(statement.on_conflict_do_update(index_elements=["experiment_id", "label"], set_=given), rows)


def record_episodes(session: Session, records: Sequence[EpisodeRecord]) -> None:
    """Inserts the episodes or brings their rows up to date; rows that say the same are left alone.

    Raises:
        InvalidParameterError: an experiment or a checkpoint isn't registered.
    """
    statement = insert_into(session, Episode)
    values = {name: statement.excluded[name] for name in _EPISODE_FIELDS if name not in _EPISODE_KEY}
    differs = or_(*(getattr(Episode, name).is_distinct_from(value) for name, value in values.items()))
    statement = statement.on_conflict_do_update(
        index_elements=list(_EPISODE_KEY),
        set_={**values, "created_at": statement.excluded.created_at},
        where=differs,
    )
    rows = [
        {"checkpoint_id": row_id, "created_at": record.created_at or now()}
        | {name: getattr(record, name) for name in _EPISODE_FIELDS}
        for row_id, record in _with_checkpoint_ids(session, records)
    ]
    # In one order for all writers: two that update the same rows in different orders would wait for each other.
    rows.sort(key=lambda row: tuple(row[name] for name in _EPISODE_KEY))
    if rows:
        session.execute(statement, rows)


def _with_checkpoint_ids(session: Session, records: Sequence[EpisodeRecord]) -> list[tuple[int, EpisodeRecord]]:
    experiments = {record.experiment for record in records}
    row_ids = {name: queries.checkpoint_row_ids(session, name) for name in experiments}
    for record in records:
        if record.checkpoint not in row_ids[record.experiment]:
            raise InvalidParameterError(
                f"Checkpoint {record.checkpoint!r} of experiment {record.experiment!r} is not registered; "
                "was it deleted meanwhile? Run the command again."
            )
    return [(row_ids[record.experiment][record.checkpoint], record) for record in records]


def forget_episodes(session: Session, experiment: str, checkpoint: str, numbers: Iterable[int]) -> None:
    """Deletes these episodes' rows, if they are there."""
    row_id = queries.checkpoint_row_ids(session, experiment).get(checkpoint)
    doomed = sorted(set(numbers))
    if row_id is None:
        return
    for start in range(0, len(doomed), 1000):  # databases limit the number of values in a statement
        part = doomed[start : start + 1000]
        session.execute(delete(Episode).where(Episode.checkpoint_id == row_id, Episode.number.in_(part)))


def forget_checkpoint(session: Session, experiment: str, checkpoint: str) -> None:
    """Deletes a checkpoint's row and those of its episodes and of claims on them, if they are there."""
    session.execute(delete(Claim).where(Claim.experiment == experiment, Claim.checkpoint == checkpoint))
    row_id = queries.checkpoint_row_ids(session, experiment).get(checkpoint)
    if row_id is not None:
        session.execute(delete(Checkpoint).where(Checkpoint.id == row_id))


def forget_experiment(session: Session, name: str) -> None:
    """Deletes an experiment's row and those of its checkpoints, episodes and claims, if they are there."""
    session.execute(delete(Claim).where(Claim.experiment == name))
    session.execute(delete(Experiment).where(Experiment.name == name))


def replace_unusable(session: Session, experiment: str, reasons: Mapping[str, str]) -> None:
    """Keeps which of an experiment's checkpoints can't be used, and why, in place of what was kept before."""
    session.execute(delete(UnusableCheckpoint).where(UnusableCheckpoint.experiment == experiment))
    rows = [{"experiment": experiment, "label": label, "reason": reason} for label, reason in reasons.items()]
    if rows:
        session.execute(insert_into(session, UnusableCheckpoint).values(rows).on_conflict_do_nothing())


def insert_into(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """The dialect's own insert, which knows ``ON CONFLICT``."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def lock_name(session: Session, name: str) -> None:
    """Keeps others that lock the name from deciding anything until the transaction ends."""
    if not is_sqlite(session):  # whose transactions lock all of it
        statement = text("SELECT pg_advisory_xact_lock(:ours, hashtext(:name))")
        session.execute(statement, {"ours": _ADVISORY_LOCKS, "name": name})


def is_sqlite(session: Session) -> bool:
    """Whether the registry is SQLite's; else it is PostgreSQL's."""
    return session.get_bind().dialect.name == "sqlite"
