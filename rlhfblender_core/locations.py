"""Where a run reads and writes: the data root and the registry that belongs to it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhfblender_core.dataset.layout import DATABASE_FILE
from rlhfblender_core.registry import registry_location
from rlhfblender_core.storage import DataRoot, open_data_root

if TYPE_CHECKING:
    from rlhfblender_core.environments import Trust

DEFAULT_DATA_ROOT = "data"


@dataclass(frozen=True)
class Locations:
    """Where a run reads and writes.

    Attributes:
        data_root: URL or absolute folder.
        database_url: SQLAlchemy URL of the registry; may hold a password.
        storage_options: for fsspec; may hold passwords.
        cache: folder for fetched checkpoints.
        state_folder: where this user's own notes are kept: never below a data root, which may be somebody else's.
        trusted_packages: whose environments are made as a registry says.
    """

    data_root: str
    database_url: str = field(repr=False)
    storage_options: Mapping[str, Any] = field(repr=False)
    cache: Path
    state_folder: Path
    trusted_packages: frozenset[str] = frozenset()

    def open_root(self) -> DataRoot:
        """The data root.

        Raises:
            RequestError: it can't be opened.
        """
        return open_data_root(self.data_root, dict(self.storage_options))

    def trust(self) -> "Trust":
        """What this registry may name to make environments with: what this user named of it, and trusted packages."""
        from rlhfblender_core.environments import Trust  # with Gymnasium, which most commands never need

        return Trust(registry_location(self.database_url), self.state_folder / "trusted", self.trusted_packages)


def locate(
    data_root: str | os.PathLike[str] = DEFAULT_DATA_ROOT,
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
        state_folder: for this user's own notes; None for one below ``~/.local/state``.
        cache: folder for fetched checkpoints; None for one below ``~/.cache``.

    Raises:
        RequestError: the data root can't be opened.
    """
    root = open_data_root(data_root, dict(storage_options or {}))
    folder = str(root.local_folder) if root.is_local else root.url
    state_folder = state_folder or Path.home() / ".local" / "state" / "rlhfblender"
    cache = cache or Path.home() / ".cache" / "rlhfblender"
    url = database_url or default_database_url(root, state_folder)
    return Locations(folder, url, dict(storage_options or {}), cache, state_folder)


def default_database_url(root: DataRoot, state_folder: Path) -> str:
    """SQLite: inside a local data root; for object storage in the state folder, one file per data root."""
    if root.is_local:
        return f"sqlite:///{root.local_folder / DATABASE_FILE}"
    digest = hashlib.sha256(root.url.rstrip("/").encode()).hexdigest()[:16]
    return f"sqlite:///{state_folder / digest / DATABASE_FILE}"
