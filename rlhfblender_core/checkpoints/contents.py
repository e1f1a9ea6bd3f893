"""What a model's zip says about its policy: the entries of ``data`` that inference needs, decoded safely.

Nothing here imports torch; classes are (module, name) pairs until :mod:`.load` looks them up in its own table.
"""

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.checkpoints.algorithms import Algorithm, parse_algorithm, recognised_algorithm
from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.allow_list import ACTIVATIONS, EXTRACTORS, POLICIES, Name
from rlhfblender_core.untrusted.model_zip import VARIABLES, WEIGHTS, ModelArchive, read_archive, refusal
from rlhfblender_core.untrusted.pickles import load_inert
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, Placeholder, RefusedPickleError, resolved
from rlhfblender_core.untrusted.spaces import SpaceInfo, pickled_bounds, pickled_space_info
from rlhfblender_core.untrusted.weights import WeightShapes, scan_weights

_SERIALIZED = ":serialized:"
#: Inference needs no optimiser, and the device is ours to choose.
_DROPPED_KWARGS = frozenset({"optimizer_class", "optimizer_kwargs", "device"})
_TRUST = "use --trust-checkpoint if you made the file yourself"
#: Numbers in all layers that are always believed, 80 MB; above it, the weights in the file must justify them.
_SMALL_LAYER = 2 * 10**7
_MAX_DEPTH = 8
#: Entries that the class HER, which stood around an algorithm, left in its model; it went with 1.1.
_HER_CLASS = {"model_class", "goal_selection_strategy", "online_sampling"}
_ON_POLICY, _ORIGINAL = (Algorithm.PPO, Algorithm.RECURRENT_PPO), "_last_original_obs"
#: Stable-Baselines3's VecNormalize makes observations float32 and clips them at this, unless told otherwise.
_CLIPPED = 10
#: Arguments that say how often something is repeated.
_REPEATS = ("n_critics", "n_lstm_layers")


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class that ``policy_kwargs`` names, from the table of known ones."""

    name: Name


@dataclass(frozen=True, slots=True)
class ModelContents:
    """A model as plain values.

    Attributes:
        archive: the zip's bytes.
        algorithm: what trained it.
        policy_class: (module, name), one of the known ones; None when it is only known to the trusting loader.
        policy_kwargs: arguments of its constructor; classes are :class:`ClassName`. None like ``policy_class``.
        observation_space: as saved; None where the file is trusted and it can't be read safely.
        action_space: likewise.
        use_sde: whether it explores with generalised state-dependent noise.
        exploration_rate: of epsilon-greedy policies at the time of saving, 0 for others.
        weights: names and shapes of the policy's tensors; None when trusted.
        action_bounds: lowest and highest actions of a Box, as saved; None where that isn't known.
        joins_goal: whether the class HER of Stable-Baselines3 1.0 trained it, whose policies saw observation and goal
            as one row.
        normalised: whether VecNormalize was around the environment of its training; None where nothing says it, or
            it can only have normalised the rewards.
        num_timesteps: of its training, None where nothing says it.
    """

    archive: ModelArchive
    algorithm: Algorithm
    policy_class: Name | None
    policy_kwargs: dict[str, Any] | None
    observation_space: SpaceInfo | None
    action_space: SpaceInfo | None
    use_sde: bool
    exploration_rate: float
    weights: WeightShapes | None
    action_bounds: tuple[NDArray[Any], NDArray[Any]] | None = None
    joins_goal: bool = False
    normalised: bool | None = None
    num_timesteps: int | None = None


def read_contents(
    path: Path, *, algorithm: str | None = None, fallback: str | None = None, trust: bool = False
) -> ModelContents:
    """The model in a zip, everything in it checked that can be checked without torch.

    Args:
        path: of the zip.
        algorithm: what the user says it is; None to find out.
        fallback: what its settings say it is, used where neither the zip nor the user says.
        trust: accept contents that can't be read safely; they are left to the trusting loader.

    Raises:
        CheckpointNotUsableError: damaged, of no known algorithm, or refused; one line says which field and why.
        InvalidParameterError: ``algorithm`` names none.
    """
    archive = read_archive(path)
    policy_class = _policy_class(archive, trust=trust)
    kwargs = _policy_kwargs(archive, trust=trust)
    weights = None
    if not trust:
        weights = scan_weights(path, WEIGHTS, archive.weights)
        if archive.variables is not None:
            scan_weights(path, VARIABLES, archive.variables)
        _check_sizes(path, kwargs or {}, weights)
    chosen = _algorithm(archive, _recognised(archive, policy_class, kwargs or {}), algorithm, fallback)
    steps = archive.data.get("num_timesteps")
    return ModelContents(
        archive=archive,
        algorithm=chosen,
        policy_class=policy_class,
        policy_kwargs=kwargs,
        observation_space=_space(archive, "observation_space", trust=trust),
        action_space=_space(archive, "action_space", trust=trust),
        use_sde=archive.data.get("use_sde") is True,
        exploration_rate=_rate(archive.data.get("exploration_rate")),
        weights=weights,
        action_bounds=_action_bounds(archive),
        joins_goal=archive.data.keys() >= _HER_CLASS,
        normalised=_was_normalised(archive, chosen),
        num_timesteps=steps if isinstance(steps, int) else None,
    )


def serialized(archive: ModelArchive, field: str) -> bytes | None:
    """The pickle of an entry of ``data``, None where the entry is plain JSON.

    Raises:
        CheckpointNotUsableError: it is missing or its base64 is damaged.
    """
    if field not in archive.data:
        raise refusal(archive.path, f"is no Stable-Baselines3 model: its 'data' has no {field}")
    value = archive.data[field]
    if not isinstance(value, dict) or _SERIALIZED not in value:
        return None
    try:
        return base64.b64decode(str(value[_SERIALIZED]).encode(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusal(archive.path, f"is damaged: {field} is no base64") from error


def _decoded(archive: ModelArchive, field: str) -> Any:
    """The value of an entry with placeholders; plain JSON as it is."""
    content = serialized(archive, field)
    if content is None:
        return archive.data[field]
    try:
        return load_inert(content)
    except RefusedPickleError as error:
        raise _refused(archive.path, field, str(error)) from error
    except DamagedPickleError as error:
        raise refusal(archive.path, f"is damaged: {field} can't be read ({error})") from error


def _refused(path: Path, field: str, found: str) -> CheckpointNotUsableError:
    return refusal(path, f"is refused: its {field} holds {found[:120]!r}, which isn't known to be safe; {_TRUST}")


def _policy_class(archive: ModelArchive, *, trust: bool) -> Name | None:
    try:
        value = _decoded(archive, "policy_class")
        if not isinstance(value, type) or not issubclass(value, Placeholder):
            raise refusal(archive.path, f"is damaged: policy_class is no class but {value!r:.40}")
        if value.origin not in POLICIES:
            raise _refused(archive.path, "policy_class", ".".join(value.origin))
    except CheckpointNotUsableError:
        if not trust:
            raise
        return None
    return value.origin


def _policy_kwargs(archive: ModelArchive, *, trust: bool) -> dict[str, Any] | None:
    try:
        value = _decoded(archive, "policy_kwargs") or {}
        if not isinstance(value, dict):
            raise refusal(archive.path, f"is damaged: policy_kwargs is no dict but {value!r:.40}")
        kept = {key: part for key, part in dict.items(value) if key not in _DROPPED_KWARGS}
        try:
            return _old_net_arch({str(key): _plain(part, 0) for key, part in kept.items()})
        except RefusedPickleError as error:
            raise _refused(archive.path, "policy_kwargs", str(error)) from error
        except DamagedPickleError as error:
            raise refusal(archive.path, f"is damaged: policy_kwargs holds {error}") from error
    except CheckpointNotUsableError:
        if not trust:
            raise
        return None


def _plain(value: Any, depth: int) -> Any:
    """The value with known classes as :class:`ClassName` and numpy's scalars as numbers."""
    if depth > _MAX_DEPTH:
        raise DamagedPickleError("values nested too deeply")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {_plain(key, depth + 1): _plain(part, depth + 1) for key, part in dict.items(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part, depth + 1) for part in value)
    if isinstance(value, type) and issubclass(value, Placeholder):
        if value.origin in ACTIVATIONS | EXTRACTORS:
            return ClassName(value.origin)
        raise RefusedPickleError(".".join(value.origin))
    number = resolved(value)
    if isinstance(number, (bool, int, float)):
        return number
    raise RefusedPickleError(".".join(value.origin) if isinstance(value, Placeholder) else type(value).__name__)


