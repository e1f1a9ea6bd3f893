"""Delete an experiment's episodes, files and rows, or those of some checkpoints. The environment stays registered.

``python flows/delete.py --exp E [--checkpoints 100000 best]`` shows what would go and asks; a run that was killed is
finished by the same command.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.delete")

import sys
from contextlib import ExitStack
from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cli.arguments import REFUSED, make_parser, run_flow
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, fail
from flows.cli.secret_parameters import DatabaseUrl
from flows.signs_of_life import SIGNS_OF_LIFE
from flows.ui.parameter_forms import shown_as_form
from rlhfblender_core.delete import Deletion, plan_deletion
from rlhfblender_core.errors import InvalidParameterError, RequestError, RLHFBlenderError, one_line
from rlhfblender_core.registry import open_existing_registry
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.runs.sharing import DELETED, Making, check_same_settings
from tasks.config import Locations, resolve_locations
from tasks.delete import delete_episodes, forget_experiment


def run_name() -> str:
    """``delete my-experiment``: what a person reads in Prefect's UI."""
    return " ".join(filter(None, ["delete", current_run.parameters.get("exp")]))


@shown_as_form
@flow(name="delete", flow_run_name=run_name, **SIGNS_OF_LIFE)
def delete(
    *,
    exp: Annotated[str | None, Field(description="the experiment")] = None,
    checkpoints: Annotated[
        list[int | str], Field(description="labels of checkpoints, e.g. 100000 best (default all, and the experiment)")
    ] = [],  # noqa: B006 (Prefect copies defaults)
    yes: Annotated[bool, Field(description="delete without asking")] = False,
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Deletes what was asked for: manifests first, then files, then rows."""
    try:
        if not yes:
            raise InvalidParameterError("Nothing was deleted: nobody was there to ask. Give --yes to delete.")
        locations = resolve_locations(data_root, database_url)
        deletion = plan(exp, checkpoints, locations)
        root = locations.open_root()
        with open_run(root, deletion.experiment) as run:  # verify mustn't take what is half deleted for damage
            digests = {checkpoint.key.checkpoint: DELETED for checkpoint in deletion.checkpoints}
            run.notice.make(digests)
            check_same_settings(root, Making(deletion.experiment, digests), run)
            for checkpoint in deletion.checkpoints:
                delete_episodes(checkpoint, locations)
            forget_experiment(deletion, locations)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except RLHFBlenderError as error:
        return Failed(message=one_line(error))
    return Completed(message=f"Deleted {deletion.summary}")


def plan(exp: str | None, checkpoints: list[int | str], locations: Locations) -> Deletion:
    """What would go.

    Raises:
        RequestError: there is no such experiment or checkpoint, or a run is under way on it.
    """
    if not exp:
        raise InvalidParameterError("Give --exp with the experiment to delete.")
    with ExitStack() as stack:
        registry = open_existing_registry(locations.database_url)
        if registry is not None:
            stack.enter_context(registry)
        return plan_deletion(locations.open_root(), registry, exp, checkpoints)


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(delete.fn, "Delete an experiment, or some of its checkpoints.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    deletion = plan(arguments["exp"], arguments["checkpoints"], locations)
    print(f"To be deleted: {deletion.summary}")
    if not arguments["yes"]:
        if sys.stdin is None or not sys.stdin.isatty():
            fail("Nothing was deleted: nobody is there to ask. Give --yes to delete.", EXIT_WRONG_REQUEST)
        if not _is_wanted():
            fail("Nothing was deleted.", EXIT_WRONG_REQUEST)
    state = run_flow(delete, **{**arguments, "yes": True})
    if not state.is_completed():
        message = state.message or "the run failed"
        fail(message, EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE)
    print(state.message)
    return EXIT_DONE


def _is_wanted() -> bool:
    """Asks on the terminal; an end of input, or what is no text, is no yes."""
    try:
        return input("Delete it for good? [y/N] ").strip().lower() in ("y", "yes")
    except UnicodeDecodeError:
        return False
    except EOFError:
        print()
        return False
    except KeyboardInterrupt:
        print()
        raise


_EXAMPLES = """examples:
  python flows/delete.py --exp CartPole-v1_random_experiment
  python flows/delete.py --exp CartPole-v1_trained_experiment --checkpoints 20000 best --yes
"""
