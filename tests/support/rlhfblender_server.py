"""What RLHF-Blender's server of 2026 does to start a demonstration in the middle of an exported episode."""

import ast
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from stable_baselines3.common.env_util import make_vec_env


def row(export: Path, table: str, column: str, value: object) -> dict[str, Any]:
    """A row of its database."""
    with closing(sqlite3.connect(export / "rlhfblender.db")) as connection:
        connection.row_factory = sqlite3.Row
        return dict(connection.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,)).fetchone())


def environment(export: Path, experiment: str) -> gymnasium.Env[Any, Any]:
    """The environment that its ``get_environment`` makes for an experiment, reset as for a demonstration."""
    known = row(export, "Experiment", "exp_name", experiment)
    config = ast.literal_eval(known["environment_config"])
    for package in ast.literal_eval(
        row(export, "Environment", "registration_id", known["env_id"])["additional_gym_packages"]
    ):
        __import__(package)
    kwargs = {**config.get("env_kwargs", {}), "render_mode": "rgb_array"}
    env = make_vec_env(known["env_id"], n_envs=1, env_kwargs=kwargs, wrapper_class=_wrapper(config)).envs[0]
    env.reset(seed=42)
    return env


def _wrapper(config: dict[str, Any]) -> Any:
    from rlhfblender_core.wrappers.specs import parse_wrappers

    def wrap(env: Any) -> Any:
        for spec in parse_wrappers(config.get("env_wrapper")):
            module, _, name = spec.name.rpartition(".")
            env = getattr(__import__(module, fromlist=[name]), name)(env, **spec.kwargs)
        return env

    return wrap


def states(export: Path, experiment: str, checkpoint: int, episode: int = 0) -> Any:
    """The file that it loads, from where it looks."""
    known = row(export, "Experiment", "exp_name", experiment)
    env_id = known["env_id"]
    folder = f"data/env_states/{env_id}/{env_id}_{known['id']}_{checkpoint}"
    return np.load(export / folder / f"env_states_{episode}.npy", allow_pickle=True)


def start_at(env: gymnasium.Env[Any, Any], loaded: Any, step: int) -> None:
    """Its ``SaveResetEnvWrapper.load_state``: what has a ``qpos`` is MuJoCo, and so on."""
    state = loaded[step][0]["state"]
    inner: Any = env.unwrapped
    if hasattr(inner, "data") and hasattr(inner.data, "qpos") and hasattr(inner, "set_state"):
        assert np.array_equal(state["qvel"], state["qval"])  # the newest takes the one, those before the other
        inner.set_state(state["qpos"], state["qval"])
    elif hasattr(inner, "clone_state") and hasattr(inner, "restore_state"):
        inner.restore_state(state)
    elif all(hasattr(inner, name) for name in ("grid", "carrying", "agent_pos", "agent_dir", "mission")):
        inner.grid, inner.carrying = state["grid"], state["carrying"]
        inner.agent_pos, inner.agent_dir, inner.mission = state["agent_pos"], state["agent_dir"], state["mission"]
    elif hasattr(inner, "set_state"):
        inner.set_state(state)
    else:
        for name, value in vars(state).items():
            setattr(inner, name, value)
