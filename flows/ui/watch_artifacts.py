"""Looks at a model folder in Prefect's UI: a table each, from which the next look learns what was told before."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from flows.ui.generate_artifacts import artifact_key, optional

#: So many earlier looks are searched for the last one at the same data root.
_LOOKS = 20


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


def show_look(experiment: str, data_root: str, seen: Sequence[Seen]) -> None:
    """Stores the look's table with the run, where there is something to tell."""
    if seen:
        # Markdown, because reasons are long and lines of Prefect's tables are cut off.
        rows = "\n".join(line.row for line in seen)
        with optional("table of the look"):
            create_markdown_artifact(
                f"| checkpoint | what | why |\n|---|---|---|\n{rows}\n",
                key=artifact_key("watch", experiment),
                description=_description(experiment, data_root),
            )


def told_before(experiment: str, data_root: str) -> Collection[str]:
    """Rows of the experiment's last look that told something."""
    key = ArtifactFilter(key=ArtifactFilterKey(any_=[artifact_key("watch", experiment)]))
    with optional("earlier looks"), get_client(sync_client=True) as client:
        latest_first = client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC, limit=_LOOKS)
        for look in latest_first:
            if look.description == _description(experiment, data_root):
                return set(str(look.data).splitlines())
    return ()


def _description(experiment: str, data_root: str) -> str:
    """Other data roots may have an experiment of that name, and be filled by workers of the same server."""
    return f"{experiment} in {data_root}: checkpoints that had no episodes before this look"
