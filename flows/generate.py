"""Generate episodes of an agent in an environment: the main flow, and its command line.

``python flows/generate.py --env CartPole-v1 --random`` on a machine, ``prefect deployment run 'generate/…'`` on a
schedule: the same flow, with parameters named like the flags.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.generate")

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cli.arguments import REFUSED, make_parser, run_flow, say_where_to_look
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, fail
from flows.cli.progress import TerminalDisplay, current_display
from flows.cli.secret_parameters import DatabaseUrl
from flows.execution.crashed_task_runs import end_lost_tasks
from flows.execution.prefect_steps import CheckpointWork, Outcome, run_shards
from flows.execution.rendering_limit import rendering_slot
from flows.execution.task_runners import RunnerChoice, RunnerKind, open_runner
from flows.head_start import head_start, means_of
from flows.jobs import Job, make_job, warm_up
from flows.signs_of_life import SIGNS_OF_LIFE
from flows.ui.generate_artifacts import progress_in_ui, show_in_ui, tag_run
from flows.ui.parameter_forms import shown_as_form
from rlhfblender_core.environments import parse_env_kwargs
from rlhfblender_core.errors import OutOfReachError, RequestError, TransientError, one_line
from rlhfblender_core.planning.plan import GenerationPlan
from rlhfblender_core.planning.request import LATEST, GenerationRequest, request_from_flags
from rlhfblender_core.registry import DEFAULT_PROJECT, CheckpointRecord
from rlhfblender_core.report.summary import Report
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.wording import counted
from rlhfblender_core.workers.progress import ProgressCounter
from tasks.checkpoints import load_checkpoint
from tasks.config import Locations, resolve_locations
from tasks.parameters import quoted
from tasks.registration import ensure_env_registered, ensure_experiment_registered, index_episodes

#: More than so many are counted in a run's name.
_NAMED_CHECKPOINTS = 3


def run_name() -> str:
    """``generate CartPole-v1 random``, ``generate my-study 1000 2000``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    who = "random" if parameters.get("random") else ("trained" if parameters.get("model_path") else None)
    if parameters.get("register_only"):
        who = "register only"
    wanted = [str(step) for step in parameters.get("checkpoints") or () if step != LATEST]
    if len(wanted) > _NAMED_CHECKPOINTS:
        wanted = [f"{len(wanted)} checkpoints"]
    return " ".join(filter(None, ["generate", parameters.get("exp") or parameters.get("env"), who, *wanted]))


