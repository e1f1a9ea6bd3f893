"""Writes the gallery: a page, and scripts with the data that it loads when they are needed.

Scripts are named by their content and published before the page that refers to them; those of an earlier page are
removed last. So a reader never sees a page and data that don't belong together.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.gallery.collect import (
    Checkpoint,
    each_curves,
    episode_json,
    find_checkpoints,
    find_experiments,
    summary_json,
)
from rlhfblender_core.gallery.curves import spark
from rlhfblender_core.gallery.escape import JsonValue, escaped, script_json
from rlhfblender_core.gallery.hand_laid import hand_laid_notes
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot, list_sizes, publish_bytes, publish_many_bytes, remove_files
from rlhfblender_core.wording import counted

INDEX_PATH = "gallery/index.html"
_SCRIPTS = "gallery/data"
#: Characters of curves in one script: what a reader waits for when an episode is opened.
_CHUNK_CHARACTERS = 256_000
#: Scripts that are published together.
_AT_ONCE = 16
_PAGE_SCRIPTS = ("dom.js", "store.js", "checkpoints.js", "grid.js", "curve.js", "player.js", "viewer.js", "main.js")


@dataclass(frozen=True)
class GalleryReport:
    """What was written.

    Attributes:
        page: where the page is, as a person would use it.
        experiments, checkpoints, episodes: how many it shows.
        without_video: episodes among them of which only curves are shown.
        notes: one line per experiment with episodes that can't be shown yet.
    """

    page: str
    experiments: int
    checkpoints: int
    episodes: int
    without_video: int
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What was written, in two lines, and the notes."""
        without = f" ({self.without_video:,} without video)" if self.without_video else ""
        where = f"{counted(self.checkpoints, 'checkpoint')}, {counted(self.experiments, 'experiment')}"
        first = f"{counted(self.episodes, 'episode')}{without} of {where}"
        return "\n".join([first, *self.notes, f"Open in a browser: {self.page}"])


def gallery(
    *,
    exp: Sequence[str] = (),
    data_root: str = DEFAULT_DATA_ROOT,
    storage_options: Mapping[str, Any] | None = None,
) -> GalleryReport:
    """Writes a page for looking at episodes into the data root, without Prefect.

    Args:
        exp: experiments to show; none for all that have episodes.
        data_root: folder or fsspec URL.
        storage_options: for fsspec.

    Raises:
        RequestError: there are no such episodes.
        TransientError: the storage is gone.
    """
    return LocalRunner().do(write_page, exp, locate(data_root, None, storage_options))


def write_page(exp: Sequence[str], locations: Locations) -> GalleryReport:
    """Writes the page and its data from what is published now."""
    return write_gallery(locations.open_root(), exp)


def write_gallery(root: DataRoot, experiments: Sequence[str] = ()) -> GalleryReport:
    """Writes the page for these experiments, or for all that have episodes.

    Raises:
        DataNotUsableError: there are no such episodes, or a manifest can't be read.
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    scripts = _Scripts(root)
    shown: list[JsonValue] = []
    checkpoints: list[Checkpoint] = []
    for name in find_experiments(root, experiments):
        found = list(find_checkpoints(root, name))
        if found:
            shown.append(_experiment_json(root, name, found, scripts.add))
            checkpoints += found
    scripts.flush()
    publish_bytes(root, INDEX_PATH, _page(shown))
    scripts.remove_others()
    videos = sum(len(_episodes_with_video(checkpoint)) for checkpoint in checkpoints)
    episodes = sum(len(checkpoint.manifests) for checkpoint in checkpoints)
    notes = hand_laid_notes(root, experiments, (checkpoint.published for checkpoint in checkpoints))
    return GalleryReport(root.display_url(INDEX_PATH), len(shown), len(checkpoints), episodes, episodes - videos, notes)


def _episodes_with_video(checkpoint: Checkpoint) -> list[int]:
    return [m.episode for m in checkpoint.manifests if checkpoint.has_file(ArtifactKind.RENDERS, m)]


def _experiment_json(
    root: DataRoot, name: str, checkpoints: Sequence[Checkpoint], add_script: Callable[[JsonValue], str]
) -> JsonValue:
    first = checkpoints[-1].first
    summaries = [summary_json(found, _checkpoint_script(root, found, add_script)) for found in checkpoints]
    return {"name": name, "environment": first.environment.id, "checkpoints": summaries}


def _checkpoint_script(root: DataRoot, checkpoint: Checkpoint, add_script: Callable[[JsonValue], str]) -> str:
    """Adds the scripts of a checkpoint: its curves in chunks, and one that lists its episodes."""
    rows: list[JsonValue] = []
    chunks: list[str] = []
    chunk: dict[str, JsonValue] = {}
    size = 0
    for manifest, curves in each_curves(root, checkpoint):
        packed = curves.to_json()
        size += sum(len(text) for text in packed if isinstance(text, str)) if isinstance(packed, list) else 0
        chunk[str(manifest.episode)] = packed
        rows.append(episode_json(checkpoint, manifest, len(chunks), spark(curves.rewards)))
        if size >= _CHUNK_CHARACTERS:
            chunks.append(add_script(chunk))
            chunk, size = {}, 0
    if chunk:
        chunks.append(add_script(chunk))
    return add_script({"episodes": rows, "chunks": chunks})


class _Scripts:
    """The data scripts of a page, each named by its content."""

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self._there = list_sizes(root, _SCRIPTS)
        self._names: set[str] = set()
        self._waiting: dict[str, bytes] = {}

    def add(self, value: JsonValue) -> str:
        """Publishes the value's script, now or with the next ones; returns its name."""
        text = script_json(value)
        name = hashlib.sha256(text.encode()).hexdigest()[:20]
        content = f'galleryData("{name}",{text});\n'.encode()
        if self._there.get(f"{name}.js") != len(content) and name not in self._names:
            self._waiting[f"{_SCRIPTS}/{name}.js"] = content
        self._names.add(name)
        if len(self._waiting) >= _AT_ONCE:
            self.flush()
        return name

    def flush(self) -> None:
        """Publishes those that wait."""
        publish_many_bytes(self._root, self._waiting)
        self._waiting = {}

    def remove_others(self) -> None:
        """Removes scripts of earlier pages."""
        remove_files(self._root, [f"{_SCRIPTS}/{name}" for name in self._stale()])

    def _stale(self) -> Iterator[str]:
        return (name for name in self._there if name.removesuffix(".js") not in self._names)


def _page(experiments: Sequence[JsonValue]) -> bytes:
    names = [str(shown["name"]) for shown in experiments if isinstance(shown, dict)]
    title = f"{names[0]} · episodes" if len(names) == 1 else "Episodes"
    parts = {
        "title": escaped(title),
        "style": _resource("gallery.css"),
        "data": script_json({"experiments": experiments}),
        "script": "\n".join(_resource(name) for name in _PAGE_SCRIPTS),
    }
    # Split once by the template's own marks: nothing that is filled in can bring marks of its own.
    first, *rest = _resource("index.html").split("{{")
    filled = [parts[mark] + text for mark, _, text in (piece.partition("}}") for piece in rest)]
    return "".join([first, *filled]).encode()


def _resource(name: str) -> str:
    return (files("rlhfblender_core.gallery") / "page" / name).read_text(encoding="utf-8")
