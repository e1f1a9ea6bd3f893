"""Write a static page into the data root on which people look at episodes: videos, curves, returns per checkpoint.

``python flows/gallery.py [--exp E …]``; the page opens from a disk as from object storage. Exit code 0: written, 2: the
request was wrong, 1: anything else.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.gallery")

from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State
from prefect.runtime import flow_run as current_run
from prefect.states import Completed
from pydantic import Field

import tasks.gallery  # noqa: F401 (the task of its step)
from flows.cli.arguments import DataRoot, fail_as, make_parser, run_flow
from flows.cli.next_commands import lines_from_here
from flows.cli.process import EXIT_DONE
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner
from rlhfblender_core.gallery.collect import find_experiments
from rlhfblender_core.gallery.write import write_page
from tasks.config import resolve_locations


def run_name() -> str:
    """``gallery CartPole-v1_random_experiment``: what a person reads in Prefect's UI."""
    return " ".join(["gallery", *(current_run.parameters.get("exp") or [])])


@data_flow("gallery", run_name)
def gallery(
    *,
    exp: Annotated[list[str], Field(description="experiments to show (default all that have episodes)")] = [],  # noqa: B006
    data_root: DataRoot = None,
) -> State[Any]:
    """Writes the page ``gallery/index.html`` and its data into the data root."""
    report = PrefectRunner().do(write_page, exp, resolve_locations(data_root, None))
    return Completed(message=report.summary)


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(make_parser(gallery.fn, "Write a page for looking at episodes.", _EXAMPLES).parse_args())
    # A wrong request is refused at once, before Prefect is started.
    find_experiments(resolve_locations(arguments["data_root"], None).open_root(), arguments["exp"])
    state = run_flow(gallery, **arguments)
    if not state.is_completed():
        fail_as(state, "the page could not be written")
    print(lines_from_here(state.message or ""))
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/gallery.py
  python flows/gallery.py --exp CartPole-v1_random_experiment
  python flows/gallery.py --data-root s3://bucket/data
"""
