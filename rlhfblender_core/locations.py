"""Where a run reads and writes: the data root and the registry that belongs to it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.layout import DATABASE_FILE
from rlhfblender_core.storage import DataRoot, open_data_root

DEFAULT_DATA_ROOT = "data"


@dataclass(frozen=True)
class Locations:
    """Where a run reads and writes.

    Attributes:
        data_root: URL or absolute folder.
        database_url: SQLAlchemy URL of the registry; may hold a password.
        storage_options: for fsspec; may hold passwords.
        cache: folder for fetched checkpoints.
    """

    data_root: str
    database_url: str = field(repr=False)
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    cache: Path = field(default_factory=lambda: Path.home() / ".cache" / "rlhfblender")

    def open_root(self) -> DataRoot:
        """The data root.

        Raises:
            RequestError: it can't be opened.
        """
        return open_data_root(self.data_root, dict(self.storage_options))


def locate(
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    state_folder: Path | None = None,
    cache: Path | None = None,
) -> Locations:
    """The locations of a data root.

    Args:
        data_root: folder or fsspec URL.
        database_url: None for SQLite: inside a local data root; for object storage in the user's state folder.
        storage_options: for fsspec.
        state_folder: None for the user's ``~/.local/state``.
        cache: folder for fetched checkpoints; None for the user's ``~/.cache``.

    Raises:
        RequestError: the data root can't be opened.
    """
    root = open_data_root(data_root, dict(storage_options or {}))
    folder = str(root.local_folder) if root.is_local else data_root
    url = database_url or default_database_url(root, state_folder or Path.home() / ".local" / "state")
    home = {} if cache is None else {"cache": cache}
    return Locations(folder, url, dict(storage_options or {}), **home)


def default_database_url(root: DataRoot, state_folder: Path) -> str:
    """SQLite: inside a local data root; for object storage in the state folder, one file per data root."""
    if root.is_local:
        return f"sqlite:///{root.local_folder / DATABASE_FILE}"
    digest = hashlib.sha256(root.url.rstrip("/").encode()).hexdigest()[:16]
    return f"sqlite:///{state_folder / 'rlhfblender' / digest / DATABASE_FILE}"
