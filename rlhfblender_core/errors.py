"""Every error this project raises on purpose, in one tree.

What an error *is* decides what happens to it, and it is decided here, once::

    RLHFBlenderError
    ├── RequestError              the user's: one line, exit code 2, never retried
    │   ├── InvalidNameError          a name that can't become a path segment
    │   ├── InvalidParameterError     a flag or parameter with a wrong value
    │   │   └── WrongTypeError            an argument of another type than the parameter's, in Python
    │   ├── EnvironmentNotUsableError unknown id, missing package, bad entry point, bad kwargs, no rendering
    │   │   └── EnvironmentNotTrustedError  made with what only a registry or a manifest names
    │   ├── CheckpointNotUsableError  missing, damaged, unknown algorithm, refused content
    │   │   └── NoCheckpointYetError  a training has begun, and written none
    │   ├── SpacesDifferError         the checkpoint and the environment don't fit together
    │   ├── RegistryConflictError     registered before with other settings
    │   ├── RegistryNotUsableError    no database, or one of a newer version
    │   ├── DataNotUsableError        files of a data set that can't be read or don't belong together
    │   └── StorageNotUsableError     a data root that can't be read or written, a full disk, a missing extra
    ├── TransientError            worth another try: tasks retry these and nothing else
    │   ├── StorageUnavailableError   throttled, reset, timed out
    │   ├── RegistryUnavailableError  database locked or connection lost
    │   └── WorkerLostError           a worker process died
    ├── DiskFullError             StorageFullError, RegistryFullError: never retried, exit code 1: making room is enough
    ├── OutOfReachError           the storage or the registry, after all tries: the run ends, exit code 1
    ├── EpisodeError              an episode's own: the environment or the policy raised
    ├── EpisodesFailedError       some episodes of a shard did; the others are published
    ├── TrainingFailedError       the environment or the algorithm raised while an agent learned
    └── RunStoppedError           the run was stopped on purpose

Every message is one line that says what was expected, what was found and what to do. A command that it names stands in
backticks as ``python flows/verify.py --repair``, with placeholders as ``…``; the command line adds its own flags to it.
"""

import linecache
import traceback
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from rlhfblender_core.credentials import without_credentials


class RLHFBlenderError(Exception):
    """Base of all errors raised on purpose."""

    def __str__(self) -> str:
        """The message; Prefect logs it, and a notebook shows it, so that no password of a URL is in it."""
        return without_credentials(super().__str__())


class RequestError(RLHFBlenderError):
    """The request can't be done as asked; the message says what to change."""


class InvalidNameError(RequestError):
    """A name that is empty, too long, or could leave its folder."""


class InvalidParameterError(RequestError):
    """A parameter has a value it can't have."""


class WrongTypeError(InvalidParameterError, TypeError):
    """An argument is of another type than its parameter."""


class EnvironmentNotUsableError(RequestError):
    """The environment can't be found, imported, made or rendered as asked."""


class EnvironmentNotTrustedError(EnvironmentNotUsableError):
    """A registry or a manifest names code to make the environment with, and nobody else does."""


class CheckpointNotUsableError(RequestError):
    """The checkpoint is missing, damaged, of no known algorithm, or refused as unsafe."""


class NoCheckpointYetError(CheckpointNotUsableError):
    """A training of ours has begun in the folder, and has written no checkpoint so far."""


class SpacesDifferError(RequestError):
    """The checkpoint was trained on other observation or action spaces."""


class RegistryConflictError(RequestError):
    """Something of that name is registered with other settings."""


class RegistryNotUsableError(RequestError):
    """The registry can't be opened, or a newer version of this project wrote it."""


class DataNotUsableError(RequestError):
    """Files of a data set are unreadable or don't belong together."""


class StorageNotUsableError(RequestError):
    """The data root can't be read or written."""


class DiskFullError(RLHFBlenderError):
    """A disk is full: nothing is wrong with the request, and the same command goes on once there is room."""


class StorageFullError(StorageNotUsableError, DiskFullError):
    """The disk of the data root, or of unfinished files, is full."""


class RegistryFullError(RegistryNotUsableError, DiskFullError):
    """The registry's disk is full."""


class TransientError(RLHFBlenderError):
    """Something that may well work on another try."""


class StorageUnavailableError(TransientError):
    """The storage throttled, reset or timed out."""


class RegistryUnavailableError(TransientError):
    """The database is locked or its connection was lost."""


class WorkerLostError(TransientError):
    """A worker process died before it finished its shard."""


