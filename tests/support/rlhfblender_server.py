"""What RLHF-Blender's server of 2026 does to start a demonstration in the middle of an exported episode.

Written from what it reads alone; uses nothing of this project. Where the server goes on without a word (no state: it
shows a reset), this raises.
"""

import ast
import importlib
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

#: The server resets with this seed before it puts a state back.
SEED = 42
_MINIGRID = ("grid", "carrying", "agent_pos", "agent_dir", "mission")


def row(export: Path, table: str, column: str, value: object) -> dict[str, Any]:
    """A row of its database."""
    with closing(sqlite3.connect(export / "rlhfblender.db")) as connection:
        connection.row_factory = sqlite3.Row
        return dict(connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,)).fetchone())


def folder(export: Path, kind: str, experiment: str, checkpoint: int) -> Path:
    """Where an experiment's files of a kind are, but for its states."""
    known = row(export, "Experiment", "exp_name", experiment)
    name = row(export, "Environment", "registration_id", known["env_id"])["env_name"]
    name = name.replace("/", "-") if "ALE" in name else name
    return export / "data" / kind / name / f"{name}_{known['id']}_{checkpoint}"


def episode(export: Path, experiment: str, checkpoint: int, number: int = 0) -> dict[str, Any]:
    """An episode's arrays."""
    file = folder(export, "episodes", experiment, checkpoint) / f"benchmark_{number}.npz"
    with np.load(file, allow_pickle=True) as arrays:
        return dict(arrays)


def pictures(export: Path, experiment: str, checkpoint: int, number: int = 0) -> Any:
    """The frames of an episode's video, (T, height, width, 3) uint8; sides are even."""
    file = folder(export, "renders", experiment, checkpoint) / f"{number}.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(file), "-fps_mode", "passthrough"]
    done = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    found = re.search(rb"Video: .* (\d+)x(\d+)", done.stderr)
    assert found
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, int(found[2]), int(found[1]), 3)


def states(export: Path, experiment: str, checkpoint: int, number: int = 0) -> Any:
    """The file that it loads, from where it looks: the registration id as it stands, slashes included."""
    known = row(export, "Experiment", "exp_name", experiment)
    env_id = known["env_id"]
    place = f"data/env_states/{env_id}/{env_id}_{known['id']}_{checkpoint}/env_states_{number}.npy"
    return np.load(export / place, allow_pickle=True)


@dataclass
class Demonstration:
    """A person's attempt in an environment that its ``get_environment`` has made.

    Attributes:
        env: with the agent's wrappers around it.
        observation, reward: the environment's own at the last step, which wrappers change; rewards of all its steps
            since the person's.
    """

    env: gymnasium.Env[Any, Any]
    observation: Any = None
    reward: float = 0.0

    def __post_init__(self) -> None:
        inner: Any = self.env.unwrapped
        step = inner.step

        def watched(action: Any) -> Any:
            result = step(action)
            self.observation, self.reward = result[0], self.reward + float(result[1])
            return result

        inner.step = watched

    def start(self, loaded: Any, step: int) -> Any:
        """Puts a step's state into an environment that is reset; the picture that is shown first."""
        self.env.reset(seed=SEED)
        start_at(self.env, loaded, step)
        return self.env.render()

    def act(self, action: Any) -> bool:
        """Takes a step; whether it ended the episode."""
        self.reward = 0.0
        _, _, terminated, *_ = self.env.step(action)
        return bool(terminated)


def environment(export: Path, experiment: str) -> gymnasium.Env[Any, Any]:
    """The environment that its ``get_environment`` makes for an experiment, reset as for a demonstration."""
    known = row(export, "Experiment", "exp_name", experiment)
    registered = row(export, "Environment", "registration_id", known["env_id"])
    config = ast.literal_eval(known["environment_config"])
    for package in ast.literal_eval(registered["additional_gym_packages"]):
        importlib.import_module(package)
    if registered["gym_entry_point"]:
        gymnasium.registry.pop(known["env_id"], None)  # its process has never met it
        gymnasium.register(id=known["env_id"], entry_point=registered["gym_entry_point"])
    kwargs = {**config.get("env_kwargs", {}), "render_mode": "rgb_array"}
    vectorised = make_vec_env(known["env_id"], 1, env_kwargs=kwargs, wrapper_class=_wrapper(config, "env_wrapper"))
    if "vec_env_wrapper" in config:
        vectorised = _wrapper(config, "vec_env_wrapper")(vectorised)
    if int(config.get("frame_stack", 0)) > 0:
        vectorised = VecFrameStack(vectorised, int(config["frame_stack"]))
    env: gymnasium.Env[Any, Any] = vectorised.envs[0]  # type: ignore[attr-defined]  # also through VecFrameStack
    env.reset(seed=SEED)
    return env


def _wrapper(config: dict[str, Any], key: str) -> Callable[[Any], Any]:
    """RL Zoo's form: a name, a name with keyword arguments, or a list of these."""
    named = config.get(key) or []

    def wrap(env: Any) -> Any:
        for entry in named if isinstance(named, list) else [named]:
            ((name, kwargs),) = entry.items() if isinstance(entry, dict) else ((entry, {}),)
            module, _, attribute = name.rpartition(".")
            env = getattr(importlib.import_module(module), attribute)(env, **kwargs)
        return env

    return wrap


def start_at(env: gymnasium.Env[Any, Any], loaded: Any, step: int) -> None:
    """Its ``load_state``: what has a ``qpos`` is MuJoCo, and so on. The steps that are counted aren't given to it."""
    state = loaded[step][0]["state"]
    state = state.item() if hasattr(state, "item") else state
    inner: Any = env.unwrapped
    if hasattr(inner, "data") and hasattr(inner.data, "qpos") and hasattr(inner, "set_state"):
        assert np.array_equal(state["qvel"], state["qval"])  # the newest takes the one, those before the other
        inner.set_state(state["qpos"], state["qvel"])
    elif hasattr(inner, "clone_state") and hasattr(inner, "restore_state"):
        inner.restore_state(state)
    elif all(hasattr(inner, name) for name in _MINIGRID):
        for name in _MINIGRID:
            setattr(inner, name, state[name])
    elif hasattr(inner, "set_state"):
        inner.set_state(state)
    else:
        for name, value in vars(state).items():
            setattr(inner, name, value)
