"""Records check themselves."""

from typing import Any

import pytest

from rlhfblender_core.errors import InvalidNameError, InvalidParameterError
from rlhfblender_core.registry import CheckpointRecord, ExperimentRecord, ProjectRecord


def test_json_fields_are_what_reading_them_back_gives() -> None:
    assert ExperimentRecord(name="E", env_id="A-v0", kind="random", env_kwargs={"size": (1, 2)}).env_kwargs == {
        "size": [1, 2]
    }


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", float("inf"), float("nan"), object()])
def test_values_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(InvalidParameterError, match="the env_kwargs of experiment 'E' can't be stored"):
        ExperimentRecord(name="E", env_id="A-v0", kind="random", env_kwargs={"value": value})
    with pytest.raises(InvalidParameterError, match="the settings of experiment 'E' can't be stored"):
        ExperimentRecord(name="E", env_id="A-v0", kind="random", settings={"value": value})


@pytest.mark.parametrize("name", ["../x", "", "a/b", "x" * 300])
def test_names_that_are_no_path_segments_are_refused(name: str) -> None:
    for make in (
        lambda: ProjectRecord(name=name),
        lambda: ExperimentRecord(name=name, env_id="A-v0", kind="random"),
        lambda: CheckpointRecord(experiment="E", label=name),
    ):
        with pytest.raises(InvalidNameError):
            make()


def test_an_unknown_kind_is_refused() -> None:
    kind: Any = "learned"
    with pytest.raises(InvalidParameterError, match="kind is 'random', 'trained' or 'agent', not 'learned'"):
        ExperimentRecord(name="E", env_id="A-v0", kind=kind)


@pytest.mark.parametrize("value", ["text", [], 5, None, {1: 2}], ids=repr)
def test_json_fields_that_are_no_names_with_values_are_refused(value: Any) -> None:
    for name in ("settings", "env_kwargs", "observation_space"):
        with pytest.raises(InvalidParameterError, match=f"the {name} of experiment 'E' is .*, not names with values"):
            ExperimentRecord(name="E", env_id="A-v0", kind="random", **{name: value})
