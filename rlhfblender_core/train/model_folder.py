"""The folder of a training, as RL Zoo and Stable-Baselines3's CheckpointCallback lay it out, and its record.

::

    rl_model_20000_steps.zip                  the checkpoint; comes last, and is the commit
    rl_model_vecnormalize_20000_steps.pkl     its statistics
    rl_model_replay_buffer_20000_steps.npz    beside the last checkpoint only
    <environment>/args.yml, config.yml        what it was trained with
    training.json                             how it came about

Each file is whole or not there (:mod:`rlhfblender_core.storage`).
"""

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlhfblender_core.checkpoints.resumed import MAX_RECORD_BYTES, TRAINING_RECORD
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.names import path_segment
from rlhfblender_core.storage import DataRoot, list_sizes, publish_files, read_many, remove_files
from rlhfblender_core.train.hyperparameters import zoo_name
from rlhfblender_core.train.job import CurvePoint, TrainingJob
from rlhfblender_core.untrusted.json_values import DamagedJsonError, parse_json

_MODEL = re.compile(r"rl_model_([1-9][0-9]{0,14})_steps\.zip")
_BUFFER = re.compile(r"rl_model_replay_buffer_[0-9]+_steps\.npz")
_MAX_RESUMED = 1000


def model_name(step: int) -> str:
    """The checkpoint's own file."""
    return f"rl_model_{step}_steps.zip"


def statistics_name(step: int) -> str:
    """The file of its VecNormalize statistics."""
    return f"rl_model_vecnormalize_{step}_steps.pkl"


def buffer_name(step: int) -> str:
    """The file of its replay buffer."""
    return f"rl_model_replay_buffer_{step}_steps.npz"


@dataclass(frozen=True)
class TrainingRecord:
    """How a training came about: the content of ``training.json``.

    Attributes:
        begun_as: what can't be changed any more, see :attr:`~rlhfblender_core.train.job.TrainingJob.begun_as`.
        hyperparameters_from: where they are from, for a person.
        total_timesteps, checkpoint_every: as last asked for.
        resumed_at: the steps at which a later run went on, each with what can't be as it would have been.
        checkpoints: sha256 by step.
        curve: the learning curve.
        versions: of the packages, by name.
    """

    begun_as: Mapping[str, Any]
    total_timesteps: int
    checkpoint_every: int
    hyperparameters_from: str = ""
    resumed_at: Sequence[Mapping[str, Any]] = ()
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[CurvePoint] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def read_record(folder: DataRoot) -> TrainingRecord | None:
    """The folder's record, None where there is none.

    Raises:
        CheckpointNotUsableError: it is damaged.
    """
    content = read_many(folder, [TRAINING_RECORD]).get(TRAINING_RECORD)
    if content is None:
        return None
    shown = folder.display_url(TRAINING_RECORD)
    try:
        return _record(parse_json(content, MAX_RECORD_BYTES))
    except (DamagedJsonError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointNotUsableError(
            f"{shown} is damaged ({str(error)[:80]}). Train under another --exp, or move its folder away."
        ) from error


def _record(held: Any) -> TrainingRecord:
    begun = dict(held["begun_as"])
    if not isinstance(begun["hyperparameters"], dict) or not all(
        isinstance(begun[key], int) for key in ("n_envs", "seed")
    ):
        raise TypeError("begun_as")
    curve = [CurvePoint(int(step), _number(mean), _number(loss)) for step, mean, loss in held["curve"]]
    return TrainingRecord(
        begun_as=begun,
        total_timesteps=int(held["total_timesteps"]),
        checkpoint_every=int(held["checkpoint_every"]),
        hyperparameters_from=str(held["hyperparameters_from"]),
        resumed_at=[dict(entry) for entry in held["resumed_at"]],
        checkpoints={str(step): str(digest) for step, digest in held["checkpoints"].items()},
        curve=curve,
        versions={str(name): str(version) for name, version in held["versions"].items()},
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def write_record(folder: DataRoot, record: TrainingRecord, staging: Path) -> None:
    """Writes it, whole or not at all; ``staging`` is the run's own folder, which goes with it when it is killed."""
    held = asdict(record) | {
        "resumed_at": list(record.resumed_at)[-_MAX_RESUMED:],
        "curve": [[point.step, point.mean_return, point.loss] for point in record.curve],
    }
    _publish_texts(folder, {TRAINING_RECORD: json.dumps(held, indent=1)}, staging)


def write_settings(job: TrainingJob, staging: Path) -> None:
    """RL Zoo's two files of settings, by which anybody's loader knows what the agent was trained in.

    Args:
        job: what is trained.
        staging: see :func:`write_record`.
    """
    args = {
        "algo": zoo_name(job.algorithm),
        "env": job.spec.env_id,
        "env_kwargs": dict(job.spec.kwargs) or None,
        "n_timesteps": job.total_timesteps,
        "save_freq": job.checkpoint_every,
        "seed": job.seed,
    }
    config = {**job.hyperparameters, "n_envs": job.n_envs, "n_timesteps": job.total_timesteps}
    subfolder = path_segment(job.spec.env_id)
    # RL Zoo's own form, a list of pairs with a tag.
    texts = {f"{subfolder}/args.yml": args, f"{subfolder}/config.yml": config}
    dumped = {path: yaml.dump(OrderedDict(sorted(values.items()))) for path, values in texts.items()}
    _publish_texts(job.folder, dumped, staging)


def _publish_texts(folder: DataRoot, texts: Mapping[str, str], staging: Path) -> None:
    files = {path: staging / Path(path).name for path in texts}
    for path, file in files.items():
        file.write_text(texts[path], encoding="utf-8")
    publish_files(folder, files)


def checkpoint_steps(folder: DataRoot) -> list[int]:
    """The steps of the checkpoints in the folder, in order."""
    found = (_MODEL.fullmatch(name) for name in list_sizes(folder, ""))
    return sorted(int(match[1]) for match in found if match)


def has_replay_buffer(folder: DataRoot) -> bool:
    """Whether a replay buffer was kept there."""
    return any(_BUFFER.fullmatch(name) for name in list_sizes(folder, ""))


def foreign_models(folder: DataRoot) -> list[str]:
    """Zips in the folder."""
    return sorted(name for name in list_sizes(folder, "") if name.endswith(".zip"))


def publish_checkpoint(folder: DataRoot, files: Mapping[str, Path], step: int) -> None:
    """Moves a checkpoint's files into the folder, the model itself last; replay buffers of earlier ones go.

    Args:
        folder: of the training.
        files: local file by name, on the folder's own disk if it is local.
        step: of the checkpoint.
    """
    beside = {name: file for name, file in files.items() if name != model_name(step)}
    if beside:
        publish_files(folder, beside)
    publish_files(folder, {model_name(step): files[model_name(step)]})
    old = [name for name in list_sizes(folder, "") if _BUFFER.fullmatch(name) and name != buffer_name(step)]
    remove_files(folder, old)
