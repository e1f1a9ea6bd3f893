"""Measures this project against a bare loop and an empty Prefect flow, and prints ratios. ``make bench``.

Every ratio has both its sides measured in the same run, on the same machine. Nothing fails on a time.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlhfblender_core.checkpoints.fetch import fetch_checkpoint
from rlhfblender_core.checkpoints.find import find_checkpoints
from rlhfblender_core.environments import EnvironmentSpec, describe_environment
from rlhfblender_core.layout import CheckpointKey
from rlhfblender_core.publish import publish_shard
from rlhfblender_core.rollout_settings import RolloutSettings, TrainedAgent
from rlhfblender_core.runs import open_run
from rlhfblender_core.shards import Shard, roll_out_shard
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.workers import Workers

HERE = Path(__file__).parent
GENERATE = HERE.parent / "flows" / "generate.py"
#: Environment, with a trained agent or not, steps per episode.
CASES = (("CartPole-v1", True, 500), ("ALE/Pong-v5", False, 500), ("Pendulum-v1", False, 200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=6, help="per process and case")
    parser.add_argument("--model", help="a PPO zip for CartPole-v1 (default: trains one, half a minute)")
    parser.add_argument("--skip-commands", action="store_true", help="only the steady state")
    arguments = parser.parse_args()
    print(f"# {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or train(Path(folder))
        for env_id, is_trained, max_steps in CASES:
            steady_state(env_id, model if is_trained else None, max_steps, arguments.episodes)
        if not arguments.skip_commands:
            commands(model, Path(folder))


def train(folder: Path) -> str:
    """A PPO agent that holds CartPole's pole for most of an episode."""
    from stable_baselines3 import PPO

    path = folder / "CartPole-v1.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=512, batch_size=128, seed=1, device="cpu").learn(40_000).save(path)
    return str(path)


def steady_state(env_id: str, model: str | None, max_steps: int, episodes: int) -> None:
    """Steps per second of both, alternating, with 1 and 2 processes."""
    for processes in (1, 2):
        floors, ours = [], []
        for _ in range(3):
            floors.append(floor_rate(env_id, model, max_steps, episodes, processes))
            ours.append(our_rate(env_id, model, max_steps, episodes, processes))
        floor, mine = statistics.median(floors), statistics.median(ours)
        rates = f"floor {floor:7.0f} steps/s · ours {mine:7.0f} · ratio {mine / floor:.2f}"
        print(f"{env_id:12} {processes} process(es): {rates}", flush=True)


def floor_rate(env_id: str, model: str | None, max_steps: int, episodes: int, processes: int) -> float:
    with tempfile.TemporaryDirectory() as out:
        commands = [
            [sys.executable, HERE / "floor.py", env_id, model or "", n * episodes, (n + 1) * episodes, max_steps, out]
            for n in range(processes)
        ]
        running = [subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) for command in commands]
        results = [process.communicate()[0].decode().split()[-2:] for process in running]
    return sum(int(steps) / float(seconds) for steps, seconds in results)


def our_rate(env_id: str, model: str | None, max_steps: int, episodes: int, processes: int) -> float:
    """Everything but Prefect: rolled out in workers, hashed, published with manifests."""
    description = describe_environment(EnvironmentSpec(env_id))
    agent = None
    if model is not None:
        file = find_checkpoints(model, env_id)[0]
        agent = TrainedAgent(file, fetch_checkpoint(file, Path(tempfile.gettempdir())))
    settings = RolloutSettings(
        EnvironmentSpec(env_id), agent, 0, deterministic=False, max_steps=max_steps, render=True, fps=description.fps
    )
    with tempfile.TemporaryDirectory() as out:
        root = DataRoot(out)
        key = CheckpointKey("bench", "x")
        with (
            open_run(root) as staging,
            Workers(processes, Path(out)) as workers,
            ThreadPoolExecutor(processes + 2) as threads,
        ):
            warm = [Shard(key, settings, (1000 + n,)) for n in range(processes)]
            list(threads.map(lambda shard: workers.run(roll_out_shard, shard, staging), warm))
            shards = [Shard(key, settings, (n,)) for n in range(processes * episodes)]

            def make(shard: Shard) -> int:
                staged = workers.run(roll_out_shard, shard, staging)
                publish_shard(root, staged)
                return sum(episode.manifest.episode_length for episode in staged.episodes)

            started = time.perf_counter()
            steps = sum(threads.map(make, shards))
            return steps / (time.perf_counter() - started)


def commands(model: str, folder: Path) -> None:
    """Whole commands from shell to prompt, with a server that is running."""
    with prefect_server(folder) as url:
        environment = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "home")}
        empty = median_seconds([sys.executable, HERE / "empty_flow.py"], environment)
        demo = median_seconds(lambda: generate(folder, "--env", "CartPole-v1", "--random"), environment)
        print(
            f"10 random CartPole episodes: {demo:.1f} s · empty one-task flow {empty:.1f} s · ratio {demo / empty:.2f}"
        )
        trained = ("--env", "CartPole-v1", "--model-path", model, "--deterministic")
        peaks = {}
        for episodes in (10, 100):
            started = time.perf_counter()
            peaks[episodes] = peak_memory(generate(folder, *trained, "--num-episodes", episodes), environment)
            seconds = time.perf_counter() - started
            peak = peaks[episodes] / 2**20
            print(f"{episodes} trained episodes: {seconds:.1f} s, peak {peak:,.0f} MiB of all processes")
        print(f"memory at 100 episodes / at 10: {peaks[100] / peaks[10]:.2f}")
        short = ("--env", "CartPole-v1", "--random", "--no-render", "--max-steps-per-episode", 20)
        seconds = median_seconds(lambda: generate(folder, *short, "--num-episodes", 2000), environment, times=1)
        print(f"2,000 episodes of 20 steps, --no-render: {seconds:.1f} s")


def generate(folder: Path, *arguments: object) -> list[object]:
    return [sys.executable, GENERATE, "--data-root", tempfile.mkdtemp(dir=folder), *arguments]


def median_seconds(command, environment: dict[str, str], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        arguments = [str(part) for part in (command() if callable(command) else command)]
        started = time.perf_counter()
        subprocess.run(arguments, env=environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def peak_memory(command: list[object], environment: dict[str, str]) -> int:
    """Highest sum of resident bytes over the command's processes, sampled five times a second."""
    arguments = [str(part) for part in command]
    process = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return peak


def resident_bytes(leader: int) -> int:
    """Of the leader and all its descendants."""
    parents, sizes = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        pid = int(stat.parent.name)
        parents[pid], sizes[pid] = int(fields[1]), int(fields[21]) * resource.getpagesize()
    family = {leader}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(sizes.get(pid, 0) for pid in family)


class prefect_server:  # noqa: N801 (used like a function)
    """A server of its own for the measurements."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> str:
        import socket
        import urllib.request

        import tasks.prefect_defaults  # noqa: F401 (sets what servers need)

        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
            env={**os.environ, "PREFECT_HOME": str(self._folder / "server")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"http://127.0.0.1:{port}/api"
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                return url
            except OSError:
                threading.Event().wait(0.2)
        raise SystemExit("Prefect's server did not start")

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        self._process.wait()


if __name__ == "__main__":
    main()
