"""Arguments of another type than the parameter's are told so, by every public function, before anything is done."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import rlhfblender_core
from rlhfblender_core.argument_types import as_type, check_arguments, check_fields, place_in
from rlhfblender_core.errors import InvalidParameterError, WrongTypeError

WRONG = [
    ("4", int, "a whole number"),
    (4.0, int, "a whole number"),
    (True, int, "a whole number"),
    (None, int, "a whole number"),
    (np.array([1, 2]), int, "a whole number"),
    ("4", float | None, "a number or None"),
    (4, str, "a text"),
    (b"4", str, "a text"),
    (1, bool, "True or False"),
    ("one", Sequence[str], "a list of texts"),
    ([1], Sequence[str], "a list of texts"),
    ({"a": 1}, Sequence[int | str], "a list of whole numbers or texts"),
    (np.array(4), Sequence[str], "a list of texts"),
    ([], Mapping[str, Any], "a dictionary"),
    ("f", Callable[[int], int], "a function"),
    ("c", Literal["a", "b"], "one of 'a', 'b'"),
]
RIGHT = [
    (4, int), (np.int64(4), int), (np.array(4), int), (4, float), (4.5, float | None), (None, float | None), ("a", str),
    (Path("a"), str), (False, bool), (("a",), Sequence[str]), (range(3), Sequence[int | str]), ({}, Mapping[str, Any]),
    (len, Callable[[int], int]), ("a", Literal["a", "b"]), (object(), Any),
]  # fmt: skip


@pytest.mark.parametrize(("value", "hint", "words"), WRONG)
def test_a_value_of_another_type_is_told_in_words(value: Any, hint: Any, words: str) -> None:
    with pytest.raises(WrongTypeError) as error:
        as_type("length", value, hint)
    assert str(error.value) == f"length is {words}, not {value!r:.80}."
    assert isinstance(error.value, TypeError)
    assert isinstance(error.value, InvalidParameterError)


@pytest.mark.parametrize(("value", "hint"), RIGHT)
def test_a_value_of_its_type_is_taken(value: Any, hint: Any) -> None:
    assert as_type("x", value, hint) == (str(value) if isinstance(value, Path) else value)


def test_a_generator_of_texts_is_read_once() -> None:
    assert as_type("x", (each for each in "ab"), Sequence[str]) == ["a", "b"]


def test_a_function_and_a_record_are_checked_by_their_annotations() -> None:
    @check_arguments
    def doubled(number: int, *, text: "str" = "", **others: Any) -> tuple[int, str]:
        """Twice the number."""
        return 2 * number, text

    @dataclass(frozen=True)
    class Record:
        number: int = 0

        def __post_init__(self) -> None:
            check_fields(self)

    assert doubled(number=np.int64(2), text=1, other=None) == (4, 1)  # type: ignore[arg-type]
    assert doubled.__doc__ == "Twice the number."
    with pytest.raises(WrongTypeError, match="number is a whole number, not 'a'"):
        doubled("a")  # type: ignore[arg-type]
    with pytest.raises(WrongTypeError, match="number is a whole number, not 'a'"):
        Record("a")  # type: ignore[arg-type]


def test_an_index_says_how_many_there_are() -> None:
    assert [place_in(index, 3, "episode") for index in (0, -1, np.int64(2))] == [0, 2, 2]
    with pytest.raises(IndexError, match=r"There is no episode 3; there are 3, 0 to 2\."):
        place_in(3, 3, "episode")
    with pytest.raises(IndexError, match=r"There is no episode -1; there are none\."):
        place_in(-1, 0, "episode")
    with pytest.raises(TypeError, match=r"An index of episodes is a whole number, not 'a'\."):
        place_in("a", 3, "episode")


@pytest.mark.parametrize("name", rlhfblender_core.__all__)
def test_every_public_function_refuses_what_is_of_no_type(name: str, tmp_path: Path) -> None:
    function = getattr(rlhfblender_core, name)
    parameters = inspect.signature(function).parameters
    needed = {"exp": "e", "env": "CartPole-v1", "out": str(tmp_path / "out")}
    given: dict[str, Any] = {"data_root": tmp_path / "data"}
    given |= {
        each: needed[each]
        for each in needed
        if each in parameters and parameters[each].default is inspect.Parameter.empty
    }
    checked = [each.name for each in parameters.values() if each.annotation is not Any and each.name != "request"]
    for parameter in checked:
        for wrong in (object(), 4.5j):
            with pytest.raises(WrongTypeError, match=f"^{parameter} is "):
                function(**{**given, parameter: wrong})
    assert not list(tmp_path.iterdir())


FLAGS = [
    "env", "exp", "num_episodes", "random", "model_path", "checkpoints", "project", "env_kwargs", "agent_kwargs",
    "vecnormalize", "additional_gym_packages", "action_names", "follow", "overwrite", "seed", "fps",
]  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS)
def test_every_part_of_a_request_is_of_its_type(flag: str, tmp_path: Path) -> None:
    asked = {"env": "CartPole-v1", "random": True, "data_root": tmp_path / "data", flag: 4.5j}
    with pytest.raises(InvalidParameterError, match=flag):
        rlhfblender_core.generate(**asked)
    assert not list(tmp_path.iterdir())
