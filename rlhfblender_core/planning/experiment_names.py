"""By which name the registry knows the experiment that a request means."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.errors import RegistryConflictError
from rlhfblender_core.names import is_name, path_segment
from rlhfblender_core.planning.request import GenerationRequest
from rlhfblender_core.registry import DEFAULT_PROJECT, ExperimentKind, ExperimentRecord, Registry, name_conflict

#: Characters of a name with keyword arguments in it; longer ones are a digest.
_LONGEST_NAME = 100


def in_its_project(
    request: GenerationRequest, registry: Registry | None
) -> tuple[GenerationRequest, ExperimentRecord | None, tuple[str, ...]]:
    """The request with the name that its experiment has in the registry, the experiment if it is there, and a note.

    Names are unique over all projects, as folders are. A project's experiment whose name another project's study of
    another environment has is named with its project.
    """
    if registry is None or request.exp is None:
        return request, None, ()
    registered = registry.find_experiment(request.exp)
    if registered is None or request.project in (DEFAULT_PROJECT, registered.project):
        return request, registered, ()
    name = f"{request.project}_{request.exp}"
    own = registry.find_experiment(name)
    if own is None and request.env in (None, registered.env_id):
        return request, registered, ()
    note = f"{request.exp} is an experiment of project {registered.project}; that of {request.project} is {name}"
    return replace(request, exp=name), own, (note,)


def default_name(env_id: str, kind: ExperimentKind, env_kwargs: Mapping[str, Any], registry: Registry | None) -> str:
    """The name of an experiment that is given none: with other keyword arguments it is another one."""
    plain = f"{path_segment(env_id)}_{kind}_experiment"
    known = registry.find_experiment(plain) if registry else None
    if not env_kwargs or (known and canonical_digest(known.env_kwargs) == canonical_digest(dict(env_kwargs))):
        return plain  # the second: before experiments had keyword arguments
    named = f"{plain}_{'_'.join(f'{name}-{env_kwargs[name]}' for name in sorted(env_kwargs))}"
    return (
        named
        if is_name(named) and len(named) <= _LONGEST_NAME
        else f"{plain}_{canonical_digest(dict(env_kwargs))[:12]}"
    )


def check_free(name: str, registry: Registry) -> None:
    """Makes sure that a new experiment can have the name.

    Raises:
        RegistryConflictError: another differs from it in case only.
    """
    if registry.find_experiment(name) is None and (conflict := name_conflict(name, registry.list_experiments())):
        raise RegistryConflictError(conflict)
