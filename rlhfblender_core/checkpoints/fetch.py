"""Brings a checkpoint to this machine and checks all of it that can be checked without torch."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.contents import ModelContents, read_contents
from rlhfblender_core.checkpoints.download import fetched, sha256_of
from rlhfblender_core.checkpoints.find import CheckpointFile, Companions
from rlhfblender_core.checkpoints.listing import open_filesystem, storage_errors
from rlhfblender_core.checkpoints.origin import Origin, origin_of
from rlhfblender_core.checkpoints.resumed import MAX_RECORD_BYTES, Resumption, resumptions_before
from rlhfblender_core.checkpoints.settings import SettingsFile, agent_settings, trained_environment
from rlhfblender_core.checkpoints.statistics import NO_STATISTICS, statistics_url
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.limits import MAX_ARCHIVE_BYTES, MAX_PICKLE_BYTES, MAX_YAML_BYTES
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
        origin: the environment that it was trained in, as far as its files and their places say.
        notes: what a person should know about how it was found.
        resumed_at: where its training went on after an interruption, as far as is recorded.
    """

    label: str
    step: int | None
    url: str
    path: str
    sha256: str
    algorithm: str
    settings: AgentSettings = field(default_factory=AgentSettings)
    vecnormalize: StatisticsRef | None = None
    origin: Origin = field(default_factory=Origin)
    notes: tuple[str, ...] = ()
    resumed_at: tuple[Resumption, ...] = ()


def fetch_checkpoint(  # noqa: PLR0913 (each says one thing about the file)
    file: CheckpointFile,
    cache: Path,
    storage_options: Mapping[str, Any] | None = None,
    *,
    algorithm: str | None = None,
    overrides: AgentSettings | None = None,
    trust: bool = False,
    statistics: str | None = None,
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
        statistics: the file of observation statistics that the user names, with ``{step}`` for each checkpoint's own.

    Raises:
        CheckpointNotUsableError: missing, damaged, of no known algorithm, or refused; the message says which file.
        StorageNotUsableError, StorageUnavailableError: its storage can't be used or doesn't answer.
    """
    path, digest = fetched(file.url, cache, storage_options, MAX_ARCHIVE_BYTES)
    settings, hint, origin = _settings(file, storage_options)
    if overrides is not None:
        settings = settings.overridden_by(overrides)
    contents = read_contents(path, algorithm=algorithm, fallback=hint, trust=trust)
    vecnormalize, notes = _statistics(file, settings, contents, statistics, cache, storage_options, trust=trust)
    return CheckpointRef(
        label=file.label,
        step=file.step,
        url=file.url,
        path=str(path),
        sha256=digest,
        algorithm=str(contents.algorithm),
        settings=settings,
        vecnormalize=vecnormalize,
        origin=origin,
        notes=notes,
        resumed_at=_resumed_at(file, storage_options),
    )


def _resumed_at(file: CheckpointFile, storage_options: Mapping[str, Any] | None) -> tuple[Resumption, ...]:
    record = _text(file.companions.training, storage_options, MAX_RECORD_BYTES)
    return () if record is None else resumptions_before(file.step, record.content)


def _settings(
    file: CheckpointFile, storage_options: Mapping[str, Any] | None
) -> tuple[AgentSettings, str | None, Origin]:
    parts = file.companions
    config, args, env_kwargs = (_text(url, storage_options) for url in (parts.config, parts.args, parts.env_kwargs))
    settings, algorithm = agent_settings(config, args, env_kwargs)
    origin = origin_of(trained_environment(args), (file.url, parts.config, parts.args))
    if not settings.wrappers and any(_NO_VELOCITY.fullmatch(env_id) for env_id in origin.ids):
        # RL Zoo registers CartPoleNoVel-v1 and the like as the environment with its velocities masked.
        settings = dataclasses.replace(settings, wrappers=(WrapperSpec("rl_zoo3.wrappers.MaskVelocityWrapper"),))
    return settings, algorithm, origin


def _text(
    url: str | None, storage_options: Mapping[str, Any] | None, most: int = MAX_YAML_BYTES
) -> SettingsFile | None:
    if url is None:
        return None
    with storage_errors(url):
        filesystem, inner = open_filesystem(url, storage_options)
        with filesystem.open(inner, "rb") as stream:
            return SettingsFile(url, stream.read(most + 1))


def _statistics(  # noqa: PLR0913 (each says one thing about the file)
    file: CheckpointFile,
    settings: AgentSettings,
    contents: ModelContents,
    chosen: str | None,
    cache: Path,
    storage_options: Mapping[str, Any] | None,
    *,
    trust: bool,
) -> tuple[StatisticsRef | None, tuple[str, ...]]:
    if chosen == NO_STATISTICS or (settings.norm_obs is False and chosen is None):
        return None, ()
    is_needed = contents.normalised if settings.norm_obs is None else settings.norm_obs
    url, note = statistics_url(
        file, chosen, storage_options, steps=contents.num_timesteps, looks_beside=is_needed is not False
    )
    if url is None:
        if settings.norm_obs:
            raise CheckpointNotUsableError(
                f"Checkpoint {file.url!r} was trained on normalised observations, but its vecnormalize.pkl is missing. "
                "Put it beside the model, in the folder of its config.yml, or name it with --vecnormalize FILE."
            )
        if is_needed:
            raise CheckpointNotUsableError(
                f"Checkpoint {file.url!r} was trained in a VecNormalize, whose file is missing. Put it beside the "
                "model, or name it with --vecnormalize FILE; if only rewards were normalised, give "
                f"--vecnormalize {NO_STATISTICS}."
            )
        return None, ()
    notes = [note] if note else []
    if is_needed is False and chosen is None:
        notes.append(
            f"Checkpoint {file.label} was trained without VecNormalize, by its own file, and sees observations "
            f"normalised by {url.rpartition('/')[2]!r}: --vecnormalize {NO_STATISTICS} leaves them as they are"
        )
    path, digest = fetched(url, cache, storage_options, MAX_PICKLE_BYTES)
    if not trust:
        read_statistics(path)
    return StatisticsRef(str(path), digest), tuple(notes)


__all__ = ["CheckpointRef", "Companions", "StatisticsRef", "fetch_checkpoint", "sha256_of"]
