"""Spaces as shapes and dtypes, from pickles as from Gymnasium, and whether two of them go together."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhfblender_core.untrusted.placeholders import DamagedPickleError, Placeholder, resolved

_MAX_DEPTH = 8
_IMAGE_SIDES = 3
_WHITE = 255


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """What has to agree between a checkpoint's space and an environment's.

    Attributes:
        kind: Gymnasium's class name: ``Box``, ``Discrete``, …
        shape: of an element; () for Discrete and Dict.
        dtype: of an element, "" for Dict and Tuple.
        counts: number of values of each entry, for Discrete and MultiDiscrete.
        starts: their smallest values; () where all are 0.
        parts: the named sub-spaces of Dict and Tuple.
        is_full_range: whether the bounds of a uint8 Box are 0 and 255, which make it an image; None where that isn't
            known, or means nothing.
    """

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    counts: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    parts: tuple[tuple[str, "SpaceInfo"], ...] = ()
    is_full_range: bool | None = None

    def __str__(self) -> str:
        if self.kind == "Discrete":
            return f"Discrete({self.counts[0]}{f', start={self.starts[0]}' if self.starts else ''})"
        if self.kind == "MultiDiscrete":
            return f"MultiDiscrete({list(self.counts)}{f', start={list(self.starts)}' if self.starts else ''})"
        if self.kind in ("Dict", "Tuple"):
            return f"{self.kind}({', '.join(f'{name}: {part}' for name, part in self.parts)})"
        narrow = ", narrower than 0 to 255" if self.is_full_range is False and self.is_image else ""
        return f"{self.kind}({self.shape}, {self.dtype}{narrow})"

    @property
    def is_image(self) -> bool:
        """Whether it may be an image, by shape and dtype."""
        return self.kind == "Box" and len(self.shape) == _IMAGE_SIDES and self.dtype == "uint8"

    def agrees_with(self, other: "SpaceInfo") -> bool:
        """Whether a policy for one can be used with the other; floats of any size count as equal."""
        if (self.kind, self.counts, self.starts) != (other.kind, other.counts, other.starts):
            return False
        if self.parts or other.parts:
            mine, others = dict(self.parts), dict(other.parts)
            return mine.keys() == others.keys() and all(part.agrees_with(others[name]) for name, part in mine.items())
        if self.is_image and None not in (self.is_full_range, other.is_full_range):
            # Policies divide images by 255, and nothing else.
            return self.shape == other.shape and other.is_image and self.is_full_range == other.is_full_range
        return self.shape == other.shape and _dtype_family(self.dtype) == _dtype_family(other.dtype)

    def counted_from_zero(self) -> "SpaceInfo":
        """The same choices, the first of each called 0."""
        return replace(self, starts=())


def space_info(space: spaces.Space[Any]) -> SpaceInfo:
    """Of a Gymnasium space."""
    kind = next((base.__name__ for base in type(space).__mro__ if base.__module__.startswith("gymnasium.spaces.")), "")
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        return SpaceInfo(kind, parts=tuple((str(name), space_info(part)) for name, part in named))
    if isinstance(space, spaces.Discrete):
        return SpaceInfo(kind, dtype=str(space.dtype), counts=(int(space.n),), starts=_starts([int(space.start)]))
    shape, dtype = tuple(space.shape or ()), str(space.dtype)
    if isinstance(space, spaces.MultiDiscrete):
        counts = tuple(int(n) for n in space.nvec.ravel())
        return SpaceInfo(kind, shape, dtype, counts, _starts(space.start.ravel().tolist()))
    bounds = (space.low, space.high) if isinstance(space, spaces.Box) else (None, None)
    return SpaceInfo(kind, shape, dtype, is_full_range=_is_full_range(dtype, *bounds))


def pickled_space_info(value: Any, depth: int = 0) -> SpaceInfo:
    """Of a space that came out of a pickle as a placeholder.

    Raises:
        DamagedPickleError: it is no space, or one with parts missing.
        RefusedPickleError: it holds something that no space holds.
    """
    if depth > _MAX_DEPTH or not isinstance(value, Placeholder) or not isinstance(value.state, dict):
        raise DamagedPickleError("it is no space")
    kind = value.origin[1]
    if kind in ("Dict", "Tuple"):
        return SpaceInfo(kind, parts=_parts(value, depth))
    if kind == "Discrete":
        count = _count(resolved(value.attribute("n")))
        return SpaceInfo(kind, dtype=_dtype(value), counts=(count,), starts=_pickled_starts(value))
    if kind == "MultiDiscrete":
        nvec = np.asarray(resolved(value.attribute("nvec")))
        counts = tuple(_count(n) for n in nvec.ravel().tolist())
        return SpaceInfo(kind, nvec.shape, _dtype(value), counts, _pickled_starts(value))
    if kind == "MultiBinary":
        n = resolved(value.attribute("shape", "_shape", "n"))
        return SpaceInfo(kind, _shape(n if isinstance(n, tuple) else (n,)), _dtype(value) or "int8")
    if kind == "Box":
        dtype = _dtype(value)
        full = _is_full_range(dtype, *(pickled_bounds(value) or (None, None)))
        return SpaceInfo(kind, _shape(value.attribute("_shape", "shape")), dtype, is_full_range=full)
    raise DamagedPickleError(f"{kind[:40]} is no space that Stable-Baselines3 knows")


def pickled_bounds(value: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The lowest and the highest values of a Box that came out of a pickle; None where they aren't known."""
    if not isinstance(value, Placeholder) or value.origin[1] != "Box" or not isinstance(value.state, dict):
        return None
    low, high = (resolved(value.attribute(name)) for name in ("low", "high"))
    if not isinstance(low, np.ndarray) or not isinstance(high, np.ndarray) or low.dtype.kind not in "fiu":
        return None
    return (low, high) if low.shape == high.shape and high.dtype.kind in "fiu" else None


