"""Following an experiment: checkpoints that appear in its model folder get episodes without being asked for."""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import Any

from rlhfblender_core.checkpoints.find import CheckpointFile, find_checkpoints
from rlhfblender_core.checkpoints.select import modified_at
from rlhfblender_core.dataset.layout import RANDOM
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError
from rlhfblender_core.registry import ExperimentRecord, Following, Registry

DEFAULT_EPISODES = 10


def begin_following(
    experiment: ExperimentRecord,
    registry: Registry | None,
    options: Mapping[str, Any] | None,
    *,
    chosen: Sequence[int | None] = (),
    num_episodes: int | None = None,
    has_baseline: bool = False,
) -> Following:
    """From where on the experiment is followed: what is newer than the checkpoints that were chosen.

    Args:
        experiment: to be followed; one of before goes on from where it is.
        registry: None where there is none yet.
        options: for fsspec, to reach the model folder.
        chosen: steps of the checkpoints that are chosen now, None where unknown; those registered count as well.
        num_episodes: per checkpoint, unless the experiment has more of one; None for as many as it has.
        has_baseline: whether a random baseline is asked for.

    Raises:
        InvalidParameterError: the experiment has no checkpoints.
    """
    if experiment.kind != "trained" or experiment.model_path is None:
        raise InvalidParameterError(
            f"Experiment {experiment.name!r} has no model folder to follow. Give it: "
            f"`python flows/generate.py --exp {quote(experiment.name)} --model-path …`."
        )
    registered = registry.list_checkpoints(experiment.name) if registry else []
    steps = [*chosen, *(record.step for record in registered if record.label != RANDOM)]
    if None in steps:  # of the final model, or the best: what is there with a step is no newer
        with contextlib.suppress(CheckpointNotUsableError):  # there is nothing, yet
            steps += [file.step for file in _files(experiment, options)]
    after = max((step for step in steps if step is not None), default=-1)
    wanted = num_episodes or episodes_wanted(experiment.name, None, registry)
    return Following(after=after, since=datetime.now(UTC), num_episodes=wanted, has_baseline=has_baseline)


def _files(experiment: ExperimentRecord, options: Mapping[str, Any] | None) -> tuple[CheckpointFile, ...]:
    pattern = experiment.settings.get("checkpoint_pattern")
    return find_checkpoints(str(experiment.model_path), experiment.env_id, options, pattern=pattern)


def is_followed(file: CheckpointFile, following: Following, options: Mapping[str, Any] | None) -> bool:
    """Whether a checkpoint in the model folder is newer than those that were chosen."""
    if file.step is not None:
        return file.step > following.after
    return modified_at(file.url, options) > following.since


def episodes_wanted(experiment: str, following: Following | None, registry: Registry | None) -> int:
    """Episodes per checkpoint where nobody says how many: as many as the experiment was asked for, or has.

    Checkpoints with equally many are what is compared. Of a new experiment :data:`DEFAULT_EPISODES`.

    Args:
        experiment: its name.
        following: since when it is followed, if it is.
        registry: None where there is none yet.
    """
    counts = [following.num_episodes if following else 0]
    record = registry.find_experiment(experiment) if registry else None
    if registry and record:
        counts += [record.num_episodes or 0, *(summary.episodes for summary in registry.summarise(experiment))]
    return max(counts) or DEFAULT_EPISODES
