"""Data sets in the forms of others: brought up to date, whole or not at all, of the episodes that were asked for."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core import export, import_data, open_data_set
from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.export import formats
from rlhfblender_core.export.minari.dataset import NO_FINAL
from tests.support.exporting import DataSet

pytest.importorskip("h5py")
pytest.importorskip("pyarrow")

FORMATS = [name for name in formats.FORMATS if name not in ("rlhfblender", "minari")]
each_format = pytest.mark.parametrize("to", FORMATS)


def counts(data: DataSet, out: Path, to: str, **chosen: Any) -> list[tuple[int, int]]:
    return [(report.made, report.existing) for report in data.export(out, to=to, **chosen)]


def moments(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def numbers(place: Path, to: str) -> list[int]:
    """Which of our episodes the data set has."""
    import h5py
    import pyarrow.parquet as pq

    if to == "hdf5":
        with h5py.File(place) as file:
            return file["metadata/episode"][:].tolist()
    if to == "lerobot":
        return pq.read_table(place / "meta/episodes")["rlhfblender/episode"].to_pylist()
    return sorted(set(pq.read_table(place / "data")["episode"].to_pylist()))


@each_format
def test_a_second_run_changes_nothing_and_new_episodes_are_added(data: DataSet, out: Path, to: str) -> None:
    data.counting()
    assert counts(data, out, to) == [(2, 0)]
    before = moments(out)
    assert counts(data, out, to) == [(0, 2)]
    assert moments(out) == before
    data.counting(episodes=3)
    (report,) = data.export(out, to=to)
    assert (report.made, numbers(out / report.place, to)) == (3, [0, 1, 2])
    assert not [path for path in (out / ".rlhfblender-export").rglob("*") if path.name.startswith("staging-")]


@each_format
def test_only_the_episodes_that_were_asked_for(data: DataSet, out: Path, to: str) -> None:
    data.counting(episodes=6)
    (report,) = data.export(out, to=to, episodes="1,3-4")
    assert numbers(out / report.place, to) == [1, 3, 4]
    best = max(range(6), key=lambda number: data.arrays("E", "random", number)["rewards"].sum())
    highest = data.arrays("E", "random", best)["rewards"].sum()
    (report,) = data.export(out, to=to, where=f"return >= {highest} and length < 500")
    assert best in numbers(out / report.place, to)
    assert all(
        data.arrays("E", "random", number)["rewards"].sum() >= highest for number in numbers(out / report.place, to)
    )
    assert counts(data, out, to, where="return > 1e9") == [(0, 0)]


@each_format
def test_a_damaged_episode_is_left_out_and_named(data: DataSet, out: Path, to: str) -> None:
    data.counting(episodes=3)
    Path(data.root.full_path("episodes/E/random/1.npz")).write_bytes(b"x")
    (report,) = data.export(out, to=to)
    assert numbers(out / report.place, to) == [0, 2]
    assert list(report.left_out.values()) == [1]
    (again,) = data.export(out, to=to)
    assert (again.left_out, again.existing) == (report.left_out, 2)


@each_format
def test_an_export_stopped_half_way_leaves_the_one_of_before_whole(
    data: DataSet, out: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.counting()
    (report,) = data.export(out, to=to)
    data.counting(episodes=4)
    module = importlib.import_module("rlhfblender_core.export.data_sets")
    real = module.read_columns

    def stops(episode: Any) -> Any:
        if episode.number == 3:
            raise KeyboardInterrupt
        return real(episode)

    monkeypatch.setattr(module, "read_columns", stops)
    with pytest.raises(KeyboardInterrupt):
        data.export(out, to=to)
    assert numbers(out / report.place, to) == [0, 1]
    monkeypatch.undo()
    data.export(out, to=to)
    assert numbers(out / report.place, to) == [0, 1, 2, 3]


@each_format
def test_what_is_not_ours_is_left_alone(data: DataSet, out: Path, to: str) -> None:
    data.counting()
    place = out / ("CountingMade-v0/E/random" + (".hdf5" if to == "hdf5" else ""))
    place.parent.mkdir(parents=True)
    place.write_text("somebody's")
    with pytest.raises(DataNotUsableError, match="isn't an export of ours"):
        data.export(out, to=to)
    assert place.read_text() == "somebody's"


@each_format
def test_from_object_storage(remote_data: DataSet, out: Path, to: str) -> None:
    remote_data.counting()
    (report,) = remote_data.export(out, to=to)
    assert numbers(out / report.place, to) == [0, 1]


@each_format
def test_a_missing_package_is_one_line_that_names_the_extra(
    data: DataSet, out: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.counting()
    monkeypatch.setitem(sys.modules, "h5py" if to == "hdf5" else "pyarrow", None)
    with pytest.raises(InvalidParameterError, match=rf"rlhfblender-data\[{to}\]"):
        data.export(out, to=to)


def test_checkpoints_can_be_chosen(mixed_data: DataSet, out: Path) -> None:
    reports = mixed_data.export(out, ["trained_cartpole"], to="hdf5", checkpoints=["128", "final"])
    assert [report.key.checkpoint for report in reports] == ["128", "final"]
    with pytest.raises(InvalidParameterError, match=r"'64'.*128, 256, final, random"):
        mixed_data.export(out, ["trained_cartpole"], to="hdf5", checkpoints=["64"])


@each_format
def test_a_manifest_that_names_another_file_is_not_followed(data: DataSet, out: Path, tmp_path: Path, to: str) -> None:
    data.counting(episodes=1)
    path = Path(data.root.full_path("manifests/E/random/0.json"))
    content = json.loads(path.read_bytes())
    del content["sha256"]
    secret = tmp_path / "secret.npz"
    secret.write_bytes(Path(data.root.full_path("episodes/E/random/0.npz")).read_bytes())
    content["artifacts"]["episodes"]["path"] = "../secret.npz"
    content["sha256"] = canonical_digest(content)
    path.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    with pytest.raises(DataNotUsableError, match=r"manifest .*0\.json is damaged"):
        data.export(out, to=to)


def imported(tmp_path: Path, **last: Any) -> dict[str, Any]:
    """The data root of two imported episodes, of which the second one's source may say what was observed last."""
    folder = tmp_path / "source/episodes/X/5"
    folder.mkdir(parents=True)
    rows = {"obs": np.arange(6, dtype=np.float32).reshape(3, 2), "actions": np.arange(3), "rewards": np.arange(3) * 0.5}
    np.savez(folder / "0.npz", **rows)
    np.savez(folder / "1.npz", **rows, **last)
    where = {"data_root": str(tmp_path / "data")}
    import_data(str(tmp_path / "source"), exp="X", env="CartPole-v1", **where)
    return where


