"""How episodes are rolled out, as a person may choose it: one set of options, from the flags to the manifest.

An option that is added here is asked for by a flag of the same name, registered with the experiment, and part of the
request's digest; what names an agent is part of the digest by what the agent is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from rlhfblender_core.checkpoints.naming import step_pattern
from rlhfblender_core.errors import InvalidParameterError

_MAX_FPS = 1000
_METHOD = re.compile(r"[A-Za-z]\w{0,99}")
#: What experiments registered by the first version have. Later options are left out of the registry and of the digest
#: while they have their default, so that what was made before is still what the same request makes.
_FIRST_OPTIONS = ("seed", "deterministic", "max_steps_per_episode", "algorithm", "fps", "render")
#: What they decide is part of an agent's own identity: contents, not names and places.
_OF_AGENTS = ("checkpoint_pattern", "vecnormalize", "agent", "agent_kwargs")


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """What decides an experiment's episodes, besides its environment and its agents.

    Attributes:
        seed: of the run, from which episodes' seeds derive.
        deterministic: the distribution's mode instead of samples.
        max_steps_per_episode: where episodes are cut off; None for the environment's own limits only.
        algorithm: the checkpoints' algorithm, where their files don't tell.
        fps: frames per second of the videos; None for the environment's own.
        render: whether there are videos and thumbnails.
        action_mask_method: the environment's method that says which actions are allowed; None for ``action_masks``
            where there is one, ``none`` for no mask.
        checkpoint_pattern: names of checkpoints with ``{step}`` in them; None where the names tell by themselves.
        vecnormalize: the checkpoints' file of observation statistics; None for the one that is beside them.
        agent: ``package.module:factory`` of the user's own agent; None for checkpoints, or random actions.
        agent_kwargs: for the factory, as JSON.
        features: whether a trained policy's last layer is recorded.

    Raises:
        InvalidParameterError: a value that no request can have.
    """

    seed: int = 0
    deterministic: bool = False
    max_steps_per_episode: int | None = None
    algorithm: str | None = None
    fps: float | None = None
    render: bool = True
    action_mask_method: str | None = None
    checkpoint_pattern: str | None = None
    vecnormalize: str | None = None
    agent: str | None = None
    agent_kwargs: Mapping[str, Any] | None = field(default=None, hash=False)
    features: bool = False

    def __post_init__(self) -> None:
        for name, kinds in _kinds_of(RolloutOptions).items():
            value = getattr(self, name)
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise InvalidParameterError(f"The option {name} can't be {value!r:.60}.")
        check_at_least("--seed", self.seed, 0)
        check_at_least("--max-steps-per-episode", self.max_steps_per_episode, 1)
        if self.fps is not None and not 0 < self.fps <= _MAX_FPS:
            raise InvalidParameterError(f"--fps must be above 0 and at most {_MAX_FPS}, not {str(self.fps)[:20]}.")
        if self.action_mask_method is not None and not _METHOD.fullmatch(self.action_mask_method):
            raise InvalidParameterError(
                f"--action-mask-method takes the name of a method, not {self.action_mask_method[:40]!r}."
            )

        if self.checkpoint_pattern is not None:
            step_pattern(self.checkpoint_pattern)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of all options."""
        return tuple(option.name for option in fields(cls))

    @classmethod
    def merged(cls, registered: Mapping[str, Any], asked: Mapping[str, Any]) -> "RolloutOptions":
        """What is asked for, else what is registered, else the default.

        Args:
            registered: as :meth:`to_json` gave it, maybe by an older version.
            asked: by name; None asks for nothing.
        """
        known = {name: value for name, value in registered.items() if name in cls.names()}
        return cls(**{**known, **{name: value for name, value in asked.items() if value is not None}})

    def to_json(self) -> dict[str, Any]:
        """What the registry keeps."""
        return {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if option.name in _FIRST_OPTIONS or getattr(self, option.name) != option.default
        }

    def identity(self) -> dict[str, Any]:
        """What enters the request's digest, by the names that the first version gave."""
        named = {
            "seed": self.seed,
            "deterministic": self.deterministic,
            "max_steps": self.max_steps_per_episode,
            "render": self.render,
            "fps": self.fps if self.render else None,
        }
        return named | self.later()

    def later(self) -> dict[str, Any]:
        """Those that came later and have a value; every manifest says them, so that a lost registry gets them back."""
        return {name: value for name, value in self.to_json().items() if name not in (*_FIRST_OPTIONS, *_OF_AGENTS)}


@cache
def _kinds_of(options: type[Any]) -> dict[str, tuple[type[Any], ...]]:
    """The types that each option may have; a registry's JSON can hold any."""
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(options).items()}
    kinds = {name: tuple(get_origin(part) or part for part in parts) for name, parts in hints.items()}
    return {name: (*held, int) if float in held else held for name, held in kinds.items()}


def check_at_least(flag: str, value: float | None, least: int) -> None:
    """Refuses a number that is too small; None is none.

    Raises:
        InvalidParameterError: it is.
    """
    if value is not None and value < least:
        raise InvalidParameterError(f"{flag} must be {least} or more, not {value}.")
