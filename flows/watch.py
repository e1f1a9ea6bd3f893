"""Watch model folders: generate episodes for new checkpoints of the experiments that are followed.

A training run elsewhere fills a folder; ``python flows/watch.py``, or the deployment that does so every quarter of an
hour, fills the data set as it goes. Each look makes what it finds and ends; with ``--live`` looks go on until stopped.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.watch")

from collections.abc import Sequence
from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

import tasks.export  # noqa: F401 (the tasks of its steps)
from flows.cli.arguments import REFUSED, STOPPED, fail_as, make_parser, run_flow, say_where_to_look
from flows.cli.next_commands import as_typed, with_place
from flows.cli.process import EXIT_DONE, StoppedBySignal
from flows.cli.progress import TerminalDisplay, current_display
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import DataRoot
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner
from flows.generate import generate
from flows.ui.watch_artifacts import show_watch_report
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.locations import Locations
from rlhfblender_core.watch import (
    Filler,
    WatchReport,
    WatchRow,
    check_export_to,
    each_look,
    export_followed,
    find_experiments,
    look_after,
)
from tasks.config import keep_database_url, resolve_locations

_SETTLE_S, _LIVE_SETTLE_S = 60, 2


def run_name() -> str:
    """``watch my_experiment``, ``watch followed experiments``."""
    return f"watch {', '.join(current_run.parameters.get('exp') or ['followed experiments'])}"


@data_flow("watch", run_name)
def watch(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    *,
    exp: Annotated[list[str], Field(description="experiments to look after (default all that are followed)")] = [],  # noqa: B006 (Prefect copies defaults)
    num_episodes: Annotated[
        int | None, Field(ge=1, description="episodes per checkpoint (default as many as the experiment has)")
    ] = None,
    settle_seconds: Annotated[
        int | None,
        Field(
            ge=0, description="leave files alone that changed less than so many seconds ago (default 60, with live 2)"
        ),
    ] = None,
    live: Annotated[
        bool, Field(description="go on until stopped; what changes in a local folder is seen within seconds")
    ] = False,
    export_to: Annotated[
        str | None, Field(description="folder to export to after each look, in RLHF-Blender's format")
    ] = None,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Generates episodes for checkpoints newer than those chosen that aren't being written at the moment."""
    locations = resolve_locations(data_root, database_url)
    check_export_to(export_to, locations)
    settle = settle_seconds if settle_seconds is not None else _LIVE_SETTLE_S if live else _SETTLE_S
    looks = each_look(exp, settle, locations) if live else [find_experiments(exp, locations)]
    report, exported, is_told = WatchReport(), set[str](), False
    for experiments in looks:
        if not experiments and not is_told:
            is_told = _say_nothing_is_followed(live=live)
        report = WatchReport()
        for experiment in experiments:
            rows = look_after(experiment, num_episodes, settle, locations, _filler(locations))
            if export_to is not None and (experiment.name not in exported or any(row.is_filled for row in rows)):
                rows += export_followed(experiment.name, export_to, locations, PrefectRunner())
                exported.add(experiment.name)
            show_watch_report(experiment.name, locations.data_root, rows)
            _log(rows)
            report.rows += rows
    return Failed(message=report.summary) if report.problems else Completed(message=report.summary)


def _filler(locations: Locations) -> Filler:
    def fill(experiment: str, checkpoints: Sequence[int | str], num_episodes: int) -> str | None:
        state: State[Any] = generate(
            exp=experiment,
            checkpoints=checkpoints,
            num_episodes=num_episodes,
            data_root=locations.data_root,
            database_url=keep_database_url(locations.database_url),
            return_state=True,
        )
        message = state.message or "the run failed"
        if state.name == STOPPED:
            raise StoppedBySignal("Ctrl-C")
        if state.name == REFUSED:
            raise InvalidParameterError(message)
        return None if state.is_completed() else message

    return fill


def _say_nothing_is_followed(*, live: bool) -> bool:
    line = "No experiment is followed: give --follow to generate.py or train.py, or to register.py --exp E."
    current_display.get().say(f"{line} Waiting for one." if live else line)
    return True


def _log(rows: Sequence[WatchRow]) -> None:
    logger = get_run_logger()
    for row in rows:
        if row.is_problem:
            current_display.get().say(f"{row.name}: {row.finding}: {row.reason}")
        level = logger.error if row.is_problem else (logger.warning if row.is_known else logger.info)
        level("%s: %s %s", row.name, row.finding, with_place(row.reason))


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(watch.fn, "Generate episodes for new checkpoints of followed experiments.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    # A wrong request is refused at once, before Prefect is started and stores what was given.
    check_export_to(arguments["export_to"], resolve_locations(arguments["data_root"], arguments["database_url"]))
    current_display.set(TerminalDisplay())
    state = run_flow(watch, **arguments)
    if not state.is_completed():
        fail_as(state, "the run failed")
    print(as_typed(state.message or ""))
    say_where_to_look(state)
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/watch.py                        # all experiments that are followed
  python flows/watch.py --live                 # until Ctrl-C, within seconds
  python flows/watch.py --exp my_experiment --num-episodes 20 --export-to export
"""
