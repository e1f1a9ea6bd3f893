"""Delete an experiment, some of its checkpoints, or some episodes: files and rows. The environment stays registered.

``python flows/delete.py --exp E [--checkpoints 100000 best] [--episodes 3,5-9] [--where 'return > 100']`` shows what
would go and asks; a run that was killed is finished by the same command.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.delete")

import sys
from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State
from prefect.runtime import flow_run as current_run
from prefect.states import Completed
from pydantic import Field

import tasks.delete  # noqa: F401 (the tasks of its steps)
from flows.cli.arguments import fail_as, make_parser, run_flow
from flows.cli.process import EXIT_DONE, EXIT_WRONG_REQUEST, fail
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import DataRoot
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.delete import delete_all, plan_delete
from rlhfblender_core.errors import InvalidParameterError
from tasks.config import resolve_locations


def run_name() -> str:
    """``delete my-experiment``: what a person reads in Prefect's UI."""
    return " ".join(filter(None, ["delete", current_run.parameters.get("exp")]))


@data_flow("delete", run_name)
def delete(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    *,
    exp: Annotated[str | None, Field(description="the experiment")] = None,
    checkpoints: Annotated[
        list[int | str], Field(description="labels of checkpoints, e.g. 100000 best (default all, and the experiment)")
    ] = [],  # noqa: B006 (Prefect copies defaults)
    episodes: Annotated[str | None, Field(description="only these episodes, e.g. 3,5-9")] = None,
    where: Annotated[
        str | None, Field(description="only episodes that meet this, e.g. 'return > 100 and length < 500'")
    ] = None,
    yes: Annotated[bool, Field(description="delete without asking")] = False,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Deletes what was asked for: manifests first, then files, then rows."""
    if not yes:
        raise InvalidParameterError("Nothing was deleted: nobody was there to ask. Give --yes to delete.")
    locations = resolve_locations(data_root, database_url)
    deletion = delete_all(exp, checkpoints, PrefectRunner(), locations, parse_selection(episodes, where))
    return Completed(message=f"Deleted {deletion.summary}")


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(delete.fn, "Delete an experiment, some of its checkpoints, or some episodes.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    locations = resolve_locations(arguments["data_root"], arguments["database_url"])
    selection = parse_selection(arguments["episodes"], arguments["where"])
    deletion = plan_delete(arguments["exp"], arguments["checkpoints"], locations, selection)
    print(f"To be deleted: {deletion.summary}")
    if not arguments["yes"]:
        if sys.stdin is None or not sys.stdin.isatty():
            fail("Nothing was deleted: nobody is there to ask. Give --yes to delete.", EXIT_WRONG_REQUEST)
        if not _is_wanted():
            fail("Nothing was deleted.", EXIT_WRONG_REQUEST)
    state = run_flow(delete, **{**arguments, "yes": True})
    if not state.is_completed():
        fail_as(state, "the run failed")
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
  python flows/delete.py --exp CartPole-v1_trained_experiment --where 'return > 100 and length < 500'
  python flows/delete.py --exp CartPole-v1_trained_experiment --checkpoints best --episodes 3,5-9
"""
