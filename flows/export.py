"""Hand experiments over: to RLHF-Blender's server, or as data sets for Minari, D4RL's readers, `datasets`, LeRobot.

``python flows/export.py --exp E … --to rlhfblender OUT``. Run again, it adds what is new. Exit code 0: all is exported,
1: some episodes could not be, 2: the request was wrong.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.export")

from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

import tasks.export  # noqa: F401 (the tasks of its steps)
from flows.cli.arguments import fail_as, make_parser, run_flow
from flows.cli.next_commands import as_typed, lines_from_here
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import DataRoot
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.export.formats import ExportFormat, ExportOptions
from rlhfblender_core.export.request import RewardsKind
from rlhfblender_core.export.run import check_export, export_all
from tasks.config import resolve_locations

#: Name of the final state of a run that left some episodes out.
_INCOMPLETE = "Incomplete"


def run_name() -> str:
    """``export rlhfblender CartPole-v1_random_experiment``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    return " ".join(["export", parameters.get("to") or "", *(parameters.get("exp") or [])])


@data_flow("export", run_name)
def export(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    out: Annotated[str, Field(description="folder to export to, made if needed; an earlier export is continued")],
    *,
    to: Annotated[
        ExportFormat,
        Field(
            description="rlhfblender (default): its server can be started in OUT; data sets below OUT: minari, "
            "hdf5 (D4RL's keys), datasets (Hugging Face's, imitation's), lerobot"
        ),
    ] = "rlhfblender",
    exp: Annotated[list[str], Field(description="experiments (default all that have episodes)")] = [],  # noqa: B006
    checkpoints: Annotated[
        list[int | str], Field(description="labels of checkpoints, e.g. 100000 best (default all)")
    ] = [],  # noqa: B006 (Prefect copies defaults)
    episodes: Annotated[
        str | None, Field(description="numbers of episodes, e.g. 3,5-9; of each checkpoint (default all)")
    ] = None,
    where: Annotated[
        str | None, Field(description="a condition on episodes, e.g. 'return > 100 and length < 500' (default none)")
    ] = None,
    rewards: Annotated[
        RewardsKind,
        Field(description="with rlhfblender: what its plots of rewards show (default per-step; 2025's: cumulative)"),
    ] = "per-step",
    env_states: Annotated[
        bool,
        Field(
            description="with rlhfblender: states of the environment, so that demonstrations and corrections can start "
            "in the middle of an episode; each is played again (default: where that costs less than the export)"
        ),
    ] = False,
    no_env_states: Annotated[bool, Field(description="with rlhfblender: no such states")] = False,
    push_to: Annotated[
        str | None,
        Field(
            description="with datasets, lerobot, hdf5, minari: hf://datasets/<user>/<name> that it goes to besides, "
            "with a card; made private if needed (default none)"
        ),
    ] = None,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Exports the experiments' episodes; those that are exported already are left as they are."""
    locations = resolve_locations(data_root, database_url)
    options = ExportOptions(
        rewards=rewards,
        env_states=_wanted(env_states, no_env_states),
        checkpoints=tuple(map(str, checkpoints)),
        selection=parse_selection(episodes, where),
        push_to=push_to,
    )
    report = export_all(out, to, exp, options, PrefectRunner(), locations)
    message = report.summary
    return Completed(message=message) if report.is_whole else Failed(name=_INCOMPLETE, message=message)


def _wanted(asked: bool, refused: bool) -> bool | None:  # noqa: FBT001 (two flags)
    if asked and refused:
        raise InvalidParameterError("Give either --env-states or --no-env-states, not both.")
    return True if asked else False if refused else None


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(
        export.fn, "Hand experiments over to RLHF-Blender's server, or as data sets in other forms.", _EXAMPLES
    )
    arguments = vars(parser.parse_args())
    # A wrong request is refused at once, before Prefect is started.
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    _wanted(arguments["env_states"], arguments["no_env_states"])
    labels = tuple(map(str, arguments["checkpoints"]))
    selection = parse_selection(arguments["episodes"], arguments["where"])
    options = ExportOptions(arguments["rewards"], checkpoints=labels, selection=selection, push_to=arguments["push_to"])
    check_export(arguments["out"], arguments["to"], arguments["exp"], options, locations)
    state = run_flow(export, **arguments)
    if not state.is_completed() and state.name != _INCOMPLETE:
        fail_as(state, "the export failed")
    print(lines_from_here(as_typed(state.message or "")))
    return EXIT_DONE if state.is_completed() else EXIT_INCOMPLETE


_EXAMPLES = """examples:
  python flows/export.py --exp CartPole-v1_random_experiment --to rlhfblender handover
  python flows/export.py --exp MyExperiment MyOtherExperiment --to rlhfblender handover --rewards cumulative
  python flows/export.py --exp CartPole-v1_random_experiment --to rlhfblender handover --env-states
  python flows/export.py --to minari datasets
  python flows/export.py --exp MyExperiment --checkpoints best --where 'return > 100' --to lerobot lerobot
  python flows/export.py --exp MyExperiment --checkpoints best --to datasets parquet --push-to hf://datasets/me/my-episodes
"""
