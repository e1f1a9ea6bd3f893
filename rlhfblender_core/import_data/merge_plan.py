"""From what a user asks to merge to what will be merged. Reads everywhere, writes nowhere.

The other data set is only read, on any storage. Its registry isn't needed: manifests tell what there is to register.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhfblender_core.dataset.layout import (
    MANIFESTS,
    RANDOM,
    CheckpointKey,
    EpisodeKey,
    manifest_folder,
    manifest_path,
    parse_episode_number,
)
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.environments import Trust
from rlhfblender_core.errors import (
    DataNotUsableError,
    InvalidParameterError,
    RegistryConflictError,
    RequestError,
)
from rlhfblender_core.import_data.environment import new_environment
from rlhfblender_core.import_data.source_database import SourceFacts
from rlhfblender_core.import_data.sources import SourceCheckpoint, SourceExperiment
from rlhfblender_core.names import checked_name, is_name
from rlhfblender_core.registry import (
    DEFAULT_PROJECT,
    CheckpointRecord,
    EnvironmentRecord,
    ExperimentRecord,
    Registry,
    experiment_conflict,
    name_conflict,
)
from rlhfblender_core.storage import (
    DataRoot,
    list_folders,
    list_names,
    read_many,
)
from rlhfblender_core.verification.remakes import experiment_of, known_environment
from rlhfblender_core.wording import did_you_mean


@dataclass(frozen=True)
class MergeRequest:
    """What a user asks for; named like the flags.

    Attributes:
        source: URL of the other data set.
        exp: what its one experiment becomes; None for its own name.
        env: its environment, where that was named.
        source_exp: which experiment; None for all, or for the one that ``exp`` names.
    """

    source: str
    exp: str | None = None
    env: str | None = None
    project: str = DEFAULT_PROJECT
    source_exp: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.exp is not None:
            checked_name(self.exp, "experiment")
        checked_name(self.project, "project")


@dataclass(frozen=True)
class Merge:
    """A checkpoint that is merged.

    Attributes:
        source: URL of the other data set.
        origin: the checkpoint there.
        key: what it becomes.
        replace: whether episodes that are there, made otherwise, are replaced.
        left_over: numbers of the episodes that a dead run had claimed: files of theirs without a manifest are ours.
    """

    source: str
    origin: CheckpointKey
    key: CheckpointKey
    replace: bool = False
    left_over: frozenset[int] = frozenset()


@dataclass(frozen=True)
class MergePlan:
    """One experiment that is merged.

    Attributes:
        environment: to be registered.
        experiment: to be registered.
        checkpoints: to be registered.
        work: its checkpoints.
        notes: what a person should know.
    """

    environment: EnvironmentRecord
    experiment: ExperimentRecord
    checkpoints: tuple[CheckpointRecord, ...]
    work: tuple[Merge, ...]
    notes: tuple[str, ...] = ()


def is_data_set(root: DataRoot) -> bool:
    """Whether there are episodes in this project's layout."""
    return any(True for _ in list_folders(root, MANIFESTS))


def plan_merge(
    request: MergeRequest, source: DataRoot, root: DataRoot, registry: Registry | None, trust: Trust
) -> tuple[MergePlan, ...]:
    """What is merged, one experiment after the other; reads everywhere, writes nowhere.

    Args:
        request: what is asked for.
        source: the other data set.
        root: the data root.
        registry: the data root's; None where there is none.
        trust: what manifests may name to make environments with.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    return tuple(
        _plan_experiment(request, source, name, request.exp or name, root, registry, trust)
        for name in _chosen(request, source)
    )


def _chosen(request: MergeRequest, source: DataRoot) -> list[str]:
    """Names of the other data set's experiments that are meant."""
    found = sorted(filter(is_name, list_folders(source, MANIFESTS)))
    wanted = request.source_exp or (request.exp if request.exp in found else None)
    if wanted is not None and wanted not in found:
        raise InvalidParameterError(f"{source.url} has no experiment {wanted!r}. {did_you_mean(wanted, found)}")
    if wanted is None and request.exp is not None and len(found) > 1:
        raise InvalidParameterError(
            f"{source.url} has several experiments: {', '.join(found)}. Choose one with --source-exp."
        )
    return found if wanted is None else [wanted]


