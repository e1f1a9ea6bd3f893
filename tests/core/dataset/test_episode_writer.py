"""Steps are kept for a while and put into columns together: rows, sums and copies are those of step by step."""

from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core.dataset.episode_writer import EpisodeFiles, Outcome
from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.policies.protocol import PolicyStep


@pytest.mark.parametrize("length", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("size", [3, 70_000])
def test_rows_are_in_order_and_rewards_add_up(length: int, size: int, tmp_path: Path) -> None:
    length = length if size == 3 else 1 + length % 7  # wide rows are stored one by one
    observation, action = np.zeros(size, np.float32), np.zeros(2)
    rewards = np.random.default_rng(0).normal(size=length).tolist()
    with EpisodeFiles(tmp_path, 30) as files:
        for step, reward in enumerate(rewards):
            observation[:], action[:] = step, -step
            files.add_observation({"obs": observation})
            files.add_decision(PolicyStep(action, value=step / 2, uncertainty=step / 4))
            observation[:], action[:] = 99, 99  # by the environment
            files.add_outcome(Outcome(reward, terminated=False, truncated=step == length - 1, info={"t": step}))
        summary = files.finish({"obs": observation}, seed=1)
    with np.load(tmp_path / f"{ArtifactKind.EPISODES}.npz", allow_pickle=False) as arrays:
        steps = np.arange(length)
        assert arrays["obs"].shape == (length, size)
        np.testing.assert_array_equal(arrays["obs"][:, 0], steps)
        np.testing.assert_array_equal(arrays["actions"][:, 1], -steps)
        np.testing.assert_array_equal(arrays["values"], steps / 2)
        np.testing.assert_array_equal(arrays["rewards"], rewards)
        assert arrays["infos"].tolist() == [f'{{"t":{step}}}' for step in steps]
        assert (arrays["dones"].sum(), arrays["truncated"][-1]) == (1, True)
    total, cumulative = 0.0, []
    for reward in rewards:
        total += reward
        cumulative.append(total)
    assert np.load(tmp_path / f"{ArtifactKind.REWARDS}.npy").tolist() == cumulative
    assert (summary.episode_return, summary.length, summary.truncated) == (total, length, True)


def test_an_episode_has_a_step(tmp_path: Path) -> None:
    with EpisodeFiles(tmp_path, 30) as files, pytest.raises(ValueError, match="step"):
        files.finish({"obs": np.zeros(1)}, seed=1)
