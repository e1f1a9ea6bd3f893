"""The page's data: pieces of at most a thousand episodes, in scripts that it loads when it needs them.

A piece is named by what goes into it, so that one that is there needn't be made again: adding ten episodes to many
reads and writes one. Published before the page that refers to them; those of an earlier page are removed after it.
"""

from collections.abc import Iterator

import numpy as np

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.gallery.collect import Checkpoint
from rlhfblender_core.gallery.details import details
from rlhfblender_core.gallery.escape import JsonValue, number, script_json
from rlhfblender_core.gallery.figures import Block, read_block
from rlhfblender_core.gallery.sparks import spark
from rlhfblender_core.storage import LARGE_BYTES, DataRoot, list_names, publish_many_bytes, read_many, remove_files

_SCRIPTS = "gallery/data"
#: Episodes whose files are in memory at the same time.
_BATCH = 64
#: Characters of arrays in one script: what a reader waits for when an episode is opened from a disk.
_CHUNK_CHARACTERS = 256_000
#: Scripts that are published together.
_AT_ONCE = 16
_TERMINATED, _TRUNCATED, _VIDEO, _LOST_VIDEO, _THUMBNAIL, _ARRAYS = (1 << bit for bit in range(6))


class Pieces:
    """The data scripts of a page.

    Attributes:
        written: how many pieces were made, rather than found.

    Args:
        root: the data root.
    """

    def __init__(self, root: DataRoot) -> None:
        self.written = 0
        self._root = root
        self._there = {name.removesuffix(".js") for name in list_names(root, _SCRIPTS)}
        self._kept: set[str] = set()
        self._waiting: dict[str, bytes] = {}

    def ensure(self, checkpoint: Checkpoint, block: Block) -> tuple[str, Block]:
        """The name of the block's piece, made if it isn't there, and the block as the piece has it."""
        if block.name not in self._there | self._kept:
            block = read_block(self._root, checkpoint, block)
            if block.name not in self._there | self._kept:
                self._write(checkpoint, block)
        self._kept.add(block.name)
        return block.name, block

    def flush(self) -> None:
        """Publishes what waits."""
        publish_many_bytes(self._root, self._waiting)
        self._waiting = {}

    def remove_others(self) -> None:
        """Removes scripts of earlier pages."""
        stale = [name for name in self._there if name.partition("-")[0] not in self._kept]
        remove_files(self._root, [f"{_SCRIPTS}/{name}.js" for name in stale])

    def _write(self, checkpoint: Checkpoint, block: Block) -> None:
        rows = [
            _row(block.manifests[n], files)
            for n, files in zip(block.numbers.tolist(), block.files.tolist(), strict=True)
        ]
        chunks = _Chunks(self, block.name)
        for index, (content, arrays) in enumerate(self._each_arrays(checkpoint, block)):
            rows[index] |= {
                "spark": spark(content, int(block.lengths[index])),
                "chunk": chunks.add(int(block.numbers[index]), arrays),
            }
        chunks.close()
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        self.flush()  # chunks first: where the piece is, they are
        self.publish(block.name, columns)
        self.flush()
        self.written += 1

    def _each_arrays(self, checkpoint: Checkpoint, block: Block) -> Iterator[tuple[bytes | None, JsonValue]]:
        """Cumulative rewards, and what a page from a disk shows, of each episode."""
        figures = zip(block.lengths.tolist(), np.isfinite(block.returns).tolist(), strict=True)
        known = dict(zip(block.numbers.tolist(), figures, strict=True))
        for batch in np.split(block.numbers, range(_BATCH, block.numbers.size, _BATCH)):
            keys = [EpisodeKey(checkpoint.key.experiment, checkpoint.key.checkpoint, n) for n in batch.tolist()]
            paths = [artifact_path(ArtifactKind.REWARDS, key) for key in keys]
            contents = read_many(self._root, paths, most=LARGE_BYTES)
            for key, path in zip(keys, paths, strict=True):
                length, is_finite = known[key.episode]
                arrays = details(self._root, key, length, is_finite=is_finite) if self._root.is_local else None
                yield contents.get(path), arrays

    def publish(self, name: str, value: JsonValue) -> None:
        """Publishes a script, now or with the next ones."""
        self._waiting[f"{_SCRIPTS}/{name}.js"] = f'galleryData("{name}",{script_json(value)});\n'.encode()
        if len(self._waiting) >= _AT_ONCE:
            self.flush()


class _Chunks:
    """The scripts with a piece's arrays, some episodes to each."""

    def __init__(self, pieces: Pieces, piece: str) -> None:
        self._pieces, self._piece = pieces, piece
        self._index, self._size = 0, 0
        self._episodes: dict[str, JsonValue] = {}

    def add(self, episode: int, arrays: JsonValue) -> int | None:
        """The index of the script that the episode's arrays go to; None for none."""
        if not isinstance(arrays, dict) or not arrays:
            return None
        if self._size >= _CHUNK_CHARACTERS:
            self.close()
        self._episodes[str(episode)] = arrays
        self._size += sum(len(packed[1]) for packed in arrays.values() if packed)
        return self._index

    def close(self) -> None:
        """Publishes the script that is begun."""
        if self._episodes:
            self._pieces.publish(f"{self._piece}-{self._index}", self._episodes)
            self._index, self._size, self._episodes = self._index + 1, 0, {}


def _row(manifest: Manifest, files: int) -> dict[str, JsonValue]:
    there = {kind for bit, kind in enumerate(ArtifactKind) if files >> bit & 1 and kind in manifest.artifacts}
    flags = (
        _TERMINATED * manifest.terminated
        | _TRUNCATED * manifest.truncated
        | _VIDEO * (ArtifactKind.RENDERS in there)
        | _LOST_VIDEO * (ArtifactKind.RENDERS in manifest.artifacts and ArtifactKind.RENDERS not in there)
        | _THUMBNAIL * (ArtifactKind.THUMBNAILS in there)
        | _ARRAYS * (ArtifactKind.EPISODES in there)
    )
    return {
        "n": manifest.episode,
        "return": number(manifest.episode_return),
        "length": manifest.episode_length,
        "flags": flags,
        "seed": str(manifest.seed) if manifest.seed is not None else None,
        "fps": number(manifest.fps),
        "warnings": list(manifest.warnings) or None,
    }
