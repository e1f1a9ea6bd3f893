"""The form of a deployment in Prefect's UI: where its fields' descriptions come from, and which are secrets."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ParamSpec, TypeVar, get_args, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo

from tasks.settings import keep_database_url

P = ParamSpec("P")
R = TypeVar("R")


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


def described(function: Callable[P, R]) -> Callable[P, R]:
    """Repeats the descriptions of ``Annotated[…, Field(description=…)]`` in the docstring, under ``Args:``.

    Prefect takes a form's descriptions from there only (it overrides those of ``Annotated`` by nothing). Goes below
    ``@flow``.
    """
    lines = [inspect.getdoc(function) or "", "", "Args:"]
    for name, annotated in get_type_hints(function, include_extras=True).items():
        fields = [item for item in get_args(annotated)[1:] if isinstance(item, FieldInfo)]
        # It is shown as Markdown: <env> would be taken for a tag.
        lines += [f"    {name}: {field.description.replace('<', '&lt;')}" for field in fields if field.description]
    function.__doc__ = "\n".join(lines)
    return function
