"""A data root or an export folder that is somebody else's: nothing outside is touched, nothing runs, one line tells."""

import contextlib
import json
import pickle
import sqlite3
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core import export, open_data_set
from rlhfblender_core.dataset.manifests import canonical_digest, file_digest, parse_manifest
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.index import FOLDER, read_numbers
from rlhfblender_core.export.rlhfblender.arrays import write_server_episode
from rlhfblender_core.export.rlhfblender.space_info import space_infos
from rlhfblender_core.storage import open_data_root
from tests.support.exporting import DataSet
from tests.support.verifying import problems, repair


def rewrite(file: Path, change: object) -> None:
    """Changes a manifest as somebody would who makes its digest good again."""
    content = json.loads(file.read_text())
    del content["sha256"]
    change(content)
    content["sha256"] = canonical_digest(content)
    file.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("path", ["../outside.png", "/tmp/outside.png", "thumbnails/E/random/1.png", "rlhfblender.db"])
def test_a_manifest_whose_files_lie_elsewhere_is_damaged(path: str, data: DataSet, out: Path) -> None:
    data.counting()
    root = data.root.local_folder
    manifest = root / "manifests/E/random/0.json"
    outside = root.parent / "outside.png"
    outside.write_bytes(b"mine")
    (root / "thumbnails/E/random/0.png").unlink()
    rewrite(manifest, lambda content: content["artifacts"]["thumbnails"].update(path=path))
    with pytest.raises(DataNotUsableError, match=r"0\.json is damaged"):
        parse_manifest(manifest.read_bytes(), "0.json")
    before = (root / "thumbnails/E/random/1.png").read_bytes()
    assert "manifests/E/random/0.json: is damaged" in problems(data.root, data.url)
    repair(data.root, data.url)
    assert outside.read_bytes() == b"mine"
    assert (root / "thumbnails/E/random/1.png").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("episode_length", 10**30), ("frames", 2**62), ("frame_height", 2**40), ("frame_width", -1), ("seed", 2**70),
        ("step", -(2**70)), ("episode", 10**12), ("episode_length", -5), ("experiment", "../x"), ("checkpoint", ""),
    ],
)  # fmt: skip
def test_a_manifest_with_numbers_that_nothing_can_hold_is_damaged(name: str, value: object, data: DataSet) -> None:
    data.counting(episodes=1)
    manifest = data.root.local_folder / "manifests/E/random/0.json"
    rewrite(manifest, lambda content: content.update({name: value}))
    with pytest.raises(DataNotUsableError, match=r"0\.json is (not a manifest|damaged)"):
        parse_manifest(manifest.read_bytes(), "0.json")
    rewrite(manifest, lambda content: content["artifacts"]["episodes"].update(size=2**80))
    with pytest.raises(DataNotUsableError, match=r"0\.json is not a manifest"):
        parse_manifest(manifest.read_bytes(), "0.json")


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def test_pickles_in_an_export_that_is_there_are_not_read(data: DataSet, out: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data.counting(episodes=1)
    data.export(out)
    (episode,) = (out / "data/episodes").rglob("benchmark_0.npz")
    with np.load(episode, allow_pickle=True) as arrays:
        fields = dict(arrays)
    evil = np.empty(1, object)
    evil[0] = Payload(canary)
    np.savez(episode, allow_pickle=True, **{**fields, "obs": evil})
    with sqlite3.connect(data.root.local_folder / "rlhfblender.db") as connection:
        connection.execute("UPDATE environments SET observation_space = '{}', action_space = '{}'")
        connection.execute("UPDATE experiments SET observation_space = '{}', action_space = '{}'")
        connection.execute("UPDATE environments SET entry_point = NULL")
    connection.close()
    from rlhfblender_core.export.request import ExperimentSource
    from rlhfblender_core.registry import open_registry

    with open_registry(data.url) as registry:
        source = ExperimentSource(
            registry.find_experiment("E"),
            registry.find_environment("CountingMade-v0"),
            tuple(registry.list_checkpoints("E")),
        )
    with pytest.raises(DataNotUsableError, match="pickled objects"):
        space_infos(source, episode)
    assert not canary.exists()


def test_an_export_whose_index_names_files_elsewhere_is_refused_and_they_stay(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    victim = out.parent / "victim.mp4"
    victim.write_bytes(b"mine")
    for path in ("../victim.mp4", str(victim), "data/../../victim.mp4"):
        with sqlite3.connect(out / FOLDER / "index.sqlite") as connection:
            connection.execute("UPDATE exported SET sizes = ?", (json.dumps({path: 4}),))
        connection.close()
        data.counting(overwrite=True, seed=3)
        with pytest.raises(DataNotUsableError, match="is damaged"):
            data.export(out)
        assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "numbers",
    [
        {"environments": {"CountingMade-v0": "../../x"}}, {"environments": {"CountingMade-v0": ""}},
        {"environments": {"CountingMade-v0": "a/../../x"}}, {"experiments": {"E": "../x"}},
        {"experiments": {"E": 2**70}},
        {"checkpoints": {"E": {"random": "../x"}}}, {"checkpoints": {"E": []}}, {"environments": [1]}, {"other": {}},
    ],
)  # fmt: skip
def test_an_export_whose_numbers_are_no_names_of_folders_is_refused(
    numbers: dict[str, object], data: DataSet, out: Path
) -> None:
    data.counting()
    (out / FOLDER).mkdir(parents=True)
    (out / FOLDER / "numbers.json").write_text(json.dumps(numbers))
    with pytest.raises(DataNotUsableError, match=r"numbers\.json is damaged"):
        data.export(out)
    assert {path.name for path in out.parent.iterdir()} <= {"out", "data"}


def test_names_that_exports_give_are_sound(data: DataSet, mixed_data: DataSet, out: Path) -> None:
    mixed_data.export(out)
    assert read_numbers(open_data_root(str(out))).environments["ALE/Pong-v5"] == "ALE/Pong-v5"


@pytest.mark.parametrize("infos", ["[1, 2]", "3", "{", "[" * 50_000, "{}" + " " * 100])
def test_infos_that_are_no_objects_are_one_line(infos: str, tmp_path: Path, data: DataSet) -> None:
    data.counting(episodes=1)
    with np.load(data.root.local_folder / "episodes/E/random/0.npz", allow_pickle=False) as arrays:
        fields = dict(arrays)
    fields["infos"] = np.array([infos] * len(fields["rewards"]))
    np.savez_compressed(tmp_path / "0.npz", **fields)
    if infos.startswith("{}"):
        write_server_episode(tmp_path / "0.npz", tmp_path / "out.npz", is_random=False)
        return
    with pytest.raises(DataNotUsableError, match=r"0\.npz"):
        write_server_episode(tmp_path / "0.npz", tmp_path / "out.npz", is_random=False)


UNREADABLE = {
    "a list": "[1]",
    "no JSON": "{",
    "endless": '{"a":' * 50_000,
    "deep": '{"a":' * 900 + "1" + "}" * 900,
    "many digits": '{"py/a":' + "9" * 5000 + "}",
    "an empty name": '{"\\u0000": 1}',
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_infos_that_nothing_can_hold_are_read_or_one_line(kind: str, data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    folder = data.root.local_folder
    file = folder / "episodes/E/random/0.npz"
    with np.load(file) as arrays:
        fields = {**arrays, "infos": np.array([UNREADABLE[kind]] * len(arrays["rewards"]))}
    np.savez_compressed(file, **fields)
    content = {"size": file.stat().st_size, "sha256": file_digest(file)}
    rewrite(folder / "manifests/E/random/0.json", lambda held: held["artifacts"]["episodes"].update(content))
    (episode,) = open_data_set(str(folder))
    for read in (
        lambda: episode.infos,
        lambda: list(episode.steps()),
        *(partial(export, str(out / to), to=to, data_root=str(folder)) for to in ("hdf5", "minari", "datasets")),
    ):
        with contextlib.suppress(DataNotUsableError):
            read()


def test_a_pickled_column_is_not_unpickled(tmp_path: Path, data: DataSet) -> None:
    data.counting(episodes=1)
    with np.load(data.root.local_folder / "episodes/E/random/0.npz", allow_pickle=False) as arrays:
        fields = dict(arrays)
    evil = np.empty(len(fields["rewards"]), object)
    evil[:] = [Payload(tmp_path / "canary") for _ in evil]
    for name in ("rewards", "infos", "obs"):
        np.savez(tmp_path / "0.npz", allow_pickle=True, **{**fields, name: evil})
        with pytest.raises(DataNotUsableError, match=r"0\.npz"):
            write_server_episode(tmp_path / "0.npz", tmp_path / "out.npz", is_random=False)
    assert not (tmp_path / "canary").exists()
    pickle.loads(pickle.dumps(evil[0])).close()  # the control: it would have run
    assert (tmp_path / "canary").exists()
