import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.rollout.settings import RolloutSettings, versions_of
from rlhfblender_core.rollout.shards import Shard, roll_out_shard

SettingsMaker = Callable[..., RolloutSettings]


@pytest.mark.parametrize(("episodes", "name"), [((3,), "random 3"), ((0, 1, 9), "random 0-9")])
def test_a_shards_name_says_which_episodes(episodes: tuple[int, ...], name: str, shard: Callable[..., Shard]) -> None:
    assert shard(episodes=episodes).name == name


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"max_steps_per_episode": 5}, {"render": False}, {"fps": 10.0}, {"length": 6}, {"env": "Reusing"}],
)
def test_whatever_decides_the_bytes_changes_the_digest(change: dict[str, object], settings: SettingsMaker) -> None:
    assert settings().digest == settings().digest
    assert settings(**change).digest != settings().digest


def test_what_doesnt_decide_the_bytes_leaves_the_digest_alone(settings: SettingsMaker) -> None:
    assert settings(render=False, fps=10.0).digest == settings(render=False, fps=20.0).digest


def test_versions_of_what_isnt_installed_are_left_out() -> None:
    assert list(versions_of(["numpy", "no-such-distribution", "gymnasium"])) == ["gymnasium", "numpy"]


@pytest.mark.parametrize("modules", ["rlhfblender_core.rollout.shards", "flows.generate"])
def test_importing_loads_neither_torch_nor_stable_baselines(modules: str) -> None:
    script = f"import sys, {modules}; print(*{{'torch', 'stable_baselines3', 'sb3_contrib'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == ""


def test_a_run_whose_data_root_is_unmounted_says_so_and_makes_nothing_in_its_place(
    shard: Callable[..., Shard], staging: Path
) -> None:
    staging.rmdir()
    with pytest.raises(StorageNotUsableError, match="is gone: was the data root unmounted"):
        roll_out_shard(shard(), staging)
    assert not staging.exists()


def test_a_check_leaves_no_environment_to_be_closed_when_the_process_ends() -> None:
    script = """
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import check_agent

spec = EnvironmentSpec(env_id="A-v0", entry_point="tests.support.environments_for_tests.counting:SaysGoodbye")
check_agent(RolloutSettings(spec, RandomAgent(), RolloutOptions(render=False)))
print("done")
"""
    found = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    output = subprocess.check_output([sys.executable, "-c", script], text=True, env=found)
    assert output.split() == ["goodbye", "done"]
