"""Settings of the video encoder: processor time, bytes and picture, per frame. ``python benchmarks/encoder.py``.

Processor time is that of ffmpeg alone, fed from memory: it doesn't depend on what else the machine does. The picture's
error is of the RGB frames as they come back (PSNR, the worst frame's and the mean), which is what a person sees.
"""

import argparse
import math
import resource
import subprocess
import tempfile
from pathlib import Path

import gymnasium as gym
import numpy as np

from rlhfblender_core.dataset.video import encoder_command, even, read_frames
from rlhfblender_core.environments import EnvironmentSpec, make_environment

ENVIRONMENTS = ("CartPole-v1", "Pendulum-v1", "LunarLander-v3", "ALE/Pong-v5", "MiniGrid-Empty-8x8-v0")


def frames_of(env_id: str, count: int) -> list[np.ndarray]:
    env: gym.Env = make_environment(EnvironmentSpec(env_id), render=True)
    env.action_space.seed(0)
    env.reset(seed=0)
    frames = []
    while len(frames) < count:
        frames.append(np.ascontiguousarray(env.render()))
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    env.close()
    return frames


def swapped(command: list[str], changes: dict[str, str | None]) -> list[str]:
    """The command with other values; None takes an option away, an option that isn't there is added."""
    command = list(command)
    for option, value in changes.items():
        if option in command:
            place = command.index(option)
            command[place : place + 2] = [] if value is None else [option, value]
        elif value is not None:
            command[-1:-1] = [option, value]
    return command


SETTINGS: dict[str, dict[str, str | None]] = {
    "bicubic, CRF 20 (before)": {"-sws_flags": None, "-qp": None, "-crf": "20"},
    "as it is": {},
    "bicubic, QP 20": {"-sws_flags": None, "-qp": "20"},
    "bilinear, QP 20": {"-sws_flags": "bilinear", "-qp": "20"},
    "neighbor, QP 20": {"-sws_flags": "neighbor", "-qp": "20"},
    "area, QP 18": {"-sws_flags": "area", "-qp": "18"},
}


def measure(frames: list[np.ndarray], command: list[str], target: Path) -> tuple[float, int, float, float]:
    data = b"".join(frame.tobytes() for frame in frames)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, input=data, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    height, width = frames[0].shape[:2]
    errors = []
    for ours, theirs in zip(frames, read_frames(target, even(height), even(width)), strict=True):
        error = np.mean((ours.astype(float) - theirs[:height, :width].astype(float)) ** 2)
        errors.append(math.inf if error == 0 else 10 * math.log10(255**2 / error))
    return 1000 * seconds / len(frames), target.stat().st_size // len(frames), min(errors), float(np.mean(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3, help="in turns; the fastest counts")
    arguments = parser.parse_args()
    columns = ["environment", "settings", "ms a frame", "to before", "bytes a frame", "worst dB", "mean dB"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "video.mp4"
        for env_id in ENVIRONMENTS:
            frames = frames_of(env_id, arguments.frames)
            height, width = frames[0].shape[:2]
            commands = {name: swapped(encoder_command(target, height, width, 30.0), s) for name, s in SETTINGS.items()}
            best = dict.fromkeys(commands, (math.inf, 0, 0.0, 0.0))
            for _ in range(arguments.rounds):
                best = {name: min(best[name], measure(frames, command, target)) for name, command in commands.items()}
            first = next(iter(best.values()))[0]
            for name, (ms, size, worst, mean) in best.items():
                print(f"| {env_id} | {name} | {ms:.2f} | {ms / first:.2f} | {size} | {worst:.1f} | {mean:.1f} |")


if __name__ == "__main__":
    main()
