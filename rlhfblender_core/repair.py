"""Mending what :mod:`rlhfblender_core.verify` found, but for rolling episodes out again.

Which settings an episode was made with is reconstructed from the registry, by the same plan that a generate run makes,
and compared with the digest in its manifest or row: what would give other bytes is refused.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.layout import RANDOM, CheckpointKey, EpisodeKey
from rlhfblender_core.dataset.listings import check_root
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.environments import ONLY_DECLARED, EnvironmentSpec, Trust, describe_environment
from rlhfblender_core.errors import DataNotUsableError, RequestError, one_line
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.planning.plan import plan_generation
from rlhfblender_core.planning.request import RANDOM_BASELINE, GenerationRequest
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentKind,
    ExperimentRecord,
    Registry,
    open_registry,
)
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard, Shard, cut_shards
from rlhfblender_core.runs.claims import RunClaims, open_claims
from rlhfblender_core.runs.folders import open_run, remove_unfinished
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.steps import LocalSteps, Steps
from rlhfblender_core.storage import DataRoot, remove_files
from rlhfblender_core.verify import (
    Findings,
    Problem,
    Remedy,
    Verification,
    check_registry,
    index_problems,
    read_manifests,
    survey,
    verification,
)


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


def plan_remakes(findings: Findings, sources: Sources) -> tuple[list[Remake], list[str]]:
    """What has to be made again, and one line for each episode or checkpoint where that can't be done.

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
            shown = ", ".join(map(str, episodes[:10])) + (", …" if len(episodes) > 10 else "")  # noqa: PLR2004
            refusals.append(
                f"{key.experiment}/{key.checkpoint}: episodes {shown} can't be made again: {one_line(error)}"
            )
            continue
        same, others = _split_by_digest(key, episodes, settings, sources)
        refusals += others
        if same:
            remakes.append(Remake(key, settings, same))
    return remakes, refusals


def reconstruct_settings(key: CheckpointKey, sources: Sources) -> RolloutSettings:
    """How a registered experiment's episodes at a checkpoint are made.

    Raises:
        RequestError: it isn't registered, or its checkpoint or environment is gone.
    """
    registered = sources.registry.find_experiment(key.experiment)
    if registered is None:
        raise DataNotUsableError("the experiment is not registered, and none of its manifests says how it was made.")
    label: int | str = key.checkpoint
    if key.checkpoint == RANDOM:
        label = RANDOM_BASELINE
    elif key.checkpoint.isascii() and key.checkpoint.isdigit():
        label = int(key.checkpoint)
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
) -> tuple[tuple[int, ...], list[str]]:
    """Those that these settings give, and a line for each that was made otherwise."""
    known = {row.number: row.request_digest for row in sources.registry.list_episodes(key.experiment, key.checkpoint)}
    manifests = read_manifests(sources.root, [EpisodeKey(key.experiment, key.checkpoint, n) for n in episodes])
    known |= {episode.episode: manifest.request_digest for episode, manifest in manifests.items()}
    others = [n for n in episodes if not settings.made(known.get(n, settings.digest))]
    lines = [
        f"{key.experiment}/{key.checkpoint}/{n}: can't be made again as it was: its checkpoint or settings have "
        "changed. Use generate.py with --overwrite for a new one."
        for n in others
    ]
    return tuple(n for n in episodes if n not in others), lines


def remove_left_over(problems: Iterable[Problem], locations: Locations) -> int:
    """Removes the files that dead runs left, unless a run has published or claimed them since; says how many."""
    root = locations.open_root()
    removed = 0
    left_over: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.remedy is Remedy.REMOVE and problem.key is not None:
            left_over.setdefault(problem.key.experiment, []).append(problem)
    url = locations.database_url
    for experiment, found in left_over.items():
        # Claimed while they are removed: a run that starts now mustn't lose files before it writes their manifest.
        with open_run(root) as run, open_claims(url, run.folder, experiment, {}) as claims:
            ours = _claimed(claims, found)
            paths = list(_still_left_over(root, [problem for problem in found if problem.key in ours]))
            remove_files(root, paths)
            for key, numbers in _by_checkpoint(ours).items():
                claims.release(key, numbers)
        removed += len(paths)
    return removed


def _claimed(claims: RunClaims, found: Sequence[Problem]) -> frozenset[EpisodeKey]:
    """Those of the problems' episodes that no live run has claimed; they are this one's now."""
    episodes = _by_checkpoint(problem.key for problem in found if problem.key is not None)
    free = ((key, number) for key, numbers in episodes.items() for number in claims.claim(key, numbers).free)
    return frozenset(EpisodeKey(key.experiment, key.checkpoint, number) for key, number in free)


def _by_checkpoint(episodes: Iterable[EpisodeKey]) -> dict[CheckpointKey, set[int]]:
    numbers: dict[CheckpointKey, set[int]] = {}
    for episode in episodes:
        numbers.setdefault(CheckpointKey(episode.experiment, episode.checkpoint), set()).add(episode.episode)
    return numbers


def _still_left_over(root: DataRoot, found: Sequence[Problem]) -> Iterator[str]:
    manifests = read_manifests(root, [problem.key for problem in found if problem.key is not None])
    for problem in found:
        manifest = manifests.get(problem.key) if problem.key is not None else None
        if manifest is None or problem.path not in {record.path for record in manifest.artifacts.values()}:
            yield problem.path


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
        registry.ensure_environment(_environment_record(manifests[0], trust))
        registry.ensure_experiment(_experiment_record(experiment, manifests))
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


