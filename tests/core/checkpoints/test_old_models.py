"""Models of Stable-Baselines3 1.0 and 1.7.0 do what those did with them (``old_models/make.py`` made both)."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlhfblender_core.checkpoints import CheckpointRef, check_spaces, fetch_checkpoint, find_checkpoints, load_agent
from rlhfblender_core.checkpoints.find import Companions
from rlhfblender_core.errors import SpacesDifferError

FOLDER = Path(__file__).parent / "old_models"
NAMES = sorted(path.stem for path in FOLDER.glob("*.zip"))
BOX = spaces.Box(-1, 1, (3,), np.float32)
GOAL = spaces.Dict([("observation", spaces.Box(-1, 1, (4,))), ("desired_goal", BOX), ("achieved_goal", BOX)])


def ref_of(path: Path, cache: Path) -> CheckpointRef:
    file = find_checkpoints(str(path), "Old-v0")[0]
    statistics = path.with_suffix(".pkl")
    companions = Companions(vecnormalize=str(statistics) if statistics.exists() else None)
    return fetch_checkpoint(dataclasses.replace(file, companions=companions), cache)


def observations(name: str, rows: Any) -> list[Any]:
    if not name.startswith("her"):
        return list(rows)
    return [{"achieved_goal": row[:3], "desired_goal": row[3:6], "observation": row[6:]} for row in rows]


def reset_noise(policy: Any) -> None:
    owner = getattr(policy.network, "actor", policy.network)
    if owner.use_sde:
        owner.reset_noise()


@pytest.mark.parametrize("name", NAMES)
def test_actions_equal_those_of_the_version_that_saved_it(name: str, tmp_path: Path) -> None:
    expected = np.load(FOLDER / f"{name}.npz", allow_pickle=False)
    observed = GOAL if name.startswith("her") else BOX
    is_discrete = expected["chosen"].ndim == 1
    acted = spaces.Discrete(3) if is_discrete else spaces.Box(-2, 2, (2,), np.float32)
    ref = ref_of(FOLDER / f"{name}.zip", tmp_path)
    check_spaces(ref, observed, acted)
    chooses, samples = (load_agent(ref, observed, acted, deterministic=mode) for mode in (True, False))
    for number, observation in enumerate(observations(name, expected["observations"])):
        np.testing.assert_allclose(chooses.act(observation).action, expected["chosen"][number], rtol=1e-5, atol=1e-6)
        torch.manual_seed(number)
        reset_noise(samples)
        step = samples.act(observation)
        np.testing.assert_allclose(step.action, expected["sampled"][number], rtol=1e-4, atol=1e-6)
        assert np.isfinite(step.value)


def test_both_heads_stand_on_the_shared_layers(tmp_path: Path) -> None:
    policy: Any = load_agent(
        ref_of(FOLDER / "split.zip", tmp_path), BOX, spaces.Box(-2, 2, (2,), np.float32), deterministic=True
    )
    weights = policy.network.state_dict()
    hidden = observation = BOX.sample()
    for layer in ("mlp_extractor.shared_net.0", "mlp_extractor.value_net.0", "mlp_extractor.value_net.2"):
        hidden = np.tanh(weights[f"{layer}.weight"].numpy() @ hidden + weights[f"{layer}.bias"].numpy())
    value = weights["value_net.weight"].numpy() @ hidden + weights["value_net.bias"].numpy()
    assert policy.act(observation).value == pytest.approx(float(value[0]), abs=1e-6)


def test_a_goal_that_no_row_holds_is_refused_in_one_line(tmp_path: Path) -> None:
    mixed = spaces.Dict({**GOAL.spaces, "desired_goal": spaces.Discrete(3)})
    with pytest.raises(SpacesDifferError, match=r"class HER of Stable-Baselines3 1\.0") as caught:
        check_spaces(ref_of(FOLDER / "her.zip", tmp_path), mixed, spaces.Box(-2, 2, (2,), np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["SAC", "TD3"])
def test_off_policy_actors_without_hidden_layers_are_known_by_their_weights(algorithm: str, tmp_path: Path) -> None:
    """The default for pictures and Dicts until 1.5, so that ``policy_kwargs`` says nothing of it."""
    import stable_baselines3

    acted = spaces.Box(-2, 2, (2,), np.float32)
    maker = getattr(stable_baselines3, algorithm)
    env = gym.make("Pendulum-v1")
    env.unwrapped.observation_space, env.unwrapped.action_space = BOX, acted
    model = maker("MlpPolicy", env, policy_kwargs={"net_arch": []}, buffer_size=10, seed=0, device="cpu")
    model.save(tmp_path / "new.zip")
    with zipfile.ZipFile(tmp_path / "new.zip") as new, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name == "data":
                content = json.dumps({**json.loads(content), "policy_kwargs": {}}).encode()
            old.writestr(name, content)
    policy = load_agent(ref_of(tmp_path / "old.zip", tmp_path), BOX, acted, deterministic=True)
    for _ in range(20):
        observation = BOX.sample()
        assert np.array_equal(policy.act(observation).action, model.predict(observation, deterministic=True)[0])
