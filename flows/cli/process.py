"""A command as a process: how it starts, how it is stopped, and how it ends.

Nothing that takes long to import is imported here: what a command needs takes a second to load, and Prefect's server
starts meanwhile. What the command line says is in :mod:`flows.cli.arguments`.
"""

import atexit
import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
import threading
import time
import tomllib
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NoReturn

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from flows.cli.next_commands import as_typed, lines_from_here
from flows.cli.outliving import go_on_in_a_fork, is_traced, note_leaving, note_signal
from flows.cli.temporary_server import begin_temporary_server, start_temporary_server
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.errors import DiskFullError, OutOfReachError, RLHFBlenderError, TransientError, one_line
from rlhfblender_core.lifelines import remember_lifelines
from rlhfblender_core.workers import HASH_SEED

EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST = 0, 1, 2
#: A command that was stopped by a signal exits with this and the signal's number: 130 for Ctrl-C.
EXIT_STOPPED = 128

#: Where the core says where errors come from, at the level DEBUG.
core_logger = logging.getLogger("rlhfblender_core")
_LEVEL = "PREFECT_LOGGING_LEVEL"

#: Runners whose environments are tried out, or rolled out, in the command's own process.
_HERE = ("inprocess", "dask", "ray")
#: How long a stopped command may take to clean up, in seconds.
_GRACE_S = 10
_HELP = (["-h"], ["--help"])
_STOPPED = "Stopped. What is published stays; run the same command again to finish."
_INTERRUPTED = "The environment, or a package that it uses, raised KeyboardInterrupt. What is published stays."


class StoppedBySignal(KeyboardInterrupt):
    """A person stopped this command: Ctrl-C, ``kill``, a closed terminal. No other process raises it."""


def start_command(module: str, *, is_flow: bool = True) -> NoReturn:
    """Runs a module's ``main`` as all that this process does. For the first lines of a command's file.

    Args:
        module: whose file was started.
        is_flow: whether it needs Prefect's server.
    """
    _hide_flows_folder()
    _refuse_settings_of_others()
    if importlib.util.find_spec("prefect") is None:
        fail("The commands need packages that the library doesn't: pip install 'rlhfblender-data[workflow]'.", 2)
    _hash_texts_alike()
    go_on_in_a_fork()
    leave = _Leave()
    is_flow = is_flow and sys.argv[1:] not in _HELP  # a server takes longer to start than the help to be shown
    if is_flow:
        begin_temporary_server()
    # Nothing of what is imported is garbage, and looking for it takes a fifth of the time that importing does.
    gc.disable()
    try:
        run_command(module, is_flow=is_flow)
    except SystemExit as end:
        leave.code = end.code if isinstance(end.code, int) else EXIT_INCOMPLETE
        threading.Thread(target=_leave_in_time, name="leave-in-time", daemon=True).start()
        raise


def _refuse_settings_of_others() -> None:
    """Ends the command where Prefect would take settings from the current folder, which may be somebody's data.

    They may name code, servers, and results to be unpickled. This project's own folder may have such files.
    """
    here = Path.cwd()
    if here == Path(__file__).resolve().parents[2]:
        return
    for file in (here / "prefect.toml", here / ".env", here / "pyproject.toml"):
        if file.is_file() and _sets_up_prefect(file):
            fail(
                f"{file} would set Prefect up, and may name code to run. If these settings are yours, give them as "
                "PREFECT_… in the environment or with `prefect config set`; else start the command in another folder.",
                EXIT_WRONG_REQUEST,
            )


def _sets_up_prefect(file: Path) -> bool:
    content = file.read_bytes().decode(errors="replace")
    if file.name == ".env":
        return "prefect" in content.lower()
    try:
        held = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError):  # Prefect would end with a traceback
        return True
    tools = held.get("tool", {})
    return bool(held) if file.name == "prefect.toml" else not isinstance(tools, dict) or "prefect" in tools


def _hash_texts_alike() -> None:
    """Starts the command again with the hash seed that worker processes have, where it tries environments out itself.

    Sets of texts would have another order than in every other run. A seed that the user has set stays, and debuggers
    keep their process; environments that depend on it are found not to be reproducible then.
    """
    asked = {argument.removeprefix("--runner=") for argument in sys.argv[1:]}
    if asked.isdisjoint(_HERE) or "PYTHONHASHSEED" in os.environ or is_traced() or not sys.orig_argv[0]:
        return
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 (itself)


def _leave_in_time() -> None:
    """Ends the process though threads of an environment never end: Python would wait for them for ever."""
    time.sleep(_GRACE_S)
    atexit._run_exitfuncs()  # noqa: SLF001 (what Python calls once all threads have ended; its last one is _leave)


