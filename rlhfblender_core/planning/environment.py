"""The environment of a request: what is asked for, what is registered, and how to make it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rlhfblender_core.environments import (
    EnvironmentDescription,
    EnvironmentSpec,
    Trust,
    check_action_names,
    space_from_description,
    split_env_kwargs,
)
from rlhfblender_core.environments.registration import find_registration, split_module
from rlhfblender_core.errors import EnvironmentNotUsableError, InvalidParameterError, RegistryConflictError
from rlhfblender_core.planning.request import GenerationRequest
from rlhfblender_core.registry import EnvironmentRecord, environment_conflict, lacks_origin
from rlhfblender_core.wrappers.specs import settings_from_env_kwargs


def requested_environment(request: GenerationRequest, env_id: str) -> EnvironmentRecord:
    """What the request says of the environment, and no more."""
    return EnvironmentRecord(
        env_id=env_id,
        display_name=request.env_display_name,
        description=request.env_description,
        entry_point=request.env_gym_entrypoint,
        additional_packages=tuple(request.additional_gym_packages),
        action_names=tuple(request.action_names) if request.action_names else None,
    )


def admit_id(env_id: str, request: GenerationRequest, trust: Trust) -> None:
    """Makes sure that an id that the request doesn't name imports no module (``module:Id-v0``).

    Raises:
        EnvironmentNotTrustedError: it would, and only the registry says so.
    """
    if request.env is None:
        trust.admit(EnvironmentSpec(env_id))


def admit_environment(
    environment: EnvironmentRecord,
    wanted: EnvironmentRecord,
    env_kwargs: Mapping[str, Any],
    request: GenerationRequest,
    trust: Trust,
) -> None:
    """Makes sure that all that the environment is made from is declared, or named by the request or before.

    Args:
        environment: what is asked for, with what is registered.
        wanted: what is asked for.
        env_kwargs: what it is made with, as asked for or registered.
        request: the request itself.
        trust: decides, and remembers what is asked for.

    Raises:
        EnvironmentNotTrustedError: only the registry names some of it.
    """
    named = stated_spec(wanted, request.env_kwargs)
    if request.env is None:  # the id is the registry's, and admitted by admit_id
        named = dataclasses.replace(named, env_id=split_module(named.env_id)[1])
    trust.admit(stated_spec(environment, env_kwargs), named)


def stated_spec(environment: EnvironmentRecord, env_kwargs: Mapping[str, Any]) -> EnvironmentSpec:
    """All that is said about how it is made, the settings for an agent's view among the keyword arguments."""
    kwargs, spec_kwargs = split_env_kwargs(env_kwargs)
    return EnvironmentSpec(
        environment.env_id, environment.entry_point, environment.additional_packages, kwargs, spec_kwargs
    )


def merged_environment(known: EnvironmentRecord | None, wanted: EnvironmentRecord) -> EnvironmentRecord:
    """What is asked for, with what is registered where nothing is asked.

    Raises:
        RegistryConflictError: the two contradict each other.
    """
    if known is None:
        return wanted
    conflict = environment_conflict(known, wanted)
    if conflict:
        raise RegistryConflictError(conflict)
    if lacks_origin(known) and not lacks_origin(wanted) and _is_found(known):
        raise RegistryConflictError(
            f"Environment {known.env_id!r} is registered without entry point and packages, and is found without them. "
            "Leave them out to use it, or register yours under another id."
        )
    return dataclasses.replace(
        wanted,
        display_name=wanted.display_name or known.display_name,
        description=wanted.description or known.description,
        entry_point=known.entry_point or wanted.entry_point,
        additional_packages=known.additional_packages or wanted.additional_packages,
        observation_space=known.observation_space,
        action_space=known.action_space,
        action_names=wanted.action_names or known.action_names,
    )


def _is_found(environment: EnvironmentRecord) -> bool:
    try:
        find_registration(spec_of(environment, {}))
    except EnvironmentNotUsableError:
        return False
    return True


def spec_of(
    environment: EnvironmentRecord, env_kwargs: Mapping[str, Any], agent_kwargs: Mapping[str, Any] | None = None
) -> EnvironmentSpec:
    """How an experiment's environment is made; settings for the agent's view are left out.

    Args:
        environment: as registered.
        env_kwargs: the experiment's.
        agent_kwargs: constructor kwargs that an agent was trained with; the experiment's win.
    """
    kwargs, spec_kwargs = split_env_kwargs(env_kwargs)
    _, constructor = settings_from_env_kwargs(kwargs)
    return EnvironmentSpec(
        env_id=environment.env_id,
        entry_point=environment.entry_point,
        additional_packages=environment.additional_packages,
        kwargs={**(agent_kwargs or {}), **constructor},
        spec_kwargs=spec_kwargs,
    )


def described(
    environment: EnvironmentRecord,
    description: EnvironmentDescription,
    request: GenerationRequest,
    env_kwargs: Mapping[str, Any],
) -> EnvironmentRecord:
    """The environment with the spaces that it turned out to have; those that keyword arguments gave it, if need be.

    Raises:
        RequestError: the names of actions don't fit the action space.
    """
    if request.action_names:
        check_action_names(space_from_description(description.action_space), request.action_names)
    if env_kwargs and environment.action_space:
        return environment
    return dataclasses.replace(
        environment, observation_space=description.observation_space, action_space=description.action_space
    )


def fitting_names(environment: EnvironmentRecord, description: EnvironmentDescription) -> tuple[str, ...] | None:
    """The labels of its actions; None where keyword arguments give it other actions than are labelled."""
    if environment.action_names:
        try:
            check_action_names(space_from_description(description.action_space), environment.action_names)
        except InvalidParameterError:
            return None
    return environment.action_names
