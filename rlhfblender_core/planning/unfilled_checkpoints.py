"""Which checkpoints in an experiment's model folder wait for their episodes."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.checkpoints.find import CheckpointFile, find_checkpoints
from rlhfblender_core.checkpoints.select import modified_at
from rlhfblender_core.checkpoints.statistics import statistics_url
from rlhfblender_core.dataset.existing import find_existing
from rlhfblender_core.dataset.layout import RANDOM, CheckpointKey
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError
from rlhfblender_core.planning.following import is_followed
from rlhfblender_core.registry import ExperimentRecord, Registry
from rlhfblender_core.storage import DataRoot


@dataclass(frozen=True)
class WaitingCheckpoints:
    """What a look into a model folder found, by label.

    Attributes:
        complete: have all episodes that are wanted.
        ready: have fewer, and can be used.
        unsettled: have fewer, and may still be written.
    """

    complete: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for a log."""
        text = f"checkpoints with their episodes: {len(self.complete)}"
        text += f", to fill: {', '.join(self.ready)}" if self.ready else ", none to fill"
        return text + (f", still being written: {', '.join(self.unsettled)}" if self.unsettled else "")


def find_waiting(
    experiment: ExperimentRecord,
    num_episodes: int,
    root: DataRoot,
    registry: Registry | None = None,
    *,
    settle_seconds: float,
    options: Mapping[str, Any] | None = None,
) -> WaitingCheckpoints:
    """Looks into the experiment's model folder; for what is newer than the chosen ones, where it is followed.

    The random baseline waits where there is such a checkpoint, and it has fewer episodes than is wanted of it.

    Args:
        experiment: registered, with a model path.
        num_episodes: how many each checkpoint shall have.
        root: where its episodes are.
        registry: with the index of them.
        settle_seconds: files changed less than so long ago count as still being written. Stable-Baselines3 saves in
            place, and statistics after the model.
        options: for fsspec, to reach the model folder.

    Raises:
        InvalidParameterError: the experiment has no model path.
        CheckpointNotUsableError: there is no such folder, or no checkpoint in it.
        StorageNotUsableError, StorageUnavailableError: the folder can't be reached.
    """
    if experiment.model_path is None:
        raise InvalidParameterError(f"Experiment {experiment.name!r} has no model folder to watch.")
    found: dict[str, list[str]] = {"complete": [], "ready": [], "unsettled": []}
    pattern, statistics = (experiment.settings.get(name) for name in ("checkpoint_pattern", "vecnormalize"))

    def is_complete(label: str) -> bool:
        existing = find_existing(root, registry, CheckpointKey(experiment.name, label))
        return not existing.missing(range(num_episodes))

    for file in find_checkpoints(experiment.model_path, experiment.env_id, options, pattern=pattern):
        if experiment.following is not None and not is_followed(file, experiment.following, options):
            continue
        if is_complete(file.label):
            state = "complete"
        else:
            state = "ready" if _is_settled(file, statistics, settle_seconds, options) else "unsettled"
        found[state].append(file.label)
    if any(found.values()) and _has_baseline(experiment, registry):
        found["complete" if is_complete(RANDOM) else "ready"].insert(0, RANDOM)
    return WaitingCheckpoints(**{state: tuple(labels) for state, labels in found.items()})


def _has_baseline(experiment: ExperimentRecord, registry: Registry | None) -> bool:
    if experiment.following is None:
        return False
    registered = registry.list_checkpoints(experiment.name) if registry else []
    return experiment.following.has_baseline or any(record.label == RANDOM for record in registered)


def _is_settled(
    file: CheckpointFile, statistics: str | None, seconds: float, options: Mapping[str, Any] | None
) -> bool:
    """Whether neither the model nor its statistics changed a moment ago.

    A time in the future beyond that is another machine's wrong clock; a model that is cut off is refused when it is
    loaded, whatever its age.
    """
    try:
        beside, _ = statistics_url(file, statistics, options)
    except CheckpointNotUsableError:  # told when the checkpoint is fetched
        beside = None
    urls = (file.url, beside)
    ages = [time.time() - modified_at(url, options).timestamp() for url in urls if url is not None]
    return all(abs(age) >= seconds for age in ages)
