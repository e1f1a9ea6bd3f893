"""From what a user asked for to what will be done. Reads everywhere, writes nowhere.

Whatever can be wrong with a request is found here, before anything is registered or written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.fetch import CheckpointRef, fetch_checkpoint
from rlhfblender_core.checkpoints.find import CheckpointFile, find_checkpoints
from rlhfblender_core.checkpoints.select import choose_checkpoints
from rlhfblender_core.checkpoints.successors import as_trained
from rlhfblender_core.environments import (
    ONLY_DECLARED,
    EnvironmentDescription,
    Trust,
    describe_environment,
    split_env_kwargs,
)
from rlhfblender_core.environments.registration import find_registration
from rlhfblender_core.errors import InvalidParameterError, RegistryConflictError
from rlhfblender_core.planning.environment import (
    admit_environment,
    admit_id,
    described,
    fitting_names,
    merged_environment,
    requested_environment,
    spec_of,
)
from rlhfblender_core.planning.experiment_names import check_free, default_name, in_its_project
from rlhfblender_core.planning.fit import check_fit
from rlhfblender_core.planning.following import DEFAULT_EPISODES, begin_following, episodes_wanted
from rlhfblender_core.planning.notes import mask_notes, moved_notes, statistics_notes
from rlhfblender_core.planning.request import RANDOM_BASELINE, GenerationRequest, registrable_path
from rlhfblender_core.registry import (
    EnvironmentRecord,
    ExperimentKind,
    ExperimentRecord,
    Registry,
    experiment_conflict,
)
from rlhfblender_core.rollout.agents import CheckpointAgent, RandomAgent, RolloutAgent
from rlhfblender_core.rollout.entry_point_agent import entry_point_agent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.wrappers.masks import NO_MASK
from rlhfblender_core.wrappers.specs import settings_from_env_kwargs


@dataclass(frozen=True)
class GenerationPlan:
    """What will be done.

    Attributes:
        environment: to be registered, with what is registered already filled in.
        experiment: likewise; None when only the environment is to be registered.
        settings: one per checkpoint, in the order asked for; empty when nothing is to be generated.
        num_episodes: per checkpoint.
        replace: whether episodes and settings that are there are made anew.
        notes: what a person should know, though it stops nothing.
    """

    environment: EnvironmentRecord
    experiment: ExperimentRecord | None
    settings: tuple[RolloutSettings, ...]
    num_episodes: int
    replace: bool
    notes: tuple[str, ...] = ()


def plan_generation(
    request: GenerationRequest,
    registry: Registry | None,
    cache: Path,
    storage_options: Mapping[str, Any] | None = None,
    trust: Trust = ONLY_DECLARED,
) -> GenerationPlan:
    """Resolves and checks a request; remote checkpoints are fetched into the cache.

    Args:
        request: what the user asks for.
        registry: None where there is none yet.
        cache: folder for fetched checkpoints.
        storage_options: for remote checkpoints.
        trust: what the registry may name to make the environment with; it remembers what the request names.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    request, registered, note = in_its_project(request, registry)
    env_id = _environment_id(request, registered)
    kind = _kind(request, registered)
    if kind is not None and request.exp is None:
        request = replace(request, exp=default_name(env_id, kind, request.env_kwargs, registry))
        registered = registry.find_experiment(request.exp) if registry and request.exp else None
    env_kwargs = request.env_kwargs or (registered.env_kwargs if registered else {})
    admit_id(env_id, request, trust)
    wanted_environment = requested_environment(request, env_id)
    known = registry.find_environment(env_id) if registry else None
    environment = merged_environment(known, wanted_environment)
    options = RolloutOptions.merged(registered.settings if registered else request.defaults, request.options)
    experiment = None if kind is None else _experiment_record(request, registered, env_id, kind, options)
    if registry and experiment and registered is None:
        check_free(experiment.name, registry)
    admit_environment(environment, wanted_environment, env_kwargs, request, trust)  # what follows runs code
    spec = spec_of(environment, env_kwargs)
    try_out = not request.register_only
    description = describe_environment(spec, render=options.render and try_out, try_out=try_out)
    environment = described(environment, description, request, env_kwargs)
    if experiment is None:
        return GenerationPlan(environment, None, (), request.num_episodes or DEFAULT_EPISODES, request.overwrite)
    known_following = registered.following if registered else None
    num_episodes = request.num_episodes or episodes_wanted(experiment.name, known_following, registry)
    experiment = replace(
        experiment,
        observation_space=description.observation_space,
        action_space=description.action_space,
        # Registered before any are made: the same command, without a number too, finishes what was cut short.
        num_episodes=request.num_episodes if request.register_only else num_episodes,
    )
    rollouts: tuple[RolloutSettings, ...] = ()
    notes: tuple[str, ...] = ()
    if not request.register_only:
        if experiment.kind == "agent" and not request.random:
            agents = _own_agents(request, options, trust)
        else:
            agents, notes = _agents(request, experiment, environment, options, cache, storage_options)
        notes = (*note, *moved_notes(registered, experiment), *notes)
        for agent in agents:
            if isinstance(agent, CheckpointAgent) and not agent.trust:
                trust.admit_agent_kwargs(spec, agent.env_kwargs)
        rollouts = tuple(_rollout_settings(environment, env_kwargs, description, agent, options) for agent in agents)
        notes += mask_notes(agents, options, description)
        notes += check_fit(rollouts, spec, description)
    if request.follow:
        following = begin_following(
            experiment,
            registry,
            storage_options,
            chosen=[agent.step for agent in (rollout.agent for rollout in rollouts) if agent.is_trained],
            num_episodes=num_episodes,
            has_baseline=RANDOM_BASELINE in request.checkpoints,
        )
        experiment = replace(experiment, following=following)
    notes = tuple(dict.fromkeys(notes))
    return GenerationPlan(environment, experiment, rollouts, num_episodes, request.overwrite, notes)


