"""Registering an environment without generating: its spaces, labels and pictures of its actions.

Nothing here prints; the command line is :mod:`flows.register`. ``python -m rlhfblender_core.register`` is the name that
RLHF-Blender's documentation uses, and starts that.
"""

import runpy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.argument_types import check_arguments, check_fields
from rlhfblender_core.dataset.action_labels import check_pictured, find_pictures, read_picture, store_pictures
from rlhfblender_core.environments import (
    ONLY_DECLARED,
    EnvironmentSpec,
    Space,
    Trust,
    action_dimensions,
    describe_environment,
    space_from_description,
    split_env_kwargs,
)
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.names import checked_name
from rlhfblender_core.planning.environment import described, fitting_names, requested_environment, spec_of, stated_spec
from rlhfblender_core.planning.following import begin_following
from rlhfblender_core.planning.plan import plan_generation
from rlhfblender_core.planning.request import GenerationRequest
from rlhfblender_core.registry import (
    DEFAULT_PROJECT,
    CheckpointRecord,
    EnvironmentRecord,
    ExperimentRecord,
    ProjectRecord,
    Registry,
    open_existing_registry,
    open_registry,
)
from rlhfblender_core.storage import DataRoot, check_writable
from rlhfblender_core.wording import did_you_mean


@dataclass(frozen=True, kw_only=True)
class RegistrationRequest:
    """An environment to register; None and empty mean "as registered, else as the environment says".

    Attributes:
        env: Gymnasium id.
        project: made if it isn't there.
        action_labels: one per action of a Discrete space, one per dimension of a flat Box.
        action_images: ``label=file`` each, or one folder.
        needs_dimensions: refuse an environment whose actions have no plain dimensions.
        update: entry point and packages take the values that are given, whatever was registered.
    """

    env: str
    project: str = DEFAULT_PROJECT
    env_gym_entrypoint: str | None = None
    additional_gym_packages: Sequence[str] = ()
    env_display_name: str | None = None
    env_description: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    action_labels: Sequence[str] = ()
    action_images: Sequence[str] = ()
    needs_dimensions: bool = False
    update: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@check_arguments
def register(
    *,
    env: str,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **flags: Any,
) -> EnvironmentRecord:
    """Registers an environment without generating.

    Args:
        env: Gymnasium id.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.
        flags: the fields of :class:`RegistrationRequest`.

    Returns:
        The environment as registered.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    where = locate(data_root, database_url, storage_options)
    return register_environment(
        RegistrationRequest(env=env, **flags), where.open_root(), where.database_url, where.trust()
    )


def register_environment(
    request: RegistrationRequest, root: DataRoot, database_url: str, trust: Trust = ONLY_DECLARED
) -> EnvironmentRecord:
    """The environment as registered afterwards; all of the request is checked before anything is written.

    Args:
        request: what to register.
        root: the data root, for pictures of actions.
        database_url: of the registry.
        trust: what the registry may name to make the environment with; it remembers what the request names.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    check_writable(root)
    wanted = _planned(request, database_url, trust)
    if request.needs_dimensions:
        dimensions_of(wanted)
    labels = wanted.action_names or ()
    pictures = {}
    if request.action_images:
        files = find_pictures(request.action_images, labels)
        check_pictured(wanted.env_id, files, labels)
        pictures = {label: read_picture(file) for label, file in files.items()}
    with open_registry(database_url) as registry:
        registry.ensure_project(request.project)
        registered = registry.update_environment(wanted) if request.update else registry.ensure_environment(wanted)
    store_pictures(root, registered.env_id, pictures)
    return registered


def _planned(request: RegistrationRequest, database_url: str, trust: Trust) -> EnvironmentRecord:
    generation = GenerationRequest(
        env=request.env,
        project=request.project,
        env_gym_entrypoint=request.env_gym_entrypoint,
        additional_gym_packages=request.additional_gym_packages,
        env_display_name=request.env_display_name,
        env_description=request.env_description,
        env_kwargs=request.env_kwargs,
        action_names=request.action_labels or None,
        register_only=True,
    )
    with ExitStack() as stack:
        registry = open_existing_registry(database_url)
        if registry is not None:
            stack.enter_context(registry)
        if request.update:
            return _updated(generation, request.env, registry, trust)
        # No checkpoint, so nothing to cache.
        return plan_generation(generation, registry, cache=Path(), trust=trust).environment


def _updated(request: GenerationRequest, env_id: str, registry: Registry | None, trust: Trust) -> EnvironmentRecord:
    """What is registered, with what is asked for in its place.

    Raises:
        RequestError: it isn't registered, or can't be made like this.
    """
    known = registry.find_environment(env_id) if registry else None
    if known is None:
        raise InvalidParameterError(f"There is no environment {env_id!r} to update. Register it without --update.")
    wanted = requested_environment(request, env_id)
    names = ("display_name", "description", "entry_point", "additional_packages", "action_names")
    given = {name: value for name in names if (value := getattr(wanted, name))}
    updated = replace(known, **given)
    trust.admit(stated_spec(updated, request.env_kwargs), stated_spec(wanted, request.env_kwargs))
    description = describe_environment(spec_of(updated, request.env_kwargs))
    updated = described(updated, description, request, {})
    return replace(updated, action_names=fitting_names(updated, description))


