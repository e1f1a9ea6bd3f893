"""Pictures of actions: read from people's files, checked against the labels, kept as arrays below the data root.

The labels themselves are the registry's ``action_names``; which of them fit a space is decided in
:mod:`rlhfblender_core.environments.actions`.
"""

import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import action_label_path
from rlhfblender_core.errors import DataNotUsableError, InvalidNameError, InvalidParameterError
from rlhfblender_core.names import path_segment, shorten
from rlhfblender_core.storage import LARGE_BYTES, DataRoot, publish_many_bytes, read_many
from rlhfblender_core.untrusted.limits import MAX_PICTURE_BYTES
from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy
from rlhfblender_core.untrusted.pictures import open_picture

#: (height, width, 3 or 4) uint8: RGB, or RGBA.
Picture = NDArray[np.uint8]

ARRAY = ".npy"
PICTURE_EXTENSIONS = frozenset({ARRAY, ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_CHANNELS = (3, 4)
#: Longest side in pixels: icons are a hundred, and a bomb is larger.
_MAX_SIDE = 4096
#: ``0_left.png``, as RLHF-Blender wants it, is the picture of ``left`` too.
_INDEX = re.compile(r"\d+_")


def find_pictures(given: Sequence[str], labels: Sequence[str]) -> dict[str, Path]:
    """The picture file of each label that has one.

    Args:
        given: ``label=file`` each, or one folder whose files are named by label (``left.png`` or ``0_left.png``).
        labels: those of the environment, in order.

    Raises:
        InvalidParameterError: no labels are set, a file is missing, a label is unknown or has two pictures.
    """
    if not labels:
        raise InvalidParameterError("Pictures need labels first: set them with --set-action-labels.")
    found: dict[str, Path] = {}
    for label, file in _folder_files(Path(given[0]), labels) if _is_folder(given) else map(_split, given):
        if label not in labels:
            raise InvalidParameterError(
                f"There is no action label {shorten(label)!r} for {file}. The labels are {', '.join(labels)}."
            )
        if label in found:
            raise InvalidParameterError(f"The label {label!r} has two pictures, {found[label]} and {file}. Give one.")
        if not file.is_file():
            raise InvalidParameterError(f"There is no file {str(file)!r} for the label {label!r}. Check the path.")
        found[label] = file
    if not found:
        kinds = ", ".join(sorted(PICTURE_EXTENSIONS))
        raise InvalidParameterError(f"The folder {given[0]!r} has no pictures. Put <label>.png there ({kinds}).")
    return found


def _is_folder(given: Sequence[str]) -> bool:
    return len(given) == 1 and Path(given[0]).is_dir()


def _split(text: str) -> tuple[str, Path]:
    label, equals, file = text.partition("=")
    if not equals or not label or not file:
        raise InvalidParameterError(
            f"--set-action-images takes label=file.png, or one existing folder, not {shorten(text)!r}."
        )
    return label, Path(file).expanduser()


def _folder_files(folder: Path, labels: Sequence[str]) -> Iterable[tuple[str, Path]]:
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in PICTURE_EXTENSIONS and not file.name.startswith("."):
            yield (file.stem if file.stem in labels else _INDEX.sub("", file.stem, count=1)), file


def read_picture(file: Path) -> Picture:
    """A picture file as an array.

    Raises:
        DataNotUsableError: it is no picture, too large, or an array of another shape or dtype.
    """
    if file.stat().st_size > MAX_PICTURE_BYTES:
        raise DataNotUsableError(f"The picture {file} has more than {MAX_PICTURE_BYTES >> 20} MiB. Make it smaller.")
    if file.suffix.lower() == ARRAY:
        return _checked(_read_array(file.read_bytes(), str(file)), str(file))
    with open_picture(file, str(file)) as picture:
        if max(picture.size) > _MAX_SIDE:
            raise DataNotUsableError(
                f"The picture {file} is {picture.width}×{picture.height}; at most {_MAX_SIDE} pixels a side are taken."
            )
        return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


def _read_array(content: bytes, shown: str) -> NDArray[Any]:
    try:
        return parse_npy(content)
    except DamagedArrayError as error:
        raise DataNotUsableError(f"{shown} is no array that loads without pickles. Save a uint8 array.") from error


def _checked(array: NDArray[Any], shown: str) -> Picture:
    is_picture = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim == 3  # noqa: PLR2004 (axes)
    if not is_picture or array.shape[2] not in _CHANNELS or 0 in array.shape or max(array.shape[:2]) > _MAX_SIDE:
        found = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataNotUsableError(f"{shown} is {found}, not (height, width, 3 or 4) uint8 of up to {_MAX_SIDE} a side.")
    return array


def picture_paths(env_id: str, labels: Sequence[str]) -> dict[str, str]:
    """Path below the data root by label.

    Raises:
        InvalidNameError: a label can't be a file's name.
        InvalidParameterError: two labels would be the same file.
    """
    paths: dict[str, str] = {}
    for label in labels:
        path = action_label_path(env_id, label)
        if path in paths.values():
            raise InvalidParameterError(f"The pictures of two labels would be the same file, {path}. Rename one label.")
        paths[label] = path
    return paths


def check_pictured(env_id: str, pictured: Collection[str], labels: Sequence[str]) -> None:
    """Checks that the labels which get pictures have files of their own. Others, such as ``?``, need no file.

    Raises:
        InvalidNameError, InvalidParameterError: see :func:`picture_paths`.
    """
    picture_paths(env_id, [label for label in labels if label in pictured or _can_be_a_file(label)])


def _can_be_a_file(label: str) -> bool:
    try:
        path_segment(label)
    except InvalidNameError:
        return False
    return True


def store_pictures(root: DataRoot, env_id: str, pictures: Mapping[str, Picture]) -> None:
    """Writes pictures by label, each complete or not at all; those of other labels stay.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    paths = picture_paths(env_id, tuple(pictures))
    publish_many_bytes(root, {paths[label]: _to_npy(picture) for label, picture in pictures.items()})


def load_pictures(root: DataRoot, env_id: str, labels: Sequence[str]) -> dict[str, Picture]:
    """The pictures that there are, by label, in the labels' order.

    Raises:
        DataNotUsableError: one of them is damaged.
    """
    paths: dict[str, str] = {}
    for label in filter(_can_be_a_file, labels):
        path = action_label_path(env_id, label)
        if path not in paths.values():
            paths[label] = path
    contents = read_many(root, paths.values(), most=LARGE_BYTES)
    return {
        label: _checked(_read_array(contents[path], root.display_url(path)), root.display_url(path))
        for label, path in paths.items()
        if path in contents
    }


def _to_npy(picture: Picture) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(picture), allow_pickle=False)
    return stream.getvalue()
