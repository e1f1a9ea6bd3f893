"""Environments: making them, describing their spaces, registering entry points and packages.

This is the public surface; the modules beside it are details.
"""

from rlhfblender_core.environments.actions import action_dimensions, check_action_names
from rlhfblender_core.environments.describe import EnvironmentDescription, describe_environment, fps_of
from rlhfblender_core.environments.freed import free_closed_environments
from rlhfblender_core.environments.headless import prepare_headless, render_failure
from rlhfblender_core.environments.make import Environment, check_kwargs, close_environment, make_environment
from rlhfblender_core.environments.observations import (
    ColumnSpec,
    flatten_observation,
    observation_columns,
    unflatten_observation,
)
from rlhfblender_core.environments.parse import parse_env_kwargs
from rlhfblender_core.environments.quiet import quiet_libraries
from rlhfblender_core.environments.spaces import (
    Space,
    SpaceDescription,
    check_supported,
    describe_space,
    space_from_description,
)
from rlhfblender_core.environments.spec import EnvironmentSpec, JSONValue, split_env_kwargs
from rlhfblender_core.environments.trust import ONLY_DECLARED, Trust

__all__ = [
    "ONLY_DECLARED",
    "ColumnSpec",
    "Environment",
    "EnvironmentDescription",
    "EnvironmentSpec",
    "JSONValue",
    "Space",
    "SpaceDescription",
    "Trust",
    "action_dimensions",
    "check_action_names",
    "check_kwargs",
    "check_supported",
    "close_environment",
    "describe_environment",
    "describe_space",
    "flatten_observation",
    "fps_of",
    "free_closed_environments",
    "make_environment",
    "observation_columns",
    "parse_env_kwargs",
    "prepare_headless",
    "quiet_libraries",
    "render_failure",
    "space_from_description",
    "split_env_kwargs",
    "unflatten_observation",
]
