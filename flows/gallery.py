"""Write a static page into the data root on which people look at episodes: videos, curves, returns per checkpoint.

``python flows/gallery.py [--exp E …]``; the page opens from a disk as from object storage. With ``--clip FILE`` it
writes a GIF or an MP4 of an episode instead. Exit code 0: written, 2: the request was wrong, 1: anything else.
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
from flows.cli.arguments import fail_as, make_parser, run_flow
from flows.cli.next_commands import as_typed, lines_from_here
from flows.cli.process import EXIT_DONE
from flows.cli.shared_flags import DataRoot
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.gallery.clip import ClipRequest, find_parts, write_clip
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
    clip: Annotated[
        str | None,
        Field(description="instead of the page: a file .gif or .mp4 for a clip of an episode, over the whole training"),
    ] = None,
    checkpoints: Annotated[
        list[int | str], Field(description="with --clip: labels of checkpoints (default all, of many thirty evenly)")
    ] = [],  # noqa: B006 (Prefect copies defaults)
    episode: Annotated[
        int | None, Field(ge=0, description="with --clip: its number (default the first that all of them have)")
    ] = None,
    steps: Annotated[
        str | None, Field(description="with --clip: first and last step, e.g. 100-250 (default as many as fit in 40 s)")
    ] = None,
    data_root: DataRoot = None,
) -> State[Any]:
    """Writes the page ``gallery/index.html`` and its data into the data root, or a clip."""
    locations = resolve_locations(data_root, None)
    request = _clip_request(exp, clip, checkpoints, episode, steps)
    if request is not None:
        return Completed(message=PrefectRunner().do(write_clip, request, locations))
    return Completed(message=PrefectRunner().do(write_page, exp, locations).summary)


def _clip_request(
    exp: list[str], clip: str | None, checkpoints: list[int | str], episode: int | None, steps: str | None
) -> ClipRequest | None:
    """What the clip is to show; None for the page."""
    if clip is not None:
        return ClipRequest(clip, tuple(exp), tuple(map(str, checkpoints)), episode, steps)
    if checkpoints or episode is not None or steps is not None:
        raise InvalidParameterError(
            "--checkpoints, --episode and --steps go with --clip FILE; the page shows everything."
        )
    return None


def main() -> int:
    """The command line; returns the exit code."""
    arguments = vars(make_parser(gallery.fn, "Write a page for looking at episodes.", _EXAMPLES).parse_args())
    # A wrong request is refused at once, before Prefect is started.
    locations = resolve_locations(arguments["data_root"], None)
    request = _clip_request(*(arguments[name] for name in ("exp", "clip", "checkpoints", "episode", "steps")))
    if request is not None:
        find_parts(request, locations)
    else:
        find_experiments(locations.open_root(), arguments["exp"])
    state = run_flow(gallery, **arguments)
    if not state.is_completed():
        fail_as(state, "nothing could be written")
    print(lines_from_here(as_typed(state.message or "")))
    return EXIT_DONE


_EXAMPLES = """examples:
  python flows/gallery.py
  python flows/gallery.py --exp CartPole-v1_random_experiment
  python flows/gallery.py --data-root s3://bucket/data
  python flows/gallery.py --exp MyExperiment --clip training.gif
  python flows/gallery.py --exp MyExperiment --checkpoints best --episode 3 --steps 100-250 --clip best.mp4
"""
