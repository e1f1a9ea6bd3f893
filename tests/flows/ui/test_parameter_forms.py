"""The forms of the deployments: every field is described, and may stay empty where a parameter may be left out."""

import importlib
from pathlib import Path

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

import flows
from flows.generate import generate

FLOWS = sorted(file.stem for file in Path(flows.__file__).parent.glob("[a-z]*.py") if file.stem != "register")


@pytest.mark.parametrize("name", FLOWS)
def test_every_field_is_described_and_has_one_kind_of_value(name: str) -> None:
    flow = getattr(importlib.import_module(f"flows.{name}"), name)
    form = parameter_schema(flow)  # what `prefect deploy` stores
    assert form.properties
    for field in form.properties.values():
        assert field["description"]
        assert "anyOf" not in field
        assert field.get("default", "") is not None
    assert form.properties == flow.parameters.properties


def test_limits_and_defaults_are_in_the_form() -> None:
    fields = generate.parameters.properties
    assert (fields["num_episodes"]["type"], fields["num_episodes"]["minimum"]) == ("integer", 1)
    assert (fields["seed"]["type"], fields["seed"]["minimum"]) == ("integer", 0)
    assert fields["env"]["type"] == "string"
    # A switch that is left alone says no; this is what the experiment says.
    assert fields["deterministic"]["enum"] == [True, False, None]


def test_null_is_accepted_where_a_field_may_stay_empty() -> None:
    form = generate.parameters.model_dump_for_openapi()
    left_out = {name: None for name, field in form["properties"].items() if "default" not in field}
    assert {"env", "action_names", "fps", "no_render", "data_root"} <= set(left_out)
    assert validate(left_out, form) == []
    assert [error.message for error in validate({"seed": -1}, form)] == ["-1 is less than the minimum of 0"]
