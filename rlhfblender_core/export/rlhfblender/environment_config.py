"""``environment_config`` as RLHF-Blender's ``get_environment`` reads it: how its server makes an environment.

It calls ``gym.make`` with ``env_kwargs``, puts the wrappers of ``env_wrapper`` around it, then those of
``vec_env_wrapper``, VecNormalize if ``normalize`` says so, and stacks ``frame_stack`` frames.
"""

import re
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from gymnasium.envs.registration import parse_env_id

from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.environments import space_from_description, split_env_kwargs
from rlhfblender_core.environments.packages import package_of
from rlhfblender_core.environments.registration import split_module
from rlhfblender_core.rollout.replay import wrappers_of
from rlhfblender_core.wrappers.specs import WrapperSpec, settings_from_env_kwargs
from rlhfblender_core.wrappers.table import WRAPPERS

_LIMIT = "max_episode_steps"
#: In a manifest's words.
_STACKED = re.compile(r"(\d+) stacked")
_OWN = "rlhfblender_core"
#: Wrappers that leave a mission out, or make numbers of all.
_PICTURE, _FLAT = "minigrid.wrappers.ImgObsWrapper", "gymnasium.wrappers.FlattenObservation"
_LEAVE_OUT = (
    "ImgObsWrapper",
    "FlatObsWrapper",
    "FlattenObservation",
    "FilterObservation",
    "DictObservationSpaceWrapper",
)


def environment_config(
    env_id: str, env_kwargs: Mapping[str, Any], observation_space: Mapping[str, Any], manifest: Manifest | None
) -> dict[str, Any]:
    """The configuration, made of plain Python values.

    Args:
        env_id: the registration id.
        env_kwargs: the experiment's.
        observation_space: its environment's, described; empty where unknown.
        manifest: of one of its episodes, which says what the agent was trained with; None where there is none.
    """
    kwargs, spec_kwargs = split_env_kwargs(env_kwargs)
    settings, constructor = settings_from_env_kwargs(kwargs)
    config: dict[str, Any] = {}
    made_with = {**(manifest.environment.kwargs if manifest else {}), **constructor}
    if _LIMIT in spec_kwargs:  # of the registration's arguments the one that gym.make takes; -1 is none
        made_with[_LIMIT] = -1 if spec_kwargs[_LIMIT] is None else spec_kwargs[_LIMIT]
    if made_with:
        config["env_kwargs"] = made_with
    wrappers = settings.wrappers or (wrappers_of(manifest.policy) if manifest else ())
    if _has_parts_without_shape(observation_space) and all(map(_leaves_parts_as_they_are, wrappers)):
        # Stable-Baselines3's vectorised environments hold no texts and nothing nested: without this the server can't
        # make it at all.
        wrappers = (*wrappers, WrapperSpec(_PICTURE if _is_minigrid(env_id) else _FLAT))
    if wrappers:
        named = [{_name_there(one.name): one.kwargs} if one.kwargs else _name_there(one.name) for one in wrappers]
        config["env_wrapper"] = named[0] if len(named) == 1 else named
    vectorised = kwargs.get("vec_env_wrapper")
    if vectorised:
        config["vec_env_wrapper"] = vectorised
    stacked = _STACKED.search(manifest.policy.observation) if manifest else None
    frames = int(stacked[1]) if stacked else settings.frame_stack
    if frames and "VecFrameStack" not in str(vectorised):
        config["frame_stack"] = frames
    if manifest is not None and manifest.policy.vecnormalize_sha256 is not None:
        config |= {"normalize": True, "normalize_kwargs": {"norm_obs": True, "norm_reward": False}}
    return config


def _has_parts_without_shape(described: Mapping[str, Any]) -> bool:
    space = space_from_description(described) if described else None
    parts = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else (space,)
    found = parts.values() if isinstance(parts, Mapping) else parts
    return any(part is not None and part.shape is None for part in found)


def _leaves_parts_as_they_are(wrapper: WrapperSpec) -> bool:
    """Whether texts and nested parts are still there behind a wrapper; of one's own nobody knows."""
    return wrapper.name in WRAPPERS and wrapper.name.rpartition(".")[2] not in _LEAVE_OUT


def _is_minigrid(env_id: str) -> bool:
    namespace, name, _ = parse_env_id(split_module(env_id)[1])
    package = package_of(namespace, name)
    return package is not None and package.module == "minigrid"


def _name_there(name: str) -> str:
    """What the server imports for a wrapper: names of gym's time are those of today."""
    target = WRAPPERS.get(name) or name
    return name if target.startswith(_OWN) else target.replace(":", ".")
