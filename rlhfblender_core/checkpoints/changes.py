"""Noticing that checkpoints appear: folders on this machine tell within a second, others are asked now and then."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fsspec.utils import get_protocol

from rlhfblender_core.checkpoints.models import NO_MODELS

_TICK_MS, _DEBOUNCE_MS = 1000, 300


def each_change(
    folders: Callable[[], Sequence[str]], quiet_seconds: float, at_least_every: float = 60
) -> Iterator[None]:
    """At once, and then for ever: as soon as something has changed and it is quiet again, and now and then anyway.

    Args:
        folders: says which ones are of interest; asked every second, so that more can come. Paths or URLs.
        quiet_seconds: how long after the last change.
        at_least_every: seconds, for folders on storage or on file systems that don't tell.
    """
    watched: tuple[str, ...] | None = None
    ticks: Iterator[bool] = iter(())
    looked = changed = 0.0
    while True:
        if (local := _local(folders())) != watched:  # before the look, so that nothing is missed between the two
            watched, ticks, changed = local, _ticks(local), time.monotonic()
            next(ticks)
        now = time.monotonic()
        is_new = not looked or now - looked >= at_least_every
        if is_new or looked < changed + quiet_seconds <= now:
            looked = now
            yield
        if next(ticks):
            changed = time.monotonic()


def _local(paths: Sequence[str]) -> tuple[str, ...]:
    """Those that are there and on this machine; a single model's folder in its place."""
    found = [Path(path.removeprefix("file://")) for path in paths if get_protocol(path) in ("file", "local")]
    folders = {path if path.is_dir() else path.parent for path in found}
    return tuple(sorted(str(folder) for folder in folders if folder.is_dir()))


def _ticks(folders: Sequence[str]) -> Iterator[bool]:
    """About every second, whether a file changed that may be a model's."""
    if not folders:
        while True:
            time.sleep(_TICK_MS / 1000)
            yield False
    from watchfiles import watch

    for changes in watch(
        *folders, watch_filter=None, debounce=_DEBOUNCE_MS, rust_timeout=_TICK_MS, yield_on_timeout=True
    ):
        yield any(not path.lower().endswith(NO_MODELS) for _, path in changes)
