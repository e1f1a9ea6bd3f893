"""From what a user asks to import to what will be imported. Reads everywhere, writes nowhere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rlhfblender_core.dataset.layout import ACTION_LABELS, FINAL, MANIFESTS, RANDOM, RUNS, ArtifactKind, CheckpointKey
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError, RegistryConflictError
from rlhfblender_core.import_data.demonstrations import DEMO, with_demonstrations
from rlhfblender_core.import_data.environment import env_kwargs_to_register, made_with, new_environment
from rlhfblender_core.import_data.episodes import ImportTarget
from rlhfblender_core.import_data.source_database import SourceFacts, database_fault, find_database, read_facts
from rlhfblender_core.import_data.sources import (
    DEMONSTRATIONS,
    SourceCheckpoint,
    SourceExperiment,
    data_folder,
    find_source_experiments,
)
from rlhfblender_core.names import checked_name, path_segment
from rlhfblender_core.registry import (
    DEFAULT_PROJECT,
    CheckpointRecord,
    EnvironmentRecord,
    ExperimentRecord,
    Registry,
    experiment_conflict,
    name_conflict,
)
from rlhfblender_core.registry.engine import checked_url, sqlite_file
from rlhfblender_core.wording import did_you_mean

#: RLHF-Blender's name for the last checkpoint, or for none.
_LAST = "-1"
#: Of a number of steps: longer ones are names, which no database can hold as a number.
_MOST_DIGITS = 18
#: Lines about files that are left out.
_MOST_UNKNOWN = 20
#: The server's folders of states of the environment.
ENV_STATES, INITIAL_STATES = "env_states", "initial_states"
#: Files of a folder that is left out are counted as far as this.
_MOST_COUNTED = 100_000


@dataclass(frozen=True)
class ImportRequest:
    """What a user asks for; named like the flags.

    Raises:
        RequestError: a value that no request can have.
    """

    folder: Path
    exp: str
    env: str
    project: str = DEFAULT_PROJECT
    source_exp: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        checked_name(self.exp, "experiment")
        checked_name(self.project, "project")
        path_segment(self.env)


@dataclass(frozen=True)
class ImportPlan:
    """What will be done.

    Attributes:
        folder: the source's data folder.
        database: RLHF-Blender's database there, if there is one.
        environment: to be registered.
        experiment: to be registered.
        work: each checkpoint of the source with what its episodes become.
        notes: what a person should know of the registration.
    """

    folder: Path
    database: Path | None
    environment: EnvironmentRecord
    experiment: ExperimentRecord
    work: tuple[tuple[SourceCheckpoint, ImportTarget], ...]
    notes: tuple[str, ...] = ()

    def checkpoint_records(self) -> list[CheckpointRecord]:
        """The checkpoints, to be registered."""
        return [
            CheckpointRecord(
                experiment=self.experiment.name,
                label=target.key.checkpoint,
                step=target.step,
                algorithm=target.algorithm,
            )
            for _, target in self.work
        ]


def plan_import(request: ImportRequest, registry: Registry | None) -> ImportPlan:
    """Finds what there is to import and how it will be registered.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    folder = data_folder(request.folder)
    database = find_database(folder)
    source = _with_states(
        _chosen(with_demonstrations(find_source_experiments(folder), folder), request, database), request.env
    )
    facts = read_facts(database, source.experiment_id, request.env)
    known = registry.find_environment(request.env) if registry else None
    environment, notes = (known, ()) if known else new_environment(request.env, facts, source)
    env_kwargs, kwargs_notes = env_kwargs_to_register(request.env, facts)
    played = [checkpoint for checkpoint in source.checkpoints if checkpoint.name != DEMO]
    is_random = facts.is_random or (bool(played) and all(checkpoint.name == RANDOM for checkpoint in played))
    experiment = ExperimentRecord(
        name=request.exp,
        env_id=request.env,
        kind="random" if is_random else "trained",
        project=request.project,
        env_kwargs=env_kwargs,
        observation_space=facts.observation_space,
        action_space=facts.action_space,
    )
    registered = registry.find_experiment(request.exp) if registry else None
    if registered is None:
        conflict = name_conflict(request.exp, registry.list_experiments()) if registry else None
    else:
        conflict = experiment_conflict(registered, experiment)
    if conflict:
        raise RegistryConflictError(conflict)
    work = tuple(
        (checkpoint, _target(checkpoint, request, facts, environment, is_random=is_random))
        for checkpoint in source.checkpoints
    )
    _check_labels(work)
    notes = (
        *_database_notes(database, folder),
        *notes,
        *kwargs_notes,
        *_unknown_file_notes(source, folder),
        *_other_folder_notes(source, folder),
        *_other_demonstration_notes(source, folder),
    )
    return ImportPlan(folder, database, environment, experiment, work, notes)


def _with_states(source: SourceExperiment, env_id: str) -> SourceExperiment:
    """The experiment with the folders of its states of the environment, which are named by the id as it stands."""
    checkpoints = tuple(
        replace(one, states=f"{ENV_STATES}/{env_id}/{env_id}_{source.experiment_id}_{one.name}")
        if one.layout == "server" and one.name != DEMO
        else one
        for one in source.checkpoints
    )
    return replace(source, checkpoints=checkpoints)


def _database_notes(database: Path | None, folder: Path) -> tuple[str, ...]:
    fault = None if database is None else database_fault(database)
    if database is None or fault is None:
        return ()
    shown = database.name if database.parent == folder else f"../{database.name}"
    return (f"{shown}: can't be read in full ({fault}); what it says of the environment may be missing.",)


