"""A folder that RLHF-Blender's server can be started in: its names, its files, its database, pictures of actions."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.layout import RANDOM, CheckpointKey, EpisodeKey, manifest_path
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.exported import exported_episodes, have_states, is_exported
from rlhfblender_core.export.index import Numbers, read_numbers, write_numbers
from rlhfblender_core.export.request import ExperimentSource, RewardsKind
from rlhfblender_core.export.rlhfblender import names
from rlhfblender_core.export.rlhfblender.action_pictures import export_action_pictures
from rlhfblender_core.export.rlhfblender.database import ExperimentEntry, read_studies, read_taken, write_entries
from rlhfblender_core.export.rlhfblender.environment_config import environment_config
from rlhfblender_core.export.rlhfblender.episodes import ServerCheckpoint
from rlhfblender_core.export.rlhfblender.numbering import number_checkpoints, read_trained_steps
from rlhfblender_core.export.rlhfblender.space_info import space_infos
from rlhfblender_core.export.rlhfblender.states import StatesPlan
from rlhfblender_core.storage import DataRoot, read_many


@dataclass(frozen=True)
class ServerExperiment:
    """An experiment with the numbers by which the server knows it."""

    source: ExperimentSource
    experiment_id: int
    checkpoints: tuple[ServerCheckpoint, ...]


def plan_server_export(
    target: DataRoot,
    sources: Sequence[ExperimentSource],
    rewards: RewardsKind,
    states: StatesPlan,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[ServerExperiment, ...]:
    """Gives numbers to what has none yet, and keeps them in the target, which the caller has locked.

    Raises:
        DataNotUsableError: the target's database isn't RLHF-Blender's, or its ledger is damaged.
    """
    numbers = read_numbers(target)
    ids, env_names = read_taken(_database(target))
    for source in sources:
        _give_numbers(numbers, source, ids, env_names, storage_options)
    write_numbers(target, numbers)
    return tuple(_experiment(target, source, numbers, rewards, states) for source in sources)


def _give_numbers(
    numbers: Numbers,
    source: ExperimentSource,
    ids: Mapping[str, int],
    env_names: Mapping[str, str],
    storage_options: Mapping[str, Any] | None,
) -> None:
    name, env_id = source.record.name, source.record.env_id
    if env_id not in numbers.environments:
        others = {env_name for other, env_name in {**env_names, **numbers.environments}.items() if other != env_id}
        numbers.environments[env_id] = names.environment_name(env_id, others)
    if name not in numbers.experiments:
        taken = {*ids.values(), *numbers.experiments.values()}
        numbers.experiments[name] = ids.get(name, max(taken, default=0) + 1)
    numbers.checkpoints[name] = number_checkpoints(
        source.checkpoints,
        numbers.checkpoints.get(name, {}),
        partial(read_trained_steps, source.record, storage_options=storage_options),
    )


def _experiment(
    target: DataRoot, source: ExperimentSource, numbers: Numbers, rewards: RewardsKind, states: StatesPlan
) -> ServerExperiment:
    name, env_id = source.record.name, source.record.env_id
    experiment_id = numbers.experiments[name]
    labels = [checkpoint.label for checkpoint in source.checkpoints]
    # Exporting one that has no episodes any more removes what was exported of it.
    gone = [label for label in numbers.checkpoints[name] if label not in labels]
    labels += [label for label in gone if is_exported(target, CheckpointKey(name, label))]
    checkpoints = tuple(
        ServerCheckpoint(
            key=CheckpointKey(name, label),
            env_id=env_id,
            env_name=numbers.environments[env_id],
            experiment_id=experiment_id,
            number=numbers.checkpoints[name][label],
            rewards=rewards,
            states=states,
        )
        for label in labels
    )
    return ServerExperiment(source, experiment_id, checkpoints)


def finish_server_export(root: DataRoot, target: DataRoot, experiments: Sequence[ServerExperiment]) -> None:
    """Writes what shows the exported episodes: pictures of actions, then the database.

    Experiments of which no episode is there stay out, or go.
    """
    entries = [entry for experiment in experiments if (entry := _entry(root, target, experiment)) is not None]
    gone = {experiment.source.record.name for experiment in experiments} - {entry.record.name for entry in entries}
    for env_id in {entry.environment.env_id for entry in entries}:
        own = {entry.record.name for entry in entries if entry.environment.env_id == env_id}
        has_states = have_states(target, own | (read_studies(_database(target), env_id) - gone))
        entries = [
            replace(entry, has_states=has_states) if entry.environment.env_id == env_id else entry for entry in entries
        ]
    environments = {entry.environment.env_id: entry for entry in entries}
    for entry in environments.values():
        export_action_pictures(root, target, entry)
    if entries or _database(target).exists():
        write_entries(_database(target), entries, gone)


def left_behind(target: DataRoot, registered: Collection[str]) -> tuple[str, ...]:
    """Experiments of earlier exports that aren't registered any more; they stay, as people may have judged them."""
    return tuple(
        name
        for name, labels in read_numbers(target).checkpoints.items()
        if name not in registered and any(is_exported(target, CheckpointKey(name, label)) for label in labels)
    )


def _entry(root: DataRoot, target: DataRoot, experiment: ServerExperiment) -> ExperimentEntry | None:
    shown = {
        checkpoint: number
        for checkpoint in experiment.checkpoints
        if (number := _first(target, checkpoint)) is not None
    }
    if not shown:
        return None
    source, first = experiment.source, next(iter(shown))
    example = target.local_folder / first.paths(shown[first])["episode"]
    return ExperimentEntry(
        experiment_id=experiment.experiment_id,
        record=source.record,
        environment=source.environment,
        env_name=first.env_name,
        checkpoints=tuple(checkpoint.number for checkpoint in shown),
        algorithm=next((checkpoint.algorithm for checkpoint in source.checkpoints if checkpoint.algorithm), None),
        spaces=space_infos(source, example),
        config=environment_config(
            source.environment.env_id, source.record.env_kwargs, source.spaces[0], _manifest(root, shown)
        ),
    )


def _manifest(root: DataRoot, shown: Mapping[ServerCheckpoint, int]) -> Manifest | None:
    """Of an exported episode, of a trained agent if there is one; None where it is gone by now."""
    trained = [checkpoint for checkpoint in shown if checkpoint.key.checkpoint != RANDOM]
    chosen = (trained or list(shown))[-1]
    path = manifest_path(EpisodeKey(chosen.key.experiment, chosen.key.checkpoint, shown[chosen]))
    for content in read_many(root, [path]).values():
        with contextlib.suppress(DataNotUsableError):
            return parse_manifest(content, path)
    return None


def _first(target: DataRoot, checkpoint: ServerCheckpoint) -> int | None:
    with exported_episodes(target, checkpoint.key) as exported:
        return exported.first


def _database(target: DataRoot) -> Path:
    return target.local_folder / names.DATABASE
