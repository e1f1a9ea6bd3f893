"""Signs of life of runs, by which the server notices that one was lost (deployments/automations.yaml).

The same events as Prefect's own, which it sends by itself for the runs of workers. They cost a run up to a second at
its end, because Prefect sleeps between them in whole seconds; so commands turn them off and send these.
"""

import contextvars
import threading
from typing import Any, TypedDict
from uuid import UUID

import prefect
from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event
from prefect.settings import get_current_settings

import flows.ui.log_filters  # noqa: F401 (its import is what it is for)

_EVERY_S = 30.0
_stops: dict[UUID, threading.Event] = {}


def _begin_signs_of_life(_flow: Flow[..., Any], run: FlowRun, _state: State[Any]) -> None:
    if get_current_settings().flows.heartbeat_frequency is not None or run.id in _stops:
        return
    _stops[run.id] = stop = threading.Event()
    # In this context: it knows the server.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(_beat, run, stop), name="signs-of-life", daemon=True).start()


def _beat(run: FlowRun, stop: threading.Event) -> None:
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{run.id}",
        "prefect.resource.name": run.name,
        "prefect.version": prefect.__version__,
    }
    related = [{"prefect.resource.id": f"prefect.flow.{run.flow_id}", "prefect.resource.role": "flow"}]
    if run.deployment_id is not None:
        related.append(
            {"prefect.resource.id": f"prefect.deployment.{run.deployment_id}", "prefect.resource.role": "deployment"}
        )
    while not stop.is_set():
        emit_event(event="prefect.flow-run.heartbeat", resource=resource, related=related)
        stop.wait(_EVERY_S)


def _end_signs_of_life(_flow: Flow[..., Any], run: FlowRun, _state: State[Any]) -> None:
    stop = _stops.pop(run.id, None)
    if stop is not None:
        stop.set()


class FlowHooks(TypedDict):
    """Options of ``prefect.flow``."""

    on_running: list[Any]
    on_completion: list[Any]
    on_failure: list[Any]
    on_crashed: list[Any]
    on_cancellation: list[Any]


SIGNS_OF_LIFE = FlowHooks(
    on_running=[_begin_signs_of_life],
    on_completion=[_end_signs_of_life],
    on_failure=[_end_signs_of_life],
    on_crashed=[_end_signs_of_life],
    on_cancellation=[_end_signs_of_life],
)
