"""Import episodes that were made elsewhere: check every file, convert, register, report what can't be used.

``python flows/import_data.py FOLDER --exp MyExperiment --env MyEnv-v0``; another data root is merged:
``python flows/import_data.py DATA_ROOT``. Exit code 0: all episodes are imported, 1: some are not, 2: the request was
wrong.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.import_data")

import shlex
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

import tasks.import_data  # noqa: F401 (the tasks of its steps)
from flows.cli.arguments import fail_as, make_parser, run_flow
from flows.cli.next_commands import as_typed, command, path_from_here
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import DataRoot, Project
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner
from rlhfblender_core.import_data.merge_plan import MergeRequest
from rlhfblender_core.import_data.run import Imported, import_all, import_request, make_import_plan
from rlhfblender_core.registry import DEFAULT_PROJECT
from rlhfblender_core.wording import counted
from tasks.config import resolve_locations

#: How the command line that started the flow in this context shows what was imported.
current_printer: ContextVar[Callable[[Imported], None] | None] = ContextVar("current_printer", default=None)


def run_name() -> str:
    """``import-data MyExperiment``: what a person reads in Prefect's UI."""
    return " ".join(filter(None, ["import-data", current_run.parameters.get("exp")]))


@data_flow("import-data", run_name)
def import_data(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    folder: Annotated[
        str | None,
        Field(
            description="folder with episodes/, rewards/, renders/ …, or another data root (a URL, too), which is "
            "merged; only read (default the data root itself)"
        ),
    ] = None,
    *,
    exp: Annotated[
        str | None, Field(description="experiment that the episodes become (another data root's keep their names)")
    ] = None,
    env: Annotated[
        str | None,
        Field(description="Gymnasium id of their environment; it needn't be installed (a data root says it)"),
    ] = None,
    project: Project = DEFAULT_PROJECT,
    source_exp: Annotated[str | None, Field(description="which experiment of the folder, where it has several")] = None,
    overwrite: Annotated[bool, Field(description="replace episodes that are there, made otherwise")] = False,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Imports a folder's episodes of one experiment, and its pictures of actions."""
    locations = resolve_locations(data_root, database_url)
    request = import_request(folder, exp, env, locations, project=project, source_exp=source_exp, overwrite=overwrite)
    imported = import_all(request, PrefectRunner(), locations)
    printer = current_printer.get()
    if printer is not None:
        printer(imported)
    if imported.faults:
        return Failed(message=f"{counted(len(imported.faults), 'problem')}: {imported.faults[0]}")
    return Completed(message=imported.summary)


def print_imported(imported: Imported) -> None:
    """Prints a line per checkpoint, per problem and remark, and what to do next."""
    counts: dict[str, list[int]] = {}
    is_one = len(imported.experiments) == 1
    for batch in imported.batches:
        name = batch.key.checkpoint if is_one else f"{batch.key.experiment} at {batch.key.checkpoint}"
        row = counts.setdefault(name, [0, 0, 0])
        for column, found in enumerate((batch.made, batch.existing, batch.faults)):
            row[column] += len(found)
    for name, (made, there, failed) in counts.items():
        print(f"{name}: {made:,} imported, {there:,} already there, {failed:,} not imported")
    for line in imported.notes:
        print(as_typed(f"note: {line}"))
    for line in imported.faults:
        print(as_typed(f"not imported: {line}"))
    print(f"{imported.summary}.")
    print(f"Data: {shlex.quote(path_from_here(imported.data_root))}")
    if imported.made or imported.existing:
        print(f"Look: {command('gallery', '--exp', *imported.experiments)}")


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(make_parser(import_data.fn, "Import episodes that were made elsewhere.", _EXAMPLES).parse_args())
    # A wrong request is refused at once, before Prefect is started.
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    asked = {name: arguments[name] for name in ("project", "source_exp", "overwrite")}
    request = import_request(arguments["folder"], arguments["exp"], arguments["env"], locations, **asked)
    make_import_plan(request, locations)
    place = request.source if isinstance(request, MergeRequest) else str(request.folder)
    shown: list[Imported] = []

    def show(imported: Imported) -> None:
        print_imported(imported)
        shown.append(imported)

    current_printer.set(show)
    state = run_flow(import_data, **{**arguments, "folder": place})
    if not state.is_completed() and not shown:
        fail_as(state, "the import failed")
    return EXIT_DONE if state.is_completed() else EXIT_INCOMPLETE


_EXAMPLES = """examples:
  python flows/import_data.py ~/pregenerated --exp MyExperiment --env MyEnv-v0
  python flows/import_data.py ~/rlhfblender --exp Imported --env CartPole-v1 --source-exp CartPole-v1_3
  python flows/import_data.py s3://bucket/data --exp MyExperiment
"""
