"""Plays RLHF-Blender's server and UI with an exported folder: each line of what they really read, asserted.

Written from the contract alone; uses nothing of the export. ``check_folder`` says what it found.
"""

import ast
import json
import re
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from PIL import Image

INTEGERS = {
    "Project": {"created_timestamp"},
    "Experiment": {
        *("created_timestamp", "run_timestamp", "last_modified", "pid", "num_timesteps", "checkpoint_frequency"),
        *("episodes_per_eval", "parallel_envs", "seed"),
    },
    "Environment": {"registered", "has_state_loading"},
}
COLUMNS = {
    "Project": [
        *("project_name", "created_timestamp", "project_path", "project_description", "project_tags"),
        *("project_environments", "project_datasets", "project_experiments", "wandb_entity"),
    ],
    "Experiment": [
        *("exp_name", "created_timestamp", "run_timestamp", "last_modified", "pid", "status", "env_id"),
        *("environment_config", "demo_gen_environment_config", "framework", "path", "algorithm", "hyperparams"),
        *("num_timesteps", "checkpoint_frequency", "checkpoint_list", "episodes_per_eval", "parallel_envs"),
        *("observation_space_info", "action_space_info", "exp_tags", "exp_comment", "wandb_tracking", "device"),
        *("trained_agent_path", "seed"),
    ],
    "Environment": [
        *("env_name", "registered", "registration_id", "observation_space_info", "action_space_info"),
        *("has_state_loading", "description", "tags", "gym_entry_point", "additional_gym_packages"),
    ],
}
EVALUATED = {
    "Project": {
        "project_tags": list, "project_environments": list, "project_datasets": list, "project_experiments": list,
    },
    "Experiment": {
        "status": list, "environment_config": dict, "demo_gen_environment_config": dict, "hyperparams": dict,
        "checkpoint_list": list, "exp_tags": list,
    },
    "Environment": {
        "tags": list, "additional_gym_packages": list, "observation_space_info": dict, "action_space_info": dict,
    },
}  # fmt: skip
PLAIN = (str, int, float, bool, type(None))

Row = dict[str, Any]


@dataclass(frozen=True)
class ServedEpisode:
    experiment: str
    checkpoint: int
    number: int
    arrays: dict[str, np.ndarray]
    rewards: np.ndarray
    uncertainty: np.ndarray
    video: Path


def process_env_name(name: str) -> str:
    return name.replace("/", "-") if "ALE" in name else name


