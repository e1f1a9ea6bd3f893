"""An environment's state, taken and put back as RLHF-Blender's server does it (its ``SaveResetEnvWrapper``).

Which family an environment belongs to is told from what it has, as the server tells it: the server puts back what is
taken here, in an environment of its own that it has reset from another seed.
"""

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np

_MINIGRID = ("grid", "carrying", "agent_pos", "agent_dir", "mission")
_LANDER = "LunarLander"
_LANDER_BODY = ("position", "angle", "linearVelocity", "angularVelocity")
#: What belongs to the environment that a state is put into: how it draws, and what it was made with.
_KEPT = frozenset({"spec", "metadata", "render_mode", "action_space", "observation_space", "screen", "clock", "isopen"})
_DRAWING = ("pygame", "glfw")
_ON_ITS_OWN = (int, float, str, type(None), np.ndarray, np.generic, np.random.Generator)


class StateTaker:
    """Takes the states of an environment, one after the other.

    Args:
        env: has been reset.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self._inner: Any = env.unwrapped
        self._take = _taker(env)
        self._copies: dict[str, tuple[bytes, Any]] = {}

    @property
    def is_known(self) -> bool:
        """Whether the server knows such a state by its kind; it is no mere copy of attributes."""
        return self._take is not None

    def take(self) -> Any:
        """The state, on its own: what the environment does later doesn't change it. Can be pickled.

        MuJoCo: ``{"qpos", "qvel", "qval"}``; ALE: its state with the random numbers to come; MiniGrid: ``{"grid",
        "carrying", "agent_pos", "agent_dir", "mission"}``; LunarLander: the dictionary of the server's own wrapper;
        what ``get_state()`` gives; else an object with the environment's attributes, which the server sets one by one.
        """
        return self._attributes() if self._take is None else self._take(self._inner)

    def _attributes(self) -> SimpleNamespace:
        """Its data. What hasn't changed since the last time is the same object: Taxi's table of moves has 250 kB."""
        data = {name: value for name, value in vars(self._inner).items() if _is_data(name, value)}
        # Objects may share others: they are copied together.
        linked = {name: value for name, value in data.items() if not isinstance(value, _ON_ITS_OWN)}
        taken = {name: self._copied(name, value) for name, value in data.items() if name not in linked}
        try:
            taken |= self._copied("", linked)
        except Exception:  # noqa: BLE001 (whatever somebody's object raises: simulators' handles, functions)
            taken |= self._copied("", {name: value for name, value in linked.items() if _is_copyable(value)})
        return SimpleNamespace(**taken)

    def _copied(self, name: str, value: Any) -> Any:
        content = pickle.dumps(value)
        if self._copies.get(name, (b"", None))[0] != content:
            self._copies[name] = content, pickle.loads(content)  # noqa: S301 (what was pickled just now)
        return self._copies[name][1]


def _is_data(name: str, value: object) -> bool:
    return name not in _KEPT and type(value).__module__.partition(".")[0] not in _DRAWING


def _is_copyable(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 (as above)
        return False
    return True


def _taker(env: gym.Env[Any, Any]) -> Callable[[Any], Any] | None:
    inner = env.unwrapped
    kinds: dict[Callable[[Any], Any], bool] = {
        _mujoco_state: _is_mujoco(inner),
        lambda env: env.clone_state(include_rng=True): _is_atari(inner),
        lambda env: copy.deepcopy({name: getattr(env, name) for name in _MINIGRID}): _is_minigrid(inner),
        _lander_state: _is_lander(env),
        lambda env: copy.deepcopy(env.get_state()): _has_own(inner),
    }
    return next((take for take, is_kind in kinds.items() if is_kind), None)


def put_back(env: gym.Env[Any, Any], state: Any) -> None:
    """Puts a state into an environment that has been reset."""
    inner: Any = env.unwrapped
    if _is_mujoco(inner):
        inner.set_state(state["qpos"], state["qvel"] if "qvel" in state else state["qval"])
    elif _is_atari(inner):
        inner.restore_state(state)
    elif _is_minigrid(inner):
        for name in _MINIGRID:
            setattr(inner, name, state[name])
    elif _is_lander(env):
        _put_lander(inner, state)
    elif _has_own(inner):
        inner.set_state(state)
    else:
        for name, value in vars(state).items():
            setattr(inner, name, value)


def hides_state(env: gym.Env[Any, Any]) -> bool:
    """Whether something is known to decide how it goes on that no state holds: the action that a sticky ALE repeats."""
    inner: Any = env.unwrapped
    return _is_atari(inner) and _has(inner, "ale") and inner.ale.getFloat("repeat_action_probability") > 0


def random_state(env: gym.Env[Any, Any]) -> bytes:
    """How far the random generator has got from which an environment draws; empty where it has none."""
    generator = getattr(env.unwrapped, "_np_random", None)
    return b"" if generator is None else pickle.dumps(generator.bit_generator.state)


def _has(value: object, *names: str) -> bool:
    return all(hasattr(value, name) for name in names)


def _is_mujoco(inner: object) -> bool:
    return _has(inner, "data", "set_state") and _has(inner.data, "qpos", "qvel")  # type: ignore[attr-defined]


def _is_atari(inner: object) -> bool:
    return _has(inner, "clone_state", "restore_state")


def _is_minigrid(inner: object) -> bool:
    return _has(inner, *_MINIGRID)


def _is_lander(env: gym.Env[Any, Any]) -> bool:
    name = env.spec.id if env.spec is not None else type(env).__name__
    return _LANDER in name and _has(env.unwrapped, "lander", "legs", "prev_shaping")


def _has_own(inner: object) -> bool:
    return _has(inner, "get_state", "set_state")


def _mujoco_state(inner: Any) -> dict[str, Any]:
    """Velocities by both names: the server took ``qval`` until it took ``qvel``."""
    velocities = inner.data.qvel.copy()
    return {"qpos": inner.data.qpos.copy(), "qvel": velocities, "qval": velocities}


def _lander_state(inner: Any) -> dict[str, Any]:
    lander = inner.lander
    wind = inner.enable_wind
    return {
        "lander": {
            "position": (lander.position.x, lander.position.y),
            "angle": lander.angle,
            "linearVelocity": (lander.linearVelocity.x, lander.linearVelocity.y),
            "angularVelocity": lander.angularVelocity,
        },
        "legs": [
            {"position": (leg.position.x, leg.position.y), "angle": leg.angle, "ground_contact": leg.ground_contact}
            for leg in inner.legs
        ],
        "wind_idx": inner.wind_idx if wind else None,
        "torque_idx": inner.torque_idx if wind else None,
        "prev_shaping": inner.prev_shaping,
    }


def _put_lander(inner: Any, state: dict[str, Any]) -> None:
    for name in _LANDER_BODY:
        setattr(inner.lander, name, state["lander"][name])
    for leg, saved in zip(inner.legs, state["legs"], strict=True):
        leg.position, leg.angle, leg.ground_contact = saved["position"], saved["angle"], saved["ground_contact"]
    if inner.enable_wind:
        inner.wind_idx, inner.torque_idx = state["wind_idx"], state["torque_idx"]
    inner.prev_shaping = state["prev_shaping"]
