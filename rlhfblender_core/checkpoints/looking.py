"""What the files of a folder are, told by small reads of their content: a few kilobytes each, some dozens at once."""

from collections.abc import Mapping, Sequence

from rlhfblender_core.checkpoints.listing import Folder, is_local, open_filesystem, open_folder, storage_errors
from rlhfblender_core.storage import is_not_found
from rlhfblender_core.untrusted.file_kinds import HEAD_BYTES, TAIL_BYTES, FileKind, kind_of_bytes, pickled_class

#: Reads that an object storage is asked for side by side; together they hold 1 MiB.
_AT_ONCE = 64
#: The members by which an unzipped model's folder is known.
UNZIPPED = frozenset({"data", "policy.pth"})


def kinds_of(folder: Folder, names: Sequence[str]) -> dict[str, FileKind]:
    """What these files of a folder are, by name; at most two small reads each.

    Raises:
        StorageNotUsableError, StorageUnavailableError: the folder's storage can't be read.
    """
    kinds: dict[str, FileKind] = {}
    for start in range(0, len(names), _AT_ONCE):
        kinds |= _kinds(folder, names[start : start + _AT_ONCE])
    return kinds


def kind_of(url: str, storage_options: Mapping[str, object] | None = None) -> FileKind:
    """What a file is; an unzipped model counts as a model.

    Raises:
        CheckpointNotUsableError: there is nothing.
        StorageNotUsableError, StorageUnavailableError: its storage can't be read.
    """
    with storage_errors(url):
        filesystem, inner = open_filesystem(url, storage_options)
        info = filesystem.info(inner)
        if info["type"] == "directory":
            held = open_folder(url, storage_options).files
            return FileKind.MODEL if held >= UNZIPPED else FileKind.INCOMPLETE
        size = int(info["size"])
        tail = filesystem.cat_file(inner, start=max(0, size - TAIL_BYTES), end=size) if size else b""
        head = tail if size <= TAIL_BYTES else filesystem.cat_file(inner, start=0, end=HEAD_BYTES)
        return kind_of_bytes(head[:HEAD_BYTES], tail, size)


def pickled_classes(folder: Folder, names: Sequence[str]) -> dict[str, str]:
    """The first class that each of these pickles names, by the file's name; nothing of them is executed."""
    heads: dict[str, bytes] = {}
    for start in range(0, len(names), _AT_ONCE):
        batch = names[start : start + _AT_ONCE]
        heads |= _read(folder, {name: (0, min(folder.sizes.get(name, HEAD_BYTES), HEAD_BYTES)) for name in batch})
    return {name: pickled_class(head) for name, head in heads.items()}


def _kinds(folder: Folder, names: Sequence[str]) -> dict[str, FileKind]:
    sizes = {name: folder.sizes.get(name, 0) for name in names}
    tails = _read(folder, {name: (max(0, size - TAIL_BYTES), size) for name, size in sizes.items() if size})
    kinds = dict.fromkeys(names, FileKind.OTHER)
    # Only .zip says of an empty file what it is going to be.
    kinds |= {name: FileKind.INCOMPLETE for name, size in sizes.items() if not size and name.endswith(".zip")}
    kinds |= {name: kind_of_bytes(tail[:HEAD_BYTES], tail, sizes[name]) for name, tail in tails.items()}
    long = [name for name in tails if kinds[name] is FileKind.OTHER and sizes[name] > TAIL_BYTES]
    heads = _read(folder, dict.fromkeys(long, (0, HEAD_BYTES)))
    return kinds | {name: kind_of_bytes(head, tails[name], sizes[name]) for name, head in heads.items()}


def _read(folder: Folder, ranges: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
    """Parts of files, from first to last byte by name; files that are gone by now, or unreadable here, are left out."""
    if not ranges:
        return {}
    with storage_errors(folder.path):
        filesystem, inner = open_filesystem(folder.path, folder.storage_options)
        paths = [f"{inner.rstrip('/')}/{name}" for name in ranges]
        starts, ends = [start for start, _ in ranges.values()], [end for _, end in ranges.values()]
        contents = filesystem.cat_ranges(paths, starts, ends, on_error="return")
        for content in contents:
            if isinstance(content, Exception) and not is_local(folder.path) and not is_not_found(content):
                raise content
    return {name: part for name, part in zip(ranges, contents, strict=True) if isinstance(part, bytes)}
