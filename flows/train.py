"""Train an agent, and generate episodes of each checkpoint as it is written.

``python flows/train.py --env CartPole-v1 --total-timesteps 50000 --checkpoint-every 10000``. Killed, the same command
goes on from the last checkpoint. Exit code 0: done, 1: some episodes failed, 2: the request was wrong.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.train")

from contextvars import ContextVar
from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

import tasks.export  # noqa: F401 (the tasks of its steps)
from flows.cli.arguments import end_as, make_parser, run_flow
from flows.cli.next_commands import as_typed, lines_from_here
from flows.cli.progress import TerminalDisplay, checking, current_display
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import (
    ActionNames,
    AdditionalGymPackages,
    DataRoot,
    EnvDescription,
    EnvDisplayName,
    EnvGymEntrypoint,
    EnvKwargs,
    Fps,
    NoRender,
    NumEpisodes,
    Project,
    RegisteredEnv,
)
from flows.execution.data_flow import data_flow
from flows.execution.prefect_training import PrefectTrainingSteps
from flows.execution.task_runners import RunnerChoice
from flows.ui.generate_artifacts import show_in_ui, tag_run
from rlhfblender_core.environments import parse_env_kwargs
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import DEFAULT_PROJECT
from rlhfblender_core.report.summary import Report
from rlhfblender_core.train.request import (
    TrainingPlan,
    TrainingRequest,
    plan_training,
    rollout_workers,
    training_request_from_flags,
)
from rlhfblender_core.train.run import carry_out_training
from rlhfblender_core.workers.processes import start_fork_server
from tasks.config import resolve_locations


def run_name() -> str:
    """``train my-study to 100000``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    name = parameters.get("exp") or parameters.get("env") or ""
    total = parameters.get("total_timesteps")
    return f"train {name}" + (f" to {total}" if total else "")


@data_flow("train", run_name)
def train(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    *,
    env: RegisteredEnv = None,
    exp: Annotated[str | None, Field(description="experiment; default <env>_trained_experiment")] = None,
    algorithm: Annotated[
        str | None,
        Field(description="ppo (default), a2c, dqn, sac, td3, ddpg, trpo, ppo_lstm, qrdqn, tqc, crossq, ars, ppo_mask"),
    ] = None,
    total_timesteps: Annotated[
        int | None,
        Field(
            ge=1,
            description="steps from the very beginning (default that of the hyperparameters); raised, it trains on",
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None, Field(ge=1, description="steps between checkpoints (default a fifth of all)")
    ] = None,
    num_episodes: NumEpisodes = None,
    hyperparameters: Annotated[
        dict[str, Any],
        Field(description="RL Zoo's names, over those of the file, e.g. learning_rate:lin_0.001 normalize:True"),
    ] = {},  # noqa: B006 (Prefect copies defaults)
    hyperparameters_file: Annotated[
        str | None, Field(description="file of RL Zoo's format (default RL Zoo's tuned ones, with the extra [train])")
    ] = None,
    n_envs: Annotated[int | None, Field(ge=1, description="environments side by side")] = None,
    seed: Annotated[int | None, Field(ge=0, description="seed of the training and the episodes (default 0)")] = None,
    model_path: Annotated[
        str | None,
        Field(description="folder of the checkpoints, local or any fsspec URL (default <data root>/models/<exp>)"),
    ] = None,
    keep_replay_buffer: Annotated[
        bool, Field(description="save the replay buffer beside the last checkpoint, for going on after a kill")
    ] = False,
    no_rollouts: Annotated[bool, Field(description="train only; watch.py or generate.py make the episodes")] = False,
    follow: Annotated[
        bool, Field(description="watch.py generates for what appears in the folder later, or without this run")
    ] = False,
    export_to: Annotated[
        str | None, Field(description="folder to export to after each checkpoint, in RLHF-Blender's format")
    ] = None,
    project: Project = DEFAULT_PROJECT,
    env_gym_entrypoint: EnvGymEntrypoint = None,
    additional_gym_packages: AdditionalGymPackages = [],  # noqa: B006
    env_display_name: EnvDisplayName = None,
    env_description: EnvDescription = None,
    env_kwargs: EnvKwargs = {},  # noqa: B006
    action_names: ActionNames = None,
    deterministic: Annotated[
        bool | None, Field(description="episodes take the most probable action instead of a sample")
    ] = None,
    max_steps_per_episode: Annotated[
        int | None, Field(ge=1, description="cut episodes (not the training's) off after so many steps, as truncated")
    ] = None,
    fps: Fps = None,
    no_render: NoRender = None,
    workers: Annotated[
        int | None, Field(ge=1, description="processes that make episodes meanwhile (default half of the cores)")
    ] = None,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Trains an agent; registers, rolls out and publishes a random baseline, and each checkpoint as it is written."""
    locations = resolve_locations(data_root, database_url)
    plan = _plan(training_request_from_flags(locals()), locations, workers)
    tag_run(plan.work.plan)
    choice = RunnerChoice("auto", rollout_workers(workers))
    result = carry_out_training(plan, PrefectTrainingSteps(locations, choice))
    show_in_ui(plan.work.plan, result.report, locations)
    _show(result.report)
    return Completed(message=result.summary) if result.is_whole else Failed(message=result.summary)


#: What the command line planned before it started Prefect, so that a wrong request is refused at once.
_planned: ContextVar[TrainingPlan | None] = ContextVar("planned_training", default=None)


def _plan(request: TrainingRequest, locations: Locations, workers: int | None) -> TrainingPlan:
    if planned := _planned.get():
        return planned
    with checking():
        return plan_training(request, locations, workers)


def _show(report: Report) -> None:
    current_display.get().show(report)


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(
        make_parser(train.fn, "Train an agent, and generate episodes as it learns.", _EXAMPLES).parse_args()
    )
    arguments["env_kwargs"] = parse_env_kwargs(arguments["env_kwargs"] or [])
    arguments["hyperparameters"] = parse_env_kwargs(arguments["hyperparameters"] or [], "--hyperparameters")
    display = TerminalDisplay()
    current_display.set(display)
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    plan = _plan(training_request_from_flags(arguments), locations, arguments["workers"])
    start_fork_server(trained=True)  # loads torch while Prefect starts
    _planned.set(plan)
    print(f"{plan.note}.")
    state = run_flow(train, **arguments)
    if display.has_shown:
        print(lines_from_here(as_typed(state.message or "")))
    return end_as(state, is_told=display.has_shown)


_EXAMPLES = """examples:
  python flows/train.py --env CartPole-v1 --total-timesteps 50000 --checkpoint-every 10000 --num-episodes 5
  python flows/train.py --env Pendulum-v1 --exp my-study --algorithm sac --keep-replay-buffer
  python flows/train.py --exp my-study --total-timesteps 200000            # trains on
  python flows/train.py --env MyEnv-v0 --env-gym-entrypoint my_package.envs:MyEnv --hyperparameters normalize:True
"""
