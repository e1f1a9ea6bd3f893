"""Brings a checkpoint to this machine and checks all of it that can be checked without torch."""

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.contents import read_contents
from rlhfblender_core.checkpoints.find import CheckpointFile, Companions
from rlhfblender_core.checkpoints.listing import is_local, open_filesystem, storage_errors
from rlhfblender_core.checkpoints.settings import SettingsFile, agent_settings
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.limits import MAX_ARCHIVE_BYTES, MAX_PICKLE_BYTES, MAX_YAML_BYTES
from rlhfblender_core.untrusted.model_zip import refusal
from rlhfblender_core.untrusted.vecnormalize import read_statistics
from rlhfblender_core.wrappers.specs import AgentSettings, WrapperSpec

_NO_VELOCITY = re.compile(r".*NoVel-v\d+")


@dataclass(frozen=True, slots=True)
class StatisticsRef:
    """A VecNormalize file on this machine: where it is, and the sha256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A checked checkpoint on this machine: small, picklable, and plain enough for JSON.

    Attributes:
        label: names its folders in the data set.
        step: training steps, None where unknown.
        url: where it came from.
        path: of the zip on this machine.
        sha256: of the zip's bytes, in hexadecimal.
        algorithm: name of Stable-Baselines3's class: ``PPO``, ``QRDQN``, ``RecurrentPPO``, …
        settings: what has to be around the environment.
        vecnormalize: observation statistics, None where observations weren't normalised.
    """

    label: str
    step: int | None
    url: str
    path: str
    sha256: str
    algorithm: str
    settings: AgentSettings = field(default_factory=AgentSettings)
    vecnormalize: StatisticsRef | None = None


def fetch_checkpoint(
    file: CheckpointFile,
    cache: Path,
    storage_options: Mapping[str, Any] | None = None,
    *,
    algorithm: str | None = None,
    overrides: AgentSettings | None = None,
    trust: bool = False,
) -> CheckpointRef:
    """A checkpoint that is ready for :func:`~rlhfblender_core.checkpoints.load.load_agent`.

    Local files are used where they are. Remote ones are downloaded once, under a name that holds their sha256.

    Args:
        file: from :func:`~rlhfblender_core.checkpoints.find.find_checkpoints`.
        cache: folder for downloads; made if needed.
        storage_options: for fsspec.
        algorithm: for a model that doesn't say its own.
        overrides: settings that the user gave instead of the agent's own.
        trust: accept contents that can only be read by running them.

    Raises:
        CheckpointNotUsableError: missing, damaged, of no known algorithm, or refused; the message says which file.
        StorageNotUsableError, StorageUnavailableError: its storage can't be used or doesn't answer.
    """
    path, digest = _fetched(file.url, cache, storage_options, MAX_ARCHIVE_BYTES)
    settings, hint = _settings(file, storage_options)
    if overrides is not None:
        settings = settings.overridden_by(overrides)
    contents = read_contents(path, algorithm=algorithm, fallback=hint, trust=trust)
    statistics = _statistics(file, settings, cache, storage_options, trust=trust)
    return CheckpointRef(
        label=file.label,
        step=file.step,
        url=file.url,
        path=str(path),
        sha256=digest,
        algorithm=str(contents.algorithm),
        settings=settings,
        vecnormalize=statistics,
    )


def _settings(file: CheckpointFile, storage_options: Mapping[str, Any] | None) -> tuple[AgentSettings, str | None]:
    parts = file.companions
    texts = [_text(url, storage_options) for url in (parts.config, parts.args, parts.env_kwargs)]
    settings, algorithm = agent_settings(*texts)
    if not settings.wrappers and _NO_VELOCITY.fullmatch(Path(file.url).stem):
        # RL Zoo registers CartPoleNoVel-v1 and the like as the environment with its velocities masked.
        settings = dataclasses.replace(settings, wrappers=(WrapperSpec("rl_zoo3.wrappers.MaskVelocityWrapper"),))
    return settings, algorithm


def _text(url: str | None, storage_options: Mapping[str, Any] | None) -> SettingsFile | None:
    if url is None:
        return None
    with storage_errors(url):
        filesystem, inner = open_filesystem(url, storage_options)
        with filesystem.open(inner, "rb") as stream:
            return SettingsFile(url, stream.read(MAX_YAML_BYTES + 1))


def _statistics(
    file: CheckpointFile,
    settings: AgentSettings,
    cache: Path,
    storage_options: Mapping[str, Any] | None,
    *,
    trust: bool,
) -> StatisticsRef | None:
    url = file.companions.vecnormalize
    if settings.norm_obs is False:
        return None
    if url is None:
        if settings.norm_obs:
            raise CheckpointNotUsableError(
                f"Checkpoint {file.url!r} was trained on normalised observations, but its vecnormalize.pkl is missing. "
                "Put it beside the model, in the folder of its config.yml."
            )
        return None
    path, digest = _fetched(url, cache, storage_options, MAX_PICKLE_BYTES)
    if not trust:
        read_statistics(path)
    return StatisticsRef(str(path), digest)


def _fetched(url: str, cache: Path, storage_options: Mapping[str, Any] | None, limit: int) -> tuple[Path, str]:
    """The file on this machine and its sha256; a local file itself, a remote one from the cache."""
    with storage_errors(url):
        filesystem, inner = open_filesystem(url, storage_options)
        size = filesystem.info(inner).get("size")
        if isinstance(size, int) and size > limit:
            raise refusal(url, f"has {size:,} bytes, {limit:,} are allowed")
        if is_local(url):
            path = Path(inner)
            return path, sha256_of(path)
        # What a storage gives as identity of the content: ETag, generation, modification time.
        identity = hashlib.sha256(f"{url}\n{filesystem.ukey(inner)}".encode()).hexdigest()
        return _cached(cache, identity, url) or _downloaded(filesystem, inner, cache, identity)


def _cached(cache: Path, identity: str, url: str) -> tuple[Path, str] | None:
    """The file as it was downloaded before, if its bytes are still the same."""
    try:
        digest = json.loads((cache / f"{identity}.json").read_text())["sha256"]
        path = cache / f"{digest}{Path(url).suffix}"
        return (path, digest) if sha256_of(path) == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _downloaded(filesystem: Any, inner: str, cache: Path, identity: str) -> tuple[Path, str]:
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as folder:
        part = Path(folder) / "part"
        filesystem.get_file(inner, str(part))
        digest = sha256_of(part)
        path = cache / f"{digest}{Path(inner).suffix}"
        # Several processes may fetch the same file: each move puts the same bytes in place at once.
        os.replace(part, path)  # noqa: PTH105 - atomic by name
        note = Path(folder) / "note"
        note.write_text(json.dumps({"sha256": digest}))
        os.replace(note, cache / f"{identity}.json")  # noqa: PTH105
    return path, digest


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


__all__ = ["CheckpointRef", "Companions", "StatisticsRef", "fetch_checkpoint", "sha256_of"]
