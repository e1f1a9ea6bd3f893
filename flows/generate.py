"""Generate episodes of an agent in an environment: the main flow, and its command line.

``python flows/generate.py --env CartPole-v1 --random`` on a machine, ``prefect deployment run 'generate/…'`` on a
schedule: the same flow, with parameters named like the flags.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.generate")

from contextvars import ContextVar
from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cli.arguments import end_as, make_parser, run_flow
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
from flows.execution.prefect_steps import PrefectSteps
from flows.execution.task_runners import RunnerChoice, RunnerKind
from flows.ui.generate_artifacts import show_in_ui, tag_run
from rlhfblender_core.environments import parse_env_kwargs
from rlhfblender_core.generate import carry_out
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.request import LATEST, GenerationRequest, request_from_flags
from rlhfblender_core.planning.work import GenerationWork, plan_work
from rlhfblender_core.registry import DEFAULT_PROJECT
from rlhfblender_core.report.summary import Report
from rlhfblender_core.workers.processes import start_fork_server
from tasks.config import resolve_locations

#: More than so many are counted in a run's name.
_NAMED_CHECKPOINTS = 3


def run_name() -> str:
    """``generate CartPole-v1 random``, ``generate my-study 1000 2000``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    who = "random" if parameters.get("random") else ("trained" if parameters.get("model_path") else None)
    who = parameters.get("agent") or who
    if parameters.get("register_only"):
        who = "register only"
    wanted = [str(step) for step in parameters.get("checkpoints") or () if step != LATEST]
    if len(wanted) > _NAMED_CHECKPOINTS:
        wanted = [f"{len(wanted)} checkpoints"]
    return " ".join(filter(None, ["generate", parameters.get("exp") or parameters.get("env"), who, *wanted]))


@data_flow("generate", run_name)
def generate(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    *,
    env: RegisteredEnv = None,
    exp: Annotated[
        str | None,
        Field(description="experiment; default <env>_random_experiment or <env>_trained_experiment"),
    ] = None,
    num_episodes: NumEpisodes = None,
    random: Annotated[bool, Field(description="a random agent")] = False,
    model_path: Annotated[
        str | None, Field(description="folder of checkpoints (local or any fsspec URL), or one .zip")
    ] = None,
    agent: Annotated[
        str | None, Field(description="module:factory of an agent of your own code, e.g. my_package.agents:make")
    ] = None,
    agent_kwargs: Annotated[
        dict[str, Any], Field(description="keyword arguments of that factory, e.g. path:runs/agent.pt")
    ] = {},  # noqa: B006
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
        str | None,
        Field(description="file of the checkpoints' observation statistics, where several are beside them; or none"),
    ] = None,
    project: Project = DEFAULT_PROJECT,
    env_gym_entrypoint: EnvGymEntrypoint = None,
    additional_gym_packages: AdditionalGymPackages = [],  # noqa: B006
    env_display_name: EnvDisplayName = None,
    env_description: EnvDescription = None,
    env_kwargs: EnvKwargs = {},  # noqa: B006
    action_names: ActionNames = None,
    register_only: Annotated[bool, Field(description="register, generate nothing")] = False,
    follow: Annotated[
        bool, Field(description="watch.py generates for checkpoints that appear later, newer than those chosen")
    ] = False,
    seed: Annotated[int | None, Field(ge=0, description="seed of the run (default 0)")] = None,
    deterministic: Annotated[
        bool | None, Field(description="take the most probable action instead of a sample")
    ] = None,
    features: Annotated[
        bool | None,
        Field(description="record what a trained policy's last layer is given, as RLHF-Blender's projections read"),
    ] = None,
    max_steps_per_episode: Annotated[
        int | None, Field(ge=1, description="cut episodes off after so many steps, as truncated")
    ] = None,
    default_max_steps_per_episode: Annotated[
        int | None, Field(ge=1, description="the same for a new experiment only, where it isn't given; for deployments")
    ] = None,
    algorithm: Annotated[
        str | None, Field(description="the checkpoints' algorithm, where their files don't tell, e.g. PPO")
    ] = None,
    fps: Fps = None,
    no_render: NoRender = None,
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
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Registers the environment and the experiment, rolls out the episodes that are missing and publishes them."""
    locations = resolve_locations(data_root, database_url)
    choice = RunnerChoice(runner, workers, dask_address)
    work = _work(request_from_flags(locals()), locations, choice)
    tag_run(work.plan)
    report = carry_out(work, PrefectSteps(locations, choice))
    show_in_ui(work.plan, report, locations)
    _show(report)
    return Failed(message=report.summary) if report.failed else Completed(message=report.summary)


#: What the command line planned before it started Prefect, so that a wrong request is refused at once.
_planned_work: ContextVar[GenerationWork | None] = ContextVar("planned_work", default=None)


# The flow's own body must not name context variables: it travels to a cluster with what it names, and they can't.


def _work(request: GenerationRequest, locations: Locations, choice: RunnerChoice) -> GenerationWork:
    return _planned_work.get() or plan_and_warm_up(request, locations, choice)


def plan_and_warm_up(request: GenerationRequest, locations: Locations, choice: RunnerChoice) -> GenerationWork:
    """What the request comes to, checked, with its worker processes warming up meanwhile."""
    with checking():
        work = plan_work(request, locations)
    if work.missing and choice.uses_processes:
        start_fork_server(trained=work.is_trained)
    return work


def _show(report: Report) -> None:
    current_display.get().show(report)


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(
        make_parser(generate.fn, "Generate episodes of an agent for human feedback.", _EXAMPLES).parse_args()
    )
    arguments["env_kwargs"] = parse_env_kwargs(arguments["env_kwargs"] or [])
    arguments["agent_kwargs"] = parse_env_kwargs(arguments["agent_kwargs"] or [], "--agent-kwargs")
    display = TerminalDisplay()
    current_display.set(display)
    choice = RunnerChoice(arguments["runner"], arguments["workers"], arguments["dask_address"])
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    _planned_work.set(plan_and_warm_up(request_from_flags(arguments), locations, choice))
    state = run_flow(generate, **arguments)
    return end_as(state, is_told=display.has_shown)


_EXAMPLES = """examples:
  python flows/generate.py --env CartPole-v1 --random --num-episodes 10
  python flows/generate.py --env CartPole-v1 --model-path models/ppo/CartPole-v1_1 --checkpoints 0 20000 100000
  python flows/generate.py --env MyEnv-v0 --env-gym-entrypoint my_package.envs:MyEnv --random
"""