def test_what_was_observed_last_may_be_unknown(tmp_path: Path, out: Path) -> None:
    import h5py
    import pyarrow.parquet as pq

    where = imported(tmp_path, final_obs=np.array([6, 7], np.float32))
    observed = np.concatenate([np.arange(6).reshape(3, 2)] * 2)
    first, second = open_data_set(where["data_root"])
    assert (first.observations.shape, second.observations.shape) == ((3, 2), (4, 2))
    for to in FORMATS:
        (report,) = export(str(out / to), to=to, **where).checkpoints
        assert (report.made, report.left_out) == (2, {})
    with h5py.File(out / "hdf5/CartPole-v1/X/5.hdf5") as file:
        np.testing.assert_array_equal(file["observations"][:], observed)
        assert "next_observations" not in file
    table = pq.read_table(out / "datasets/CartPole-v1/X/5/data")
    np.testing.assert_array_equal(table["observation"].to_pylist(), observed)
    assert table["final_observation"].to_pylist() == [None] * 5 + [[6, 7]]
    rows = pq.read_table(out / "lerobot/CartPole-v1/X/5/data")["observation.state"].to_pylist()
    np.testing.assert_array_equal(rows, observed)


def test_minari_leaves_out_what_has_no_last_observation(tmp_path: Path, out: Path) -> None:
    pytest.importorskip("minari")
    where = imported(tmp_path, final_obs=np.array([6, 7], np.float32))
    (report,) = export(str(out), to="minari", **where).checkpoints
    assert (report.made, report.left_out) == (1, {NO_FINAL: 1})


def test_a_policy_s_features_go_along(data: DataSet, out: Path, trained_cartpole: Path) -> None:
    import h5py
    import pyarrow.parquet as pq

    asked = {"env": "CartPole-v1", "exp": "E", "model_path": str(trained_cartpole), "checkpoints": ["final"]}
    data.generate(**asked, num_episodes=2, max_steps_per_episode=4, features=True, no_render=True)
    for to in FORMATS:
        data.export(out / to, to=to)
    features = np.concatenate([data.arrays("E", "final", number)["features"] for number in (0, 1)])
    assert features.shape == (8, 64)
    with h5py.File(out / "hdf5/CartPole-v1/E/final.hdf5") as file:
        np.testing.assert_array_equal(file["infos/features"][:], features)
    for to, name in (("datasets", "features"), ("lerobot", "policy.features")):
        table = pq.read_table(out / to / "CartPole-v1/E/final/data")
        np.testing.assert_array_equal(np.array(table[name].to_pylist(), np.float32), features)
