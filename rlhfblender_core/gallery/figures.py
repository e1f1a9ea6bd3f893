"""Episodes' figures in blocks: from the registry's index, and from the manifests of those that have no row there."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.gallery.collect import Checkpoint, Numbers, read_manifests
from rlhfblender_core.registry import Registry
from rlhfblender_core.storage import DataRoot

#: Episodes of a piece have numbers from a multiple of this one to below the next: whatever is added or deleted, the
#: pieces of all other numbers stay as they are.
PIECE_NUMBERS = 1000
#: Raised when a piece holds other things than before: those of older versions are written anew.
_PIECE_VERSION = b"4"


@dataclass(frozen=True)
class Block:
    """The episodes of a piece.

    Attributes:
        numbers: of the episodes.
        digests: sha256 in hex of their manifests.
        returns: float64 (N,).
        lengths: int64 (N,), in steps.
        files: bit ``i`` says whether there is a file of the i-th kind, int64 (N,).
        manifests: by number, as far as they had to be read.
    """

    numbers: Numbers
    digests: list[str]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    files: NDArray[np.int64]
    manifests: dict[int, Manifest]

    @property
    def name(self) -> str:
        """Names the piece by everything that goes into it: one of that name needn't be written again."""
        digest = hashlib.sha256(_PIECE_VERSION)
        for number, manifest, files in zip(self.numbers.tolist(), self.digests, self.files.tolist(), strict=True):
            digest.update(f"\n{number} {manifest} {files}".encode())
        return digest.hexdigest()[:20]


def each_block(root: DataRoot, registry: Registry | None, checkpoint: Checkpoint) -> Iterator[Block]:
    """The checkpoint's episodes, a piece's worth at a time; what the registry's rows tell isn't read from manifests."""
    cuts = np.flatnonzero(np.diff(checkpoint.numbers // PIECE_NUMBERS)) + 1
    for numbers in np.split(checkpoint.numbers, cuts):
        block = _indexed_block(root, registry, checkpoint, numbers)
        if block.numbers.size:
            yield block


def read_block(root: DataRoot, checkpoint: Checkpoint, block: Block) -> Block:
    """The block as the manifests tell it, all of them read."""
    unread = np.array([number for number in block.numbers.tolist() if number not in block.manifests], np.int64)
    manifests = block.manifests | read_manifests(root, checkpoint.key, unread)
    return _block(checkpoint, {number: _figures(manifest) for number, manifest in manifests.items()}, manifests)


def _indexed_block(root: DataRoot, registry: Registry | None, checkpoint: Checkpoint, numbers: Numbers) -> Block:
    key = checkpoint.key
    bounds = int(numbers[0]), int(numbers[-1])
    rows = registry.list_figures(key.experiment, key.checkpoint, *bounds) if registry is not None else {}
    known = {number: rows[number] for number in numbers.tolist() if number in rows and rows[number][0] is not None}
    unknown = np.array([number for number in numbers.tolist() if number not in known], np.int64)
    manifests = read_manifests(root, key, unknown) if unknown.size else {}
    return _block(checkpoint, known | {n: _figures(manifest) for n, manifest in manifests.items()}, manifests)


def _figures(manifest: Manifest) -> tuple[str | None, float, int]:
    return manifest.sha256, manifest.episode_return, manifest.episode_length


def _block(
    checkpoint: Checkpoint, figures: dict[int, tuple[str | None, float, int]], manifests: dict[int, Manifest]
) -> Block:
    numbers = np.array(sorted(figures), np.int64)
    digests, returns, lengths = (
        zip(*(figures[number] for number in numbers.tolist()), strict=True) if figures else ((),) * 3
    )
    files = sum(
        (checkpoint.has_file(kind, numbers).astype(np.int64) << bit for bit, kind in enumerate(ArtifactKind)),
        np.int64(0),
    )
    return Block(
        numbers,
        [str(digest) for digest in digests],
        np.array(returns, np.float64),
        np.array(lengths, np.int64),
        np.asarray(files, np.int64),
        manifests,
    )
