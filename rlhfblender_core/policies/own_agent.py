"""Agents of other frameworks: whatever a user's factory returns becomes a policy.

Understood are objects of our own protocol (``reset`` and ``act``), objects with Stable-Baselines3's ``predict``, and
functions of the observation. The user's code runs here; whether it may is decided elsewhere.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import spaces

from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind

#: Parameters of a factory that are filled in where it has them.
_OBSERVATION_SPACE, _ACTION_SPACE = "observation_space", "action_space"
_SHOWN = 80
#: What a decision may say of itself, besides the action and its uncertainty.
_SAID = ("probs", "action_mean", "action_std", "log_prob", "entropy", "value", "q_values", "features")


def make_own_agent(target: Any, name: str, given: Mapping[str, Any], env_spaces: Mapping[str, Any]) -> Any:
    """The agent that a user's factory makes; a function of the observation is one itself.

    Args:
        target: the function or class that was named.
        name: how it was named, for messages.
        given: keyword arguments from the user.
        env_spaces: ``observation_space`` and ``action_space``, for factories that take them.

    Raises:
        CheckpointNotUsableError: the keyword arguments don't fit.
    """
    parameters = _parameters(target)
    filled = {key: value for key, value in env_spaces.items() if key in parameters and key not in given}
    if _is_function_of_observation(target, parameters, {**given, **filled}):
        return target
    try:
        inspect.signature(target).bind(**filled, **given)
    except TypeError as error:
        raise CheckpointNotUsableError(
            f"--agent {name} can't be called with --agent-kwargs {' '.join(given) or '(none)'}: {error}."
        ) from error
    return target(**filled, **given)


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # written in C
        return {}


def _is_function_of_observation(
    target: Any, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]
) -> bool:
    """Whether exactly one parameter is left, which must be the observation. A class is a factory."""
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    left = [
        parameter
        for key, parameter in parameters.items()
        if parameter.kind in named and parameter.default is inspect.Parameter.empty and key not in given
    ]
    return not isinstance(target, type) and not given and len(left) == 1


class OwnPolicy:
    """A user's agent as a policy.

    An agent that has a ``reset`` is told of each episode's start (with its seed, if it takes one). One that has none
    is made anew for each episode: whatever it keeps, generators and hidden states, starts from the episode's seed,
    so that the same bytes come from any number of workers.

    Args:
        make: makes the agent.
        action_space: the environment's.
        deterministic: what ``predict`` is asked for.
        name: of the agent, for messages.

    Raises:
        CheckpointNotUsableError: what is made is no agent.
    """

    def __init__(self, make: Callable[[], Any], action_space: spaces.Space[Any], name: str, *, deterministic: bool):
        self._make, self._space, self._name, self._deterministic = make, action_space, name, deterministic
        self._has_uncertainty = False
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._agent = make()
        self._act = self._actor()
        said = getattr(self._agent, "uncertainty_kind", None)
        if said is not None and said not in list(UncertaintyKind):
            kinds = ", ".join(UncertaintyKind)
            raise CheckpointNotUsableError(
                f"--agent {name} says uncertainty_kind = {said!r:.40}; known are {kinds}. Leave it out for your own."
            )
        self._said = None if said is None else UncertaintyKind(said)

    @property
    def uncertainty_kind(self) -> UncertaintyKind:
        """What the agent says; else ``own`` where it has given an uncertainty in this episode."""
        return self._said or (UncertaintyKind.OWN if self._has_uncertainty else UncertaintyKind.NONE)

    def reset(self, seed: int) -> None:
        """Starts an episode."""
        self._has_uncertainty = False
        self._shapes = None
        reset = getattr(self._agent, "reset", None)
        if not callable(reset):
            self._agent = self._make()
            self._act = self._actor()
        elif "seed" in _parameters(reset):
            reset(seed=seed)
        else:
            reset()

    def act(self, observation: Any) -> PolicyStep:
        """The agent's decision, its action as the action space has it.

        Raises:
            ValueError: the action isn't in the action space.
        """
        decision = self._act(observation)
        step = self._copied(decision) if isinstance(decision, PolicyStep) else PolicyStep(decision)
        step.action = self._checked(step.action)
        self._has_uncertainty = self._has_uncertainty or not math.isnan(step.uncertainty)
        return step

    def _actor(self) -> Callable[[Any], Any]:
        agent: Any = self._agent
        if callable(getattr(agent, "act", None)):
            return agent.act  # type: ignore[no-any-return]  # of the user's object
        if callable(getattr(agent, "predict", None)):
            return _Predicting(agent, deterministic=self._deterministic)
        if callable(agent):
            return agent  # type: ignore[no-any-return]  # of the user's object
        raise CheckpointNotUsableError(
            f"--agent {self._name} returned {type(agent).__name__}, which is no agent: it has neither act() nor "
            "predict(), and is no function of the observation."
        )

    def _copied(self, step: PolicyStep) -> PolicyStep:
        """The step with arrays of its own: an agent may change its own in the next one."""
        said = {name: getattr(step, name) for name in _SAID}
        copies: dict[str, Any] = {
            name: np.array(value, np.float32) for name, value in said.items() if value is not None
        }
        shapes = {name: value.shape for name, value in copies.items()}
        self._shapes = shapes if self._shapes is None else self._shapes
        if shapes != self._shapes:
            raise ValueError(f"--agent {self._name} said {self._shapes} in the episode's first step, and {shapes} now")
        return replace(step, **copies)

    def _checked(self, chosen: Any) -> Any:
        action = chosen
        if hasattr(action, "detach"):  # a tensor
            action = action.detach().cpu().numpy()
        space = self._space
        if isinstance(space, spaces.Discrete) and np.size(action) == 1 and np.asarray(action).dtype.kind in "iub":
            action = np.int64(np.asarray(action).item())
        elif isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary):
            row = np.asarray(action)
            if row.size == np.prod(space.shape) and np.can_cast(row.dtype, space.dtype, "same_kind"):
                action = row.reshape(space.shape).astype(space.dtype)
        if not space.contains(action):
            shown = " ".join(repr(chosen).split())[:_SHOWN]
            raise ValueError(f"--agent {self._name} chose {shown}, which isn't in the action space {space}")
        return action


class _Predicting:
    """Stable-Baselines3's ``predict``, its state carried from step to step of an episode."""

    def __init__(self, agent: Any, *, deterministic: bool) -> None:
        self._predict = agent.predict
        takes = _parameters(agent.predict)
        self._options = {"deterministic": deterministic} if "deterministic" in takes else {}
        self._has_state = "state" in takes
        self._state: Any = None
        self._is_start = True

    def __call__(self, observation: Any) -> Any:
        options: dict[str, Any] = dict(self._options)
        if self._has_state:
            options |= {"state": self._state, "episode_start": np.array([self._is_start])}
        result = self._predict(observation, **options)
        self._is_start = False
        if isinstance(result, tuple):
            action, self._state = result
            return action
        return result
