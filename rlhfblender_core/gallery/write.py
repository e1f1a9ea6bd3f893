"""Writes the gallery: a page, and the pieces of data that it loads when they are needed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.errors import RegistryNotUsableError
from rlhfblender_core.gallery.collect import Checkpoint, find_experiments, find_labels, look_at, training_order
from rlhfblender_core.gallery.escape import JsonValue, escaped, script_json
from rlhfblender_core.gallery.figures import each_block
from rlhfblender_core.gallery.hand_laid import hand_laid_notes
from rlhfblender_core.gallery.pieces import Pieces
from rlhfblender_core.gallery.summaries import summary_json
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import Registry, open_existing_registry
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot, publish_bytes
from rlhfblender_core.wording import InWords, counted

INDEX_PATH = "gallery/index.html"
_PAGE_SCRIPTS = (
    *("dom.js", "store.js", "arrays.js", "chart.js", "grid.js", "plot.js", "player.js", "together.js"),
    *("details.js", "viewer.js", "main.js"),
)


@dataclass(frozen=True)
class GalleryReport(InWords):
    """What was written.

    Attributes:
        page: where the page is, as a person would use it.
        experiments, checkpoints, episodes: how many it shows.
        without_video: episodes among them of which only curves are shown.
        pieces_written: pieces of data that had to be made; the others were there.
        notes: what a person should know of what is shown, or isn't.
    """

    page: str
    experiments: int
    checkpoints: int
    episodes: int
    without_video: int
    pieces_written: int = 0
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """What was written, in two lines, and a line for each note."""
        without = f" ({self.without_video:,} without video)" if self.without_video else ""
        where = f"{counted(self.checkpoints, 'checkpoint')}, {counted(self.experiments, 'experiment')}"
        what = f"{counted(self.episodes, 'episode')}{without} of {where}"
        # Browsers don't know s3://.
        how = "Open at the storage's web address" if "://" in self.page else "Open in a browser"
        return "\n".join([what, *self.notes, f"{how}: {self.page}"])


@check_arguments
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
    registry = None
    with suppress(RegistryNotUsableError):  # the page is made from the manifests alone, which takes longer
        registry = open_existing_registry(locations.database_url)
    if registry is None:
        return write_gallery(locations.open_root(), exp)
    with registry:
        return write_gallery(locations.open_root(), exp, registry)


def write_gallery(root: DataRoot, experiments: Sequence[str] = (), registry: Registry | None = None) -> GalleryReport:
    """Writes the page for these experiments, or for all that have episodes.

    Args:
        root: the data root.
        experiments: their names; none for all.
        registry: its rows spare reading manifests of episodes that the page has already.

    Raises:
        DataNotUsableError: there are no such episodes, or a manifest can't be read.
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    writer = _Writer(root, registry)
    shown = [found for name in find_experiments(root, experiments) if (found := writer.experiment(name))]
    writer.pieces.flush()
    notes = hand_laid_notes(root, experiments, writer.hand_laid)
    publish_bytes(root, INDEX_PATH, _page(shown, notes))
    writer.pieces.remove_others()
    return GalleryReport(
        root.display_url(INDEX_PATH),
        len(shown),
        writer.checkpoints,
        writer.episodes,
        writer.without_video,
        writer.pieces.written,
        notes,
    )


class _Writer:
    """Writes the pieces of one experiment after another, and counts."""

    def __init__(self, root: DataRoot, registry: Registry | None) -> None:
        self._root, self._registry = root, registry
        self.pieces = Pieces(root)
        self.hand_laid: dict[CheckpointKey, int] = {}
        self.checkpoints = self.episodes = self.without_video = 0

    def experiment(self, name: str) -> dict[str, JsonValue] | None:
        """The experiment as the page knows it; None if it has no episodes."""
        found: list[tuple[tuple[int, int, str], JsonValue]] = []
        environment = ""
        for label in find_labels(self._root, name):
            checkpoint = look_at(self._root, CheckpointKey(name, label))
            if checkpoint is not None:
                environment = checkpoint.first.environment.id
                found.append((training_order(label, checkpoint.first.step), self._checkpoint(checkpoint)))
        shown = [summary for _, summary in sorted(found, key=lambda pair: pair[0])]
        facts = {"name": name, "environment": environment, **_action_facts(self._registry, environment)}
        return {**facts, "checkpoints": shown} if shown else None

    def _checkpoint(self, checkpoint: Checkpoint) -> JsonValue:
        without_manifest = np.setdiff1d(checkpoint.files[ArtifactKind.EPISODES], checkpoint.numbers)
        self.hand_laid[checkpoint.key] = int(without_manifest.size)
        pieces: list[JsonValue] = []
        returns, lengths = [], []
        for indexed in each_block(self._root, self._registry, checkpoint):
            name, block = self.pieces.ensure(checkpoint, indexed)
            pieces.append([name, int(block.numbers[0]), int(block.numbers.size)])
            returns.append(block.returns)
            lengths.append(block.lengths)
            self.without_video += int((~checkpoint.has_file(ArtifactKind.RENDERS, block.numbers)).sum())
        self.checkpoints += 1
        self.episodes += sum(block.size for block in lengths)
        return summary_json(checkpoint, np.concatenate(returns), np.concatenate(lengths), pieces)


def _action_facts(registry: Registry | None, environment: str) -> dict[str, JsonValue]:
    """The lowest action of a ``Discrete`` space, which labels and probabilities begin with, and the labels of today."""
    known = registry.find_environment(environment) if registry is not None and environment else None
    first = known.action_space.get("start") if known is not None else None
    names = known.action_names if known is not None else None
    return {"firstAction": first if isinstance(first, int) else 0, "actions": list(names) if names else None}


def _page(experiments: Sequence[Mapping[str, JsonValue]], notes: Sequence[str]) -> bytes:
    names = [str(shown["name"]) for shown in experiments]
    title = f"{names[0]} · episodes" if len(names) == 1 else "Episodes"
    parts = {
        "title": escaped(title),
        "style": _resource("gallery.css"),
        "data": script_json({"experiments": experiments, "notes": notes}),
        "script": "\n".join(_resource(name) for name in _PAGE_SCRIPTS),
    }
    # Split once by the template's own marks: nothing that is filled in can bring marks of its own.
    first, *rest = _resource("index.html").split("{{")
    filled = [parts[mark] + text for mark, _, text in (piece.partition("}}") for piece in rest)]
    return "".join([first, *filled]).encode()


def _resource(name: str) -> str:
    return (files("rlhfblender_core.gallery") / "page" / name).read_text(encoding="utf-8")
