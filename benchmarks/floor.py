"""The bare floor: a loop that steps, renders, pipes frames to the same encoder and writes the same kinds of files.

Nothing is checked, hashed, aligned, published or registered. What our own pipeline costs beyond this is overhead.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from rlhfblender_core.dataset.video import encoder_command
from rlhfblender_core.environments import EnvironmentSpec, make_environment


def run(env_id: str, model: str | None, episodes: range, max_steps: int, out: Path, *, kept: bool) -> int:
    """Steps taken for the episodes; ``kept``: all in one environment, as few should.

    Warm, it prints a line and waits for one: several begin at the same moment.
    """
    env = make_environment(EnvironmentSpec(env_id), render=True)
    predict = _predictor(env, model)
    _episode(env, predict, episodes[0], max_steps, out)
    print("ready", flush=True)
    sys.stdin.readline()
    steps = 0
    for number in episodes:
        if not kept:
            env.close()
            env = make_environment(EnvironmentSpec(env_id), render=True)
        steps += _episode(env, predict, number, max_steps, out)
    return steps


def _predictor(env, model: str | None):
    if model is None:
        space = env.action_space
        return lambda _: space.sample()
    import torch
    from stable_baselines3 import PPO

    torch.set_num_threads(1)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    policy = PPO.load(model, device="cpu", custom_objects=spaces)
    return lambda observation: policy.predict(observation)[0]


def _episode(env, predict, number: int, max_steps: int, out: Path) -> int:
    observation, _ = env.reset(seed=number)
    rows: list[tuple] = []
    encoder = None
    frame = None
    for _ in range(max_steps):
        frame = env.render()
        if encoder is None:
            command = encoder_command(out / f"{number}.mp4", frame.shape[0], frame.shape[1], 30)
            encoder = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0)
        view = memoryview(np.ascontiguousarray(frame)).cast("B")
        while view:
            view = view[encoder.stdin.write(view) :]
        action = predict(observation)
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward))
        observation = following
        if terminated or truncated:
            break
    encoder.stdin.close()
    encoder.wait()
    observations, actions, rewards = (np.array(column) for column in zip(*rows, strict=True))
    np.savez_compressed(out / f"{number}.npz", obs=observations, actions=actions, rewards=rewards)
    np.save(out / f"{number}.npy", np.cumsum(rewards))
    Image.fromarray(frame).save(out / f"{number}.png")
    return len(rows)


if __name__ == "__main__":
    env_id, model, first, last, max_steps, out, *flags = sys.argv[1:]
    numbers = range(int(first), int(last))
    print(run(env_id, model or None, numbers, int(max_steps), Path(out), kept="kept" in flags))
