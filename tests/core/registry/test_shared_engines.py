"""One engine for all that open a registry in a process."""

import os
import sqlite3
import threading
from pathlib import Path

from rlhfblender_core.registry import EnvironmentRecord, open_registry

_ENVIRONMENT = EnvironmentRecord(env_id="A-v0")


def open_files(folder: Path) -> set[str]:
    """Names of files in the folder that this process has open."""
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return {Path(link).name for link in links if Path(link).parent == folder}


def test_what_was_compiled_is_there_when_the_registry_is_opened_again(new_sqlite_url: str) -> None:
    with open_registry(new_sqlite_url) as registry:
        registry.ensure_environment(_ENVIRONMENT)
    with open_registry(new_sqlite_url, create=False) as registry:
        registry.find_environment("A-v0")
        compiled = registry._engine._compiled_cache
    assert compiled is not None
    known = len(compiled)
    for _ in range(3):
        with open_registry(new_sqlite_url, create=False, reached_before=True) as registry:
            assert registry.find_environment("A-v0") is not None
            assert registry._engine._compiled_cache is compiled
    assert len(compiled) == known


def test_connections_are_closed_with_the_last_that_has_the_registry_open(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    first, second = open_registry(url), open_registry(url, create=False)
    second.list_environments()
    second.close()
    second.close()  # twice is once
    first.list_environments()
    assert "registry.db" in open_files(tmp_path)
    first.close()
    assert open_files(tmp_path) == set()


def test_a_registry_in_the_place_of_a_deleted_one_is_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/registry.db"
    with open_registry(url) as old:
        old.ensure_environment(_ENVIRONMENT)
        for file in tmp_path.glob("registry.db*"):
            file.unlink()
        with open_registry(url) as new:
            assert new.list_environments() == []
            new.ensure_environment(EnvironmentRecord(env_id="B-v0"))
        with sqlite3.connect(tmp_path / "registry.db") as connection:
            assert connection.execute("SELECT env_id FROM environments").fetchall() == [("B-v0",)]
        connection.close()


def test_more_threads_than_a_pool_keeps_do_not_wait_for_each_other(new_sqlite_url: str) -> None:
    open_registry(new_sqlite_url).close()
    everybody, threads = threading.Barrier(40, timeout=20), []

    def read() -> None:
        with open_registry(new_sqlite_url, create=False) as registry, registry._read() as session:
            session.connection()
            everybody.wait()

    for _ in range(40):
        threads.append(threading.Thread(target=read, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert not everybody.broken


def test_a_forked_process_has_connections_of_its_own(new_sqlite_url: str) -> None:
    with open_registry(new_sqlite_url) as registry:
        registry.list_environments()
        child = os.fork()
        if not child:
            with open_registry(new_sqlite_url, create=False) as own:
                os._exit(7 if own._engine is not registry._engine and own.list_environments() == [] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
