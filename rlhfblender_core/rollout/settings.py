"""What decides the bytes of an episode besides its number, and the digest over it."""

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RolloutAgent
from rlhfblender_core.rollout.options import RolloutOptions

#: Part of every digest; raised when the same request would give other files than before.
_RECIPE = 4


@dataclass(frozen=True)
class RolloutSettings:
    """Everything that is the same for all episodes of one checkpoint.

    Attributes:
        environment: as registered, with what the agent was trained with.
        agent: who acts.
        options: with the video's frames per second filled in, and nothing that means nothing for this agent.
        action_names: labels for the manifests; they don't change the episode.
        packages: distributions that the environment comes from; their versions go into the manifests.
        reproducible: whether its seed decides what the environment does, as :func:`check_agent` found it; None before.
    """

    environment: EnvironmentSpec
    agent: RolloutAgent
    options: RolloutOptions
    action_names: tuple[str, ...] | None = None
    packages: tuple[str, ...] = ()
    reproducible: bool | None = None

    @property
    def label(self) -> str:
        """The checkpoint's label: the folder its episodes go to."""
        return self.agent.label

    @cached_property
    def digest(self) -> str:
        """Sha256 over what decides the episodes' bytes: contents, not places; no versions of libraries."""
        return canonical_digest({"recipe": _RECIPE, **self.identity()})

    @cached_property
    def older_digests(self) -> frozenset[str]:
        """The digests that older versions of this project gave the same request.

        Recipe 1 differs where an environment keeps state across resets, 2 in the encoder's settings, 3 where an agent
        of Atari games loses a life, or one's own changes what it observes; what they made stays, and is continued.
        """
        return frozenset(canonical_digest({"recipe": recipe, **self.identity()}) for recipe in range(1, _RECIPE))

    def made(self, digest: str) -> bool:
        """Whether the digest is that of the same request, by this version of the project or an older one."""
        return digest == self.digest or digest in self.older_digests

    def identity(self) -> dict[str, Any]:
        """What enters the digest, by name, as JSON."""
        return {
            "environment": self.environment.to_json(),
            "agent": self.agent.identity(),
            **self.options.identity(),
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
