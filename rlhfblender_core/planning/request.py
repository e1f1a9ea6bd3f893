"""What a user asks for, in the flags' words: the values that no request can have are refused here.

What fits together with what is registered, and with the environment, is seen in :mod:`rlhfblender_core.planning.plan`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fsspec.utils import get_protocol

from rlhfblender_core.argument_types import as_type, check_fields
from rlhfblender_core.checkpoints.select import parse_wanted
from rlhfblender_core.checkpoints.statistics import NO_STATISTICS
from rlhfblender_core.credentials import has_credentials
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.names import checked_name, path_segment
from rlhfblender_core.registry import DEFAULT_PROJECT
from rlhfblender_core.rollout.code_identity import with_absolute_paths
from rlhfblender_core.rollout.options import RolloutOptions, check_at_least
from rlhfblender_core.wording import did_you_mean

#: As given with ``--checkpoints``: the latest; a random baseline.
LATEST, RANDOM_BASELINE = -1, 0


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What a user asks for; named like the flags. None means "as registered, else the default".

    Attributes:
        num_episodes: per checkpoint; None for as many as the experiment has, see
            :func:`~rlhfblender_core.planning.following.episodes_wanted`.
        options: those of :class:`~rlhfblender_core.rollout.options.RolloutOptions` that are asked for, by name.
        follow: checkpoints that appear in the model folder later get episodes, too.
        default_max_steps_per_episode: of an experiment that isn't registered yet, where the options don't say. A
            registered one keeps what it has: asking for something else would be a conflict.

    Raises:
        RequestError: a value that no request can have.
    """

    env: str | None = None
    exp: str | None = None
    num_episodes: int | None = None
    random: bool = False
    model_path: str | None = None
    checkpoints: Sequence[int | str] = (LATEST,)
    project: str = DEFAULT_PROJECT
    env_gym_entrypoint: str | None = None
    additional_gym_packages: Sequence[str] = ()
    env_display_name: str | None = None
    env_description: str | None = None
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    action_names: Sequence[str] | None = None
    register_only: bool = False
    follow: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    default_max_steps_per_episode: int | None = None
    overwrite: bool = False
    trust_checkpoint: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.checkpoints, str | int):  # one by itself, or "all"
            object.__setattr__(self, "checkpoints", [self.checkpoints])
        check_fields(self)
        checked_name(self.project, "project")
        if self.exp is not None:
            checked_name(self.exp, "experiment")
        if self.env is not None:
            path_segment(self.env)
        check_at_least("--num-episodes", self.num_episodes, 1)
        check_at_least("--default-max-steps-per-episode", self.default_max_steps_per_episode, 1)
        RolloutOptions.merged({}, self.options)  # refuses values that none can have
        if self.model_path is not None and not self.model_path.strip():
            raise InvalidParameterError("--model-path is empty. Give a checkpoint or a folder of them.")
        if self.random and self.model_path:
            raise InvalidParameterError("Give either --random or --model-path, not both.")
        # As one by one from here on: "256,512" is two.
        object.__setattr__(self, "checkpoints", parse_wanted(self.checkpoints))
        self._check_agent()
        if self.random and any(step not in (LATEST, RANDOM_BASELINE) for step in self.checkpoints):
            raise InvalidParameterError("--checkpoints needs a --model-path; a random agent has no checkpoints.")
        if not self.checkpoints:
            raise InvalidParameterError(
                "--checkpoints is empty. Give steps, -1 for the latest, 0 for a random baseline."
            )

    def _check_agent(self) -> None:
        if self.options.get("agent") is None:
            return
        if self.random or self.model_path:
            raise InvalidParameterError("Give --agent alone, or --random, or --model-path.")
        if any(step not in (LATEST, RANDOM_BASELINE) for step in self.checkpoints):
            raise InvalidParameterError("An --agent has no checkpoints. Name its file in --agent-kwargs.")

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Options of an experiment that is new, by name."""
        return {"max_steps_per_episode": self.default_max_steps_per_episode}


#: Of the request's parts, but for the options.
_REQUEST_NAMES = frozenset(field.name for field in fields(GenerationRequest)) - {"options"}


def registrable_path(path: str, flag: str) -> str:
    """A local path as an absolute one, a URL as it is: what the registry keeps is found from anywhere.

    Raises:
        InvalidParameterError: a URL with a password or a token in it.
    """
    if has_credentials(path):
        raise InvalidParameterError(
            f"The {flag} holds a password or a token, which would be registered and shown. Put it into "
            "RLHFBLENDER_STORAGE_OPTIONS."
        )
    if get_protocol(path) in ("file", "local"):
        return str(Path(path.removeprefix("file://")).expanduser().absolute())
    return path


def check_flags(flags: Iterable[str]) -> None:
    """Refuses names that are no part of a request: what is misspelt would otherwise be left out without a word.

    Raises:
        InvalidParameterError: one of them isn't.
    """
    known = {*_REQUEST_NAMES, *RolloutOptions.names(), "no_render"}
    for name in flags:
        if name not in known:
            raise InvalidParameterError(f"{name!r} is no part of a request. {did_you_mean(name, sorted(known))}")


def request_from_flags(flags: Mapping[str, Any]) -> GenerationRequest:
    """The request in the flags of a command, the parameters of a flow, or the keyword arguments of a call.

    Args:
        flags: by name; those that concern only how a request is carried out are left out of it.

    Raises:
        RequestError: a value that no request can have.
    """
    asked = {name: flags.get(name) for name in RolloutOptions.names()}
    if flags.get("no_render") is not None:  # the flag says what is left out, the option what is made
        asked["render"] = not flags["no_render"]
    if flags.get("vecnormalize") is not None:
        file = as_type("vecnormalize", flags["vecnormalize"], str)
        asked["vecnormalize"] = file if file == NO_STATISTICS else registrable_path(file, "--vecnormalize")
    if asked["agent_kwargs"] is not None:  # an empty form says nothing
        given = as_type("agent_kwargs", asked["agent_kwargs"], Mapping[str, Any])
        asked["agent_kwargs"] = with_absolute_paths(given) or None
    options = {name: value for name, value in asked.items() if value is not None}
    return GenerationRequest(**{name: flags[name] for name in flags if name in _REQUEST_NAMES}, options=options)
