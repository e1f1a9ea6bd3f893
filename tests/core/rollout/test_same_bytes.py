"""The same bytes from many environments, whatever the workers and the cuts of shards. Minutes: run by ``make soak``."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhfblender_core import delete, generate, repair
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, check_agent, roll_out_shard
from rlhfblender_core.workers.pool import Workers

KEY = CheckpointKey("exp", "random")
#: Environment, and the module that it needs.
ENVIRONMENTS = [
    *((name, "gymnasium") for name in ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "FrozenLake-v1")),
    *((name, "Box2D") for name in ("LunarLander-v3", "BipedalWalker-v3", "BipedalWalkerHardcore-v3", "CarRacing-v3")),
    *((name, "ale_py") for name in ("ALE/Pong-v5", "ALE/Breakout-v5", "ALE/MsPacman-v5")),
    *((name, "minigrid") for name in ("MiniGrid-Empty-8x8-v0", "MiniGrid-DoorKey-5x5-v0", "BabyAI-GoToObj-v0")),
    *((name, "highway_env") for name in ("highway-fast-v0", "roundabout-v0")),
    *((name, "mujoco") for name in ("Hopper-v5", "HalfCheetah-v5", "Ant-v5")),
    ("AntBulletEnv-v0", "pybullet_envs_gymnasium"),
]


def made(workers: int, settings: RolloutSettings, cuts: list[tuple[int, ...]], folder: Path) -> list[Manifest]:
    folder.mkdir()
    with Workers(workers, folder) as pool, ThreadPoolExecutor(max(1, workers)) as threads:
        settings = pool.run(check_agent, settings)
        shards = [Shard(KEY, settings, episodes) for episodes in cuts]
        staged = list(threads.map(lambda shard: pool.run(roll_out_shard, shard, folder), shards))
    assert [part.failures for part in staged] == [{}] * len(cuts)
    return sorted((e.manifest for part in staged for e in part.episodes), key=lambda manifest: manifest.episode)


def made_on_dask(settings: RolloutSettings, cuts: list[tuple[int, ...]], folder: Path) -> list[Manifest]:
    """What two processes of a Dask cluster make, one shard after the other on each."""
    distributed = pytest.importorskip("distributed", reason="needs the extra [dask]")
    folder.mkdir()
    here = "127.0.0.1:0"
    with (
        distributed.LocalCluster(
            2, threads_per_worker=1, host="127.0.0.1", dashboard_address=here, worker_dashboard_address=here
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        settings = client.submit(check_agent, settings).result()
        shards = [Shard(KEY, settings, episodes) for episodes in cuts]
        staged = client.gather(client.map(roll_out_shard, shards, [folder] * len(shards), pure=False))
    assert [part.failures for part in staged] == [{}] * len(cuts)
    return sorted((e.manifest for part in staged for e in part.episodes), key=lambda manifest: manifest.episode)


@pytest.mark.soak
@pytest.mark.parametrize(("env_id", "module"), ENVIRONMENTS)
def test_episodes_are_the_same_bytes_whoever_makes_them(env_id: str, module: str, tmp_path: Path) -> None:
    pytest.importorskip(module)
    options = RolloutOptions(max_steps_per_episode=60, fps=20.0, render=module not in ("mujoco", "highway_env"))
    settings = RolloutSettings(EnvironmentSpec(env_id), RandomAgent(), options)
    one = made(1, settings, [tuple(range(6))], tmp_path / "one")
    two = made(2, settings, [(0,), (1,), (2, 3), (4, 5)], tmp_path / "two")
    here = made(0, settings, [(5,), (4, 2), (3, 1, 0)], tmp_path / "here")
    on_dask = made_on_dask(settings, [(5, 0), (2,), (4, 1), (3,)], tmp_path / "dask")
    every_third = made(1, settings, [(0, 3)], tmp_path / "repaired")
    assert one == two == here == on_dask
    assert every_third == [one[0], one[3]]
    assert [manifest.reproducible for manifest in one] == [True] * 6


@pytest.mark.soak
@pytest.mark.parametrize(("env_id", "module"), ENVIRONMENTS)
def test_every_third_episode_deleted_and_repaired_is_the_same(
    env_id: str, module: str, tmp_path: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    pytest.importorskip(module)
    root = tmp_path / "data"
    generate(
        env=env_id,
        exp="exp",
        random=True,
        num_episodes=6,
        max_steps_per_episode=40,
        no_render=module in ("mujoco", "highway_env"),
        data_root=str(root),
        workers=2,
    )
    before = snapshot(root)
    delete(exp="exp", episodes="0,3", data_root=str(root))
    generate(exp="exp", random=True, num_episodes=6, data_root=str(root), workers=1)
    for file in root.glob("episodes/exp/random/[03].npz"):
        file.unlink()
    assert repair(data_root=str(root)).left == ()
    assert snapshot(root) == before
