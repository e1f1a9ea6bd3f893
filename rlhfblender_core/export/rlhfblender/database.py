"""RLHF-Blender's database: three tables, no NULLs, and columns that its server evaluates as Python literals.

Written in one transaction, so that a server that runs on it sees all of it or nothing. What is in the database already
stays: other rows, and columns about which we have nothing to say.
"""

import ast
import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import parse_env_id

from rlhfblender_core.environments.packages import package_of
from rlhfblender_core.environments.registration import split_module
from rlhfblender_core.errors import DataNotUsableError, StorageNotUsableError
from rlhfblender_core.export.rlhfblender.space_info import SpaceInfo
from rlhfblender_core.export.rlhfblender.tables import TABLES, Statement, table_statements
from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord
from rlhfblender_core.untrusted.sqlite_files import journal_fault

Row = dict[str, int | str]

#: What says nothing: never replaces what another wrote.
_NEUTRAL = ("", "[]", "{}", "auto", -1)
_INT64 = 2**63


@dataclass(frozen=True)
class ExperimentEntry:
    """An experiment's row, and what it needs of its environment's.

    Attributes:
        experiment_id: the row's id.
        record, environment: as registered here.
        env_name: the server's name of the environment.
        checkpoints: numbers of those with episodes.
        algorithm: of the checkpoints, where known.
        spaces: observation and action space.
        config: how the server makes its environment.
        has_states: whether a demonstration can start in the middle of any episode of the environment.
    """

    experiment_id: int
    record: ExperimentRecord
    environment: EnvironmentRecord
    env_name: str
    checkpoints: tuple[int, ...]
    algorithm: str | None
    spaces: tuple[SpaceInfo, SpaceInfo]
    config: dict[str, Any]
    has_states: bool = False


