"""States of the environment: a demonstration starts where the episode was, and goes on as it did."""

import ast
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core import export, import_data
from rlhfblender_core.dataset.video import read_frames
from rlhfblender_core.environments import Trust
from tests.support import rlhfblender_server as server
from tests.support.exporting import DataSet

STEPS = 24


def exported(data: DataSet, tmp_path: Path, env: str, **request: Any) -> Path:
    asked = {"env": env, "exp": "E", "random": True, "num_episodes": 1, "max_steps_per_episode": STEPS, **request}
    data.generate(**asked)
    (report,) = data.export(tmp_path / "out", env_states=True)
    assert (report.made, report.left_out) == (asked["num_episodes"], {})
    return tmp_path / "out"


def recorded(out: Path) -> dict[str, Any]:
    """An episode's arrays as the server has them."""
    (arrays, *_) = sorted(out.glob("data/episodes/**/benchmark_0.npz"))
    with np.load(arrays, allow_pickle=True) as loaded:
        return dict(loaded)


def frames_of(data: DataSet, out: Path) -> list[Any]:
    (video,) = out.glob("data/renders/**/0.mp4")
    facts = json.loads(next(data.root.local_folder.glob("manifests/E/*/0.json")).read_text())
    height, width = (side + side % 2 for side in (facts["frame_height"], facts["frame_width"]))
    return [frame[: facts["frame_height"], : facts["frame_width"]] for frame in read_frames(video, height, width)]


