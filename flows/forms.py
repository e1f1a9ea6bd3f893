"""The form of a deployment in Prefect's UI: where its fields' descriptions come from."""

import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar, get_args, get_type_hints

from pydantic.fields import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")


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
