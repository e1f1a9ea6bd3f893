"""Where everything lies below the data root: the one place that names paths.

All paths are relative to the data root and use ``/``, on local disks and object storage alike. Nothing here touches
storage; ``parse_episode_path(artifact_path(kind, key)) == (kind, key)`` for every kind and key.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from rlhfblender_core.errors import InvalidNameError
from rlhfblender_core.names import checked_name, path_segment


class ArtifactKind(StrEnum):
    """The files of an episode; each value is the name of the folder that holds that kind."""

    EPISODES = "episodes"
    REWARDS = "rewards"
    UNCERTAINTY = "uncertainty"
    RENDERS = "renders"
    THUMBNAILS = "thumbnails"


EXTENSIONS: dict[ArtifactKind, str] = {
    ArtifactKind.EPISODES: ".npz",
    ArtifactKind.REWARDS: ".npy",
    ArtifactKind.UNCERTAINTY: ".npy",
    ArtifactKind.RENDERS: ".mp4",
    ArtifactKind.THUMBNAILS: ".png",
}

#: An episode's number as its files have it. Databases count no further than some two milliards.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_TOO_MANY = 10**9
_KIND_NAMES = frozenset(kind.value for kind in ArtifactKind)
#: Folder, experiment, checkpoint, file.
_EPISODE_PATH_PARTS = 4

#: Columns of an imported episode's ``.npz``: the environment's states, ``env_state.<key>``, and the steps before each.
ENV_STATE, ELAPSED_STEPS = "env_state", "env_state_elapsed_steps"

MANIFESTS = "manifests"
ACTION_LABELS = "action_labels"
#: Work in progress, by run. Not part of the data set; hidden from listings by its dot.
RUNS = ".runs"
DATABASE_FILE = "rlhfblender.db"

#: Labels of checkpoints that are not a number of training steps.
RANDOM, FINAL, BEST = "random", "final", "best"
#: In manifests, of what was made elsewhere: kind of its policy, and of its uncertainty where its source has one.
IMPORTED = "imported"


@dataclass(frozen=True, slots=True, order=True)
class CheckpointKey:
    """Whose episodes these are: one experiment's, at one checkpoint (``100000``, ``final``, ``best``, ``random``)."""

    experiment: str
    checkpoint: str

    def __post_init__(self) -> None:
        checked_name(self.experiment, "experiment")
        checked_name(self.checkpoint, "checkpoint")


@dataclass(frozen=True, slots=True, order=True)
class EpisodeKey:
    """One episode: its checkpoint and its number from 0."""

    experiment: str
    checkpoint: str
    episode: int

    def __post_init__(self) -> None:
        checked_name(self.experiment, "experiment")
        checked_name(self.checkpoint, "checkpoint")
        if not 0 <= self.episode < _TOO_MANY:
            raise ValueError(f"episode numbers go from 0 to {_TOO_MANY - 1}, not {self.episode}")


def artifact_folder(kind: ArtifactKind, key: CheckpointKey) -> str:
    """The folder of one kind of file of one checkpoint."""
    return f"{kind}/{key.experiment}/{key.checkpoint}"


def manifest_folder(key: CheckpointKey) -> str:
    """The folder of a checkpoint's manifests."""
    return f"{MANIFESTS}/{key.experiment}/{key.checkpoint}"


def artifact_path(kind: ArtifactKind, key: EpisodeKey) -> str:
    """``renders/<experiment>/<checkpoint>/<n>.mp4`` and the like."""
    return f"{kind}/{key.experiment}/{key.checkpoint}/{key.episode}{EXTENSIONS[kind]}"


def manifest_path(key: EpisodeKey) -> str:
    """``manifests/<experiment>/<checkpoint>/<n>.json``: the episode exists if and only if this file does."""
    return f"{MANIFESTS}/{key.experiment}/{key.checkpoint}/{key.episode}.json"


def parse_episode_path(path: str) -> tuple[ArtifactKind | None, EpisodeKey] | None:
    """The kind (None for a manifest) and episode of a path; None for a path that is neither's."""
    parts = path.split("/")
    if len(parts) != _EPISODE_PATH_PARTS:
        return None
    folder, experiment, checkpoint, file = parts
    if folder == MANIFESTS:
        kind, extension = None, ".json"
    elif folder in _KIND_NAMES:
        kind = ArtifactKind(folder)
        extension = EXTENSIONS[kind]
    else:
        return None
    number = parse_episode_number(file, extension)
    if number is None:
        return None
    try:
        return kind, EpisodeKey(experiment, checkpoint, number)
    except InvalidNameError:
        return None


def parse_episode_number(file: str, extension: str) -> int | None:
    """``12.npz`` is 12; None for a name that no episode's file has (``012.npz``, ``.12.npz.part``)."""
    stem = file.removesuffix(extension)
    return int(stem) if stem != file and _NUMBER.fullmatch(stem) else None


def action_label_path(environment_id: str, label: str) -> str:
    """``action_labels/<environment>/<label>.npy``."""
    return f"{ACTION_LABELS}/{path_segment(environment_id)}/{path_segment(label, 'action label')}.npy"
