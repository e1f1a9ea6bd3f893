"""How what is broken is made again, and what manifests tell of a registry that was lost.

Which settings an episode was made with is reconstructed from the registry, by the same plan that a generate run makes,
and compared with the digest in its manifest or row: what would give other bytes is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.select import wanted_as
from rlhfblender_core.dataset.keep_intact import anew_advice
from rlhfblender_core.dataset.layout import RANDOM, CheckpointKey, EpisodeKey
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.environments import ONLY_DECLARED, Trust, describe_environment
from rlhfblender_core.errors import DataNotUsableError, RequestError, one_line
from rlhfblender_core.planning.plan import plan_generation
from rlhfblender_core.planning.request import RANDOM_BASELINE, GenerationRequest
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentKind,
    ExperimentRecord,
    Registry,
)
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.replay import spec_of_manifest
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.verification.checks import Findings, Problem, Remedy, index_problems, read_manifests


@dataclass(frozen=True)
class Remake:
    """Episodes of a checkpoint to be made again.

    Attributes:
        key: experiment and checkpoint.
        settings: how they were made.
        episodes: their numbers, ascending.
    """

    key: CheckpointKey
    settings: RolloutSettings
    episodes: tuple[int, ...]


@dataclass(frozen=True)
class Refusal:
    """Episodes of a checkpoint that can't be made again.

    Attributes:
        key: experiment and checkpoint.
        episodes: their numbers, ascending.
        why: a line that names them.
    """

    key: CheckpointKey
    episodes: tuple[int, ...]
    why: str

    @property
    def keys(self) -> frozenset[EpisodeKey]:
        """Of the episodes."""
        return frozenset(EpisodeKey(self.key.experiment, self.key.checkpoint, number) for number in self.episodes)


@dataclass(frozen=True)
class Sources:
    """Where settings are reconstructed from.

    Attributes:
        root: the data root.
        registry: the registry.
        cache: folder for fetched checkpoints.
        storage_options: for remote checkpoints.
        trust_checkpoint: whether checkpoints may run code of their own.
        trust: what the registry and manifests may name to make environments with.
    """

    root: DataRoot
    registry: Registry
    cache: Path
    storage_options: dict[str, Any]
    trust_checkpoint: bool = False
    trust: Trust = ONLY_DECLARED


def plan_remakes(findings: Findings, sources: Sources) -> tuple[list[Remake], list[Refusal]]:
    """What has to be made again, and what of it can't be.

    An experiment that the registry has lost is registered again from its sound manifests.
    """
    broken: dict[CheckpointKey, set[int]] = {}
    for problem in findings.problems:
        if problem.remedy is Remedy.REMAKE and problem.key is not None:
            key = CheckpointKey(problem.key.experiment, problem.key.checkpoint)
            broken.setdefault(key, set()).add(problem.key.episode)
    remakes, refusals = [], []
    for key, numbers in sorted(broken.items()):
        episodes = tuple(sorted(numbers))
        try:
            restore_registration(sources.root, sources.registry, key.experiment, findings.records, sources.trust)
            settings = reconstruct_settings(key, sources)
        except RequestError as error:
            refusals.append(refusal(key, episodes, error))
            continue
        same, others = _split_by_digest(key, episodes, settings, sources)
        refusals += others
        if same:
            remakes.append(Remake(key, settings, same))
    return remakes, refusals


def refusal(key: CheckpointKey, episodes: tuple[int, ...], error: RequestError) -> Refusal:
    """What an error keeps from being made again."""
    shown = ", ".join(map(str, episodes[:10])) + (", …" if len(episodes) > 10 else "")  # noqa: PLR2004
    line = f"{key.experiment}/{key.checkpoint}: episodes {shown} can't be made again: {one_line(error)}"
    return Refusal(key, episodes, line)


def reconstruct_settings(key: CheckpointKey, sources: Sources) -> RolloutSettings:
    """How a registered experiment's episodes at a checkpoint are made.

    Raises:
        RequestError: it isn't registered, or its checkpoint or environment is gone.
    """
    registered = sources.registry.find_experiment(key.experiment)
    if registered is None:
        raise DataNotUsableError("the experiment is not registered, and none of its manifests says how it was made.")
    label = RANDOM_BASELINE if key.checkpoint == RANDOM else wanted_as(key.checkpoint)
    request = GenerationRequest(
        exp=key.experiment, checkpoints=(label,), trust_checkpoint=sources.trust_checkpoint, num_episodes=1
    )
    plan = plan_generation(request, sources.registry, sources.cache, sources.storage_options, sources.trust)
    for settings in plan.settings:
        if settings.label == key.checkpoint:
            return settings
    raise DataNotUsableError("they come from elsewhere. Import them again.")


def _split_by_digest(
    key: CheckpointKey, episodes: Sequence[int], settings: RolloutSettings, sources: Sources
) -> tuple[tuple[int, ...], list[Refusal]]:
    """Those that these settings give, and those that were made otherwise."""
    rows = sources.registry.find_episodes(key.experiment, key.checkpoint, episodes)
    known = {row.number: row.request_digest for row in rows}
    manifests = read_manifests(sources.root, [EpisodeKey(key.experiment, key.checkpoint, n) for n in episodes])
    known |= {episode.episode: manifest.request_digest for episode, manifest in manifests.items()}
    others = [n for n in episodes if not settings.made(known.get(n, settings.digest))]
    refusals = [
        Refusal(
            key,
            (n,),
            f"{key.experiment}/{key.checkpoint}/{n}: can't be made again as it was: its checkpoint or settings have "
            f"changed. {anew_advice(key)}",
        )
        for n in others
    ]
    return tuple(n for n in episodes if n not in others), refusals


def restore_registration(
    root: DataRoot, registry: Registry, experiment: str, records: Sequence[EpisodeRecord], trust: Trust = ONLY_DECLARED
) -> None:
    """Registers what manifests tell of an experiment that the registry has lost, its environment included.

    Where the checkpoints' files are isn't in the manifests; ``generate.py --model-path`` adds that.

    Args:
        root: the data root.
        registry: to register in.
        experiment: its name.
        records: rows of episodes whose manifests are sound; one per checkpoint of the experiment is read.
        trust: what manifests may name to make the environment with.

    Raises:
        RequestError: the environment can't be made, or is registered with other settings.
    """
    own = [record for record in records if record.experiment == experiment]
    registered = {record.label for record in registry.list_checkpoints(experiment)}
    first = {
        record.checkpoint: EpisodeKey(experiment, record.checkpoint, record.number)
        for record in own
        if record.checkpoint not in registered
    }
    manifests = list(read_manifests(root, first.values()).values())
    if not manifests:
        return
    if registry.find_experiment(experiment) is None:
        environment = known_environment(manifests[0], trust)
        registry.ensure_environment(environment)
        registry.ensure_experiment(experiment_of(experiment, manifests, environment))
    for manifest in manifests:
        registry.ensure_checkpoint(
            CheckpointRecord(
                experiment=experiment,
                label=manifest.checkpoint,
                step=manifest.step,
                sha256=manifest.policy.checkpoint_sha256,
                algorithm=manifest.policy.algorithm,
            )
        )


def known_environment(manifest: Manifest, trust: Trust) -> EnvironmentRecord:
    """The environment that a manifest's episode was made in, to be registered; it is made to see its spaces.

    Raises:
        RequestError: it can't be made, or only the manifest names what it is made with.
    """
    made, spec = manifest.environment, spec_of_manifest(manifest)
    trust.admit(spec)
    description = describe_environment(spec)
    return EnvironmentRecord(
        env_id=made.id,
        entry_point=made.entry_point,
        additional_packages=made.additional_packages,
        observation_space=description.observation_space,
        action_space=description.action_space,
        action_names=manifest.action_names,
    )


def experiment_of(experiment: str, manifests: Sequence[Manifest], environment: EnvironmentRecord) -> ExperimentRecord:
    """The experiment that manifests tell of, to be registered.

    Args:
        experiment: its name.
        manifests: one per checkpoint.
        environment: as registered.
    """
    trained = [manifest for manifest in manifests if manifest.policy.kind != RANDOM]
    manifest = (trained or manifests)[0]
    asked = {
        "seed": manifest.run_seed,
        "deterministic": manifest.policy.deterministic,
        "max_steps_per_episode": manifest.max_steps,
        "fps": manifest.fps,
        "render": manifest.frames > 0,
        "action_mask_method": manifest.policy.action_mask_method,
        **manifest.options,
    }
    settings = RolloutOptions.merged({}, asked).to_json()
    kind: ExperimentKind = "trained" if trained else "random"
    if manifest.policy.kind == "agent":
        kind, settings["agent"] = "agent", manifest.policy.algorithm
    return ExperimentRecord(
        name=experiment,
        env_id=manifest.environment.id,
        kind=kind,
        settings=settings,
        env_kwargs={**manifest.environment.kwargs, **manifest.environment.spec_kwargs},
        observation_space=environment.observation_space,
        action_space=environment.action_space,
    )


def rebuild_index(
    root: DataRoot,
    registry: Registry,
    problems: Iterable[Problem],
    records: Sequence[EpisodeRecord],
    trust: Trust = ONLY_DECLARED,
) -> None:
    """Brings the registry's rows to what the manifests say.

    Args:
        root: the data root.
        registry: to be written.
        problems: of the index; rows without files are deleted.
        records: of all episodes whose manifests are sound.
        trust: what manifests may name to make environments with.
    """
    known = {(record.experiment, record.checkpoint, record.number) for record in records}
    stale: dict[tuple[str, str], list[int]] = {}
    changed = set()
    for problem in index_problems(problems):
        if problem.key is None:
            continue
        key = problem.key
        if (key.experiment, key.checkpoint, key.episode) in known:
            changed.add(key.experiment)
        else:
            stale.setdefault((key.experiment, key.checkpoint), []).append(key.episode)
    unregistered = {record.experiment for record in records if registry.find_experiment(record.experiment) is None}
    for experiment in sorted(changed | unregistered):
        restore_registration(root, registry, experiment, records, trust)
        registry.record_episodes([record for record in records if record.experiment == experiment])
    for (experiment, checkpoint), numbers in stale.items():
        registry.forget_episodes(experiment, checkpoint, numbers)
