"""Which of the files beside a model holds its observation statistics, whatever they are called."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.find import CheckpointFile, may_be_pickles
from rlhfblender_core.checkpoints.listing import open_folder
from rlhfblender_core.checkpoints.looking import pickled_classes
from rlhfblender_core.checkpoints.models import zips_in
from rlhfblender_core.checkpoints.naming import own_step, stem_of
from rlhfblender_core.errors import CheckpointNotUsableError, RLHFBlenderError
from rlhfblender_core.untrusted.limits import MAX_PICKLE_BYTES

#: As given with ``--vecnormalize``: observations are as they are, whatever lies beside the model.
NO_STATISTICS = "none"
_CLASS = "VecNormalize"
#: Pickles of a folder that are looked into; replay buffers are among them.
_MOST_PICKLES = 20_000
#: Folders beside a model that are looked into for them.
_CALLED = re.compile(r"(?i)((vec|env|obs)[_-]?)?(norm(ali[sz]\w+)?|stat(istic)?)([_-]?stat(istic)?)?s?")
_MOST_FOLDERS = 20


def statistics_url(
    file: CheckpointFile,
    chosen: str | None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    steps: int | None = None,
    looks_beside: bool = False,
) -> tuple[str | None, str | None]:
    """The URL of a checkpoint's statistics, None where it has none; and a line where they were known by content only.

    Only the first bytes of pickles are looked at; whether one is safe shows when it is read.

    Args:
        file: the checkpoint.
        chosen: the file that the user names, with ``{step}`` for each checkpoint's own; None to find it.
        storage_options: for fsspec.
        steps: of its training, as its content says; None where that isn't known.
        looks_beside: whether folders called after them are looked into as well.

    Raises:
        CheckpointNotUsableError: there are several, and nothing says which is meant; or the only ones are another's.
        StorageNotUsableError, StorageUnavailableError: the folder can't be read.
    """
    if chosen is not None:
        return None if chosen == NO_STATISTICS else chosen.replace("{step}", file.label), None
    if file.companions.vecnormalize is not None:
        return file.companions.vecnormalize, None
    # Of "best" and "final", the steps are in the file.
    labels = [file.label] if file.step is not None or not steps else [file.label, str(steps)]
    known, is_own = _own_or_all(file.companions.pickles, file, labels, storage_options)
    if not known and looks_beside:
        known, is_own = _own_or_all(_pickles_beside(file, storage_options), file, labels, storage_options)
    if len(known) > 1:
        names = ", ".join(repr(url) for url in known[:4])
        raise CheckpointNotUsableError(
            f"Checkpoint {file.url!r} has several files of statistics beside it: {names}. Say which is its own: "
            "--vecnormalize FILE."
        )
    if not known:
        return None, None
    name = known[0].rpartition("/")[2]
    if not is_own and _is_of_another(known[0], file, storage_options):
        raise CheckpointNotUsableError(
            f"Checkpoint {file.url!r} has no statistics of its own beside it: by its name, {name!r} is another "
            "checkpoint's. Say with which it was trained: --vecnormalize FILE."
        )
    return known[0], f"Checkpoint {file.label} sees observations normalised by {name!r}"


def _own_or_all(
    urls: Sequence[str], file: CheckpointFile, labels: Sequence[str], storage_options: Mapping[str, Any] | None
) -> tuple[list[str], bool]:
    """The one that is the checkpoint's by its name, and True; else all, and False."""
    # Its own first: a training may have left a thousand of them.
    for label in labels:
        own = _statistics_among([url for url in urls if _belongs_to(url, file, label)], storage_options)
        if len(own) == 1:
            return own, True
    return _statistics_among(urls, storage_options), False


def _pickles_beside(file: CheckpointFile, storage_options: Mapping[str, Any] | None) -> list[str]:
    """Those in folders called after them, in the model's folder and beside it: ``stats/``, ``../vecnormalize/``."""
    parent = file.url.rpartition("/")[0] or "/"
    folders = [open_folder(parent, storage_options)]
    if "://" not in parent:
        with suppress(RLHFBlenderError):  # /home may be no one's to list, as buckets and hubs are
            folders.append(open_folder(str(Path(parent).absolute().parent)))
    named = [folder.url(name) for folder in folders for name in sorted(folder.folders) if _CALLED.fullmatch(name)]
    beside = [open_folder(url, storage_options) for url in named[:_MOST_FOLDERS]]
    return [folder.url(name) for folder in beside if not zips_in(folder) for name in may_be_pickles(folder)]


def _statistics_among(urls: Sequence[str], storage_options: Mapping[str, Any] | None) -> list[str]:
    by_folder: dict[str, list[str]] = {}
    for url in urls[:_MOST_PICKLES]:
        parent, _, name = url.rpartition("/")
        by_folder.setdefault(parent or "/", []).append(name)
    known = []
    for parent, names in by_folder.items():
        folder = open_folder(parent, storage_options)
        small = [name for name in names if 0 < folder.sizes.get(name, 1) <= MAX_PICKLE_BYTES]
        known += [folder.url(name) for name, held in pickled_classes(folder, small).items() if held == _CLASS]
    return known


def _belongs_to(url: str, file: CheckpointFile, label: str) -> bool:
    """Whether a file's name has the checkpoint's own: its steps as a whole number, its word, or all of its name."""
    stem = _stem(url)
    model = stem_of(file.url.rpartition("/")[2])
    own = rf"(?<![0-9A-Za-z])0*{re.escape(label)}(?![0-9A-Za-z])"
    return re.search(own, stem) is not None or stem == model or stem.startswith((f"{model}_", f"{model}-"))


def _is_of_another(url: str, file: CheckpointFile, storage_options: Mapping[str, Any] | None) -> bool:
    """Whether a file's name has other steps than the checkpoint, or a number that only a neighbour's name has."""
    stem = _stem(url)
    foreign = _whole_numbers(stem) - _whole_numbers(file.url)
    if not foreign:
        return False
    if file.step is not None and own_step(stem) in foreign:
        return True
    folder = open_folder(url.rpartition("/")[0] or "/", storage_options)
    neighbours = [*zips_in(folder), *folder.folders]
    return any(foreign & _whole_numbers(name) for name in neighbours)


def _stem(url: str) -> str:
    return re.sub(r"(?i)\.(pkl|pickle)$", "", url.rpartition("/")[2])


def _whole_numbers(name: str) -> set[int]:
    return {int(digits) for digits in re.findall(r"(?<![0-9A-Za-z])\d{1,18}(?![0-9A-Za-z])", name)}
