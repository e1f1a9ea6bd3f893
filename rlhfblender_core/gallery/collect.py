"""What the gallery shows: experiments, their checkpoints, and which episodes and files these have, from listings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import (
    EXTENSIONS,
    MANIFESTS,
    RANDOM,
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_folder,
    manifest_folder,
    manifest_path,
    parse_episode_number,
)
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.gallery.hand_laid import hand_laid_notes
from rlhfblender_core.storage import DataRoot, list_folders, list_names, read_many
from rlhfblender_core.wording import did_you_mean

#: Episode numbers, int64, ascending.
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has episodes.

    Attributes:
        key: experiment and label.
        numbers: of its episodes, at least one.
        files: numbers that there is a file for, by kind.
        first: the first episode's manifest, for what all of them share.
    """

    key: CheckpointKey
    numbers: Numbers
    files: dict[ArtifactKind, Numbers]
    first: Manifest

    def has_file(self, kind: ArtifactKind, numbers: Numbers) -> NDArray[np.bool_]:
        """Of which of these episodes there is a file of that kind."""
        return np.isin(numbers, self.files[kind], assume_unique=True)


def find_experiments(root: DataRoot, wanted: Sequence[str]) -> list[str]:
    """The experiments that have episodes, by name; those that are wanted, or all for none.

    Raises:
        DataNotUsableError: one that is wanted has no episodes, or there are none at all.
    """
    there = list_folders(root, MANIFESTS)
    missing = [name for name in wanted if name not in there]
    notes = hand_laid_notes(root, missing) if missing or not there else ()
    if notes:
        raise DataNotUsableError(f"{root.display_url()}: {notes[0]}.")
    if missing:
        known = (
            did_you_mean(missing[0], there)
            if there
            else "There are none at all; make some with `python flows/generate.py --env … --random`."
        )
        raise DataNotUsableError(f"{root.display_url()} has no episodes of experiment {missing[0]!r}. {known}")
    if not there:
        raise DataNotUsableError(
            f"{root.display_url()} has no episodes. Make some with "
            "`python flows/generate.py --env … --random`, or give another --data-root."
        )
    return sorted(set(wanted) or there)


def find_labels(root: DataRoot, experiment: str) -> list[str]:
    """Labels of the experiment's checkpoints, in any order; some may have no episodes."""
    return list_folders(root, f"{MANIFESTS}/{experiment}")


def look_at(root: DataRoot, key: CheckpointKey) -> Checkpoint | None:
    """A checkpoint as it lies there now; None if it has no episodes.

    Raises:
        DataNotUsableError: its first manifest can't be read.
    """
    numbers = episode_numbers(root, key)
    if not numbers.size:
        return None
    first = read_manifests(root, key, numbers[:1]).get(int(numbers[0]))
    if first is None:  # deleted meanwhile
        return None
    kinds = {kind: _numbers(list_names(root, artifact_folder(kind, key)), EXTENSIONS[kind]) for kind in ArtifactKind}
    return Checkpoint(key, numbers, kinds, first)


def episode_numbers(root: DataRoot, key: CheckpointKey) -> Numbers:
    """Numbers of a checkpoint's episodes."""
    return _numbers(list_names(root, manifest_folder(key)), ".json")


def read_manifests(root: DataRoot, key: CheckpointKey, numbers: Numbers) -> dict[int, Manifest]:
    """The manifests of a checkpoint's episodes that are still there, by number.

    Raises:
        DataNotUsableError: one can't be read.
    """
    paths = {manifest_path(EpisodeKey(key.experiment, key.checkpoint, number)): number for number in numbers.tolist()}
    contents = read_many(root, paths)
    return {paths[path]: parse_manifest(content, path) for path, content in contents.items()}


def training_order(label: str, step: int | None) -> tuple[int, int, str]:
    """Sorts checkpoints: random first, then by step, then by label."""
    if label == RANDOM:
        return 0, 0, label
    return (1, step, label) if step is not None else (2, 0, label)


def _numbers(names: Iterator[str], extension: str) -> Numbers:
    found = (parse_episode_number(name, extension) for name in names)
    return np.sort(np.fromiter((number for number in found if number is not None), np.int64))