def read_database(folder: Path) -> dict[str, list[Row]]:
    connection = sqlite3.connect(f"file:{folder / 'rlhfblender.db'}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    tables = {}
    for table, columns in COLUMNS.items():
        declared = {row["name"]: row for row in connection.execute(f"PRAGMA table_info({table})")}
        assert declared.keys() >= {"id", *columns}
        assert (declared["id"]["type"], declared["id"]["pk"]) == ("INTEGER", 1)
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        assert "AUTOINCREMENT" in sql.upper()
        for name in columns:
            assert declared[name]["type"] == ("INTEGER" if name in INTEGERS[table] else "TEXT"), name
        tables[table] = [_checked_row(table, dict(row)) for row in connection.execute(f"SELECT * FROM {table}")]
    connection.close()
    return tables


def _checked_row(table: str, row: Row) -> Row:
    for name in COLUMNS[table]:
        value = row[name]
        assert value is not None, f"NULL in {table}.{name}"
        assert isinstance(value, int if name in INTEGERS[table] else str), (table, name, value)
    for name, kind in EVALUATED[table].items():
        assert row[name], f"{table}.{name} is empty"
        # eval() of the server with nothing defined but builtins: names such as inf, nan, true, np would raise.
        assert isinstance(ast.literal_eval(row[name]), kind), (table, name, row[name])
        row[name] = ast.literal_eval(row[name])
    return row


def _check_rows(tables: dict[str, list[Row]]) -> None:
    environments = {row["registration_id"]: row for row in tables["Environment"]}
    assert len(environments) == len(tables["Environment"])
    names = [row["env_name"] for row in tables["Environment"]]
    assert len({process_env_name(name) for name in names}) == len(names)
    for row in tables["Environment"]:
        name, registration = row["env_name"], row["registration_id"]
        assert "_" not in name
        assert "/" not in name or "ALE" in name
        if registration.startswith("ALE/"):
            assert name == registration
        else:
            assert re.fullmatch(re.escape(re.sub("[/_]", "-", registration)) + r"(-\d+)?", name)
        assert '"' not in name + registration
        _check_space(row["observation_space_info"])
        _check_space(row["action_space_info"], is_action=True)
    experiments = {row["exp_name"]: row for row in tables["Experiment"]}
    assert len(experiments) == len(tables["Experiment"])
    in_projects = [name for row in tables["Project"] for name in row["project_experiments"]]
    assert set(in_projects) >= experiments.keys()
    for row in tables["Project"]:
        assert len(set(row["project_experiments"])) == len(row["project_experiments"])
        studied = {experiments[name]["env_id"] for name in row["project_experiments"] if name in experiments}
        assert set(row["project_environments"]) >= studied
    for row in tables["Experiment"]:
        assert '"' not in row["exp_name"] + row["env_id"]
        assert row["env_id"] in environments
        assert row["framework"] in ("random", "StableBaselines3")
        assert row["wandb_tracking"] == "False"
        assert row["seed"] >= 0
        checkpoints = row["checkpoint_list"]
        assert checkpoints
        assert all(type(number) is int and number >= 0 for number in checkpoints)
        assert len(set(checkpoints)) == len(checkpoints)


def _check_space(info: Row, *, is_action: bool = False) -> None:
    kind = info["label"].partition("(")[0]
    assert info["label"] == f"{kind}({info['shape']})"
    assert isinstance(info["shape"], tuple)
    assert all(type(side) is int for side in info["shape"])
    np.dtype(info["dtype"])
    assert all(isinstance(key, str) for key in info["labels"])
    if kind == "Discrete":
        assert len(info["shape"]) == 1
    if is_action:
        assert len(info["labels"]) == info["shape"][0]
    if is_action and kind == "Box":
        for bound in ("low", "high"):
            assert len(info[bound]) == info["shape"][0]
            assert np.isfinite(info[bound]).all()


def check_folder(folder: Path, *, rewards: str = "per-step") -> list[ServedEpisode]:
    """All episodes that the UI could show, by experiment, checkpoint and number; raises AssertionError otherwise."""
    tables = read_database(folder)
    _check_rows(tables)
    environments = {row["registration_id"]: row for row in tables["Environment"]}
    served: list[ServedEpisode] = []
    folders = set()
    for experiment in tables["Experiment"]:
        environment = environments[experiment["env_id"]]
        for checkpoint in experiment["checkpoint_list"]:
            env = process_env_name(environment["env_name"])
            place = f"{env}/{env}_{experiment['id']}_{checkpoint}"
            folders.add(place)
            served += _check_checkpoint(folder, place, experiment, environment, checkpoint, rewards)
    data = folder / "data"
    for kind in ("renders", "thumbnails", "rewards", "uncertainty"):
        there = {str(path.parent.relative_to(data / kind)) for path in (data / kind).rglob("*") if path.is_file()}
        assert there == folders, "files that no row leads to"
    for environment in tables["Environment"]:
        _check_pictures(data / "action_labels" / process_env_name(environment["env_name"]), environment)
    return served


def _check_checkpoint(
    folder: Path, place: str, experiment: Row, environment: Row, checkpoint: int, rewards: str
) -> list[ServedEpisode]:
    data = folder / "data"
    videos = list((data / "renders" / place).iterdir())
    assert videos, f"no episodes of {experiment['exp_name']} at {checkpoint}"
    assert all(path.suffix == ".mp4" and str(int(path.stem)) == path.stem for path in videos)
    q = re.sub("[/:]", "_", experiment["env_id"])
    projections = f"{q}/{q}_{experiment['id']}_{checkpoint}"
    served = []
    for video in sorted(videos, key=lambda path: int(path.stem)):
        number = int(video.stem)
        source = data / "episodes" / place / f"benchmark_{number}.npz"
        assert (data / "episodes" / projections / source.name).read_bytes() == source.read_bytes()
        with np.load(source, allow_pickle=True) as arrays:
            loaded = {name: arrays[name] for name in arrays}
        episode = ServedEpisode(
            experiment["exp_name"],
            checkpoint,
            number,
            loaded,
            np.load(data / "rewards" / place / f"rewards_{number}.npy", allow_pickle=False),
            np.load(data / "uncertainty" / place / f"uncertainty_{number}.npy", allow_pickle=False),
            video,
        )
        _check_episode(episode, experiment, environment, rewards)
        _check_video(video, len(episode.rewards))
        with Image.open(data / "thumbnails" / place / f"{number}.jpg") as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            image.load()
        served.append(episode)
    assert len({episode.arrays["obs"].shape[1:] for episode in served}) == 1
    return served


def _check_episode(episode: ServedEpisode, experiment: Row, environment: Row, rewards: str) -> None:
    arrays, length = episode.arrays, len(episode.rewards)
    assert episode.rewards.shape == episode.uncertainty.shape == (length,)
    assert np.isfinite(episode.rewards).all()
    assert np.isfinite(episode.uncertainty).all()
    assert arrays["obs"].dtype.kind in "fiub"
    assert len(arrays["obs"]) == length
    info = environment["observation_space_info"]
    if not info["label"].startswith("Discrete"):
        assert (arrays["obs"].shape[1:], str(arrays["obs"].dtype)) == (info["shape"], info["dtype"])
    assert len(arrays["actions"]) == length
    assert arrays["actions"].ndim <= 2
    action = environment["action_space_info"]
    if action["label"].startswith("Discrete"):
        assert arrays["actions"].shape == (length,)
        assert arrays["actions"].dtype.kind in "iu"
        assert {str(value) for value in arrays["actions"].tolist()} <= action["labels"].keys()
    else:
        assert arrays["actions"].shape in {(length, *action["shape"]), (length,) if action["shape"] == (1,) else None}
        assert arrays["actions"].dtype.kind in "fiub"
    assert arrays["rewards"].shape == (length,)
    assert arrays["rewards"].dtype.kind == "f"
    expected = arrays["rewards"] if rewards == "per-step" else np.cumsum(arrays["rewards"])
    np.testing.assert_array_equal(episode.rewards, expected)
    assert arrays["dones"].dtype == np.bool_
    assert arrays["dones"].tolist() == [False] * (length - 1) + [True]
    assert arrays["infos"].dtype == object
    assert arrays["infos"].shape == (length,)
    for step in arrays["infos"]:
        assert type(step) is dict
        _check_plain(step)
        json.dumps(step, allow_nan=False, ensure_ascii=False).encode()  # the server's answer
    _check_probabilities(arrays["probs"], length, experiment, action, episode.checkpoint)
    assert arrays["episode_rewards"].ndim == arrays["episode_lengths"].ndim == 1


def _check_plain(value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert isinstance(key, str)
            _check_plain(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner)
    else:
        assert type(value) in PLAIN


def _check_probabilities(probs: np.ndarray, length: int, experiment: Row, action: Row, checkpoint: int) -> None:
    assert len(probs) == length
    assert probs.size
    assert probs.dtype.kind == "f"
    assert np.isfinite(probs).all()
    if experiment["framework"] == "random" or checkpoint == 0:
        assert probs.shape == (length, 1)
        assert not probs.any()
    elif action["label"].startswith("Discrete"):
        assert probs.shape == (length, 1, action["shape"][0])


def _check_video(video: Path, frames: int) -> None:
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    # Without -copyts a video that starts late would be shifted to 0 before anybody looks.
    command = [ffmpeg, "-copyts", "-i", video, "-map", "0:v:0", "-f", "framemd5", "-fps_mode", "passthrough", "-"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    stream = re.search(r"Video: h264.*?yuv420p.*? (\d+)x(\d+)", result.stderr)
    assert stream, result.stderr
    assert int(stream[1]) % 2 == int(stream[2]) % 2 == 0
    rows = [line.split(",") for line in result.stdout.splitlines() if not line.startswith("#")]
    moments = [int(row[2]) for row in rows]
    assert len(moments) == frames
    assert moments[0] == 0
    assert len(set(np.diff(moments).tolist())) <= 1


def _check_pictures(folder: Path, environment: Row) -> None:
    if not folder.exists():
        return
    labels = list(environment["action_space_info"]["labels"].values())
    for file in folder.iterdir():
        assert file.suffix == ".png"
        index, _, label = file.stem.partition("_")
        assert labels[int(index)] == label
        with Image.open(file) as image:
            assert image.format == "PNG"
    assert [labels[int(name.partition("_")[0])] for name in sorted(p.name for p in folder.iterdir())] == [
        label for label in labels if any(p.stem.partition("_")[2] == label for p in folder.iterdir())
    ]
