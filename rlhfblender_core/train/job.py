"""What a training process is told, and what it tells: small values that travel between processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.environments.spec import EnvironmentSpec
from rlhfblender_core.errors import RLHFBlenderError
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.wrappers.specs import AgentSettings


@dataclass(frozen=True)
class TrainingJob:
    """What an agent is trained in, with what, for how long, and where its checkpoints go.

    Attributes:
        experiment: whose agent it is.
        spec: of the environment.
        settings: wrappers and frame stack around it.
        algorithm: that learns.
        hyperparameters: by RL Zoo's names, plain values.
        n_envs: environments side by side.
        seed: of the training.
        total_timesteps: steps of all environments together, from the very beginning.
        checkpoint_every: likewise, between checkpoints.
        keep_replay_buffer: whether the last checkpoint has its replay buffer beside it.
        folder: where the checkpoints go.
        threads: that torch may use.
    """

    experiment: str
    spec: EnvironmentSpec
    settings: AgentSettings
    algorithm: Algorithm
    hyperparameters: Mapping[str, Any]
    n_envs: int
    seed: int
    total_timesteps: int
    checkpoint_every: int
    keep_replay_buffer: bool
    folder: DataRoot
    threads: int

    @property
    def begun_as(self) -> dict[str, Any]:
        """What can't be changed once a training has begun, as JSON values by the name of its flag."""
        return {
            "env": self.spec.env_id,
            "env_kwargs": {**self.spec.kwargs, **self.spec.spec_kwargs},
            "algorithm": str(self.algorithm),
            "hyperparameters": dict(self.hyperparameters),
            "n_envs": self.n_envs,
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of the learning curve.

    Attributes:
        step: steps of all environments so far.
        mean_return: of the last hundred episodes; None before one has ended.
        loss: what the algorithm minimises; None before it has learned.
    """

    step: int
    mean_return: float | None
    loss: float | None


@dataclass(frozen=True, slots=True)
class Ready:
    """The agent and its environments could be made; nothing is written before somebody who hears this says so."""


@dataclass(frozen=True, slots=True)
class Started:
    """The training goes on from this step, with this curve so far."""

    step: int
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the training has got."""

    step: int
    point: CurvePoint | None = None


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """A checkpoint is there, whole."""

    step: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The training is over; with what it ended, if not as it should."""

    error: RLHFBlenderError | None = None


Event = Ready | Started | Progress | CheckpointWritten | Ended
