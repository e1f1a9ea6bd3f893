"""Hyperparameters: RL Zoo's tuned ones, a file of one's own, what is given by hand; nothing in a file is evaluated."""

from pathlib import Path

import pytest
import yaml
from gymnasium import spaces

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.environments.spec import EnvironmentSpec
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.train import hyperparameters
from rlhfblender_core.train.arguments import constructor_arguments
from rlhfblender_core.train.hyperparameters import find_hyperparameters
from rlhfblender_core.wrappers.specs import SETTING_KEYS, parse_settings
from rlhfblender_core.wrappers.table import TRAINING_WRAPPERS

CART_POLE = EnvironmentSpec("CartPole-v1")


def test_rl_zoo_s_tuned_ones_are_the_default_and_what_is_given_wins() -> None:
    pytest.importorskip("rl_zoo3", reason="needs the extra [train]")
    found = find_hyperparameters(Algorithm.PPO, CART_POLE, None, {"n_steps": 64, "learning_rate": "lin_0.01"})
    assert found.note == "RL Zoo's hyperparameters of PPO for CartPole-v1"
    assert {name: found.values[name] for name in ("n_envs", "n_steps", "learning_rate", "clip_range")} == {
        "n_envs": 8,
        "n_steps": 64,
        "learning_rate": "lin_0.01",
        "clip_range": "lin_0.2",
    }
    other = find_hyperparameters(Algorithm.SAC, CART_POLE, None, {})
    assert (dict(other.values), other.note) == (
        {},
        "RL Zoo has no SAC for CartPole-v1: trained with Stable-Baselines3's defaults",
    )


@pytest.mark.parametrize("algorithm", [each for each in Algorithm if each != Algorithm.MASKABLE_PPO])
def test_all_of_rl_zoo_s_tuned_ones_are_understood(algorithm: Algorithm) -> None:
    zoo = pytest.importorskip("rl_zoo3", reason="needs the extra [train]")
    name = "ppo_lstm" if algorithm == Algorithm.RECURRENT_PPO else algorithm.lower()
    file = Path(zoo.__file__).parent / "hyperparams" / f"{name}.yml"
    space = spaces.Box(-1, 1, (3,))
    for env_id, section in yaml.safe_load(file.read_text()).items():
        values = dict(find_hyperparameters(algorithm, EnvironmentSpec(env_id), str(file), {}).values)
        if "ae.wrapper" in str(section):  # of a package that nobody publishes
            continue
        wrappers = parse_settings({key: values[key] for key in SETTING_KEYS if key in values}).wrappers
        assert {wrapper.name for wrapper in wrappers} <= set(TRAINING_WRAPPERS)
        constructor_arguments(algorithm, values, space, space)


def test_without_rl_zoo_they_are_stable_baselines3_s_and_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hyperparameters.importlib.util, "find_spec", lambda _: None)
    found = find_hyperparameters(Algorithm.PPO, CART_POLE, None, {"n_steps": 64})
    assert dict(found.values) == {"n_steps": 64}
    assert "pip install 'rlhfblender-data[train]'" in found.note


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("CartPole-v1: {gamma: 0.5, gae_lambda: 1e-3}", {"gamma": 0.5, "gae_lambda": 0.001}),
        ("CartPole-v0: {gamma: 0.5}\ndefault: {gamma: 0.1}", {"gamma": 0.5}),
        ("Other-v0: {gamma: 0.5}\ndefault: {gamma: 0.1}", {"gamma": 0.1}),
        ("gamma: 0.5\nn_steps: 8", {"gamma": 0.5, "n_steps": 8}),
    ],
)
def test_a_file_of_one_s_own_is_by_environment_or_for_one(text: str, values: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(text)
    assert dict(find_hyperparameters(Algorithm.PPO, CART_POLE, str(tmp_path / "mine.yml"), {}).values) == values


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("CartPole-v1: {gamma: !!python/object/apply:os.getcwd []}", "gamma holds a Python tag"),
        ("CartPole-v2x: {gamma: 0.5}", "Did you mean"),
        ("- 3", "holds no hyperparameters"),
        ("a: [", "mine.yml"),
    ],
)
def test_what_is_no_such_file_is_one_line(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(InvalidParameterError, match=line) as refused:
        find_hyperparameters(Algorithm.PPO, CART_POLE, str(tmp_path / "mine.yml"), {})
    assert "\n" not in str(refused.value)
