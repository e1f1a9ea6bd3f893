"""Watch model folders: generate episodes for every checkpoint of an experiment that has none yet.

A training run elsewhere fills a folder; ``python flows/watch.py --exp E``, or the deployment that does so every quarter
of an hour, fills the data set as it goes. Each look is one run: it makes what it finds, and ends.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.command_line import (
    EXIT_DONE,
    EXIT_INCOMPLETE,
    EXIT_WRONG_REQUEST,
    REFUSED,
    fail,
    make_parser,
    run_command,
    run_flow,
)
from flows.forms import described
from flows.generate import generate
from flows.progress import TerminalDisplay, current_display
from rlhfblender_core.checkpoints.waiting import WaitingCheckpoints, find_waiting
from rlhfblender_core.errors import InvalidParameterError, RequestError, RLHFBlenderError, one_line
from rlhfblender_core.registry import ExperimentRecord, open_existing_registry
from tasks.settings import Places, resolve_places, storage_options

_Wanted = int | Literal["final", "best"]


@dataclass
class _Outcome:
    """What one look achieved.

    Attributes:
        filled: checkpoints that have their episodes now, as ``experiment/label``.
        unsettled: those that are still being written.
        problems: a line for each that couldn't be filled.
    """

    filled: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line."""
        made = f"{len(self.filled)} checkpoints filled" + (f": {', '.join(self.filled)}" if self.filled else "")
        waiting = f"; still being written: {', '.join(self.unsettled)}" if self.unsettled else ""
        return made + waiting


def run_name() -> str:
    """``watch my_experiment``, ``watch all experiments``."""
    return f"watch {', '.join(current_run.parameters.get('exp') or ['all experiments'])}"


@flow(name="watch", flow_run_name=run_name)
@described
def watch(
    *,
    exp: Annotated[list[str], Field(description="experiments to look after (default all with trained agents)")] = [],  # noqa: B006 (Prefect copies defaults)
    num_episodes: Annotated[int, Field(ge=1, description="episodes per checkpoint (default 10)")] = 10,
    settle_seconds: Annotated[
        int,
        Field(ge=0, description="leave files alone that changed less than so many seconds ago (default 60)"),
    ] = 60,
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
    database_url: Annotated[
        str | None,
        Field(description="registry (default RLHFBLENDER_DATABASE_URL, else SQLite in the data root)"),
    ] = None,
) -> State[Any]:
    """Generates episodes for every checkpoint that has fewer than wanted and isn't being written at the moment."""
    outcome = _Outcome()
    try:
        places = resolve_places(data_root, database_url)
        experiments = _experiments(places, exp)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    for experiment in experiments:
        _look_after(experiment, num_episodes, settle_seconds, places, outcome)
    if outcome.problems:
        return Failed(message=f"{outcome.summary}; {len(outcome.problems)} problems: {outcome.problems[0]}")
    return Completed(message=outcome.summary)


def _experiments(places: Places, names: Sequence[str]) -> list[ExperimentRecord]:
    """The experiments named, or all whose agents are trained.

    Raises:
        InvalidParameterError: one isn't registered, or has no model folder.
    """
    registry = open_existing_registry(places.database_url)
    if registry is None:
        known: dict[str, ExperimentRecord] = {}
    else:
        with registry:
            known = {record.name: record for record in registry.list_experiments()}
    for name in names:
        if name not in known:
            raise InvalidParameterError(f"No experiment {name!r} is registered. Those that are: {_listed(known)}.")
        if known[name].model_path is None:
            raise InvalidParameterError(f"Experiment {name!r} has no model folder to watch; its agent is random.")
    return [known[name] for name in names] or [record for record in known.values() if record.model_path]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _look_after(
    experiment: ExperimentRecord, num_episodes: int, settle_seconds: int, places: Places, outcome: _Outcome
) -> None:
    logger = get_run_logger()
    try:
        waiting = find_waiting(
            experiment, num_episodes, places.open_root(), settle_seconds=settle_seconds, options=storage_options()
        )
    except RLHFBlenderError as error:  # the others are looked after all the same
        outcome.problems.append(f"{experiment.name}: {one_line(error)}")
        logger.error("%s: %s", experiment.name, one_line(error))
        return
    logger.info("%s: %s", experiment.name, waiting.summary)
    outcome.unsettled += [f"{experiment.name}/{label}" for label in waiting.unsettled]
    _fill(experiment.name, waiting, num_episodes, places, outcome)


def _fill(experiment: str, waiting: WaitingCheckpoints, num_episodes: int, places: Places, outcome: _Outcome) -> None:
    """All at once; one by one where one of them is refused, so that it doesn't keep the others from being made."""
    together = [waiting.ready] if waiting.ready else []
    while together:
        labels = together.pop(0)
        state = _generate(experiment, labels, num_episodes, places)
        if state.is_completed():
            outcome.filled += [f"{experiment}/{label}" for label in labels]
        elif state.name == REFUSED and len(labels) > 1:
            together += [(label,) for label in labels]
        else:
            outcome.problems.append(f"{experiment}/{','.join(labels)}: {state.message}")


def _generate(experiment: str, labels: Sequence[str], num_episodes: int, places: Places) -> State[Any]:
    wanted: list[_Wanted] = [_wanted(label) for label in labels]
    return generate(
        exp=experiment,
        checkpoints=wanted,
        num_episodes=num_episodes,
        data_root=places.data_root,
        database_url=places.database_url,
        return_state=True,
    )


def _wanted(label: str) -> _Wanted:
    if label in ("final", "best"):
        return label  # type: ignore[return-value] # it is one of the two
    return int(label)


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(watch.fn, "Generate episodes for checkpoints that have none yet.", _EXAMPLES)
    current_display.set(TerminalDisplay())
    state = run_flow(watch, **vars(parser.parse_args()))
    if not state.is_completed():
        fail(state.message or "the run failed", EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE)
    print(state.message)
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/watch.py --exp my_experiment --num-episodes 20
  python flows/watch.py                        # all experiments with trained agents
"""

if __name__ == "__main__":
    run_command("flows.watch")
