"""Looks at a model folder in Prefect's UI: a table each, from which the next look learns what was told before."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prefect import get_client
from prefect.artifacts import create_table_artifact
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


def show_look(experiment: str, seen: Sequence[Seen]) -> None:
    """Stores the look's table with the run, where there is something to tell."""
    if seen:
        with optional("table of the look"):
            create_table_artifact(
                [{"checkpoint": line.label, "what": line.finding.value, "why": line.reason} for line in seen],
                key=artifact_key("watch", experiment),
                description=f"{experiment}: checkpoints that had no episodes before this look",
            )


def told_before(experiment: str) -> list[Seen]:
    """The lines of the experiment's last look that told something."""
    key = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[artifact_key("watch", experiment)]))
    with optional("earlier looks"), get_client(sync_client=True) as client:
        for found in client.read_latest_artifacts(artifact_filter=key):
            rows = json.loads(found.data) if isinstance(found.data, str) else []
            return [Seen(row["checkpoint"], Finding(row["what"]), row["why"]) for row in rows]
    return []