def _old_net_arch(kwargs: dict[str, Any]) -> dict[str, Any]:
    """``net_arch=[dict(pi=…, vf=…)]``, as written before Stable-Baselines3 1.8, is ``dict(pi=…, vf=…)`` now."""
    arch = kwargs.get("net_arch")
    if isinstance(arch, list) and len(arch) == 1 and isinstance(arch[0], dict):
        return {**kwargs, "net_arch": arch[0]}
    return kwargs


def _check_sizes(path: Path, kwargs: dict[str, Any], weights: WeightShapes) -> None:
    """Refuses settings that ask for far larger networks than the weights in the file can fill.

    A network is allocated before its weights are loaded: a small file could ask for all memory.
    """
    numbers = sorted(_integers(kwargs))
    # Each network or layer has tensors of its own.
    layers = max((kwargs[key] for key in _REPEATS if isinstance(kwargs.get(key), int)), default=0)
    if layers > max(len(weights.shapes), 2) or len(numbers) > 4 * len(weights.shapes) + 64:
        raise refusal(path, "is refused: policy_kwargs asks for far more layers than policy.pth has")
    product = max(len(numbers), 1)
    for number in numbers[-2:]:
        product *= max(abs(number), 1)
    if product > max(_SMALL_LAYER, 64 * weights.numel):
        raise refusal(path, f"is refused: policy_kwargs asks for layers of {numbers[-1]:,}, policy.pth has far less")


