"""Made the models in this folder, with the Stable-Baselines3 of their time and what it does with them.

Run as ``python make.py OUTPUT`` with stable-baselines3 1.0 or 1.7.0 and gym 0.26 unpacked on PYTHONPATH: today's pip no
longer installs them together. Only what inference needs is kept of each zip.
"""

import io
import json
import sys
import zipfile
from pathlib import Path

import gym
import numpy as np
import stable_baselines3
import torch
from gym import spaces

BOX = spaces.Box(-1, 1, (3,), np.float32)
ACTIONS = spaces.Box(-2, 2, (2,), np.float32)
GOAL = spaces.Dict({"observation": spaces.Box(-1, 1, (4,), np.float32), "achieved_goal": BOX, "desired_goal": BOX})
PPO = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}
SAC = {"learning_starts": 30, "buffer_size": 100, "batch_size": 8, "seed": 0, "device": "cpu"}
#: By version: name -> algorithm, actions, arguments.
MODELS = {
    "1.7.0": {
        "shared": ("PPO", spaces.Discrete(3), {**PPO, "policy_kwargs": {"net_arch": [6, 5]}}),
        "split": ("PPO", ACTIONS, {**PPO, "policy_kwargs": {"net_arch": [6, {"pi": [4], "vf": [5, 3]}]}}),
        "no-actor": (
            "A2C",
            spaces.Discrete(3),
            {"seed": 0, "policy_kwargs": {"net_arch": [6, 5, {"vf": [4]}], "activation_fn": torch.nn.ReLU}},
        ),
        "shared-sde": ("PPO", ACTIONS, {**PPO, "use_sde": True, "policy_kwargs": {"net_arch": [6, {"pi": [4]}]}}),
        "own": ("PPO", ACTIONS, {**PPO, "policy_kwargs": {"net_arch": [{"pi": [4], "vf": [5]}]}}),
    },
    "1.0": {
        "sde": ("PPO", ACTIONS, {**PPO, "use_sde": True, "policy_kwargs": {"net_arch": [6], "sde_net_arch": [5, 4]}}),
        "sde-observed": (
            "PPO",
            ACTIONS,
            {**PPO, "use_sde": True, "policy_kwargs": {"net_arch": [6], "sde_net_arch": []}},
        ),
        "sde-narrow": (
            "A2C",
            ACTIONS,
            {"seed": 0, "use_sde": True, "policy_kwargs": {"net_arch": [6], "sde_net_arch": [4], "full_std": False}},
        ),
        "sde-unused": ("PPO", ACTIONS, {**PPO, "policy_kwargs": {"net_arch": [6], "sde_net_arch": [4]}}),
        "sac-sde": ("SAC", ACTIONS, {**SAC, "use_sde": True, "policy_kwargs": {"net_arch": [6], "sde_net_arch": [5]}}),
        "sac-sde-observed": (
            "SAC",
            ACTIONS,
            {**SAC, "use_sde": True, "policy_kwargs": {"net_arch": [6], "sde_net_arch": []}},
        ),
        "her": ("SAC", ACTIONS, {**SAC, "policy_kwargs": {"net_arch": [6, 6]}}),
        "her-normalised": ("SAC", ACTIONS, {**SAC, "policy_kwargs": {"net_arch": [6, 6]}}),
    },
}
#: What inference needs; the rest of ``data`` is null here, for code in it names the machine it was made on.
KEPT = ("observation_space", "action_space", "policy_class", "policy_kwargs", "use_sde")


class Env(gym.Env):
    """Observations by chance, for five steps."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space, self.count = observation_space, action_space, 0

    def reset(self):
        self.count = 0
        return self.observation_space.sample()

    def step(self, action):
        self.count += 1
        return self.observation_space.sample(), float(np.sum(action)), self.count == 5, {}

    def seed(self, seed=None):
        return [seed]

    def compute_reward(self, achieved, desired, info):
        return -np.ones(len(achieved), np.float32) if np.ndim(achieved) > 1 else -1.0


def strip(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        data = json.loads(old.read("data"))
        kept = {key: data[key] if key in KEPT else None for key in data}
        for entry in kept.values():
            if isinstance(entry, dict) and ":serialized:" in entry:  # beside the pickle stands a text for people
                for key in [key for key in entry if key != ":serialized:"]:
                    del entry[key]
        new.writestr("data", json.dumps(kept))
        for name in ("policy.pth", "_stable_baselines3_version"):
            new.writestr(name, old.read(name))


def make(name, algorithm, acted, kwargs, out):
    wrapped = None
    if name.startswith("her"):
        from stable_baselines3 import HER
        from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
        from stable_baselines3.common.vec_env.obs_dict_wrapper import ObsDictWrapper

        env = DummyVecEnv([lambda: Env(GOAL, acted)])
        if name == "her-normalised":
            wrapped = env = VecNormalize(env)
        model = HER(
            "MlpPolicy",
            env,
            getattr(stable_baselines3, algorithm),
            online_sampling=True,
            max_episode_length=5,
            **kwargs,
        )
    else:
        model = getattr(stable_baselines3, algorithm)("MlpPolicy", Env(BOX, acted), **kwargs)
    model.learn(60)
    buffer = io.BytesIO()
    model.save(buffer)
    strip(buffer, out / f"{name}.zip")
    if wrapped is not None:
        wrapped.training = False
        wrapped.save(str(out / f"{name}.pkl"))
    space = GOAL if name.startswith("her") else BOX
    space.seed(1)
    seen, chosen, sampled = [], [], []
    for number in range(20):
        observation = space.sample()
        seen.append(np.concatenate([observation[key] for key in sorted(observation)]) if space is GOAL else observation)
        if space is GOAL:
            batch = {key: value[None] for key, value in observation.items()}
            observation = ObsDictWrapper.convert_dict(wrapped.normalize_obs(batch) if wrapped else batch)[0]
        chosen.append(model.predict(observation, deterministic=True)[0])
        torch.manual_seed(number)
        if kwargs.get("use_sde"):
            (model.policy.actor if algorithm == "SAC" else model.policy).reset_noise()
        sampled.append(model.predict(observation, deterministic=False)[0])
    np.savez_compressed(out / f"{name}.npz", observations=seen, chosen=chosen, sampled=sampled)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (algorithm, acted, kwargs) in MODELS[stable_baselines3.__version__].items():
        make(name, algorithm, acted, kwargs, Path(sys.argv[1]))
