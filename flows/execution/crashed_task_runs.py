"""Task runs that a killed run left "Running": nothing else on Prefect's server would ever end them.

Automations end a run that was lost (deployments/automations.yaml), but can't reach its task runs, which then grow on
in the timeline for ever. The next attempt at the run, or the flow's next run, ends them.
"""

import contextlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run as current_run
from prefect.states import Crashed

#: The server records states of tasks with a delay; those of a run that has just ended may still be on their way.
_DELAY = timedelta(minutes=2)
_LEFT = TaskRunFilter(
    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
)


def end_crashed_task_runs() -> None:
    """Ends task runs of this run's earlier attempts, and of the flow's other runs that are over. To be called first."""
    if current_run.id is None:
        return
    left_by = [
        FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=sorted(TERMINAL_STATES))),
            end_time=FlowRunFilterEndTime.model_validate({"before_": datetime.now(UTC) - _DELAY}),
        )
    ]
    if current_run.run_count > 1:
        left_by.append(FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(current_run.id))])))
    flow = FlowFilter(name=FlowFilterName(any_=[str(current_run.flow_name)]))
    # Only for the eye: the data doesn't depend on it.
    with contextlib.suppress(PrefectException, httpx.HTTPError), get_client(sync_client=True) as client:
        for runs in left_by:
            for task in client.read_task_runs(flow_filter=flow, flow_run_filter=runs, task_run_filter=_LEFT):
                client.set_task_run_state(task.id, Crashed(message="Its run was lost."), force=True)
