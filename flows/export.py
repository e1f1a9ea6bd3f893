"""Hand experiments over: to RLHF-Blender's server, or as Minari data sets.

``python flows/export.py --exp E … --to rlhfblender OUT``. Run again, it adds what is new. Exit code 0: all is exported,
1: some episodes could not be, 2: the request was wrong.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.export")

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from flows.cli.arguments import REFUSED, make_parser, run_flow
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, fail
from flows.cli.secret_parameters import DatabaseUrl
from flows.signs_of_life import SIGNS_OF_LIFE
from flows.ui.parameter_forms import shown_as_form
from rlhfblender_core.errors import RequestError, RLHFBlenderError, one_line
from rlhfblender_core.export import (
    CheckpointReport,
    ExperimentSource,
    ExportFormat,
    RewardsKind,
    find_experiments,
    locked,
    open_target,
    plan_minari_export,
)
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.wording import counted
from rlhfblender_core.workers.pool import available_cores
from tasks.config import Locations, resolve_locations
from tasks.export import export_to_minari, export_to_server, find_sources, finish_for_server, number_experiments

#: Files are fetched from object storage while others are written.
_REMOTE_THREADS = 8


def run_name() -> str:
    """``export rlhfblender CartPole-v1_random_experiment``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    return " ".join(["export", parameters.get("to") or "", *(parameters.get("exp") or [])])


@shown_as_form
@flow(name="export", flow_run_name=run_name, **SIGNS_OF_LIFE)
def export(
    out: Annotated[str, Field(description="folder to export to, made if needed; an earlier export is continued")],
    *,
    to: Annotated[
        ExportFormat,
        Field(description="rlhfblender (default): its server can be started in OUT; minari: data sets below OUT"),
    ] = "rlhfblender",
    exp: Annotated[list[str], Field(description="experiments (default all that have episodes)")] = [],  # noqa: B006
    rewards: Annotated[
        RewardsKind,
        Field(description="with rlhfblender: what its plots of rewards show (default per-step; 2025's: cumulative)"),
    ] = "per-step",
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Exports the experiments' episodes; those that are exported already are left as they are."""
    try:
        locations = resolve_locations(data_root, database_url)
        target = open_target(out, locations.open_root())
        sources = find_sources(exp, locations)
        with locked(target):
            carry_out = _to_minari if to == "minari" else _to_server
            reports, behind = carry_out(sources, target, locations, rewards)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except RLHFBlenderError as error:
        return Failed(message=one_line(error))
    message = "\n".join(summary(reports, to, target, behind))
    return Failed(message=message) if any(report.left_out for report in reports) else Completed(message=message)


def _to_server(
    sources: Sequence[ExperimentSource], target: DataRoot, locations: Locations, rewards: RewardsKind
) -> tuple[list[CheckpointReport], tuple[str, ...]]:
    out = target.url
    experiments = number_experiments(sources, out, rewards)
    checkpoints = [checkpoint for experiment in experiments for checkpoint in experiment.checkpoints]
    runner = _runner(locations)
    with runner:
        parameters = [{"checkpoint": checkpoint, "out": out, "locations": locations} for checkpoint in checkpoints]
        reports = _results(runner.submit(export_to_server, each) for each in parameters)
    return reports, finish_for_server(experiments, out, locations)


def _to_minari(
    sources: Sequence[ExperimentSource], target: DataRoot, locations: Locations, _rewards: RewardsKind
) -> tuple[list[CheckpointReport], tuple[str, ...]]:
    runner = _runner(locations)
    with runner:
        parameters = [
            {"checkpoint": checkpoint, "out": target.url, "locations": locations}
            for checkpoint in plan_minari_export(sources, locations.trust())
        ]
        return _results(runner.submit(export_to_minari, each) for each in parameters), ()


def _runner(locations: Locations) -> TaskRunner[Any]:
    cores = available_cores()
    return ThreadPoolTaskRunner(max_workers=cores if locations.open_root().is_local else max(cores, _REMOTE_THREADS))


def _results(futures: Iterable[PrefectFuture[CheckpointReport]]) -> list[CheckpointReport]:
    """All results, once all have ended.

    Raises:
        RLHFBlenderError: the first failure.
    """
    results: list[Any] = [future.result(raise_on_failure=False) for future in list(futures)]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def summary(
    reports: Sequence[CheckpointReport], to: ExportFormat, target: DataRoot, behind: Sequence[str] = ()
) -> Iterator[str]:
    """What was exported, what wasn't, what is there besides, and what to do with it."""
    folder = target.local_folder
    for report in reports:
        for reason, count in report.left_out.items():
            episodes = counted(count, "episode")
            yield f"left out: {report.key.experiment} at {report.key.checkpoint}, {episodes}, each {reason}"
    made, there = sum(report.made for report in reports), sum(report.there for report in reports)
    yield f"{counted(made, 'episode')} exported, {there} there already, in {folder}"
    for name in behind:
        yield f"{name} is in {folder} from an earlier export and isn't registered any more; it stays there."
    if not made + there:
        return
    if to == "minari":
        yield f"Load with MINARI_DATASETS_PATH={folder}:"
        for report in reports:
            yield f'  minari.load_dataset("{report.place}")'
    else:
        yield f"Start RLHF-Blender's server in {folder}: it reads data/ and rlhfblender.db there."


def check_request(arguments: dict[str, Any]) -> None:
    """Refuses a wrong request at once, before Prefect is started.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    root = locations.open_root()
    open_target(arguments["out"], root)
    with open_registry(locations.database_url, create=False) as registry:
        sources = find_experiments(root, registry, arguments["exp"])
    if arguments["to"] == "minari":
        plan_minari_export(sources, locations.trust())


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(export.fn, "Hand experiments over to RLHF-Blender's server or to Minari.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    check_request(arguments)
    state = run_flow(export, **arguments)
    if state.is_completed():
        print(state.message)
        return EXIT_DONE
    message = state.message or "the export failed"
    if state.name == REFUSED:
        fail(message, EXIT_WRONG_REQUEST)
    if not message.startswith("left out:"):
        fail(message, EXIT_INCOMPLETE)
    print(message)
    return EXIT_INCOMPLETE


_EXAMPLES = """examples:
  python flows/export.py --exp CartPole-v1_random_experiment --to rlhfblender handover
  python flows/export.py --exp MyExperiment MyOtherExperiment --to rlhfblender handover --rewards cumulative
  python flows/export.py --to minari datasets
"""
