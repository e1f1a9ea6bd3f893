"""Who acts: each kind of agent knows its label, its part of the digest, what a manifest says of it, and its policy.

A further kind of agent is one more class here and one more way to ask for it
(:mod:`rlhfblender_core.planning.plan`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import gymnasium as gym

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.checkpoints.fetch import CheckpointRef
from rlhfblender_core.checkpoints.find import CheckpointFile
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.dataset.layout import RANDOM
from rlhfblender_core.dataset.manifests import PolicyRecord, ResumedTraining
from rlhfblender_core.environments.make import RENDER_MODE_KWARG
from rlhfblender_core.errors import EnvironmentNotUsableError
from rlhfblender_core.policies.masked_random import MaskedRandomPolicy
from rlhfblender_core.policies.protocol import Policy
from rlhfblender_core.policies.random_policy import RandomPolicy
from rlhfblender_core.rollout.episode import RawRecorder, Stage
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.wrappers import action_mask_source
from rlhfblender_core.wrappers.atari import life_source
from rlhfblender_core.wrappers.masks import NO_MASK, ActionMasks, mask_advice


class RolloutAgent(Protocol):
    """An agent as a request names it: small and picklable; its policy is made where it acts."""

    @property
    def label(self) -> str:
        """Of its checkpoint: the folder its episodes go to."""

    @property
    def step(self) -> int | None:
        """Training steps, where known."""

    @property
    def sha256(self) -> str | None:
        """Of the file that it is, None for none."""

    @property
    def algorithm(self) -> str | None:
        """That trained it, None for none."""

    @property
    def is_trained(self) -> bool:
        """Whether it needs torch, and a distribution's mode means something."""

    @property
    def takes_masks(self) -> bool:
        """Whether it can choose among allowed actions."""

    @property
    def advice(self) -> str:
        """What to do where it raises as it acts: a sentence."""

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments of the environment that it was trained with."""

    @property
    def distributions(self) -> tuple[str, ...]:
        """Python packages whose versions belong into the manifests."""

    def identity(self) -> dict[str, Any] | None:
        """What enters the digest, as JSON."""

    def policy_record(self, options: RolloutOptions) -> PolicyRecord:
        """What the manifest says of it."""

    def wrap(self, recorder: RawRecorder) -> gym.Env[Any, Any]:
        """What it acts in: the environment, in the wrappers that it was trained with.

        Raises:
            RequestError: they don't go together.
        """

    def action_masks(self, env: gym.Env[Any, Any], options: RolloutOptions) -> ActionMasks | None:
        """What it is told of allowed actions in what it acts in; None for nothing.

        Raises:
            EnvironmentNotUsableError: the environment doesn't say which are, as it was asked to or has to.
        """

    def make_policy(self, stage: Stage, options: RolloutOptions) -> Policy:
        """Its policy, for all episodes on that stage.

        Raises:
            RequestError: it can't be used, or doesn't fit the environment.
        """

    def __str__(self) -> str:
        """A line for a log."""


@dataclass(frozen=True)
class RandomAgent:
    """Uniformly random actions. Never imports torch."""

    label = RANDOM
    step = None
    sha256 = None
    algorithm = None
    is_trained = False
    takes_masks = True
    advice = "Check the environment's action space."
    distributions: tuple[str, ...] = ()

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """See :class:`RolloutAgent`."""
        return {}

    def identity(self) -> None:
        """See :class:`RolloutAgent`."""
        return

    def policy_record(self, options: RolloutOptions) -> PolicyRecord:
        """See :class:`RolloutAgent`."""
        return PolicyRecord(kind="random", action_mask_method=options.action_mask_method)

    def wrap(self, recorder: RawRecorder) -> gym.Env[Any, Any]:
        """See :class:`RolloutAgent`."""
        return recorder

    def action_masks(self, env: gym.Env[Any, Any], options: RolloutOptions) -> ActionMasks | None:
        """See :class:`RolloutAgent`."""
        return action_mask_source(env, options.action_mask_method)

    def make_policy(self, stage: Stage, options: RolloutOptions) -> Policy:
        """See :class:`RolloutAgent`."""
        masks = self.action_masks(stage, options)
        space = stage.action_space
        return RandomPolicy(space) if masks is None else MaskedRandomPolicy(space, masks)

    def __str__(self) -> str:
        return "random actions"


@dataclass(frozen=True)
class CheckpointAgent:
    """A checkpoint that acts.

    Attributes:
        file: where it was found.
        ref: what is in it, fetched and checked.
        trust: whether it may run code of its own.
    """

    file: CheckpointFile
    ref: CheckpointRef
    trust: bool = False

    is_trained = True
    advice = "Check that it was trained on this environment."
    distributions = ("stable-baselines3", "sb3-contrib", "torch")

    @property
    def label(self) -> str:
        """See :class:`RolloutAgent`."""
        return self.ref.label

    @property
    def step(self) -> int | None:
        """See :class:`RolloutAgent`."""
        return self.ref.step

    @property
    def sha256(self) -> str:
        """See :class:`RolloutAgent`."""
        return self.ref.sha256

    @property
    def algorithm(self) -> str:
        """See :class:`RolloutAgent`."""
        return self.ref.algorithm

    @property
    def takes_masks(self) -> bool:
        """See :class:`RolloutAgent`."""
        return self.ref.algorithm == Algorithm.MASKABLE_PPO

    @property
    def env_kwargs(self) -> Mapping[str, Any]:
        """See :class:`RolloutAgent`."""
        return {name: value for name, value in self.ref.settings.env_kwargs.items() if name != RENDER_MODE_KWARG}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out of what it was trained with, and why."""
        if RENDER_MODE_KWARG not in self.ref.settings.env_kwargs:
            return ()
        return ("The agent's settings name a render_mode, which is ignored: it follows from --no-render.",)

    def identity(self) -> dict[str, Any]:
        """See :class:`RolloutAgent`."""
        statistics = self.ref.vecnormalize
        return {
            "sha256": self.ref.sha256,
            "algorithm": self.ref.algorithm,
            "vecnormalize_sha256": statistics.sha256 if statistics else None,
            "settings": asdict(self.ref.settings),
        }

    def policy_record(self, options: RolloutOptions) -> PolicyRecord:
        """See :class:`RolloutAgent`."""
        statistics, wrappers = self.ref.vecnormalize, self.ref.settings.wrappers
        return PolicyRecord(
            kind="checkpoint",
            algorithm=self.ref.algorithm,
            checkpoint_sha256=self.ref.sha256,
            vecnormalize_sha256=statistics.sha256 if statistics else None,
            deterministic=options.deterministic,
            observation=self._observation(),
            wrappers=tuple(wrapper.name for wrapper in wrappers),
            wrapper_kwargs=tuple(wrapper.kwargs for wrapper in wrappers) or None,
            action_mask_method=options.action_mask_method,
            resumed_at=tuple(
                ResumedTraining(step=each.step, not_bit_equal=each.not_bit_equal) for each in self.ref.resumed_at
            ),
        )

    def _observation(self) -> str:
        """What the policy sees, step by step: ``obs > AtariWrapper > 4 stacked``."""
        steps = ["obs", *(wrapper.name.rpartition(".")[2] for wrapper in self.ref.settings.wrappers)]
        if self.ref.vecnormalize:
            steps.append("normalised")
        if self.ref.settings.frame_stack:
            steps.append(f"{self.ref.settings.frame_stack} stacked")
        return " > ".join(steps)

    def wrap(self, recorder: RawRecorder) -> gym.Env[Any, Any]:
        """See :class:`RolloutAgent`."""
        return recorder.wrapped_in(self.ref.settings.wrappers, trust=self.trust)

    def make_policy(self, stage: Stage, options: RolloutOptions) -> Policy:
        """See :class:`RolloutAgent`."""
        import torch

        from rlhfblender_core.checkpoints.load import load_agent
        from rlhfblender_core.policies.features import PolicyWithFeatures

        torch.set_num_threads(1)  # workers share the cores; small networks are no faster with several
        policy = load_agent(
            self.ref,
            stage.observation_space,
            stage.action_space,
            deterministic=options.deterministic,
            trust=self.trust,
            action_masks=self.action_masks(stage, options),
        )
        policy.begins_life = life_source(stage)
        return PolicyWithFeatures(policy) if options.features else policy

    def action_masks(self, env: gym.Env[Any, Any], options: RolloutOptions) -> ActionMasks | None:
        """See :class:`RolloutAgent`."""
        if not self.takes_masks:
            return None
        masks = action_mask_source(env, options.action_mask_method)
        if masks is None and options.action_mask_method != NO_MASK:
            raise EnvironmentNotUsableError(
                f"{self.file.url} is a model of MaskablePPO, which chooses among allowed actions, but the environment "
                f"has no action_masks() that says which are. {mask_advice(env)}"
            )
        return masks

    def __str__(self) -> str:
        return f"{self.ref.algorithm} from {without_credentials(self.file.url)} (sha256 {self.ref.sha256[:12]})"
