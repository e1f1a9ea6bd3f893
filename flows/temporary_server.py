"""Prefect's temporary server for a command that finds no other: started early, ended with the command, however it ends.

Prefect would start one too, but only when it is first needed, after having loaded the whole server into the command
itself; and it leaves the server running for good when the command is killed. Here it starts while the command finds
out what to do, on a socket that the command has opened, and ends when a pipe does that only the command holds open.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

from rlhfblender_core.errors import OutOfReachError

_STOP_S = 5.0


class TemporaryServer:
    """A server of this process, which may still be starting."""

    def __init__(self) -> None:
        from prefect.settings import get_current_settings

        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the server)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.api_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                # -P: not the modules beside this file
                [sys.executable, "-P", __file__, str(listener.fileno())],
                env={
                    **os.environ,
                    **get_current_settings().to_environment_variables(exclude_unset=True),
                    # As Prefect starts its own.
                    "PREFECT_UI_ENABLED": "0",
                    "PREFECT__SERVER_EPHEMERAL": "1",
                    "PREFECT__SERVER_FINAL": "1",
                },
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[listener.fileno()],
                start_new_session=True,  # Ctrl-C is for the command
            )
        self._has_started = False
        # Before those of Prefect's threads, so that it runs after they have sent what they have.
        atexit.register(self.stop)

    def wait(self) -> None:
        """Returns once the server answers.

        Raises:
            OutOfReachError: it doesn't.
        """
        from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

        timeout = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
        try:
            # The socket takes the connection at once, and the server answers it when it can.
            urllib.request.urlopen(f"{self.api_url}/health", timeout=timeout).close()  # noqa: S310 (http, our own)
        except OSError as error:
            self.stop()
            raise OutOfReachError(f"Prefect's temporary server did not start: {self._last_words() or error}") from error
        self._has_started = True

    def stop(self) -> None:
        """Ends the server; one that has started writes down what it has got before."""
        if self._has_started:
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


def start_temporary_server() -> None:
    """Starts a server for :func:`server_settings`, unless the settings name one; doesn't wait for it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

    is_wanted = PREFECT_API_URL.value() is None and PREFECT_SERVER_EPHEMERAL_ENABLED.value()
    if (
        is_wanted and not _servers and os.name == "posix"
    ):  # elsewhere sockets can't be passed on; Prefect starts its own
        _servers.append(TemporaryServer())


@contextlib.contextmanager
def server_settings() -> Iterator[None]:
    """Has Prefect use the temporary server where one was started, once it answers.

    Raises:
        OutOfReachError: it doesn't.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    settings: dict[Any, Any] = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}  # see flows.signs_of_life
    if PREFECT_API_URL.value() is None and _servers:
        _servers[0].wait()
        settings[PREFECT_API_URL] = _servers[0].api_url
    with temporary_settings(settings):
        yield


def _serve(file_descriptor: int) -> None:
    """The server itself."""
    threading.Thread(target=_end_with_command, daemon=True).start()
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app", factory=True, log_level="error", lifespan="on", access_log=False
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=file_descriptor)])


def _end_with_command() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
