"""From what a user asks to import to what will be imported. Reads everywhere, writes nowhere."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.environments import (
    EnvironmentSpec,
    check_action_names,
    describe_environment,
    space_from_description,
)
from rlhfblender_core.errors import (
    DataNotUsableError,
    EnvironmentNotUsableError,
    InvalidParameterError,
    RegistryConflictError,
)
from rlhfblender_core.import_data.arrays import open_members
from rlhfblender_core.import_data.episodes import ImportTarget
from rlhfblender_core.import_data.source_database import SourceFacts, find_database, read_facts
from rlhfblender_core.import_data.sources import (
    SourceCheckpoint,
    SourceExperiment,
    data_folder,
    find_source_experiments,
)
from rlhfblender_core.layout import FINAL, RANDOM, ArtifactKind, CheckpointKey
from rlhfblender_core.manifests import EnvironmentRecordInManifest
from rlhfblender_core.names import checked_name, path_segment
from rlhfblender_core.registry import (
    DEFAULT_PROJECT,
    CheckpointRecord,
    EnvironmentRecord,
    ExperimentRecord,
    JsonDict,
    Registry,
    experiment_conflict,
)
from rlhfblender_core.registry.engine import checked_url, sqlite_file

#: RLHF-Blender's name for the last checkpoint, or for none.
_LAST = "-1"
#: Axes of probabilities: steps, and possibly one environment.
_DISCRETE_KINDS = "iu"
#: Of a number of steps: longer ones are names, which no database can hold as a number.
_MOST_DIGITS = 18


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
        remarks: what a person should know of the registration.
    """

    folder: Path
    database: Path | None
    environment: EnvironmentRecord
    experiment: ExperimentRecord
    work: tuple[tuple[SourceCheckpoint, ImportTarget], ...]
    remarks: tuple[str, ...] = ()

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
    source = _chosen(find_source_experiments(folder), request, database)
    facts = read_facts(database, source.experiment_id, request.env)
    known = registry.find_environment(request.env) if registry else None
    environment = known or _environment(request.env, facts, source)
    is_random = facts.is_random or all(checkpoint.name == RANDOM for checkpoint in source.checkpoints)
    experiment = ExperimentRecord(
        name=request.exp, env_id=request.env, kind="random" if is_random else "trained", project=request.project
    )
    registered = registry.find_experiment(request.exp) if registry else None
    conflict = registered and experiment_conflict(registered, experiment)
    if conflict:
        raise RegistryConflictError(conflict)
    work = tuple(
        (checkpoint, _target(checkpoint, request, facts, environment, is_random=is_random))
        for checkpoint in source.checkpoints
    )
    _check_labels(work)
    return ImportPlan(folder, database, environment, experiment, work, () if known else _remarks(request.env, facts))


def _remarks(env_id: str, facts: SourceFacts) -> tuple[str, ...]:
    """How to make the environment, as the source says; left to the user, who may trust it."""
    flags = [f"--env-gym-entrypoint {facts.entry_point}"] if facts.entry_point else []
    flags += [f"--additional-gym-packages {' '.join(facts.packages)}"] if facts.packages else []
    if not flags:
        return ()
    return (
        f"{env_id} is registered without {' '.join(flags)}, which the source names: what a data set names is not run. "
        "Episodes of your own need it.",
    )


def check_places(plan: ImportPlan, database_url: str) -> None:
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
                f"{request.folder} has no experiment {request.source_exp!r}. It has: {', '.join(names)}."
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
    if checkpoint.layout == "server" and (is_random or label == _LAST):
        label = RANDOM if is_random else FINAL
    made_with = EnvironmentRecordInManifest(
        id=request.env,
        entry_point=environment.entry_point,
        additional_packages=environment.additional_packages,
        kwargs={**environment.kwargs, **facts.env_kwargs},
        spec_kwargs=environment.spec_kwargs,
    )
    return ImportTarget(
        key=CheckpointKey(request.exp, label),
        step=int(label) if label.isascii() and label.isdigit() and len(label) <= _MOST_DIGITS else None,
        environment=made_with,
        algorithm=facts.algorithm if label != RANDOM else None,
        action_names=environment.action_names,
        replace=request.overwrite,
    )


def _check_labels(work: Sequence[tuple[SourceCheckpoint, ImportTarget]]) -> None:
    labels = [target.key.checkpoint for _, target in work]
    for label in labels:
        if labels.count(label) > 1:
            folders = ", ".join(source.path for source, target in work if target.key.checkpoint == label)
            raise DataNotUsableError(f"{folders} would all become checkpoint {label!r}. Rename one of the folders.")


def _environment(env_id: str, facts: SourceFacts, source: SourceExperiment) -> EnvironmentRecord:
    """The environment as far as it can be known without making it; where it is installed, it is asked.

    Entry point and packages that the source names are not registered: making the environment would run them.
    """
    observation_space, action_space = facts.observation_space, facts.action_space
    if not (observation_space and action_space):
        known = _installed(env_id) or _from_arrays(source)
        observation_space, action_space = observation_space or known[0], action_space or known[1]
    record = EnvironmentRecord(
        env_id=env_id,
        display_name=facts.display_name,
        description=facts.description,
        observation_space=observation_space,
        action_space=action_space,
    )
    return replace(record, action_names=_fitting_names(facts.action_names, action_space))


def _installed(env_id: str) -> tuple[JsonDict, JsonDict] | None:
    """The spaces of an installed environment. Packages that the source names are not imported."""
    try:
        description = describe_environment(EnvironmentSpec(env_id=env_id))
    except EnvironmentNotUsableError:
        return None
    return dict(description.observation_space), dict(description.action_space)


def _fitting_names(names: tuple[str, ...] | None, action_space: JsonDict) -> tuple[str, ...] | None:
    if not names or not action_space:
        return None
    try:
        check_action_names(space_from_description(action_space), names)
    except InvalidParameterError:
        return None
    return names


def _from_arrays(source: SourceExperiment) -> tuple[JsonDict, JsonDict]:
    """Spaces with the shapes and dtypes of the first episode that can be read; empty for what that doesn't tell."""
    for checkpoint in source.checkpoints:
        for episode in checkpoint.episodes().values():
            file = episode.files.get(ArtifactKind.EPISODES)
            try:
                if file is not None:
                    with open_members(file, file.name) as members:
                        return _space_of(members.headers.get("obs")), _action_space(members.headers)
            except DataNotUsableError:
                continue
    return {}, {}


def _space_of(header: Any) -> JsonDict:
    if header is None or header[2].kind not in "biuf" or not header[0]:
        return {}
    shape, _, dtype = header
    is_image = dtype == "uint8"
    low, high = (0, 255) if is_image else ("-inf", "inf")
    if not is_image and dtype.kind != "f":
        return {}
    return {"type": "Box", "shape": list(shape[1:]), "dtype": dtype.name, "low": low, "high": high}


def _action_space(headers: dict[str, Any]) -> JsonDict:
    actions, probabilities = headers.get("actions"), headers.get("probs")
    if actions is None:
        return {}
    shape, _, dtype = actions
    if dtype.kind == "f" and len(shape) > 1:
        return _space_of(actions)
    count = probabilities[0][-1] if probabilities and len(probabilities[0]) > 1 else 0
    if dtype.kind in _DISCRETE_KINDS and len(shape) == 1 and count > 1:
        return {"type": "Discrete", "shape": [], "dtype": "int64", "n": count, "start": 0}
    return {}
