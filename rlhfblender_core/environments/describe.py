"""What is recorded of an environment when it is registered."""

import importlib.metadata
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import cast

import numpy as np
from gymnasium.envs.registration import EnvSpec

from rlhfblender_core.dataset.video import frame_fault
from rlhfblender_core.environments.api import NeverWorksError, checked_reset
from rlhfblender_core.environments.contained import contained
from rlhfblender_core.environments.freed import free_closed_environments
from rlhfblender_core.environments.headless import render_failure
from rlhfblender_core.environments.make import Environment, close_environment, make_environment
from rlhfblender_core.environments.observations import flatten_observation
from rlhfblender_core.environments.quiet import quiet_natives
from rlhfblender_core.environments.registration import entry_point_text
from rlhfblender_core.environments.spaces import SpaceDescription, describe_space
from rlhfblender_core.environments.spec import EnvironmentSpec
from rlhfblender_core.errors import EnvironmentNotUsableError, one_line
from rlhfblender_core.wrappers.masks import mask_methods

DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class EnvironmentDescription:
    """An environment's facts, all of them JSON values.

    Attributes:
        env_id: the id as Gymnasium resolved it, with its version, without a module.
        entry_point: ``module:name`` of what makes it.
        observation_space: see :func:`~rlhfblender_core.environments.spaces.describe_space`.
        action_space: likewise.
        fps: frames per second of its videos.
        render_modes: what its metadata offer.
        max_episode_steps: its time limit in steps; None for no limit.
        reward_threshold: the return at which it counts as solved, where its author gave one.
        nondeterministic: whether its author says that seeds don't determine it.
        package_versions: version by name of the packages that its class is built from.
        mask_methods: methods whose names speak of masks; any of them may say which actions are allowed.
    """

    env_id: str
    entry_point: str | None
    observation_space: SpaceDescription
    action_space: SpaceDescription
    fps: float
    render_modes: tuple[str, ...]
    max_episode_steps: int | None
    reward_threshold: float | None
    nondeterministic: bool
    package_versions: dict[str, str]
    mask_methods: tuple[str, ...] = ()


def describe_environment(
    spec: EnvironmentSpec, *, render: bool = False, try_out: bool = False
) -> EnvironmentDescription:
    """The facts of an environment, which is made for that and closed.

    Args:
        spec: the environment.
        render: whether it is made to draw frames.
        try_out: also reset it and draw one frame, so that what stands in the way of episodes shows before anything is
            registered or generated.

    Raises:
        EnvironmentNotUsableError: it can't be made (see :func:`make_environment`), or not be reset or rendered as
            asked.
    """
    description = _described_once(spec, render=render, try_out=try_out)
    free_closed_environments()
    return description


def _described_once(spec: EnvironmentSpec, *, render: bool, try_out: bool) -> EnvironmentDescription:
    with contained():  # some change to the folder of their files; ours are meant from here
        env = make_environment(spec, render=render)
        try:
            if try_out:
                _check_reset(env, spec.env_id)
            if try_out and render:
                _check_renders(env, spec.env_id)
            return _described(env, spec)
        finally:
            with quiet_natives():
                close_environment(env)


def fps_of(env: Environment) -> float:
    """Frames per second from the environment's metadata if they are a positive finite number, else 30."""
    metadata = env.metadata if isinstance(env.metadata, Mapping) else {}
    fps = metadata.get("render_fps", metadata.get("video.frames_per_second"))  # the latter is the old gym's
    if isinstance(fps, int | float | np.number) and not isinstance(fps, bool) and math.isfinite(fps) and fps > 0:
        return float(fps)
    return DEFAULT_FPS


def _check_reset(env: Environment, env_id: str) -> None:
    with quiet_natives():
        try:
            observation = checked_reset(env, env_id, 0)
        except NeverWorksError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            raise EnvironmentNotUsableError(f"{env_id} can't be reset: {one_line(error):.300}") from error
    flatten_observation(env.observation_space, observation)


def _check_renders(env: Environment, env_id: str) -> None:
    with quiet_natives():
        try:
            frame = env.render()
        except (Exception, SystemExit, GeneratorExit) as error:
            raise render_failure(env_id, error) or EnvironmentNotUsableError(
                f"{env_id} can't render: {one_line(error):.300}. Pass --no-render to generate data without videos."
            ) from error
    if fault := frame_fault(frame):
        raise EnvironmentNotUsableError(
            f"{env_id} renders {fault}. Correct its render(), or pass --no-render to generate data without videos."
        )


def _described(env: Environment, spec: EnvironmentSpec) -> EnvironmentDescription:
    registration = cast("EnvSpec", env.spec)  # gymnasium.make sets it
    return EnvironmentDescription(
        env_id=registration.id,
        entry_point=entry_point_text(registration.entry_point),
        observation_space=describe_space(env.observation_space),
        action_space=describe_space(env.action_space),
        fps=fps_of(env),
        render_modes=tuple(str(mode) for mode in env.metadata.get("render_modes") or ()),
        max_episode_steps=registration.max_episode_steps,
        reward_threshold=registration.reward_threshold,
        nondeterministic=registration.nondeterministic,
        package_versions=_package_versions(env, spec.additional_packages),
        mask_methods=mask_methods(env),
    )


def _package_versions(env: Environment, additional_packages: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that define the environment's class, and of those they import by name.

    Looking at what is imported finds the engine (Box2D, MuJoCo) and doesn't depend on what else the process loaded.
    """
    modules = {cls.__module__ for cls in type(env.unwrapped).__mro__}
    modules = {name for name in modules if _root(name) not in sys.stdlib_module_names}
    roots = {_root(name) for name in (*modules, *additional_packages)}
    for name in modules:
        roots |= {_root(value.__name__) for value in vars(sys.modules[name]).values() if isinstance(value, ModuleType)}
    found = {distribution for root in roots for distribution in _distributions().get(root, ())}
    return {distribution: importlib.metadata.version(distribution) for distribution in sorted(found)}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """The installed distributions by the modules they bring: reads the metadata of all there are, so once only."""
    return importlib.metadata.packages_distributions()


def _root(module: str) -> str:
    return module.partition(".")[0]
