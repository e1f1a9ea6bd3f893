"""Files of weights that say one thing to the scanner and another to torch, or more than they have."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest

from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.weights import WeightShapes, scan_weights

_LARGE = 2**20
_CENTRAL = b"PK\x01\x02"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def tensor(key: str, claimed: int, shape: int, *, behind: bytes = b"") -> bytes:
    """Opcodes for a tensor in the first numbers of a storage that claims to have so many."""
    kind = b"ctorch\nFloatStorage\n"
    storage = b"(" + _text("storage") + kind + _text(key) + _text("cpu") + _number(claimed) + behind + b"tQ"
    view = b"K\x00" + _number(shape) + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"tR"


def tensors(*opcodes: bytes) -> bytes:
    """The pickle of a dict of them."""
    return b"\x80\x02}(" + b"".join(_text(f"{number}") + one for number, one in enumerate(opcodes)) + b"u."


def legacy(*opcodes: bytes, numbers: int) -> bytes:
    """As torch wrote it before 1.6, with one storage."""
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system))
    return head + tensors(*opcodes) + pickle.dumps(["0"], 2) + struct.pack("<q", numbers) + bytes(4 * numbers + 64)


def members(content: bytes, numbers: int) -> dict[str, bytes]:
    """Of a file with one storage."""
    return {"a/data.pkl": content, "a/byteorder": b"little", "a/data/0": bytes(4 * numbers), "a/version": b"3\n"}


def stored(held: dict[str, bytes]) -> bytes:
    """A zip of them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    return stream.getvalue()


def scanned(content: bytes) -> WeightShapes:
    return scan_weights(Path("model.zip"), "policy.pth", content)


def size_for_torch(content: bytes) -> int:
    """Of the first tensor, as torch loads it."""
    import torch

    held = torch.load(io.BytesIO(content), weights_only=True)
    return int(next(iter(held.values())).numel())


def two_lists(one: bytes, other: bytes) -> bytes:
    """Two zips with lists of the same length: the end is the first one's, and names the place of the second one's."""
    end, length, begin = one.rindex(b"PK\x05\x06"), *struct.unpack_from("<LL", one, one.rindex(b"PK\x05\x06") + 12)
    hidden = other[: other.rindex(b"PK\x05\x06")]
    where = len(hidden) - length
    listed = bytearray(one[begin : begin + length])
    place = -1
    while (place := listed.find(_CENTRAL, place + 1)) >= 0:  # zipfile adds how far the list isn't where it should be
        (offset,) = struct.unpack_from("<L", listed, place + 42)
        struct.pack_into("<L", listed, place + 42, len(hidden) + offset - (len(hidden) + begin - where))
    ending = bytearray(one[end:])
    struct.pack_into("<L", ending, 16, where)
    return hidden + one[:begin] + bytes(listed) + bytes(ending)


def test_list_of_members_lies_where_other_readers_look_for_it() -> None:
    small, large = (stored(members(tensors(tensor("0", n, n)), n)) for n in (1, _LARGE))
    assert scanned(small).numel == 1
    content = two_lists(small, large)
    assert size_for_torch(content) == _LARGE, "torch reads what the scanner does: this test shows nothing"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.getinfo("a/data/0").file_size == 4
    with pytest.raises(CheckpointNotUsableError, match="foreign bytes in front"):
        scanned(content)


def test_member_has_one_name() -> None:
    """Python cuts names at a null byte, from 3.12 on it takes Info-ZIP's field for a second one; torch does neither."""
    content = stored(members(tensors(tensor("0", 1, 1)), 1)).replace(b"a/version", b"a/vers\0on")
    with pytest.raises(CheckpointNotUsableError, match="members of two names"):
        scanned(content)


def test_numbers_that_tensors_share_are_counted_once() -> None:
    claims = (tensor("0", 1000 - number, 1) for number in range(500))
    assert scanned(stored(members(tensors(*claims), 1000))).numel == 1000


@pytest.mark.parametrize("sizes", [(10**9, 1), (1, 10**9)])
def test_storage_of_two_sizes_is_as_large_as_it_claims_to_be(sizes: tuple[int, int]) -> None:
    honest = legacy(tensor("0", 7, 7, behind=b"N"), numbers=7)
    assert scanned(honest).shapes == {"0": (7,)}
    assert size_for_torch(honest) == 7
    content = legacy(*(tensor("0", size, 1, behind=b"N") for size in sizes), numbers=1)
    with pytest.raises(CheckpointNotUsableError, match="fewer numbers than it claims"):
        scanned(content)
