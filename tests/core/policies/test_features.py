"""The input of a policy's last layer, as a column on request."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.planning.work import plan_work
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.exporting import DataSet
from tests.support.generating import locations_of
from tests.support.verifying import repair


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    (tmp_path / "data").mkdir()
    return DataSet(open_data_root(str(tmp_path / "data")), f"sqlite:///{tmp_path}/data/rlhfblender.db", tmp_path)


def arrays(root: DataRoot, experiment: str, checkpoint: str) -> dict[str, Any]:
    with np.load(root.local_folder / "episodes" / experiment / checkpoint / "0.npz", allow_pickle=False) as loaded:
        return dict(loaded)


def asked(model: Path, exp: str, **flags: Any) -> dict[str, Any]:
    return {
        "env": "CartPole-v1",
        "exp": exp,
        "model_path": str(model),
        "checkpoints": [0, 128],
        "num_episodes": 1,
        "max_steps_per_episode": 8,
        **flags,
    }


def test_features_are_what_the_last_layer_makes_the_decision_from(
    data: DataSet, trained_cartpole: Path, tmp_path: Path
) -> None:
    from stable_baselines3 import PPO

    data.generate(**asked(trained_cartpole, "with", features=True))
    found = arrays(data.root, "with", "128")
    assert (found["features"].shape, found["features"].dtype) == ((len(found["actions"]), 64), np.float32)
    policy = PPO.load(trained_cartpole / "rl_model_128_steps.zip", device="cpu").policy
    weight, bias = (parameter.detach().numpy() for parameter in policy.action_net.parameters())
    logits = found["features"] @ weight.T + bias
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, found["probs"], atol=1e-5)
    assert "features" not in arrays(data.root, "with", "random")
    data.export(tmp_path / "out")
    (file,) = (tmp_path / "out").glob("data/episodes/**/CartPole-v1_1_128/benchmark_0.npz")
    with np.load(file, allow_pickle=True) as exported:
        np.testing.assert_array_equal(exported["features"], found["features"])


def test_features_are_part_of_the_request_only_where_they_are_asked_for(data: DataSet, trained_cartpole: Path) -> None:
    def digests(**flags: Any) -> list[str]:
        request = request_from_flags(asked(trained_cartpole, "E", **flags))
        plan = plan_work(request, locations_of(data.root, data.url)).plan
        return [settings.digest for settings in plan.settings]

    plain, explicit, featured = digests(), digests(features=False), digests(features=True)
    assert plain == explicit
    assert (plain[0] == featured[0], plain[1] == featured[1]) == (True, False), "random actions have no last layer"


@pytest.mark.parametrize(("name", "env"), [("DQN", "CartPole-v1"), ("SAC", "Pendulum-v1"), ("TD3", "Pendulum-v1")])
def test_other_networks_have_a_last_layer_too(name: str, env: str) -> None:
    import stable_baselines3

    from rlhfblender_core.policies.features import _last_layer

    model = getattr(stable_baselines3, name)("MlpPolicy", gymnasium.make(env), device="cpu", buffer_size=10)
    layer = _last_layer(model.policy)
    assert layer is not None
    assert layer.out_features == (2 if name == "DQN" else 1)


def test_a_lost_registry_is_rebuilt_with_them(data: DataSet, trained_cartpole: Path) -> None:
    data.generate(**asked(trained_cartpole, "E", features=True))
    (data.root.local_folder / "rlhfblender.db").unlink()
    repair(data.root, data.url)
    data.generate(**asked(trained_cartpole, "E", num_episodes=2))
    assert len(data.root.fs.glob(f"{data.root.local_folder}/episodes/E/128/*.npz")) == 2
    with np.load(data.root.local_folder / "episodes/E/128/1.npz", allow_pickle=False) as arrays:
        assert "features" in arrays
