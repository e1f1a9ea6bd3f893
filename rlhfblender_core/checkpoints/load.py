"""Builds the policy of a checkpoint: the one place that uses torch and Stable-Baselines3 for it.

What is in the file was read and checked before, by :mod:`.contents`; weights are loaded by torch's ``weights_only``.
"""

import importlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium import spaces

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.checkpoints.contents import ClassName, ModelContents, read_contents, serialized
from rlhfblender_core.checkpoints.fetch import CheckpointRef, sha256_of
from rlhfblender_core.checkpoints.match import check_policy_spaces, other_bounds, policy_observations
from rlhfblender_core.errors import CheckpointNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.policies.observations import ObservationPipeline
from rlhfblender_core.untrusted.model_zip import refusal
from rlhfblender_core.untrusted.spaces import SpaceInfo, space_info

if TYPE_CHECKING:  # it imports torch
    from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy

#: Extractors of actor and critic were one until Stable-Baselines3 1.7, and are still when they are shared.
_MAY_BE_MISSING = ("pi_features_extractor.", "vf_features_extractor.")


def load_agent(
    ref: CheckpointRef,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    deterministic: bool,
    trust: bool = False,
    action_masks: Any = None,
) -> "CheckpointPolicy":
    """The policy of a checkpoint, ready for episodes in an environment with these spaces.

    Args:
        ref: from :func:`~rlhfblender_core.checkpoints.fetch.fetch_checkpoint`.
        observation_space: of the environment with the agent's wrappers around it.
        action_space: likewise.
        deterministic: take the most likely action instead of sampling.
        trust: load a custom policy class by running what the file holds.
        action_masks: callable that gives the mask of allowed actions, for MaskablePPO; None for no mask.

    Raises:
        CheckpointNotUsableError: the file changed since it was fetched, or its policy can't be built.
        SpacesDifferError: it was trained on other spaces.
    """
    path = Path(ref.path)
    if not path.is_file() or sha256_of(path) != ref.sha256:
        raise refusal(path, "is missing or was changed while it was in use; start again")
    contents = read_contents(path, algorithm=ref.algorithm, trust=trust)
    contents = replace(contents, observation_space=_trained_observations(contents, trust=trust))
    pipeline = policy_observations(ref, contents, observation_space, trust=trust)
    check_policy_spaces(contents, pipeline.space, action_space)
    try:
        network = _network(contents, pipeline.space, action_space, trust=trust)
    except RLHFBlenderError:
        raise
    except ImportError as error:
        raise _missing_package(contents, error) from error
    except Exception as error:  # a constructor may raise anything about arguments that a file chose
        raise refusal(path, f"can't be built as {contents.algorithm} ({one_line(error)[:200]})") from error
    return _policy(contents, network, pipeline, action_space, deterministic=deterministic, action_masks=action_masks)


def _trained_observations(contents: ModelContents, *, trust: bool) -> SpaceInfo | None:
    """The observation space that the policy was trained on, None where nothing says it."""
    if contents.observation_space is not None or not trust:
        return contents.observation_space
    try:
        space = _trusted(contents, "observation_space")
    except Exception as error:  # its own code may raise anything
        problem = f"has an observation_space that can't be loaded ({one_line(error)[:160]})"
        raise refusal(contents.archive.path, problem) from error
    return space_info(space) if isinstance(space, spaces.Space) else None


def _network(
    contents: ModelContents, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], *, trust: bool
) -> Any:
    """Stable-Baselines3's policy with its weights, in evaluation mode."""
    from rlhfblender_core.policies.old_networks import add_gsde_features

    policy_class = _policy_class(contents, trust=trust)
    kwargs = _constructor_kwargs(contents, policy_class, trust=trust)
    if contents.algorithm is not Algorithm.ARS:
        kwargs["lr_schedule"] = _no_learning
    weights = _weights(contents, trust=trust)
    policy_class, kwargs, noise_features = _as_built_then(policy_class, kwargs, weights)
    network = policy_class(observation_space, action_space, **kwargs)
    if noise_features is not None:
        add_gsde_features(network, noise_features)
    _load_weights(contents, network, weights)
    network.set_training_mode(False)
    return network


def _as_built_then(
    policy_class: Any, kwargs: dict[str, Any], weights: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], Sequence[int] | None]:
    """Class and arguments that build what older versions did from these, and ``sde_net_arch`` where there was one."""
    from rlhfblender_core.policies import old_networks

    kwargs = dict(kwargs)
    accepted = _parameters(policy_class)
    noise_features = kwargs.pop("sde_net_arch", None) if "sde_net_arch" not in accepted else None
    if old_networks.has_shared_layers(weights):
        policy_class = old_networks.with_shared_layers(policy_class)
        # The list as it is: Stable-Baselines3's own constructor takes the first entry for all, if it is a dict.
        kwargs["net_arch"] = list(kwargs.get("net_arch") or [])
    elif "net_arch" in accepted and old_networks.lacks_hidden_layers(weights):
        kwargs["net_arch"] = kwargs.get("net_arch") or []
    return policy_class, kwargs, noise_features


