import hashlib
import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.dataset.npz import ArrayColumn, LargeColumn, TextColumn, WholeArray, write_npy, write_npz
from rlhfblender_core.untrusted.npz import open_arrays


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (np.float64, ()),
        (np.float32, (3,)),
        (np.uint8, (7, 5, 3)),
        (np.int64, ()),
        (np.bool_, (4,)),
        ("<U5", ()),
        (np.float32, (0,)),
    ],
)
@pytest.mark.parametrize("rows", [0, 1, 513, 3000])
def test_a_column_holds_its_rows_in_order_however_long_it_gets(
    dtype: object, shape: tuple[int, ...], rows: int, tmp_path: Path
) -> None:
    values = np.random.default_rng(0).integers(0, 2, (rows, *shape)).astype(dtype)  # type: ignore[call-overload]
    column = ArrayColumn(values.dtype, shape, tmp_path)
    for start in range(0, rows, 100):
        column.extend(list(values[start : start + 100]))
    assert len(column) == rows
    write_npy(tmp_path / "c.npy", column)
    column.close()
    loaded = np.load(tmp_path / "c.npy", allow_pickle=False)
    assert (loaded.dtype, loaded.shape) == (values.dtype, values.shape)
    np.testing.assert_array_equal(loaded, values)


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    column = ArrayColumn(np.float32, (2,), tmp_path)
    for rows in ([[1, 2], [3]], [[1], [2]], [1, 2]):
        with pytest.raises(ValueError, match="shape"):
            column.extend(rows)
    column.close()


@pytest.mark.parametrize("shape", [(5000,), (300, 400, 3), (3, 1 << 20), (1 << 24,)])
def test_large_rows_come_back_in_order_from_memory_and_from_disk(shape: tuple[int, ...], tmp_path: Path) -> None:
    rows = max(6, 100_000_000 // int(np.prod(shape)))  # more than is held in memory
    for length in (1, rows):
        column = LargeColumn(np.uint8, shape, tmp_path, 50_000_000)
        row = np.zeros(shape, np.uint8)
        for number in range(length):
            row.flat[:4] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)  # the same array again, changed
            column.add(row)
        assert len(column) == length
        write_npy(tmp_path / "c.npy", column)
        column.close()
        loaded = np.load(tmp_path / "c.npy", allow_pickle=False, mmap_mode="r")
        assert loaded.shape == (length, *shape)
        numbers = [int(np.ascontiguousarray(each.flat[:4]).view(np.uint32)[0]) for each in loaded]
        assert numbers == list(range(length))


def test_a_large_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    column = LargeColumn(np.uint8, (100, 100), tmp_path, 1000)
    with pytest.raises(ValueError, match="shape"):
        column.add(np.zeros((1, 100), np.uint8))
    column.close()


def test_memory_stays_the_same_however_many_large_rows_come(tmp_path: Path) -> None:
    column = LargeColumn(np.uint8, (1000, 1000), tmp_path, 50_000_000)
    row = np.ones((1000, 1000), np.uint8)
    tracemalloc.start()
    for _ in range(400):
        column.add(row)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    column.close()
    assert peak < 70_000_000


def npy_bytes(column: ArrayColumn | TextColumn | WholeArray, folder: Path) -> bytes:
    write_npy(folder / "x.npy", column)
    column.close()
    return (folder / "x.npy").read_bytes()


@given(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=20))
def test_texts_come_back_whatever_their_length(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        column = TextColumn(Path(folder))
        column.extend(texts[:7])
        column.extend(texts[7:])
        loaded = np.load(io.BytesIO(npy_bytes(column, Path(folder))), allow_pickle=False)
    assert loaded.tolist() == texts
    assert loaded.dtype.kind == "U"


@pytest.mark.parametrize(
    "value",
    [np.float64(1.5), np.int64(3), np.zeros((2, 3), np.uint8), np.asfortranarray(np.ones((2, 3))), np.str_("ü")],
)
def test_whole_arrays_keep_dtype_shape_and_values(value: object, tmp_path: Path) -> None:
    array = np.asarray(value)
    loaded = np.load(io.BytesIO(npy_bytes(WholeArray(array), tmp_path)), allow_pickle=False)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(loaded, array)


def test_objects_are_refused_because_they_would_need_pickles() -> None:
    with pytest.raises(TypeError, match="pickle"):
        WholeArray(np.array([object()]))


def test_an_archive_is_what_numpy_writes_but_with_the_same_bytes_every_time(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.npz", "b.npz"):
        column = ArrayColumn(np.float32, (2,), tmp_path)
        column.extend([np.full(2, value) for value in range(5)])
        write_npz(tmp_path / name, {"obs": column, "seed": WholeArray(np.asarray(np.int64(7)))})
        column.close()
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["obs", "seed"]
        assert archive["obs"].tolist() == [[value, value] for value in range(5)]
        assert archive["seed"] == 7


def test_what_shrinks_as_much_as_a_bomb_is_stored_so_that_it_can_be_read(tmp_path: Path) -> None:
    black = ArrayColumn(np.uint8, (1_000_000,), tmp_path)
    for _ in range(110):
        black.extend(np.zeros((1, 1_000_000), np.uint8))
    write_npz(tmp_path / "0.npz", {"obs": black})
    black.close()
    with open_arrays(tmp_path / "0.npz", "0.npz") as arrays:
        assert not any(row.any() for row in arrays.rows("obs"))
