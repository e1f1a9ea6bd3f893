"""Every kind of space in every format, with contents that are known beforehand; each read by its own library."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.dataset.video import read_frames
from rlhfblender_core.environments import flatten_observation
from rlhfblender_core.storage import open_data_root
from tests.support.environments_for_tests.spaced import ACTIONS, OBSERVATIONS, observation
from tests.support.exporting import DataSet

STEPS, EPISODES = 3, 2
SPACED = "tests.support.environments_for_tests.spaced:Spaced"
#: All of them in the soak tests; these two always.
ALWAYS = ("discrete", "dict")
each_space = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.soak) for name in OBSERVATIONS]
)


def truncates(name: str) -> bool:
    return list(OBSERVATIONS).index(name) % 2 == 1


@dataclass
class Spaced:
    """An experiment per kind of observation, each with another kind of action; made and exported when asked for."""

    data: DataSet
    folder: Path
    places: dict[tuple[str, str], Path] = field(default_factory=dict)

    def place(self, to: str, name: str) -> Path:
        """Where its export in a format is."""
        self.arrays(name, 0)
        if (to, name) not in self.places:
            (report,) = self.data.export(self.folder / to, [exp(name)], to=to)
            assert (report.made, report.left_out) == (EPISODES, {})
            self.places[to, name] = self.folder / to / report.place
        return self.places[to, name]

    def arrays(self, name: str, number: int) -> dict[str, Any]:
        """Our own."""
        if not (self.data.root.local_folder / "episodes" / exp(name)).exists():
            place = list(OBSERVATIONS).index(name)
            kwargs = {"observed": name, "acted": acted(name), "length": STEPS, "truncates": truncates(name)}
            asked = {"env_gym_entrypoint": SPACED, "env_kwargs": kwargs, "random": True, "num_episodes": EPISODES}
            self.data.generate(env=f"Spaced{place}-v0", exp=exp(name), **asked)
        return self.data.arrays(exp(name), "random", number)

    def actions(self, name: str) -> Any:
        """Of all episodes in a row."""
        return np.concatenate([self.arrays(name, number)["actions"] for number in range(EPISODES)])


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Spaced:
    folder = tmp_path_factory.mktemp("spaced")
    root = open_data_root(str(folder / "data"))
    return Spaced(DataSet(root, f"sqlite:///{folder}/data/rlhfblender.db", folder), folder)


def acted(name: str) -> str:
    return list(ACTIONS)[list(OBSERVATIONS).index(name) % len(ACTIONS)]


def exp(name: str) -> str:
    return name.replace(" ", "-")


def observed(name: str, step: int) -> dict[str, Any]:
    """The columns of what is observed after so many steps: ``""`` or ``inner.deep.0``."""
    flat = flatten_observation(OBSERVATIONS[name], observation(name, step))
    return {column.removeprefix("obs").removeprefix("."): value for column, value in flat.items()}


def known(name: str, first: int) -> dict[str, Any]:
    """Columns of STEPS rows from a step on, of all episodes in a row."""
    steps = [*range(first, first + STEPS)] * EPISODES
    return {column: np.array([observed(name, step)[column] for step in steps]) for column in observed(name, 0)}


def check(found: Any, expected: Any) -> None:
    if expected.dtype.kind == "U":
        assert [text.decode() if isinstance(text, bytes) else text for text in found] == expected.tolist()
    else:
        found = np.asarray(found)
        np.testing.assert_array_equal(found, expected)


REWARDS = np.array([step + 0.25 for step in range(STEPS)] * EPISODES)
ENDS = np.array([step == STEPS - 1 for step in range(STEPS)] * EPISODES)


def ending(name: str) -> tuple[Any, Any]:
    """What is terminated, and what is truncated."""
    return (ENDS & (not truncates(name)), ENDS & truncates(name))


@each_space
def test_our_own_arrays_are_what_the_environment_gave(spaced: Spaced, name: str) -> None:
    for number in range(EPISODES):
        own = spaced.arrays(name, number)
        for step in range(STEPS):
            said = [f"obs.{column}" if column else "obs" for column in observed(name, step)]
            assert set(said) == {column for column in own if column.partition(".")[0] == "obs"}
            for column, value in observed(name, step).items():
                check([own[f"obs.{column}" if column else "obs"][step]], np.array([value]))
        for column, value in observed(name, STEPS).items():
            check([own[f"final_obs.{column}" if column else "final_obs"]], np.array([value]))


@each_space
def test_hdf5(spaced: Spaced, name: str) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(spaced.place("hdf5", name)) as file:
        for group, first in (("observations", 0), ("next_observations", 1)):
            for column, expected in known(name, first).items():
                found = file[f"{group}/{column}" if column else group]
                check(found[:], expected)
                assert expected.dtype.kind == "U" or found.dtype == expected.dtype
        check(file["actions"][:], spaced.actions(name))
        assert file["actions"].dtype == spaced.actions(name).dtype
        check(file["rewards"][:], REWARDS)
        check(file["terminals"][:], ending(name)[0])
        check(file["timeouts"][:], ending(name)[1])


@each_space
def test_datasets(spaced: Spaced, tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("datasets")
    place = spaced.place("datasets", name)
    rows = datasets.load_dataset(str(place), split="train", cache_dir=str(tmp_path)).with_format("arrow")[:]
    for column, expected in known(name, 0).items():
        check(rows[f"observation.{column}" if column else "observation"].to_pylist(), expected)
    for column, expected in observed(name, STEPS).items():
        found = rows[f"final_observation.{column}" if column else "final_observation"].to_pylist()
        assert [value is not None for value in found] == ENDS.tolist()
        check([value for value in found if value is not None], np.array([expected] * EPISODES))
    check(rows["action"].to_pylist(), spaced.actions(name))
    check(rows["reward"].to_pylist(), REWARDS)
    check(rows["terminated"].to_pylist(), ending(name)[0])
    check(rows["truncated"].to_pylist(), ending(name)[1])


@each_space
def test_lerobot(spaced: Spaced, tmp_path: Path, name: str) -> None:
    pytest.importorskip("datasets")
    reader = pytest.importorskip("tests.support.lerobot_reader")
    folder = reader.LeRobotFolder(spaced.place("lerobot", name), tmp_path)
    for column, expected in known(name, 0).items():
        is_image = expected.dtype == np.uint8 and expected.ndim == 4 and expected.shape[-1] == 3
        plain = column.replace("/", "%2F") or ("obs" if is_image else "state")
        found = folder.rows[f"observation.images.{plain}" if is_image else f"observation.{plain}"]
        values = [np.asarray(row).reshape(one.shape) for row, one in zip(found, expected, strict=True)]
        check([value.item() for value in values] if expected.dtype.kind == "U" else values, expected)
    check(np.array(folder.rows["action"]).reshape(spaced.actions(name).shape), spaced.actions(name))
    check(np.array(folder.rows["next.reward"]).reshape(-1), REWARDS)
    check(np.array(folder.rows["next.terminated"]).reshape(-1), ending(name)[0])
    check(np.array(folder.rows["next.truncated"]).reshape(-1), ending(name)[1])
    for number in range(EPISODES):
        shown = [int(frame.mean()) for frame in folder.frames(number, "observation.images.render")]
        np.testing.assert_allclose(shown, [20 * step for step in range(STEPS)], atol=3)


@each_space
def test_minari(spaced: Spaced, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    minari = pytest.importorskip("minari")
    place = spaced.place("minari", name)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place.parents[2]))
    dataset = minari.load_dataset("/".join(place.parts[-3:]))
    for number, episode in enumerate(dataset.iterate_episodes()):
        for step in range(STEPS + 1):
            same_structure(episode.observations, observation(name, step), step)
        check(episode.actions, spaced.arrays(name, number)["actions"])
        check(episode.rewards, REWARDS[:STEPS])
        check(episode.terminations, ending(name)[0][:STEPS])
        check(episode.truncations, ending(name)[1][:STEPS])
    assert dataset.action_space == ACTIONS[acted(name)]


def same_structure(found: Any, expected: Any, step: int) -> None:
    if isinstance(expected, dict):
        assert found.keys() == {key.replace("/", "%2F") for key in expected}
        for key, value in expected.items():
            same_structure(found[key.replace("/", "%2F")], value, step)
    elif isinstance(expected, tuple):
        for one, other in zip(found, expected, strict=True):
            same_structure(one, other, step)
    else:
        check([found[step]], np.array([expected]))


@each_space
def test_rlhfblender(spaced: Spaced, name: str) -> None:
    renders = spaced.place("rlhfblender", name)
    data = renders.parents[2]
    for number in range(EPISODES):
        with np.load(
            data / "episodes" / "/".join(renders.parts[-2:]) / f"benchmark_{number}.npz", allow_pickle=True
        ) as f:
            found = dict(f)
        numeric = [column for column in known(name, 0).values() if column.dtype.kind != "U"]
        rows = [column[:STEPS] for column in numeric]
        if len(observed(name, 0)) > 1:
            rows = [np.concatenate([row.reshape(STEPS, -1) for row in rows], axis=1)]
        check(found["obs"], rows[0] if rows else np.zeros((STEPS, 1), np.float32))
        check(found["rewards"], REWARDS[:STEPS])
        check(found["actions"], spaced.arrays(name, number)["actions"].reshape(found["actions"].shape))
        frames = read_frames(renders / f"{number}.mp4", 24, 32)
        np.testing.assert_allclose([int(frame.mean()) for frame in frames], [20 * s for s in range(STEPS)], atol=3)
