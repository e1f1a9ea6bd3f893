"""What a folder of episodes holds, in either of two layouts; from the names of files alone, nothing is opened here.

documented
    ``<kind>/<experiment>/<subfolder>/<n>.<ext>``, as RLHF-Blender's guide describes pre-generated data.
server
    ``<kind>/<env>/<env>_<id>_<checkpoint>/…`` with names such as ``benchmark_<n>.npz``, as its server keeps them.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fsspec.utils import get_protocol

from rlhfblender_core.dataset.layout import ArtifactKind, parse_episode_number
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError

Layout = Literal["documented", "server"]

#: Of the server; see :mod:`rlhfblender_core.import_data.demonstrations`.
DEMONSTRATIONS = "generated_demos"
#: File names before and after the episode's number, the usual one first.
_NAMES: Mapping[Layout, Mapping[ArtifactKind, tuple[tuple[str, str], ...]]] = {
    "documented": {
        ArtifactKind.EPISODES: (("", ".npz"),),
        ArtifactKind.REWARDS: (("", ".npy"), ("", ".npz")),
        ArtifactKind.UNCERTAINTY: (("", ".npy"), ("", ".npz")),
        ArtifactKind.RENDERS: (("", ".mp4"),),
        ArtifactKind.THUMBNAILS: (("", ".png"), ("", ".jpg")),
    },
    "server": {
        ArtifactKind.EPISODES: (("benchmark_", ".npz"),),
        ArtifactKind.REWARDS: (("rewards_", ".npy"),),
        ArtifactKind.UNCERTAINTY: (("uncertainty_", ".npy"),),
        ArtifactKind.RENDERS: (("", ".mp4"),),
        ArtifactKind.THUMBNAILS: (("", ".jpg"), ("", ".png")),
    },
}


@dataclass(frozen=True)
class SourceEpisode:
    """An episode's files in the source.

    Attributes:
        number: from 0.
        files: those that are there.
        usual: where each kind usually lies, for messages about missing ones.
    """

    number: int
    files: Mapping[ArtifactKind, Path]
    usual: Mapping[ArtifactKind, Path]


@dataclass(frozen=True)
class SourceCheckpoint:
    """A subfolder of an experiment: one policy's episodes.

    Attributes:
        folder: the source.
        path: below each kind's folder.
        name: of the checkpoint, as the source has it.
        layout: which names its files have.
        states: folder of its episodes' states of the environment, below the source; ``""`` for none.
    """

    folder: Path
    path: str
    name: str
    layout: Layout
    states: str = ""

    def states_of(self, number: int) -> Path | None:
        """Where an episode's states of the environment are, if those of the checkpoint's are there."""
        folder = self.folder / self.states
        return folder / f"env_states_{number}.npy" if self.states and folder.is_dir() else None

    def numbers(self) -> list[int]:
        """Of its episodes, ascending: every number that any file has."""
        found: set[int] = set()
        for kind, names in _NAMES[self.layout].items():
            for name in _file_names(self.folder / kind / self.path):
                found.update(number for affixes in names if (number := _number(name, *affixes)) is not None)
        return sorted(found)

    def episode(self, number: int) -> SourceEpisode:
        """An episode by its number: the names that its files may have are looked for, nothing is listed."""
        files = {}
        for kind, names in _NAMES[self.layout].items():
            candidates = (self.folder / kind / self.path / f"{pre}{number}{ext}" for pre, ext in names)
            file = next((file for file in candidates if file.is_file()), None)
            if file is not None:
                files[kind] = file
        return SourceEpisode(number, files, self._usual(number))

    def unknown_files(self) -> list[Path]:
        """Files beside the episodes' whose names have no number that an episode could have."""
        found: list[Path] = []
        for kind, names in _NAMES[self.layout].items():
            for file in _files(self.folder / kind / self.path):
                if all(_number(file.name, prefix, extension) is None for prefix, extension in names):
                    found.append(file)
        return found

    @property
    def demonstrations(self) -> tuple[Path, ...]:
        """Files of episodes that people have played."""
        return ()

    def _usual(self, number: int) -> dict[ArtifactKind, Path]:
        names = {kind: names[0] for kind, names in _NAMES[self.layout].items()}
        return {kind: self.folder / kind / self.path / f"{pre}{number}{ext}" for kind, (pre, ext) in names.items()}


@dataclass(frozen=True)
class SourceExperiment:
    """An experiment's episodes in the source.

    Attributes:
        name: the experiment's folder, or the environment's folder and the experiment's id in the server's layout.
        environment: the environment's folder; None in the documented layout, which doesn't say.
        experiment_id: the experiment's row in the server's database; None in the documented layout.
        checkpoints: at least one.
    """

    name: str
    environment: str | None
    experiment_id: int | None
    checkpoints: tuple[SourceCheckpoint, ...]


def source_folder(given: str) -> Path:
    """The folder that a user names, which needn't be there.

    Raises:
        InvalidParameterError: it isn't on this machine.
    """
    if get_protocol(given) not in ("file", "local"):
        raise InvalidParameterError(
            f"Episodes come from a folder on this machine, not from {given}. Copy it here first."
        )
    return Path(given.removeprefix("file://")).expanduser().absolute()


def data_folder(folder: Path) -> Path:
    """The folder that has the kinds' folders: the given one, or ``data`` in it.

    Raises:
        DataNotUsableError: neither has.
    """
    if not folder.is_dir():
        raise DataNotUsableError(
            f"There is no folder {str(folder)!r}. Give the folder that has episodes/ and renders/."
        )
    for candidate in (folder, folder / "data"):
        if any((candidate / kind).is_dir() for kind in (*ArtifactKind, DEMONSTRATIONS)):
            return candidate
    kinds = ", ".join(f"{kind}/" for kind in ArtifactKind)
    raise DataNotUsableError(f"{folder} has none of {kinds}. Give the folder that has episodes/ and renders/.")


def find_source_experiments(folder: Path) -> list[SourceExperiment]:
    """The experiments in a data folder, by name."""
    found: dict[tuple[str, int | None], dict[str, SourceCheckpoint]] = {}
    for kind in ArtifactKind:
        for outer in _folders(folder / kind):
            for inner in _folders(outer):
                key, checkpoint = _classified(folder, outer.name, inner.name)
                found.setdefault(key, {})[checkpoint.path] = checkpoint
    return [
        SourceExperiment(
            name if number is None else f"{name}_{number}",
            None if number is None else name,
            number,
            tuple(checkpoints[path] for path in sorted(checkpoints)),
        )
        for (name, number), checkpoints in sorted(found.items(), key=lambda entry: (entry[0][0], entry[0][1] or 0))
        if any(checkpoint.numbers() for checkpoint in checkpoints.values())
    ]


def _classified(folder: Path, outer: str, inner: str) -> tuple[tuple[str, int | None], SourceCheckpoint]:
    match = re.fullmatch(rf"{re.escape(outer)}_(\d{{1,9}})_(.+)", inner)
    path = f"{outer}/{inner}"
    if match is None:
        return (outer, None), SourceCheckpoint(folder, path, inner, "documented")
    return (outer, int(match[1])), SourceCheckpoint(folder, path, match[2], "server")


def _number(name: str, prefix: str, extension: str) -> int | None:
    if not name.startswith(prefix):
        return None
    return parse_episode_number(name.removeprefix(prefix), extension)


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))


def _file_names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if not entry.name.startswith(".") and not _is_folder(entry))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no file that can be read, but one to be named
        return False


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(child for child in folder.iterdir() if not child.is_dir() and not child.name.startswith("."))
