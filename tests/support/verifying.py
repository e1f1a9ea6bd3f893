"""Verifying and repairing by the library, in the words that tests compare."""

from rlhfblender_core.repair import repair_all
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.steps import LocalSteps
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.verification.checks import Findings
from rlhfblender_core.verify import survey as survey_all
from tests.support.generating import locations_of

#: Every survey decodes all videos, so few here; the soak tests have 30.
EPISODES = 3


def database(root: DataRoot) -> str:
    """The registry beside the data."""
    return f"sqlite:///{root.local_folder / 'rlhfblender.db'}"


def survey(root: DataRoot, database_url: str, experiment: str | None = None) -> Findings:
    """Everything that is wrong."""
    return survey_all(experiment, LocalRunner(), locations_of(root, database_url))


def problems(root: DataRoot, database_url: str) -> list[str]:
    """Everything that is wrong, a line each."""
    return [str(problem) for problem in survey(root, database_url).problems]


def repair(root: DataRoot, database_url: str) -> list[str]:
    """Mends what can be mended; says what can't."""
    steps = LocalSteps(locations_of(root, database_url), 0)
    return list(repair_all(None, LocalRunner(), steps, trust_checkpoint=False).notes)
