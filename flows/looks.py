"""Looks at a model folder in Prefect's UI: a table each, from which the next look learns what was told before."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey

from flows.artifacts import artifact_key, optional


class Finding(StrEnum):
    """What a look found about a checkpoint that didn't have its episodes."""

    FILLED = "has its episodes now"
    UNSETTLED = "still being written"
    UNUSABLE = "can't be used"
    FAILED = "episodes failed"


@dataclass(frozen=True)
class Seen:
    """A line of a look.

    Attributes:
        label: of the checkpoint; empty for the whole folder.
        finding: what was found.
        reason: why, where it isn't good.
    """

    label: str
    finding: Finding
    reason: str = ""

    @property
    def row(self) -> str:
        """The line in the look's table."""
        cells = (self.label, self.finding, self.reason.replace("|", "\\|"))
        return f"| {' | '.join(cells)} |"


def show_look(experiment: str, seen: Sequence[Seen]) -> None:
    """Stores the look's table with the run, where there is something to tell."""
    if seen:
        # Markdown, because reasons are long and lines of Prefect's tables are cut off.
        rows = "\n".join(line.row for line in seen)
        with optional("table of the look"):
            create_markdown_artifact(
                f"| checkpoint | what | why |\n|---|---|---|\n{rows}\n",
                key=artifact_key("watch", experiment),
                description=f"{experiment}: checkpoints that had no episodes before this look",
            )


def told_before(experiment: str) -> Collection[str]:
    """Rows of the experiment's last look that told something."""
    key = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[artifact_key("watch", experiment)]))
    rows: set[str] = set()
    with optional("earlier looks"), get_client(sync_client=True) as client:
        for found in client.read_latest_artifacts(artifact_filter=key):
            rows |= set(str(found.data).splitlines())
    return rows
