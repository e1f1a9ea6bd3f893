"""Agents of the user's own code: generated, continued, verified; the same bytes from any number of workers."""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlhfblender_core
from rlhfblender_core.errors import EnvironmentNotTrustedError, RegistryConflictError, RequestError
from rlhfblender_core.reading.data_set import DataSet, Episode

AGENTS = "tests.support.environments_for_tests.own_agents"
CARTPOLE = {"env": "CartPole-v1", "num_episodes": 4, "no_render": True, "max_steps_per_episode": 30}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    import gymnasium
    import torch

    from tests.support.environments_for_tests.own_agents import CleanRLAgent

    env = gymnasium.make("CartPole-v1")
    torch.manual_seed(1)
    path = tmp_path / "agent.pt"
    torch.save(CleanRLAgent(env.observation_space, env.action_space).state_dict(), path)
    return path


def generate(root: Path, agent: str | None, workers: int = 0, **others: Any) -> DataSet:
    asked = {**CARTPOLE, "exp": "E", "data_root": str(root), "workers": workers, **others}
    return rlhfblender_core.generate(**asked, **({} if agent is None else {"agent": f"{AGENTS}:{agent}"}))


def files(root: Path) -> dict[str, str]:
    paths = [path for path in root.rglob("*") if path.is_file() and "rlhfblender.db" not in path.name]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_an_agent_of_pytorch_acts_as_it_says(tmp_path: Path, weights: Path) -> None:
    data = generate(tmp_path / "data", "clean_rl", agent_kwargs={"path": str(weights)})
    episode: Episode = data[0]
    assert (data.checkpoints, episode.manifest.policy.kind) == (("agent",), "agent")
    import torch

    from tests.support.environments_for_tests.own_agents import Acting, CleanRLAgent

    agent = CleanRLAgent(*_spaces())
    agent.load_state_dict(torch.load(weights, weights_only=True))
    own = Acting(agent)
    own.reset(episode.seed)
    for t, observation in enumerate(episode["obs"]):
        step = own.act(observation)
        assert episode.actions[t] == int(step.action)
        assert np.array_equal(episode["probs"][t], step.probs)
        assert episode["values"][t] == np.float32(step.value)
    assert episode.manifest.uncertainty_kind == "own"
    assert np.array_equal(episode.uncertainty, episode["entropy"])


def _spaces() -> tuple[Any, Any]:
    import gymnasium

    env = gymnasium.make("CartPole-v1")
    return env.observation_space, env.action_space


@pytest.mark.parametrize(
    "agent",
    [
        *("Predicting", "clean_rl"),
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("forgetful", "leaning", "remembering")),
    ],
)
def test_the_bytes_don_t_depend_on_workers_or_repairs(tmp_path: Path, weights: Path, agent: str) -> None:
    kwargs = {"agent_kwargs": {"path": str(weights)}} if agent == "clean_rl" else {}
    for workers in (0, 1, 2):
        generate(tmp_path / str(workers), agent, workers, **kwargs)
    expected = files(tmp_path / "0")
    assert files(tmp_path / "1") == files(tmp_path / "2") == expected
    (tmp_path / "1/episodes/E/agent/2.npz").unlink()
    again = generate(tmp_path / "1", None, **{**CARTPOLE, "env": None})
    assert (again.report.made, files(tmp_path / "1")) == (1, expected)
    assert rlhfblender_core.verify(data_root=str(tmp_path / "1")).found == ()


