"""Parameters that may hold a password. Doesn't import Prefect: a command that needs no server starts without it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from tasks.config import keep_database_url


@dataclass(frozen=True)
class Secret:
    """Marks a parameter that may hold a password: Prefect stores the parameters of flow runs and shows them.

    Attributes:
        keep: takes the value that a command line was given; returns what may become a parameter.
    """

    keep: Callable[[str], str | None]


DatabaseUrl = Annotated[
    str | None,
    Field(description="registry (default RLHFBLENDER_DATABASE_URL, else SQLite in the data root)"),
    Secret(keep_database_url),
]
"""The registry, as every flow takes it."""
