"""Settings of Prefect that this project needs, where the user hasn't set them. Import this before Prefect.

With its defaults a temporary server loses most states of task runs at exit: they are recorded in batches of which the
last is dropped. Only environment variables reach a server that Prefect starts by itself.
"""

import contextlib
import logging
import os
import traceback
from pathlib import Path
from typing import Any

from rlhfblender_core.credentials import without_credentials

_DEFAULTS = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Where errors come from, at the level DEBUG.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "rlhfblender_core",
    # The core also works outside of runs, and in threads that know of none.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # By these the server notices that a run was lost (deployments/automations.yaml).
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # The first start makes its database, which takes 12 s on a free machine and longer on a busy one.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # Ray asks for a token otherwise, also for a cluster on this machine alone.
    "RAY_AUTH_MODE": "disabled",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

if "PREFECT_HOME" in os.environ:  # Prefect makes only the last folder of it
    with contextlib.suppress(OSError):
        Path(os.environ["PREFECT_HOME"]).expanduser().mkdir(parents=True, exist_ok=True)


def _tells_something(record: logging.LogRecord) -> bool:
    """Prefect's line about every task run that it is completed says no more than the timeline's green bars."""
    return not (record.levelno == logging.INFO and str(record.msg).startswith("Finished in state Completed("))


logging.getLogger("prefect.task_runs").addFilter(_tells_something)


_make_record = logging.getLogRecordFactory()


def _without_credentials(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """A record whose traceback has no passwords: Prefect keeps those of failed tasks, with what clients say of URLs."""
    record = _make_record(*args, **kwargs)
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = without_credentials("".join(traceback.format_exception(record.exc_info[1])).rstrip())
    return record


logging.setLogRecordFactory(_without_credentials)
