"""Leaves out lines of Prefect's in the logs of flow runs that tell a person nothing. Its import is what it is for.

For a run that fails because its flow says so, a worker logs a traceback of thirty lines through Prefect itself, below
the line that says what was wrong.
"""

import logging

from prefect.exceptions import FailedRun


def tells_something(record: logging.LogRecord) -> bool:
    """Whether a person could want to read it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], FailedRun)


for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(tells_something)
