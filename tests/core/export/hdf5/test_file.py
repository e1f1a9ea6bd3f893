"""The export to HDF5 with D4RL's keys, read by h5py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.exporting import DataSet

h5py = pytest.importorskip("h5py")

PENDULUM = "Pendulum-v1_random_experiment"
PLACES = {
    ("trained_cartpole", "128"): "CartPole-v1/trained_cartpole/128.hdf5",
    (PENDULUM, "random"): f"Pendulum-v1/{PENDULUM}/random.hdf5",
    ("pong", "random"): "ALE-Pong-v5/pong/random.hdf5",
    ("structured", "random"): "Struc_tured-v0/structured/random.hdf5",
}


@pytest.fixture(scope="module")
def exported(mixed_data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hdf5")
    mixed_data.export(out, to="hdf5")
    return out


def joined(data: DataSet, key: tuple[str, str], name: str) -> Any:
    return np.concatenate([data.arrays(*key, number)[name] for number in (0, 1)])


def observed(data: DataSet, key: tuple[str, str], name: str, *, is_next: bool) -> Any:
    parts = []
    for number in (0, 1):
        own = data.arrays(*key, number)
        rows = np.concatenate([own[name], own[f"final_{name}"][None]])
        parts.append(rows[1:] if is_next else rows[:-1])
    return np.concatenate(parts)


def same(found: Any, expected: Any) -> None:
    if expected.dtype.kind == "U":
        assert [text.decode() for text in found[:]] == expected.tolist()
    else:
        np.testing.assert_array_equal(found[:], expected)
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("key", PLACES)
def test_every_array_is_ours(exported: Path, mixed_data: DataSet, key: tuple[str, str]) -> None:
    own = mixed_data.arrays(*key, 0)
    with h5py.File(exported / PLACES[key]) as file:
        for ours, theirs in (("actions", "actions"), ("rewards", "rewards"), ("terminated", "terminals")):
            same(file[theirs], joined(mixed_data, key, ours))
        for name in (name for name in own if name == "obs" or name.startswith("obs.")):
            place = name.removeprefix("obs").replace(".", "/", 1)
            for group, is_next in (("observations", False), ("next_observations", True)):
                same(file[f"{group}{place}"], observed(mixed_data, key, name, is_next=is_next))
        for name in ("probs", "entropy", "values", "uncertainty"):
            assert (f"infos/{name}" in file) == (name in own and not np.isnan(own[name]).all())
            if f"infos/{name}" in file:
                same(file[f"infos/{name}"], joined(mixed_data, key, name))
        infos = [json.loads(text) for text in joined(mixed_data, key, "infos").tolist()]
        assert [json.loads(text) for text in file["infos/json"][:]] == infos
        for name in ("count", "lives", "frame_number"):
            if name in infos[0]:
                assert file[f"infos/{name}"][:].tolist() == [info[name] for info in infos]
        lengths = [len(mixed_data.arrays(*key, number)["rewards"]) for number in (0, 1)]
        assert file["metadata/length"][:].tolist() == lengths
        ends = np.flatnonzero(file["terminals"][:] | file["timeouts"][:])
        assert ends.tolist() == (np.cumsum(lengths) - 1).tolist(), "readers of D4RL find the episodes by them"
        assert file.attrs["experiment"] == key[0]


def test_statistics_are_those_of_all_rows(exported: Path, mixed_data: DataSet) -> None:
    key = (PENDULUM, "random")
    rows = joined(mixed_data, key, "obs").astype(np.float64)
    with h5py.File(exported / PLACES[key]) as file:
        statistics = file["observations"].attrs
        np.testing.assert_allclose(statistics["mean"], rows.mean(axis=0))
        np.testing.assert_allclose(statistics["std"], rows.std(axis=0))
        np.testing.assert_array_equal((statistics["min"], statistics["max"]), (rows.min(axis=0), rows.max(axis=0)))


def test_an_episode_that_nobody_ended_ends_with_a_timeout(data: DataSet, out: Path) -> None:
    data.counting(env_kwargs={"ends": "nothing"}, max_steps_per_episode=4)
    (report,) = data.export(out, to="hdf5")
    with h5py.File(out / report.place) as file:
        assert file["timeouts"][:].tolist() == [False, False, False, True] * 2
        assert not file["terminals"][:].any()


def test_infos_that_some_steps_lack_are_texts_alone(data: DataSet, out: Path) -> None:
    data.counting(env="Telling", episodes=3)
    (report,) = data.export(out, to="hdf5")
    with h5py.File(out / report.place) as file:
        assert [json.loads(text) for text in file["infos/json"][:]] == [
            json.loads(text) for number in range(3) for text in data.arrays("E", "random", number)["infos"].tolist()
        ]
