"""Results as a person reads them: a table on the terminal."""

import math
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from rlhfblender_core.report import CheckpointReport, Report

HEADINGS = ("checkpoint", "made", "already there", "failed", "return", "length")


def row_of(row: CheckpointReport) -> tuple[str, ...]:
    """A checkpoint's row as text."""
    mean_return = "–" if math.isnan(row.mean_return) else f"{row.mean_return:,.2f} ± {row.std_return:,.2f}"
    mean_length = "–" if math.isnan(row.mean_length) else f"{row.mean_length:,.1f}"
    return row.checkpoint, str(row.made), str(row.there), str(len(row.failed)), mean_return, mean_length


def print_report(report: Report, console: Console) -> None:
    """Prints the table, and below it what needs attention."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "checkpoint" else "right", no_wrap=True)
    for row in report.checkpoints:
        table.add_row(*row_of(row))
    console.print(table)
    for line in remarks(report):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def remarks(report: Report) -> Iterator[str]:
    """Lines about episodes that failed or look wrong."""
    for row in report.checkpoints:
        for warning, episodes in row.warnings.items():
            yield f"warning: {row.checkpoint}: in {episodes} episodes {warning}"
        for message in row.failed.values():
            yield f"failed: {row.checkpoint}: {message}"