def _integers(value: Any) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if isinstance(value, dict):
        return [number for part in value.values() for number in _integers(part)]
    if isinstance(value, (list, tuple)):
        return [number for part in value for number in _integers(part)]
    return []


def _space(archive: ModelArchive, field: str, *, trust: bool) -> SpaceInfo | None:
    try:
        value = _decoded(archive, field)
        try:
            return pickled_space_info(value)
        except RefusedPickleError as error:
            raise _refused(archive.path, field, str(error)) from error
        except (DamagedPickleError, ValueError, TypeError) as error:
            raise refusal(archive.path, f"is damaged: {field} can't be read ({error})") from error
    except CheckpointNotUsableError:
        if not trust:
            raise
        return None


def _action_bounds(archive: ModelArchive) -> tuple[NDArray[Any], NDArray[Any]] | None:
    try:
        return pickled_bounds(_decoded(archive, "action_space"))
    except CheckpointNotUsableError:  # told where the space itself is read, if it matters
        return None


def _was_normalised(archive: ModelArchive, algorithm: Algorithm) -> bool | None:
    """On-policy algorithms keep an observation as it was before VecNormalize only where there was one."""
    if algorithm.family not in _ON_POLICY or archive.data.get("_last_obs") is None:
        return None
    if _ORIGINAL not in archive.data:
        return None
    if archive.data[_ORIGINAL] is None:
        return False
    return None if _is_raw(archive) else True


def _is_raw(archive: ModelArchive) -> bool:
    """Whether what the model saw last can't be a normalised observation, so that rewards alone were normalised."""
    try:
        seen = resolved(_decoded(archive, "_last_obs"))
    except CheckpointNotUsableError:  # it isn't needed, so it isn't refused either
        return False
    if not isinstance(seen, np.ndarray) or seen.dtype.kind not in "fiu":
        return False
    return seen.dtype != np.float32 or bool((np.abs(seen) > _CLIPPED).any())


def _recognised(archive: ModelArchive, policy_class: Name | None, kwargs: dict[str, Any]) -> Algorithm | None:
    delay = archive.data.get("policy_delay")
    return recognised_algorithm(
        archive.data.keys(),
        ".".join(policy_class or ()),
        single_critic=kwargs.get("n_critics") == 1,
        delay=delay if isinstance(delay, int) else None,
    )


def _algorithm(archive: ModelArchive, found: Algorithm | None, given: str | None, fallback: str | None) -> Algorithm:
    """What the zip says, which a user may only refine among algorithms with the same kind of policy."""
    wanted = None if given is None else parse_algorithm(given)
    if found is not None and wanted is not None and found.family != wanted.family:
        raise refusal(archive.path, f"holds a model of {found}, not {wanted}; leave --algorithm out")
    chosen = wanted or found or (None if fallback is None else parse_algorithm(fallback))
    if chosen is None:
        raise refusal(archive.path, "doesn't say which algorithm trained it; name it with --algorithm")
    return chosen


def _rate(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else 0.0
