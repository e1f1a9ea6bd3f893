"""The export to parquet, read by Hugging Face's ``datasets``; and the trajectories as ``imitation`` reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.export.datasets.files import harmless
from tests.support.exporting import DataSet

datasets = pytest.importorskip("datasets")

PENDULUM = "Pendulum-v1_random_experiment"
PLACES = {
    ("trained_cartpole", "128"): "CartPole-v1/trained_cartpole/128",
    (PENDULUM, "random"): f"Pendulum-v1/{PENDULUM}/random",
    ("pong", "random"): "ALE-Pong-v5/pong/random",
    ("structured", "random"): "Struc_tured-v0/structured/random",
}


@pytest.fixture(scope="module")
def exported(mixed_data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("datasets")
    mixed_data.export(out, to="datasets")
    return out


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def steps(place: Path, cache: str) -> Any:
    return datasets.load_dataset(str(place), split="train", cache_dir=cache)


@pytest.mark.parametrize("key", PLACES)
def test_every_array_is_ours(exported: Path, mixed_data: DataSet, cache: str, key: tuple[str, str]) -> None:
    table = steps(exported / PLACES[key], cache)
    own = [mixed_data.arrays(*key, number) for number in (0, 1)]
    named = {"actions": "action", "rewards": "reward", "terminated": "terminated", "truncated": "truncated"}
    named |= {name: name.replace("obs", "observation", 1) for name in own[0] if name.split(".")[0] == "obs"}
    named |= {
        name: name
        for name in ("probs", "log_probs", "entropy", "values", "action_mean", "action_std")
        if name in own[0]
    }
    if not np.isnan(own[0]["uncertainty"]).all():
        named["uncertainty"] = "uncertainty"
    assert {*named.values(), "episode", "step", "info"} == {
        name for name in table.column_names if not name.startswith("final_")
    }
    for ours, theirs in named.items():
        found = table.with_format("arrow")[:][theirs].to_pylist()
        expected = [row for arrays in own for row in arrays[ours].tolist()]
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert table["info"][:] == [text for arrays in own for text in arrays["infos"].tolist()]
    lengths = [len(arrays["rewards"]) for arrays in own]
    assert table["step"][:] == [t for length in lengths for t in range(length)]
    for name in (name for name in own[0] if name.startswith("final_")):
        column = table.with_format("arrow")[:][name.replace("obs", "observation")].to_pylist()
        last = dict(zip((np.cumsum(lengths) - 1).tolist(), (arrays[name].tolist() for arrays in own), strict=True))
        assert column == [last.get(row) for row in range(sum(lengths))]


def test_dtypes_are_kept(exported: Path, cache: str) -> None:
    features = steps(exported / PLACES[PENDULUM, "random"], cache).features
    assert (features["observation"].feature.dtype, features["observation"].length) == ("float32", 3)
    assert features["reward"].dtype == "float64"
    # The library's cache tells the two folders apart, which are both called "random".
    pong = steps(exported / PLACES["pong", "random"], cache).features["observation"]
    assert (pong.length, pong.feature.length, pong.feature.feature.length) == (210, 160, 3), pong
    assert pong.feature.feature.feature.dtype == "uint8"


@pytest.mark.parametrize("key", [key for key in PLACES if key[0] != "structured"])
def test_imitation_would_load_the_trajectories(exported: Path, mixed_data: DataSet, key: tuple[str, str]) -> None:
    """imitation 1.0: ``TrajectoryWithRew(**row)`` of ``load_from_disk``'s rows, each value as an array."""
    table = datasets.load_from_disk(str(exported / PLACES[key] / "trajectories"))
    assert isinstance(table, datasets.Dataset)
    assert set(table.features) == {"obs", "acts", "infos", "terminal", "rews"}
    for number in (0, 1):
        own, row = mixed_data.arrays(*key, number), table[number]
        np.testing.assert_array_equal(row["obs"], np.concatenate([own["obs"], own["final_obs"][None]]))
        np.testing.assert_array_equal(row["acts"], own["actions"])
        np.testing.assert_array_equal(row["rews"], own["rewards"])
        assert row["terminal"] == own["terminated"][-1]
        assert [json.loads(text) for text in row["infos"]] == [json.loads(text) for text in own["infos"].tolist()]
        assert len(row["infos"]) == len(row["acts"]) == len(row["obs"]) - 1


def test_structured_observations_have_no_trajectories(exported: Path) -> None:
    assert not (exported / PLACES["structured", "random"] / "trajectories").exists()


@pytest.mark.parametrize(
    "info",
    [
        {"py/object": "os.system"},
        {"a": [{"py/reduce": [{"py/type": "os.system"}]}]},
        {"p\u0079/id": 1},
    ],
)
def test_infos_make_no_objects_in_imitation(info: Any) -> None:
    for text in (json.dumps(info), json.dumps(info).replace("py/", "\\u0070y\\/")):
        assert json.loads(text) == info
        assert '"py/' not in json.dumps(json.loads(harmless(text)))
    assert harmless('{"a":1}') == '{"a":1}'


def test_statistics_and_the_card(exported: Path, mixed_data: DataSet) -> None:
    key = (PENDULUM, "random")
    place = exported / PLACES[key]
    rows = np.concatenate([mixed_data.arrays(*key, number)["obs"] for number in (0, 1)]).astype(np.float64)
    found = json.loads((place / "meta/stats.json").read_text())["observation"]
    np.testing.assert_allclose(found["mean"], rows.mean(axis=0))
    np.testing.assert_allclose(found["std"], rows.std(axis=0))
    assert found["count"] == [24]
    card = (place / "README.md").read_text()
    assert "| episodes | 2 |" in card
    assert "| steps | 24 |" in card
    assert f'datasets.load_dataset("{PLACES[key]}", split="train")' in card