def _environment_id(request: GenerationRequest, registered: ExperimentRecord | None) -> str:
    if request.env is not None:
        return request.env
    if registered is not None:
        return registered.env_id
    if request.exp is not None:
        raise InvalidParameterError(f"No experiment {request.exp!r} is registered. Give --env to make a new one.")
    raise InvalidParameterError("Give --env with a Gymnasium id, or --exp with a registered experiment.")


def _kind(request: GenerationRequest, registered: ExperimentRecord | None) -> ExperimentKind | None:
    """Whether the experiment is one of checkpoints; ``--random`` on one of those adds its random baseline."""
    if request.random:
        adds_baseline = registered is not None and registered.kind != "random" and not request.overwrite
        return registered.kind if registered is not None and adds_baseline else "random"
    if request.options.get("agent") is not None:
        return "agent"
    if request.model_path is not None:
        return "trained"
    if registered is not None:
        return registered.kind
    if request.register_only and request.exp is None:
        return None
    raise InvalidParameterError(
        "Give --random for a random agent, --model-path with a checkpoint or a folder of them, or --agent for your own."
    )


def _experiment_record(
    request: GenerationRequest,
    registered: ExperimentRecord | None,
    env_id: str,
    kind: ExperimentKind,
    options: RolloutOptions,
) -> ExperimentRecord:
    record = ExperimentRecord(
        name=request.exp or "",
        env_id=env_id,
        kind=kind,
        project=request.project,
        model_path=_model_path(request, registered if kind == "trained" else None),
        settings=options.to_json(),
        env_kwargs=dict(request.env_kwargs) or (registered.env_kwargs if registered else {}),
    )
    conflict = registered and experiment_conflict(registered, record, replace_settings=request.overwrite)
    if conflict:
        raise RegistryConflictError(conflict)
    return record


def _model_path(request: GenerationRequest, registered: ExperimentRecord | None) -> str | None:
    if request.model_path is None:
        return registered.model_path if registered else None
    return registrable_path(request.model_path, "--model-path")


