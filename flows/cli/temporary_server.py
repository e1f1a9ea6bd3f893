"""Prefect's temporary server for a command that finds no other: started early, ended with the command, however it ends.

Prefect would start one too, but only when it is first needed, after having loaded the whole server into the command
itself; and it leaves the server running for good when the command is killed. Here it starts before the command has
loaded Prefect, on a socket that the command has opened, and ends when a pipe does that only the command holds open.
"""

import atexit
import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from rlhfblender_core.errors import OutOfReachError

_STOP_S = 5.0
#: So long a first command waits for others' migrations, in seconds; a migration takes three to seven.
_MIGRATION_S = 120.0
_SETTINGS = {
    # As Prefect starts its own.
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # Kinds of blocks are for people who look at them in the UI. To find out whether all are in the database, which a
    # server with a UI does too, loads whatever is installed besides Prefect: Dask, Ray, clouds.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "0",
}


class TemporaryServer:
    """A server of this process, which may still be starting."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the server)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.api_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                # -P: not the modules beside this file
                [sys.executable, "-P", __file__, str(listener.fileno())],
                env={**os.environ, **_SETTINGS},
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the command
            )
        self.has_started = False
        # Before those of Prefect's threads, so that it runs after they have sent what they have.
        atexit.register(self.stop)

    def wait(self) -> None:
        """Returns once the server answers.

        Raises:
            OutOfReachError: it doesn't.
        """
        import urllib.request

        from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

        timeout = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        try:
            # The socket takes the connection at once, and the server answers it when it can.
            urllib.request.urlopen(f"{self.api_url}/health", timeout=timeout).close()  # noqa: S310 (http, our own)
        except OSError as error:
            self.stop()
            raise OutOfReachError(f"Prefect's temporary server did not start: {self._last_words() or error}") from error
        self.has_started = True

    def stop(self) -> None:
        """Ends the server; one that has started writes down what it has got before."""
        if self.has_started:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""


_servers: list[TemporaryServer] = []


def begin_temporary_server() -> None:
    """Begins to start a server before Prefect is loaded, unless it is plain that another one is to be used."""
    if os.name == "posix" and not os.environ.get("PREFECT_API_URL"):
        _servers.append(TemporaryServer())


def start_temporary_server() -> None:
    """Starts a server for :func:`server_settings`, unless the settings name one; doesn't wait for it."""
    if not _is_wanted():
        while _servers:
            _servers.pop().stop()
    elif not _servers and os.name == "posix":  # elsewhere sockets can't be passed on; Prefect starts its own
        _servers.append(TemporaryServer())


def _is_wanted() -> bool:
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    return not PREFECT_API_URL.value() and bool(PREFECT_SERVER_EPHEMERAL_ENABLED.value())


@contextlib.contextmanager
def server_settings() -> Iterator[None]:
    """Has Prefect use the temporary server where one was started, once it answers.

    Raises:
        OutOfReachError: it doesn't.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    settings: dict[Any, Any] = {}
    if not PREFECT_API_URL.value() and _servers:
        _servers[0].wait()
        # Nobody watches its runs for heartbeats, and stopping Prefect's takes up to a second.
        settings = {PREFECT_API_URL: _servers[0].api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        # It has no UI to view a run in.
        logging.getLogger("prefect.flow_runs").addFilter(lambda record: not record.getMessage().startswith("View at "))
    with temporary_settings(settings):
        yield


def _serve(file_descriptor: int) -> None:
    """The server itself. Where the settings, which take a while to read, name another one, it isn't needed."""
    threading.Thread(target=_end_with_command, daemon=True).start()
    gc.disable()  # as in the command, see flows.cli.process
    if not _is_wanted():
        return
    import uvicorn
    from prefect.server.api.server import create_app

    _migrate_in_turn()
    gc.freeze()  # Prefect collects when it makes the app
    config = uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on", access_log=False)
    config.load()
    gc.freeze()
    gc.enable()
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=file_descriptor)])


def _migrate_in_turn() -> None:
    """Brings Prefect's database to its newest revision, one process after the other.

    Eight first commands at once on a new ``PREFECT_HOME``: three failed, as each began to make the same tables.
    """
    import asyncio
    from importlib.metadata import version

    from filelock import FileLock
    from prefect.server.database import provide_database_interface
    from prefect.settings import PREFECT_HOME

    home = PREFECT_HOME.value()
    done = home / f"rlhfblender-migrated-{version('prefect')}"
    # A folder that can't be written is for the server itself to complain of.
    with contextlib.suppress(OSError):
        if done.exists() and (home / "prefect.db").exists():
            return
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / "rlhfblender-migration.lock", timeout=_MIGRATION_S):
            if not (done.exists() and (home / "prefect.db").exists()):
                asyncio.run(provide_database_interface().create_db())
                done.touch()


def _end_with_command() -> None:
    os.read(0, 1)  # not through sys.stdin, which Python couldn't close at its end while somebody reads
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
