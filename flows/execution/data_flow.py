"""What all flows have in common: how they are declared, and how their errors become states."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

from prefect import Flow, State, flow, get_run_logger
from prefect.states import Cancelled, Failed

import flows.ui.log_filters  # noqa: F401 (its import is what it is for)
from flows.cli.arguments import REFUSED, STOPPED
from flows.cli.next_commands import flags_noted, with_place
from flows.cli.process import StoppedBySignal, core_logger
from flows.execution.crashed_task_runs import end_crashed_task_runs
from flows.ui.parameter_forms import shown_as_form
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.errors import DiskFullError, RequestError, RLHFBlenderError, one_line
from rlhfblender_core.registry import has_password

P = ParamSpec("P")


def data_flow(name: str, run_name: Callable[[], str]) -> Callable[[Callable[P, State[Any]]], Flow[P, State[Any]]]:
    """Makes a flow of a function that returns the run's final state.

    What this project raises on purpose ends the run as failed, with one line: a wrong request as
    :data:`~flows.cli.arguments.REFUSED`, anything else so that it may be run again.

    Args:
        name: of the flow.
        run_name: gives a run's name, in ASCII: Prefect's timeline draws nothing else.
    """

    def declare(function: Callable[P, State[Any]]) -> Flow[P, State[Any]]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> State[Any]:
            end_crashed_task_runs()
            with flags_noted(_place_flags(kwargs)):
                try:
                    state = function(*args, **kwargs)
                except StoppedBySignal as stop:  # else the run's state would call it a crash
                    return Cancelled(name=STOPPED, message=f"Stopped by {stop}. What is published stays.")
                except RLHFBlenderError as error:
                    core_logger.debug("", exc_info=True)
                    state = _failed(error)
                state.message = state.message and with_place(state.message)
            return state

        return shown_as_form(flow(name=name, flow_run_name=run_name)(run))

    return declare


def _failed(error: RLHFBlenderError) -> State[Any]:
    line = with_place(one_line(error))
    if not isinstance(error, RequestError) or isinstance(error, DiskFullError):
        return Failed(message=line)
    get_run_logger().error("%s", line)
    return Failed(name=REFUSED, message=line)


def _place_flags(parameters: Mapping[str, Any]) -> dict[str, str]:
    """What says where a run's data is, as flags; a database URL with a password is going to be refused."""
    root, database = parameters.get("data_root"), parameters.get("database_url")
    flags = {"--data-root": without_credentials(root)} if root else {}
    return flags | ({"--database-url": database} if database and not has_password(database) else {})
