"""Which files of a folder are models, at every depth that trainers use: ``10000/model.zip``, ``checkpoints/10000.zip``.

RL Zoo's and Stable-Baselines3's own names are believed; of other files a few bytes are read (:mod:`.looking`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rlhfblender_core.checkpoints.listing import Folder
from rlhfblender_core.checkpoints.looking import UNZIPPED, kinds_of
from rlhfblender_core.checkpoints.naming import BEST_MODEL, base_of, callback_step, stem_of
from rlhfblender_core.checkpoints.origin import ids_in
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.names import path_segment
from rlhfblender_core.untrusted.file_kinds import FileKind

#: Of a folder's files so many are looked into, and so many folders below it; of more nothing is left out in silence.
_MOST_FILES, _MOST_FOLDERS = 20_000, 2_000
#: Folders in folders: ``run/checkpoints/10000/model.zip`` is three below ``run``'s own.
_MOST_LEVELS = 3
#: What is never a model, whatever is in it.
NO_MODELS = (
    ".csv", ".gif", ".html", ".json", ".jsonl", ".log", ".md", ".mp4", ".npy", ".npz", ".onnx", ".png", ".py", ".toml",
    ".txt", ".yaml", ".yml",
)  # fmt: skip
#: A file of these kinds was meant as a model: what is the matter with it is told when it is fetched.
MEANT = (FileKind.MODEL, FileKind.INCOMPLETE, FileKind.POINTER, FileKind.BARE_POLICY, FileKind.BASELINES2)


@dataclass(frozen=True, slots=True)
class Model:
    """A model in a folder or below it.

    Attributes:
        name: its path in the folder: ``10000.zip``, ``10000/model.zip``.
        folders: that it lies in, from its own to the one that was searched.
    """

    name: str
    folders: tuple[Folder, ...]

    @property
    def own_name(self) -> str:
        """Its name in its own folder."""
        return self.name.rpartition("/")[2]

    @property
    def url(self) -> str:
        """Its path or URL."""
        return self.folders[0].url(self.own_name)


def models_in(folder: Folder, environment_id: str, levels: int = _MOST_LEVELS) -> list[Model]:
    """The models of a folder and of those below it, by name; folders named after another environment are left out.

    Args:
        folder: to search.
        environment_id: for which an agent is wanted.
        levels: of folders below it; 0 for its own models, which may be unzipped.

    Raises:
        CheckpointNotUsableError: there is more in it than can be looked through.
        StorageNotUsableError, StorageUnavailableError: it can't be read.
    """
    return list(_Search(environment_id, levels).models((folder,), ""))


def zips_in(folder: Folder) -> list[str]:
    """The names of its zip files."""
    return sorted(file for file in folder.files if file.endswith(".zip") and not file.startswith("."))


class _Search:
    def __init__(self, environment_id: str, levels: int) -> None:
        self._levels = levels
        self._base = base_of(path_segment(environment_id))
        self._names = {self._base, base_of(environment_id.rpartition("/")[2])}
        self._folders = 0

    def models(self, folders: tuple[Folder, ...], prefix: str) -> Iterator[Model]:
        folder = folders[0]
        names = _model_files(folder)
        for name in names:
            yield Model(prefix + name, folders)
        # A hub's repository has the same model zipped and unzipped; a model's settings lie in a folder of its name.
        stems = {stem_of(name) for name in names}
        # The hub's cache has each file as a blob, and under its name in a snapshot.
        named = folder.folders - stems - ({"blobs"} if "snapshots" in folder.folders else set())
        for name in sorted(named):
            if not name.startswith((".", "__")) and self._may_be_ours(name):
                yield from self._below(folders, prefix, name)

    def _below(self, folders: tuple[Folder, ...], prefix: str, name: str) -> Iterator[Model]:
        self._folders += 1
        if self._folders > _MOST_FOLDERS:
            raise _too_many(folders[-1], f"{_MOST_FOLDERS:,} folders")
        below = folders[0].subfolder(name)
        if below.files >= UNZIPPED:
            yield Model(prefix + name, folders)
        elif len(folders) <= self._levels:
            yield from self.models((below, *folders), f"{prefix}{name}/")

    def _may_be_ours(self, name: str) -> bool:
        ids = ids_in(name)
        return not ids or any(base_of(env_id) in self._names for env_id in ids)


def _model_files(folder: Folder) -> list[str]:
    """Its own models: zips and others, whole or still being written."""
    zips = zips_in(folder)
    believed = [name for name in zips if stem_of(name) == BEST_MODEL or callback_step(stem_of(name))]
    unknown = [name for name in zips if name not in set(believed)]
    visible = sorted(name for name in folder.files if not name.startswith(".") and not name.endswith(".zip"))
    others = [name for name in visible if not name.lower().endswith(NO_MODELS)]
    if len(unknown) + len(others) > _MOST_FILES:
        raise _too_many(folder, f"{_MOST_FILES:,} files that may be models")
    kinds = kinds_of(folder, [*unknown, *others])
    found = believed + [name for name in unknown if kinds[name] in MEANT]
    found += [name for name in others if kinds[name] in (FileKind.MODEL, FileKind.INCOMPLETE) and folder.sizes[name]]
    return sorted(found)


def _too_many(folder: Folder, what: str) -> CheckpointNotUsableError:
    return CheckpointNotUsableError(
        f"{folder.path!r} has more than {what}. Give the folder that the checkpoints are in."
    )
