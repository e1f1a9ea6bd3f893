"""What RLHF-Blender's own database says about an experiment and its environment. Read only, and as plain literals.

Its server ``eval``s the texts in it; here they are parsed as literals, and what isn't one is left out.
"""

import ast
import contextlib
import math
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from rlhfblender_core.dataset.layout import DATABASE_FILE
from rlhfblender_core.environments import EnvironmentSpec, space_from_description, split_env_kwargs
from rlhfblender_core.environments.make import RENDER_MODE_KWARG
from rlhfblender_core.errors import InvalidParameterError, one_line
from rlhfblender_core.registry import JsonDict
from rlhfblender_core.untrusted.limits import (
    MAX_CELL_BYTES,
    MAX_LITERAL_CHARACTERS,
    MAX_QUERY_ROWS,
    MAX_QUERY_STEPS,
)

#: Of an observation: a space keeps the bounds of each.
_MAX_NUMBERS = 1 << 22
#: How many steps of SQLite's machine go by between two looks at the clock.
_STEPS_PER_LOOK = 10_000


@dataclass(frozen=True)
class SourceFacts:
    """What the source's database knows; everything may be missing.

    Attributes:
        experiment: its name there.
        algorithm: of its policies.
        is_random: whether its agent acts at random.
        env_kwargs: keyword arguments of the environment, those of its registration among them.
        env_id: the id it is made by.
        display_name, description: of the environment.
        entry_point, packages: how it is made.
        observation_space, action_space: as :func:`rlhfblender_core.environments.describe_space` has them.
        action_names: labels of its actions.
    """

    experiment: str | None = None
    algorithm: str | None = None
    is_random: bool = False
    env_kwargs: JsonDict = field(default_factory=dict)
    env_id: str | None = None
    display_name: str | None = None
    description: str | None = None
    entry_point: str | None = None
    packages: tuple[str, ...] = ()
    observation_space: JsonDict = field(default_factory=dict)
    action_space: JsonDict = field(default_factory=dict)
    action_names: tuple[str, ...] | None = None


def find_database(folder: Path) -> Path | None:
    """RLHF-Blender's database in the data folder or beside it; None if there is none."""
    for file in (folder / DATABASE_FILE, folder.parent / DATABASE_FILE):
        # A view would be somebody's program; RLHF-Blender has none.
        has_table = "SELECT name FROM sqlite_master WHERE name = 'Experiment' AND type = 'table'"
        if file.is_file() and (_rows(file, has_table, ()) or database_fault(file)):
            return file
    return None


def database_fault(database: Path) -> str | None:
    """What is wrong with the file as a database, in SQLite's words; None if nothing is."""
    try:
        rows = _query(database, "PRAGMA quick_check(1)", ())
    except sqlite3.Error as error:
        return str(error)
    found = str(next(iter(rows[0].values()))) if rows else "ok"
    return None if found == "ok" else " ".join(found.split())


def read_facts(database: Path | None, experiment_id: int | None, env_id: str) -> SourceFacts:
    """What the database says of the experiment of that id, and of the environment of that id or name."""
    if database is None:
        return SourceFacts()
    experiment = _first(_rows(database, "SELECT * FROM Experiment WHERE id = ?", (experiment_id,)))
    env_id = _text(experiment, "env_id") or env_id
    query = "SELECT * FROM Environment WHERE registration_id = ? OR env_name = ?"
    environment = _first(_rows(database, query, (env_id, env_id)))
    config = _literal(experiment, "environment_config", dict) or {}
    packages = _literal(environment, "additional_gym_packages", list) or []
    labels = (_literal(environment, "action_space_info", dict) or {}).get("labels")
    return SourceFacts(
        experiment=_text(experiment, "exp_name"),
        algorithm=(_text(experiment, "algorithm") or "").upper() or None,
        is_random=(_text(experiment, "framework") or "").lower() == "random",
        env_kwargs=_env_kwargs(config.get("env_kwargs")),
        env_id=_text(environment, "registration_id") or _text(experiment, "env_id"),
        display_name=_text(environment, "env_name"),
        description=_text(environment, "description"),
        entry_point=_text(environment, "gym_entry_point"),
        packages=tuple(name for name in packages if isinstance(name, str)),
        observation_space=_space(_literal(environment, "observation_space_info", dict)),
        action_space=_space(_literal(environment, "action_space_info", dict)),
        action_names=_names(labels),
    )


