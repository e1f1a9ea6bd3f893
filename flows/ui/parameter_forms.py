"""The form of a deployment in Prefect's UI, made of the flow's parameters."""

import inspect
from types import NoneType
from typing import Annotated, ParamSpec, TypeVar, get_args

from prefect import Flow
from prefect.utilities.callables import parameter_schema
from pydantic import MISSING, Field, WithJsonSchema
from pydantic.fields import FieldInfo

P = ParamSpec("P")
R = TypeVar("R")


def shown_as_form(flow: Flow[P, R]) -> Flow[P, R]:
    """Has the flow's deployments show a form that a person can read: descriptions, and fields that may stay empty.

    Prefect makes the form of a flow's signature, and takes descriptions from docstrings only. ``str | None`` becomes a
    switch between two types, "Property is type None". So the flow gets a signature for that purpose: the fields of
    parameters that may be left out have no ``None`` among their types, and no default. The server accepts null for
    them all the same. Goes above ``@flow``.
    """
    signature = inspect.signature(flow.fn, eval_str=True)
    flow.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[_as_field(parameter) for parameter in signature.parameters.values()]
    )
    flow.parameters = parameter_schema(flow)
    return flow


def _as_field(parameter: inspect.Parameter) -> inspect.Parameter:
    annotation, *metadata = get_args(parameter.annotation)
    (description,) = [item.description for item in metadata if isinstance(item, FieldInfo)]
    default = parameter.default
    if default is None:
        (annotation,) = [kind for kind in get_args(annotation) if kind is not NoneType]
        default = MISSING
        # A switch that nobody touches would say no.
        metadata += [WithJsonSchema({"enum": [True, False, None]})] if annotation is bool else []
    elif default is inspect.Parameter.empty:
        default = ...
    # It is shown as Markdown: <env> would be taken for a tag.
    return parameter.replace(
        annotation=Annotated[annotation, *metadata],
        default=Field(default=default, description=(description or "").replace("<", "&lt;")),
    )
