"""Replay buffers as ``.npz``, without pickles: those of Stable-Baselines3, with Dict observations and HER's, too.

Only what has been filled is stored. Arrays are written and read one after the other, straight into the buffer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rlhfblender_core.errors import CheckpointNotUsableError, DataNotUsableError
from rlhfblender_core.untrusted.npz import open_arrays

_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "ep_start", "ep_length")


def write_buffer(buffer: Any, file: Path) -> None:
    """Writes a buffer.

    Raises:
        CheckpointNotUsableError: it holds what isn't an array (HER's ``copy_info_dict``).
    """
    if getattr(buffer, "copy_info_dict", False):
        raise CheckpointNotUsableError("A replay buffer with copy_info_dict=True can't be kept: it holds objects.")
    size = buffer.buffer_size if buffer.full else buffer.pos
    # When observations aren't stored twice, that at the end is the last step's next one.
    extra = 1 if getattr(buffer, "optimize_memory_usage", False) and not buffer.full else 0
    arrays = {name: array[: size + extra] for name, array in _held(buffer)}
    position: dict[str, Any] = {"pos": np.int64(buffer.pos), "full": np.bool_(buffer.full)}
    if hasattr(buffer, "_current_ep_start"):
        position["current_ep_start"] = buffer._current_ep_start  # noqa: SLF001 (HER's own; nothing public tells it)
    with file.open("wb") as stream:
        np.savez(stream, **arrays, **position)


def read_buffer(buffer: Any, file: Path) -> None:
    """Fills a new buffer of the same kind and size with what :func:`write_buffer` wrote.

    The step that was made last is followed by another episode: environments start anew.

    Raises:
        CheckpointNotUsableError: the file is damaged, or another kind of buffer's.
    """
    try:
        with open_arrays(file, str(file)) as held:
            pos, full = int(held["pos"]), bool(held["full"])
            if not 0 <= pos < buffer.buffer_size:
                raise ValueError("another size")
            for name, array in _held(buffer):
                stored = held[name]
                if stored.shape[1:] != array.shape[1:] or stored.dtype != array.dtype or len(stored) > len(array):
                    raise ValueError(f"{name} of another shape")
                array[: len(stored)] = stored
            if hasattr(buffer, "_current_ep_start"):
                buffer._current_ep_start[:] = held["current_ep_start"]  # noqa: SLF001 (see write_buffer)
    except (OSError, KeyError, ValueError, TypeError, DataNotUsableError) as error:
        raise CheckpointNotUsableError(
            f"Replay buffer {str(file)!r} can't be read ({str(error)[:80]}). Remove it to go on without."
        ) from error
    buffer.pos, buffer.full = pos, full
    _end_episode(buffer)


def _end_episode(buffer: Any) -> None:
    if hasattr(buffer, "truncate_last_trajectory"):
        buffer.truncate_last_trajectory()
    elif buffer.pos or buffer.full:
        last = buffer.pos - 1
        if getattr(buffer, "optimize_memory_usage", False):
            buffer.dones[last] = 1  # its next observation is overwritten
        else:
            buffer.timeouts[last] = 1 - buffer.dones[last]


def _held(buffer: Any) -> Iterator[tuple[str, Any]]:
    """The buffer's arrays by the names that they have in the file."""
    for name in _ARRAYS:
        held = getattr(buffer, name, None)
        if isinstance(held, dict):
            yield from ((f"{name}.{key}", array) for key, array in held.items())
        elif held is not None:
            yield name, held
