"""States of environments as texts: nothing but what is in the table comes of them."""

import io
import json
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.dataset.state_texts import is_state_text, state_of, state_text
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError
from rlhfblender_core.untrusted.plain_values import read_state_objects


def texts(*states: Any) -> list[str]:
    """As they are read from a pickle of others."""
    rows = np.empty(len(states), dtype=object)
    rows[:] = states
    stream = io.BytesIO()
    pickle.dump(rows, stream)
    return [state_text(row) for row in read_state_objects(stream.getvalue())]


def test_what_a_state_holds_comes_back() -> None:
    generator = np.random.default_rng(3)
    generator.random()
    held = {
        "none": None, "flag": True, "number": 2**80, "real": 0.1, "odd": float("inf"), "text": "ä",
        "pair": (1, (2.5,)),
        "list": [1, [2]], "keys": {1: "a", (0, 1): "b"}, "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "letters": np.array([b"S", b"G"]), "scalar": np.int64(7), "word": np.str_("H"),
    }  # fmt: skip
    (text,) = texts(SimpleNamespace(**held, draws=generator))
    assert is_state_text(text)
    found = state_of(text)
    assert isinstance(found, SimpleNamespace)
    draws = found.draws
    del found.draws
    assert repr(vars(found)) == repr(held)
    assert draws.bit_generator.state == generator.bit_generator.state


class Odd:
    """A class that isn't in the table."""


@pytest.mark.parametrize("state", [{"a": Odd()}, SimpleNamespace(a={1, 2}), SimpleNamespace(a=len), {"a": 1j}])
def test_what_is_not_in_the_table_is_refused(state: object) -> None:
    with pytest.raises(RefusedPickleError):
        texts(state)


def test_a_state_of_very_many_bytes_is_refused() -> None:
    with pytest.raises(DamagedPickleError, match="bytes"):
        texts(SimpleNamespace(a=np.zeros(20_000)))


@pytest.mark.parametrize(
    "content",
    [
        {"object": ["os.system", {"dict": []}]},
        {"object": ["types.SimpleNamespace", {"dict": [[1, 2]]}]},
        {"object": ["types.SimpleNamespace", 1]},
        {"array": ["|O", [1], "AAAAAAAAAAA="]},
        {"array": ["<f8", [9], "AAAAAAAAAAA="]},
        {"array": ["no", [], "!"]},
        {"generator": {"dict": [["bit_generator", "MT19937"]]}},
        {"dict": [[[], 1]]},
        {"dict": 1, "tuple": 2},
        {"eval": "1"},
        {},
    ],
)
def test_a_text_of_others_makes_nothing_else(content: object) -> None:
    with pytest.raises(DataNotUsableError, match="damaged"):
        state_of(json.dumps({"state": content}))


@pytest.mark.parametrize("text", ['{"state":' + "[" * 5000, '{"state":', '{"other":1}', ""])
def test_a_text_that_is_damaged_is_one_line(text: str) -> None:
    with pytest.raises(DataNotUsableError, match="damaged"):
        state_of(text)
