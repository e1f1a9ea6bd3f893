"""The registry as the rest of the project sees it: ask it, tell it. How one is opened is in :mod:`.opening`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlhfblender_core.errors import RegistryConflictError
from rlhfblender_core.registry import claims, conflicts, queries, summaries, upserts
from rlhfblender_core.registry.claims_store import ClaimsStore
from rlhfblender_core.registry.records import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    ProjectRecord,
    ReturnSummary,
)

#: Episodes that are read in one query.
_PAGE = 2000


class Registry(ClaimsStore):
    """An open registry. A context manager; safe to share between threads, not between processes.

    Every method is one transaction. Besides what their docstrings say, all raise RegistryUnavailableError (locked,
    connection lost) and RegistryNotUsableError (disk full, no rights).
    """

    def ensure_environment(self, record: EnvironmentRecord) -> EnvironmentRecord:
        """The environment as registered: inserted on first use; names, description and spaces updated when given.

        Raises:
            RegistryConflictError: registered with another entry point or packages than given.
        """
        registered = self.find_environment(record.env_id)
        if registered is not None:
            if conflict := conflicts.environment_conflict(registered, record):
                raise RegistryConflictError(conflict)
            if not conflicts.environment_changes(registered, record):
                return registered
        with self._write() as session:
            return upserts.ensure_environment(session, record)

    def set_action_names(self, env_id: str, names: Sequence[str] | None) -> EnvironmentRecord:
        """The environment with these labels of its actions, or none; the caller checks them against the space.

        Raises:
            EnvironmentNotUsableError: it isn't registered.
        """
        with self._write() as session:
            labels = None if names is None else list(names)
            return upserts.update_environment(session, env_id, {"action_names": labels})

    def update_environment(self, record: EnvironmentRecord) -> EnvironmentRecord:
        """The environment as registered, with the record's values in place of what it had.

        Raises:
            EnvironmentNotUsableError: it isn't registered.
        """
        names = ("display_name", "description", "entry_point", "observation_space", "action_space", "action_names")
        changes = {name: getattr(record, name) for name in names}
        with self._write() as session:
            packages = list(record.additional_packages)
            return upserts.update_environment(session, record.env_id, {**changes, "additional_packages": packages})

    def delete_environment(self, env_id: str) -> None:
        """Deletes an environment. No error if it is gone.

        Raises:
            RegistryConflictError: experiments study it.
        """
        with self._write() as session:
            upserts.delete_environment(session, env_id)

    def find_environment(self, env_id: str) -> EnvironmentRecord | None:
        """The environment of that id; None if it isn't registered."""
        with self._read() as session:
            return queries.find_environment(session, env_id)

    def list_environments(self) -> list[EnvironmentRecord]:
        """All environments, by id."""
        with self._read() as session:
            return queries.list_environments(session)

    def ensure_project(self, name: str) -> None:
        """Inserts the project if it isn't there.

        Raises:
            InvalidNameError: the name is none that a project can have.
        """
        wanted = ProjectRecord(name=name).name
        if wanted not in {record.name for record in self.list_projects()}:
            with self._write() as session:
                upserts.ensure_project(session, wanted)

    def list_projects(self) -> list[ProjectRecord]:
        """All projects, by name."""
        with self._read() as session:
            return queries.list_projects(session)

    def ensure_experiment(self, record: ExperimentRecord, *, replace_settings: bool = False) -> ExperimentRecord:
        """The experiment as registered: inserted with its project on first use.

        Args:
            record: what to register.
            replace_settings: let kind, keyword arguments and settings take the given values; environment and project
                stay. Model path and spaces take them anyway.

        Raises:
            EnvironmentNotUsableError: its environment isn't registered.
            RegistryConflictError: registered with another environment, project, kind, keyword argument or setting.
        """
        registered = self.find_experiment(record.name)
        if registered is not None:
            if conflict := conflicts.experiment_conflict(registered, record, replace_settings=replace_settings):
                raise RegistryConflictError(conflict)
            if not conflicts.experiment_changes(registered, record, replace_settings=replace_settings):
                return registered
        with self._write() as session:
            return upserts.ensure_experiment(session, record, replace_settings=replace_settings)

    def update_experiment(self, name: str, changes: Mapping[str, Any]) -> ExperimentRecord:
        """The experiment with these columns changed, ``project`` by its name."""
        with self._write() as session:
            return upserts.update_experiment(session, name, dict(changes))

    def find_experiment(self, name: str) -> ExperimentRecord | None:
        """The experiment of that name; None if it isn't registered."""
        with self._read() as session:
            return next(iter(queries.find_experiments(session, name=name)), None)

    def list_experiments(self, project: str | None = None) -> list[ExperimentRecord]:
        """The experiments of a project, or all, by name."""
        with self._read() as session:
            return queries.find_experiments(session, project=project)

    def forget_experiment(self, experiment: str) -> None:
        """Deletes an experiment with its checkpoints and episodes; project and environment stay. No error if gone."""
        with self._write() as session:
            upserts.forget_experiment(session, experiment)

    def ensure_checkpoint(self, record: CheckpointRecord) -> CheckpointRecord:
        """The checkpoint as registered, see :meth:`ensure_checkpoints`."""
        self.ensure_checkpoints(record.experiment, [record])
        return next(each for each in self.list_checkpoints(record.experiment) if each.label == record.label)

    def ensure_checkpoints(self, experiment: str, records: Sequence[CheckpointRecord]) -> None:
        """Inserts the experiment's checkpoints, or updates them in what is given; all of them at once.

        Raises:
            InvalidParameterError: the experiment isn't registered.
        """
        known = {record.label: record for record in self.list_checkpoints(experiment)}
        changed = [
            record
            for record in records
            if record.label not in known or conflicts.checkpoint_changes(known[record.label], record)
        ]
        if changed:
            with self._write() as session:
                upserts.ensure_checkpoints(session, experiment, changed)

    def list_checkpoints(self, experiment: str) -> list[CheckpointRecord]:
        """An experiment's checkpoints, by step, those without a step last; empty if it isn't registered."""
        with self._read() as session:
            return queries.list_checkpoints(session, experiment)

    def forget_checkpoint(self, experiment: str, checkpoint: str) -> None:
        """Deletes a checkpoint with its episodes. No error if it is gone."""
        with self._write() as session:
            upserts.forget_checkpoint(session, experiment, checkpoint)

    def record_episodes(self, records: Sequence[EpisodeRecord], *, claimed_by: str | None = None) -> None:
        """Inserts episodes or brings their rows up to date, all or none; rows that say the same are left alone.

        Args:
            records: the episodes.
            claimed_by: id of the run whose claims on them are released in the same transaction; None for none.

        Raises:
            InvalidParameterError: an experiment or a checkpoint isn't registered.
        """
        if records:
            with self._write() as session:
                upserts.record_episodes(session, records)
                if claimed_by is not None:
                    claims.release_published(session, claimed_by, records)

    def list_episodes(self, experiment: str, checkpoint: str | None = None) -> list[EpisodeRecord]:
        """An experiment's episodes, of one checkpoint or all, by checkpoint's label and number."""
        with self._read() as session:
            return queries.list_episodes(session, experiment, checkpoint)

    def list_figures(
        self, experiment: str, checkpoint: str, first: int, last: int
    ) -> dict[int, tuple[str | None, float, int]]:
        """Manifest's sha256 (None where it isn't known), return and length of a checkpoint's episodes, by number.

        Args:
            experiment: its name.
            checkpoint: its label.
            first: number of the first episode.
            last: number of the last one.
        """
        with self._read() as session:
            return queries.list_figures(session, experiment, checkpoint, first, last)

    def find_episodes(self, experiment: str, checkpoint: str, numbers: Iterable[int]) -> list[EpisodeRecord]:
        """Those among the episodes that have a row, by number."""
        with self._read() as session:
            return queries.find_episodes(session, experiment, checkpoint, numbers)

    def iterate_index(self, experiment: str, checkpoint: str) -> Iterator[tuple[int, str, str | None, str | None]]:
        """All episodes of a checkpoint, as little of each as tells whether its files are there.

        Yields:
            Number, digest of the request, sha256 of the manifest, and the sizes as JSON with sorted keys and no spaces;
            None for those that an older version wrote.
        """
        with self._read() as session:
            yield from queries.iterate_index(session, experiment, checkpoint)

    def summarise(self, experiment: str, below: int | None = None) -> list[ReturnSummary]:
        """Returns and lengths of the experiment's episodes, by checkpoint; none for one without episodes.

        Args:
            experiment: the experiment's name.
            below: count episodes with numbers below that; None for all.
        """
        with self._read() as session:
            return summaries.summarise(session, experiment, below)

    def count_warnings(self, experiment: str, below: int | None = None) -> dict[str, dict[str, int]]:
        """Number of episodes by checkpoint's label and warning, see :meth:`summarise`."""
        with self._read() as session:
            return summaries.count_warnings(session, experiment, below)

    def forget_episodes(self, experiment: str, checkpoint: str, numbers: Iterable[int]) -> None:
        """Deletes these episodes. No error if they are gone."""
        with self._write() as session:
            upserts.forget_episodes(session, experiment, checkpoint, numbers)

    def episodes_between(self, experiment: str, checkpoint: str, first: int, last: int) -> list[EpisodeRecord]:
        """A checkpoint's episodes from one number to another, both included; by number."""
        with self._read() as session:
            return queries.episodes_from(session, experiment, checkpoint, first, last)

    def each_episode(self, experiment: str, checkpoint: str) -> Iterator[EpisodeRecord]:
        """A checkpoint's episodes by number; memory doesn't grow with how many there are."""
        first = 0
        while True:
            with self._read() as session:
                page = queries.episodes_from(session, experiment, checkpoint, first, most=_PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            first = page[-1].number + 1

    def each_number(self, experiment: str, checkpoint: str) -> Iterator[int]:
        """Numbers of a checkpoint's episodes that have a row, ascending."""
        with self._read() as session:
            yield from queries.each_number(session, experiment, checkpoint)

    def find_indexed(self, experiment: str, checkpoint: str, numbers: Iterable[int]) -> set[int]:
        """Those among the episodes that have a row."""
        with self._read() as session:
            return queries.find_indexed(session, experiment, checkpoint, numbers)

    def report_unusable(self, experiment: str, reasons: Mapping[str, str]) -> dict[str, str]:
        """Keeps which of an experiment's checkpoints can't be used, and why; returns what was kept before."""
        with self._read() as session:
            before = queries.unusable_checkpoints(session, experiment)
        if before != dict(reasons):
            with self._write() as session:
                upserts.replace_unusable(session, experiment, reasons)
        return before