def _unknown_file_notes(source: SourceExperiment, folder: Path) -> tuple[str, ...]:
    """Files that look as if they belonged to an episode and have no number that one could have."""
    files = [file for checkpoint in source.checkpoints for file in checkpoint.unknown_files()]
    lines = [f"{file.relative_to(folder).as_posix()}: left out, its name is no episode's" for file in files]
    more = len(lines) - _MOST_UNKNOWN
    if more > 0:
        lines = [*lines[:_MOST_UNKNOWN], f"{more} more files left out: their names are no episodes'"]
    return tuple(lines)


def _other_folder_notes(source: SourceExperiment, folder: Path) -> tuple[str, ...]:
    """What lies beside the episodes and isn't taken: projections, anything else."""
    ours = {*ArtifactKind, ACTION_LABELS, MANIFESTS, RUNS, DEMONSTRATIONS, "gallery", "quarantine"}
    if any(checkpoint.states and (folder / checkpoint.states).is_dir() for checkpoint in source.checkpoints):
        ours |= {ENV_STATES, INITIAL_STATES}  # the initial ones are the first of each
    lines = []
    for other in sorted(folder.iterdir()):
        if other.is_dir() and not other.is_symlink() and other.name not in ours and not other.name.startswith("."):
            files = sum(1 for file in islice(other.rglob("*"), _MOST_COUNTED) if file.is_file())
            many = "or more " if files >= _MOST_COUNTED else ""
            lines.append(f"{other.name}/: {files} {many}files left out; a data set of ours has no such kind")
    return tuple(lines)


def _other_demonstration_notes(source: SourceExperiment, folder: Path) -> tuple[str, ...]:
    """Demonstrations of other experiments, and files that are none."""
    taken = {file for checkpoint in source.checkpoints for file in checkpoint.demonstrations}
    others = [file for file in islice((folder / DEMONSTRATIONS).rglob("*.npz"), _MOST_COUNTED) if file not in taken]
    return (f"{DEMONSTRATIONS}/: {len(others)} files left out; they are none of this experiment's",) if others else ()


def check_locations(plan: ImportPlan, database_url: str) -> None:
    """Makes sure that the registry isn't written into the source's own database.

    Raises:
        DataNotUsableError: it would be.
    """
    file = sqlite_file(checked_url(database_url))
    if file is not None and plan.database is not None and file.exists() and file.samefile(plan.database):
        raise DataNotUsableError(
            f"{file} is RLHF-Blender's own database, which is not changed. Give another --database-url or --data-root."
        )


def _chosen(found: Sequence[SourceExperiment], request: ImportRequest, database: Path | None) -> SourceExperiment:
    """The experiment of the source that is meant.

    Raises:
        InvalidParameterError: none or several could be.
    """
    if not found:
        raise DataNotUsableError(
            f"{request.folder} has no episodes. Its files lie in <kind>/<experiment>/<subfolder>/."
        )
    names = {experiment.name: experiment for experiment in found}
    if request.source_exp is not None:
        titles = {_title(experiment, request.env, database): experiment for experiment in found}
        chosen = names.get(request.source_exp) or titles.get(request.source_exp)
        if chosen is None:
            raise InvalidParameterError(
                f"{request.folder} has no experiment {request.source_exp!r}. {did_you_mean(request.source_exp, names)}"
            )
        return chosen
    fitting = [experiment for experiment in found if _fits(experiment, request, database)]
    if len(fitting) > 1:
        fitting = [one for one in fitting if request.exp in (one.name, _title(one, request.env, database))] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        environments = sorted({experiment.environment or "" for experiment in found})
        raise InvalidParameterError(
            f"{request.folder} has no episodes of {request.env}. It has those of {', '.join(environments)}; "
            "give one as --env, or name the experiment with --source-exp."
        )
    several = ", ".join(experiment.name for experiment in fitting)
    raise InvalidParameterError(f"{request.folder} has several experiments: {several}. Choose one with --source-exp.")


def _title(experiment: SourceExperiment, env_id: str, database: Path | None) -> str | None:
    return read_facts(database, experiment.experiment_id, env_id).experiment if experiment.experiment_id else None


def _fits(experiment: SourceExperiment, request: ImportRequest, database: Path | None) -> bool:
    if experiment.environment is None:
        return True
    facts = read_facts(database, experiment.experiment_id, request.env)
    names = {request.env, facts.display_name} if facts.env_id in (None, request.env) else {request.env}
    segments = {name.replace("/", "-").replace(":", "-") for name in names if name}
    return experiment.environment in names | segments | {name.replace("_", "-") for name in segments}


def _target(
    checkpoint: SourceCheckpoint,
    request: ImportRequest,
    facts: SourceFacts,
    environment: EnvironmentRecord,
    *,
    is_random: bool,
) -> ImportTarget:
    label = checkpoint.name
    if checkpoint.layout == "server" and label != DEMO and (is_random or label == _LAST):
        label = RANDOM if is_random else FINAL
    return ImportTarget(
        key=CheckpointKey(request.exp, label),
        step=int(label) if label.isascii() and label.isdigit() and len(label) <= _MOST_DIGITS else None,
        environment=made_with(environment, facts),
        algorithm=facts.algorithm if label not in (RANDOM, DEMO) else None,
        action_names=environment.action_names,
        replace=request.overwrite,
    )


def _check_labels(work: Sequence[tuple[SourceCheckpoint, ImportTarget]]) -> None:
    labels = [target.key.checkpoint for _, target in work]
    for label in labels:
        if labels.count(label) > 1:
            folders = ", ".join(source.path for source, target in work if target.key.checkpoint == label)
            raise DataNotUsableError(f"{folders} would all become checkpoint {label!r}. Rename one of the folders.")
