import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError
from rlhfblender_core.untrusted.plain_values import read_objects


def pickled(*rows: Any, protocol: int = 4) -> bytes:
    array = np.empty(len(rows), object)
    for index, row in enumerate(rows):
        array[index] = row
    return pickle.dumps(array, protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_come_back_as_they_were(protocol: int) -> None:
    info = {
        "scalar": np.float32(1.5), "flag": np.bool_(True), "text": np.str_("go"), "list": [1, (2, None)],
        "dict": OrderedDict(a=1), "array": np.arange(6).reshape(2, 3), "texts": np.array(["a", "bc"]), "b": b"x",
        "set": {1}, "inner": np.array({"deep": np.int64(3)}), "objects": np.array([None, "x"], object),
    }  # fmt: skip
    (found,) = read_objects(pickled(info, protocol=protocol))
    assert np.array_equal(found.pop("array"), info["array"])
    assert found == {
        "scalar": 1.5, "flag": True, "text": "go", "list": [1, [2, None]], "dict": {"a": 1}, "texts": ["a", "bc"],
        "b": b"x", "set": {1}, "inner": {"deep": 3}, "objects": [None, "x"],
    }  # fmt: skip


def test_classes_and_functions_are_refused_even_if_only_named() -> None:
    for value, name in ((print, "builtins.print"), (np.load, "numpy.*load"), (np.dtype("i4"), "numpy.dtype")):
        with pytest.raises(RefusedPickleError, match=name):
            read_objects(pickled({"a": value}))


def test_lists_that_unfold_without_end_are_refused() -> None:
    bomb: list[Any] = [0] * 50
    for _ in range(8):
        bomb = [bomb] * 50
    with pytest.raises(DamagedPickleError, match="too many values"):
        read_objects(pickled(bomb))
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(DamagedPickleError, match="too deeply"):
        read_objects(pickled(circle))


def test_what_is_no_array_of_objects_is_damaged() -> None:
    for content in (b"", b"junk", pickle.dumps(3), pickled({"a": 1})[:-20]):
        with pytest.raises(DamagedPickleError):
            read_objects(content)