def _environment_record(manifest: Manifest, trust: Trust) -> EnvironmentRecord:
    made = manifest.environment
    spec = EnvironmentSpec(made.id, made.entry_point, made.additional_packages, made.kwargs, made.spec_kwargs)
    trust.admit(spec)
    description = describe_environment(spec)
    return EnvironmentRecord(
        env_id=made.id,
        entry_point=made.entry_point,
        additional_packages=made.additional_packages,
        kwargs=made.kwargs,
        spec_kwargs=made.spec_kwargs,
        observation_space=description.observation_space,
        action_space=description.action_space,
        action_names=manifest.action_names,
    )


def _experiment_record(experiment: str, manifests: Sequence[Manifest]) -> ExperimentRecord:
    trained = [manifest for manifest in manifests if manifest.policy.kind != RANDOM]
    manifest = (trained or manifests)[0]
    asked = {
        "seed": manifest.run_seed,
        "deterministic": manifest.policy.deterministic,
        "max_steps_per_episode": manifest.max_steps,
        "fps": manifest.fps,
        "render": manifest.frames > 0,
        "action_mask_method": manifest.policy.action_mask_method,
    }
    settings = RolloutOptions.merged({}, asked).to_json()
    kind: ExperimentKind = "trained" if trained else "random"
    return ExperimentRecord(name=experiment, env_id=manifest.environment.id, kind=kind, settings=settings)


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


def repair(
    *,
    exp: str | None = None,
    trust_checkpoint: bool = False,
    workers: int | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Verifies as :func:`rlhfblender_core.verify.verify` does, and repairs what can be repaired, without Prefect.

    Args:
        exp: experiment; None for all.
        trust_checkpoint: whether a checkpoint that you made yourself may run its own code.
        workers: worker processes; None for the cores that this process may use, 0 for this process itself.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Raises:
        RequestError: there is no such data root or experiment.
        TransientError: the storage or the registry is gone.
    """
    steps = LocalSteps(locate(data_root, database_url, storage_options), workers)
    return repair_all(exp, LocalRunner(), steps, trust_checkpoint=trust_checkpoint)


def repair_all(exp: str | None, runner: StepRunner, steps: Steps, *, trust_checkpoint: bool) -> Verification:
    """Checks what is published and mends it: broken episodes are made again, the registry's index is rebuilt.

    Args:
        exp: experiment; None for all.
        runner: how each step is run.
        steps: how episodes are made.
        trust_checkpoint: whether checkpoints may run code of their own.
    """
    locations = steps.locations
    root = locations.open_root()
    check_root(root)
    remove_unfinished(root)
    first = now = survey(exp, runner, locations)
    notes: list[str] = []
    problems = first.findings.problems
    left_over = [problem for problem in problems if problem.remedy is Remedy.REMOVE]
    is_broken = any(problem.remedy is Remedy.REMAKE for problem in problems)
    if left_over:
        runner.do(remove_left_over, left_over, locations)
    if is_broken:
        remakes, notes = runner.do(plan_repair, first.findings, locations, trust_checkpoint=trust_checkpoint)
        notes += _remake(remakes, steps)
    if left_over or is_broken:
        now = survey(exp, runner, locations)
    rows = index_problems(now.findings.problems)
    if rows:
        try:
            runner.do(rebuild_rows, rows, now.findings.records, locations)
        except RequestError as error:
            notes.append(f"The registry's index can't be rebuilt: {one_line(error)}")
        left = tuple(problem for problem in now.findings.problems if problem.remedy is not Remedy.INDEX)
        left += runner.do(check_registry, now.listings, now.findings.records, locations)
        now = replace(now, findings=replace(now.findings, problems=left))
    return verification(first.findings, now.findings, notes)


def _remake(remakes: Sequence[Remake], steps: Steps) -> list[str]:
    """Makes the episodes again, by the same steps as generate; returns lines about those that failed."""
    if not remakes:
        return []
    missing = sum(len(remake.episodes) for remake in remakes)
    trained = any(remake.settings.agent.is_trained for remake in remakes)
    notes: list[str] = []
    with steps.open_run(missing, trained=trained) as run, run.rolling_out():
        for experiment, own in itertools.groupby(remakes, lambda remake: remake.key.experiment):
            of_experiment = [replace(remake, settings=run.load_checkpoint(remake.settings)) for remake in own]
            digests = {remake.key.checkpoint: remake.settings.digest for remake in of_experiment}
            shards = (part for remake in of_experiment for part in _shards(remake, run.concurrency))
            with run.claiming(experiment, digests):
                for result in run.rollout_episodes(shards):
                    notes += result.failures.values()
    return notes


def _shards(remake: Remake, concurrency: int) -> Iterator[PendingShard]:
    for episodes in cut_shards(remake.episodes, concurrency):
        yield PendingShard(Shard(remake.key, remake.settings, episodes), frozenset(episodes))


def plan_repair(findings: Findings, locations: Locations, *, trust_checkpoint: bool) -> tuple[list[Remake], list[str]]:
    """Which episodes are made again, with which settings; and lines about those that can't be."""
    with open_registry(locations.database_url) as registry:
        options = dict(locations.storage_options)
        sources = Sources(
            locations.open_root(), registry, locations.cache, options, trust_checkpoint, locations.trust()
        )
        return plan_remakes(findings, sources)


def rebuild_rows(problems: Sequence[Problem], records: Sequence[EpisodeRecord], locations: Locations) -> None:
    """Brings the registry's rows to what the manifests say."""
    with open_registry(locations.database_url) as registry:
        rebuild_index(locations.open_root(), registry, problems, records, locations.trust())
