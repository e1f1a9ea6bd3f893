"""Pictures of actions, which the server lists by their names. A folder that has pictures of others keeps them alone."""

import hashlib
import io

from PIL import Image

from rlhfblender_core.dataset.action_labels import load_pictures
from rlhfblender_core.export.index import read_numbers, write_numbers
from rlhfblender_core.export.rlhfblender import names
from rlhfblender_core.export.rlhfblender.database import ExperimentEntry
from rlhfblender_core.storage import LARGE_BYTES, DataRoot, publish_many_bytes, read_many, remove_files


def export_action_pictures(root: DataRoot, target: DataRoot, entry: ExperimentEntry) -> None:
    """Writes ``<index>_<label>.png``; removes those of labels that were renamed, where there are any pictures.

    Nothing is written or removed where a picture isn't one that an export has written: the server shows all that it
    finds there, and numbers of both would clash.
    """
    wanted = _wanted(root, entry)
    if not wanted:
        return
    local = target.local_folder / names.action_label_folder(entry.env_name)
    paths = [f"{names.action_label_folder(entry.env_name)}/{file.name}" for file in local.glob("*.png")]
    there = read_many(target, paths, most=LARGE_BYTES)
    numbers = read_numbers(target)
    if any(
        content != wanted.get(path) and _digest(content) != numbers.pictures.get(path)
        for path, content in there.items()
    ):
        return
    publish_many_bytes(target, {path: content for path, content in wanted.items() if there.get(path) != content})
    remove_files(target, [path for path in there if path not in wanted])
    others = {path: digest for path, digest in numbers.pictures.items() if path not in there}
    numbers.pictures = others | {path: _digest(content) for path, content in wanted.items()}
    write_numbers(target, numbers)


def _wanted(root: DataRoot, entry: ExperimentEntry) -> dict[str, bytes]:
    labels = entry.environment.action_names or ()
    pictures = load_pictures(root, entry.environment.env_id, labels) if labels else {}
    folder = names.action_label_folder(entry.env_name)
    wanted = {}
    for index, label in enumerate(labels):
        if label in pictures:
            stream = io.BytesIO()
            Image.fromarray(pictures[label]).save(stream, "PNG")
            wanted[f"{folder}/{names.action_label_file(index, len(labels), label)}"] = stream.getvalue()
    return wanted


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
