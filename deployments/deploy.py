"""Deploys all of prefect.yaml and prints one table of the deployments: `make deploy` starts this.

The same as `prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all`, which prints a page about each.
"""

import subprocess
import sys
from pathlib import Path

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.settings import PREFECT_API_URL
from rich.console import Console
from rich.table import Table

from flows.cli.next_commands import path_from_here

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")
_PIPE_WIDTH = 10_000


def main() -> None:
    """Deploys; where that fails, shows what Prefect says."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(DEPLOYMENTS), "--all"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout)
    with get_client(sync_client=True) as client:
        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)  # a pipe has no width
        console.print(table(client))
    console.print("A worker does their runs: make worker. By hand:")
    prefect = path_from_here(str(Path(sys.executable).with_name("prefect")))
    asked = "deployment run 'generate/on-demand' --param env=CartPole-v1 --param random=true --watch"
    console.print(f"PREFECT_API_URL={PREFECT_API_URL.value()} {prefect} {asked}", soft_wrap=True, highlight=False)


def table(client: SyncPrefectClient) -> Table:
    """The deployments on the server: name, schedules, first line of the description."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("deployment", "runs", "what it does"):
        rows.add_column(heading, no_wrap=heading == "deployment")
    found = [(client.read_flow(each.flow_id).name, each) for each in client.read_deployments()]
    for flow, each in sorted(found, key=lambda pair: (pair[0], pair[1].name)):
        schedules = ", ".join(when(schedule) for schedule in each.schedules) or "when asked for"
        sentence = " ".join((each.description or "").split()).partition(". ")[0].rstrip(".")
        rows.add_row(f"{flow}/{each.name}", schedules, sentence.replace("[", r"\["))
    return rows


def when(schedule: DeploymentSchedule) -> str:
    """``0 2 * * * UTC``, ``every 0:15:00``."""
    rule = schedule.schedule
    if isinstance(rule, CronSchedule):
        text = f"{rule.cron} {rule.timezone or ''}".rstrip()
    else:
        text = f"every {rule.interval}" if isinstance(rule, IntervalSchedule) else str(rule)
    return text if schedule.active else f"{text} (paused)"


if __name__ == "__main__":
    main()
