"""What an export folder keeps about itself: lock, unfinished files, and the numbers that the server goes by.

The ids of experiments, the numbers of checkpoints and the names of environments are written before the first file: a
run that dies half-way must not leave a folder that another experiment gets later. What was exported of a checkpoint is
in :mod:`rlhfblender_core.export.exported`.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rlhfblender_core.errors import DataNotUsableError, StorageNotUsableError
from rlhfblender_core.names import is_name
from rlhfblender_core.storage import (
    DataRoot,
    check_no_links,
    full_disk_errors,
    make_folder,
    publish_bytes,
    read_bytes,
    storage_errors,
)
from rlhfblender_core.untrusted.json_values import parse_json

#: Hidden from the server, which reads ``data/`` and the database.
FOLDER = ".rlhfblender-export"
_LOCK_PATIENCE_S = 2
_STAGING = "staging-"


@dataclass
class Numbers:
    """By which names and numbers the server knows what is exported; once given, they stay.

    Attributes:
        environments: ``env_name`` by registration id.
        experiments: id by name.
        checkpoints: number by label, by experiment.
        pictures: sha256 of the actions' pictures that an export has written, by path.
    """

    environments: dict[str, str] = field(default_factory=dict)
    experiments: dict[str, int] = field(default_factory=dict)
    checkpoints: dict[str, dict[str, int]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


@contextmanager
def locked(target: DataRoot) -> Iterator[None]:
    """Keeps other exports out of the folder, which is made if needed, and clears away what a killed one left.

    Raises:
        StorageNotUsableError: another export is writing to it, or it leads elsewhere.
    """
    folder = target.local_folder / FOLDER
    with storage_errors(target):
        check_no_links(target, [folder])
        make_folder(folder)
    try:
        with FileLock(folder / "lock", timeout=_LOCK_PATIENCE_S):
            for left in folder.glob(f"{_STAGING}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
    except Timeout as error:
        raise StorageNotUsableError(
            f"Another export is writing to {target.url}. Wait for it, or choose another folder."
        ) from error


@contextmanager
def staging_folder(target: DataRoot) -> Iterator[Path]:
    """A folder for unfinished files, on the target's disk; the caller has locked the target."""
    with (
        full_disk_errors(target.local_folder),
        tempfile.TemporaryDirectory(dir=target.local_folder / FOLDER, prefix=_STAGING) as staging,
    ):
        yield Path(staging)


def read_numbers(target: DataRoot) -> Numbers:
    """The numbers given so far; none in a new folder.

    Raises:
        DataNotUsableError: the file isn't ours.
    """
    content = read_json(target, _NUMBERS)
    try:
        numbers = Numbers(**content)
        is_ours = _is_sound(numbers)
    except (TypeError, AttributeError) as error:
        raise damaged(target, _NUMBERS) from error
    if not is_ours:
        raise damaged(target, _NUMBERS)
    return numbers


def _is_sound(numbers: Numbers) -> bool:
    """Whether they are names and numbers that folders can have; the export may be somebody's, and is written to."""
    counts = [*numbers.experiments.values(), *(n for own in numbers.checkpoints.values() for n in own.values())]
    names = numbers.environments.values()
    # A slash is in Atari's names only, and in none of their folders.
    return all(is_name(re.sub("[/:]", "-", name)) and ("/" not in name or "ALE" in name) for name in names) and all(
        type(count) is int and abs(count) < 2**63 for count in counts
    )


def write_numbers(target: DataRoot, numbers: Numbers) -> None:
    """Keeps the numbers; nothing is written where nothing has changed."""
    _write(target, _NUMBERS, vars(numbers))


_NUMBERS = f"{FOLDER}/numbers.json"


def read_json(target: DataRoot, path: str) -> dict[str, Any]:
    """The object in one of the export's own JSON files; empty where there is none.

    Raises:
        DataNotUsableError: it is none.
    """
    try:
        content = parse_json(read_bytes(target, path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise damaged(target, path) from error
    if not isinstance(content, dict):
        raise damaged(target, path)
    return content


def _write(target: DataRoot, path: str, content: Mapping[str, Any]) -> None:
    if content != read_json(target, path):
        publish_bytes(target, path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def damaged(target: DataRoot, path: str) -> DataNotUsableError:
    """The line about a file of ours in the export that can't be read."""
    return DataNotUsableError(
        f"{target.display_url(path)} is damaged, so it isn't known what was exported. Export to a new folder."
    )
