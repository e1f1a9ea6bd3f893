"""Results as a person reads them: a table on the terminal."""

import math
import shlex
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from flows.cli.next_commands import as_typed, command, path_from_here
from rlhfblender_core.report.summary import CheckpointReport, Report
from rlhfblender_core.wording import counted

HEADINGS = ("checkpoint", "made", "already there", "failed", "return", "length")


def row_of(row: CheckpointReport) -> tuple[str, ...]:
    """A checkpoint's row as text."""
    mean_return = "–" if math.isnan(row.mean_return) else f"{row.mean_return:,.2f} ± {row.std_return:,.2f}"
    mean_length = "–" if math.isnan(row.mean_length) else f"{row.mean_length:,.1f}"
    return row.checkpoint, str(row.made), str(row.existing), str(len(row.failed)), mean_return, mean_length


def print_report(report: Report, console: Console) -> None:
    """Prints the table, and below it what needs attention and what to do next.

    Args:
        report: what the run achieved.
        console: to print on.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "checkpoint" else "right", no_wrap=True)
    for row in report.checkpoints:
        table.add_row(*row_of(row))
    if report.checkpoints:
        console.print(table)
    for line in (*notes(report), *next_steps(report, path_from_here), *_commands(report)):
        console.print(as_typed(line), soft_wrap=True, highlight=False, markup=False)


def next_steps(report: Report, shown: Callable[[str], str] = str) -> Iterator[str]:
    """Where everything is, and what to do next.

    Args:
        report: what the run achieved.
        shown: how a path is written.
    """
    yield f"Data: {shlex.quote(shown(report.data_root))}"
    if report.experiment is None:
        yield "The environment is registered; generate episodes with --random or --model-path."
    elif report.failed:
        yield "Where the cause is mended, the same command makes the episodes that failed, and no others."
    elif report.checkpoints:
        # The last is, as a rule, the one that was trained longest.
        example = f"{report.experiment}/{report.checkpoints[-1].checkpoint}/0"
        if report.has_videos:
            yield f"Watch: {shlex.quote(shown(f'{report.data_root}/renders/{example}.mp4'))}"
        yield f"Load: import rlhfblender_core; data = rlhfblender_core.open_data_set({shown(report.data_root)!r})"


def _commands(report: Report) -> Iterator[str]:
    if report.experiment is not None and not report.checkpoints:
        yield f"Generate: {command('generate', '--exp', report.experiment)}"
    elif report.made or any(row.existing for row in report.checkpoints):
        yield f"Look: {command('gallery', '--exp', report.experiment or '')}"


def notes(report: Report) -> Iterator[str]:
    """Lines about what a person should know, and about episodes that failed or look wrong."""
    for note in report.notes:
        yield f"warning: {note}"
    for row in report.checkpoints:
        for warning, episodes in row.warnings.items():
            yield f"warning: {row.checkpoint}: in {counted(episodes, 'episode')} {warning}"
        for message in row.failed.values():
            yield f"failed: {row.checkpoint}: {message}"
