"""What a file is, told by its content from a few bytes of it: a model, or something that people take for one.

Nothing is unpacked or decoded; what is in a model's zip is read by :mod:`.model_zip`.
"""

import io
import pickletools
import zipfile
from collections.abc import Iterable
from enum import Enum, auto

#: A zip's list of members is at its end: a model's has a dozen entries of less than 100 bytes.
TAIL_BYTES = 16 * 2**10
#: What a pickle is of is named in its first bytes.
HEAD_BYTES = 512

_POINTER = b"version https://git-lfs.github.com/spec/"
_MEMBER, _END = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES = 22
_MACOS = "__MACOSX/"  # resource forks that the Finder puts into zips, under the members' own names
_DATA, _WEIGHTS = "data", "policy.pth"


class FileKind(Enum):
    """What a file is."""

    MODEL = auto()
    #: A model or another zip that is still being written, or was cut off.
    INCOMPLETE = auto()
    #: The few lines that git-lfs keeps in place of a file that wasn't downloaded.
    POINTER = auto()
    #: Weights saved by ``policy.save``, without the model around them.
    BARE_POLICY = auto()
    #: A model of Stable Baselines 2, which was TensorFlow's.
    BASELINES2 = auto()
    OTHER = auto()


def is_pointer(head: bytes) -> bool:
    """Whether a file that begins like this is git-lfs's stand-in for another one."""
    return head.startswith(_POINTER)


def kind_of_members(names: Iterable[str]) -> FileKind:
    """What a zip with these members is."""
    names = set(names)
    if model_folder(names) is not None:
        return FileKind.MODEL
    tops = {name.rpartition("/")[2] for name in names}
    if {"parameters", "parameter_list", _DATA} <= tops:
        return FileKind.BASELINES2
    # torch.save's own zip: <name>/data.pkl beside <name>/version
    return FileKind.BARE_POLICY if {"data.pkl", "version"} <= tops else FileKind.OTHER


def model_folder(names: Iterable[str]) -> str | None:
    """Where in a zip the model's members are: ``""``, or a folder that it was zipped with; None for nowhere.

    Several folders with a model each are nowhere: which one is meant isn't known.
    """
    names = {name for name in names if not name.startswith(_MACOS)}
    if {_DATA, _WEIGHTS} <= names:
        return ""
    folders = {name.removesuffix(_WEIGHTS) for name in names if name.endswith(f"/{_WEIGHTS}")}
    held = [folder for folder in folders if f"{folder}{_DATA}" in names]
    return held[0] if len(held) == 1 else None


def kind_of_bytes(head: bytes, tail: bytes, size: int) -> FileKind:
    """What a file is that begins and ends with these bytes.

    Args:
        head: its first bytes, all of a short file.
        tail: its last :data:`TAIL_BYTES`, all of a shorter file.
        size: of the whole file, in bytes.
    """
    if is_pointer(head):
        return FileKind.POINTER
    infos = _members(tail, size)
    if infos:
        # Weights are zips themselves: a model that is cut off behind them ends like a zip with something in front.
        whole = min(info.header_offset for info in infos) == 0
        return kind_of_members(info.filename for info in infos) if whole else FileKind.INCOMPLETE
    # Other zips end with their own end, too: one with more members than the tail has.
    if head.startswith(_MEMBER) and not tail[-_END_BYTES:].startswith(_END):
        return FileKind.INCOMPLETE
    return FileKind.OTHER if size else FileKind.INCOMPLETE


def pickled_class(head: bytes) -> str:
    """The name of the first class or function that a pickle names, ``""`` if its first bytes name none.

    The opcodes are listed, not followed: nothing is executed.
    """
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name == "GLOBAL":
                return str(argument).rpartition(" ")[2]
            if opcode.name == "STACK_GLOBAL":
                return texts[-1] if texts else ""
            if isinstance(argument, str):
                texts.append(argument)
    except Exception:  # noqa: BLE001 (whatever its parser raises on bytes that are no pickle, or a pickle's beginning)
        return ""
    return ""


def _members(tail: bytes, size: int) -> list[zipfile.ZipInfo]:
    """The members that the end of a file lists, none if it isn't a zip's."""
    try:
        with zipfile.ZipFile(_End(tail, size)) as archive:
            return archive.infolist()
    except Exception:  # noqa: BLE001 (zipfile raises errors of ten kinds on bytes that are no zip's)
        return []


class _End(io.RawIOBase):
    """A file of which only the end is there."""

    def __init__(self, tail: bytes, size: int) -> None:
        super().__init__()
        self._tail, self._size, self._position = tail, size, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, length: int = -1) -> bytes:
        begin = self._position - (self._size - len(self._tail))
        if begin < 0:
            raise OSError("that part of the file isn't there")
        content = self._tail[begin : begin + length if length >= 0 else None]
        self._position += len(content)
        return content
