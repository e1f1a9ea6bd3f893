"""The commands of RLHF-Blender's documentation, literally and in its order, in one data root."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhfblender_core.registry import open_registry
from tests.support.documented import REPOSITORY, of

MY_PACKAGE = """
import gymnasium

class MyEnv(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Discrete(4)

    def __init__(self, difficulty="easy", render_mode=None):
        self.render_mode, self.difficulty = render_mode, difficulty

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample() * 0, {"difficulty": self.difficulty}

    def step(self, action):
        self.steps += 1
        observation = self.observation_space.sample() * 0 + self.steps / 10
        return observation, float(action), self.steps >= 8, False, {"difficulty": self.difficulty}

    def render(self):
        import numpy
        return numpy.full((32, 32, 3), 20 * self.steps, numpy.uint8)

class MyCustomEnv(MyEnv):
    pass
"""


@pytest.fixture
def reader(tmp_path: Path, prefect_server: str) -> Path:
    """A folder with the package and the models that the page speaks of; it knows where ``MyEnv-v0`` comes from."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    (tmp_path / "my_package" / "envs.py").write_text(MY_PACKAGE)
    train = (
        "from pathlib import Path; from my_package.envs import MyEnv; from stable_baselines3 import PPO\n"
        "model = PPO('MlpPolicy', MyEnv(), n_steps=8, batch_size=8, seed=0, device='cpu')\n"
        "for folder, steps in (('checkpoints', (100000, 200000, 300000)), ('model', (50000, 100000, 200000))):\n"
        "    for step in steps:\n"
        "        model.save(Path('path/to') / folder / f'rl_model_{step}_steps.zip')\n"
    )
    (tmp_path / "path" / "to").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", train], cwd=tmp_path, check=True)
    for copied in (tmp_path / "path" / "to").rglob("*_steps.zip"):  # a zip holds when it was written
        copied.write_bytes((tmp_path / "path/to/model/rl_model_50000_steps.zip").read_bytes())
        os.utime(copied, (0, 0))
    known = ["-m", "rlhfblender.register", "--env", "MyEnv-v0", "--env-gym-entrypoint", "my_package.envs:MyEnv"]
    run(known, tmp_path, prefect_server)
    return tmp_path


def run(words: list[str], cwd: Path, server: str) -> str:
    paths = os.pathsep.join(map(str, (cwd, REPOSITORY)))
    script = [str(REPOSITORY / words[0])] if words[0].endswith(".py") else words[:1]
    done = subprocess.run(
        [sys.executable, *script, *words[1:]],
        cwd=cwd,
        env={**os.environ, "PREFECT_API_URL": server, "PYTHONPATH": paths, "XDG_STATE_HOME": str(cwd / "state")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_commands_of_rlhfblenders_page_run_in_order_in_one_data_root(reader: Path, prefect_server: str) -> None:
    printed = [run(words, reader, prefect_server) for words in of("python", "docs/rlhfblender.md")]
    assert printed[-2:] == ["Action dimensions: 1\n", printed[-1]]
    assert "Action labels: up, down, left, right" in printed[-1]
    with open_registry(f"sqlite:///{reader / 'data' / 'rlhfblender.db'}") as registry:
        made = {
            (record.project, record.env_id, record.name): {
                checkpoint.label: len(registry.list_episodes(record.name, checkpoint.label))
                for checkpoint in registry.list_checkpoints(record.name)
            }
            for record in registry.list_experiments()
        }
        hard = registry.find_experiment("MyProject_MyExperiment")
    ours, custom = "MyEnv-v0_random_experiment", "MyCustomEnv-v0_random_experiment"
    random = {"random": 10}
    assert made == {
        ("RLHF-Blender", "MyEnv-v0", ours): random,
        ("RLHF-Blender", "MyEnv-v0", "MyExperiment"): {"100000": 10, "200000": 10, "300000": 10, **random},
        ("RLHF-Blender", "MyCustomEnv-v0", f"{custom}_max_episode_steps-1000"): random,
        ("RLHF-Blender", "MyEnv-v0", f"{ours}_max_episode_steps-1000_reward_threshold-200"): random,
        ("RLHF-Blender", "MyCustomEnv-v0", custom): random,
        ("MyProject", "MyCustomEnv-v0", "MyProject_MyExperiment"): {"50000": 20, "100000": 20},
    }
    assert hard is not None
    assert hard.env_kwargs == {"max_episode_steps": 1000, "difficulty": "hard"}
    assert run(["flows/verify.py"], reader, prefect_server)
