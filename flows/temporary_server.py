"""The temporary server that Prefect starts where there is none: it ends with the command, however the command ends.

Prefect stops it when Python exits. A command that is killed doesn't get there, and would leave the server running for
good. So a shell waits for the end of a pipe that only the command holds open, and then ends the server.
"""

import subprocess
from typing import Any

_keepers: list[subprocess.Popen[Any]] = []


def bind_temporary_server() -> None:
    """Makes the server that Prefect may be about to start end with this process; nothing where there is another."""
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value() is not None:
        return
    from prefect.server.api.server import SubprocessASGIServer

    class BoundServer(SubprocessASGIServer):
        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            server = super()._run_uvicorn_command()
            _end_with_this_process(server.pid)
            return server

    BoundServer()  # the first instance is the one that Prefect uses


def _end_with_this_process(pid: int) -> None:
    try:
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -KILL "$0" 2>/dev/null', str(pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the command
        )
    except FileNotFoundError:  # Windows
        return
    keeper.returncode = 0  # nobody waits for it; else Python warns at exit
    _keepers.append(keeper)
