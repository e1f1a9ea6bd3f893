"""Which of an agent's checkpoints are wanted: steps, words and ranges, and what to do about unfinished files."""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rlhfblender_core.checkpoints.find import CheckpointFile
from rlhfblender_core.checkpoints.listing import open_filesystem, storage_errors
from rlhfblender_core.checkpoints.looking import UNZIPPED, kind_of
from rlhfblender_core.dataset.layout import BEST, FINAL
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError
from rlhfblender_core.untrusted.file_kinds import FileKind

#: The words for "the latest one" and "every one" among wanted checkpoints.
LATEST, ALL = -1, "all"

_RANGE = re.compile(r"(?P<start>\d{0,15}):(?P<stop>\d{0,15})(?::(?P<stride>\d{1,15}))?")
#: How long a file that is being written is waited for, and how old one may be to count as such.
_PATIENCE_SECONDS, _RECENT_SECONDS, _PAUSE_SECONDS = 5.0, 60.0, 0.25


@dataclass(frozen=True, slots=True)
class StepRange:
    """``start:stop:stride`` as a user writes it: both ends included, each part may be left out.

    Attributes:
        text: as written.
        start: the first step.
        stop: the last step; None for no end.
        stride: from one to the next; None for all there are.
    """

    text: str
    start: int
    stop: int | None
    stride: int | None

    @property
    def names_start(self) -> bool:
        """Whether the first step is written out: a 0 there asks for the random baseline as a 0 of its own does."""
        return not self.text.startswith(":")

    def holds(self, step: int) -> bool:
        """Whether a step is in it."""
        within = self.start <= step and (self.stop is None or step <= self.stop)
        return within and (self.stride is None or (step - self.start) % self.stride == 0)