def read_taken(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Ids of experiments by name, and names of environments by registration id, of an existing database.

    Raises:
        DataNotUsableError: the file is no such database.
    """
    if not file.exists():
        return {}, {}
    with _connected(file) as connection:
        experiments = {str(row["exp_name"]): _id(row["id"]) for row in _rows(connection, "Experiment")}
        environments = {str(row["registration_id"]): str(row["env_name"]) for row in _rows(connection, "Environment")}
    return experiments, environments


def _id(value: object) -> int:
    if not isinstance(value, int):
        raise sqlite3.DataError(f"{value!r:.40} is no id")
    return value


def read_studies(file: Path, env_id: str) -> set[str]:
    """Names of the experiments on an environment in an existing database.

    Raises:
        DataNotUsableError: the file is no such database.
    """
    if not file.exists():
        return set()
    with _connected(file) as connection:
        return {str(row["exp_name"]) for row in _rows(connection, "Experiment") if row["env_id"] == env_id}


def write_entries(file: Path, entries: Sequence[ExperimentEntry], gone: Set[str] = frozenset()) -> bool:
    """Brings the database up to date with the experiments; says whether there was anything to do.

    Args:
        file: the database, made if needed.
        entries: experiments with episodes.
        gone: names of experiments without any, which the UI would offer and not load.

    Raises:
        DataNotUsableError: the file is no such database.
        StorageNotUsableError: it is locked, or can't be written.
    """
    is_new = not file.exists()
    with _connected(file) as connection:
        if not is_new and not list(_statements(connection, entries, gone)):
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in _statements(connection, entries, gone):
                connection.execute(statement, values)
            connection.execute("COMMIT")
        except BaseException:  # an interrupt, too, must leave no transaction open
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
    return True


def _statements(
    connection: sqlite3.Connection, entries: Sequence[ExperimentEntry], gone: Set[str]
) -> Iterator[Statement]:
    """What has to be changed, read and executed one after another."""
    for table in TABLES:
        yield from table_statements(connection, table)
    for entry in entries:
        yield from _row_statements(connection, "Environment", _environment_row(entry))
        yield from _row_statements(connection, "Experiment", _experiment_row(entry), entry.experiment_id)
    for project in dict.fromkeys(entry.record.project for entry in entries):
        members = [entry for entry in entries if entry.record.project == project]
        yield from _row_statements(connection, "Project", _project_row(connection, project, members))
    for row in _rows(connection, "Experiment"):
        if row["exp_name"] in gone:
            yield "DELETE FROM Experiment WHERE id = ?", (row["id"],)
    for row in _rows(connection, "Project"):
        names = _literal_list(row["project_experiments"])
        if not gone.isdisjoint(names):
            left = repr([name for name in names if name not in gone])
            yield "UPDATE Project SET project_experiments = ? WHERE id = ?", (left, row["id"])


def _row_statements(
    connection: sqlite3.Connection, table: str, wanted: Row, row_id: int | None = None
) -> Iterator[Statement]:
    key = TABLES[table][0]
    before = next((row for row in _rows(connection, table) if row[key] == wanted[key]), None)
    if before is None:
        values = wanted if row_id is None else {"id": row_id, **wanted}
        marks = ", ".join("?" * len(values))
        yield f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values())  # noqa: S608 (our own names)
        return
    changes = {name: value for name, value in wanted.items() if _replaces(name, before.get(name), value)}
    if changes:
        assignments = ", ".join(f"{name} = ?" for name in changes)
        yield f"UPDATE {table} SET {assignments} WHERE id = ?", (*changes.values(), int(before["id"]))  # noqa: S608


def _replaces(name: str, before: object, value: int | str) -> bool:
    if before is None:
        return True
    return before != value and value not in _NEUTRAL and name != "created_timestamp"


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone():
        return []
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]  # noqa: S608 (our own names)


def _environment_row(entry: ExperimentEntry) -> Row:
    environment = entry.environment
    name, description = environment.display_name or "", environment.description or ""
    # An environment that was exported and imported has its name in the description already.
    texts = (description,) if description.startswith(name) else (name, description)
    return {
        "env_name": entry.env_name,
        "registered": 1,
        "registration_id": environment.env_id,
        "observation_space_info": repr(entry.spaces[0]),
        "action_space_info": repr(entry.spaces[1]),
        "has_state_loading": int(entry.has_states),
        "description": ": ".join(text for text in texts if text),
        "tags": "[]",
        "gym_entry_point": environment.entry_point or "",
        "additional_gym_packages": repr(_packages(environment)),
    }


def _packages(environment: EnvironmentRecord) -> list[str]:
    """What the server has to import: packages that we find by the id, it doesn't."""
    module, env_id = split_module(environment.env_id)
    namespace, name, _ = parse_env_id(env_id)
    package = package_of(namespace, name)
    known = (*environment.additional_packages, module, package.module if package else None)
    return list(dict.fromkeys(name for name in known if name))


def _experiment_row(entry: ExperimentEntry) -> Row:
    record, environment = entry.record, entry.environment
    seed = record.settings.get("seed")
    created = record.created_at
    return {
        "exp_name": record.name,
        "created_timestamp": int(created.timestamp()) if created else -1,
        "run_timestamp": -1,
        "last_modified": -1,
        "pid": -1,
        "status": "[]",
        "env_id": environment.env_id,
        "environment_config": repr(entry.config),
        "framework": "random" if record.kind == "random" else "StableBaselines3",
        "path": record.model_path or "",
        "algorithm": (entry.algorithm or "").lower(),
        "hyperparams": "{}",
        "num_timesteps": max(entry.checkpoints),
        "checkpoint_frequency": -1,
        "checkpoint_list": repr(sorted(entry.checkpoints)),
        "episodes_per_eval": -1,
        "parallel_envs": -1,
        "observation_space_info": repr(entry.spaces[0]),
        "action_space_info": repr(entry.spaces[1]),
        "exp_tags": "[]",
        "exp_comment": "",
        "wandb_tracking": "False",
        "device": "auto",
        "trained_agent_path": "",
        "seed": seed if isinstance(seed, int) and abs(seed) < _INT64 else 0,
        "demo_gen_environment_config": "{}",
    }


def _project_row(connection: sqlite3.Connection, project: str, members: Iterable[ExperimentEntry]) -> Row:
    members = list(members)
    before = next((row for row in _rows(connection, "Project") if row["project_name"] == project), {})
    created = [entry.record.created_at for entry in members if entry.record.created_at]
    return {
        "project_name": project,
        "created_timestamp": int(min(created).timestamp()) if created else -1,
        "project_path": "",
        "project_description": "",
        "project_tags": "[]",
        "project_environments": _merged(before, "project_environments", [m.environment.env_id for m in members]),
        "project_datasets": "[]",
        "project_experiments": _merged(before, "project_experiments", [m.record.name for m in members]),
        "wandb_entity": "",
    }


def _merged(before: Mapping[str, Any], column: str, names: Iterable[str]) -> str:
    """The list with our names added, as a literal; one that is no list is replaced."""
    return repr(list(dict.fromkeys([*_literal_list(before.get(column)), *names])))


def _literal_list(text: object) -> list[Any]:
    with contextlib.suppress(ValueError, SyntaxError):
        found = ast.literal_eval(str(text or "[]"))
        if isinstance(found, list):
            return found
    return []


@contextlib.contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    fault = journal_fault(file)
    if fault is not None:
        raise DataNotUsableError(f"The database {file} isn't opened: {fault}. Export to a new folder.")
    try:
        connection = sqlite3.connect(file, isolation_level=None, timeout=10)
        connection.row_factory = sqlite3.Row
        with contextlib.closing(connection):
            yield connection
    except sqlite3.OperationalError as error:
        raise StorageNotUsableError(
            f"The database {file} can't be used: {error}. Stop the server that uses it, or check its permissions."
        ) from error
    except (sqlite3.DatabaseError, KeyError) as error:
        raise DataNotUsableError(f"{file} is no database of RLHF-Blender ({error}). Export to a new folder.") from error