@dataclass(frozen=True)
class ExperimentUpdate:
    """What is changed of an experiment; None and empty change nothing.

    Attributes:
        exp: its name.
        project: the one that it goes to.
        env_kwargs: keyword arguments that its environment is made with from now on.
    """

    exp: str
    project: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)


def update_experiment(request: ExperimentUpdate, database_url: str, trust: Trust = ONLY_DECLARED) -> ExperimentRecord:
    """The experiment as registered afterwards; its environment is made once, to see that it can be.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    with open_registry(database_url, create=False) as registry:
        record = registry.find_experiment(checked_name(request.exp, "experiment"))
        environment = registry.find_environment(record.env_id) if record else None
        if record is None or environment is None:
            raise InvalidParameterError(
                f"No experiment {request.exp!r} is registered. See `python flows/register.py --list`."
            )
        changes: dict[str, Any] = {}
        if request.project is not None:
            changes["project"] = checked_name(request.project, "project")
        if request.env_kwargs:
            named = EnvironmentSpec(record.env_id, None, (), *split_env_kwargs(request.env_kwargs))
            trust.admit(stated_spec(environment, request.env_kwargs), named)
            description = describe_environment(spec_of(environment, request.env_kwargs))
            changes |= {
                "env_kwargs": dict(request.env_kwargs),
                "observation_space": description.observation_space,
                "action_space": description.action_space,
            }
        if not changes:
            raise InvalidParameterError("Nothing to update. Give --project or --env-kwargs with the new values.")
        return registry.update_experiment(request.exp, changes)


def follow_experiment(name: str, locations: Locations, *, follow: bool) -> ExperimentRecord:
    """The experiment as registered, after its new checkpoints get episodes by themselves from now on, or no more.

    Args:
        name: of the experiment; one that is followed goes on from where it is.
        locations: data root and registry.
        follow: whether they do.

    Raises:
        InvalidParameterError: it isn't registered, or has no model folder.
    """
    with open_registry(locations.database_url, create=False) as registry:
        record = registry.find_experiment(checked_name(name, "experiment"))
        if record is None:
            raise InvalidParameterError(f"No experiment {name!r} is registered. See `python flows/register.py --list`.")
        following = None
        if follow:
            following = record.following or begin_following(record, registry, locations.storage_options)
        return registry.update_experiment(name, {"following": following and following.to_json()})


def experiments_of(registry: Registry, env_id: str) -> dict[str, int]:
    """Number of episodes of each experiment that studies the environment, by name."""
    studies = [record.name for record in registry.list_experiments() if record.env_id == env_id]
    return {name: sum(row.episodes for row in registry.summarise(name)) for name in studies}


def delete_environment(env_id: str, database_url: str) -> None:
    """Deletes an environment that no experiment studies from the registry; pictures of its actions stay.

    Raises:
        InvalidParameterError: it isn't registered.
        RegistryConflictError: experiments study it.
    """
    with open_registry(database_url, create=False) as registry:
        if registry.find_environment(env_id) is None:
            known = did_you_mean(env_id, (record.env_id for record in registry.list_environments()))
            raise InvalidParameterError(f"There is no environment {env_id!r}. {known}")
        registry.delete_environment(env_id)


def action_space_of(environment: EnvironmentRecord) -> Space:
    """The registered action space."""
    return space_from_description(environment.action_space)


def dimensions_of(environment: EnvironmentRecord) -> int:
    """1 for Discrete actions, k for a flat Box of k numbers.

    Raises:
        InvalidParameterError: actions of another space.
    """
    return action_dimensions(action_space_of(environment))


@dataclass(frozen=True)
class RegisteredExperiment:
    """An experiment with its checkpoints, and how many episodes each has in the registry."""

    record: ExperimentRecord
    checkpoints: tuple[tuple[CheckpointRecord, int], ...]


@dataclass(frozen=True)
class Registered:
    """All that is registered, or what belongs to one project."""

    projects: tuple[ProjectRecord, ...]
    environments: tuple[EnvironmentRecord, ...]
    experiments: tuple[RegisteredExperiment, ...]


def list_registered(registry: Registry, project: str | None = None) -> Registered:
    """What is registered; of a project: its experiments and the environments that they study."""
    experiments = registry.list_experiments(project)
    studied = {experiment.env_id for experiment in experiments}
    return Registered(
        tuple(record for record in registry.list_projects() if project in (None, record.name)),
        tuple(record for record in registry.list_environments() if project is None or record.env_id in studied),
        tuple(RegisteredExperiment(experiment, _checkpoints(registry, experiment)) for experiment in experiments),
    )


def _checkpoints(registry: Registry, experiment: ExperimentRecord) -> tuple[tuple[CheckpointRecord, int], ...]:
    episodes = {row.checkpoint: row.episodes for row in registry.summarise(experiment.name)}
    return tuple((record, episodes.get(record.label, 0)) for record in registry.list_checkpoints(experiment.name))


if __name__ == "__main__":
    runpy.run_module("flows.register", run_name="__main__")
