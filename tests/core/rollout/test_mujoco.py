"""MuJoCo without a screen: its videos show something in every episode of a worker, and it leaves no traces."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlhfblender_core.environments import headless
from tests.support.soak import sampled

SCRIPT = """
import sys
from pathlib import Path
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, check_agent, roll_out_shard
from tests.support.soak import sampled

spec = EnvironmentSpec(sys.argv[1], kwargs={"width": 64, "height": 64})
settings = RolloutSettings(spec, RandomAgent(), RolloutOptions(max_steps_per_episode=3, fps=20.0))
settings = check_agent(settings)
assert settings.reproducible
staged = roll_out_shard(Shard(CheckpointKey("e", "random"), settings, tuple(range(10))), Path(sys.argv[2]))
assert staged.failures == {}, staged.failures
assert [episode.manifest.warnings for episode in staged.episodes] == [()] * 10
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have a screen")
@pytest.mark.parametrize("env_id", sampled(["Hopper-v5", "HalfCheetah-v5"], "Hopper-v5"))
def test_videos_of_mujoco_show_something_and_nothing_is_printed_or_left_behind(env_id: str, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    if headless._mujoco_backend() is None:
        pytest.skip("neither EGL nor OSMesa is there: apt-get install libegl1")
    here, staging = tmp_path / "here", tmp_path / "staging"
    here.mkdir()
    staging.mkdir()
    root = str(Path(__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, env_id, str(staging)],
        cwd=here,
        env={"PYTHONPATH": root, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert list(here.iterdir()) == []
