"""Registering an environment without generating: its spaces, labels and pictures of its actions.

Nothing here prints; the command line is :mod:`flows.register`. ``python -m rlhfblender_core.register`` is the name that
RLHF-Blender's documentation uses, and starts that.
"""

import runpy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.action_labels import check_pictured, find_pictures, read_picture, store_pictures
from rlhfblender_core.environments import ONLY_DECLARED, Space, Trust, action_dimensions, space_from_description
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, locate
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


@dataclass(frozen=True, kw_only=True)
class RegistrationRequest:
    """An environment to register; None and empty mean "as registered, else as the environment says".

    Attributes:
        env: Gymnasium id.
        project: made if it isn't there.
        action_labels: one per action of a Discrete space, one per dimension of a flat Box.
        action_images: ``label=file`` each, or one folder.
        needs_dimensions: refuse an environment whose actions have no plain dimensions.
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
        registered = registry.ensure_environment(wanted)
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
        # No checkpoint, so nothing to cache.
        return plan_generation(generation, registry, cache=Path(), trust=trust).environment


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
    episodes = [episode.checkpoint for episode in registry.list_episodes(experiment.name)]
    return tuple((record, episodes.count(record.label)) for record in registry.list_checkpoints(experiment.name))


if __name__ == "__main__":
    runpy.run_module("flows.register", run_name="__main__")
