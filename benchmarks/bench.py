"""Measures this project against a bare loop and an empty Prefect flow, and prints ratios. ``make bench``.

Every ratio has both its sides measured in the same run, on the same machine. Nothing fails on a time.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

from benchmarks.growth import measured
from rlhfblender_core import open_data_set
from rlhfblender_core.checkpoints.fetch import fetch_checkpoint
from rlhfblender_core.checkpoints.find import find_checkpoints
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.publish import publish_shard
from rlhfblender_core.environments import EnvironmentSpec, describe_environment
from rlhfblender_core.rollout.agents import CheckpointAgent, RandomAgent, RolloutAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, roll_out_shard
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.workers.pool import Workers

HERE = Path(__file__).parent
GENERATE = HERE.parent / "flows" / "generate.py"
KEY = CheckpointKey("bench", "x")
#: Episodes of a shard: a run's have about ten seconds of work.
SHARD = 4
#: Environment, with a trained agent or not, steps per episode.
CASES = (("CartPole-v1", True, 500), ("ALE/Pong-v5", False, 500), ("Pendulum-v1", False, 200))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=8, help=f"per process, case and round: some {SHARD}s")
    parser.add_argument("--rounds", type=int, default=3, help="of floor and ours in turns; medians count")
    parser.add_argument("--model", help="a PPO zip for CartPole-v1 (default: trains one, half a minute)")
    parser.add_argument("--only", choices=["steady", "commands"], help="only the steady state, or only whole commands")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else this project is compiled at every start, and no other
    print(f"# {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or train(Path(folder))
        if arguments.only != "commands":
            for env_id, is_trained, max_steps in CASES:
                steady_state(env_id, model if is_trained else None, max_steps, arguments)
        if arguments.only != "steady":
            commands(model, Path(folder))


def train(folder: Path) -> str:
    """A PPO agent that holds CartPole's pole for most of an episode."""
    from stable_baselines3 import PPO

    path = folder / "CartPole-v1.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=512, batch_size=128, seed=1, device="cpu").learn(40_000).save(path)
    return str(path)


def steady_state(env_id: str, model: str | None, max_steps: int, arguments: argparse.Namespace) -> None:
    """Steps per second of both, in turns, with 1 and 2 processes."""
    ours_by_processes = {}
    for processes in (1, 2):
        floors, kept_floors, ours = [], [], []
        for _ in range(arguments.rounds):
            floors.append(floor_rate(env_id, model, max_steps, arguments.episodes, processes))
            kept_floors.append(floor_rate(env_id, model, max_steps, arguments.episodes, processes, "kept"))
            rate, frame_bytes = our_rate(env_id, model, max_steps, arguments.episodes, processes)
            ours.append(rate)
        ours_by_processes[processes] = statistics.median(ours)
        ratio = statistics.median(mine / floor for mine, floor in zip(ours, floors, strict=True))
        kept = statistics.median(mine / floor for mine, floor in zip(ours, kept_floors, strict=True))
        rates = f"floor {statistics.median(floors):7.0f} steps/s · ours {statistics.median(ours):7.0f}"
        print(
            f"{env_id:12} {processes} process(es): {rates} · ratio {ratio:.2f} "
            f"(to a floor that keeps its environment {kept:.2f})",
            flush=True,
        )
    gain = ours_by_processes[2] / ours_by_processes[1]
    print(f"{env_id:12} 1 -> 2 workers: ratio {gain:.2f} · {frame_bytes:,.0f} bytes per frame", flush=True)


def floor_rate(env_id: str, model: str | None, max_steps: int, episodes: int, processes: int, *flags: str) -> float:
    with tempfile.TemporaryDirectory() as out:
        floor = [sys.executable, "-W", "ignore", HERE / "floor.py"]
        commands = [
            [*floor, env_id, model or "", n * episodes, (n + 1) * episodes, max_steps, out, *flags]
            for n in range(processes)
        ]
        running = [
            subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for command in commands
        ]
        for process in running:
            process.stdout.readline()
        started = time.perf_counter()
        for process in running:
            process.stdin.write("begin\n")
            process.stdin.flush()
        steps = sum(int(process.stdout.readline()) for process in running)
        seconds = time.perf_counter() - started
        for process in running:
            process.communicate()
    return steps / seconds


def our_rate(env_id: str, model: str | None, max_steps: int, episodes: int, processes: int) -> tuple[float, float]:
    """Steps per second of everything but Prefect (rolled out in workers, hashed, published), and bytes per frame."""
    settings = settings_of(env_id, model, max_steps, render=True)
    shards = [
        Shard(KEY, settings, tuple(range(first, first + SHARD))) for first in range(0, processes * episodes, SHARD)
    ]
    seconds, published = roll_out(shards, processes)
    frame_bytes = sum(manifest.artifacts[ArtifactKind.RENDERS].size for manifest in published)
    steps = sum(manifest.episode_length for manifest in published)
    return steps / seconds, frame_bytes / steps


