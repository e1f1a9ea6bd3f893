"""Demonstrations begin in the middle of exported episodes: the picture is that step's, and the rest goes on as it did.

Asked of another program's view of the export: nothing of the replay is used here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core import import_data
from tests.support import rlhfblender_server as server
from tests.support.exporting import COUNTING, DataSet
from tests.support.soak import sampled

#: Environment, package that it needs, its keyword arguments, and how many steps are made.
EPISODES: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "classic control": ("CartPole-v1", "pygame", {}, 40),
    "a limit of steps": ("CartPole-v1", "pygame", {"max_episode_steps": 7, "sutton_barto_reward": True}, 40),
    "MuJoCo": ("Hopper-v5", "mujoco", {}, 40),
    "MiniGrid": ("MiniGrid-DoorKey-5x5-v0", "minigrid", {}, 300),
    "another view": ("MiniGrid-Empty-5x5-v0", "minigrid", {"env_wrapper": "minigrid.wrappers.FullyObsWrapper"}, 60),
    "a namespace": ("ForTests/Counting-v0", "pygame", {"length": 9}, 40),
    "an emulator": ("ALE/Pong-v5", "ale_py", {"repeat_action_probability": 0.0}, 30),
    "frames in a row": ("PongNoFrameskip-v4", "ale_py", {"frame_stack": 4}, 30),
}


@pytest.mark.parametrize("name", sampled(EPISODES, "classic control", "MiniGrid", "a namespace"))
def test_from_any_step_the_episode_is_seen_and_played_to_its_end(name: str, data: DataSet, tmp_path: Path) -> None:
    env_id, package, env_kwargs, limit = EPISODES[name]
    pytest.importorskip(package)
    entry_point = {"env_gym_entrypoint": f"{COUNTING}:Counting"} if "Counting" in env_id else {}
    common: dict[str, Any] = {"random": True, "num_episodes": 2, "max_steps_per_episode": limit, **entry_point}
    data.generate(env=env_id, exp="E", env_kwargs=env_kwargs, **common)
    (report,) = data.export(tmp_path / "out", env_states=True)
    assert (report.made, report.left_out, report.stateless) == (2, {}, {})
    demonstration = server.Demonstration(server.environment(tmp_path / "out", "E"))
    for number in (0, 1):
        check_episode(demonstration, tmp_path / "out", number)
    demonstration.env.close()
    assert server.row(tmp_path / "out", "Environment", "registration_id", env_id)["has_state_loading"] == 1


def check_episode(demonstration: server.Demonstration, out: Path, number: int) -> None:
    """Starts at the first steps, in the middle and at the last ones, and plays to the end from each."""
    arrays, loaded = server.episode(out, "E", 0, number), server.states(out, "E", 0, number)
    pictures = server.pictures(out, "E", 0, number)
    length = len(arrays["actions"])
    assert len(loaded) == len(pictures) == length
    for start in sorted({0, 1, length // 2, max(0, length - 2), length - 1}):
        assert loaded[start][0]["elapsed_steps"] == start
        shown = demonstration.start(loaded, start)
        if not hasattr(demonstration.env.unwrapped, "ale"):  # which draws when it steps: until then a reset is seen
            check_picture(shown, pictures, start)
        for step in range(start, length):
            ended = demonstration.act(arrays["actions"][step])
            check_reward(demonstration, arrays["rewards"][step])
            if step + 1 < length:
                assert not ended
                row = numbers(demonstration.env.unwrapped.observation_space, demonstration.observation)
                np.testing.assert_allclose(row, arrays["obs"][step + 1], rtol=1e-5, atol=1e-5)
            if step == start and step + 1 < length:
                check_picture(demonstration.env.render(), pictures, step + 1)


def check_reward(demonstration: server.Demonstration, expected: float) -> None:
    """It is the recorded one; MiniGrid's falls with the number of steps, which no state has there."""
    if hasattr(demonstration.env.unwrapped, "grid"):
        assert (demonstration.reward > 0) == (expected > 0)
    else:
        assert demonstration.reward == pytest.approx(expected, abs=1e-5)


def check_picture(shown: Any, pictures: Any, step: int) -> None:
    """It is that step's: what an encoder loses is less than what lies between two steps."""
    height, width, _ = shown.shape
    distances = np.abs(pictures[:, :height, :width].astype(np.float32) - shown).mean(axis=(1, 2, 3))
    assert distances[step] < 3
    assert distances[step] <= distances.min() + 0.1


def numbers(space: Any, observation: Any) -> Any:
    """A dictionary's numbers in one row, in the order of its space."""
    if not isinstance(space, spaces.Dict):
        return observation
    parts = [np.ravel(observation[key]) for key in space]
    return np.concatenate([part for part in parts if part.dtype.kind in "biuf"])


@pytest.mark.parametrize("observed", ["text", "dict", "tuple"])
def test_what_is_observed_can_be_made_there(observed: str, data: DataSet, tmp_path: Path) -> None:
    spaced = "tests.support.environments_for_tests.spaced:Spaced"
    kwargs = {"observed": observed, "acted": "discrete"}
    data.generate(
        env=f"Spaced-{observed}-v0", exp="E", random=True, num_episodes=1, env_gym_entrypoint=spaced, env_kwargs=kwargs
    )
    data.export(tmp_path / "out")
    made = server.environment(tmp_path / "out", "E")
    assert len(server.episode(tmp_path / "out", "E", 0)["actions"]) == 3
    made.close()


def test_a_state_that_is_a_row_of_numbers_arrives_and_comes_back(data: DataSet, tmp_path: Path) -> None:
    data.counting(env="RememberedInARow")
    out = tmp_path / "out"
    (report,) = data.export(out, env_states=True)
    assert (report.made, report.stateless) == (2, {})
    demonstration = server.Demonstration(server.environment(out, "E"))
    for number in (0, 1):
        check_episode(demonstration, out, number)
    again = import_data(str(out), exp="Again", env="RememberedInARowMade-v0", data_root=str(tmp_path / "again"))
    assert (again.made, again.faults) == (2, ())
    with np.load(tmp_path / "again/episodes/Again/random/1.npz", allow_pickle=False) as arrays:
        assert arrays["env_state"][:, 0].tolist() == list(range(5))


def test_a_goal_that_is_in_no_state_is_noticed_when_the_episode_ends_too_early(data: DataSet, tmp_path: Path) -> None:
    data.counting(env="Forgetting")
    (report,) = data.export(tmp_path / "out", env_states=True)
    ((reason, count),) = report.stateless.items()
    assert (count, report.made) == (2, 2)
    assert "don't go on as it did" in reason
    row = server.row(tmp_path / "out", "Environment", "registration_id", "ForgettingMade-v0")
    assert row["has_state_loading"] == 0


def test_a_file_of_states_that_is_gone_is_missed_and_made_again(data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    data.generate(env="CartPole-v1", exp="E", random=True, num_episodes=2)
    data.export(out, env_states=True)
    (gone,) = out.glob("data/env_states/**/env_states_1.npy")
    whole = gone.read_bytes()
    gone.unlink()
    with pytest.raises(FileNotFoundError):
        server.states(out, "E", 0, 1)
    imported = import_data(str(out), exp="Again", env="CartPole-v1", data_root=str(tmp_path / "again"))
    assert imported.made == 2
    assert [note for note in imported.notes if "env_states_1.npy" in note]
    (report,) = data.export(out, env_states=True)
    assert (report.made, report.existing) == (1, 1)
    assert gone.read_bytes() == whole
