"""Parameters that may hold a password. Doesn't import Prefect: a command that needs no server starts without it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from flows.cli.next_commands import note_flag
from rlhfblender_core.credentials import without_credentials
from tasks.config import keep_database_url


@dataclass(frozen=True)
class Noted:
    """Marks a parameter of which more is done on a command line than to hand it on.

    Attributes:
        keep: takes the value that a command line was given; returns what may become a parameter, which Prefect stores
            and shows.
    """

    keep: Callable[[str], str | None]


def _keep(url: str) -> str | None:
    kept = keep_database_url(url)
    note_flag("--database-url", kept or without_credentials(url))
    return kept


DatabaseUrl = Annotated[
    str | None,
    Field(description="registry (default RLHFBLENDER_DATABASE_URL, else SQLite in the data root)"),
    Noted(_keep),
]
"""The registry, as every flow takes it."""