def distance(one: Any, other: Any) -> float:
    """Mean difference of two pictures, of 255; a video's encoder loses a little."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


@pytest.mark.parametrize("env", ["CartPole-v1", "Taxi-v4", "Pendulum-v1"])
def test_a_demonstration_starts_at_a_step_of_the_episode_and_goes_on_as_it_did(
    data: DataSet, tmp_path: Path, env: str
) -> None:
    pytest.importorskip("pygame")
    out = exported(data, tmp_path, env)
    arrays = recorded(out)
    frames = frames_of(data, out)
    loaded = server.states(out, "E", 0)
    length = len(arrays["actions"])
    assert loaded.shape == (length, 1)
    assert [entry[0].keys() for entry in loaded] == [{"state", "observation", "elapsed_steps"}] * length
    assert [entry[0]["elapsed_steps"] for entry in loaded] == list(range(length))
    env_there = server.environment(out, "E")
    for step in (0, length // 2, length - 1):
        env_there.reset(seed=42)
        server.start_at(env_there, loaded, step)
        shown = env_there.render()
        nearest = min(range(length), key=lambda other: distance(shown, frames[other]))
        assert distance(shown, frames[step]) < 3
        assert distance(shown, frames[step]) <= distance(shown, frames[nearest]) + 0.2
        for later in range(step, min(step + 5, length - 1)):
            observation, *_ = env_there.step(arrays["actions"][later])
            np.testing.assert_allclose(observation, arrays["obs"][later + 1], atol=1e-5)
    env_there.close()
    assert server.row(out, "Environment", "registration_id", env)["has_state_loading"] == 1
    (file,) = out.glob("data/initial_states/*_initial_state.pkl")
    (first,) = pickle.loads(file.read_bytes())
    assert first.keys() == {"state", "observation", "elapsed_steps"}


def test_an_emulator_goes_on_from_where_the_episode_was(data: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    out = exported(data, tmp_path, "ALE/Pong-v5", env_kwargs={"repeat_action_probability": 0.0})
    arrays = recorded(out)
    loaded = server.states(out, "E", 0)
    env_there = server.environment(out, "E")
    server.start_at(env_there, loaded, 12)
    observation, *_ = env_there.step(arrays["actions"][12])
    # ALE draws when it steps: until then its picture is that of the reset.
    assert np.array_equal(observation, arrays["obs"][13])
    assert np.array_equal(env_there.render(), arrays["obs"][13])
    env_there.close()
    assert loaded[0][0]["observation"] is None, "pictures are in the episode's arrays"
    assert server.row(out, "Environment", "registration_id", "ALE/Pong-v5")["has_state_loading"] == 1


@pytest.mark.parametrize(
    ("env", "needs"),
    [
        ("ALE/Pong-v5", "ale_py"),  # sticky: the last action is in no state
        pytest.param("Pong-v4", "ale_py", marks=pytest.mark.soak),  # the number of frames that are skipped is drawn
        ("MiniGrid-Dynamic-Obstacles-5x5-v0", "minigrid"),
    ],
)
@pytest.mark.parametrize("steps", [2, pytest.param(200, marks=pytest.mark.soak)])
def test_what_chance_decides_is_not_proved_by_luck(
    data: DataSet, tmp_path: Path, env: str, needs: str, steps: int
) -> None:
    pytest.importorskip(needs)
    out = exported(data, tmp_path, env, max_steps_per_episode=steps)
    loaded = server.states(out, "E", 0)
    assert 0 < len(loaded) <= steps
    assert server.row(out, "Environment", "registration_id", env)["has_state_loading"] == 0


@pytest.mark.parametrize("env", ["BipedalWalker-v3", "LunarLander-v3"])
def test_what_cant_be_put_back_is_said(data: DataSet, tmp_path: Path, env: str) -> None:
    data.generate(env=env, exp="E", random=True, num_episodes=2, max_steps_per_episode=STEPS)
    (report,) = data.export(tmp_path / "out", env_states=True)
    ((reason, count),) = report.stateless.items()
    assert (count, report.made) == (2, 2)
    assert "put back" in reason
    assert server.row(tmp_path / "out", "Environment", "registration_id", env)["has_state_loading"] == 0


def test_an_environment_that_nobody_vouches_for_is_not_made(data: DataSet, tmp_path: Path, monkeypatch: Any) -> None:
    data.counting()
    monkeypatch.setattr("rlhfblender_core.locations.Locations.trust", lambda _: Trust())
    (report,) = data.export(tmp_path / "out", env_states=True)
    ((reason, count),) = report.stateless.items()
    assert (count, report.made) == (2, 2)
    assert "would be made with what only the registry or a manifest names" in reason
    assert not (tmp_path / "out" / "data" / "env_states").exists()


def test_an_environment_that_plays_otherwise_gets_no_states(data: DataSet, tmp_path: Path) -> None:
    data.counting(env="Unsettled")
    (report,) = data.export(tmp_path / "out", env_states=True)
    ((reason, count),) = report.stateless.items()
    assert (count, report.made) == (2, 2)
    assert "differs at step" in reason


def test_an_environment_says_its_state_itself(data: DataSet, tmp_path: Path) -> None:
    data.counting(env="Remembered")
    (report,) = data.export(tmp_path / "out", env_states=True)
    assert report.stateless == {}
    loaded = np.load(next((tmp_path / "out").glob("data/env_states/**/env_states_0.npy")), allow_pickle=True)
    assert [entry[0]["state"] for entry in loaded[:3]] == [{"count": 0}, {"count": 1}, {"count": 2}]


def test_states_come_and_go_with_the_flag_and_nothing_is_done_twice(data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data.generate(env="Acrobot-v1", exp="E", random=True, num_episodes=2, max_steps_per_episode=STEPS)

    def run(**flags: Any) -> tuple[int, int, int]:
        (report,) = data.export(out, **flags)
        return report.made, len(list(out.glob("data/env_states/**/*.npy"))), loading()

    def loading() -> int:
        return int(server.row(out, "Environment", "registration_id", "Acrobot-v1")["has_state_loading"])

    assert run(env_states=False) == (2, 0, 0)
    assert run(env_states=True) == (2, 2, 1)
    assert run(env_states=True) == (0, 2, 1)
    data.generate(env="Acrobot-v1", exp="E", random=True, num_episodes=3, max_steps_per_episode=STEPS)
    assert run(env_states=True) == (1, 3, 1)
    assert run(env_states=False) == (3, 0, 0)


def test_the_environment_is_made_there_as_the_agent_had_it(
    data: DataSet, tmp_path: Path, trained_cartpole: Path
) -> None:
    pytest.importorskip("minigrid")
    flat = {"env_wrapper": "gym_minigrid.wrappers.ViewSizeWrapper", "max_episode_steps": 9}
    common = {"random": True, "num_episodes": 1, "max_steps_per_episode": 4}
    data.generate(env="MiniGrid-Empty-5x5-v0", exp="bare", **common)
    data.generate(env="MiniGrid-Empty-5x5-v0", exp="view", env_kwargs=flat, **common)
    trained = {"env": "CartPole-v1", "exp": "stacked", "model_path": str(trained_cartpole), "checkpoints": [128]}
    data.generate(
        **{**trained, "num_episodes": 1, "max_steps_per_episode": 4, "env_kwargs": {"sutton_barto_reward": True}}
    )
    data.export(tmp_path / "out", env_states=True)
    configs = {
        name: ast.literal_eval(server.row(tmp_path / "out", "Experiment", "exp_name", name)["environment_config"])
        for name in ("bare", "view", "stacked")
    }
    assert configs == {
        "bare": {"env_wrapper": "minigrid.wrappers.ImgObsWrapper"},
        "view": {
            "env_kwargs": {"max_episode_steps": 9},
            "env_wrapper": ["minigrid.wrappers.ViewSizeWrapper", "minigrid.wrappers.ImgObsWrapper"],
        },
        "stacked": {"env_kwargs": {"sutton_barto_reward": True}},
    }


@pytest.mark.soak
def test_an_import_takes_states_and_an_export_of_it_gives_them_back(data: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    out = exported(data, tmp_path, "Hopper-v5", num_episodes=2)
    imported = import_data(str(out), exp="Again", env="Hopper-v5", data_root=str(tmp_path / "again"))
    assert (imported.made, imported.faults) == (2, ())
    assert not [note for note in imported.notes if "states" in note]
    with np.load(tmp_path / "again/episodes/Again/random/1.npz", allow_pickle=False) as arrays:
        assert arrays["env_state.qpos"].shape == arrays["env_state.qval"].shape == (len(arrays["rewards"]), 6)
    report = export(str(tmp_path / "back"), data_root=str(tmp_path / "again"))
    assert [(one.made, one.stateless) for one in report.checkpoints] == [(2, {})]
    for number in (0, 1):
        before, after = server.states(out, "E", 0, number), server.states(tmp_path / "back", "Again", 0, number)
        assert after.shape == before.shape
        for (one,), (other,) in zip(before, after, strict=True):
            assert one["elapsed_steps"] == other["elapsed_steps"]
            assert one["state"].keys() == other["state"].keys()
            assert all(np.array_equal(one["state"][key], other["state"][key]) for key in one["state"])
    assert server.row(tmp_path / "back", "Environment", "registration_id", "Hopper-v5")["has_state_loading"] == 1
    (first,) = (tmp_path / "back/data/initial_states").iterdir()
    assert np.array_equal(pickle.loads(first.read_bytes())[0]["state"]["qpos"], before_first(out))


def before_first(out: Path) -> Any:
    return server.states(out, "E", 0)[0][0]["state"]["qpos"]


@pytest.mark.parametrize(
    ("env", "needs"),
    [
        ("CartPole-v1", "pygame"),
        pytest.param("FrozenLake-v1", "pygame", marks=pytest.mark.soak),
        pytest.param("Blackjack-v1", "pygame", marks=pytest.mark.soak),
        ("MiniGrid-DoorKey-5x5-v0", "minigrid"),
    ],
)
def test_states_that_are_objects_are_given_back_and_go_on(data: DataSet, tmp_path: Path, env: str, needs: str) -> None:
    pytest.importorskip(needs)
    out = exported(data, tmp_path, env)
    imported = import_data(str(out), exp="Again", env=env, data_root=str(tmp_path / "again"))
    assert (imported.made, imported.faults) == (1, ())
    assert not [note for note in imported.notes if "states" in note]
    back = tmp_path / "back"
    (report,) = export(str(back), data_root=str(tmp_path / "again")).checkpoints
    assert (report.made, report.stateless) == (1, {})
    before, after = server.states(out, "E", 0), server.states(back, "Again", 0)
    assert [plain(entry[0]["state"]) for entry in after] == [plain(entry[0]["state"]) for entry in before]
    assert [entry[0]["elapsed_steps"] for entry in after] == list(range(len(before)))
    assert server.row(back, "Environment", "registration_id", env)["has_state_loading"] == 1


def plain(value: Any) -> Any:
    """A state as values that can be compared, with the classes of its objects."""
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    if isinstance(value, np.ndarray | np.generic):
        return (value.dtype.str, value.tolist())
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return (type(value), [plain(part) for part in value])
    return (type(value), plain(vars(value))) if hasattr(value, "__dict__") else value


def test_an_emulators_states_are_named_and_left_out(data: DataSet, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    out = exported(data, tmp_path, "ALE/Pong-v5", max_steps_per_episode=3)
    imported = import_data(str(out), exp="Again", env="ALE/Pong-v5", data_root=str(tmp_path / "again"))
    assert (imported.made, imported.faults) == (1, ())
    (note,) = [note for note in imported.notes if "states" in note]
    assert "env_states_0.npy: left out: ale_py" in note