def _agents(
    request: GenerationRequest,
    experiment: ExperimentRecord,
    environment: EnvironmentRecord,
    options: RolloutOptions,
    cache: Path,
    storage_options: Mapping[str, Any] | None,
) -> tuple[list[RolloutAgent], tuple[str, ...]]:
    """Who acts, in the order asked for, and what a person should know about them."""
    if experiment.kind == "random" or request.random:
        return [RandomAgent()], ()
    if experiment.model_path is None:
        raise InvalidParameterError(f"Experiment {experiment.name!r} has no model path. Give it with --model-path.")
    steps = request.checkpoints
    files: tuple[CheckpointFile, ...] = ()
    found: tuple[CheckpointFile, ...] = ()
    notes: tuple[str, ...] = ()
    if any(step != RANDOM_BASELINE for step in steps):
        path, pattern = experiment.model_path, options.checkpoint_pattern
        found = find_checkpoints(path, environment.env_id, storage_options, pattern=pattern)
        wanted = [step for step in steps if step != RANDOM_BASELINE]
        files, notes = choose_checkpoints(found, wanted, storage_options)
    refs = [_fetched(file, request, environment, experiment, cache, storage_options) for file in files]
    agents: list[RolloutAgent] = [
        CheckpointAgent(file, ref, request.trust_checkpoint) for file, ref in zip(files, refs, strict=True)
    ]
    if RANDOM_BASELINE in steps:
        agents.insert(min(steps.index(RANDOM_BASELINE), len(agents)), RandomAgent())
        if any(file.step == 0 for file in found):
            notes += ("--checkpoints 0 is a random baseline; the checkpoint of step 0 is asked for as ':0'",)
    ignored = [note for agent in agents if isinstance(agent, CheckpointAgent) for note in agent.notes]
    if options.action_mask_method not in (None, NO_MASK):
        unmasked = dict.fromkeys(agent.algorithm for agent in agents if not agent.takes_masks)
        ignored += [f"--action-mask-method means nothing to {name}, which chooses without a mask." for name in unmasked]
    notes += statistics_notes(files, refs, found, options)
    return agents, tuple(dict.fromkeys((*notes, *(note for ref in refs for note in ref.notes), *ignored)))


def _own_agents(request: GenerationRequest, options: RolloutOptions, trust: Trust) -> list[RolloutAgent]:
    """The user's own agent, and the random baseline; in the order asked for."""
    if options.agent is None:
        raise InvalidParameterError(f"Experiment {request.exp!r} has no --agent. Give it.")
    kwargs = dict(options.agent_kwargs or {})
    asked = request.options
    is_named = asked.get("agent") is not None and (not kwargs or asked.get("agent_kwargs") is not None)
    trust.admit_agent(options.agent, kwargs, is_named=is_named)
    own = entry_point_agent(options.agent, kwargs)
    return [RandomAgent() if step == RANDOM_BASELINE else own for step in dict.fromkeys(request.checkpoints)]


def _fetched(
    file: CheckpointFile,
    request: GenerationRequest,
    environment: EnvironmentRecord,
    experiment: ExperimentRecord,
    cache: Path,
    storage_options: Mapping[str, Any] | None,
) -> CheckpointRef:
    overrides, given = settings_from_env_kwargs(split_env_kwargs(experiment.env_kwargs)[0])
    options = RolloutOptions.merged(experiment.settings, {})
    ref = fetch_checkpoint(
        file,
        cache,
        storage_options,
        algorithm=options.algorithm,
        overrides=overrides,
        trust=request.trust_checkpoint,
        statistics=options.vecnormalize,
    )
    return as_trained(ref, find_registration(spec_of(environment, experiment.env_kwargs)), given)


def _rollout_settings(
    environment: EnvironmentRecord,
    env_kwargs: Mapping[str, Any],
    description: EnvironmentDescription,
    agent: RolloutAgent,
    options: RolloutOptions,
) -> RolloutSettings:
    return RolloutSettings(
        environment=spec_of(environment, env_kwargs, agent.env_kwargs),
        agent=agent,
        options=replace(
            options,
            fps=options.fps or description.fps,
            deterministic=options.deterministic and agent.is_trained,
            features=options.features and agent.is_trained,
            action_mask_method=options.action_mask_method if agent.takes_masks else None,
        ),
        action_names=fitting_names(environment, description),
        packages=tuple(sorted(description.package_versions)),
    )
