"""What a ``.pth`` file says it holds, read without torch: names and shapes of the tensors, all sizes checked.

The weights themselves are loaded by torch's ``weights_only`` (see :mod:`.load`); this runs before, so that a bad file
is found before torch is imported, and so that no size in it is taken on trust: torch reserves what a file claims.
"""

import io
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.untrusted.allow_list import Name
from rlhfblender_core.untrusted.model_zip import MAX_MEMBERS, MAX_WEIGHTS_BYTES, check_member_size, refusal
from rlhfblender_core.untrusted.pickles import load_restricted
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, RefusedPickleError

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


@dataclass(frozen=True, slots=True)
class _Storage:
    """A run of numbers: its place in the file and how many."""

    key: str
    numel: int
    item_bytes: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: Shape


@dataclass(frozen=True, slots=True)
class WeightShapes:
    """Names and shapes of the tensors of a policy."""

    shapes: dict[str, Shape] = field(default_factory=dict)

    @property
    def numel(self) -> int:
        """Numbers in all of them."""
        return sum(_product(shape) for shape in self.shapes.values())

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
        held = _scan_zip(path, content) if content[:4] == b"PK\x03\x04" else _scan_legacy(content)
    except RefusedPickleError as error:
        raise refusal(path, f"is refused: {member} names {str(error)[:120]!r}, which weights don't need") from error
    except (DamagedPickleError, zipfile.BadZipFile, ValueError, KeyError, RuntimeError, OSError) as error:
        text = " ".join(str(error).split())[:120]
        raise refusal(path, f"is damaged: {member} can't be read ({text}); fetch or save it again") from error
    return WeightShapes(_shapes(held))


def _shapes(held: Any) -> dict[str, Shape]:
    """Of a dict of tensors; what else it holds is skipped here (pytorch_variables.pth may hold None)."""
    if not isinstance(held, dict):
        return {}
    return {str(name): value.shape for name, value in dict.items(held) if isinstance(value, _Tensor)}


def _scan_zip(path: Path, content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        # Torch's reader may choose another one of two equal names than Python's; it ignores case.
        if len({name.lower() for name in infos}) != len(archive.infolist()) or len(infos) > MAX_MEMBERS:
            raise DamagedPickleError("members of the same name, or very many")
        root = next((name[: -len("data.pkl")] for name in infos if name.endswith("/data.pkl")), None)
        if root is None:
            raise DamagedPickleError("no data.pkl")
        for info in infos.values():
            if info.compress_type != zipfile.ZIP_STORED:
                raise DamagedPickleError("compressed tensors, which torch doesn't write")
            check_member_size(path, info, MAX_WEIGHTS_BYTES)

        def storage(pid: Any) -> _Storage:
            found = _storage(pid)
            info = infos.get(f"{root}data/{found.key}")
            if info is None or info.file_size < found.numel * found.item_bytes:
                raise DamagedPickleError(f"tensor {found.key} has fewer numbers than it claims")
            return found

        held = load_restricted(io.BytesIO(archive.read(f"{root}data.pkl")), _lookup, storage)
        broken = archive.testzip()
    if broken is not None:
        raise DamagedPickleError(f"{broken} is damaged")
    return held


def _scan_legacy(content: bytes) -> Any:
    stream = io.BytesIO(content)
    claimed: dict[str, _Storage] = {}

    def storage(pid: Any) -> _Storage:
        found = _storage(pid)
        claimed[found.key] = found
        return found

    parts = [load_restricted(stream, _lookup, storage) for _ in range(_LEGACY_CONTENTS + 2)]
    if parts[0] != _LEGACY_MAGIC:
        raise DamagedPickleError("it is no file of torch")
    # Behind the pickles: for each storage its length as int64, then its numbers.
    wanted = sum(8 + found.numel * found.item_bytes for found in claimed.values())
    if wanted > len(content) - stream.tell():
        raise DamagedPickleError("fewer numbers than it claims")
    return parts[_LEGACY_CONTENTS]


def _storage(pid: Any) -> _Storage:
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":  # noqa: PLR2004 - torch's format
        raise DamagedPickleError("an unusual reference to a storage")
    _, kind, key, _, numel = pid[:5]
    item_bytes = _ITEM_BYTES.get(kind.name) if isinstance(kind, _StorageKind) else None
    if item_bytes is None or type(numel) is not int or numel < 0:
        raise DamagedPickleError("an unusual storage")
    return _Storage(str(key), numel, item_bytes)


@dataclass(frozen=True, slots=True)
class _StorageKind:
    name: str


def _rebuild_tensor(*args: Any) -> _Tensor:
    """Stands for torch's functions that make a tensor of a storage; checks that it lies within the storage."""
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise DamagedPickleError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise DamagedPickleError("a tensor of an impossible shape")
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    if _product(shape) and last >= storage.numel:
        raise DamagedPickleError("a tensor larger than its storage")
    return _Tensor(tuple(shape))


def _rebuild_parameter(*args: Any) -> _Tensor:
    if not args or not isinstance(args[0], _Tensor):
        raise DamagedPickleError("a parameter without a tensor")
    return args[0]


_NAMES: dict[Name, Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageKind(name) for name in _ITEM_BYTES},
}


def _lookup(name: Name) -> Any:
    found = _NAMES.get(name)
    if found is None:
        raise RefusedPickleError(".".join(name))
    return found


def _product(shape: Shape) -> int:
    product = 1
    for side in shape:
        product *= side
    return product
