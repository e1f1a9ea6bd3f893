"""Makes what the deployments need on the Prefect server, where it isn't there yet: `make deploy` starts this.

The same as three commands: `prefect work-pool create local-processes --type process`, `prefect gcl create rendering
--limit 4`, `prefect automation create --from-file deployments/automations.yaml`, but what people changed stays.
"""

import sys
import time
from pathlib import Path

import yaml
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

POOL, LIMIT, RUNS_AT_ONCE = "local-processes", "rendering", 4
AUTOMATIONS = Path(__file__).with_name("automations.yaml")
#: A server that was started a moment ago needs some seconds.
PATIENCE_S = 30.0


def main() -> None:
    """Makes the work pool, the limit of runs that render at once, and the automations."""
    with get_client(sync_client=True) as client:
        wait_for_server(client)
        try:
            client.read_work_pool(POOL)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
        try:
            client.read_global_concurrency_limit_by_name(LIMIT)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=RUNS_AT_ONCE))
        for automation in yaml.safe_load(AUTOMATIONS.read_text(encoding="utf-8"))["automations"]:
            if not client.read_automations_by_name(automation["name"]):
                client.create_automation(AutomationCore.model_validate(automation))


def wait_for_server(client: SyncPrefectClient) -> None:
    """Ends the command with one line where no server answers."""
    deadline = time.monotonic() + PATIENCE_S
    while client.api_healthcheck() is not None:
        if time.monotonic() > deadline:
            sys.exit(
                f"error: No Prefect server answers at {client.api_url}. Start one: make server. "
                "Or name another one: make deploy PREFECT_API_URL=http://…/api"
            )
        time.sleep(0.5)


if __name__ == "__main__":
    main()
