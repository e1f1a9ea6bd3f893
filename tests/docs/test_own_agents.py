"""The agents of docs/own_agents.md, as a reader would save and use them."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import rlhfblender_core
from rlhfblender_core.reading.data_set import DataSet
from tests.support.documented import REPOSITORY

PAGE = REPOSITORY / "docs" / "own_agents.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the reader's modules are."""
    modules = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    for name, code in modules.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if f"{name}.py" in modules:
            del sys.modules[name]


def generate(agent: str, **kwargs: str) -> DataSet:
    return rlhfblender_core.generate(
        env="CartPole-v1", agent=agent, agent_kwargs=kwargs, num_episodes=2, max_steps_per_episode=40, workers=0
    )


def test_a_rule_is_a_function(folder: Path) -> None:
    episode = generate("my_agents:lean")[0]
    assert np.array_equal(episode.actions, episode["obs"][:, 2] > 0)


def test_cleanrl_s_network_acts(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    import cleanrl_agent

    env = gymnasium.make("CartPole-v1")
    torch.manual_seed(0)
    agent = cleanrl_agent.Agent(env.observation_space, env.action_space)
    torch.save(agent.state_dict(), "agent.pt")
    data = generate("cleanrl_agent:make", path="agent.pt")
    episode = data[1]
    with torch.no_grad():
        logits = agent.actor(torch.as_tensor(episode["obs"]))
        values = agent.critic(torch.as_tensor(episode["obs"]))[:, 0]
    np.testing.assert_allclose(episode["probs"], torch.softmax(logits, 1), rtol=1e-5)
    np.testing.assert_allclose(episode["values"], values, rtol=1e-5, atol=1e-7)
    assert episode.manifest.uncertainty_kind == "entropy"
    assert np.array_equal(episode.uncertainty, episode["entropy"])


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # people have such files
def test_torchscript_acts(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    traced = torch.jit.trace(model, torch.zeros(1, 4))
    traced.save("model.ts")
    episode = generate("scripted_agent:make", path="model.ts")[0]
    with torch.no_grad():
        expected = model(torch.as_tensor(episode["obs"])).argmax(1).numpy()
    assert np.array_equal(episode.actions, expected)


def test_onnx_acts(folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    weights = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "weights"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("observation", single, [None, 4])],
        [helper.make_tensor_value_info("scores", single, [None, 2])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "model.onnx")
    episode = generate("onnx_agent:make", path="model.onnx")[0]
    assert np.array_equal(episode.actions, (episode["obs"] @ weights).argmax(1))
