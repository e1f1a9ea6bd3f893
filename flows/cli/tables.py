"""Results as a person reads them: a table on the terminal."""

import math
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from rlhfblender_core.report.summary import CheckpointReport, Report
from rlhfblender_core.wording import counted

HEADINGS = ("checkpoint", "made", "already there", "failed", "return", "length")


def row_of(row: CheckpointReport) -> tuple[str, ...]:
    """A checkpoint's row as text."""
    mean_return = "–" if math.isnan(row.mean_return) else f"{row.mean_return:,.2f} ± {row.std_return:,.2f}"
    mean_length = "–" if math.isnan(row.mean_length) else f"{row.mean_length:,.1f}"
    return row.checkpoint, str(row.made), str(row.existing), str(len(row.failed)), mean_return, mean_length


def print_report(report: Report, console: Console) -> None:
    """Prints the table, and below it what needs attention."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "checkpoint" else "right", no_wrap=True)
    for row in report.checkpoints:
        table.add_row(*row_of(row))
    if report.checkpoints:
        console.print(table)
    for line in (*notes(report), *next_steps(report)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def next_steps(report: Report) -> Iterator[str]:
    """Where everything is, and what to do next."""
    yield f"Data: {report.data_root}"
    if report.experiment is None:
        yield "The environment is registered; generate episodes with --random or --model-path."
    elif not report.checkpoints:
        yield f"Experiment {report.experiment} is registered; generate its episodes with --exp {report.experiment}."
    elif report.failed:
        yield "Where the cause is mended, the same command makes the episodes that failed, and no others."
    else:
        example = f"{report.experiment}/{report.checkpoints[0].checkpoint}/0"
        if report.has_videos:
            yield f"Watch: renders/{example}.mp4 in a browser."
        yield f'Load: numpy.load("episodes/{example}.npz") has obs, actions, rewards and more.'


def notes(report: Report) -> Iterator[str]:
    """Lines about what a person should know, and about episodes that failed or look wrong."""
    for note in report.notes:
        yield f"warning: {note}"
    for row in report.checkpoints:
        for warning, episodes in row.warnings.items():
            yield f"warning: {row.checkpoint}: in {counted(episodes, 'episode')} {warning}"
        for message in row.failed.values():
            yield f"failed: {row.checkpoint}: {message}"
