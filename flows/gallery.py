"""Write a static page into the data root on which people look at episodes: videos, curves, returns per checkpoint.

``python flows/gallery.py [--exp E …]``; the page opens from a disk as from object storage. Exit code 0: written, 2: the
request was wrong, 1: anything else.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.gallery")

from typing import Annotated, Any

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

from flows.cli.arguments import REFUSED, make_parser, run_flow
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, fail
from flows.signs_of_life import SIGNS_OF_LIFE
from flows.ui.parameter_forms import shown_as_form
from rlhfblender_core.errors import RequestError, RLHFBlenderError, one_line
from rlhfblender_core.gallery import GalleryReport
from rlhfblender_core.gallery.collect import find_experiments
from rlhfblender_core.wording import counted
from tasks.config import resolve_locations
from tasks.gallery import write_page


def run_name() -> str:
    """``gallery CartPole-v1_random_experiment``: what a person reads in Prefect's UI."""
    return " ".join(["gallery", *(current_run.parameters.get("exp") or [])])


@shown_as_form
@flow(name="gallery", flow_run_name=run_name, **SIGNS_OF_LIFE)
def gallery(
    *,
    exp: Annotated[list[str], Field(description="experiments to show (default all that have episodes)")] = [],  # noqa: B006
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
) -> State[Any]:
    """Writes the page ``gallery/index.html`` and its data into the data root."""
    try:
        report = write_page(exp, resolve_locations(data_root, None))
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except RLHFBlenderError as error:
        return Failed(message=one_line(error))
    return Completed(message=summary(report))


def summary(report: GalleryReport) -> str:
    """What was written, in two lines."""
    without = f" ({report.without_video:,} without video)" if report.without_video else ""
    where = f"{counted(report.checkpoints, 'checkpoint')}, {counted(report.experiments, 'experiment')}"
    return f"{counted(report.episodes, 'episode')}{without} of {where}\nOpen in a browser: {report.page}"


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(make_parser(gallery.fn, "Write a page for looking at episodes.", _EXAMPLES).parse_args())
    # A wrong request is refused at once, before Prefect is started.
    find_experiments(resolve_locations(arguments["data_root"], None).open_root(), arguments["exp"])
    state = run_flow(gallery, **arguments)
    if not state.is_completed():
        code = EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE
        fail(state.message or "the page could not be written", code)
    print(state.message)
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/gallery.py
  python flows/gallery.py --exp CartPole-v1_random_experiment
  python flows/gallery.py --data-root s3://bucket/data
"""