def _no_learning(_: float) -> float:
    return 0.0


class _NoOptimizer:
    """The optimiser that each policy makes and that is never used here: torch's load its compiler, 800 modules."""

    def __init__(self, *_: object, **__: object) -> None: ...


def _policy_class(contents: ModelContents, *, trust: bool) -> Any:
    if contents.policy_class is None:
        return _trusted(contents, "policy_class") if trust else None
    module, name = contents.policy_class
    # A pair from our own table, never what a file names beyond it.
    return getattr(importlib.import_module(module), name)


def _constructor_kwargs(contents: ModelContents, policy_class: Any, *, trust: bool) -> dict[str, Any]:
    if contents.policy_kwargs is None:
        kwargs = dict(_trusted(contents, "policy_kwargs") or {}) if trust else {}
        kwargs = {
            key: value for key, value in kwargs.items() if key not in ("device", "optimizer_class", "optimizer_kwargs")
        }
    else:
        kwargs = {key: _with_classes(value) for key, value in contents.policy_kwargs.items()}
    accepted = _parameters(policy_class)
    if contents.use_sde and "use_sde" in accepted:
        kwargs.setdefault("use_sde", True)
    if "optimizer_class" in accepted:
        kwargs["optimizer_class"] = _NoOptimizer
    if "ortho_init" in accepted and not trust:
        # Initial weights are overwritten; orthogonal ones would take longer than all the rest.
        kwargs["ortho_init"] = False
    return kwargs


def _parameters(policy_class: Any) -> frozenset[str]:
    import inspect

    return frozenset(inspect.signature(policy_class.__init__).parameters)


def _with_classes(value: Any) -> Any:
    """The value with the real classes in place of their names."""
    if isinstance(value, ClassName):
        module, name = value.name
        return getattr(importlib.import_module(module), name)
    if isinstance(value, Mapping):
        return {key: _with_classes(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_with_classes(part) for part in value)
    return value


def _trusted(contents: ModelContents, field: str) -> Any:
    """An entry of ``data`` as its author meant it: this runs what the file holds."""
    import cloudpickle  # type: ignore[import-untyped]  # it has no type information

    content = serialized(contents.archive, field)
    return contents.archive.data[field] if content is None else cloudpickle.loads(content)


def _weights(contents: ModelContents, *, trust: bool) -> Mapping[str, Any]:
    import torch

    state: Mapping[str, Any] = torch.load(
        io.BytesIO(contents.archive.weights), map_location="cpu", weights_only=not trust
    )
    return state


def _load_weights(contents: ModelContents, network: Any, state: Mapping[str, Any]) -> None:
    if contents.algorithm is Algorithm.ARS:
        # The linear policy's only layer got a number when it became a list of layers.
        state = {_ars_name(name, network): value for name, value in state.items()}
    result = network.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if not name.startswith(_MAY_BE_MISSING)]
    if missing or result.unexpected_keys:
        names = ", ".join([*missing, *result.unexpected_keys][:3])
        raise refusal(contents.archive.path, f"doesn't fit a policy of {contents.algorithm}: {names} differ")


def _ars_name(name: str, network: Any) -> str:
    if name in network.state_dict():
        return name
    return name.replace("action_net.", "action_net.0.", 1)


def _policy(
    contents: ModelContents,
    network: Any,
    pipeline: ObservationPipeline,
    action_space: spaces.Space[Any],
    *,
    deterministic: bool,
    action_masks: Any,
) -> "CheckpointPolicy":
    module, _, name = contents.algorithm.policy.partition(".")
    kind = getattr(importlib.import_module(f"rlhfblender_core.policies.{module}"), name)
    extra: dict[str, Any] = {"bounds": other_bounds(contents, action_space)}
    if contents.algorithm in (Algorithm.DQN, Algorithm.QRDQN):
        extra["exploration_rate"] = contents.exploration_rate
    elif contents.algorithm is Algorithm.MASKABLE_PPO:
        extra["action_masks"] = action_masks
    policy: CheckpointPolicy = kind(network, pipeline, action_space, deterministic=deterministic, **extra)
    policy.reset(0)  # usable as it is; each episode resets it with its own seed
    return policy


def _missing_package(contents: ModelContents, error: ImportError) -> CheckpointNotUsableError:
    package = "sb3-contrib" if contents.algorithm.is_contrib else "stable-baselines3"
    if error.name and not error.name.startswith(("sb3_contrib", "stable_baselines3", "torch")):
        package = error.name
    return refusal(
        contents.archive.path, f"is a model of {contents.algorithm}: install {package} ({one_line(error)[:120]})"
    )
