"""Whole numbers for checkpoints, which is all that RLHF-Blender's server takes; once given, they stay.

Feedback that people have given refers to a checkpoint by its number, so an export that is continued never renumbers.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlhfblender_core.checkpoints.download import fetched
from rlhfblender_core.checkpoints.find import find_checkpoints
from rlhfblender_core.checkpoints.select import select_checkpoints
from rlhfblender_core.dataset.layout import BEST, FINAL, RANDOM
from rlhfblender_core.errors import RLHFBlenderError
from rlhfblender_core.registry import CheckpointRecord, ExperimentRecord
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.untrusted.limits import MAX_ARCHIVE_BYTES
from rlhfblender_core.untrusted.model_zip import read_archive

_log = logging.getLogger(__name__)

#: The UI doesn't load episodes of -1.
_RANDOM_NUMBER = 0
#: The UI's JavaScript tells no larger whole numbers apart.
_MOST = 2**53 - 1


def number_checkpoints(
    checkpoints: Sequence[CheckpointRecord],
    given: Mapping[str, int],
    trained_steps: Callable[[str], int | None],
) -> dict[str, int]:
    """A number for each checkpoint, by label.

    A step's is the step; random's is 0; that of ``final``, ``best`` and other names is the number of steps the model
    was trained for, else one more than the highest number so far. Where a number is taken the next free one is used.

    Args:
        checkpoints: to be numbered.
        given: earlier numbers by label; they stay.
        trained_steps: steps that the model of a label was trained for, None where that isn't known.
    """
    numbers = dict(given)
    for checkpoint in sorted(checkpoints, key=_order):
        if checkpoint.label in numbers:
            continue
        number = _wished(checkpoint, trained_steps)
        if number is None:
            number = max(numbers.values(), default=0) + 1
        while number in numbers.values():
            number += 1
        numbers[checkpoint.label] = number
    return numbers


def _order(checkpoint: CheckpointRecord) -> tuple[int, str]:
    """Those whose number is certain come first, then final, then best."""
    if checkpoint.label == RANDOM or _is_step(checkpoint.label):
        return 0, checkpoint.label.zfill(20)
    return {FINAL: 1, BEST: 2}.get(checkpoint.label, 3), checkpoint.label


def _is_step(label: str) -> bool:
    return label.isascii() and label.isdigit() and int(label) <= _MOST


def _wished(checkpoint: CheckpointRecord, trained_steps: Callable[[str], int | None]) -> int | None:
    if checkpoint.label == RANDOM:
        return _RANDOM_NUMBER
    if _is_step(checkpoint.label):
        return int(checkpoint.label)
    return checkpoint.step if checkpoint.step is not None else trained_steps(checkpoint.label)


def read_trained_steps(
    experiment: ExperimentRecord, label: str, storage_options: Mapping[str, Any] | None = None
) -> int | None:
    """How many environment steps the model of a checkpoint says that it was trained for; None where it can't be read.

    Nothing of the model but its plain JSON is decoded.
    """
    if experiment.model_path is None:
        return None
    try:
        pattern = experiment.settings.get("checkpoint_pattern")
        found = find_checkpoints(experiment.model_path, experiment.env_id, storage_options, pattern=pattern)
        (file,) = select_checkpoints(found, [label])
        with open_scratch() as folder:
            path, _ = fetched(file.url, folder, storage_options, MAX_ARCHIVE_BYTES)
            steps = read_archive(path).data.get("num_timesteps")
    except (RLHFBlenderError, OSError) as error:
        _log.debug("No number of steps for %s of %s: %s", label, experiment.name, error)
        return None
    return steps if isinstance(steps, int) and not isinstance(steps, bool) and steps >= 0 else None
