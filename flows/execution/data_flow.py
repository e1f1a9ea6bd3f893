"""What all flows have in common: how they are declared, and how their errors become states."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from prefect import Flow, State, flow, get_run_logger
from prefect.states import Cancelled, Failed

import flows.ui.log_filters  # noqa: F401 (its import is what it is for)
from flows.cli.arguments import REFUSED, STOPPED
from flows.cli.process import StoppedBySignal, core_logger
from flows.execution.crashed_task_runs import end_crashed_task_runs
from flows.ui.parameter_forms import shown_as_form
from rlhfblender_core.errors import DiskFullError, RequestError, RLHFBlenderError, one_line

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
            try:
                return function(*args, **kwargs)
            except StoppedBySignal as stop:  # else the run's state would call it a crash
                return Cancelled(name=STOPPED, message=f"Stopped by {stop}. What is published stays.")
            except RLHFBlenderError as error:
                core_logger.debug("", exc_info=True)
                if not isinstance(error, RequestError) or isinstance(error, DiskFullError):
                    return Failed(message=one_line(error))
                get_run_logger().error("%s", one_line(error))
                return Failed(name=REFUSED, message=one_line(error))

        return shown_as_form(flow(name=name, flow_run_name=run_name)(run))

    return declare
