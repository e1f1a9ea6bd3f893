"""Old ids of environments: what an agent of one needs around the environment that took its place.

One table says what each successor changed, with its source. What it asks for is applied where the agent says that it is
of the old id and the user names the new one, and told in a note; keyword arguments that the user gives win.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from rlhfblender_core.checkpoints.fetch import CheckpointRef
from rlhfblender_core.checkpoints.origin import Origin
from rlhfblender_core.environments.spec import as_json_value
from rlhfblender_core.wrappers.specs import AgentSettings, WrapperSpec

_ID = re.compile(r"(?P<base>.+)-v(?P<version>\d{1,4})")
_MUJOCO = frozenset(
    {
        "Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
        "Pusher", "Reacher", "Swimmer", "Walker2d",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Succession:
    """What became of an environment from one version to another.

    Attributes:
        bases: the ids without their versions.
        old: versions that an agent may be of.
        new: versions that it may be wanted for.
        source: how it is known.
        env_kwargs: keyword arguments that make the new one what the old one was.
        hint: what a person should know, with ``{old}``, ``{new}`` and ``{base}``; None where nothing matters.
    """

    bases: frozenset[str]
    old: range
    new: range
    source: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hint: str | None = None


_DOCS = "Gymnasium's version history of the environment"
_ANY_LATER = 10_000
#: The first row that fits is used.
SUCCESSIONS = (
    Succession(
        frozenset({"Ant"}), range(2, 4), range(4, 5),
        f"{_DOCS}: version 4 leaves contact forces out by default. With mujoco-py 2 they were seen, and always 0. "
        "Measured: the published agents score as published with these, and fail with use_contact_forces alone",
        env_kwargs={"use_contact_forces": True, "contact_force_range": [0.0, 0.0]},
    ),
    Succession(
        frozenset({"Humanoid", "HumanoidStandup"}), range(2, 4), range(4, 5),
        "Gymnasium's notes on version 3: with mujoco-py 2 contact forces were always 0; measured: up to 2,000 in 4",
        hint="Agents of {old} that were trained with mujoco-py 2 saw contact forces of 0, {new} has real ones",
    ),
    Succession(_MUJOCO, range(4), range(4, 5), f"{_DOCS}: another binding of the same simulator; scores measured"),
    Succession(
        _MUJOCO, range(5), range(5, _ANY_LATER),
        f"{_DOCS}: other rewards and observations. Measured: Walker2d 5132 on version 4, 2736 on 5",
        hint="Agents of {old} belong on {base}-v4, not on {new}",
    ),
    Succession(
        frozenset({"LunarLander", "LunarLanderContinuous"}), range(2, 3), range(3, 4),
        f"{_DOCS}: wind is reset with each episode, bounds of the space are wider; scores measured",
    ),
    Succession(frozenset({"Pendulum"}), range(1), range(1, 2), f"{_DOCS}: simpler formulas, no other behaviour"),
    Succession(frozenset({"CartPole"}), range(1), range(1, 2), f"{_DOCS}: 500 steps instead of 200"),
    Succession(
        frozenset({"BipedalWalker", "BipedalWalkerHardcore"}), range(3), range(3, 4),
        f"{_DOCS}: the lidar gives the closest hit instead of the furthest",
        hint="Agents of {old} saw another lidar than that of {new}, and there is no way to have theirs",
    ),
    Succession(
        frozenset({"Acrobot"}), range(1), range(1, 2),
        f"{_DOCS}: sine and cosine of the angles instead of the angles",
        hint="Agents of {old} saw angles, {new} gives their sines and cosines",
    ),
    Succession(
        frozenset({"Taxi"}), range(3), range(3, 4), f"{_DOCS}: a corrected map",
        hint="Agents of {old} know another map than that of {new}",
    ),
    Succession(
        frozenset({"CarRacing"}), range(1), range(1, _ANY_LATER), f"{_DOCS}: laps are completed otherwise",
        hint="Laps of {old} were completed otherwise than those of {new}",
    ),
    Succession(
        frozenset({"CarRacing"}), range(1, 3), range(2, 4), f"{_DOCS}: a completed lap terminates instead of truncating"
    ),
)  # fmt: skip

_STICKY = "repeat_action_probability"
_FRAME_SKIPS = ("frameskip", "frame_skip")
#: What the Atari games show: a picture, or their memory to agents of ``Pong-ram-v4``.
_SEEN = "obs_type"
#: Arguments of wrappers that repeat actions, with their defaults.
_SKIPPING = {
    "AtariWrapper": ("frame_skip", 4), "AtariPreprocessing": ("frame_skip", 4), "MaxAndSkipEnv": ("skip", 4),
    "MaxAndSkipObservation": ("skip", 4), "FrameSkip": ("skip", 4), "RepeatAction": ("num_repeats", 2),
}  # fmt: skip
#: Wrappers that decide themselves how often an action sticks.
_DECIDES_STICKINESS = ("AtariWrapper", "StickyActionEnv", "StickyAction")
#: Atari's ids before ``ALE/…-v5``, some of which aren't registered any more. Source: the ALE's documentation.
_OLD_ATARI = re.compile(r"[A-Za-z]+?(?P<ram>-ram)?(?P<kind>Deterministic|NoFrameskip)?-v(?P<version>[04])")
_OLD_ATARI_SKIPS: Mapping[str | None, Any] = {"Deterministic": 4, "NoFrameskip": 1, None: [2, 5]}
_OLD_ATARI_STICKINESS = {"0": 0.25, "4": 0.0}


def as_trained(ref: CheckpointRef, registration: EnvSpec, given: Mapping[str, Any]) -> CheckpointRef:
    """The checkpoint, with what makes the environment the one that it was trained in; each addition has a note.

    Args:
        ref: the checkpoint.
        registration: of the environment that it is wanted for.
        given: keyword arguments that the user gave; they win.
    """
    needed, reasons = _of_old_id(ref.origin, registration.id)
    frames, reason = _of_frames(ref, registration)
    decided = {**given, **ref.settings.env_kwargs}
    added = {key: value for key, value in {**needed, **frames}.items() if key not in decided}
    notes = list(reasons)
    if added:
        told = " ".join(f"{key}:{value}" for key, value in added.items())
        why = reason if frames else f"as agents of {_old_id(ref.origin, registration.id)} knew it"
        notes.append(f"Checkpoint {ref.label}: {registration.id} is made with {told}, {why}")
    settings = dataclasses.replace(ref.settings, env_kwargs={**added, **ref.settings.env_kwargs})
    return dataclasses.replace(ref, settings=settings, notes=(*ref.notes, *notes))


def old_id_hint(origin: Origin, environment_id: str) -> str | None:
    """What to know about an agent of another version of the environment; None where there is nothing to know."""
    old = _old_id(origin, environment_id)
    if old is None:
        return None
    row = _succession(old, environment_id)
    if row is None:
        return f"The agent was trained in {old}; what {environment_id} does otherwise isn't known here"
    base = environment_id.rpartition("-v")[0]
    return None if row.hint is None else row.hint.format(old=old, new=environment_id, base=base)


def _of_old_id(origin: Origin, environment_id: str) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    old, hint = _old_id(origin, environment_id), old_id_hint(origin, environment_id)
    row = None if old is None else _succession(old, environment_id)
    return ({} if row is None else row.env_kwargs), ((hint,) if hint else ())


def _old_id(origin: Origin, environment_id: str) -> str | None:
    """The id of another version of this environment that the agent says it is of."""
    new = _ID.fullmatch(environment_id)
    if new is None or environment_id in origin.ids:
        return None
    found = [match for match in map(_ID.fullmatch, origin.ids) if match and match["base"] == new["base"]]
    return found[0].string if found else None


def _succession(old_id: str, new_id: str) -> Succession | None:
    old, new = _ID.fullmatch(old_id), _ID.fullmatch(new_id)
    if old is None or new is None:
        return None
    before, after = int(old["version"]), int(new["version"])
    fitting = (row for row in SUCCESSIONS if old["base"] in row.bases and before in row.old and after in row.new)
    return next(fitting, None)


def _of_frames(ref: CheckpointRef, registration: EnvSpec) -> tuple[dict[str, Any], str]:
    """How often the environment has to repeat actions by itself, where it does; and why."""
    keys = (*_FRAME_SKIPS, _STICKY, _SEEN)
    own = {key: _plain(registration.kwargs[key]) for key in keys if key in registration.kwargs}
    skip = next((key for key in _FRAME_SKIPS if key in own), None)
    if skip is None or registration.id == ref.origin.settings:
        return {}, ""
    for old in ref.origin.ids:
        known = _known_frames(old, registration)
        if known is not None:
            wanted = {key: value for key, value in known.items() if value != own.get(key)}
            return wanted, f"as in {old}, where the agent was trained"
    name = next((wrapper.name for wrapper in ref.settings.wrappers if _skips(wrapper)), None)
    if name is None:
        return {}, ""
    wanted = {skip: 1} if own[skip] != 1 else {}
    if own.get(_STICKY) and _decides_stickiness(ref.settings):
        wanted[_STICKY] = 0.0
    return wanted, f"because the agent's {name.rpartition('.')[2]} skips frames itself"


def _known_frames(old: str, registration: EnvSpec) -> dict[str, Any] | None:
    """What another id of the same environment repeats; None if it is none."""
    other = gymnasium.registry.get(old)
    if other is not None and old != registration.id and other.entry_point == registration.entry_point:
        return {key: _plain(other.kwargs[key]) for key in (*_FRAME_SKIPS, _STICKY) if key in other.kwargs}
    match = _OLD_ATARI.fullmatch(old)
    if other is not None or match is None or _STICKY not in registration.kwargs:
        return None
    frames = {"frameskip": _OLD_ATARI_SKIPS[match["kind"]], _STICKY: _OLD_ATARI_STICKINESS[match["version"]]}
    return {**frames, _SEEN: "ram"} if match["ram"] else frames


def _plain(value: object) -> Any:
    return as_json_value(value, "frameskip")


def _skips(wrapper: WrapperSpec) -> bool:
    argument, default = _SKIPPING.get(wrapper.name.rpartition(".")[2], ("", 1))
    times = wrapper.kwargs.get(argument, default)
    return isinstance(times, int) and times > 1


def _decides_stickiness(settings: AgentSettings) -> bool:
    return any(wrapper.name.rpartition(".")[2] in _DECIDES_STICKINESS for wrapper in settings.wrappers)
