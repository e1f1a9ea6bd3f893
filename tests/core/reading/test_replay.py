"""Playing an episode again from its seed and actions: exact, or refused with a word."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core import generate, open_data_set
from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.errors import DataNotUsableError, EnvironmentNotTrustedError
from rlhfblender_core.reading.episode import Episode

COUNTING = "tests.support.environments_for_tests.counting"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's own, where what they named is remembered."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(tmp_path: Path, **flags: Any) -> Episode:
    asked = {"exp": "E", "num_episodes": 2, "max_steps_per_episode": 12, **flags}
    episode: Episode = generate(data_root=str(tmp_path / "data"), workers=0, **asked)[1]
    return episode


def counting(tmp_path: Path, env: str, **flags: Any) -> Episode:
    return made(tmp_path, env=f"{env}Again-v0", env_gym_entrypoint=f"{COUNTING}:{env}", random=True, **flags)


def test_the_environment_is_given_at_each_step_before_its_action(tmp_path: Path) -> None:
    episode = made(tmp_path, env="CartPole-v1", random=True)
    observations = episode.observations
    count = 0
    for t, env in enumerate(episode.replay(render=True)):
        assert np.array_equal(np.float32(env.unwrapped.state), observations[t])
        assert np.abs(env.render().astype(float) - episode.frame(t)).mean() < 3
        count += 1
    assert count == len(episode)


def test_an_agent_s_wrappers_are_made_with_their_keyword_arguments(tmp_path: Path, trained_cartpole: Path) -> None:
    wrapper = {"rl_zoo3.wrappers.FrameSkip": {"skip": 3}}
    kwargs = {"env_wrapper": wrapper}
    asked = {"env": "CartPole-v1", "model_path": str(trained_cartpole), "checkpoints": ["final"], "no_render": True}
    episode = made(tmp_path, env_kwargs=kwargs, **asked)
    assert episode.manifest.policy.wrapper_kwargs == ({"skip": 3},)
    observations = episode.observations
    seen = [np.float32(env.unwrapped.state) for env in episode.replay()]
    assert np.array_equal(seen, observations[:-1])
    path = tmp_path / "data" / "manifests/E/final/1.json"
    before = json.loads(path.read_text())
    del before["sha256"], before["policy"]["wrapper_kwargs"]  # as it was written before these were recorded
    before["sha256"] = canonical_digest(before)
    path.write_text(json.dumps(before, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    with pytest.raises(DataNotUsableError, match=r"E/final/1 can't be played again: .*differs at step"):
        list(open_data_set(str(tmp_path / "data"))[1].replay())


@pytest.mark.parametrize("env", ["Unsettled", "Unseeded"])  # the one in its observations, the other in its rewards
def test_what_goes_another_way_is_refused(tmp_path: Path, env: str) -> None:
    with pytest.raises(DataNotUsableError, match="differs at step"):
        list(counting(tmp_path, env).replay())


def test_an_environment_that_is_stepped_meanwhile_is_noticed(tmp_path: Path) -> None:
    moments = made(tmp_path, env="CartPole-v1", random=True).replay()
    next(moments).step(0)
    with pytest.raises(DataNotUsableError, match="differs at step"):
        next(moments)


def test_global_random_numbers_are_the_environment_s_and_the_caller_s_apart(tmp_path: Path) -> None:
    episode = counting(tmp_path, "DrawingGlobally")
    random.seed(5)
    expected = [random.random() for _ in range(len(episode))]
    random.seed(5)
    assert [random.random() for _ in episode.replay()] == expected


def test_what_nobody_named_here_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = counting(tmp_path, "Counting")
    assert len(list(episode.replay())) == len(episode)
    monkeypatch.setenv("HOME", str(tmp_path / "somebody else's"))
    with pytest.raises(EnvironmentNotTrustedError, match="would be made with what only"):
        next(episode.replay())
