"""What the logs of flow runs hold. Its import is what it is for.

Lines of Prefect's that tell a person nothing are left out; where errors come from is told at the level DEBUG.

For a run that fails because its flow says so, a worker logs a traceback of thirty lines through Prefect itself, below
the line that says what was wrong.
"""

import logging

from prefect.exceptions import FailedRun
from prefect.settings import PREFECT_LOGGING_LEVEL


def tells_something(record: logging.LogRecord) -> bool:
    """Whether a person could want to read it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], FailedRun)


#: Prefect gives loggers of others its handlers (tasks/prefect_defaults.py), but not its level.
logging.getLogger("rlhfblender_core").setLevel(PREFECT_LOGGING_LEVEL.value())

for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(tells_something)
