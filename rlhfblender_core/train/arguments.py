"""From plain hyperparameters to what Stable-Baselines3's constructors take. Nothing of a file is evaluated.

RL Zoo writes ``policy_kwargs: "dict(net_arch=[64], activation_fn=nn.ReLU)"`` and evaluates it. Here such a text is
parsed, and the names in it are looked up in a table.
"""

import ast
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.wording import did_you_mean

#: What concerns the environment, the folder or the length of the training, and no algorithm.
NOT_THE_ALGORITHMS = frozenset({"n_envs", "n_timesteps", "normalize", "env_wrapper", "vec_env_wrapper", "frame_stack"})
#: Set by this project, or of no use here.
_OURS = frozenset({"self", "env", "seed", "verbose", "tensorboard_log", "monitor_wrapper", "_init_setup_model"})
_SCHEDULES = frozenset({"learning_rate", "clip_range", "clip_range_vf", "delta_std"})
_NOISES = ("noise_type", "noise_std")

#: Classes that a hyperparameter may name, as ``module:attribute``, by the names that RL Zoo gives them.
_CLASSES = {
    **{f"nn.{name}": f"torch.nn:{name}" for name in ("ReLU", "Tanh", "ELU", "GELU", "LeakyReLU", "SiLU", "Sigmoid")},
    **{f"th.optim.{name}": f"torch.optim:{name}" for name in ("Adam", "AdamW", "RMSprop", "SGD")},
    "RMSpropTFLike": "stable_baselines3.common.sb2_compat.rmsprop_tf_like:RMSpropTFLike",
    **{
        name: f"stable_baselines3.common.torch_layers:{name}"
        for name in ("CombinedExtractor", "FlattenExtractor", "NatureCNN")
    },
    "HerReplayBuffer": "stable_baselines3.her.her_replay_buffer:HerReplayBuffer",
    **{
        name: f"stable_baselines3.common.buffers:{name}"
        for name in ("DictReplayBuffer", "NStepReplayBuffer", "ReplayBuffer")
    },
}
_LONGER = {"torch.nn.": "nn.", "torch.optim.": "th.optim.", "optim.": "th.optim."}


def algorithm_class(algorithm: Algorithm) -> Any:
    """Stable-Baselines3's or sb3-contrib's class."""
    return getattr(importlib.import_module("sb3_contrib" if algorithm.is_contrib else "stable_baselines3"), algorithm)


def constructor_arguments(
    algorithm: Algorithm, values: Mapping[str, Any], observation_space: Any, action_space: Any
) -> dict[str, Any]:
    """The keyword arguments of the algorithm's constructor, its policy among them.

    Args:
        algorithm: to train with.
        values: hyperparameters by RL Zoo's names.
        observation_space: of the environment as the agent sees it, for the default policy.
        action_space: likewise, for the size of noise.

    Raises:
        InvalidParameterError: the algorithm has no such hyperparameter, or the value isn't understood.
    """
    parameters = inspect.signature(algorithm_class(algorithm).__init__).parameters
    known = sorted({*parameters, *NOT_THE_ALGORITHMS, *_NOISES} - _OURS)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise InvalidParameterError(f"{algorithm} has no hyperparameter {name!r}. {did_you_mean(name, known)}")
        if name in parameters:
            arguments[name] = _argument(name, value, parameters[name].default)
    if values.get("noise_type") is not None:
        arguments["action_noise"] = _noise(str(values["noise_type"]), values.get("noise_std"), action_space)
    arguments.setdefault("policy", _default_policy(algorithm, observation_space))
    return arguments


def _argument(name: str, value: Any, default: Any) -> Any:
    if name in _SCHEDULES and isinstance(value, str):
        return _schedule(name, value)
    if isinstance(value, str) and ("(" in value or value in _CLASSES or name == "replay_buffer_class"):
        value = _parsed(name, value)
    if isinstance(value, Mapping):
        return {key: _argument(key, part, None) if isinstance(part, str) else part for key, part in value.items()}
    if name == "train_freq" and isinstance(value, list):
        return tuple(value)
    whole = isinstance(default, int) and not isinstance(default, bool)
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def _schedule(name: str, text: str) -> Any:
    from stable_baselines3.common.utils import LinearSchedule

    kind, _, start = text.partition("_")
    try:
        if kind == "lin":
            return LinearSchedule(float(start), 0.0, 1.0)
    except ValueError:
        pass
    raise InvalidParameterError(f"{name} {text!r:.60} is neither a number nor a linear schedule such as lin_0.001.")


def _noise(kind: str, std: Any, action_space: Any) -> Any:
    import numpy as np
    from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise

    kinds = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}
    if kind not in kinds or not isinstance(std, (int, float)) or isinstance(std, bool):
        raise InvalidParameterError(f"noise_type is normal or ornstein-uhlenbeck, with a noise_std, not {kind!r:.40}.")
    size = action_space.shape[0]
    return kinds[kind](mean=np.zeros(size), sigma=float(std) * np.ones(size))


def _default_policy(algorithm: Algorithm, observation_space: Any) -> str:
    from gymnasium import spaces
    from stable_baselines3.common.preprocessing import is_image_space

    if isinstance(observation_space, spaces.Dict):
        kind = "MultiInput"
    else:
        kind = "Cnn" if is_image_space(observation_space) else "Mlp"
    return f"{kind}LstmPolicy" if algorithm is Algorithm.RECURRENT_PPO else f"{kind}Policy"


def _parsed(name: str, text: str) -> Any:
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:  # TypeError: a list as a key
        raise InvalidParameterError(
            f"{name} {text!r:.80} isn't understood ({error!s:.80}). Expected plain values such as "
            "dict(net_arch=[64, 64], activation_fn=nn.ReLU); nothing is evaluated."
        ) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, (ast.Name, ast.Attribute)):
        return _class(ast.unparse(node))
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
            raise ValueError(f"{ast.unparse(node.func):.40} is not called")
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("** is not allowed")
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        parts = [_value(part) for part in node.elts]
        return tuple(parts) if isinstance(node, ast.Tuple) else parts
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(key): _value(part) for key, part in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)


def _class(name: str) -> Any:
    for longer, short in _LONGER.items():
        name = name.replace(longer, short, 1) if name.startswith(longer) else name
    target = _CLASSES.get(name) or _CLASSES.get(name.rpartition(".")[2])
    if target is None:
        raise ValueError(f"{name:.60} isn't known; those that are: {', '.join(sorted(_CLASSES))}")
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
