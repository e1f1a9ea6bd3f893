"""What Prefect's UI shows of a verify run: a table by checkpoint, and one of what was wrong."""

from collections import Counter
from collections.abc import Iterable, Mapping

from prefect.artifacts import create_table_artifact

from flows.cli.next_commands import with_place
from flows.ui.generate_artifacts import artifact_key, optional
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.verification.checks import Problem
from rlhfblender_core.wording import counted

#: More lines than a page shows, and less than the server takes.
_MOST_PROBLEMS = 1000


def show_verification(
    exp: str | None, sound: Mapping[CheckpointKey, int], found: Iterable[Problem], left: Iterable[Problem]
) -> None:
    """Stores the tables with the run.

    Args:
        exp: the experiment that was checked; None for all.
        sound: number of episodes whose manifests are sound, by checkpoint.
        found: what was wrong at first.
        left: what is wrong now.
    """
    left = tuple(left)
    problems = list(dict.fromkeys((*left, *found)))
    wrong, still_wrong = Counter(map(_place, problems)), Counter(map(_place, left))
    episodes = Counter({(key.experiment, key.checkpoint): number for key, number in sound.items()})
    headings = ("experiment", "checkpoint", "episodes", "problems", "left")
    rows = [
        dict(zip(headings, (*place, episodes[place], wrong[place], still_wrong[place]), strict=True))
        for place in sorted({*episodes, *wrong})
    ]
    what = exp or "everything"
    with optional("table of checkpoints"):
        create_table_artifact(rows, key=artifact_key("verify", what), description=f"verify: {what}, by checkpoint")
    if problems:
        shown = [_row(problem, mended=problem not in left) for problem in problems[:_MOST_PROBLEMS]]
        count = counted(len(problems), "problem") + (f", the first {len(shown)}" if len(shown) < len(problems) else "")
        with optional("table of problems"):
            create_table_artifact(shown, key=artifact_key("problems", what), description=f"verify: {count}")


def _row(problem: Problem, *, mended: bool) -> dict[str, str]:
    remedy = "repaired" if mended else str(problem.remedy)
    return {"file": problem.path, "what is wrong": with_place(problem.what), "remedy": remedy}


def _place(problem: Problem) -> tuple[str, str]:
    return (problem.key.experiment, problem.key.checkpoint) if problem.key else ("–", "–")
