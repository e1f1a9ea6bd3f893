"""Which episodes an export holds already: rows in an SQLite file of the export folder, one per episode.

A row is written once the episode's files are there, so that a killed export goes on where it was; what is written for
ten more episodes is ten rows. Exports of before kept a JSON text per checkpoint, which is taken over when it is met.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.export.index import FOLDER, damaged, read_json
from rlhfblender_core.storage import DataRoot, make_folder, remove_files, storage_errors
from rlhfblender_core.untrusted.json_values import parse_json
from rlhfblender_core.untrusted.sqlite_files import journal_fault

_FILE = f"{FOLDER}/index.sqlite"
#: Checkpoints are exported side by side: a writer waits for the others, in seconds.
_PATIENCE_S = 30.0
_TABLE = """CREATE TABLE IF NOT EXISTS exported (
    experiment TEXT, checkpoint TEXT, episode INTEGER, source TEXT NOT NULL, sizes TEXT NOT NULL, states INTEGER,
    PRIMARY KEY (experiment, checkpoint, episode)) WITHOUT ROWID"""
_OWN = "experiment = ? AND checkpoint = ?"


@dataclass(frozen=True)
class Exported:
    """One exported episode.

    Attributes:
        source: digest of what it was made from.
        sizes: of its files, by path.
        states: whether its states are there and go on as the episode did; None where they weren't asked for.

    Raises:
        ValueError: a path leads out of the export: the folder may be somebody's, and these files are removed.
    """

    source: str
    sizes: Mapping[str, int]
    states: bool | None = None

    def __post_init__(self) -> None:
        for path in self.sizes:
            if path.startswith("/") or ".." in path.split("/") or "\\" in path:
                raise ValueError(f"{path} lies elsewhere")


class ExportedEpisodes:
    """The exported episodes of one checkpoint.

    Args:
        connection: to the index.
        key: experiment and checkpoint.
    """

    def __init__(self, connection: sqlite3.Connection, key: CheckpointKey) -> None:
        self._connection = connection
        self._key = (key.experiment, key.checkpoint)

    def between(self, first: int, last: int) -> dict[int, Exported]:
        """Those of the numbers from first to last."""
        query = f"SELECT episode, source, sizes, states FROM exported WHERE {_OWN} AND episode BETWEEN ? AND ?"  # noqa: S608 (a constant)
        rows = self._connection.execute(query, (*self._key, first, last)).fetchall()
        try:
            return {
                number: Exported(source, parse_json(sizes), None if states is None else bool(states))
                for number, source, sizes, states in rows
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise sqlite3.DataError(f"a row is none of an export's: {error}") from error

    def numbers(self) -> Iterator[int]:
        """All of them, ascending."""
        query = f"SELECT episode FROM exported WHERE {_OWN} ORDER BY episode"  # noqa: S608 (a constant)
        for (number,) in self._connection.execute(query, self._key):
            yield number

    @property
    def first(self) -> int | None:
        """The lowest number; None where nothing is exported."""
        return next(self.numbers(), None)

    def add(self, number: int, exported: Exported) -> None:
        """Keeps an episode, at once."""
        self._add({number: exported})

    def _add(self, episodes: Mapping[int, Exported]) -> None:
        rows = (
            (*self._key, number, one.source, json.dumps(dict(one.sizes)), one.states)
            for number, one in episodes.items()
        )
        columns = "experiment, checkpoint, episode, source, sizes, states"
        with self._connection:
            self._connection.executemany(f"INSERT OR REPLACE INTO exported ({columns}) VALUES (?, ?, ?, ?, ?, ?)", rows)  # noqa: S608 (a constant)

    def remove(self, numbers: Iterable[int]) -> None:
        """Forgets episodes, at once."""
        rows = ((*self._key, number) for number in numbers)
        with self._connection:
            self._connection.executemany(f"DELETE FROM exported WHERE {_OWN} AND episode = ?", rows)  # noqa: S608 (a constant)


@contextlib.contextmanager
def exported_episodes(target: DataRoot, key: CheckpointKey) -> Iterator[ExportedEpisodes]:
    """What was exported of a checkpoint.

    Args:
        target: the export, locked by the caller.
        key: experiment and checkpoint.

    Raises:
        DataNotUsableError: the index isn't ours, or damaged.
        StorageNotUsableError: it can't be written.
    """
    file = target.local_folder / _FILE
    with storage_errors(target):
        make_folder(file.parent)
    with _connected(target, file) as connection:
        episodes = ExportedEpisodes(connection, key)
        _take_over(target, key, episodes)
        yield episodes


def is_exported(target: DataRoot, key: CheckpointKey) -> bool:
    """Whether anything of a checkpoint is exported."""
    with exported_episodes(target, key) as episodes:
        return episodes.first is not None


def have_states(target: DataRoot, experiments: Iterable[str]) -> bool:
    """Whether all exported episodes of these experiments have states that go on as the episodes did."""
    names = list(experiments)
    query = f"SELECT COUNT(*), SUM(states) FROM exported WHERE experiment IN ({', '.join('?' * len(names))})"  # noqa: S608 (marks)
    with _connected(target, target.local_folder / _FILE) as connection:
        count, proved = connection.execute(query, names).fetchone()
    return bool(count) and proved == count


@contextlib.contextmanager
def _connected(target: DataRoot, file: Path) -> Iterator[sqlite3.Connection]:
    fault = journal_fault(file)
    if fault is not None:
        raise StorageNotUsableError(f"{target.display_url(_FILE)} isn't opened: {fault}. Export to a new folder.")
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=_PATIENCE_S)) as connection:
            connection.execute(_TABLE)
            if "states" not in {row[1] for row in connection.execute("PRAGMA table_info(exported)")}:  # of before
                connection.execute("ALTER TABLE exported ADD COLUMN states INTEGER")
            yield connection
    except sqlite3.OperationalError as error:
        raise StorageNotUsableError(f"{target.display_url(_FILE)} can't be used: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise damaged(target, _FILE) from error


def _take_over(target: DataRoot, key: CheckpointKey, episodes: ExportedEpisodes) -> None:
    """Makes rows of the JSON text that an export of before has left."""
    path = f"{FOLDER}/episodes/{key.experiment}/{key.checkpoint}.json"
    content: dict[str, Any] = read_json(target, path)
    if not content:
        return
    try:
        found = {int(number): Exported(**record) for number, record in content.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise damaged(target, path) from error
    episodes._add(found)  # noqa: SLF001 (of this module)
    remove_files(target, [path])  # after the rows; until then the text says the same
