"""Whether agents and their environment fit together, found in environments that are made for that and closed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.checkpoints.match import check_spaces
from rlhfblender_core.environments import (
    EnvironmentDescription,
    EnvironmentSpec,
    close_environment,
    free_closed_environments,
    make_environment,
    space_from_description,
)
from rlhfblender_core.environments.contained import contained
from rlhfblender_core.environments.quiet import quiet_natives
from rlhfblender_core.errors import EnvironmentNotUsableError, RequestError, one_line
from rlhfblender_core.rollout.agents import CheckpointAgent
from rlhfblender_core.rollout.episode import RawRecorder
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.wrappers import WrapperSpec

_Spaces = tuple[spaces.Space[Any], spaces.Space[Any]]


def check_fit(
    rollouts: Sequence[RolloutSettings], registered: EnvironmentSpec, description: EnvironmentDescription
) -> tuple[str, ...]:
    """Makes sure that each policy can see and act in its environment, and learns which actions are allowed.

    Args:
        rollouts: of the checkpoints.
        registered: the environment without what agents bring.
        description: of that.

    Returns:
        What a person should know about how the actions reach the environment.

    Raises:
        SpacesDifferError: a policy can't.
        CheckpointNotUsableError: an agent's wrappers don't go with the environment.
        EnvironmentNotUsableError: it doesn't say which actions are allowed, where it is asked to or the agent needs it.
    """
    notes: list[str] = []
    own = space_from_description(description.observation_space), space_from_description(description.action_space)
    # The checkpoints of a folder mostly have the same.
    known: list[tuple[tuple[EnvironmentSpec, Sequence[WrapperSpec]], _Spaces]] = [((registered, ()), own)]
    for rollout in rollouts:
        if isinstance(rollout.agent, CheckpointAgent):
            key = rollout.environment, rollout.agent.ref.settings.wrappers
            acted_in = next((found for each, found in known if each == key), None)
            if acted_in is None:
                acted_in = _spaces(rollout)
                known.append((key, acted_in))
            environment_id, trust = rollout.environment.env_id, rollout.agent.trust
            notes += check_spaces(rollout.agent.ref, *acted_in, environment_id=environment_id, trust=trust)
        _check_masks(rollout)
    free_closed_environments()
    return tuple(notes)


def _spaces(rollout: RolloutSettings) -> _Spaces:
    with _acted_in(rollout, render=rollout.options.render) as env:
        return env.observation_space, env.action_space


def _check_masks(rollout: RolloutSettings) -> None:
    if rollout.options.action_mask_method is None and rollout.agent.algorithm != Algorithm.MASKABLE_PPO:
        return
    try:
        with _acted_in(rollout, render=False) as env:
            masks = rollout.agent.action_masks(env, rollout.options)
            if masks is not None:
                with contained(), quiet_natives():
                    env.reset(seed=0)
                    masks()
    except RequestError:
        raise
    except (Exception, SystemExit) as error:
        env_id = rollout.environment.env_id
        raise EnvironmentNotUsableError(
            f"{env_id} can't be asked which actions are allowed: {one_line(error):.300}"
        ) from error


@contextmanager
def _acted_in(rollout: RolloutSettings, *, render: bool) -> Iterator[gym.Env[Any, Any]]:
    """An environment in the agent's wrappers."""
    env = make_environment(rollout.environment, render=render)
    try:
        with contained(), quiet_natives():
            wrapped = rollout.agent.wrap(RawRecorder(env))
        yield wrapped
    finally:
        with quiet_natives():
            close_environment(env)
