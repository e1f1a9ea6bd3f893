"""The check of the contract itself: it must fail when a line of the contract is broken."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.dataset.video import ffmpeg_program
from rlhfblender_core.storage import open_data_root
from tests.support import server_contract
from tests.support.exporting import DataSet

FOLDER = "CountingMade-v0/CountingMade-v0_1_0"
Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    data = DataSet(open_data_root(str(folder / "data")), f"sqlite:///{folder}/data/rlhfblender.db", folder)
    data.counting()
    data.export(folder / "out")
    assert len(server_contract.check_folder(folder / "out")) == 2
    return folder / "out"


def video(*options: str) -> Break:
    def encode(out: Path) -> None:
        file = out / f"data/renders/{FOLDER}/0.mp4"
        other = file.with_suffix(".other.mp4")
        command = [ffmpeg_program(), "-v", "error", "-i", str(file), *options, "-c:v", "libx264", str(other)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        other.replace(file)

    return encode


def array(**changes: Any) -> Break:
    def change(out: Path) -> None:
        for file in out.rglob("benchmark_0.npz"):
            with np.load(file, allow_pickle=True) as arrays:
                content = {name: changes.get(name, lambda same: same)(arrays[name]) for name in arrays}
            np.savez(file, allow_pickle=True, **{name: value for name, value in content.items() if value is not None})

    return change


def info(value: object) -> Break:
    def put(infos: Any) -> Any:
        infos[0]["odd"] = value
        return infos

    return array(infos=put)


def sql(statement: str) -> Break:
    def execute(out: Path) -> None:
        with sqlite3.connect(out / "rlhfblender.db") as database:
            database.execute(statement)
        database.close()

    return execute


BREAKS: dict[str, Break] = {
    "another mp4": lambda out: shutil.copy(out / f"data/renders/{FOLDER}/0.mp4", out / f"data/renders/{FOLDER}/x.mp4"),
    "no uncertainty": lambda out: (out / f"data/uncertainty/{FOLDER}/uncertainty_0.npy").unlink(),
    "nothing for projections": lambda out: shutil.rmtree(out / "data/episodes"),
    "a frame less": video("-frames:v", "4"),
    "another pixel format": video("-pix_fmt", "yuv444p"),
    "frames that start late": video("-vf", "setpts=(N+9)/(20*TB)", "-fps_mode", "passthrough"),
    "uneven frames": video("-vf", "setpts=N*N/(20*TB)", "-fps_mode", "passthrough"),
    "observations as objects": array(obs=lambda obs: obs.astype(object)),
    "actions that are nested": array(actions=lambda actions: actions.reshape(-1, 1, 1)),
    "never done": array(dones=np.zeros_like),
    "no probabilities": array(probs=lambda _: None),
    "a tuple of numpy's in an info": info((np.int64(1),)),
    "an info that JSON has no number for": info(float("nan")),
    "NULL": sql("UPDATE Experiment SET device = NULL"),
    "an empty list": sql("UPDATE Environment SET tags = ''"),
    "JSON instead of Python": sql("UPDATE Experiment SET hyperparams = '{\"a\": true}'"),
    "NumPy's repr": sql(
        "UPDATE Environment SET action_space_info = replace(action_space_info, '(3,)', '(np.int64(3),)')"
    ),
    "a name that the UI splits": sql("UPDATE Environment SET env_name = 'Counting_Made-v0'"),
    "-1 for random": sql("UPDATE Experiment SET checkpoint_list = '[-1]'"),
    "an experiment in no project": sql("UPDATE Project SET project_experiments = '[]'"),
    "no column of 2026": sql("ALTER TABLE Experiment DROP COLUMN demo_gen_environment_config"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_check_finds(name: str, sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(sound, out)
    BREAKS[name](out)
    with pytest.raises((AssertionError, OSError, KeyError, ValueError)):
        server_contract.check_folder(out)
