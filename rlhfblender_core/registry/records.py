"""What goes into the registry and comes out of it: frozen records that check themselves.

A record that goes in says only what its caller knows: ``None`` and empty mean "not given", and the registry keeps or
fills in its own value. A record that comes out is what is registered. ORM rows never leave the package.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from typing import Any, Literal, get_args

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.names import checked_name, path_segment

#: A JSON object as a column holds it.
JsonDict = dict[str, Any]

#: What an experiment's episodes come from.
ExperimentKind = Literal["random", "trained", "agent"]

DEFAULT_PROJECT = "RLHF-Blender"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRecord:
    """A named group of experiments.

    Attributes:
        name: unique.
        created_at: when it was registered, in UTC; None before that.
    """

    name: str
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        checked_name(self.name, "project")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRecord:
    """A Gymnasium environment and how to make it.

    Attributes:
        env_id: the id it is made by, unique: ``ALE/Pong-v5``.
        display_name: how people call it.
        description: one or more sentences about it.
        entry_point: ``module:Class``; None where a package registers the id itself.
        additional_packages: imported before the environment is made.
        observation_space: its description, without keyword arguments where it can be made so; empty while unknown.
        action_space: likewise.
        action_names: one label per action or action dimension.
        created_at: when it was registered, in UTC; None before that.
        updated_at: when its row last changed, in UTC; None before it was registered.

    Raises:
        InvalidNameError: the id could not become a path segment.
        InvalidParameterError: something in a JSON field has no JSON form (sets, bytes, NaN, infinities).
    """

    env_id: str
    display_name: str | None = None
    description: str | None = None
    entry_point: str | None = None
    additional_packages: tuple[str, ...] = ()
    observation_space: JsonDict = field(default_factory=dict)
    action_space: JsonDict = field(default_factory=dict)
    action_names: tuple[str, ...] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        path_segment(self.env_id)
        for name in ("observation_space", "action_space"):
            _store_json_form(self, name, f"the {name} of environment {self.env_id!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """From where on checkpoints that appear in an experiment's model folder get episodes without being asked for.

    Attributes:
        after: those of more steps do; -1 for all.
        since: those that don't say their steps do if they were written later, in UTC.
        num_episodes: per checkpoint, unless the experiment has more of one.
        has_baseline: whether the random baseline is made beside them, also where there is none yet.
    """

    after: int
    since: datetime
    num_episodes: int
    has_baseline: bool = False

    def to_json(self) -> JsonDict:
        """As the registry keeps it."""
        return asdict(self) | {"since": self.since.isoformat()}

    @classmethod
    def from_json(cls, held: JsonDict) -> "Following":
        """What :meth:`to_json` gave."""
        return cls(**{**held, "since": datetime.fromisoformat(held["since"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """A named study of one environment.

    Attributes:
        name: unique over all projects.
        env_id: the environment it studies.
        kind: random actions, trained checkpoints, or an agent of the user's own code.
        project: :data:`DEFAULT_PROJECT` asks for nothing: a registered experiment stays in its own project.
        model_path: folder or file of its checkpoints; None for a random agent, or where it isn't given.
        settings: what else determines its episodes; empty where they aren't given.
        env_kwargs: keyword arguments that its environment is made with: of the constructor, of the spec
            (``max_episode_steps``), and settings for the agent's view (``frame_stack``); empty where none are given.
        observation_space: description of its environment's, made with these; empty while unknown.
        action_space: likewise.
        following: which new checkpoints get episodes by themselves; None for none, or where it isn't given.
        num_episodes: the most that were asked for per checkpoint; None where unknown, or where it isn't given.
        created_at: when it was registered, in UTC; None before that.
        updated_at: when its row last changed, in UTC; None before it was registered.

    Raises:
        InvalidNameError: a name could not become a path segment.
        InvalidParameterError: an unknown kind, or a setting that has no JSON form.
    """

    name: str
    env_id: str
    kind: ExperimentKind
    project: str = DEFAULT_PROJECT
    model_path: str | None = None
    settings: JsonDict = field(default_factory=dict)
    env_kwargs: JsonDict = field(default_factory=dict)
    observation_space: JsonDict = field(default_factory=dict)
    action_space: JsonDict = field(default_factory=dict)
    following: Following | None = None
    num_episodes: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __post_init__(self) -> None:
        checked_name(self.name, "experiment")
        checked_name(self.project, "project")
        path_segment(self.env_id)
        if self.kind not in get_args(ExperimentKind):
            *kinds, last = map(repr, get_args(ExperimentKind))
            raise InvalidParameterError(f"An experiment's kind is {', '.join(kinds)} or {last}, not {self.kind!r}.")
        for name in ("settings", "env_kwargs", "observation_space", "action_space"):
            _store_json_form(self, name, f"the {name} of experiment {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """One saved policy of an experiment.

    Attributes:
        experiment: the experiment's name.
        label: names its folder: the step, ``final``, ``best`` or ``random``.
        step: environment steps it was trained for; None where unknown.
        sha256: of the checkpoint's file, in hex; None for a random agent.
        algorithm: ``PPO`` and the like; None where unknown.
    """

    experiment: str
    label: str
    step: int | None = None
    sha256: str | None = None
    algorithm: str | None = None

    def __post_init__(self) -> None:
        checked_name(self.label, "checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """One published episode: the index's copy of what its manifest says.

    Attributes:
        experiment: the experiment's name.
        checkpoint: the checkpoint's label.
        number: from 0.
        seed: below 2**63; None where it isn't known (imported episodes).
        episode_return: sum of the rewards; NaN where it isn't known.
        episode_length: steps.
        terminated: the environment ended it.
        truncated: a time limit ended it.
        request_digest: digest of everything that determines the episode's bytes.
        manifest_sha256: of the manifest's file, in hex.
        sizes: bytes of its files and of its manifest, by the folder that holds that kind; None where an older version
            wrote the row.
        warnings: what a person should know of it.
        created_at: when it was made, in UTC; None for "now".
    """

    experiment: str
    checkpoint: str
    number: int
    seed: int | None
    episode_return: float
    episode_length: int
    terminated: bool
    truncated: bool
    request_digest: str
    manifest_sha256: str | None = None
    sizes: dict[str, int] | None = None
    warnings: tuple[str, ...] = ()
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InvalidParameterError(f"The registry holds seeds from 0 to 2**63 - 1, not {self.seed}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnSummary:
    """What the index says of some of a checkpoint's episodes.

    Attributes:
        checkpoint: the checkpoint's label.
        episodes: how many there are.
        mean_return, std_return: NaN where a return isn't known; the deviation is the population's.
        mean_length, min_length, max_length: in steps.
    """

    checkpoint: str
    episodes: int
    mean_return: float
    std_return: float
    mean_length: float
    min_length: int
    max_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run at work on an experiment; one that works on several has a record for each.

    Attributes:
        id: of the run; sorted by it, runs are sorted by when they started.
        experiment: the experiment's name, which needn't be registered.
        digests: of the requests it makes, by checkpoint's label.
        machine: where it runs.
        staging: its folder for unfinished files there, whose lock dies with the run; None for a run without one.
        silent_s: seconds since its last heartbeat, by the database's clock.
    """

    id: str
    experiment: str
    digests: dict[str, str] = field(default_factory=dict)
    machine: str
    staging: str | None = None
    silent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a run got of the episodes it wanted to claim.

    Attributes:
        free: numbers that are the run's now, ascending.
        taken_over: those of them that had been claimed before, by a run that died or by an earlier try of this one:
            files without a manifest that lie in their places are ours.
        held: numbers that other live runs have claimed.
        indexed: those that are free and have a row: they were published before, maybe in this moment.
    """

    free: tuple[int, ...]
    taken_over: frozenset[int]
    held: frozenset[int]
    indexed: frozenset[int] = frozenset()


@cache
def field_names(kind: Any) -> tuple[str, ...]:
    """Of a kind of record."""
    return tuple(own.name for own in fields(kind))


def _store_json_form(record: object, name: str, what: str) -> None:
    """Replaces a JSON field by what reading it back will give, so that first and later runs see the same."""
    value = getattr(record, name)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidParameterError(f"What stands for {what} is {value!r:.60}, not names with values.")
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParameterError(
            f"A value in {what} can't be stored ({error}). Use numbers, texts, booleans, None, lists and dicts."
        ) from error
    object.__setattr__(record, name, json.loads(text))
