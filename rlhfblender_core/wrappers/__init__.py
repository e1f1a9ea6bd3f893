"""Wrappers that an agent was trained with, from a table of known ones.

Importing this package imports neither torch nor Stable-Baselines3.
"""

from rlhfblender_core.wrappers.apply import wrap_environment
from rlhfblender_core.wrappers.masks import action_mask_source
from rlhfblender_core.wrappers.specs import AgentSettings, WrapperSpec, settings_from_env_kwargs

__all__ = [
    "AgentSettings",
    "WrapperSpec",
    "action_mask_source",
    "settings_from_env_kwargs",
    "wrap_environment",
]
