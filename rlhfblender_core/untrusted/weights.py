"""What a ``.pth`` file says it holds, read without torch: names and shapes of the tensors, all sizes checked.

The weights themselves are loaded by torch's ``weights_only`` (see :mod:`.load`); this runs before, so that a bad file
is found before torch is imported, and so that no size in it is taken on trust: torch reserves what a file claims.
"""

import io
import math
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rlhfblender_core.untrusted.allow_list import Name, unresolved
from rlhfblender_core.untrusted.archives import DAMAGED_ARCHIVE, RefusedArchiveError, check_held, open_archive
from rlhfblender_core.untrusted.limits import MAX_WEIGHTS_BYTES
from rlhfblender_core.untrusted.model_zip import refusal
from rlhfblender_core.untrusted.pickles import load_restricted
from rlhfblender_core.untrusted.placeholders import (
    ORDERED_DICT,
    Builder,
    DamagedPickleError,
    Placeholder,
    RefusedPickleError,
    checked_shape,
)

#: Bytes per element of torch's storage classes.
_ITEM_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip

#: First pickle of the format that torch wrote before 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
#: magic, protocol, system info, contents, storage keys
_LEGACY_CONTENTS = 3

Shape = tuple[int, ...]


class _Storage(NamedTuple):
    """A run of numbers: its place in the file and how many."""

    key: str
    numel: int
    item_bytes: int


class _Tensor(NamedTuple):
    """A tensor and what it is made of; like all that is built here, a tuple, which nothing in a pickle can change."""

    shape: Shape
    storage: _Storage


@dataclass(frozen=True, slots=True)
class WeightShapes:
    """Names and shapes of the tensors of a policy, and how many numbers the file has for them."""

    shapes: dict[str, Shape] = field(default_factory=dict)
    numel: int = 0

    @property
    def largest_side(self) -> int:
        """The largest extent of any of them."""
        return max((side for shape in self.shapes.values() for side in shape), default=0)


def scan_weights(path: Path, member: str, content: bytes) -> WeightShapes:
    """The tensors in a ``.pth`` file, nothing of which is run or loaded.

    Args:
        path: of the model's zip, for messages.
        member: name of the file in it.
        content: its bytes.

    Raises:
        CheckpointNotUsableError: it is damaged, claims more than it has, or names what no weights need.
    """
    try:
        held = _scan_zip(content) if content[:4] == b"PK\x03\x04" else _scan_legacy(content)
    except RefusedPickleError as error:
        raise refusal(path, f"is refused: {member} names {str(error)[:120]!r}, which weights don't need") from error
    except (DamagedPickleError, RefusedArchiveError, OSError, *DAMAGED_ARCHIVE) as error:
        text = " ".join(str(error).split())[:120]
        raise refusal(path, f"is damaged: {member} can't be read ({text}); fetch or save it again") from error
    tensors = _tensors(held)
    # Tensors may share numbers: those that the file has are counted, not those that the shapes claim.
    storages = _largest(tensor.storage for tensor in tensors.values())
    return WeightShapes({name: tensor.shape for name, tensor in tensors.items()}, sum(one.numel for one in storages))


def _largest(storages: Iterable[_Storage]) -> Collection[_Storage]:
    """By place in the file the one that claims most: a file may claim different sizes of the same numbers."""
    found: dict[str, _Storage] = {}
    for storage in storages:
        known = found.get(storage.key, storage)
        found[storage.key] = max(known, storage, key=lambda one: one.numel * one.item_bytes)
    return found.values()


def _tensors(held: Any) -> dict[str, _Tensor]:
    """Of a dict of tensors; what else it holds is skipped here (pytorch_variables.pth may hold None)."""
    if not isinstance(held, dict):
        return {}
    return {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, _Tensor)}


