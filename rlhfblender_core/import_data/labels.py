"""Pictures of actions in a source, stored as this data set's arrays."""

import re
from pathlib import Path

from rlhfblender_core.dataset.action_labels import PICTURE_EXTENSIONS, Picture, read_picture, store_pictures
from rlhfblender_core.dataset.layout import ACTION_LABELS, action_label_path
from rlhfblender_core.errors import DataNotUsableError, InvalidNameError, one_line
from rlhfblender_core.storage import DataRoot

#: ``0_left.png``: RLHF-Blender's way to give an order.
_INDEX = re.compile(r"^\d+_")
_VECTOR = ".svg"


def import_action_labels(root: DataRoot, folder: Path) -> tuple[int, tuple[str, ...]]:
    """Stores the pictures in the folder's ``action_labels/<environment>/``, of all environments.

    Returns:
        How many were stored, and one line per file that could not be, naming it.
    """
    stored, faults = 0, []
    base = folder / ACTION_LABELS
    for environment in sorted(base.iterdir()) if base.is_dir() else []:
        pictures: dict[str, Picture] = {}
        for file in sorted(environment.iterdir()) if environment.is_dir() else []:
            if file.is_dir() or file.name.startswith("."):
                continue
            try:
                label, picture = _read(environment.name, file)
            except (DataNotUsableError, InvalidNameError) as error:
                faults.append(f"{file.relative_to(folder).as_posix()}: {one_line(error)}")
                continue
            if not _is_in_place(root, environment.name, label, file):
                pictures[label] = picture
        if pictures:
            store_pictures(root, environment.name, pictures)
            stored += len(pictures)
    return stored, tuple(faults)


def _read(environment: str, file: Path) -> tuple[str, Picture]:
    if not file.is_file():  # a pipe would be waited for
        raise DataNotUsableError("is no file.")
    if file.suffix.lower() == _VECTOR:
        raise DataNotUsableError("SVG pictures are not taken. Convert it to PNG.")
    if file.suffix.lower() not in PICTURE_EXTENSIONS:
        raise DataNotUsableError("is no picture. Give PNG or JPEG files.")
    label = _INDEX.sub("", file.stem) or file.stem
    action_label_path(environment, label)  # a name that can't be stored is refused before anything is read
    return label, read_picture(file)


def _is_in_place(root: DataRoot, environment: str, label: str, file: Path) -> bool:
    target = root.local_folder / action_label_path(environment, label) if root.is_local else None
    return target is not None and target.exists() and target.samefile(file)
