"""The export to Minari, read by Minari."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.environments import unflatten_observation
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.minari import dataset as dataset_export
from rlhfblender_core.export.minari.episodes import minari_infos, minari_space
from rlhfblender_core.export.request import CheckpointExport
from rlhfblender_core.export.run import export_all
from rlhfblender_core.step_runner import LocalRunner
from tests.support.exporting import DataSet
from tests.support.generating import locations_of

minari = pytest.importorskip("minari")


def export(data: DataSet, out: Path, experiments: Sequence[str] = ()) -> list[CheckpointExport]:
    locations = locations_of(data.root, data.url)
    return list(export_all(str(out), "minari", experiments, ExportOptions(), LocalRunner(), locations).checkpoints)


@pytest.fixture(scope="module")
def exported(mixed_data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("minari")
    export(mixed_data, out)
    return out


@pytest.fixture(autouse=True)
def datasets_path(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("exported" if "exported" in request.fixturenames else "out")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))


def own(data: DataSet, experiment: str, checkpoint: str, number: int) -> dict[str, Any]:
    path = artifact_path(ArtifactKind.EPISODES, EpisodeKey(experiment, checkpoint, number))
    with np.load(data.root.full_path(path), allow_pickle=False) as arrays:
        return dict(arrays)


def assert_same_structure(found: Any, expected: Any, t: int) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same_structure(found[key], expected[key], t)
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            assert_same_structure(one, other, t)
    else:
        np.testing.assert_array_equal(found[t], expected)


def test_minari_lists_all_of_it(exported: Path) -> None:
    assert set(minari.list_local_datasets()) == {
        *(f"CartPole-v1/trained_cartpole/{label}-v0" for label in ("random", "128", "256", "final")),
        "Pendulum-v1/Pendulum-v1_random_experiment/random-v0",
        "ALE-Pong-v5/pong/random-v0",
        "Struc_tured-v0/structured/random-v0",
    }


@pytest.mark.parametrize(
    ("dataset_id", "experiment", "checkpoint"),
    [
        ("CartPole-v1/trained_cartpole/128-v0", "trained_cartpole", "128"),
        ("Pendulum-v1/Pendulum-v1_random_experiment/random-v0", "Pendulum-v1_random_experiment", "random"),
        ("ALE-Pong-v5/pong/random-v0", "pong", "random"),
        ("Struc_tured-v0/structured/random-v0", "structured", "random"),
    ],
)
def test_episodes_are_ours(
    exported: Path, mixed_data: DataSet, dataset_id: str, experiment: str, checkpoint: str
) -> None:
    dataset = minari.load_dataset(dataset_id)
    assert len(dataset) == 2
    metadata = list(dataset.storage.get_episode_metadata([0, 1]))
    for number, episode in enumerate(dataset.iterate_episodes()):
        ours = own(mixed_data, experiment, checkpoint, number)
        length = len(ours["rewards"])
        assert (len(episode), metadata[number]["seed"]) == (length, ours["seed"])
        for name, theirs in {
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminated": episode.terminations,
            "truncated": episode.truncations,
        }.items():
            np.testing.assert_array_equal(theirs, ours[name])
            assert theirs.dtype == ours[name].dtype
        for t in range(length + 1):
            names = [name for name in ours if name.startswith("obs")]
            rows = {name: ours[name][t] if t < length else ours[f"final_{name}"] for name in names}
            assert_same_structure(episode.observations, unflatten_observation(dataset.observation_space, rows), t)
        for t, text in enumerate(ours["infos"].tolist()):
            for key, value in json.loads(text).items():
                stored = episode.infos[key][t]
                assert (stored.decode() if isinstance(stored, bytes) else stored) == value
    assert {len(episode) for episode in dataset.sample_episodes(2)}


def test_the_environment_comes_back(exported: Path) -> None:
    for dataset_id in minari.list_local_datasets():
        dataset = minari.load_dataset(dataset_id)
        env = dataset.recover_environment()
        assert env.action_space == dataset.action_space
        assert env.observation_space == dataset.observation_space or isinstance(env.observation_space, spaces.Dict)
        env.close()


def test_keyword_arguments_come_back(data: DataSet, out: Path) -> None:
    data.counting(env_kwargs={"length": 3, "max_episode_steps": 2})
    (report,) = export(data, out)
    env = minari.load_dataset(report.place).recover_environment()
    assert (env.unwrapped.length, env.spec.max_episode_steps) == (3, 2)


def test_a_second_run_changes_nothing_and_new_episodes_are_added(
    data: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_export, "_AT_ONCE", 2)
    data.counting()
    export(data, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert [(report.made, report.existing) for report in export(data, out)] == [(0, 2)]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    data.counting(episodes=3)
    (report,) = export(data, out)
    assert (report.made, report.existing) == (1, 2)
    dataset = minari.load_dataset(report.place)
    assert dataset.total_episodes == 3
    assert [each["rlhfblender_episode"] for each in dataset.storage.get_episode_metadata(range(3))] == [0, 1, 2]


def test_what_a_data_set_was_made_from_is_no_text_that_grows_with_it(data: DataSet, out: Path) -> None:
    """Minari reads its metadata in one piece; our list of the episodes is read one after the other."""
    data.counting()
    (report,) = export(data, out)
    files = out / report.place / "data"
    sizes = {name: (files / name).stat().st_size for name in ("metadata.json", "rlhfblender_episodes")}
    data.counting(episodes=4)
    export(data, out)
    assert (files / "metadata.json").stat().st_size == sizes["metadata.json"]
    assert (files / "rlhfblender_episodes").stat().st_size == 2 * sizes["rlhfblender_episodes"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("main_data.hdf5", Path.unlink),
        ("rlhfblender_episodes", Path.unlink),
        ("rlhfblender_episodes", lambda file: file.write_bytes(file.read_bytes()[:-1])),
        ("rlhfblender_episodes", lambda file: file.write_bytes(b"?" * file.stat().st_size)),
    ],
)
def test_a_data_set_that_lacks_something_is_built_again(
    data: DataSet, out: Path, name: str, damage: Callable[[Path], object]
) -> None:
    data.counting()
    (report,) = export(data, out)
    file = out / report.place / "data" / name
    whole = file.stat().st_size
    damage(file)
    (again,) = export(data, out)
    assert (file.stat().st_size, again.made + again.existing) == (whole, 2)
    assert [(report.made, report.existing) for report in export(data, out)] == [(0, 2)]
    assert minari.load_dataset(report.place).total_episodes == 2


def test_object_storage_can_be_exported(remote_data: DataSet, out: Path) -> None:
    remote_data.counting()
    (report,) = export(remote_data, out)
    assert minari.load_dataset(report.place).total_steps == 10


def test_checkpoints_can_be_exported_side_by_side(mixed_data: DataSet, out: Path) -> None:
    assert [report.made for report in export(mixed_data, out, ["trained_cartpole"])] == [2, 2, 2, 2]
    assert len(minari.list_local_datasets()) == 4


def test_names_that_minari_does_not_take_are_replaced(data: DataSet, out: Path) -> None:
    data.counting("my exp (1.0)")
    (report,) = export(data, out)
    assert report.place == "CountingMade-v0/my-exp--1-0-/random-v0"
    assert minari.load_dataset(report.place).total_episodes == 2


def test_two_experiments_are_never_one_data_set(data: DataSet, out: Path) -> None:
    data.counting("a b")
    data.counting("a-b")
    with pytest.raises(InvalidParameterError, match="different folders"):
        export(data, out)
    export(data, out, ["a b"])
    with pytest.raises(DataNotUsableError, match="export of a b at random"):
        export(data, out, ["a-b"])


def test_the_keys_of_a_dict_keep_their_order(tmp_path: Path) -> None:
    """A plain mapping would be sorted. Minari itself sorts when it reads them."""
    from minari.serialization import serialize_space

    inner = spaces.Dict([("y", spaces.Box(-1, 1, (2,))), ("b/c", spaces.Discrete(2))])
    stored = json.loads(serialize_space(minari_space(spaces.Dict([("z", inner), ("a", inner)]))))["subspaces"]
    assert {key: list(part["subspaces"]) for key, part in stored.items()} == {"z": ["y", "b%2Fc"], "a": ["y", "b%2Fc"]}
    assert list(stored) == ["z", "a"]


def test_infos_that_differ_between_steps_are_texts() -> None:
    infos = [
        {"n": 1, "d": {"x": 1.5}, "lost": 1, "odd": 1, "list": [1, 2]},
        {"n": 2, "d": {"x": 2.5}, "odd": "x", "list": [3, 4]},
    ]
    found = minari_infos(infos)
    assert found["lost__json"] == ["1", ""]
    assert found["odd__json"] == ["1", '"x"']
    assert found["n"].tolist() == [1, 2]
    assert found["list"].tolist() == [[1, 2], [3, 4]]
    assert found["d"]["x"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("value", [None, [], {}, [1, "x"], [[1], [2, 3]], 2**80, {"a": None}, "nul\0", "half\ud83d"])
def test_infos_that_no_array_holds_are_texts(value: object) -> None:
    assert minari_infos([{"key": value}]) == {"key__json": [json.dumps(value)]}


def test_keys_that_hdf5_has_no_names_for_are_written_otherwise(data: DataSet, out: Path) -> None:
    data.counting("odd", "Slashed")
    (report,) = export(data, out)
    dataset = minari.load_dataset(report.place)
    (first, _) = dataset.iterate_episodes()
    assert list(dataset.observation_space.spaces) == ["%.", "a%2Fb"]
    assert first.observations["a%2Fb"][:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_missing_minari_says_what_to_install(data: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    data.counting()
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(InvalidParameterError, match=r"pip install 'rlhfblender-data\[minari\]'"):
        export(data, out)