def _scan_zip(content: bytes) -> Any:
    with open_archive(io.BytesIO(content)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        root = _root(archive.infolist())
        for info in infos.values():
            if info.compress_type != zipfile.ZIP_STORED:
                raise DamagedPickleError("compressed tensors, which torch doesn't write")
            check_held(archive, info.filename, MAX_WEIGHTS_BYTES)

        def storage(pid: Any) -> _Storage:
            found = _storage(pid)
            info = infos.get(f"{root}/data/{found.key}")
            if info is None or info.file_size < found.numel * found.item_bytes:
                raise DamagedPickleError(f"tensor {found.key} has fewer numbers than it claims")
            return found

        held = load_restricted(io.BytesIO(archive.read(f"{root}/data.pkl")), _lookup, storage)
        broken = archive.testzip()
    if broken is not None:
        raise DamagedPickleError(f"{broken} is damaged")
    return held


def _root(infos: Sequence[zipfile.ZipInfo]) -> str:
    """The folder that holds everything.

    Torch's reader takes the one that the first member lies in, ignores case, and knows no second name of a member: with
    two folders, or such names, it would load another pickle than was read here.
    """
    names = [info.filename for info in infos]
    root = names[0].partition("/")[0] if names else ""
    if any(info.filename != info.orig_filename for info in infos):
        raise DamagedPickleError("members of two names")
    if not all(name.startswith(f"{root}/") for name in names) or len({name.lower() for name in names}) != len(names):
        raise DamagedPickleError("members of several folders, or of the same name")
    if f"{root}/data.pkl" not in names:
        raise DamagedPickleError("no data.pkl")
    return root


def _scan_legacy(content: bytes) -> Any:
    stream = io.BytesIO(content)
    claimed: set[_Storage] = set()

    def storage(pid: Any) -> _Storage:
        found = _storage(pid)
        claimed.add(found)
        return found

    parts = [load_restricted(stream, _lookup, storage) for _ in range(_LEGACY_CONTENTS + 2)]
    if parts[0] != _LEGACY_MAGIC:
        raise DamagedPickleError("it is no file of torch")
    # Behind the pickles: for each storage its length as int64, then its numbers.
    wanted = sum(8 + found.numel * found.item_bytes for found in _largest(claimed))
    if wanted > len(content) - stream.tell():
        raise DamagedPickleError("fewer numbers than it claims")
    return parts[_LEGACY_CONTENTS]


def _storage(pid: Any) -> _Storage:
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":  # noqa: PLR2004 - torch's format
        raise DamagedPickleError("an unusual reference to a storage")
    _, kind, key, _, numel = pid[:5]
    is_known = isinstance(kind, type) and issubclass(kind, Placeholder)
    item_bytes = _ITEM_BYTES.get(kind.origin[1]) if is_known else None
    if item_bytes is None or type(numel) is not int or numel < 0 or not isinstance(key, str | int):
        raise DamagedPickleError("an unusual storage")
    return _Storage(str(key), numel, item_bytes)


def _rebuild_tensor(*args: Any) -> _Tensor:
    """Stands for torch's functions that make a tensor of a storage; checks that it lies within the storage."""
    storage, offset, shape, strides = args[:4]
    shape, strides, (offset,) = checked_shape(shape), checked_shape(strides), checked_shape((offset,))
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise DamagedPickleError("a tensor without a storage")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # A stride of 0 would show one number as very many; nobody's weights do.
    numbers: int = math.prod(shape)
    if numbers > storage.numel or (numbers and last >= storage.numel):
        raise DamagedPickleError("a tensor larger than its storage")
    return _Tensor(shape, storage)


def _rebuild_parameter(*args: Any) -> _Tensor:
    if not args or not isinstance(args[0], _Tensor):
        raise DamagedPickleError("a parameter without a tensor")
    return args[0]


_NAMES: Mapping[Name, Any] = MappingProxyType(
    {
        ("collections", "OrderedDict"): ORDERED_DICT,
        ("torch._utils", "_rebuild_tensor"): Builder("_rebuild_tensor", _rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): Builder("_rebuild_tensor_v2", _rebuild_tensor),
        ("torch._utils", "_rebuild_parameter"): Builder("_rebuild_parameter", _rebuild_parameter),
        **{("torch", name): unresolved(("torch", name)) for name in _ITEM_BYTES},
    }
)


def _lookup(name: Name) -> Any:
    found = _NAMES.get(name)
    if found is None:
        raise RefusedPickleError(".".join(name))
    return found