def _rows(database: Path, query: str, values: tuple[Any, ...]) -> list[Mapping[str, Any]]:
    """The rows of a query; none where the file is no such database."""
    with contextlib.suppress(sqlite3.Error):
        return _query(database, query, values)
    return []


def _query(database: Path, query: str, values: tuple[Any, ...]) -> list[Mapping[str, Any]]:
    """The first rows of a query. A view or a column in the file may compute without end: that takes too many steps.

    Raises:
        sqlite3.Error: the file is damaged, or the query takes too much.
    """
    # Immutable: not even a lock is left beside it.
    url = f"file:{quote(str(database.absolute()))}?mode=ro&immutable=1"
    looks = iter(range(MAX_QUERY_STEPS // _STEPS_PER_LOOK))
    with contextlib.closing(sqlite3.connect(url, uri=True)) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CELL_BYTES)
        connection.set_progress_handler(lambda: next(looks, None) is None, _STEPS_PER_LOOK)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda content: content.decode(errors="replace")
        try:
            return [dict(row) for row in connection.execute(query, values).fetchmany(MAX_QUERY_ROWS)]
        except (ValueError, OverflowError, MemoryError) as error:  # names of columns that are no UTF-8, and the like
            raise sqlite3.DatabaseError(one_line(error)) from error


def _first(rows: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    return rows[0] if rows else {}


def _text(row: Mapping[str, Any], column: str) -> str | None:
    value = row.get(column)
    return value.strip() or None if isinstance(value, str) and len(value) <= MAX_LITERAL_CHARACTERS else None


def _literal(row: Mapping[str, Any], column: str, kind: type[Any]) -> Any:
    text = _text(row, column)
    if text is None:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return value if isinstance(value, kind) else None


def _env_kwargs(given: Any) -> JsonDict:
    """The keyword arguments that an environment can be registered with."""
    kept: JsonDict = {}
    for name, value in given.items() if isinstance(given, dict) else ():
        if not isinstance(name, str) or not name.isidentifier() or name == RENDER_MODE_KWARG:
            continue
        with contextlib.suppress(InvalidParameterError):
            kwargs, spec_kwargs = split_env_kwargs({name: value})
            spec = EnvironmentSpec("any", kwargs=kwargs, spec_kwargs=spec_kwargs)
            kept |= {**spec.kwargs, **spec.spec_kwargs}
    return kept


def _space(info: Mapping[str, Any] | None) -> JsonDict:
    """RLHF-Blender's words for a space in ours; empty for what can't be told."""
    if not info:
        return {}
    sides, dtype = info.get("shape"), str(info.get("dtype") or "float32")
    if not isinstance(sides, tuple | list) or not all(isinstance(side, int) and side > 0 for side in sides):
        return {}
    shape = list(sides)
    described: JsonDict = {"shape": shape, "dtype": dtype}
    kind = str(info.get("label", "")).partition("(")[0]
    if kind == "Box" and math.prod(shape) <= _MAX_NUMBERS:
        low, high = _limits(dtype)  # RLHF-Blender says nothing of the bounds of observations
        described |= {"type": "Box", "low": info.get("low", low), "high": info.get("high", high)}
    elif kind == "Discrete" and len(shape) == 1:
        described |= {"type": "Discrete", "shape": [], "n": shape[0], "start": _first_action(info.get("labels"))}
    else:
        return {}
    try:
        space_from_description(described)
    except InvalidParameterError:
        return {}
    return described


def _first_action(labels: object) -> int:
    """The lowest value that has a label."""
    values = [int(key) for key in labels if re.fullmatch(r"-?\d{1,9}", str(key))] if isinstance(labels, dict) else []
    return min(values, default=0)


def _limits(dtype: str) -> tuple[int | str, int | str]:
    with contextlib.suppress(TypeError, ValueError):  # no dtype, or no whole numbers
        limits = np.iinfo(dtype)
        return int(limits.min), int(limits.max)
    return "-inf", "inf"


def _names(labels: Any) -> tuple[str, ...] | None:
    if not isinstance(labels, dict) or not labels or not all(isinstance(name, str) for name in labels.values()):
        return None
    return tuple(labels.values())
