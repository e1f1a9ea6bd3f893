"""What is exported: experiments with their environments and checkpoints, looked up before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote
from typing import Literal

from fsspec.utils import get_protocol

from rlhfblender_core.dataset.layout import CheckpointKey, manifest_folder
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.names import checked_name
from rlhfblender_core.registry import CheckpointRecord, EnvironmentRecord, ExperimentRecord, JsonDict, Registry
from rlhfblender_core.storage import DataRoot, check_writable, list_names, open_data_root
from rlhfblender_core.wording import did_you_mean

#: What the file of rewards holds: RLHF-Blender of 2026 writes values per step, that of 2025 their cumulative sum.
RewardsKind = Literal["per-step", "cumulative"]


@dataclass(frozen=True)
class ExperimentSource:
    """An experiment to export.

    Attributes:
        record: as registered.
        environment: the one it studies.
        checkpoints: those with published episodes.
    """

    record: ExperimentRecord
    environment: EnvironmentRecord
    checkpoints: tuple[CheckpointRecord, ...]

    @property
    def spaces(self) -> tuple[JsonDict, JsonDict]:
        """Descriptions of the observation and the action space of its environment; empty where unknown."""
        return (
            self.record.observation_space or self.environment.observation_space,
            self.record.action_space or self.environment.action_space,
        )


@dataclass(frozen=True)
class CheckpointExport:
    """What came of a checkpoint's export.

    Attributes:
        key: experiment and checkpoint.
        made: episodes written now.
        existing: episodes that were there already.
        left_out: number of episodes by the reason why they can't be exported.
        place: where they are, as a person would use it.
        stateless: number of episodes by the reason why they have no states that can be put back; what was asked for.
    """

    key: CheckpointKey
    made: int
    existing: int
    left_out: dict[str, int]
    place: str
    stateless: dict[str, int] = field(default_factory=dict)


def open_target(out: str | None, root: DataRoot) -> DataRoot:
    """The folder to export to, as a local root; nothing is written yet.

    Raises:
        InvalidParameterError: none is given, it isn't local, or it would mix with the data root.
        StorageNotUsableError: it can't be written.
    """
    if not out or not out.strip():
        raise InvalidParameterError("Give the folder to export to: --to rlhfblender OUT, --to lerobot OUT …")
    if get_protocol(out) not in ("file", "local"):
        raise InvalidParameterError(f"Exports go to a folder on this machine, not to {out}. Copy it there afterwards.")
    target = open_data_root(str(Path(out.removeprefix("file://")).expanduser()))
    if root.is_local:
        folder, source = target.local_folder.resolve(), root.local_folder.resolve()
        if folder.is_relative_to(source) or source.is_relative_to(folder / "data"):
            raise InvalidParameterError(f"The export to {out} would mix with the data root {root.url}. Choose another.")
    check_writable(target)
    return target


def find_experiments(
    root: DataRoot, registry: Registry, names: Sequence[str] | None, labels: Sequence[str] = ()
) -> tuple[ExperimentSource, ...]:
    """The experiments of these names, or all that have published episodes.

    Args:
        root: the data root.
        registry: where they are registered.
        names: of experiments; none for all.
        labels: of checkpoints; none for all.

    Raises:
        InvalidParameterError: an experiment isn't registered, or none of them has a checkpoint of a label.
        DataNotUsableError: one, or all there are, have no published episodes.
    """
    found = []
    for name in dict.fromkeys(names) if names else [record.name for record in registry.list_experiments()]:
        source = _find(root, registry, name)
        if source.checkpoints:
            found.append(source)
        elif names:
            raise DataNotUsableError(
                f"Experiment {name!r} has no episodes in {root.display_url()}. "
                f"Make some with `python flows/generate.py --exp {quote(name)}`."
            )
    if not found:
        raise DataNotUsableError(
            f"There are no episodes in {root.display_url()} to export. Make some with "
            "`python flows/generate.py --env … --random`."
        )
    return tuple(found) if not labels else _with_checkpoints(found, labels)


def _with_checkpoints(found: Sequence[ExperimentSource], labels: Sequence[str]) -> tuple[ExperimentSource, ...]:
    known = {checkpoint.label: None for source in found for checkpoint in source.checkpoints}
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise InvalidParameterError(
            f"There are no episodes of a checkpoint {unknown[0]!r}. There are those of: {', '.join(known)}."
        )
    chosen = (
        replace(source, checkpoints=tuple(one for one in source.checkpoints if one.label in labels)) for source in found
    )
    return tuple(source for source in chosen if source.checkpoints)


def _find(root: DataRoot, registry: Registry, name: str) -> ExperimentSource:
    record = registry.find_experiment(checked_name(name, "experiment"))
    environment = registry.find_environment(record.env_id) if record else None
    if record is None or environment is None:
        known = did_you_mean(name, (experiment.name for experiment in registry.list_experiments()))
        raise InvalidParameterError(f"There is no experiment {name!r}. {known}")
    checkpoints = registry.list_checkpoints(name)
    published = (checkpoint for checkpoint in checkpoints if _has_episodes(root, _key(checkpoint)))
    return ExperimentSource(record, environment, tuple(published))


def _has_episodes(root: DataRoot, key: CheckpointKey) -> bool:
    return next(list_names(root, manifest_folder(key)), None) is not None


def _key(checkpoint: CheckpointRecord) -> CheckpointKey:
    return CheckpointKey(checkpoint.experiment, checkpoint.label)
