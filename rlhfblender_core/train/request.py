"""What a training is asked for, in the flags' words, and what it comes to: nothing is written or started here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from shlex import quote
from typing import Any

from rlhfblender_core.argument_types import check_fields
from rlhfblender_core.checkpoints.algorithms import Algorithm, parse_algorithm
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.export.request import open_target
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.environment import stated_spec
from rlhfblender_core.planning.experiment_names import default_name
from rlhfblender_core.planning.plan import GenerationPlan
from rlhfblender_core.planning.request import (
    RANDOM_BASELINE,
    GenerationRequest,
    check_flags,
    registrable_path,
    request_from_flags,
)
from rlhfblender_core.planning.work import GenerationWork, plan_work
from rlhfblender_core.registry import registry_if_any
from rlhfblender_core.rollout.options import check_at_least
from rlhfblender_core.storage import DataRoot, check_writable, open_data_root
from rlhfblender_core.train.hyperparameters import Hyperparameters, find_hyperparameters
from rlhfblender_core.train.job import TrainingJob
from rlhfblender_core.train.model_folder import (
    TrainingRecord,
    checkpoint_steps,
    foreign_models,
    has_replay_buffer,
    read_record,
)
from rlhfblender_core.workers.pool import available_cores
from rlhfblender_core.wrappers.specs import SETTING_KEYS, AgentSettings, parse_settings

MODELS = "models"
DEFAULT_TIMESTEPS = 100_000
_CHECKPOINTS = 5
#: Environments side by side; training.json may be somebody's.
_MOST_ENVS = 10_000


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What a user asks for; named like the flags. None means "as begun, else the default".

    Attributes:
        generation: what episodes of its checkpoints are asked for with.
        algorithm: RL Zoo's or Stable-Baselines3's name; default PPO.
        total_timesteps: from the very beginning; default that of the hyperparameters.
        checkpoint_every: steps; default a fifth of all.
        hyperparameters: by RL Zoo's names, over those of the file.
        hyperparameters_file: of RL Zoo's format; None for RL Zoo's own.
        n_envs: environments side by side; default that of the hyperparameters, else 1.
        seed: of the training; default 0.
        keep_replay_buffer: save the replay buffer beside the last checkpoint; one that was kept is kept on.
        no_rollouts: train only.
        export_to: a folder that is exported to after each checkpoint, in RLHF-Blender's format.
    """

    generation: GenerationRequest
    algorithm: str | None = None
    total_timesteps: int | None = None
    checkpoint_every: int | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters_file: str | None = None
    n_envs: int | None = None
    seed: int | None = None
    keep_replay_buffer: bool = False
    no_rollouts: bool = False
    export_to: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("total_timesteps", "checkpoint_every", "n_envs"):
            check_at_least(f"--{name.replace('_', '-')}", getattr(self, name), 1)
        if self.algorithm is not None:
            parse_algorithm(self.algorithm)


#: Of a training's parts; the others are those of a generate request.
_OWN_NAMES = frozenset(part.name for part in fields(TrainingRequest)) - {"generation"}
#: Of a generate request, what a training decides itself.
_NOT_ASKED = ("random", "checkpoints", "checkpoint_pattern", "vecnormalize", "agent", "agent_kwargs", "overwrite")


def training_request_from_flags(flags: Mapping[str, Any]) -> TrainingRequest:
    """The request in the flags of the command, the parameters of the flow, or the keyword arguments of a call.

    Args:
        flags: by name; those that concern only how it is carried out are left out of it.

    Raises:
        RequestError: a value that no request can have.
    """
    own = {name: flags[name] for name in flags if name in _OWN_NAMES}
    others = {name: value for name, value in flags.items() if name not in _OWN_NAMES - {"seed"}}
    return TrainingRequest(generation=request_from_flags(others), **own)


def check_training_flags(flags: Mapping[str, Any]) -> None:
    """Refuses names that are no part of a request.

    Raises:
        InvalidParameterError: one of them isn't.
    """
    check_flags([name for name in flags if name not in _OWN_NAMES])
    for name in _NOT_ASKED:
        if name in flags:
            raise InvalidParameterError(f"{name!r} is no part of a training.")


