"""What a user asks for, in the flags' words: the values that no request can have are refused here.

What fits together with what is registered, and with the environment, is seen in :mod:`rlhfblender_core.planning.plan`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.names import checked_name, path_segment
from rlhfblender_core.registry import DEFAULT_PROJECT

#: As given with ``--checkpoints``: the latest; a random baseline.
LATEST, RANDOM_BASELINE = -1, 0

#: What decides an experiment's episodes, with the values of an experiment that doesn't say otherwise.
DEFAULT_SETTINGS: Mapping[str, Any] = {
    "seed": 0,
    "deterministic": False,
    "max_steps_per_episode": None,
    "algorithm": None,
    "fps": None,
    "render": True,
}


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What a user asks for; named like the flags. None means "as registered, else the default".

    Raises:
        RequestError: a value that no request can have.
    """

    env: str | None = None
    exp: str | None = None
    num_episodes: int = 10
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
    seed: int | None = None
    deterministic: bool | None = None
    max_steps_per_episode: int | None = None
    algorithm: str | None = None
    fps: float | None = None
    no_render: bool | None = None
    overwrite: bool = False
    trust_checkpoint: bool = False

    def __post_init__(self) -> None:
        checked_name(self.project, "project")
        if self.exp is not None:
            checked_name(self.exp, "experiment")
        if self.env is not None:
            path_segment(self.env)
        _check_at_least("--num-episodes", self.num_episodes, 1)
        _check_at_least("--seed", self.seed, 0)
        _check_at_least("--max-steps-per-episode", self.max_steps_per_episode, 1)
        if self.fps is not None and not 0 < self.fps <= _MAX_FPS:
            raise InvalidParameterError(f"--fps must be above 0 and at most {_MAX_FPS}, not {self.fps:g}.")
        if self.model_path is not None and not self.model_path.strip():
            raise InvalidParameterError("--model-path is empty. Give a checkpoint or a folder of them.")
        if self.random and self.model_path:
            raise InvalidParameterError("Give either --random or --model-path, not both.")
        if self.random and any(step not in (LATEST, RANDOM_BASELINE) for step in self.checkpoints):
            raise InvalidParameterError("--checkpoints needs a --model-path; a random agent has no checkpoints.")
        if not self.checkpoints:
            raise InvalidParameterError(
                "--checkpoints is empty. Give steps, -1 for the latest, 0 for a random baseline."
            )
        for step in self.checkpoints:
            if isinstance(step, int):
                _check_at_least("--checkpoints", step, LATEST)


_MAX_FPS = 1000


def _check_at_least(flag: str, value: float | None, least: int) -> None:
    if value is not None and value < least:
        raise InvalidParameterError(f"{flag} must be {least} or more, not {value}.")
