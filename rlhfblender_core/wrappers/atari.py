"""Atari preprocessing as Stable-Baselines3 does it in training, but with whole games as episodes.

Stable-Baselines3's ``AtariWrapper`` ends an episode with each life. What follows, a no-op and pressing FIRE, belongs to
its *reset*, so an agent never learned to press FIRE after losing a life: simply switching the life-loss ending off
leaves Breakout's agents waiting for ever. Here the same inputs are made within the episode.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym

Env = gym.Env[Any, Any]
_NOOP, _FIRE, _SECOND = 0, 1, 2


class ContinueAfterLifeLoss(gym.Wrapper[Any, Any, Any, Any]):
    """After a life is lost, makes the inputs that would have started the next life's episode in training.

    Attributes:
        begins_life: whether the last observation is the first of such an episode: an agent remembered nothing then.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._lives = 0
        self.begins_life = False
        meanings: list[str] = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]  # ale_py's
        self._inputs = (_NOOP, _FIRE, _SECOND) if "FIRE" in meanings else (_NOOP,)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """The game's first observation."""
        observation, info = self.env.reset(**kwargs)
        self._lives = self._current_lives()
        self.begins_life = False
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step, and the inputs behind a lost life; rewards of all of it are summed."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        total = float(reward)
        lives = self._current_lives()
        self.begins_life = 0 < lives < self._lives
        if self.begins_life:
            for forced in self._inputs:
                if terminated or truncated:
                    break
                observation, reward, terminated, truncated, info = self.env.step(forced)
                total += float(reward)
        self._lives = self._current_lives()
        return observation, total, terminated, truncated, info

    def _current_lives(self) -> int:
        return int(self.env.unwrapped.ale.lives())  # type: ignore[attr-defined]  # ale_py's


def life_source(env: Env) -> Callable[[], bool] | None:
    """What says whether the last observation begins a life; None where lives mean nothing to the agent.

    Args:
        env: what the agent acts in; another environment in the same wrappers may stand on it later.
    """
    if _continuing(env) is None:
        return None

    def begins_life() -> bool:
        continuing = _continuing(env)
        return continuing is not None and continuing.begins_life

    return begins_life


def _continuing(env: Env) -> ContinueAfterLifeLoss | None:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, ContinueAfterLifeLoss):
            return env
        env = env.env
    return None


def atari_wrapper(  # noqa: PLR0913, PLR0917 - the parameters of Stable-Baselines3's class
    env: Env,
    noop_max: int = 30,
    frame_skip: int = 4,
    screen_size: int = 84,
    terminal_on_life_loss: bool = True,  # noqa: FBT001, FBT002
    clip_reward: bool = True,  # noqa: ARG001, FBT001, FBT002
    action_repeat_probability: float = 0.0,
) -> Env:
    """What ``stable_baselines3.common.atari_wrappers.AtariWrapper`` shows an agent, for whole games.

    Args:
        env: the game, without frame skipping of its own (``…NoFrameskip-v4``).
        noop_max: largest number of no-ops at the start.
        frame_skip: times an action is repeated; the last two frames are merged.
        screen_size: side of the square that frames are resized to.
        terminal_on_life_loss: whether the agent's training had it; its episode never ends with a life here.
        clip_reward: ignored, recorded rewards are the game's own.
        action_repeat_probability: of repeating the last action instead.
    """
    from stable_baselines3.common import atari_wrappers

    if action_repeat_probability > 0:
        env = atari_wrappers.StickyActionEnv(env, action_repeat_probability)
    if noop_max > 0:
        env = atari_wrappers.NoopResetEnv(env, noop_max=noop_max)
    if frame_skip > 1:
        env = atari_wrappers.MaxAndSkipEnv(env, skip=frame_skip)
    meanings: list[str] = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]  # ale_py's
    if terminal_on_life_loss and hasattr(env.unwrapped, "ale"):
        env = ContinueAfterLifeLoss(env)
    if "FIRE" in meanings:
        env = atari_wrappers.FireResetEnv(env)
    return atari_wrappers.WarpFrame(env, width=screen_size, height=screen_size)