@shown_as_form
@flow(name="generate", flow_run_name=run_name, **SIGNS_OF_LIFE)
def generate(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    *,
    env: Annotated[
        str | None, Field(description="Gymnasium id, e.g. CartPole-v1; left out with a registered experiment")
    ] = None,
    exp: Annotated[
        str | None,
        Field(description="experiment; default <env>_random_experiment or <env>_trained_experiment"),
    ] = None,
    num_episodes: Annotated[int, Field(ge=1, description="episodes per checkpoint (default 10)")] = 10,
    random: Annotated[bool, Field(description="a random agent")] = False,
    model_path: Annotated[
        str | None, Field(description="folder of checkpoints (local or any fsspec URL), or one .zip")
    ] = None,
    checkpoints: Annotated[
        list[int | str],
        Field(
            description="training steps, also 256,512; first:last:distance; -1 the latest (default), 0 a random "
            "baseline; final, best, all"
        ),
    ] = [-1],  # noqa: B006 (Prefect copies defaults)
    checkpoint_pattern: Annotated[
        str | None, Field(description="names of the checkpoints, where theirs don't tell, e.g. 'ppo_vec_{step}.zip'")
    ] = None,
    vecnormalize: Annotated[
        str | None, Field(description="file of the checkpoints' observation statistics, where several are beside them")
    ] = None,
    project: Annotated[str, Field(description=f"project (default {DEFAULT_PROJECT})")] = DEFAULT_PROJECT,
    env_gym_entrypoint: Annotated[
        str | None, Field(description="module:Class of a custom environment, registered as that id")
    ] = None,
    additional_gym_packages: Annotated[
        list[str], Field(description="packages to import before the environment is made")
    ] = [],  # noqa: B006
    env_display_name: Annotated[str | None, Field(description="how people call the environment")] = None,
    env_description: Annotated[str | None, Field(description="a sentence about the environment")] = None,
    env_kwargs: Annotated[
        dict[str, Any],
        Field(
            description="keyword arguments of the environment, e.g. max_episode_steps:1000 "
            '(in a form {"max_episode_steps": 1000})'
        ),
    ] = {},  # noqa: B006
    action_names: Annotated[list[str] | None, Field(description="labels of the actions")] = None,
    register_only: Annotated[bool, Field(description="register, generate nothing")] = False,
    seed: Annotated[int | None, Field(ge=0, description="seed of the run (default 0)")] = None,
    deterministic: Annotated[
        bool | None, Field(description="take the most probable action instead of a sample")
    ] = None,
    max_steps_per_episode: Annotated[
        int | None, Field(ge=1, description="cut episodes off after so many steps, as truncated")
    ] = None,
    algorithm: Annotated[
        str | None, Field(description="the checkpoints' algorithm, where their files don't tell, e.g. PPO")
    ] = None,
    fps: Annotated[
        float | None,
        Field(gt=0, le=1000, description="frames per second of videos (default the environment's, else 30)"),
    ] = None,
    no_render: Annotated[bool | None, Field(description="no videos and no thumbnails")] = None,
    action_mask_method: Annotated[
        str | None,
        Field(description="the environment's method that says which actions are allowed (default action_masks)"),
    ] = None,
    overwrite: Annotated[bool, Field(description="make episodes anew that are there, with these settings")] = False,
    trust_checkpoint: Annotated[
        bool, Field(description="let a checkpoint that you made yourself run its own code (custom policy classes)")
    ] = False,
    runner: Annotated[
        RunnerKind,
        Field(description="where episodes are rolled out: this machine (auto, inprocess, process), dask or ray"),
    ] = "auto",
    workers: Annotated[
        int | None, Field(ge=1, description="workers at once (default the cores this process may use)")
    ] = None,
    dask_address: Annotated[
        str | None, Field(description="Dask scheduler, tcp://host:port (default a temporary cluster here)")
    ] = None,
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Registers the environment and the experiment, rolls out the episodes that are missing and publishes them."""
    end_lost_tasks()
    try:
        request = request_from_flags(locals())
        choice = RunnerChoice(runner, workers, dask_address)
        locations = resolve_locations(data_root, database_url)
        job = _job(request, locations, choice)
        tag_run(job.plan)
        report = carry_out(job, locations, choice)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except (TransientError, OutOfReachError) as error:
        return Failed(message=one_line(error))
    show_in_ui(job.plan, report, locations)
    _show(report)
    if report.failed:
        return Failed(message=f"{report.failed} of {report.wanted} episodes failed: {report.first_failure}")
    return Completed(message=_success(report))


#: The job that the command line made before it started Prefect, so that a wrong request is refused at once.
_prepared_job: ContextVar[Job | None] = ContextVar("prepared_job", default=None)


# The flow's own body must not name context variables: it travels to a cluster with what it names, and they can't.


def _job(request: GenerationRequest, locations: Locations, choice: RunnerChoice) -> Job:
    return _prepared_job.get() or prepare_job(request, locations, choice)


def prepare_job(request: GenerationRequest, locations: Locations, choice: RunnerChoice) -> Job:
    """The job of a request, checked, with its worker processes warming up."""
    job = make_job(request, locations)
    warm_up(job, choice.for_agents(trained=job.is_trained))
    return job


def _show(report: Report) -> None:
    current_display.get().show(report)


def carry_out(job: Job, locations: Locations, choice: RunnerChoice) -> Report:
    """Registers, rolls out and publishes what the job says."""
    root, plan = locations.open_root(), job.plan
    if plan.experiment is None or not job.work:
        _register(plan, locations)
        return Report(plan.experiment.name if plan.experiment else None, root.display_url("").rstrip("/"))
    choice = choice.for_agents(trained=job.is_trained)
    name = plan.experiment.name
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(choice, job.missing))
        means = stack.enter_context(means_of(job, root, choice))
        run_id, progress = means.run_id, means.progress
        if job.missing:
            _load_checkpoints(job.work, locations, run_id)
        _register(plan, locations)
        if job.missing:
            stack.enter_context(rendering_slot())
            stack.enter_context(progress_in_ui(progress, job.missing))
            stack.enter_context(current_display.get().watch(progress, job.missing))
        count = ProgressCounter(progress / "others.progress")

        def on_done(made: int, others: int) -> None:  # what workers here make, they count themselves
            count.add(episodes=others + (made if choice.is_cluster else 0))

        outcome = run_shards(job.work, locations, run_id, runner, choice.concurrency(job.missing), on_done)
    return dataclasses.replace(_report(name, job.work, outcome, locations), notes=plan.notes)


def _load_checkpoints(work: Sequence[CheckpointWork], locations: Locations, run_id: str) -> None:
    for checkpoint in work:
        if checkpoint.missing:
            load_checkpoint(checkpoint.settings, locations, run_id)


def _register(plan: GenerationPlan, locations: Locations) -> None:
    ensure_env_registered(plan.environment, locations)
    if plan.experiment is not None:
        records = [_checkpoint_record(plan.experiment.name, settings) for settings in plan.settings]
        ensure_experiment_registered(plan.experiment, records, locations, replace=plan.replace)


def _checkpoint_record(experiment: str, settings: RolloutSettings) -> CheckpointRecord:
    return CheckpointRecord(
        experiment=experiment,
        label=settings.label,
        step=settings.agent.step,
        sha256=settings.agent.sha256,
        algorithm=settings.agent.algorithm,
    )


def _report(experiment: str, work: Sequence[CheckpointWork], outcome: Outcome, locations: Locations) -> Report:
    root = locations.open_root()
    rows = []
    for checkpoint in work:
        before = checkpoint.published
        label = before.key.checkpoint
        made, failed = outcome.made[label], outcome.failures.get(label, {})
        rows.append(index_episodes(quoted(before), checkpoint.num_episodes, made, failed, locations))
    return Report(experiment, root.display_url("").rstrip("/"), tuple(rows), work[0].settings.options.render)


def _success(report: Report) -> str:
    return (
        f"{counted(report.made, 'episode')} made, {report.wanted - report.made:,} already there, in {report.data_root}"
    )


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(
        make_parser(generate.fn, "Generate episodes of an agent for human feedback.", _EXAMPLES).parse_args()
    )
    arguments["env_kwargs"] = parse_env_kwargs(arguments["env_kwargs"] or [])
    display = TerminalDisplay()
    current_display.set(display)
    choice = RunnerChoice(arguments["runner"], arguments["workers"], arguments["dask_address"])
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    job = prepare_job(request_from_flags(arguments), locations, choice)
    _prepared_job.set(job)
    with head_start(job, locations, choice):
        state = run_flow(generate, **arguments)
    if state.name == REFUSED:
        fail(state.message or "the request was refused", EXIT_WRONG_REQUEST)
    if not state.is_completed():
        if not display.has_shown:
            fail(state.message or "the run failed", EXIT_INCOMPLETE)
        say_where_to_look(state)
        return EXIT_INCOMPLETE
    say_where_to_look(state)
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/generate.py --env CartPole-v1 --random --num-episodes 10
  python flows/generate.py --env CartPole-v1 --model-path models/ppo/CartPole-v1_1 --checkpoints 0 20000 100000
  python flows/generate.py --env MyEnv-v0 --env-gym-entrypoint my_package.envs:MyEnv --random
"""
