"""What the page shows beside a video, for pages opened from a disk: browsers let those load scripts, no other files.

A page from a web server reads the episode's own files. For one from a disk the same bytes lie in scripts: arrays as
they are in the ``.npz``, still compressed, so that nothing is decoded here and the page has one reader for both.
"""

import base64
import struct
import zipfile
import zlib
from pathlib import Path

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.gallery.escape import JsonValue
from rlhfblender_core.storage import DataRoot, read_many
from rlhfblender_core.untrusted.archives import DAMAGED_ARCHIVE, RefusedArchiveError, open_archive

#: Arrays that the page draws, by their names in the ``.npz``, beside ``obs`` and ``obs.<key>``.
_SHOWN = frozenset({"actions", "rewards", "probs", "action_mean", "action_std", "entropy", "values", "q_values"})
#: Compressed bytes of an array above which only a page from a web server shows it: pictures, and very long episodes.
_MAX_ARRAY_BYTES = 256 << 10
#: Bytes of a step above which an array isn't drawn: pixels are no curves.
_MAX_STEP_BYTES, _HEADER_BYTES = 4096, 1024
#: Bytes of a curve's file above which it isn't shown from a disk: a million steps.
_MAX_CURVE_BYTES = 8 << 20
#: Episodes with lower numbers have their arrays in scripts: all of very many would be the data set twice.
ARRAYS_BELOW = 1000
_LOCAL_HEADER_BYTES = 30
_RAW_DEFLATE = -15


def details(root: DataRoot, key: EpisodeKey, length: int, *, is_finite: bool = True) -> JsonValue:
    """An episode's arrays for the page: ``[method, base64]`` by name, where method 8 is deflate and 0 is none.

    None stands for an array that is too large for a script.

    Args:
        root: a local data root.
        key: the episode.
        length: its steps.
        is_finite: whether its return is.
    """
    found: dict[str, JsonValue] = {}
    for kind in (ArtifactKind.REWARDS, ArtifactKind.UNCERTAINTY):
        path = artifact_path(kind, key)
        content = read_many(root, [path], most=_MAX_CURVE_BYTES).get(path)
        if content:
            found[kind] = [zipfile.ZIP_DEFLATED, _base64(_deflated(content))]
    if key.episode < ARRAYS_BELOW:
        arrays = _arrays(root.local_folder / artifact_path(ArtifactKind.EPISODES, key), length)
        # Where rewards add up to a number the file of their sums tells each of them.
        rewards = arrays.pop("rewards", None)
        found |= arrays if is_finite else arrays | {"step_rewards": rewards}
    return found


def _arrays(path: Path, length: int) -> dict[str, JsonValue]:
    """Members of an ``.npz``, as they are in it, None for those that are too large; none of a damaged file."""
    try:
        with open_archive(path) as archive:
            members = [member for member in archive.infolist() if _is_drawn(member, length)]
            return {
                member.filename.removesuffix(".npy"): _member(archive, member)
                if member.compress_size <= _MAX_ARRAY_BYTES
                else None
                for member in members
            }
    except (OSError, RefusedArchiveError, *DAMAGED_ARCHIVE):
        return {}  # verify.py says what is wrong with it


def _is_drawn(member: zipfile.ZipInfo, length: int) -> bool:
    name = member.filename.removesuffix(".npy")
    is_known = name in _SHOWN or name == "obs" or name.startswith("obs.")
    is_plain = member.compress_type in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED) and not member.flag_bits & 1
    return is_known and is_plain and member.file_size <= _HEADER_BYTES + _MAX_STEP_BYTES * length


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> JsonValue:
    stream = archive.fp
    assert stream is not None  # noqa: S101 (for the type checker: it is open)
    stream.seek(member.header_offset)
    # The list of members tells where a header begins; how long its name and extra fields are tells only the header.
    name_bytes, extra_bytes = struct.unpack("<HH", stream.read(_LOCAL_HEADER_BYTES)[26:30])
    stream.seek(name_bytes + extra_bytes, 1)
    return [member.compress_type, _base64(stream.read(member.compress_size))]


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, _RAW_DEFLATE)
    return packer.compress(content) + packer.flush()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
