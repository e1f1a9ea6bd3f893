"""Watch model folders: generate episodes for every checkpoint of an experiment that has none yet.

A training run elsewhere fills a folder; ``python flows/watch.py --exp E``, or the deployment that does so every quarter
of an hour, fills the data set as it goes. Each look is one run: it makes what it finds, and ends.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.watch")

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cli.arguments import REFUSED, make_parser, run_flow, say_where_to_look
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, fail
from flows.cli.progress import TerminalDisplay, current_display
from flows.cli.secret_parameters import DatabaseUrl
from flows.execution.crashed_task_runs import end_lost_tasks
from flows.generate import generate
from flows.jobs import make_plan
from flows.signs_of_life import SIGNS_OF_LIFE
from flows.ui.parameter_forms import shown_as_form
from flows.ui.watch_artifacts import Finding, Seen, show_look, told_before
from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    InvalidParameterError,
    RequestError,
    RLHFBlenderError,
    SpacesDifferError,
    one_line,
)
from rlhfblender_core.planning.request import GenerationRequest
from rlhfblender_core.planning.unfilled_checkpoints import find_waiting
from rlhfblender_core.registry import ExperimentRecord, open_existing_registry
from rlhfblender_core.wording import counted
from tasks.config import Locations, keep_database_url, resolve_locations, storage_options

#: What a checkpoint itself is to blame for; looking again changes nothing until its file does.
_BROKEN = (CheckpointNotUsableError, SpacesDifferError)


@dataclass
class _Outcome:
    """What one look achieved.

    Attributes:
        filled: checkpoints that have their episodes now, as ``experiment/label``.
        unsettled: those that are still being written.
        problems: a line for each that couldn't be filled.
        known: those that couldn't, for a reason that the look before has told.
    """

    filled: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """One line."""
        filled = f": {', '.join(self.filled)}" if self.filled else ""
        parts = [f"{counted(len(self.filled), 'checkpoint')} filled{filled}"]
        parts += [f"still being written: {', '.join(self.unsettled)}"] if self.unsettled else []
        parts += [f"can't be used, as told before: {', '.join(self.known)}"] if self.known else []
        parts += [f"{counted(len(self.problems), 'problem')}: {self.problems[0]}"] if self.problems else []
        return "; ".join(parts)


def run_name() -> str:
    """``watch my_experiment``, ``watch all experiments``."""
    return f"watch {', '.join(current_run.parameters.get('exp') or ['all experiments'])}"


@shown_as_form
@flow(name="watch", flow_run_name=run_name, **SIGNS_OF_LIFE)
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
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Generates episodes for every checkpoint that has fewer than wanted and isn't being written at the moment."""
    end_lost_tasks()
    outcome = _Outcome()
    try:
        locations = resolve_locations(data_root, database_url)
        experiments = _experiments(locations, exp)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except RLHFBlenderError as error:
        return Failed(message=one_line(error))
    for experiment in experiments:
        _look_after(experiment, num_episodes, settle_seconds, locations, outcome)
    return Failed(message=outcome.summary) if outcome.problems else Completed(message=outcome.summary)


def _experiments(locations: Locations, names: Sequence[str]) -> list[ExperimentRecord]:
    """The experiments named, or all whose agents are trained.

    Raises:
        InvalidParameterError: one isn't registered, or has no model folder.
    """
    registry = open_existing_registry(locations.database_url)
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
    experiment: ExperimentRecord, num_episodes: int, settle_seconds: int, locations: Locations, outcome: _Outcome
) -> None:
    look = _Look(experiment.name, num_episodes, locations)
    try:
        waiting = find_waiting(
            experiment, num_episodes, locations.open_root(), settle_seconds=settle_seconds, options=storage_options()
        )
        get_run_logger().info("%s: %s", experiment.name, waiting.summary)
        look.seen += [Seen(label, Finding.UNSETTLED) for label in waiting.unsettled]
        look.fill(look.usable(waiting.ready))
    except _BROKEN as error:
        look.seen.append(Seen("", Finding.UNUSABLE, one_line(error)))
    except RLHFBlenderError as error:  # the others are looked after all the same
        look.seen.append(Seen("", Finding.FAILED, one_line(error)))
    _add_up(look, outcome)
    show_look(experiment.name, locations.data_root, look.seen)


@dataclass
class _Look:
    """At one experiment's model folder.

    Attributes:
        experiment: its name.
        num_episodes: wanted per checkpoint.
        locations: where they go.
        seen: a line for each checkpoint that didn't have its episodes before.
    """

    experiment: str
    num_episodes: int
    locations: Locations
    seen: list[Seen] = field(default_factory=list)

    def usable(self, labels: Sequence[str]) -> Sequence[str]:
        """Those that can act in the environment, as far as their files tell; looks at each where not all can."""
        if not labels:
            return labels
        try:
            make_plan(GenerationRequest(exp=self.experiment, checkpoints=_wanted(labels)), self.locations)
        except _BROKEN as error:
            if len(labels) > 1:
                return [label for label in labels if self.usable([label])]
            self.seen.append(Seen(labels[0], Finding.UNUSABLE, one_line(error)))
            return []
        return labels

    def fill(self, labels: Sequence[str]) -> None:
        """All at once; one by one where one is refused, so that it doesn't keep the others from being made."""
        together = [labels] if labels else []
        while together:
            labels = together.pop(0)
            state = _generate(self.experiment, labels, self.num_episodes, self.locations)
            if state.is_completed():
                self.seen += [Seen(label, Finding.FILLED) for label in labels]
            elif state.name == REFUSED and len(labels) > 1:
                together += [[label] for label in labels]
            else:
                self.seen.append(Seen(", ".join(labels), Finding.FAILED, state.message or ""))


def _add_up(look: _Look, outcome: _Outcome) -> None:
    """What can't be used counts as a problem once: told every quarter of an hour, it would hide what is new."""
    told, logger = told_before(look.experiment, look.locations.data_root), get_run_logger()
    for line in look.seen:
        name = f"{look.experiment}/{line.label}".rstrip("/")
        if line.finding is Finding.FILLED:
            outcome.filled.append(name)
        elif line.finding is Finding.UNSETTLED:
            outcome.unsettled.append(name)
        elif line.finding is Finding.UNUSABLE and line.row in told:
            outcome.known.append(name)
            logger.warning("%s: %s", name, line.reason)
        else:
            outcome.problems.append(f"{name}: {line.reason}")
            logger.error("%s: %s", name, line.reason)


def _generate(experiment: str, labels: Sequence[str], num_episodes: int, locations: Locations) -> State[Any]:
    return generate(
        exp=experiment,
        checkpoints=_wanted(labels),
        num_episodes=num_episodes,
        data_root=locations.data_root,
        database_url=keep_database_url(locations.database_url),
        return_state=True,
    )


def _wanted(labels: Sequence[str]) -> list[int | Literal["final", "best"]]:
    return [label if label in ("final", "best") else int(label) for label in labels]  # type: ignore[misc]


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(watch.fn, "Generate episodes for checkpoints that have none yet.", _EXAMPLES)
    current_display.set(TerminalDisplay())
    state = run_flow(watch, **vars(parser.parse_args()))
    if not state.is_completed():
        fail(state.message or "the run failed", EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE)
    print(state.message)
    say_where_to_look(state)
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/watch.py --exp my_experiment --num-episodes 20
  python flows/watch.py                        # all experiments with trained agents
"""
