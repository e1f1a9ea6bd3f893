"""What decides the bytes of an episode besides its number, and the digest over it."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

from rlhfblender_core.checkpoints.fetch import CheckpointRef
from rlhfblender_core.checkpoints.find import CheckpointFile
from rlhfblender_core.dataset.layout import RANDOM
from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.environments import EnvironmentSpec

#: Part of every digest; raised when the same request would give other files than before.
_RECIPE = 1


@dataclass(frozen=True)
class TrainedAgent:
    """A checkpoint that acts.

    Attributes:
        file: where it was found.
        ref: what is in it, fetched and checked.
        trust: whether it may run code of its own.
    """

    file: CheckpointFile
    ref: CheckpointRef
    trust: bool = False


@dataclass(frozen=True)
class RolloutSettings:
    """Everything that is the same for all episodes of one checkpoint.

    Attributes:
        environment: as registered, with what the agent was trained with.
        agent: the checkpoint; None for random actions.
        run_seed: from which episodes' seeds derive.
        deterministic: the distribution's mode instead of samples.
        max_steps: where episodes are cut off; None for the environment's own limits only.
        render: whether there are videos and thumbnails.
        fps: frames per second of the videos.
        action_names: labels for the manifests; they don't change the episode.
        packages: distributions that the environment comes from; their versions go into the manifests.
    """

    environment: EnvironmentSpec
    agent: TrainedAgent | None
    run_seed: int
    deterministic: bool
    max_steps: int | None
    render: bool
    fps: float
    action_names: tuple[str, ...] | None = None
    packages: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The checkpoint's label: the folder its episodes go to."""
        return self.agent.ref.label if self.agent else RANDOM

    @property
    def step(self) -> int | None:
        """Training steps of the checkpoint, where known."""
        return self.agent.ref.step if self.agent else None

    @cached_property
    def digest(self) -> str:
        """Sha256 over what decides the episodes' bytes: contents, not places; no versions of libraries."""
        return canonical_digest({"recipe": _RECIPE, **self.identity()})

    def identity(self) -> dict[str, Any]:
        """What enters the digest, by name, as JSON."""
        return {
            "environment": self.environment.to_json(),
            "agent": _agent_identity(self.agent),
            "seed": self.run_seed,
            "deterministic": self.deterministic,
            "max_steps": self.max_steps,
            "render": self.render,
            "fps": self.fps if self.render else None,
        }


def _agent_identity(agent: TrainedAgent | None) -> dict[str, Any] | None:
    if agent is None:
        return None
    ref = agent.ref
    return {
        "sha256": ref.sha256,
        "algorithm": ref.algorithm,
        "vecnormalize_sha256": ref.vecnormalize.sha256 if ref.vecnormalize else None,
        "settings": asdict(ref.settings),
    }


def versions_of(distributions: Iterable[str]) -> dict[str, str]:
    """Installed versions by distribution name; those that aren't installed are left out."""
    versions = {name: _version(name) for name in sorted(set(distributions))}
    return {name: version for name, version in versions.items() if version is not None}


@cache  # read from a file each time: half the cost of a short episode without a video
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
