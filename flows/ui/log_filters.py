"""Leaves out lines of Prefect's in the logs of flow runs that tell a person nothing. Its import is what it is for.

For a run that fails because its flow says so, a worker logs a traceback of thirty lines through Prefect itself, below
the line that says what was wrong. Hooks are logged twice each.
"""

import logging

from prefect.exceptions import FailedRun

#: Of flows/signs_of_life.py.
_HOOKS = ("'_begin_signs_of_life'", "'_end_signs_of_life'")


def tells_something(record: logging.LogRecord) -> bool:
    """Whether a person could want to read it."""
    is_hook = any(hook in record.getMessage() for hook in _HOOKS)
    is_failed_state = record.exc_info is not None and isinstance(record.exc_info[1], FailedRun)
    return not is_hook and not is_failed_state


for _name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(_name).addFilter(tells_something)
