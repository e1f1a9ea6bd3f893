"""The tables' history: applied on first use, equal to the models, refused when newer."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from rlhfblender_core.errors import RegistryNotUsableError
from rlhfblender_core.registry import open_existing_registry, open_registry
from rlhfblender_core.registry.engine import checked_url, make_parent_folder
from rlhfblender_core.registry.migrations import HEAD, REVISIONS, VERSION_TABLE
from rlhfblender_core.registry.models import Base


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_the_list_of_revisions_is_that_of_the_files() -> None:
    config = Config()
    config.set_main_option("script_location", "rlhfblender_core.registry:migrations")
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [HEAD]
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def tables(url: str) -> dict[str, object]:
    """All that the database says of its tables, but for columns' order, and defaults, which rows of before needed."""
    found = sa.inspect(sa.create_engine(url, poolclass=sa.NullPool))
    return {
        name: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in columns},
            found.get_pk_constraint(name),
            *(
                sorted(map(repr, kind(name)))
                for kind in (found.get_foreign_keys, found.get_unique_constraints, found.get_indexes)
            ),
        )
        for (_, name), columns in found.get_multi_columns().items()
    }


def test_migrations_make_exactly_the_tables_of_the_models(new_url: str) -> None:
    make_first_tables(new_url)
    open_registry(new_url).close()
    engine = sa.create_engine(new_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_a_new_registry_is_what_migrations_make_of_an_old_one(new_url: str) -> None:
    open_registry(new_url).close()
    made = tables(new_url)
    execute(
        new_url,
        f"DROP TABLE {VERSION_TABLE}",
        *(f"DROP TABLE {table}" for table in reversed(Base.metadata.sorted_tables)),
    )
    make_first_tables(new_url)
    open_registry(new_url).close()
    assert tables(new_url) == made


def test_a_registry_of_a_newer_version_is_refused_and_left_alone(new_url: str) -> None:
    open_registry(new_url).close()
    execute(new_url, f"UPDATE {VERSION_TABLE} SET version_num = 'future'")
    for opened in (open_registry, open_existing_registry):
        with pytest.raises(RegistryNotUsableError, match="revision 'future', made by a newer version"):
            opened(new_url)


def test_tables_of_another_program_are_refused_and_left_alone(new_sqlite_url: str, new_postgres_url: str) -> None:
    open_registry(new_sqlite_url).close()
    execute(new_sqlite_url, f"DROP TABLE {VERSION_TABLE}")
    execute(new_postgres_url, "CREATE TABLE projects (id INTEGER PRIMARY KEY)")
    for url in (new_sqlite_url, new_postgres_url):
        with pytest.raises(RegistryNotUsableError, match=r"tables of another program \(.*projects"):
            open_registry(url)


def test_a_registry_lives_beside_tables_of_other_names(new_url: str) -> None:
    open_registry(new_url).close()
    execute(new_url, *(f"DROP TABLE {table.name}" for table in reversed(Base.metadata.sorted_tables)))
    execute(
        new_url,
        f"DROP TABLE {VERSION_TABLE}",
        "CREATE TABLE project (id INTEGER)",
        "CREATE TABLE alembic_version (x TEXT)",
    )
    assert open_existing_registry(new_url) is None
    with open_registry(new_url) as registry:
        assert registry.list_projects() == []


def test_a_link_to_another_programs_database_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    others, link = tmp_path / "others.db", tmp_path / "rlhfblender.db"
    with closing(sqlite3.connect(others)) as connection:
        connection.execute("CREATE TABLE passwords (id INTEGER)")
        connection.commit()
    before = others.read_bytes()
    link.symlink_to(others)
    with pytest.raises(RegistryNotUsableError, match="a link to another program's database"):
        open_registry(f"sqlite:///{link}")
    assert others.read_bytes() == before
    others.unlink()
    open_registry(f"sqlite:///{others}").close()
    open_registry(f"sqlite:///{link}").close()  # a link to a registry works as before


def test_making_or_opening_a_registry_imports_no_alembic(new_sqlite_url: str) -> None:
    code = (
        "import sys; from rlhfblender_core.registry import open_registry; "
        "[open_registry(sys.argv[1]).close() for _ in range(2)]; "
        "print('alembic' in sys.modules, 'prefect' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code, new_sqlite_url], capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["False", "False"]


def make_first_tables(url: str, revision: str = "0001") -> None:
    """A registry as an earlier revision made it, with a project in it."""
    make_parent_folder(checked_url(url))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "rlhfblender_core.registry:migrations")
        config.set_main_option("path_separator", "os")
        command.upgrade(config, revision)
    execute(url, "INSERT INTO projects (name, created_at) VALUES ('Old', '2025-01-01 00:00:00')")


def test_a_registry_of_the_first_revision_keeps_its_rows_and_gets_claims(new_url: str) -> None:
    make_first_tables(new_url)
    with open_registry(new_url, create=False) as registry:
        assert [project.name for project in registry.list_projects()] == ["Old"]
        assert registry.claim("run", "E", "random", [0, 1], lambda _: False).free == (0, 1)
    engine = sa.create_engine(new_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        assert connection.scalar(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")) == HEAD


def test_a_registry_whose_new_tables_would_be_others_is_refused_and_left_alone(new_url: str) -> None:
    make_first_tables(new_url)
    execute(new_url, "CREATE TABLE runs (id INTEGER PRIMARY KEY)")
    with pytest.raises(RegistryNotUsableError, match=r"tables of another program \(runs\)"):
        open_registry(new_url)
    execute(new_url, "DROP TABLE runs")
    open_registry(new_url).close()


def test_a_registry_of_the_first_revision_is_read_on_a_disk_that_cannot_be_written(
    new_sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first_tables(new_sqlite_url)
    writable = os.W_OK
    monkeypatch.setattr("os.access", lambda _, mode: mode != writable)  # root may write what nobody else can
    opened = open_existing_registry(new_sqlite_url)
    assert opened is not None
    with opened as registry:
        assert [project.name for project in registry.list_projects()] == ["Old"]
        assert registry.list_runs("E") == []
        assert registry.list_claims("E") == {}


def test_keyword_arguments_move_from_environments_to_their_experiments(new_url: str) -> None:
    make_first_tables(new_url, "0003")
    moment = "'2025-01-01 00:00:00'"
    columns = "additional_packages, kwargs, spec_kwargs, observation_space, action_space, created_at, updated_at"
    values = (
        f"""'[]', '{{"size": 8}}', '{{"max_episode_steps": 9}}', '{{"shape": [1]}}', '{{"n": 2}}', {moment}, {moment}"""
    )
    nothing = "'{}', '{}', '{}', '{}'"
    experiment = "name, project_id, environment_id, kind, settings, created_at, updated_at"
    execute(
        new_url,
        f"INSERT INTO environments (id, env_id, {columns}) VALUES (7, 'Maze-v0', {values})",
        f"INSERT INTO environments (id, env_id, {columns}) VALUES (8, 'Other-v0', '[]', {nothing}, {moment}, {moment})",
        *(
            f"INSERT INTO experiments ({experiment}) VALUES ('{name}', 1, {env}, 'random', '{{}}', {moment}, {moment})"
            for name, env in (("a", 7), ("b", 7), ("c", 8))
        ),
    )
    with open_registry(new_url) as registry:
        moved = {record.name: (record.env_kwargs, record.action_space) for record in registry.list_experiments()}
        environment = registry.find_environment("Maze-v0")
    given = ({"size": 8, "max_episode_steps": 9}, {"n": 2})
    assert moved == {"a": given, "b": given, "c": ({}, {})}
    assert environment is not None
    assert environment.action_space == {"n": 2}