class OutOfReachError(RLHFBlenderError):
    """The storage or the registry still didn't answer after all tries; the same command goes on later."""


class EpisodeError(RLHFBlenderError):
    """The environment or the policy raised within one episode.

    Args:
        episode: the episode's number.
        step: the step (from 0) at which it happened; -1 while it was being reset.
        cause: one line about what was raised.
        trace: where it was raised, as Python shows it.
    """

    def __init__(self, episode: int, step: int, cause: str, trace: str = "") -> None:
        self.episode = episode
        self.step = step
        self.cause = cause
        self.trace = trace
        where = "reset" if step < 0 else f"step {step}"
        super().__init__(f"episode {episode} failed at {where}: {cause}")

    def __reduce__(self) -> tuple[type["EpisodeError"], tuple[int, int, str, str]]:
        """Survives the way back from a worker process, which pickles by ``args``."""
        return type(self), (self.episode, self.step, self.cause, self.trace)


class EpisodesFailedError(RLHFBlenderError):
    """Some episodes of a shard failed; the others are published.

    Args:
        checkpoint: label of their checkpoint.
        failures: message by episode number.
        published: numbers of the others.
        traces: where those that failed did, as Python shows it, by episode number.
    """

    def __init__(
        self,
        checkpoint: str,
        failures: Mapping[int, str],
        published: Iterable[int] = (),
        traces: Mapping[int, str] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.failures = dict(failures)
        self.published = tuple(published)
        self.traces = dict(traces or {})
        super().__init__(f"{len(self.failures)} at {checkpoint}: {'; '.join(self.failures.values())}")

    def __reduce__(self) -> tuple[type["EpisodesFailedError"], tuple[object, ...]]:
        """Survives pickling, which is by ``args`` otherwise."""
        return type(self), (self.checkpoint, self.failures, self.published, self.traces)


class TrainingFailedError(RLHFBlenderError):
    """The environment or the algorithm raised while an agent learned; its checkpoints so far are good."""


class RunStoppedError(RLHFBlenderError):
    """The run was stopped (Ctrl-C, cancelled); what is published stays, the same command finishes it."""


#: Of what others' errors say.
_LONGEST = 1000


def one_line(error: BaseException) -> str:
    """The error as one line of text, its type named where the text alone would say nothing.

    What others' errors say may hold anything: control characters, which a terminal would obey, are written as escapes,
    and a URL's password as ``***``. Several spaces may be part of a name.
    """
    try:
        text = " ".join(filter(None, map(str.strip, str(error).expandtabs(1).splitlines())))
    except Exception as fault:  # noqa: BLE001 (an error of somebody else whose text can't be had)
        text = f"its message can't be read ({type(fault).__name__})"
    text = printable(without_credentials(text))
    if isinstance(error, RLHFBlenderError):
        return text
    if isinstance(error, AssertionError) and not text:
        text = _failed_assertion(error)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    name = printable(type(error).__name__)[:_LONGEST]
    return f"{name}: {text}" if text else name


def trace_of(error: BaseException) -> str:
    """Where an error of somebody else was raised, as Python shows it; control characters are written as escapes."""
    try:
        lines = "".join(traceback.format_exception(error)).splitlines()
    except Exception:  # noqa: BLE001 (the error's own text can't be had)
        lines = "".join(traceback.format_tb(error.__traceback__)).splitlines()
    return "\n".join(printable(without_credentials(line)) for line in lines)[-_LONGEST_TRACE:]


#: Characters of a traceback that are kept, from its end.
_LONGEST_TRACE = 20_000

#: Characters of a text that is shown whole.
_LONG = 200


def last_line(error: BaseException) -> str:
    """The error as one line; of a long text the last line, which matters where a library explains itself at length."""
    whole = one_line(error)
    if len(whole) <= _LONG:
        return whole
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {printable(without_credentials(lines[-1]))}" if lines else whole


def printable(text: str) -> str:
    """The text with control characters, which a terminal would obey, written as escapes."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _failed_assertion(error: AssertionError) -> str:
    """``assert n > 0 (level.py, line 7)``: a bare assert says nothing by itself; empty where its code isn't known."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    last = frames[-1]
    lines = [linecache.getline(last.filename, n) for n in range(last.lineno or 0, (last.end_lineno or 0) + 1)]
    expression = " ".join(" ".join(lines).split())
    expression = f"assert {expression.removeprefix('assert ')}"  # Python marks the condition alone, or the whole
    return f"{expression} ({PurePath(last.filename).name}, line {last.lineno})"
