"""Import episodes that were made elsewhere: check every file, convert, register, report what can't be used.

``python flows/import_data.py FOLDER --exp MyExperiment --env MyEnv-v0``. Exit code 0: all episodes are imported, 1:
some are not, 2: the request was wrong.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.import_data")

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
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
from rlhfblender_core.import_data import ImportedBatch, ImportPlan, ImportRequest, plan_import
from rlhfblender_core.import_data.plan import check_locations
from rlhfblender_core.import_data.sources import source_folder
from rlhfblender_core.registry import DEFAULT_PROJECT, open_existing_registry
from rlhfblender_core.storage import check_writable
from rlhfblender_core.wording import counted
from rlhfblender_core.workers.pool import available_cores
from tasks.config import Locations, resolve_locations
from tasks.import_data import import_batch, import_labels, index_imported
from tasks.registration import ensure_env_registered, ensure_experiment_registered

#: Episodes in one task: their videos are decoded, which takes a second or so each.
_BATCH = 8


@dataclass(frozen=True)
class Imported:
    """What a run of import_data achieved.

    Attributes:
        experiment: its name.
        data_root: where everything is, as a person would use it.
        batches: what became of the episodes.
        labels: pictures of actions that were stored.
        faults: one line per thing that was not imported, naming the file.
        notes: one line per thing that was missing or left out.
    """

    experiment: str
    data_root: str
    batches: tuple[ImportedBatch, ...]
    labels: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def made(self) -> int:
        """Episodes imported now."""
        return sum(len(batch.made) for batch in self.batches)

    @property
    def there(self) -> int:
        """Episodes that were there already."""
        return sum(len(batch.there) for batch in self.batches)


#: How the command line that started the flow in this context shows what was imported.
current_printer: ContextVar[Callable[[Imported], None] | None] = ContextVar("current_printer", default=None)


def run_name() -> str:
    """``import-data MyExperiment``: what a person reads in Prefect's UI."""
    return f"import-data {current_run.parameters.get('exp')}"


@shown_as_form
@flow(name="import-data", flow_run_name=run_name, **SIGNS_OF_LIFE)
def import_data(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    folder: Annotated[str, Field(description="folder with episodes/, rewards/, renders/ …; it is only read")],
    *,
    exp: Annotated[str, Field(description="experiment that the episodes become")],
    env: Annotated[str, Field(description="Gymnasium id of their environment; it needn't be installed")],
    project: Annotated[str, Field(description=f"project (default {DEFAULT_PROJECT})")] = DEFAULT_PROJECT,
    source_exp: Annotated[str | None, Field(description="which experiment of the folder, where it has several")] = None,
    overwrite: Annotated[bool, Field(description="replace episodes that are there, made otherwise")] = False,
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Imports a folder's episodes of one experiment, and its pictures of actions."""
    try:
        request = ImportRequest(source_folder(folder), exp, env, project, source_exp, overwrite)
        locations = resolve_locations(data_root, database_url)
        imported = _carry_out(make_plan(request, locations), locations)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except RLHFBlenderError as error:
        return Failed(message=one_line(error))
    printer = current_printer.get()
    if printer is not None:
        printer(imported)
    if imported.faults:
        return Failed(message=f"{counted(len(imported.faults), 'problem')}: {imported.faults[0]}")
    return Completed(message=summary(imported))


def make_plan(request: ImportRequest, locations: Locations) -> ImportPlan:
    """Resolves the request against folder and registry, and checks it; writes nothing."""
    check_writable(locations.open_root())
    registry = open_existing_registry(locations.database_url)
    if registry is None:
        plan = plan_import(request, None)
    else:
        with registry:
            plan = plan_import(request, registry)
    check_locations(plan, locations.database_url)
    return plan


def _carry_out(plan: ImportPlan, locations: Locations) -> Imported:
    root = locations.open_root()
    runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=available_cores())
    with runner:
        futures = [
            runner.submit(
                import_batch, {"source": source, "numbers": numbers, "target": target, "locations": locations}
            )
            for source, target in plan.work
            for numbers in _batches(source.episodes())
        ]
        batches = tuple(future.result() for future in futures)
    if any(batch.made or batch.there for batch in batches):
        ensure_env_registered(plan.environment, locations)
        ensure_experiment_registered(plan.experiment, plan.checkpoint_records(), locations, replace=False)
        index_imported(plan, locations)
    labels, label_faults = import_labels(plan, locations)
    return Imported(
        plan.experiment.name,
        root.display_url("").rstrip("/"),
        batches,
        labels,
        (*(line for batch in batches for line in batch.faults), *label_faults),
        (*plan.notes, *(line for batch in batches for line in batch.notes)),
    )


def _batches(numbers: Iterable[int]) -> Iterator[tuple[int, ...]]:
    ordered = sorted(numbers)
    for start in range(0, len(ordered), _BATCH):
        yield tuple(ordered[start : start + _BATCH])


def summary(imported: Imported) -> str:
    """One line about everything."""
    failed = sum(len(batch.faults) for batch in imported.batches)
    labels = f", {imported.labels} pictures of actions" if imported.labels else ""
    made, there = counted(imported.made, "episode"), f"{imported.there:,} already there"
    return f"{made} imported, {there}, {failed:,} not imported{labels}"


def print_imported(imported: Imported, data_root: str | None = None) -> None:
    """Prints a line per checkpoint, per problem and remark, and what to do next."""
    counts: dict[str, list[int]] = {}
    for batch in imported.batches:
        row = counts.setdefault(batch.key.checkpoint, [0, 0, 0])
        for column, found in enumerate((batch.made, batch.there, batch.faults)):
            row[column] += len(found)
    for checkpoint, (made, there, failed) in counts.items():
        print(f"{checkpoint}: {made:,} imported, {there:,} already there, {failed:,} not imported")
    for line in imported.notes:
        print(f"note: {line}")
    for line in imported.faults:
        print(f"not imported: {line}")
    print(f"{summary(imported)}.")
    print(f"Data: {imported.data_root}")
    if imported.made or imported.there:
        where = "" if data_root is None else f" --data-root {shlex.quote(data_root)}"
        print(f"Look: python flows/gallery.py --exp {shlex.quote(imported.experiment)}{where}")


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(make_parser(import_data.fn, "Import episodes that were made elsewhere.", _EXAMPLES).parse_args())
    # A wrong request is refused at once, before Prefect is started.
    folder = source_folder(arguments["folder"])
    names = ("exp", "env", "project", "source_exp", "overwrite")
    request = ImportRequest(folder, *(arguments[name] for name in names))
    make_plan(request, resolve_locations(arguments["data_root"], arguments["database_url"]))
    shown: list[Imported] = []

    def show(imported: Imported) -> None:
        print_imported(imported, data_root=arguments["data_root"])
        shown.append(imported)

    current_printer.set(show)
    state = run_flow(import_data, **{**arguments, "folder": str(folder)})
    if state.is_completed():
        return EXIT_DONE
    if not shown:
        message = state.message or "the import failed"
        fail(message, EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE)
    return EXIT_INCOMPLETE


_EXAMPLES = """examples:
  python flows/import_data.py ~/pregenerated --exp MyExperiment --env MyEnv-v0
  python flows/import_data.py ~/rlhfblender --exp Imported --env CartPole-v1 --source-exp CartPole-v1_3
"""
