"""The environment variables of this project, read here and nowhere else.

``RLHFBLENDER_DATA_ROOT``, ``RLHFBLENDER_DATABASE_URL``, ``RLHFBLENDER_STORAGE_OPTIONS`` (JSON for fsspec) and
``RLHFBLENDER_CACHE`` (folder for fetched checkpoints). What is given as a parameter wins.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.layout import DATABASE_FILE
from rlhfblender_core.storage import DataRoot, open_data_root

DEFAULT_DATA_ROOT = "data"


@dataclass(frozen=True)
class Places:
    """Where a run reads and writes.

    Attributes:
        data_root: URL or absolute folder.
        database_url: SQLAlchemy URL of the registry; may hold a password.
    """

    data_root: str
    database_url: str = field(repr=False)

    def open_root(self) -> DataRoot:
        """The data root, with the storage options of this process."""
        return open_data_root(self.data_root, storage_options())


def resolve_places(data_root: str | None, database_url: str | None) -> Places:
    """The places of a run: parameters, else environment variables, else defaults.

    Raises:
        RequestError: the data root can't be opened.
    """
    root_url = data_root or os.environ.get("RLHFBLENDER_DATA_ROOT") or DEFAULT_DATA_ROOT
    root = open_data_root(root_url, storage_options())
    url = database_url or os.environ.get("RLHFBLENDER_DATABASE_URL") or default_database_url(root)
    return Places(str(root.local_folder) if root.is_local else root_url, url)


def default_database_url(root: DataRoot) -> str:
    """SQLite: inside a local data root; for object storage in the user's state folder, one file per data root."""
    if root.is_local:
        return f"sqlite:///{root.local_folder / DATABASE_FILE}"
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    digest = hashlib.sha256(root.url.rstrip("/").encode()).hexdigest()[:16]
    return f"sqlite:///{state / 'rlhfblender' / digest / DATABASE_FILE}"


def storage_options() -> dict[str, Any]:
    """What ``RLHFBLENDER_STORAGE_OPTIONS`` holds for fsspec.

    Raises:
        InvalidParameterError: it is no JSON object.
    """
    text = os.environ.get("RLHFBLENDER_STORAGE_OPTIONS", "").strip()
    if not text:
        return {}
    try:
        options = json.loads(text)
    except ValueError as error:
        raise InvalidParameterError(f"RLHFBLENDER_STORAGE_OPTIONS is no JSON: {error}.") from error
    if not isinstance(options, dict):
        raise InvalidParameterError('RLHFBLENDER_STORAGE_OPTIONS must be a JSON object like {"key": "…"}.')
    return options


def cache_folder() -> Path:
    """Where fetched checkpoints are kept."""
    given = os.environ.get("RLHFBLENDER_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlhfblender"
