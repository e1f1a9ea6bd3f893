import base64
import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.dataset.npz import WholeArray, write_npz
from rlhfblender_core.gallery.details import ARRAYS_BELOW, details
from rlhfblender_core.storage import open_data_root

KEY = EpisodeKey("E", "random", 0)


def read(packed: object) -> np.ndarray:
    assert isinstance(packed, list)
    method, text = packed
    content = base64.b64decode(text)
    return np.load(io.BytesIO(zlib.decompress(content, -15) if method else content), allow_pickle=False)


def publish(root: Path, arrays: dict[str, np.ndarray], key: EpisodeKey = KEY) -> Path:
    path = root / artifact_path(ArtifactKind.EPISODES, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, {name: WholeArray(array) for name, array in arrays.items()})
    return path


def shown(root: Path, key: EpisodeKey = KEY) -> dict:
    found = details(open_data_root(str(root)), key, 50)
    assert isinstance(found, dict)
    return found


def test_arrays_are_those_of_the_episode_and_no_others(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "obs": random.normal(size=(50, 4)).astype("<f4"),
        "obs.goal": random.normal(size=(50, 2)),
        "actions": random.integers(0, 3, 50),
        "values": random.normal(size=50).astype("<f4"),
        "infos": np.array(["{}"] * 50),
        "final_obs": np.zeros(4),
    }
    publish(tmp_path, arrays)
    rewards = tmp_path / artifact_path(ArtifactKind.REWARDS, KEY)
    rewards.parent.mkdir(parents=True)
    np.save(rewards, np.arange(50.0))
    found = shown(tmp_path)
    assert set(found) == {"rewards", "obs", "obs.goal", "actions", "values"}
    for name in found:
        expected = np.arange(50.0) if name == "rewards" else arrays[name]
        np.testing.assert_array_equal(read(found[name]), expected)


def test_archives_that_numpy_wrote_and_stored_members_are_read_too(tmp_path: Path) -> None:
    path = publish(tmp_path, {})
    np.savez(path, actions=np.arange(5), probs=np.ones((5, 2)))
    found = shown(tmp_path)
    assert found["actions"][0] == zipfile.ZIP_STORED
    np.testing.assert_array_equal(read(found["actions"]), np.arange(5))
    np.testing.assert_array_equal(read(found["probs"]), np.ones((5, 2)))


def test_pictures_stay_in_their_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 100, 100, 3)).astype(np.uint8)
    publish(tmp_path, {"obs": noise, "actions": np.arange(20)})
    assert set(shown(tmp_path)) == {"actions"}


@pytest.mark.parametrize("damage", ["cut", "flipped", "none"])
def test_damaged_archives_have_no_arrays(tmp_path: Path, damage: str) -> None:
    path = publish(tmp_path, {"actions": np.arange(500)})
    content = path.read_bytes()
    if damage == "none":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-22] + b"\xff" * 22)
    assert shown(tmp_path) == {}


@pytest.mark.parametrize("kind", list(ArtifactKind)[:2])
@pytest.mark.parametrize("thing", [os.mkfifo, Path.mkdir, lambda file: file.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_read(tmp_path: Path, kind: ArtifactKind, thing: Callable[[Path], object]) -> None:
    publish(tmp_path, {"actions": np.arange(3)})
    file = tmp_path / artifact_path(kind, KEY)
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    thing(file)
    assert shown(tmp_path).keys() <= {"actions"}


def test_only_the_first_episodes_have_their_arrays_in_scripts(tmp_path: Path) -> None:
    for number in (ARRAYS_BELOW - 1, ARRAYS_BELOW):
        publish(tmp_path, {"actions": np.arange(5)}, EpisodeKey("E", "random", number))
    assert set(shown(tmp_path, EpisodeKey("E", "random", ARRAYS_BELOW - 1))) == {"actions"}
    assert shown(tmp_path, EpisodeKey("E", "random", ARRAYS_BELOW)) == {}


def test_rewards_of_a_return_that_is_no_number_and_what_is_too_large_for_a_script(tmp_path: Path) -> None:
    rewards = np.array([1.0, np.nan, np.inf] + [0.0] * 97)
    noise = np.random.default_rng(0).normal(size=(100, 500))  # compresses to more than a script holds
    publish(tmp_path, {"rewards": rewards, "obs": noise, "actions": np.zeros(100)})
    usual, found = (details(open_data_root(str(tmp_path)), KEY, 100, is_finite=known) for known in (True, False))
    assert isinstance(usual, dict)
    assert isinstance(found, dict)
    assert set(usual) == {"obs", "actions"}
    np.testing.assert_array_equal(read(found["step_rewards"]), rewards)
    assert found["obs"] is None