def _plan_experiment(  # noqa: PLR0913, PLR0917 (where from, where to, and what both know)
    request: MergeRequest,
    source: DataRoot,
    origin: str,
    name: str,
    root: DataRoot,
    registry: Registry | None,
    trust: Trust,
) -> MergePlan:
    labels = sorted(filter(is_name, list_folders(source, f"{MANIFESTS}/{origin}")))
    firsts = {label: first for label in labels if (first := _first(source, CheckpointKey(origin, label))) is not None}
    if not firsts:
        raise DataNotUsableError(f"Experiment {origin!r} in {source.url} has no episode that can be read.")
    manifests = list(firsts.values())
    env_id = manifests[0].environment.id
    if request.env not in (None, env_id):
        raise InvalidParameterError(f"Experiment {origin!r} in {source.url} is of {env_id}, not of {request.env}.")
    environment, notes = _environment(source, manifests[0], registry, trust)
    experiment = _experiment(request, name, manifests, environment, registry)
    keys = {label: CheckpointKey(name, label) for label in firsts}
    if not request.overwrite:
        for label, key in keys.items():
            _check_made_alike(source, firsts[label], root, key)
    return MergePlan(
        environment,
        experiment,
        tuple(_checkpoint(name, manifest) for manifest in manifests),
        tuple(Merge(request.source, CheckpointKey(origin, label), keys[label], request.overwrite) for label in keys),
        notes,
    )


def _first(root: DataRoot, key: CheckpointKey) -> Manifest | None:
    """The manifest of the checkpoint's first episode that can be read."""
    for number in episode_numbers(root, key):
        path = manifest_path(EpisodeKey(key.experiment, key.checkpoint, number))
        for content in read_many(root, [path]).values():
            try:
                return parse_manifest(content, path)
            except DataNotUsableError:
                continue
    return None


def episode_numbers(root: DataRoot, key: CheckpointKey) -> list[int]:
    """Of a checkpoint's episodes, ascending."""
    numbers = (parse_episode_number(name, ".json") for name in list_names(root, manifest_folder(key)))
    return sorted(number for number in numbers if number is not None)


def _environment(
    source: DataRoot, manifest: Manifest, registry: Registry | None, trust: Trust
) -> tuple[EnvironmentRecord, tuple[str, ...]]:
    """The environment to register: as it is made where that may be tried, else as far as the arrays tell."""
    made = manifest.environment
    if registry is not None and (known := registry.find_environment(made.id)) is not None:
        return known, ()
    try:
        return known_environment(manifest, trust), ()
    except RequestError:
        facts = SourceFacts(
            entry_point=made.entry_point, packages=made.additional_packages, action_names=manifest.action_names
        )
        return new_environment(made.id, facts, _as_source(source, manifest))


def _as_source(source: DataRoot, manifest: Manifest) -> SourceExperiment:
    path = f"{manifest.experiment}/{manifest.checkpoint}"
    checkpoints = (
        (SourceCheckpoint(source.local_folder, path, manifest.checkpoint, "documented"),) if source.is_local else ()
    )
    return SourceExperiment(manifest.experiment, None, None, checkpoints)


def _experiment(
    request: MergeRequest,
    name: str,
    manifests: Sequence[Manifest],
    environment: EnvironmentRecord,
    registry: Registry | None,
) -> ExperimentRecord:
    """The experiment to register; one that is registered keeps its settings, unless they are to be replaced.

    Raises:
        RegistryConflictError: another one is registered under that name.
    """
    record = replace(experiment_of(name, manifests, environment), project=request.project)
    known = registry.find_experiment(name) if registry else None
    if known is None:
        conflict = name_conflict(name, registry.list_experiments()) if registry else None
    else:
        kind = known.kind if record.kind == RANDOM else record.kind
        kept = ExperimentRecord(name=name, env_id=record.env_id, kind=kind, project=request.project)
        record = replace(record, kind=kind) if request.overwrite else kept
        conflict = experiment_conflict(known, record, replace_settings=request.overwrite)
    if conflict:
        raise RegistryConflictError(conflict)
    return record


def _checkpoint(experiment: str, manifest: Manifest) -> CheckpointRecord:
    policy = manifest.policy
    return CheckpointRecord(
        experiment=experiment,
        label=manifest.checkpoint,
        step=manifest.step,
        sha256=policy.checkpoint_sha256,
        algorithm=policy.algorithm,
    )


def _check_made_alike(source: DataRoot, coming: Manifest, root: DataRoot, key: CheckpointKey) -> None:
    """Refuses to mix episodes of other agents, environments or seeds in one checkpoint."""
    there = _first(root, key)
    if there is None or there.request_digest == coming.request_digest:
        return
    both = {
        "environment": (coming.environment, there.environment),
        "agent": (_agent(coming), _agent(there)),
        "seed": (coming.run_seed, there.run_seed),
        "max_steps_per_episode": (coming.max_steps, there.max_steps),
    }
    differing = [name for name, (one, other) in both.items() if one != other]
    if differing:
        raise DataNotUsableError(
            f"{coming.experiment}/{coming.checkpoint} in {source.url} was made otherwise than {key.experiment}/"
            f"{key.checkpoint} here ({', '.join(differing)}). Use another --exp to have both, or --overwrite."
        )


def _agent(manifest: Manifest) -> tuple[object, ...]:
    policy = manifest.policy
    return policy.kind, policy.checkpoint_sha256, policy.vecnormalize_sha256, policy.deterministic, policy.wrappers
