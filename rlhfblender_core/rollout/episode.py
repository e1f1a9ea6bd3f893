"""One episode: the environment and the policy take turns, every step is recorded as one aligned row.

Row ``t`` is what was observed, the picture of that state, the action taken in it, and the reward and info that came
back. The observation that ends the episode is no row: it is ``final_obs``.
"""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np

from rlhfblender_core.dataset.episode_writer import EpisodeFiles, EpisodeSummary, Outcome
from rlhfblender_core.dataset.video import Frame, frame_fault
from rlhfblender_core.environments import close_environment, flatten_observation
from rlhfblender_core.environments.api import as_flag
from rlhfblender_core.environments.contained import contained, end_forked_copy, is_interrupt
from rlhfblender_core.errors import EnvironmentNotUsableError, EpisodeError, RLHFBlenderError, one_line, trace_of
from rlhfblender_core.policies.protocol import Policy
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.seeding import SeededGlobals, episode_seed, seed_spaces
from rlhfblender_core.storage import full_disk_errors
from rlhfblender_core.wrappers import WrapperSpec, wrap_environment

#: Called after every step with the steps since the last call.
StepListener = Callable[[int], None]


class RawRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Remembers what the environment itself said, beneath the wrappers that an agent was trained with.

    A frame-skipping wrapper takes several steps per action: their rewards add up, the last observation counts.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.observation: Any = None
        self._is_wrapped = False
        self._reward = 0.0
        self._pid = os.getpid()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        observation, info = self.env.reset(seed=seed, options=options)
        end_forked_copy(self._pid)
        self._remember(observation)
        self._reward = 0.0
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        end_forked_copy(self._pid)
        self._remember(observation)
        self._reward += _as_number(reward)
        return observation, reward, as_flag("terminated", terminated), as_flag("truncated", truncated), info

    def wrapped_in(self, wrappers: Sequence[WrapperSpec], *, trust: bool = False) -> gym.Env[Any, Any]:
        """Itself inside wrappers, see :func:`~rlhfblender_core.wrappers.wrap_environment`."""
        self._is_wrapped = bool(wrappers)
        return wrap_environment(self, wrappers, trust=trust)

    def _remember(self, observation: Any) -> None:
        # Some wrappers change what they are given (MiniGrid's put another image into the same dictionary).
        self.observation = copy.deepcopy(observation) if self._is_wrapped else observation

    def take_reward(self) -> float:
        """The sum of rewards since it was last taken or the environment was reset."""
        reward, self._reward = self._reward, 0.0
        return reward


def _as_number(reward: Any) -> float:
    """The reward as a float; arrays with one element are taken for it, as many environments return them.

    Raises:
        TypeError: it is no number.
    """
    if isinstance(reward, float | int):  # the usual case, at every step
        return float(reward)
    array = np.asarray(reward)
    if array.size == 1 and array.dtype.kind in "biuf":
        return float(array.item())
    raise TypeError(f"step() returned the reward {reward!r:.60}, which is no number")


class Stage(gym.Wrapper[Any, Any, Any, Any]):
    """Where a policy acts, one episode after another: each enters with an environment of its own.

    The policy is loaded once, which costs seconds, and keeps its stage: what it asks the stage for, such as a mask of
    actions, comes from the environment of this episode. Between episodes the stage is empty.

    Attributes:
        recorder: around the environment itself; its observation is recorded.
    """

    def __init__(self, recorder: RawRecorder, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.recorder = recorder

    def enter(self, recorder: RawRecorder, env: gym.Env[Any, Any]) -> None:
        """Makes this episode's environment the one that is acted in.

        Args:
            recorder: around the environment itself.
            env: what the policy acts in: the recorder, maybe with wrappers around it.
        """
        self.recorder, self.env = recorder, env

    def leave(self) -> None:
        """Closes the environment and drops it.

        To be called in the thread that entered: renderers belong to the thread that made them, and many are only freed
        with the last reference.
        """
        env = self.env
        # An empty stage has nobody's environment; the type checker knows stages with one only.
        del self.recorder, self.env
        close_environment(env)


@dataclass(frozen=True)
class Agent:
    """A policy in the environment it acts in.

    Attributes:
        stage: with the environment of the episode on it.
        policy: who acts.
    """

    stage: Stage
    policy: Policy


def roll_out_episode(
    agent: Agent, episode: int, options: RolloutOptions, files: EpisodeFiles, on_step: StepListener
) -> EpisodeSummary:
    """Rolls out episode number ``episode`` into ``files``.

    Raises:
        EpisodeError: the environment or the policy raised.
        RLHFBlenderError: writing failed.
    """
    progress = _Progress()
    try:
        seed = episode_seed(options.seed, episode)
        with contained(), full_disk_errors(files.folder), SeededGlobals(seed):
            return _roll_out(agent, seed, options, files, on_step, progress)
    except BaseException as error:  # some simulators exit rather than raise, or raise GeneratorExit
        # An observation that doesn't fit its space is the episode's own; the disk and the like aren't.
        is_ours = isinstance(error, RLHFBlenderError) and not isinstance(error, EnvironmentNotUsableError)
        if is_ours or is_interrupt(error):
            raise
        raise EpisodeError(episode, progress.step, one_line(error), trace_of(error)) from error


class _Progress:
    """How far an episode got, for the message if it fails: -1 while it is being reset."""

    step = -1


def _roll_out(
    agent: Agent, seed: int, options: RolloutOptions, files: EpisodeFiles, on_step: StepListener, progress: _Progress
) -> EpisodeSummary:
    limit = options.max_steps_per_episode
    env, recorder, policy = agent.stage.env, agent.stage.recorder, agent.policy
    space = recorder.observation_space
    policy.reset(seed)
    seed_spaces(env, seed)
    observation, _ = env.reset(seed=seed)
    done = False
    while not done:
        progress.step += 1
        # Recorded before anybody acts: agents may normalise it in place, environments return the same array, changed.
        files.add_observation(flatten_observation(space, recorder.observation))
        step = policy.act(observation)
        files.add_decision(step)
        if options.render:
            files.add_frame(render_frame(recorder))
        observation, _, terminated, truncated, info = env.step(step.action)
        is_cut_off = limit is not None and progress.step + 1 >= limit and not terminated
        outcome = Outcome(recorder.take_reward(), bool(terminated), bool(truncated) or is_cut_off, info)
        files.add_outcome(outcome)
        on_step(1)
        done = outcome.terminated or outcome.truncated
    return files.finish(flatten_observation(space, recorder.observation), seed)


def render_frame(env: gym.Env[Any, Any]) -> Frame:
    """The environment's picture of its state, (height, width, 3) uint8.

    Raises:
        TypeError: ``render()`` returned something else.
    """
    frame: Any = env.render()
    if fault := frame_fault(frame):
        raise TypeError(f"render() returned {fault}; use --no-render")
    return cast("Frame", frame)
