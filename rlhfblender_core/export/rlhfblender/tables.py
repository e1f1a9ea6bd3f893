"""The tables of RLHF-Blender's database, as its servers of 2025 and 2026 make them."""

import sqlite3
from collections.abc import Iterator

Statement = tuple[str, tuple[int | str, ...]]

#: By name: the column that is unique, all columns but ``id``, and those that hold integers.
TABLES: dict[str, tuple[str, tuple[str, ...], frozenset[str]]] = {
    "Project": (
        "project_name",
        (
            *("project_name", "created_timestamp", "project_path", "project_description", "project_tags"),
            *("project_environments", "project_datasets", "project_experiments", "wandb_entity"),
        ),
        frozenset({"created_timestamp"}),
    ),
    "Experiment": (
        "exp_name",
        (
            *("exp_name", "created_timestamp", "run_timestamp", "last_modified", "pid", "status", "env_id"),
            *("environment_config", "framework", "path", "algorithm", "hyperparams", "num_timesteps"),
            *("checkpoint_frequency", "checkpoint_list", "episodes_per_eval", "parallel_envs"),
            *("observation_space_info", "action_space_info", "exp_tags", "exp_comment", "wandb_tracking", "device"),
            *("trained_agent_path", "seed", "demo_gen_environment_config"),
        ),
        frozenset(
            {
                *("created_timestamp", "run_timestamp", "last_modified", "pid", "num_timesteps"),
                *("checkpoint_frequency", "episodes_per_eval", "parallel_envs", "seed"),
            }
        ),
    ),
    "Environment": (
        "registration_id",
        (
            *("env_name", "registered", "registration_id", "observation_space_info", "action_space_info"),
            *("has_state_loading", "description", "tags", "gym_entry_point", "additional_gym_packages"),
        ),
        frozenset({"registered", "has_state_loading"}),
    ),
}
#: Only the server of 2026 makes this column.
_DEFAULTS = {"demo_gen_environment_config": " DEFAULT '{}'"}
#: What the server evaluates, by what it must be: rows that others wrote get a value in columns that they lack.
_EVALUATED = {
    "'[]'": frozenset(
        {
            *("project_tags", "project_environments", "project_datasets", "project_experiments"),
            *("status", "checkpoint_list", "exp_tags", "tags", "additional_gym_packages"),
        }
    ),
    "'{}'": frozenset(
        {
            *("environment_config", "demo_gen_environment_config", "hyperparams"),
            *("observation_space_info", "action_space_info"),
        }
    ),
}


def table_statements(connection: sqlite3.Connection, table: str) -> Iterator[Statement]:
    """What makes the table, or adds the columns that another version's lacks."""
    _, columns, integers = TABLES[table]
    types = {name: f"{name} {'INTEGER' if name in integers else 'TEXT'}" for name in columns}
    there = {str(row["name"]) for row in connection.execute(f"PRAGMA table_info({table})")}
    if not there:
        declared = ", ".join(f"{declaration}{_DEFAULTS.get(name, '')}" for name, declaration in types.items())
        yield f"CREATE TABLE {table} (id INTEGER PRIMARY KEY AUTOINCREMENT, {declared})", ()
        return
    for name in columns:
        if name not in there:  # no NULL: the server fails on one
            yield f"ALTER TABLE {table} ADD COLUMN {types[name]} DEFAULT {_neutral(name, integers)}", ()


def _neutral(column: str, integers: frozenset[str]) -> str:
    """The value, as SQL, that says nothing."""
    if column in integers:
        return "0" if column in ("seed", "registered", "has_state_loading") else "-1"
    return next((value for value, columns in _EVALUATED.items() if column in columns), "''")
