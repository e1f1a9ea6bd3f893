"""Observation statistics of a ``VecNormalize`` file, read without running it, and applied."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.file_kinds import is_pointer
from rlhfblender_core.untrusted.limits import MAX_PICKLE_BYTES
from rlhfblender_core.untrusted.model_zip import POINTER_PROBLEM
from rlhfblender_core.untrusted.pickles import load_inert
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, Placeholder, RefusedPickleError, resolved


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and variance of an observation, float64, of its shape."""

    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ObservationStatistics:
    """What ``VecNormalize`` does to observations in evaluation.

    Attributes:
        moments: by the key of a Dict space; of a Box space under None. Empty if observations aren't normalised.
        clip: largest absolute value afterwards.
        epsilon: added to the variance.
    """

    moments: dict[str | None, Moments]
    clip: float
    epsilon: float

    def normalised(self, key: str | None, observation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """One observation, float32, of the same shape; unchanged where there are no statistics of this key."""
        moments = self.moments.get(key)
        if moments is None:
            return observation
        # The same operations in the same order as Stable-Baselines3, so that every bit agrees.
        scaled = (observation - moments.mean) / np.sqrt(moments.variance + self.epsilon)
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)


def read_statistics(path: Path) -> ObservationStatistics:
    """The statistics in a file that ``VecNormalize.save`` wrote.

    Raises:
        CheckpointNotUsableError: it is damaged, no such file, or holds what isn't known to be safe.
    """
    with _reading(path) as wrapper:
        return _statistics(wrapper)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """What the file holds, inert; what is the matter with it is one line."""
    try:
        if path.stat().st_size > MAX_PICKLE_BYTES:
            raise _unusable(path, f"is larger than {MAX_PICKLE_BYTES >> 20} MiB")
        content = path.read_bytes()
        if is_pointer(content):
            raise _unusable(path, POINTER_PROBLEM)
        yield _checked(load_inert(content))
    except OSError as error:
        raise _unusable(path, f"can't be read ({error.strerror or error})") from error
    except RefusedPickleError as error:
        problem = f"is refused: it holds {str(error)[:120]!r}, which isn't known to be safe"
        raise _unusable(path, f"{problem}; use --trust-checkpoint if you made the file yourself") from error
    except (DamagedPickleError, ValueError, TypeError, OverflowError) as error:
        raise _unusable(path, f"is no intact VecNormalize file ({error})") from error


@dataclass(frozen=True, slots=True)
class RunningMoments:
    """Mean and variance so far, float64, and of how many values."""

    mean: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    count: float


@dataclass(frozen=True, slots=True)
class TrainingStatistics:
    """What ``VecNormalize`` has to know to go on with training.

    Attributes:
        observations: by the key of a Dict space, of a Box space under None; empty if they aren't normalised.
        returns: of the discounted returns, which scale rewards.
    """

    observations: dict[str | None, RunningMoments]
    returns: RunningMoments


def read_training_statistics(path: Path) -> TrainingStatistics:
    """The running statistics in a file that ``VecNormalize.save`` wrote.

    Raises:
        CheckpointNotUsableError: it is damaged, no such file, or holds what isn't known to be safe.
    """
    with _reading(path) as wrapper:
        observations = wrapper.state.get("obs_rms") if wrapper.state.get("norm_obs", True) else {}
        by_key = dict(observations) if isinstance(observations, Mapping) else {None: observations}
        moments = {None if key is None else str(key): _running(rms) for key, rms in by_key.items()}
        return TrainingStatistics(moments, _running(wrapper.state.get("ret_rms")))


def _running(rms: Any) -> RunningMoments:
    moments = _moments(*_pickled_moments(rms))
    count = resolved(rms.attribute("count"))
    if not isinstance(count, (int, float, np.number)) or not np.isfinite(count):
        raise DamagedPickleError("a count is missing")
    return RunningMoments(moments.mean, moments.variance, float(count))


def trusted_statistics(path: Path) -> ObservationStatistics:
    """Like :func:`read_statistics` for a file its user made: it may run code while it is read."""
    import pickle

    try:
        wrapper = pickle.loads(path.read_bytes())  # noqa: S301 - asked for by --trust-checkpoint
        state = wrapper.__dict__
        held = _moments_of(state["obs_rms"], lambda rms: (rms.mean, rms.var)) if state.get("norm_obs", True) else {}
        held = _chosen(held, state.get("norm_obs_keys"))
        return ObservationStatistics(held, float(state["clip_obs"]), float(state["epsilon"]))
    except Exception as error:  # its own code may raise anything
        raise _unusable(path, f"can't be loaded ({' '.join(str(error).split())[:120]})") from error


def _checked(wrapper: Any) -> Any:
    if (
        not isinstance(wrapper, Placeholder)
        or wrapper.origin[1] != "VecNormalize"
        or not isinstance(wrapper.state, dict)
    ):
        raise DamagedPickleError("it holds something else")
    return wrapper


def _statistics(wrapper: Any) -> ObservationStatistics:
    clip, epsilon = (resolved(wrapper.state.get(name)) for name in ("clip_obs", "epsilon"))
    if not isinstance(clip, (int, float)) or not isinstance(epsilon, (int, float)):
        raise DamagedPickleError("clip_obs or epsilon is missing")
    moments = {}
    if wrapper.state.get("norm_obs", True):
        moments = _moments_of(wrapper.state.get("obs_rms"), _pickled_moments)
        moments = _chosen(moments, wrapper.state.get("norm_obs_keys"))
    return ObservationStatistics(moments, float(clip), float(epsilon))


def _chosen(moments: dict[str | None, Moments], keys: Any) -> dict[str | None, Moments]:
    """Those of the keys that are normalised; older files name none and mean all."""
    if not isinstance(keys, list):
        return moments
    return {key: held for key, held in moments.items() if key is None or key in keys}


def _pickled_moments(rms: Any) -> tuple[Any, Any]:
    if not isinstance(rms, Placeholder) or rms.origin[1] != "RunningMeanStd":
        raise DamagedPickleError("obs_rms is missing")
    return resolved(rms.attribute("mean")), resolved(rms.attribute("var"))


def _moments_of(held: Any, parts: Any) -> dict[str | None, Moments]:
    if isinstance(held, Mapping):
        return {str(key): _moments(*parts(rms)) for key, rms in dict.items(dict(held))}
    return {None: _moments(*parts(held))}


def _moments(mean: Any, variance: Any) -> Moments:
    mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
    if mean.shape != variance.shape or not np.isfinite(mean).all() or not (variance >= 0).all():
        raise DamagedPickleError("its mean and variance don't fit together")
    return Moments(mean, variance)


def _unusable(path: Path, problem: str) -> CheckpointNotUsableError:
    return CheckpointNotUsableError(f"Statistics file {str(path)!r} {problem}.")
