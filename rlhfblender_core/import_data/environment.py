"""The environment of imported episodes, as far as it can be known without running anything that the source names.

Its spaces come from the source's database, the installed environment, or the arrays, whichever knows first. Entry point
and packages that the source names are left to the user, who may trust them: making the environment would run them.
"""

import json
import re
from typing import Any

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import EnvironmentRecordInManifest
from rlhfblender_core.environments import (
    EnvironmentSpec,
    check_action_names,
    check_kwargs,
    describe_environment,
    space_from_description,
    split_env_kwargs,
)
from rlhfblender_core.errors import DataNotUsableError, EnvironmentNotUsableError, InvalidParameterError
from rlhfblender_core.import_data.arrays import open_members
from rlhfblender_core.import_data.source_database import SourceFacts
from rlhfblender_core.import_data.sources import SourceExperiment
from rlhfblender_core.registry import EnvironmentRecord, JsonDict

#: Of actions that are counted.
_DISCRETE_KINDS = "iu"


def new_environment(
    env_id: str, facts: SourceFacts, source: SourceExperiment
) -> tuple[EnvironmentRecord, tuple[str, ...]]:
    """The environment to register, and what a person should know of it."""
    notes = _origin_notes(env_id, facts)
    observation_space, action_space = facts.observation_space, facts.action_space
    if not (observation_space and action_space):
        known = _installed(env_id) or _from_arrays(source)
        observation_space, action_space = observation_space or known[0], action_space or known[1]
    record = EnvironmentRecord(
        env_id=env_id,
        display_name=_title(facts, env_id),
        description=facts.description,
        observation_space=observation_space,
        action_space=action_space,
        action_names=_fitting_names(facts.action_names, action_space),
    )
    return record, notes


def env_kwargs_to_register(env_id: str, facts: SourceFacts) -> tuple[JsonDict, tuple[str, ...]]:
    """What episodes of one's own are made with in the imported experiment, and what a person should know of it."""
    kwargs, spec_kwargs = split_env_kwargs(facts.env_kwargs)
    if kwargs and _takes_other_kwargs(env_id, kwargs):
        return spec_kwargs, (f"{env_id} as it is installed doesn't take {_shown(kwargs)}, which is left out.",)
    return {**kwargs, **spec_kwargs}, ()


def made_with(environment: EnvironmentRecord, facts: SourceFacts) -> EnvironmentRecordInManifest:
    """What the episodes were made with, as far as anybody says."""
    kwargs, spec_kwargs = split_env_kwargs(facts.env_kwargs)
    return EnvironmentRecordInManifest(
        id=environment.env_id,
        entry_point=environment.entry_point,
        additional_packages=environment.additional_packages,
        kwargs=kwargs,
        spec_kwargs=spec_kwargs,
    )


def _title(facts: SourceFacts, env_id: str) -> str | None:
    """How people call the environment; None where the source's name is the id in the server's spelling."""
    plain, plain_id = (re.sub("[/_:]", "-", name) for name in (facts.display_name or "", env_id))
    return None if re.fullmatch(rf"{re.escape(plain_id)}(-\d+)?", plain) else facts.display_name


def _shown(kwargs: JsonDict) -> str:
    return json.dumps(kwargs, sort_keys=True, ensure_ascii=False)[:200] if kwargs else "no keyword arguments"


def _origin_notes(env_id: str, facts: SourceFacts) -> tuple[str, ...]:
    flags = [f"--env-gym-entrypoint {facts.entry_point}"] if facts.entry_point else []
    flags += [f"--additional-gym-packages {' '.join(facts.packages)}"] if facts.packages else []
    if not flags:
        return ()
    return (
        f"{env_id} is registered without {' '.join(flags)}, which the source names: what a data set names is not run. "
        "Episodes of your own need it.",
    )


def _takes_other_kwargs(env_id: str, kwargs: JsonDict) -> bool:
    """Whether the environment is installed and doesn't take these. It isn't made with them: they are the source's."""
    try:
        check_kwargs(EnvironmentSpec(env_id))
    except EnvironmentNotUsableError:
        return False
    try:
        check_kwargs(EnvironmentSpec(env_id, kwargs=kwargs))
    except EnvironmentNotUsableError:
        return True
    return False


def _installed(env_id: str) -> tuple[JsonDict, JsonDict] | None:
    """The spaces of an installed environment. Packages that the source names are not imported."""
    try:
        description = describe_environment(EnvironmentSpec(env_id))
    except EnvironmentNotUsableError:
        return None
    return dict(description.observation_space), dict(description.action_space)


def _fitting_names(names: tuple[str, ...] | None, action_space: JsonDict) -> tuple[str, ...] | None:
    if not names or not action_space:
        return None
    try:
        check_action_names(space_from_description(action_space), names)
    except InvalidParameterError:
        return None
    return names


def _from_arrays(source: SourceExperiment) -> tuple[JsonDict, JsonDict]:
    """Spaces with the shapes and dtypes of the first episode that can be read; empty for what that doesn't tell."""
    for checkpoint in source.checkpoints:
        for number in checkpoint.numbers():
            file = checkpoint.episode(number).files.get(ArtifactKind.EPISODES)
            try:
                if file is not None:
                    with open_members(file, file.name) as members:
                        return _space_of(members.headers.get("obs")), _action_space(members.headers)
            except DataNotUsableError:
                continue
    return {}, {}


def _space_of(header: Any) -> JsonDict:
    if header is None or header.dtype.kind not in "biuf" or not header.shape:
        return {}
    shape, _, dtype = header
    is_image = dtype == "uint8"
    low, high = (0, 255) if is_image else ("-inf", "inf")
    if not is_image and dtype.kind != "f":
        return {}
    return {"type": "Box", "shape": list(shape[1:]), "dtype": dtype.name, "low": low, "high": high}


def _action_space(headers: dict[str, Any]) -> JsonDict:
    actions, probabilities = headers.get("actions"), headers.get("probs")
    if actions is None:
        return {}
    shape, _, dtype = actions
    if dtype.kind == "f" and len(shape) > 1:
        return _space_of(actions)
    count = probabilities[0][-1] if probabilities and len(probabilities[0]) > 1 else 0
    if dtype.kind in _DISCRETE_KINDS and len(shape) == 1 and count > 1:
        return {"type": "Discrete", "shape": [], "dtype": "int64", "n": count, "start": 0}
    return {}