def parse_range(text: str) -> StepRange | None:
    """The range that a text is, None for any other text.

    Raises:
        InvalidParameterError: a range without any step in it.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        return None
    start, stop = int(match["start"] or 0), int(match["stop"]) if match["stop"] else None
    stride = None if match["stride"] is None else int(match["stride"])
    if stride == 0 or (stop is not None and stop < start):
        raise InvalidParameterError(
            f"--checkpoints {text!r} holds no step. Ranges are first:last or first:last:distance, as 0:100000:20000."
        )
    return StepRange(text.strip(), start, stop, stride)


def parse_wanted(values: Iterable[int | str]) -> tuple[int | str, ...]:
    """Wanted checkpoints, one by one: ``"256,512"`` is two, numbers are numbers, words and ranges stay texts.

    Raises:
        InvalidParameterError: a number below -1, or a range without any step in it.
    """
    wanted: list[int | str] = []
    for value in values:
        for part in str(value).split(","):
            text = part.strip()
            if re.fullmatch(r"[+-]?\d{1,18}", text):
                number = int(text)
                if number < LATEST:
                    raise InvalidParameterError(f"--checkpoints must be {LATEST} or more, not {number}.")
                wanted.append(number)
            elif text:
                found = parse_range(text)
                wanted.append(text)
                if found is not None and found.start == 0 and found.names_start:
                    wanted.insert(-1, 0)
    return tuple(dict.fromkeys(wanted))


def wanted_as(label: str) -> int | str:
    """How the checkpoint of a label is asked for: 0 alone means the random baseline."""
    if label == "0":
        return ":0"
    return int(label) if label.isascii() and label.isdigit() else label


def select_checkpoints(found: Sequence[CheckpointFile], wanted: Sequence[int | str]) -> tuple[CheckpointFile, ...]:
    """The wanted ones in the order they are wanted, each once.

    Args:
        found: what :func:`~rlhfblender_core.checkpoints.find.find_checkpoints` gave.
        wanted: steps, ranges of them, ``"all"``, ``"final"``, ``"best"``, or -1 for the latest: the final model, else
            the highest step, else the best.

    Raises:
        CheckpointNotUsableError: one doesn't exist; the message names those that do.
    """
    chosen: dict[str, CheckpointFile] = {}
    for want in wanted:
        chosen |= {file.label: file for file in _matching(found, want)}
    return tuple(chosen.values())


def choose_checkpoints(
    found: Sequence[CheckpointFile],
    wanted: Sequence[int | str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    patience: float = _PATIENCE_SECONDS,
) -> tuple[tuple[CheckpointFile, ...], tuple[str, ...]]:
    """Like :func:`select_checkpoints`, of the files that are whole: those being written are waited for a moment.

    What stays unfinished is left out where others were asked for along with it; a checkpoint that was asked for by its
    name is kept, and says what is wrong with it when it is fetched.

    Args:
        found: likewise.
        wanted: likewise.
        storage_options: for fsspec.
        patience: seconds to wait, for all of them together.

    Returns:
        The checkpoints, and a line about what was left out.

    Raises:
        CheckpointNotUsableError: likewise, or none of them is whole.
    """
    deadline = time.monotonic() + patience
    named = {file.label for want in wanted if not _is_open(want) for file in _matching(found, want)}
    partial: dict[str, CheckpointFile] = {}
    while True:
        remaining = [file for file in found if file.label not in partial]
        try:
            chosen = select_checkpoints(remaining, wanted)
        except CheckpointNotUsableError as error:
            if not partial:
                raise
            raise CheckpointNotUsableError(f"{_left_out(partial)[0]}. There is no other; try again later.") from error
        more = {file.label: file for file in chosen if not _gets_whole(file, deadline, storage_options)}
        if more.keys() <= named:
            return chosen, (*_left_out(partial), *_gaps(found, wanted))
        partial |= {label: file for label, file in more.items() if label not in named}


def _left_out(partial: Mapping[str, CheckpointFile]) -> tuple[str, ...]:
    return tuple(
        f"Checkpoint {label} is left out: {file.url!r} is still being written, or cut off"
        for label, file in partial.items()
    )


def _matching(found: Sequence[CheckpointFile], want: int | str) -> tuple[CheckpointFile, ...]:
    text = str(want).strip()
    if text == str(LATEST):
        return (_latest(found),)
    if text == ALL:
        if not found:
            raise _missing(found, ALL)
        return tuple(found)
    steps = parse_range(text)
    if steps is not None:
        matching = tuple(file for file in found if file.step is not None and steps.holds(file.step))
        if not matching:
            raise _missing(found, text)
        return matching
    label = str(int(text)) if text.isascii() and text.isdigit() else text
    matching = tuple(file for file in found if file.label == label)
    if not matching:
        raise _missing(found, label)
    return matching


def _missing(found: Sequence[CheckpointFile], what: str) -> CheckpointNotUsableError:
    existing = ", ".join(file.label for file in found) or "none"
    return CheckpointNotUsableError(f"There is no checkpoint {what!r}. Those that exist: {existing}.")


def _latest(found: Sequence[CheckpointFile]) -> CheckpointFile:
    def rank(checkpoint: CheckpointFile) -> tuple[int, int]:
        order = {FINAL: 3, BEST: 1}
        return order.get(checkpoint.label, 0 if checkpoint.step is None else 2), checkpoint.step or 0

    if not found:
        raise CheckpointNotUsableError("There are no checkpoints to choose from.")
    latest = max(found, key=rank)
    if rank(latest) == (0, 0) and len(found) > 1:
        names = ", ".join(file.label for file in found[:8])
        raise CheckpointNotUsableError(
            f"Which one is the latest isn't known: {names}. Name some with --checkpoints, or all."
        )
    return latest


def _is_open(want: int | str) -> bool:
    """Whether it asks for whatever there is."""
    text = str(want).strip()
    return text in (str(LATEST), ALL) or parse_range(text) is not None


def _gets_whole(file: CheckpointFile, deadline: float, storage_options: Mapping[str, Any] | None) -> bool:
    """Whether the file is a whole one, or gets it in time; only one that changed a moment ago is waited for."""
    while kind_of(file.url, storage_options) is FileKind.INCOMPLETE:
        age = time.time() - modified_at(file.url, storage_options).timestamp()
        if time.monotonic() >= deadline or abs(age) > _RECENT_SECONDS:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def modified_at(url: str, storage_options: Mapping[str, Any] | None) -> datetime:
    """When a file was last written, or the newest member of an unzipped model; in UTC.

    Raises:
        CheckpointNotUsableError: there is nothing.
        StorageNotUsableError, StorageUnavailableError: its storage can't be read.
    """
    with storage_errors(url):
        filesystem, path = open_filesystem(url, storage_options)
        unzipped = filesystem.isdir(path)
        paths = [f"{path}/{name}" for name in sorted(UNZIPPED) if filesystem.exists(f"{path}/{name}")]
        moments: list[datetime] = [filesystem.modified(one) for one in (paths if unzipped and paths else [path])]
    return max(moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments)


def _gaps(found: Sequence[CheckpointFile], wanted: Sequence[int | str]) -> tuple[str, ...]:
    """A line for each range with steps that no checkpoint has, up to the last one that is there."""
    notes = []
    existing = {file.step for file in found if file.step is not None}
    for steps in filter(None, (parse_range(str(want)) for want in wanted)):
        if steps.stride is None or not existing:
            continue
        last = max(existing) if steps.stop is None else min(steps.stop, max(existing))
        due = range(max(steps.start, steps.stride if steps.start == 0 else 0), last + 1, steps.stride)
        absent = [str(step) for step in due[:_MOST_DUE] if step not in existing]
        if absent:
            more = ", …" if len(absent) > _MOST_NAMED else ""
            notes.append(f"--checkpoints {steps.text}: there is no {', '.join(absent[:_MOST_NAMED])}{more}")
    return tuple(notes)


#: Of missing steps, so many are looked for, and named.
_MOST_DUE, _MOST_NAMED = 10_000, 3
