"""The environment variables of this project, read here and nowhere else.

``RLHFBLENDER_DATA_ROOT``, ``RLHFBLENDER_DATABASE_URL``, ``RLHFBLENDER_STORAGE_OPTIONS`` (JSON for fsspec),
``RLHFBLENDER_CACHE`` (folder for fetched checkpoints) and ``RLHFBLENDER_TRUSTED_PACKAGES`` (whose environments are
made as a registry says). What is given as a parameter wins.
"""

import json
import os
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhfblender_core.errors import InvalidParameterError, RegistryNotUsableError
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import has_password

#: What a command line was given with a password in it.
_kept_database_url: ContextVar[str | None] = ContextVar("kept_database_url", default=None)


def keep_database_url(url: str) -> str | None:
    """Keeps a URL with a password for :func:`resolve_locations`; returns the others, which may be seen."""
    _kept_database_url.set(url if has_password(url) else None)
    return None if has_password(url) else url


def resolve_locations(data_root: str | None, database_url: str | None) -> Locations:
    """The locations of a run: parameters, else environment variables, else defaults.

    Raises:
        RequestError: the data root can't be opened, or the database URL is a secret.
    """
    root_url = data_root or os.environ.get("RLHFBLENDER_DATA_ROOT") or DEFAULT_DATA_ROOT
    if database_url and has_password(database_url):
        raise RegistryNotUsableError(
            "A database URL with a password can't be a parameter: Prefect stores parameters and shows them. Set "
            "RLHFBLENDER_DATABASE_URL where the run is carried out, and change this password."
        )
    url = database_url or _kept_database_url.get() or os.environ.get("RLHFBLENDER_DATABASE_URL")
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rlhfblender"
    located = locate(root_url, url, storage_options(), state_folder=state, cache=cache_folder())
    return replace(located, trusted_packages=trusted_packages())


def trusted_packages() -> frozenset[str]:
    """What ``RLHFBLENDER_TRUSTED_PACKAGES`` lists, by commas or spaces.

    Raises:
        InvalidParameterError: one of them is no name of a package.
    """
    names = os.environ.get("RLHFBLENDER_TRUSTED_PACKAGES", "").replace(",", " ").split()
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise InvalidParameterError(
                f"RLHFBLENDER_TRUSTED_PACKAGES lists packages by the names that Python imports, not {name!r}."
            )
    return frozenset(names)


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