class _Leave:
    """Ends the process once everything is cleaned up, instead of taking the interpreter apart for half a second."""

    def __init__(self) -> None:
        self.code = EXIT_INCOMPLETE  # of an exception that nobody has foreseen
        atexit.register(self._leave)  # the first that is registered is the last that is called

    def _leave(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the reader went away, or it is closed
                stream.flush()
        note_leaving()
        os._exit(self.code)


def run_command(module: str, *, is_flow: bool = True) -> NoReturn:
    """Runs a module's ``main``: our errors and signals become one line and an exit code; libraries keep quiet.

    The module is imported by its name, because what is defined in ``__main__`` can't be sent to a cluster by name.

    Args:
        module: of the command.
        is_flow: whether it needs Prefect's server.
    """
    with _stopped_by_signals() as received:
        try:
            code = _exit_code(module, is_flow=is_flow)
        except KeyboardInterrupt:
            if not received:
                fail(_INTERRUPTED, EXIT_INCOMPLETE)
            code = EXIT_INCOMPLETE
        except (Exception, SystemExit):
            if not received:
                raise
            code = EXIT_INCOMPLETE  # what was being done when the signal came made another error of it
        if received and code != EXIT_DONE:
            fail(_STOPPED, EXIT_STOPPED + received[0])
    raise SystemExit(code)


def _exit_code(module: str, *, is_flow: bool) -> int:
    try:
        silence_libraries()
        if os.environ.get(_LEVEL, "").upper() == "DEBUG":
            show_tracebacks()
        command = importlib.import_module(module)
        silence_libraries()  # those that were loaded now
        if not gc.isenabled():  # see start_command
            gc.freeze()
            gc.enable()
        if is_flow:
            start_temporary_server()
        code: int = command.main()
    except RLHFBlenderError as error:
        core_logger.debug("", exc_info=True)
        is_request = not isinstance(error, TransientError | OutOfReachError | DiskFullError)
        fail(one_line(error), EXIT_WRONG_REQUEST if is_request else EXIT_INCOMPLETE)
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        sys.stderr.close()
        return EXIT_INCOMPLETE
    return code


def fail(message: str, code: int) -> NoReturn:
    """Prints one line on standard error, commands and paths in it as they are typed here, and exits."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"error: {lines_from_here(as_typed(message))}", file=sys.stderr, flush=True)
    raise SystemExit(code)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Has a closed terminal and ``kill`` stop the command as Ctrl-C does; gives the numbers of those that came."""
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        raise StoppedBySignal("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names]
    # Ignored ones (`nohup`) stay so.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    watched = _end_in_time(before)
    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        remember_lifelines([])
        if not received:  # else what follows has to end in time, too
            signal.set_wakeup_fd(-1)
            watched.close()


def _end_in_time(numbers: Collection[int]) -> socket.socket:
    """Ends the process a while after one of these signals came, whatever hangs: the next run cleans up as after a kill.

    A thread that hangs in an environment can't be ended, and an exception that a signal raises just anywhere can leave
    a lock of Python's own import machinery locked for good (seen once in 60 runs). Python tells of signals through a
    socket, whoever handles them: during a flow, Prefect keeps SIGTERM for itself.

    Args:
        numbers: of the signals.

    Returns:
        the socket; closing it ends the watch.
    """
    told, tells = socket.socketpair()
    tells.settimeout(0)
    signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    remember_lifelines([told.fileno(), tells.fileno()])
    if hasattr(os, "register_at_fork"):  # what is told to a process that an environment forks doesn't concern this one
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_end_after_signal, args=(told, numbers), name="end-in-time", daemon=True).start()
    return tells


def _end_after_signal(told: socket.socket, numbers: Collection[int]) -> None:
    try:
        came = told.recv(1)
        while came and came[0] not in numbers:
            came = told.recv(1)
        if not came:
            told.close()
            return
    except OSError:  # an environment has closed it: the process ends of that
        return
    note_signal()
    time.sleep(_GRACE_S)  # the socket stays open: more signals may come
    code = EXIT_STOPPED + came[0]
    with contextlib.suppress(SystemExit):
        fail(_STOPPED, code)
    note_leaving()
    os._exit(code)


def _hide_flows_folder() -> None:
    """Takes the started file's folder off the path: an environment's ``import register`` means another's package.

    Worker processes and the fork server get the path of this process.
    """
    folder = str(Path(__file__).resolve().parents[1])
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != folder]


class _Terminal(logging.Handler):
    """Shows lines of the core on standard error, beside a live line as well, which stands in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the line, and the traceback that goes with it."""
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone
            print(as_typed(without_credentials(self.format(record))), file=sys.stderr, flush=True)


_terminal = _Terminal(logging.WARNING)


def show_tracebacks() -> None:
    """Has the terminal show where errors come from: what ``--verbose`` asks for."""
    core_logger.setLevel(logging.DEBUG)
    _terminal.setLevel(logging.DEBUG)


def silence_libraries() -> None:
    """Keeps the terminal for what the command itself has to say, unless the user has set Prefect's logging level.

    Prefect's logs still go to its server.
    """
    warnings.filterwarnings("ignore")
    core_logger.addHandler(_terminal)  # once, however often this is called
    core_logger.propagate = False  # Prefect's own handler would show the same a second time
    if _LEVEL in os.environ:
        return
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # in processes started from here
    for name in ("", "prefect", "prefect._internal", "uvicorn", "fastapi"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL + 1)
    logging.getLogger().setLevel(logging.CRITICAL + 1)
