"""An episode's arrays as RLHF-Blender's server reads them: T rows everywhere, numbers that JSON can hold.

The server loads these files with pickles, so ``infos`` are dictionaries here, made of plain Python values only.
Pictures stream from archive to archive; what is held in memory is small.
"""

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from rlhfblender_core.dataset.infos import info_from_json
from rlhfblender_core.dataset.npz import Column, WholeArray, write_npz
from rlhfblender_core.environments.observations import ROOT
from rlhfblender_core.export.request import RewardsKind
from rlhfblender_core.untrusted.archives import open_archive
from rlhfblender_core.untrusted.npy import DamagedArrayError, read_npy_header
from rlhfblender_core.untrusted.npz import Arrays, reading_arrays

#: What infinite rewards become: the server's answers are JSON.
_FAR = 1e9
_COPY_BYTES = 1 << 20
#: As NumPy writes object arrays.
_PICKLE_PROTOCOL = 4
#: How JSON texts begin half of a character beyond 16 bits.
_SURROGATE = "\\ud"


class NpzMember:
    """An array of an archive as a column of another, copied piece by piece.

    Args:
        archive: an open ``.npz``.
        name: the array's.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._archive = archive
        self._name = f"{name}.npy"

    def header(self) -> dict[str, Any]:
        """See :class:`~rlhfblender_core.dataset.npz.Column`."""
        with self._archive.open(self._name) as stream:
            header = read_npy_header(stream)
        if header.dtype.hasobject:  # the server would unpickle what it is given
            raise DamagedArrayError(f"{self._name} holds pickled objects")
        descr = npy_format.dtype_to_descr(header.dtype)
        return {"descr": descr, "fortran_order": header.is_fortran, "shape": header.shape}

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's."""
        with self._archive.open(self._name) as stream:
            return read_npy_header(stream).dtype

    def chunks(self) -> Iterator[bytes]:
        """See :class:`~rlhfblender_core.dataset.npz.Column`."""
        with self._archive.open(self._name) as stream:
            left = read_npy_header(stream).content_bytes
            while chunk := stream.read(min(_COPY_BYTES, left)):
                left -= len(chunk)
                yield chunk
        if left:
            raise DamagedArrayError(f"{self._name} ends {left:,} bytes too early")

    def close(self) -> None:
        """Nothing to free: the archive is its opener's."""


class PickledObjects:
    """A column of Python objects, as NumPy writes object arrays."""

    def __init__(self, objects: Sequence[object]) -> None:
        self._objects = np.empty(len(objects), object)
        self._objects[:] = objects

    def header(self) -> dict[str, Any]:
        """See :class:`~rlhfblender_core.dataset.npz.Column`."""
        return {"descr": "|O", "fortran_order": False, "shape": self._objects.shape}

    def chunks(self) -> Iterator[bytes]:
        """See :class:`~rlhfblender_core.dataset.npz.Column`."""
        yield pickle.dumps(self._objects, _PICKLE_PROTOCOL)

    def close(self) -> None:
        """Nothing to free."""


def write_server_episode(source: Path, target: Path, *, is_random: bool) -> None:
    """Writes ``benchmark_<n>.npz`` from an episode's own ``.npz``.

    Args:
        source: ours.
        target: the server's.
        is_random: whether the agent acted at random; its ``probs`` are customarily zeros.

    Raises:
        DataNotUsableError: the source can't be read.
    """
    with reading_arrays(str(source)), open_archive(source) as archive:
        write_npz(target, _columns(archive, Arrays(archive, str(source)), is_random=is_random))