@dataclass(frozen=True)
class TrainingPlan:
    """What will be done.

    Attributes:
        job: of the training process.
        record: of the training so far, with what is asked for now.
        work: registers, and makes the random baseline if episodes are asked for.
        reached: the step of the last checkpoint; 0 for none.
        note: where the hyperparameters are from.
        request: what was asked for, with the name of its experiment.
    """

    job: TrainingJob
    record: TrainingRecord
    work: GenerationWork
    reached: int
    note: str
    request: TrainingRequest

    @property
    def is_over(self) -> bool:
        """Whether all steps that are asked for have been made."""
        return self.reached >= self.job.total_timesteps

    def rollouts(self, steps: list[int]) -> GenerationRequest:
        """Asks for the episodes of checkpoints, with which the baseline stays level."""
        wanted = self.request.generation
        return replace(
            wanted,
            model_path=self.job.folder.url,
            register_only=False,
            checkpoints=[RANDOM_BASELINE, *steps],
            num_episodes=self.work.plan.num_episodes,  # of the baseline some may have failed
        )


def plan_training(request: TrainingRequest, locations: Locations, workers: int | None = None) -> TrainingPlan:
    """Resolves and checks a request; writes nothing.

    Args:
        request: what the user asks for.
        locations: data root and registry.
        workers: processes that make episodes meanwhile; None for half of the cores.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    if request.export_to is not None:
        open_target(request.export_to, locations.open_root())
    named = request.generation.model_path
    request = _located(request, locations)
    generation = request.generation
    folder = open_data_root(str(generation.model_path), dict(locations.storage_options))
    check_writable(folder)
    asked = replace(generation, checkpoints=[RANDOM_BASELINE], register_only=request.no_rollouts)
    work = plan_work(asked, locations)
    begun = read_record(folder)
    reached = max(checkpoint_steps(folder), default=0)
    if begun is None and (models := foreign_models(folder)):
        raise InvalidParameterError(
            f"{folder.display_url(models[0])} is there, and no training.json that tells how to go on from it. Train "
            "under another --exp or --model-path, or make episodes of it: `python flows/generate.py "
            f"--env {quote(work.plan.environment.env_id)} --model-path {quote(folder.display_url())}`."
        )
    if begun is None and named is None and generation.model_path != _usual_path(generation.exp, locations):
        raise InvalidParameterError(  # the registry may be somebody's: where files are written is for the user to say
            f"The registry has {folder.display_url('')} for the checkpoints of {generation.exp}, and no training was "
            f"begun there. Name the folder to train there: --model-path {generation.model_path}"
        )
    job, note = _job(request, work.plan, begun, folder, workers)
    if begun is not None:
        _check_same(job, begun)
    record = TrainingRecord(job.begun_as, job.total_timesteps, job.checkpoint_every, note)
    if begun is not None:
        record = replace(
            begun, begun_as=job.begun_as, total_timesteps=job.total_timesteps, checkpoint_every=job.checkpoint_every
        )
    return TrainingPlan(job, record, work, reached, note, request)


def _located(request: TrainingRequest, locations: Locations) -> TrainingRequest:
    """The request with the name of its experiment, and where its checkpoints go."""
    wanted = request.generation
    with registry_if_any(locations.database_url) as registry:
        if wanted.exp is None:
            if wanted.env is None:
                raise InvalidParameterError("Give --env with a Gymnasium id, or --exp with a registered experiment.")
            wanted = replace(wanted, exp=default_name(wanted.env, "trained", wanted.env_kwargs, registry))
        known = registry.find_experiment(wanted.exp or "") if registry else None
    path = wanted.model_path or (known.model_path if known else None) or _usual_path(wanted.exp, locations)
    path = registrable_path(path, "--model-path").rstrip("/")
    if path.endswith(".zip"):
        raise InvalidParameterError(f"--model-path {path} is one checkpoint; a training needs a folder.")
    return replace(request, generation=replace(wanted, model_path=path))


def _usual_path(experiment: str | None, locations: Locations) -> str:
    path = locations.open_root().display_url(f"{MODELS}/{experiment}")
    return registrable_path(path, "--model-path").rstrip("/")


def _job(
    request: TrainingRequest,
    plan: GenerationPlan,
    begun: TrainingRecord | None,
    folder: DataRoot,
    workers: int | None,
) -> tuple[TrainingJob, str]:
    held = begun.begun_as if begun else {}
    algorithm = parse_algorithm(str(request.algorithm or held.get("algorithm") or Algorithm.PPO))
    assert plan.experiment is not None, "a training has an experiment"  # noqa: S101 (for the type checker)
    env_kwargs = plan.experiment.env_kwargs
    spec = stated_spec(plan.environment, {k: v for k, v in env_kwargs.items() if k not in SETTING_KEYS})
    given = {**request.hyperparameters, **{name: env_kwargs[name] for name in SETTING_KEYS if name in env_kwargs}}
    if begun is None or given or request.hyperparameters_file or str(algorithm) != held.get("algorithm"):
        found = find_hyperparameters(algorithm, spec, request.hyperparameters_file, given)
    else:
        found = Hyperparameters(held["hyperparameters"], begun.hyperparameters_from)
    values = dict(found.values)
    if begun is not None and not request.hyperparameters_file:  # tuned files may have another version by now
        values = {**held["hyperparameters"], **{name: values[name] for name in given}}
    n_envs = _whole("n_envs", values.pop("n_envs", None))
    total = _whole("n_timesteps", values.pop("n_timesteps", None))
    total = request.total_timesteps or (begun.total_timesteps if begun else None) or total or DEFAULT_TIMESTEPS
    every = request.checkpoint_every or (begun.checkpoint_every if begun else None) or max(1, total // _CHECKPOINTS)
    n_envs = _first(request.n_envs, n_envs, held.get("n_envs"), 1)
    if not 1 <= n_envs <= _MOST_ENVS:
        raise InvalidParameterError(f"n_envs must be from 1 to {_MOST_ENVS:,}, not {n_envs}.")
    job = TrainingJob(
        experiment=plan.experiment.name,
        spec=spec,
        settings=_settings(values),
        algorithm=algorithm,
        hyperparameters=values,
        n_envs=n_envs,
        seed=_first(request.seed, held.get("seed"), 0),
        total_timesteps=total,
        checkpoint_every=every,
        keep_replay_buffer=request.keep_replay_buffer or (begun is not None and has_replay_buffer(folder)),
        folder=folder,
        threads=max(1, available_cores() - (0 if request.no_rollouts else rollout_workers(workers))),
    )
    return job, found.note


def rollout_workers(workers: int | None) -> int:
    """How many processes make episodes while an agent learns: half of the cores, if nobody says."""
    return workers if workers is not None else max(1, available_cores() // 2)


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _whole(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < 1:
        raise InvalidParameterError(f"{name} must be a whole number from 1, not {value!r:.40}.")
    return int(value)


def _settings(values: Mapping[str, Any]) -> AgentSettings:
    try:
        return parse_settings({name: values[name] for name in ("normalize", *SETTING_KEYS) if name in values})
    except ValueError as error:
        raise InvalidParameterError(f"hyperparameters: {error}.") from error


def _check_same(job: TrainingJob, begun: TrainingRecord) -> None:
    wanted, before = _flat(job.begun_as), _flat(begun.begun_as)
    for name in sorted({*wanted, *before}):
        if wanted.get(name) != before.get(name):
            raise InvalidParameterError(
                f"The training of {job.experiment} was begun with {name} {before.get(name)!r:.80}, not "
                f"{wanted.get(name)!r:.80}. Go on as it was begun, or train under another --exp."
            )


def _flat(begun_as: Mapping[str, Any]) -> dict[str, Any]:
    """With each hyperparameter by its own name."""
    return {**begun_as, **begun_as["hyperparameters"], "hyperparameters": None}