def _is_full_range(dtype: str, low: Any, high: Any) -> bool | None:
    if dtype != "uint8" or low is None:
        return None
    return bool((low == 0).all() and (high == _WHITE).all())


def _parts(value: Placeholder, depth: int) -> tuple[tuple[str, SpaceInfo], ...]:
    held = value.attribute("spaces")
    if isinstance(held, dict):
        named = list(dict.items(held))
    elif isinstance(held, (list, tuple)):
        named = list(enumerate(held))
    else:
        raise DamagedPickleError("it has no sub-spaces")
    return tuple((str(name), pickled_space_info(part, depth + 1)) for name, part in named[:1000])


def _pickled_starts(value: Placeholder) -> tuple[int, ...]:
    """Those of gym had none, and began at 0."""
    found = resolved(value.attribute("start"))
    starts = np.asarray(0 if found is None else found)
    if starts.dtype.kind not in "iu":
        raise DamagedPickleError("a space with an impossible start")
    return _starts(starts.ravel().tolist())


def _starts(values: Iterable[int]) -> tuple[int, ...]:
    starts = tuple(values)
    return starts if any(starts) else ()


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        raise DamagedPickleError("a space without a shape")
    return tuple(_count(resolved(side)) for side in value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DamagedPickleError("a space with an impossible size")
    return value


def _dtype(value: Placeholder) -> str:
    dtype = resolved(value.attribute("dtype"))
    if isinstance(dtype, np.dtype):
        return dtype.newbyteorder("=").name
    # A type such as numpy.float32 instead of a dtype: named, by exact name only.
    return dtype.origin[1] if isinstance(dtype, type) and issubclass(dtype, Placeholder) else str(dtype or "")[:20]


def _dtype_family(dtype: str) -> str:
    """Policies convert floats to float32 and integers to classes; a uint8 image, though, is divided by 255."""
    if dtype.startswith("float"):
        return "float"
    return "integer" if dtype.startswith("int") else dtype


def channels_first(info: SpaceInfo) -> SpaceInfo:
    """The space after ``VecTransposeImage``: images as (channels, height, width)."""
    if info.parts:
        return SpaceInfo(info.kind, parts=tuple((name, channels_first(part)) for name, part in info.parts))
    if not info.is_image or info.shape.index(min(info.shape)) == 0:
        return info
    height, width, channels = info.shape
    return replace(info, shape=(channels, height, width))


def difference(trained: SpaceInfo, found: SpaceInfo) -> str:
    """In words: what the checkpoint expects and what the environment has."""
    if trained.kind == found.kind == "Discrete" and trained.counts != found.counts:
        return f"{trained.counts[0]} actions or values, the environment has {found.counts[0]}"
    if trained.parts and found.parts:
        mine, others = dict(trained.parts), dict(found.parts)
        for name in sorted(mine.keys() | others.keys()):
            if name not in others or name not in mine:
                shown = repr(name[:80])
                return f"an entry {shown}, the environment has none" if name in mine else f"no entry {shown}"
            if not mine[name].agrees_with(others[name]):
                return f"{name[:80]}: {mine[name]}, the environment has {others[name]}"
    return f"{trained}, the environment has {found}"
