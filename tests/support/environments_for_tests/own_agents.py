"""Agents as users bring them: of PyTorch, plain functions, objects with predict, with and without memory."""

import random
import sys

import numpy as np
import torch
from torch import nn

from rlhfblender_core.policies.protocol import PolicyStep


class CleanRLAgent(nn.Module):
    """Actor and critic as in CleanRL's ppo.py."""

    def __init__(self, observation_space, action_space):
        super().__init__()
        inputs = int(np.prod(observation_space.shape))
        self.critic = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, 1))
        self.actor = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, int(action_space.n)))


class Acting:
    def __init__(self, agent):
        self.agent = agent

    def reset(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def act(self, observation):
        with torch.no_grad():
            x = torch.as_tensor(observation, dtype=torch.float32).reshape(1, -1)
            probs = torch.softmax(self.agent.actor(x), 1)[0]
            action = torch.multinomial(probs, 1, generator=self.generator)
            value = self.agent.critic(x)
            entropy = float(-(probs * probs.log()).sum())
        return PolicyStep(action, probs=probs.numpy(), entropy=entropy, value=float(value), uncertainty=entropy)


def clean_rl(observation_space, action_space, path):
    agent = CleanRLAgent(observation_space, action_space)
    agent.load_state_dict(torch.load(path, weights_only=True))
    return Acting(agent)


def leaning(observation):
    """A function of the observation."""
    return int(observation[2] > 0)


def forgetful():
    """Draws from what is drawn from everywhere."""
    return lambda observation: random.randrange(2) ^ int(np.random.rand() > 0.5) ^ int(torch.rand(()) > 0.5)


def remembering(start=0):
    """Counts in a closure, which nothing resets."""
    count = [start]

    def act(observation):
        count[0] += 1
        return count[0] % 2

    return act


class Predicting:
    """Stable-Baselines3's predict, with a hidden state."""

    version = "3"

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        count = 0 if state is None or episode_start[0] else state
        return np.array((count // 2 + (0 if deterministic else 1)) % 2), count + 1


def left_or_right():
    return lambda observation: int(observation[2] / 0.2 > 0)


def left_or_right_in_place():
    def act(observation):
        observation /= 0.2  # normalises what it was given
        return int(observation[2] > 0)

    return act


def wrong_action():
    return lambda observation: 7


def leaving():
    sys.exit(3)


def leaving_as_it_acts():
    return lambda observation: sys.exit(3)


def no_agent():
    return "an agent"


not_callable = 3