def settings_of(env_id: str, model: str | None, max_steps: int, *, render: bool) -> RolloutSettings:
    spec = EnvironmentSpec(env_id)
    agent: RolloutAgent = RandomAgent()
    if model is not None:
        file = find_checkpoints(model, env_id)[0]
        agent = CheckpointAgent(file, fetch_checkpoint(file, Path(tempfile.gettempdir())))
    fps = describe_environment(spec).fps
    return RolloutSettings(spec, agent, RolloutOptions(max_steps_per_episode=max_steps, render=render, fps=fps))


def roll_out(shards: list[Shard], processes: int) -> tuple[float, list[Manifest]]:
    """Seconds that the shards take in workers that are warm, without Prefect; and the manifests."""
    with tempfile.TemporaryDirectory() as out:
        root = DataRoot(out)
        with (
            open_run(root) as run,
            Workers(processes, Path(out)) as workers,
            ThreadPoolExecutor(processes + 2) as threads,
        ):
            warm = [Shard(KEY, shards[0].settings, (10**6 + n,)) for n in range(processes)]
            list(threads.map(lambda shard: workers.run(roll_out_shard, shard, run.folder), warm))

            def make(shard: Shard) -> list[Manifest]:
                staged = workers.run(roll_out_shard, shard, run.folder)
                publish_shard(root, staged)
                return [episode.manifest for episode in staged.episodes]

            started = time.perf_counter()
            made = [manifest for manifests in threads.map(make, shards) for manifest in manifests]
            return time.perf_counter() - started, made


def commands(model: str, folder: Path) -> None:
    """Whole commands from shell to prompt."""
    trained = ("--env", "CartPole-v1", "--model-path", model, "--deterministic")
    own = {**os.environ, "PREFECT_HOME": str(folder / "alone")}
    median_seconds(lambda: generate(folder, "--env", "CartPole-v1", "--random"), own, times=1)  # makes its database
    seconds = median_seconds(lambda: generate(folder, *trained), own)
    print(f"10 trained episodes, no server running: {seconds:.1f} s from shell to prompt", flush=True)
    with prefect_server(folder) as url:
        environment = {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "home")}
        start_up(folder, environment)
        memory(folder, environment, trained)
    orchestration(folder, own)


def start_up(folder: Path, environment: dict[str, str]) -> None:
    empty = median_seconds([sys.executable, HERE / "empty_flow.py"], environment, times=5)
    demo = median_seconds(lambda: generate(folder, "--env", "CartPole-v1", "--random"), environment, times=5)
    what = "10 random CartPole episodes, a server running"
    print(f"{what}: {demo:.1f} s · empty one-task flow {empty:.1f} s · ratio {demo / empty:.2f}", flush=True)


def memory(folder: Path, environment: dict[str, str], trained: tuple[str, ...]) -> None:
    peaks = {}
    for episodes in (10, 100):
        root = tempfile.mkdtemp(dir=folder)
        started = time.perf_counter()
        peaks[episodes] = peak_memory(
            [sys.executable, GENERATE, *trained, "--num-episodes", episodes, "--data-root", root], environment
        )
        seconds = time.perf_counter() - started
        peak = peaks[episodes] / 2**20
        rate = f"{open_data_set(root).total_steps / seconds:.0f} steps/s with start-up"
        print(f"{episodes} trained episodes: {seconds:.1f} s, {rate}, peak {peak:,.0f} MiB of all", flush=True)
    print(f"memory at 100 episodes / at 10: ratio {peaks[100] / peaks[10]:.2f}", flush=True)


def orchestration(folder: Path, environment: dict[str, str]) -> None:
    """What Prefect adds to a job of many short episodes: the library does the same without it, registry and all.

    In processor time, with the temporary server's.
    """
    os.environ.update(environment)
    beyond_start = {}
    for commands in (True, False):
        took = {}
        for episodes in (2, 2000):
            asked = {"env": "CartPole-v1", "random": True, "no_render": True, "max_steps_per_episode": 20}
            asked |= {"num_episodes": episodes, "data_root": tempfile.mkdtemp(dir=folder)}
            took[episodes] = measured("generate", asked, commands=commands)["cpu_s"]
        beyond_start[commands] = took[2000] - took[2]
    print(f"2,000 episodes of 20 steps, --no-render: {beyond_start[True]:.1f} s of processor time", flush=True)
    print(f"Prefect's share of that: {1 - beyond_start[False] / beyond_start[True]:.0%}", flush=True)


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
    """Of the leader and all its descendants; what several share counts once (PSS)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    family = {leader}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(map(proportional_bytes, family))


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


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
