"""The data root: one fsspec file system and the folder in it below which everything lies."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.registry import known_implementations
from fsspec.utils import get_protocol, stringify_path

from rlhfblender_core.credentials import has_credentials, without_credentials
from rlhfblender_core.errors import StorageNotUsableError, one_line

_LOCAL_PROTOCOLS = ("file", "local")
#: Their URLs name a server, and they have folders that must be made: neither is what is written here.
_SERVERS = ("sftp", "ssh", "ftp", "smb")
#: Which extra of this project brings a protocol.
_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "hf": "hf"
}  # fmt: skip
#: Tries of botocore for one request, times those of s3fs for reading an answer's body. With the defaults of both a
#: server that only says 503 gets 25 requests in 39 s; with these 8 in 4 s, and the tasks' own retries follow.
_S3_ATTEMPTS, _S3FS_ATTEMPTS = 4, 2
_S3_CONFIG = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "retries": {"mode": "standard", "total_max_attempts": _S3_ATTEMPTS},
}


def storage_options_for(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What fsspec is given: the user's options, above defaults that this project needs."""
    given = dict(options)
    if _EXTRAS.get(protocol) == "s3":
        given["config_kwargs"] = {**_S3_CONFIG, **given.get("config_kwargs", {})}
        # Files are read and written side by side already. For the parts of each file s3fs asks for its size first.
        given.setdefault("max_concurrency", 1)
    # Listings of other runs' files must not come from a cache.
    return {"use_listings_cache": False, **given}


def open_file_system(protocol: str, options: Mapping[str, Any]) -> Any:
    """The file system of a protocol.

    Raises:
        ImportError: its package is missing; see :func:`install_hint`.
        ValueError, TypeError: there is no such protocol, or it can't do with these options.
    """
    fs = fsspec.filesystem(protocol, **storage_options_for(protocol, options))
    if _EXTRAS.get(protocol) == "s3":
        fs.retries = _S3FS_ATTEMPTS
    return fs


def install_hint(protocol: str, error: ImportError) -> str:
    """What to do about a protocol whose package is missing."""
    extra = _EXTRAS.get(protocol)
    return f"Install it: pip install 'rlhfblender-data[{extra}]'." if extra else f"({error})"


@dataclass(frozen=True)
class DataRoot:
    """A folder on any fsspec file system.

    Args:
        url: ``data``, ``/mnt/share/data``, ``s3://bucket/prefix`` …
        options: for fsspec (keys, endpoints); kept out of messages and ``repr``.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property  # these three are asked for with every file
    def protocol(self) -> str:
        """What the URL begins with: ``s3``, ``gs``, ``az`` …; ``file`` for a plain folder."""
        return str(get_protocol(self.url))

    @cached_property
    def is_local(self) -> bool:
        """Whether files can be moved into it by renaming."""
        return self.protocol in _LOCAL_PROTOCOLS

    @cached_property
    def local_folder(self) -> Path:
        """The absolute folder of a local root."""
        if not self.is_local:
            raise ValueError(f"{self.url} is not a local folder")
        return Path(str(fsspec.core.strip_protocol(self.url))).absolute()

    @cached_property
    def fs(self) -> Any:
        """The file system.

        Raises:
            StorageNotUsableError: no such protocol, or its package is missing.
        """
        try:
            return open_file_system(self.protocol, self.options)
        except ImportError as error:
            raise StorageNotUsableError(
                f"The data root {self.url} needs a package that is missing. {install_hint(self.protocol, error)}"
            ) from error
        except (ValueError, TypeError, OSError) as error:  # OSError: zip:// and the like of nothing
            if self.protocol in known_implementations:
                raise StorageNotUsableError(
                    f"The data root {self.url} can't be opened: {one_line(error).rstrip('.')}. Check "
                    "RLHFBLENDER_STORAGE_OPTIONS and the storage's own environment variables."
                ) from error
            raise StorageNotUsableError(
                f"The data root {self.url} has the unknown protocol {self.protocol!r}. Use a folder, s3://, gs:// or "
                "az://."
            ) from error

    @cached_property
    def _prefix(self) -> str:
        if self.is_local:
            return str(self.local_folder)
        return str(self.fs._strip_protocol(stringify_path(self.url))).rstrip("/")  # noqa: SLF001 (fsspec's own name for it)

    def __getstate__(self) -> dict[str, Any]:
        """Without open connections: workers open their own."""
        return {"url": self.url, "options": dict(self.options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def full_path(self, path: str) -> str:
        """The file system's own path for one below the root."""
        return f"{self._prefix}/{path}"

    def display_url(self, path: str = "") -> str:
        """The path as a person would use it; the root itself without one."""
        shown = self._prefix if self.is_local else without_credentials(self.url).rstrip("/")
        return f"{shown}/{path}" if path else shown


def open_data_root(url: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> DataRoot:
    """The data root of a URL, its protocol checked; nothing is written or read yet.

    Raises:
        StorageNotUsableError: the URL has no known or a server's protocol, holds a password or a token, or its package
            is missing.
    """
    url = os.fspath(url)
    if not url.strip():
        raise StorageNotUsableError("The data root is empty. Give a folder or a URL like s3://bucket/prefix.")
    if has_credentials(url):
        raise StorageNotUsableError(
            "The data root's URL holds a password or a token, which would be recorded and shown. Put it into "
            "RLHFBLENDER_STORAGE_OPTIONS."
        )
    root = DataRoot(url, dict(options or {}))
    if root.protocol in _SERVERS:
        raise StorageNotUsableError(
            f"A data root on {root.protocol}:// isn't supported. Mount it (sshfs, rclone) and give the folder, or use "
            "s3://, gs:// or az://."
        )
    _ = root.fs
    return root
