"""Whether a published file is what its manifest says: size, sha256, and that it reads as what it should be.

Memory doesn't grow with the episode: archives are read through, only headers and short columns are kept.
"""

import hashlib
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import ArtifactRecord, Manifest
from rlhfblender_core.dataset.video import count_frames
from rlhfblender_core.errors import DataNotUsableError, one_line
from rlhfblender_core.untrusted.archives import DAMAGED_ARCHIVE, RefusedArchiveError, open_archive
from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy, read_npy_header
from rlhfblender_core.untrusted.pictures import PNG, open_picture

#: Members of the ``.npz`` that don't have one row per step.
_WHOLE = ("final_obs", "episode_return", "episode_length", "seed")
_REQUIRED = ("actions", "rewards", "terminated", "truncated", "dones", "infos", "episode_return")


def find_fault(kind: ArtifactKind, file: Path, manifest: Manifest) -> str | None:
    """What is wrong with a file of an episode, as the end of a line that names it; None if nothing is.

    Args:
        kind: which of the episode's files.
        file: its content, on this machine.
        manifest: the episode's.

    Raises:
        FileNotFoundError: there is no such file.
    """
    wrong_bytes = _wrong_bytes(file, manifest.artifacts[kind])
    if wrong_bytes:
        return wrong_bytes
    try:
        return _CHECKS[kind](file, manifest)
    except FileNotFoundError:
        raise
    except (DataNotUsableError, RefusedArchiveError, DamagedArrayError, OSError, *DAMAGED_ARCHIVE) as error:
        return f"can't be read as {kind}: {one_line(error)}"


def _wrong_bytes(file: Path, record: ArtifactRecord) -> str | None:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if status.st_size != record.size:
        return f"has {status.st_size:,} bytes instead of {record.size:,}"
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != record.sha256:
        return f"has other content than was published (sha256 {digest[:12]}… instead of {record.sha256[:12]}…)"
    return None


def _check_episode(file: Path, manifest: Manifest) -> str | None:
    with open_archive(file) as archive:
        damaged = archive.testzip()
        if damaged:
            return f"its member {damaged} is damaged"
        shapes = {name.removesuffix(".npy"): _shape(archive, name) for name in archive.namelist()}
    missing = [name for name in _REQUIRED if name not in shapes]
    if missing:
        return f"lacks {', '.join(missing)}"
    steps = manifest.episode_length
    for name, shape in shapes.items():
        if name.partition(".")[0] not in _WHOLE and shape[:1] != (steps,):
            return f"{name} has shape {shape}, the episode has {steps} steps"
    return _check_scalars(file, manifest)


def _shape(archive: zipfile.ZipFile, member: str) -> tuple[int, ...]:
    with archive.open(member) as stream:
        header = read_npy_header(stream)
        behind = archive.getinfo(member).file_size - stream.tell()
    if header.dtype.hasobject:
        raise ValueError(f"{member} holds pickles")
    if behind != header.content_bytes:
        raise ValueError(f"{member} has {behind:,} bytes, its shape {header.shape} says {header.content_bytes:,}")
    return header.shape


def _check_scalars(file: Path, manifest: Manifest) -> str | None:
    expected = {
        "episode_return": manifest.episode_return,
        "episode_length": manifest.episode_length,
        "seed": manifest.seed,
    }
    with np.load(file, allow_pickle=False) as arrays:
        return next(
            (
                f"{name} is {arrays.get(name, 'missing')} instead of {value}"
                for name, value in expected.items()
                if value is not None  # an imported episode's seed isn't known
                and not _is_equal(arrays, name, value)
            ),
            None,
        )


def _check_rewards(file: Path, manifest: Manifest) -> str | None:
    rewards = _load_steps(file, manifest, np.float64)
    if isinstance(rewards, str):
        return rewards
    if not np.array_equal(rewards[-1], manifest.episode_return, equal_nan=True):
        return f"ends at {rewards[-1]}, the episode's return is {manifest.episode_return}"
    return None


def _check_uncertainty(file: Path, manifest: Manifest) -> str | None:
    uncertainty = _load_steps(file, manifest, np.float32)
    return uncertainty if isinstance(uncertainty, str) else None


def _load_steps(file: Path, manifest: Manifest, dtype: type[np.generic]) -> Any:
    """One number per step, or what is wrong with them."""
    column = parse_npy(file.read_bytes())
    if column.shape != (manifest.episode_length,) or column.dtype != dtype:
        return f"has shape {column.shape} and dtype {column.dtype}, the episode has {manifest.episode_length} steps"
    return column


def _check_video(file: Path, manifest: Manifest) -> str | None:
    frames = count_frames(file)
    if frames != manifest.episode_length:
        return f"decodes to {frames} frames, the episode has {manifest.episode_length} steps"
    return None


def _check_thumbnail(file: Path, manifest: Manifest) -> str | None:  # noqa: ARG001 (one signature for all kinds)
    with open_picture(file, file.name, PNG) as picture:
        picture.load()
    return None


_CHECKS: Mapping[ArtifactKind, Callable[[Path, Manifest], str | None]] = {
    ArtifactKind.EPISODES: _check_episode,
    ArtifactKind.REWARDS: _check_rewards,
    ArtifactKind.UNCERTAINTY: _check_uncertainty,
    ArtifactKind.RENDERS: _check_video,
    ArtifactKind.THUMBNAILS: _check_thumbnail,
}


def _is_equal(arrays: Mapping[str, Any], name: str, value: float) -> bool:
    return name in arrays and np.array_equal(arrays[name], value, equal_nan=True)
