"""Small folders of episodes as others have them: RLHF-Blender's documented layout, and its server's."""

import contextlib
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rlhfblender_core.dataset.video import VideoWriter, ffmpeg_program

HEIGHT, WIDTH, FPS = 32, 48, 25.0
ENV = "Made-v0"


def episode_arrays(length: int = 6, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    infos = np.empty(length, object)
    for step in range(length):
        # As RLHF-Blender has it: each info in an array of its own that has no dimension.
        infos[step] = np.array({"value": np.float32(step), "TimeLimit.truncated": step == length - 1, "name": "x"})
    dones = np.zeros(length, bool)
    dones[-1] = True
    return {
        "obs": random.normal(size=(length, 3)),
        "actions": random.integers(0, 2, length),
        "rewards": random.normal(size=length),
        "dones": dones,
        "infos": infos,
        "probs": np.full((length, 1, 2), 0.5),
        "features": np.zeros(0),
        "episode_rewards": np.zeros(10),
        "episode_lengths": np.zeros(10, int),
    }


def write_video(path: Path, length: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    video = VideoWriter(path, HEIGHT, WIDTH, FPS)
    for step in range(length):
        frame = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
        frame[:, : 1 + step % WIDTH] = 200
        video.write(frame)
    video.close()


def encode_otherwise(path: Path, *options: str) -> None:
    """Replaces a video by one of another codec or pixel format."""
    other = path.with_suffix(".other.mp4")
    command = [ffmpeg_program(), "-v", "error", "-y", "-i", str(path), *options, str(other)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    other.replace(path)


def write_picture(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (WIDTH, HEIGHT), (200, 90, 60, 255)[: len(mode)]).save(path)


def _save(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def make_documented(
    folder: Path, experiment: str = "Theirs", subfolder: str = "5000", episodes: int = 2, length: int = 6
) -> Path:
    """``<kind>/<experiment>/<subfolder>/<n>.<ext>``."""
    for number in range(episodes):
        _write_episode(folder, f"{experiment}/{subfolder}", number, length, ("", "", ""), ".png")
    return folder


def make_server(
    folder: Path, env: str = ENV, experiment_id: int = 1, checkpoint: str = "5000", episodes: int = 2
) -> Path:
    """As the server keeps them, with its database beside them."""
    path = f"{env}/{env}_{experiment_id}_{checkpoint}"
    for number in range(episodes):
        _write_episode(folder, path, number, 6, ("benchmark_", "rewards_", "uncertainty_"), ".jpg")
    return folder


def _write_episode(
    folder: Path, path: str, number: int, length: int, prefixes: tuple[str, str, str], picture: str
) -> None:
    arrays = episode_arrays(length, number)
    episode, rewards, uncertainty = prefixes
    file = folder / "episodes" / path / f"{episode}{number}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, allow_pickle=True, **arrays)
    _save(folder / "rewards" / path / f"{rewards}{number}.npy", arrays["rewards"])
    _save(folder / "uncertainty" / path / f"{uncertainty}{number}.npy", np.linspace(0, 1, length))
    write_video(folder / "renders" / path / f"{number}.mp4", length)
    write_picture(folder / "thumbnails" / path / f"{number}{picture}")


def make_database(folder: Path, **changes: str) -> Path:
    """``rlhfblender.db`` with one environment and one experiment of id 1."""
    environment = {
        "env_name": ENV,
        "registration_id": ENV,
        "description": "moves",
        "gym_entry_point": "os:abort",
        "additional_gym_packages": "['antigravity']",
        "observation_space_info": "{'label': 'Box((3,))', 'shape': (3,), 'dtype': 'float64'}",
        "action_space_info": "{'label': 'Discrete((2,))', 'shape': (2,), 'dtype': 'int64', "
        "'labels': {'0': 'left', '1': 'right'}}",
    }
    experiment = {
        "exp_name": "Their-Experiment",
        "env_id": ENV,
        "framework": "StableBaselines3",
        "algorithm": "ppo",
        "environment_config": "{'env_kwargs': {'camera_name': 'corner'}}",
    }
    file = folder / "rlhfblender.db"
    file.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        for table, row in (("Environment", environment), ("Experiment", experiment)):
            values = {name: changes.get(name, value) for name, value in row.items()}
            columns = ", ".join(f"{name} TEXT" for name in values)
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {columns})")
            marks = ", ".join("?" for _ in values)
            connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    connection.close()
    return file
