"""What happens when something is registered again: nothing, a change, or a conflict. Pure functions.

A plan is checked with them before anything is written, and the registry decides by the same ones when it writes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from shlex import join
from typing import Any

from rlhfblender_core.names import same_but_for_case
from rlhfblender_core.registry.records import DEFAULT_PROJECT, CheckpointRecord, EnvironmentRecord, ExperimentRecord

_LONGEST_SHOWN = 80


def environment_conflict(registered: EnvironmentRecord, wanted: EnvironmentRecord) -> str | None:
    """One line that says why ``wanted`` can't be used where ``registered`` is; None if it can.

    Only what makes it another environment can conflict: entry point and packages. What ``wanted`` leaves None or empty
    is not compared. An environment that came with imported episodes may get both of the first;
    that it can't be made without them is for the caller to check.
    """
    if lacks_origin(registered):
        registered = replace(registered, entry_point=wanted.entry_point, additional_packages=wanted.additional_packages)
    entry_point = {"entry point": registered.entry_point}
    packages = {"additional packages": list(registered.additional_packages)}
    difference = (wanted.entry_point and _difference(entry_point, {"entry point": wanted.entry_point})) or (
        wanted.additional_packages
        # Their order is the order of imports, which decides nothing that is recorded.
        and sorted(wanted.additional_packages) != sorted(registered.additional_packages)
        and _difference(packages, {"additional packages": list(wanted.additional_packages)})
    )
    if not difference:
        return None
    words = ["--env", wanted.env_id]
    words += ["--env-gym-entrypoint", wanted.entry_point] if wanted.entry_point else []
    words += ["--additional-gym-packages", *wanted.additional_packages] if wanted.additional_packages else []
    return (
        f"Environment {registered.env_id!r} is registered with {difference} was given. "
        "Leave it out to use what is registered, register this one under another id, or change it with "
        f"`python flows/register.py {join(words)} --update`."
    )


def name_conflict(name: str, experiments: Iterable[ExperimentRecord]) -> str | None:
    """One line that says why a new experiment can't have the name; None if it can.

    Args:
        name: of the experiment.
        experiments: those that are registered.
    """
    other = same_but_for_case(name, (experiment.name for experiment in experiments))
    if other is None:
        return None
    return (
        f"Experiment {other!r} is registered, and {name!r} differs from it in case only: some file systems make one "
        f"folder of both. Use {other!r}, or another name."
    )


def lacks_origin(registered: EnvironmentRecord) -> bool:
    """Whether neither entry point nor packages say where the environment comes from."""
    return registered.entry_point is None and not registered.additional_packages


def environment_changes(registered: EnvironmentRecord, wanted: EnvironmentRecord) -> dict[str, Any]:
    """Columns to update, with their new values: what is given, differs, and may change at any time."""
    given: dict[str, Any] = {
        "display_name": wanted.display_name,
        "description": wanted.description,
        "action_names": wanted.action_names,
        # What a package's newer version says of its spaces is as true as what the older one said.
        "observation_space": wanted.observation_space or None,
        "action_space": wanted.action_space or None,
    }
    if lacks_origin(registered):
        given["entry_point"] = wanted.entry_point
        given["additional_packages"] = list(wanted.additional_packages) or None
    return {
        name: value
        for name, value in given.items()
        if value is not None and _as_json(value) != _as_json(getattr(registered, name))
    }


def experiment_conflict(
    registered: ExperimentRecord, wanted: ExperimentRecord, *, replace_settings: bool = False
) -> str | None:
    """One line that says why ``wanted`` can't continue ``registered``; None if it can.

    Args:
        registered: what the registry holds.
        wanted: what was asked for; what it leaves None or empty is not compared.
        replace_settings: kind, keyword arguments and settings may differ, they are going to be replaced. Environment
            and project never may. Where the model lies may always differ: a checkpoint is known by its contents.
    """
    fixed = {"environment": wanted.env_id}
    if wanted.project != DEFAULT_PROJECT:
        fixed["project"] = wanted.project
    difference = _difference(
        {name: {"environment": registered.env_id, "project": registered.project}[name] for name in fixed}, fixed
    )
    if difference:
        return _experiment_line(registered, difference, "Use another name for the experiment.")
    if replace_settings:
        return None
    difference = _replaceable_difference(registered, wanted)
    advice = (
        "Use another --exp, ask for what is registered, or replace it: generate with these settings and --overwrite."
    )
    return _experiment_line(registered, difference, advice) if difference else None


def experiment_changes(
    registered: ExperimentRecord, wanted: ExperimentRecord, *, replace_settings: bool
) -> dict[str, Any]:
    """Columns to update, with their new values: what may change at any time, and settings if they are replaced."""
    given = {name: getattr(wanted, name) for name in ("model_path", "observation_space", "action_space")}
    given = {name: value for name, value in given.items() if value}
    if replace_settings:
        given |= {"kind": wanted.kind}
        given |= {name: getattr(wanted, name) for name in ("settings", "env_kwargs") if getattr(wanted, name)}
        if wanted.kind == "random":  # a random agent has no model
            given["model_path"] = None
    changes = {name: value for name, value in given.items() if _as_json(value) != _as_json(getattr(registered, name))}
    if wanted.following and registered.following is None:  # one that is followed goes on from where it is
        changes["following"] = wanted.following.to_json()
    if (wanted.num_episodes or 0) > (registered.num_episodes or 0):
        changes["num_episodes"] = wanted.num_episodes
    return changes


def checkpoint_changes(registered: CheckpointRecord, wanted: CheckpointRecord) -> dict[str, Any]:
    """Columns to update, with their new values: whatever is given and differs."""
    given = {"step": wanted.step, "sha256": wanted.sha256, "algorithm": wanted.algorithm}
    return {name: value for name, value in given.items() if value not in (None, getattr(registered, name))}


def _replaceable_difference(registered: ExperimentRecord, wanted: ExperimentRecord) -> str | None:
    return (
        _difference({"kind": registered.kind}, {"kind": wanted.kind})
        or (_difference(registered.env_kwargs, wanted.env_kwargs) if wanted.env_kwargs else None)
        or (_difference(registered.settings, wanted.settings) if wanted.settings else None)
    )


def _experiment_line(registered: ExperimentRecord, difference: str, advice: str) -> str:
    return f"Experiment {registered.name!r} is registered with {difference} was asked for. {advice}"


def _difference(registered: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """``fps = 30, but 15`` for the first key with two values; a missing key differs from null."""
    for key in (*wanted, *(key for key in registered if key not in wanted)):
        before, after = (_as_json(values[key]) if key in values else "nothing" for values in (registered, wanted))
        if before != after:
            return f"{key} = {_shortened(before)}, but {_shortened(after)}"
    return None


def _as_json(value: object) -> str:
    # As text, so that True differs from 1 and 1.0 from 1: an environment may tell them apart.
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
