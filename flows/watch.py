"""Watch model folders: generate episodes for every checkpoint of an experiment that has none yet.

A training run elsewhere fills a folder; ``python flows/watch.py --exp E``, or the deployment that does so every quarter
of an hour, fills the data set as it goes. Each look is one run: it makes what it finds, and ends.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.watch")

from collections.abc import Sequence
from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cli.arguments import REFUSED, STOPPED, DataRoot, fail_as, make_parser, run_flow, say_where_to_look
from flows.cli.next_commands import flags_of
from flows.cli.process import EXIT_DONE, StoppedBySignal
from flows.cli.progress import TerminalDisplay, current_display
from flows.cli.secret_parameters import DatabaseUrl
from flows.execution.data_flow import data_flow
from flows.generate import generate
from flows.ui.watch_artifacts import show_watch_report
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.locations import Locations
from rlhfblender_core.watch import Filler, WatchReport, WatchRow, find_experiments, look_after
from tasks.config import keep_database_url, resolve_locations


def run_name() -> str:
    """``watch my_experiment``, ``watch all experiments``."""
    return f"watch {', '.join(current_run.parameters.get('exp') or ['all experiments'])}"


@data_flow("watch", run_name)
def watch(
    *,
    exp: Annotated[list[str], Field(description="experiments to look after (default all with trained agents)")] = [],  # noqa: B006 (Prefect copies defaults)
    num_episodes: Annotated[int, Field(ge=1, description="episodes per checkpoint (default 10)")] = 10,
    settle_seconds: Annotated[
        int,
        Field(ge=0, description="leave files alone that changed less than so many seconds ago (default 60)"),
    ] = 60,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Generates episodes for every checkpoint that has fewer than wanted and isn't being written at the moment."""
    locations = resolve_locations(data_root, database_url)
    report = WatchReport()
    for experiment in find_experiments(exp, locations):
        rows = look_after(experiment, num_episodes, settle_seconds, locations, _filler(locations))
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


def _log(rows: Sequence[WatchRow]) -> None:
    logger = get_run_logger()
    for row in rows:
        level = logger.error if row.is_problem else (logger.warning if row.is_known else logger.info)
        level("%s: %s %s", row.name, row.finding, row.reason)


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(watch.fn, "Generate episodes for checkpoints that have none yet.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    where = flags_of(data_root=arguments["data_root"], database_url=arguments["database_url"])
    current_display.set(TerminalDisplay(where))
    state = run_flow(watch, **arguments)
    if not state.is_completed():
        fail_as(state, "the run failed")
    print(state.message)
    say_where_to_look(state)
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/watch.py --exp my_experiment --num-episodes 20
  python flows/watch.py                        # all experiments with trained agents
"""