def test_predict_is_asked_as_stable_baselines3_asks(tmp_path: Path) -> None:
    sampled = generate(tmp_path / "sampled", "Predicting")
    best = generate(tmp_path / "best", "Predicting", deterministic=True)
    for data, first in ((sampled, 1), (best, 0)):
        actions = data[1].actions
        assert actions.tolist() == [(t // 2 + first) % 2 for t in range(len(actions))]


def test_more_episodes_and_a_baseline_are_added(tmp_path: Path) -> None:
    generate(tmp_path, "leaning")
    more = generate(tmp_path, "leaning", num_episodes=6)
    assert more.report.made == 2
    both = generate(tmp_path, None, checkpoints=[0, -1], num_episodes=6)
    assert (both.report.made, both.checkpoints) == (6, ("random", "agent"))
    assert generate(tmp_path, "leaning", num_episodes=6).report.made == 0


def test_other_code_or_another_file_is_another_agent(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "code"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "agents.py").write_text("from mine.inner import SIDE\ndef make():\n    return lambda o: SIDE\n")
    (folder / "mine" / "inner.py").write_text("SIDE = 1\n")
    monkeypatch.syspath_prepend(folder)
    root = tmp_path / "data"
    rlhfblender_core.generate(**CARTPOLE, exp="E", agent="mine.agents:make", data_root=str(root), workers=0)
    (folder / "mine" / "inner.py").write_text("SIDE = 0  # changed\n")
    for name in ("mine", "mine.agents", "mine.inner"):
        sys.modules.pop(name, None)
    shutil.rmtree(folder / "mine" / "__pycache__", ignore_errors=True)
    with pytest.raises(RegistryConflictError, match="4 episodes made with another agent"):
        rlhfblender_core.generate(**CARTPOLE, exp="E", agent="mine.agents:make", data_root=str(root), workers=0)
    for name in ("mine", "mine.agents", "mine.inner"):
        sys.modules.pop(name, None)
    kwargs = {"agent_kwargs": {"path": str(weights)}, "exp": "F"}
    generate(root, "clean_rl", **kwargs)
    import torch

    state = torch.load(weights, weights_only=True)
    torch.save({name: value + 0.1 for name, value in state.items()}, weights)
    with pytest.raises(RegistryConflictError, match="another agent"):
        generate(root, "clean_rl", **kwargs)


def test_a_version_says_what_the_agent_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.environments_for_tests.own_agents import Predicting

    generate(tmp_path, "Predicting")
    monkeypatch.setattr(Predicting, "version", "4")
    with pytest.raises(RegistryConflictError, match="another agent"):
        generate(tmp_path, "Predicting")


def test_a_registry_s_word_alone_runs_nothing(tmp_path: Path) -> None:
    generate(tmp_path / "one", "leaning")
    shutil.copytree(tmp_path / "one", tmp_path / "copied")
    with pytest.raises(EnvironmentNotTrustedError, match=f"--agent {AGENTS}:leaning"):
        generate(tmp_path / "copied", None, num_episodes=6, env=None)
    assert generate(tmp_path / "one", None, num_episodes=6, env=None).report.made == 2


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"agent": "no_colon"}, "is written module:factory"),
        ({"agent": "../agents.py:make"}, "is written module:factory"),
        ({"agent": f"{AGENTS}:leaving"}, "fails: SystemExit"),
        ({"agent": f"{AGENTS}:leaving_as_it_acts"}, r"can't act in CartPole-v1: SystemExit.*\. Check its code"),
        ({"agent": "nowhere.at_all:make"}, "There is no module 'nowhere"),
        ({"agent": f"{AGENTS}:leening"}, "no function or class 'leening'.*Did you mean 'leaning'"),
        ({"agent": f"{AGENTS}:not_callable"}, "no function or class 'not_callable'"),
        ({"agent": f"{AGENTS}:remembering", "agent_kwargs": {"begin": 1}}, "can't be called with --agent-kwargs begin"),
        ({"agent": f"{AGENTS}:no_agent"}, "returned str, which is no agent"),
        ({"agent": f"{AGENTS}:wrong_action"}, "chose 7, which isn't in the action space"),
        ({"agent": f"{AGENTS}:leaning", "random": True}, "Give --agent alone"),
        ({"agent": f"{AGENTS}:leaning", "checkpoints": [1000]}, "An --agent has no checkpoints"),
    ],
)
def test_what_can_t_act_is_refused_before_anything_is_registered(
    tmp_path: Path, asked: dict[str, Any], line: str
) -> None:
    root = tmp_path / "data"
    with pytest.raises(RequestError, match=line):
        rlhfblender_core.generate(**CARTPOLE, exp="E", data_root=str(root), workers=0, **asked)
    assert not list(root.rglob("*.npz"))


def test_what_an_agent_does_to_an_observation_is_not_recorded(tmp_path: Path) -> None:
    plain = generate(tmp_path / "plain", "left_or_right")
    data = generate(tmp_path / "in-place", "left_or_right_in_place")
    for theirs, expected in zip(data, plain, strict=True):
        np.testing.assert_array_equal(theirs.actions, expected.actions)
        np.testing.assert_array_equal(theirs.observations, expected.observations)
