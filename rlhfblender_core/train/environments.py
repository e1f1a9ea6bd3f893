"""The environments that an agent learns in, side by side, built in the order in which RL Zoo does.

Monitor, the agent's wrappers, VecNormalize, frames stacked. Each environment is made as rollouts make theirs.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rlhfblender_core.environments import make_environment
from rlhfblender_core.errors import InvalidParameterError, SpacesDifferError
from rlhfblender_core.train.job import TrainingJob
from rlhfblender_core.wrappers.apply import wrap_environment
from rlhfblender_core.wrappers.specs import parse_literal


def make_environments(job: TrainingJob) -> Any:
    """Stable-Baselines3's vectorised environment.

    Raises:
        RequestError: the environment, its observations, a wrapper or ``normalize`` can't be used.
    """
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

    normalisation = _normalisation(job.hyperparameters)
    env: Any = DummyVecEnv([_maker(job)] * job.n_envs)
    if normalisation is not None:
        env = VecNormalize(env, **normalisation)
    if job.settings.frame_stack:
        env = VecFrameStack(env, job.settings.frame_stack)
    return env


def _maker(job: TrainingJob) -> Callable[[], Any]:
    def make() -> Any:
        from stable_baselines3.common.monitor import Monitor

        env = Monitor(make_environment(job.spec, render=False))
        wrapped = wrap_environment(env, job.settings.wrappers, training=True)
        _check_observations(job, wrapped.observation_space)
        return wrapped

    return make


def _check_observations(job: TrainingJob, space: Any) -> None:
    """Raises SpacesDifferError where Stable-Baselines3 would stumble over the shape that a space has not."""
    from gymnasium import spaces

    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else ((None, space),):
        if not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            where = "" if key is None else f" at {key!r}"
            raise SpacesDifferError(
                f"{job.algorithm} can't learn from {job.spec.env_id}: its observation{where} is {part!s:.80}. Give a "
                "wrapper, e.g. --hyperparameters env_wrapper:minigrid.wrappers.ImgObsWrapper"
            )


def _normalisation(hyperparameters: Mapping[str, Any]) -> dict[str, Any] | None:
    """VecNormalize's arguments; the discount is the algorithm's, as RL Zoo has it."""
    value = hyperparameters.get("normalize")
    try:
        value = parse_literal(value) if isinstance(value, str) else value
    except ValueError as error:
        raise InvalidParameterError(f"normalize: {error}.") from error
    if value is None or value is False:
        return None
    if value is not True and not isinstance(value, dict):
        raise InvalidParameterError(f"normalize {value!r:.60} is neither True nor False nor dict(norm_reward=False).")
    arguments = dict(value) if isinstance(value, dict) else {}
    if "gamma" in hyperparameters:
        arguments.setdefault("gamma", hyperparameters["gamma"])
    return arguments
