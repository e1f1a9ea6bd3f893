"""Manifests: the commit record of an episode. An episode exists if and only if its manifest does.

A manifest holds no times and no places of this machine, so that the same request gives the same bytes. It ends with a
digest over itself: a flipped bit in it is told from one in a file that it describes.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.errors import DataNotUsableError, InvalidNameError
from rlhfblender_core.untrusted.json_values import parse_json
from rlhfblender_core.untrusted.limits import MAX_MANIFEST_BYTES, MAX_SIDE

#: Raised when a reader of older manifests would misread a newer one.
FORMAT_VERSION = 1
#: Key of the digest over everything else in a manifest.
_OWN_DIGEST = "sha256"


#: What databases can hold, and arrays have of rows: a manifest may be anybody's.
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Length = Annotated[int, Field(ge=0, lt=MAX_SIDE)]
#: Longest side of a frame that H.264 can hold.
_Side = Annotated[int, Field(ge=1, le=16384)]


class _Model(BaseModel):
    # allow_inf_nan, as JSON text keeps them: a return may be infinite
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class ArtifactRecord(_Model):
    """One published file: its path below the data root, size in bytes and sha256 in hex."""

    path: str
    size: _Count
    sha256: str


class ResumedTraining(_Model):
    """Where the training of the policy that acted went on after an interruption.

    Attributes:
        step: of the checkpoint that it went on from.
        not_bit_equal: what isn't as it would have been without the interruption.
    """

    step: int
    not_bit_equal: tuple[str, ...] = ()


class PolicyRecord(_Model):
    """Who acted.

    Attributes:
        kind: ``random``, ``checkpoint``, or ``imported`` (made elsewhere; who acted is known only as far as it says).
        algorithm: as the checkpoint says, e.g. ``PPO``; None for random.
        checkpoint_sha256: of the checkpoint's zip.
        vecnormalize_sha256: of the normalisation statistics applied, if any.
        deterministic: whether actions were the distribution's mode rather than samples.
        observation: what the policy saw, step by step from the recorded ``obs``, in words.
        wrappers: names of the wrappers around the environment, innermost first.
        wrapper_kwargs: keyword arguments of each, as the agent's settings name them; left out of the file where there
            are no wrappers, as in manifests of before they were recorded.
        action_mask_method: what was asked for the allowed actions, where it was named (``none``: nothing); left out of
            the file otherwise, as in manifests of before it could be named.
        resumed_at: where its training went on after an interruption; left out of the file where nothing says so.
    """

    kind: str
    algorithm: str | None = None
    checkpoint_sha256: str | None = None
    vecnormalize_sha256: str | None = None
    deterministic: bool = False
    observation: str = "obs"
    wrappers: tuple[str, ...] = ()
    wrapper_kwargs: tuple[dict[str, Any], ...] | None = Field(default=None, exclude_if=lambda kwargs: kwargs is None)
    action_mask_method: str | None = Field(default=None, exclude_if=lambda method: method is None)
    resumed_at: tuple[ResumedTraining, ...] = Field(default=(), exclude_if=lambda resumed: not resumed)


class EnvironmentRecordInManifest(_Model):
    """The environment as it was made."""

    id: str
    entry_point: str | None = None
    additional_packages: tuple[str, ...] = ()
    kwargs: dict[str, Any] = {}
    spec_kwargs: dict[str, Any] = {}


class Manifest(_Model):
    """Everything known about one episode.

    Attributes:
        request_digest: sha256 over everything that decides the episode's bytes but its number.
        run_seed: the run's ``--seed``; None where it isn't known (imported episodes).
        seed: what ``env.reset(seed=…)`` got; None where it isn't known.
        episode_return: undiscounted sum of rewards.
        episode_length: number of steps T.
        frames: frames in the video; equal to T, or 0 without rendering.
        uncertainty_kind: what ``uncertainty`` measures; ``none`` where the algorithm has no such notion.
        action_names: labels of the actions, where registered.
        versions: of what took part, by distribution name.
        reproducible: whether the environment gave the same twice from one seed when it was tried out; None where
            that isn't known (imported episodes, and those made before it was asked).
        options: of the rollout, by name, as far as nothing else here says them and they were asked for. What wasn't is
            left out of the file, as in manifests of before it could be: an old manifest has its old bytes.
        warnings: what a person should know, e.g. a video that is black throughout.
        artifacts: the published files by kind.
    """

    format_version: int = FORMAT_VERSION
    experiment: str
    checkpoint: str
    step: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    episode: int
    environment: EnvironmentRecordInManifest
    policy: PolicyRecord
    request_digest: str
    run_seed: int | None
    seed: _Count | None
    max_steps: int | None
    episode_return: float
    episode_length: _Length
    terminated: bool
    truncated: bool
    frames: _Length
    fps: float | None
    frame_height: _Side | None
    frame_width: _Side | None
    uncertainty_kind: str
    action_names: tuple[str, ...] | None = None
    versions: dict[str, str]
    reproducible: bool | None = Field(default=None, exclude_if=lambda known: known is None)
    options: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda options: not options)
    warnings: tuple[str, ...] = ()
    artifacts: dict[ArtifactKind, ArtifactRecord]

    @cached_property  # asked for when it is published, and when it is indexed
    def content(self) -> bytes:
        """The manifest's own file: canonical JSON with a digest over itself, the same bytes for the same content."""
        fields = self.model_dump(mode="json")
        return _canonical_bytes({**fields, _OWN_DIGEST: canonical_digest(fields)})

    @property
    def names_its_own_files(self) -> bool:
        """Whether the paths are those where the layout has the episode's files: no others are read on its word.

        Raises:
            InvalidNameError: no episode can be called so.
        """
        key = EpisodeKey(self.experiment, self.checkpoint, self.episode)
        return all(record.path == artifact_path(kind, key) for kind, record in self.artifacts.items())

    @cached_property
    def sha256(self) -> str:
        """Sha256 in hex of the manifest's own file."""
        return hashlib.sha256(self.content).hexdigest()


def parse_manifest(content: bytes, path: str) -> Manifest:
    """The manifest that the bytes hold.

    Raises:
        DataNotUsableError: they are no manifest, a damaged one, or one of a newer format.
    """
    try:
        found = parse_json(content, MAX_MANIFEST_BYTES)
        version = found["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataNotUsableError(
                f"The manifest {path} has format {str(version)[:9]}, newer than {FORMAT_VERSION}. Update this project."
            )
        is_whole = content == _canonical_bytes(found) and found.pop(_OWN_DIGEST) == canonical_digest(found)
        manifest = Manifest.model_validate(found)
        is_whole = is_whole and manifest.names_its_own_files
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError, InvalidNameError) as error:
        raise DataNotUsableError(f"{path} is not a manifest. Run `python flows/verify.py --repair`.") from error
    if not is_whole:
        raise DataNotUsableError(f"The manifest {path} is damaged. Run `python flows/verify.py --repair`.")
    manifest.__dict__["content"] = content  # making the same text again is half of what a quick check takes
    return manifest


def _canonical_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def canonical_digest(content: Any) -> str:
    """Sha256 in hex over JSON with sorted keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Sha256 of a local file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def mean_and_std(returns: Iterable[float]) -> tuple[float, float]:
    """Mean and population standard deviation; NaN for none."""
    import numpy as np

    values = np.fromiter(returns, float)
    if values.size == 0:
        return float("nan"), float("nan")
    with np.errstate(invalid="ignore"):  # of infinite returns the deviation is NaN
        return float(values.mean()), float(values.std())
