"""What Prefect's UI shows of a watch run: a table of the checkpoints that didn't have their episodes."""

from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact

from flows.cli.next_commands import with_place
from flows.ui.generate_artifacts import artifact_key, optional
from rlhfblender_core.watch import WatchRow
from rlhfblender_core.wording import in_markdown


def show_watch_report(experiment: str, data_root: str, rows: Sequence[WatchRow]) -> None:
    """Stores the table with the run, where there is something to report."""
    if rows:
        # Markdown, because reasons are long and lines of Prefect's tables are cut off.
        lines = "\n".join(
            f"| {' | '.join(map(in_markdown, (row.label, row.finding, with_place(row.reason))))} |" for row in rows
        )
        with optional("table of checkpoints"):
            create_markdown_artifact(
                f"| checkpoint | what | why |\n|---|---|---|\n{lines}\n",
                key=artifact_key("watch", experiment),
                description=f"{experiment} in {data_root}: checkpoints that had no episodes before this look",
            )