def _columns(archive: zipfile.ZipFile, arrays: Mapping[str, NDArray[Any]], *, is_random: bool) -> dict[str, Column]:
    rewards = finite(arrays["rewards"].astype(np.float64))
    length = len(rewards)
    dones = np.zeros(length, np.bool_)
    dones[-1] = True  # 2026's server counts episodes by it, cut-offs too
    features = {"features": WholeArray(arrays["features"])} if "features" in arrays else {}
    return {
        **features,
        "obs": _observations(archive, arrays, length),
        "rewards": WholeArray(rewards),
        "dones": WholeArray(dones),
        "actions": WholeArray(_flat_rows(arrays["actions"])),
        "infos": PickledObjects(_infos(archive, arrays, length)),
        "probs": WholeArray(_probabilities(arrays, length, is_random=is_random)),
        "episode_rewards": WholeArray(np.array([_summed(rewards)[-1]])),
        "episode_lengths": WholeArray(np.array([length])),
    }


def _observations(archive: zipfile.ZipFile, arrays: Mapping[str, NDArray[Any]], length: int) -> Column:
    numeric = [name for name in _observed(arrays) if not _is_text(archive, name)]
    if numeric == [ROOT]:
        return NpzMember(archive, ROOT)
    if not numeric:  # texts are in the infos
        return WholeArray(np.zeros((length, 1), np.float32))
    return WholeArray(np.concatenate([arrays[name].reshape(length, -1) for name in numeric], axis=1))


def _flat_rows(actions: NDArray[Any]) -> NDArray[Any]:
    return actions if actions.ndim == 1 else actions.reshape(len(actions), -1)


def _probabilities(arrays: Mapping[str, NDArray[Any]], length: int, *, is_random: bool) -> NDArray[np.float32]:
    if not is_random and "probs" in arrays:
        known = arrays["probs"]
    elif not is_random and "q_values" in arrays:  # what the uncertainty of such agents is the entropy of
        known = _softmax(arrays["q_values"].astype(np.float64))
    else:
        return np.zeros((length, 1), np.float32)
    return np.nan_to_num(known.reshape(length, 1, -1).astype(np.float32), posinf=0.0, neginf=0.0)


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinite ones
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _infos(archive: zipfile.ZipFile, arrays: Mapping[str, NDArray[Any]], length: int) -> list[dict[str, Any]]:
    """The infos as dictionaries, with what RLHF-Blender shows from them: critic's value, entropy, texts (a mission)."""
    infos = [_info(text) for text in arrays["infos"].tolist()] if "infos" in arrays else [{} for _ in range(length)]
    extra = {"value": "values", "entropy": "entropy"}
    columns = {key: arrays[name] for key, name in extra.items() if name in arrays}
    columns |= {name.removeprefix(f"{ROOT}."): arrays[name] for name in _observed(arrays) if _is_text(archive, name)}
    for key, column in columns.items():
        for info, value in zip(infos, column.tolist(), strict=True):
            if isinstance(value, str) or np.isfinite(value):
                info.setdefault(key, value)
    return infos


def _observed(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    return [name for name in arrays if name == ROOT or name.startswith(f"{ROOT}.")]


def _is_text(archive: zipfile.ZipFile, name: str) -> bool:
    return NpzMember(archive, name).dtype.kind == "U"  # from the header alone: pictures are large


def _info(text: str) -> dict[str, Any]:
    # NaN and the infinities have no JSON, which the server's answers are.
    info = info_from_json(text, constant=lambda _: None)
    if _SURROGATE in text:  # half a character has no UTF-8 either; a pair of halves is one already
        info = json.loads(json.dumps(info, ensure_ascii=False).encode(errors="replace"))
    return info


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values with 0 for NaN, and a large number for the infinities."""
    return np.nan_to_num(values, nan=0.0, posinf=_FAR, neginf=-_FAR)


def server_rewards(rewards: NDArray[np.float64], kind: RewardsKind) -> NDArray[np.float64]:
    """What the server plots as reward, (T,) float64, finite."""
    per_step = finite(rewards)
    return per_step if kind == "per-step" else _summed(per_step)


def _summed(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # finite ones may add up to more than a number can hold
        return np.nan_to_num(np.cumsum(rewards))


def server_uncertainty(uncertainty: NDArray[Any]) -> NDArray[np.float32]:
    """What the server plots as uncertainty, (T,) float32: 0 where it isn't known."""
    return np.nan_to_num(uncertainty.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
