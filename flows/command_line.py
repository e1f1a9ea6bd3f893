"""What the command lines of all flows share: flags made from a flow's parameters, exit codes, messages."""

import argparse
import contextlib
import importlib
import inspect
import logging
import os
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from flows.secret_parameters import Secret
from flows.temporary_server import server_settings, start_temporary_server
from rlhfblender_core.errors import OutOfReachError, RLHFBlenderError, TransientError, one_line

if TYPE_CHECKING:
    from prefect import State

EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST = 0, 1, 2
#: A command that was stopped by a signal exits with this and the signal's number: 130 for Ctrl-C.
EXIT_STOPPED = 128

#: How long a stopped command may take to clean up, in seconds.
_GRACE_S = 10
_STOPPED = "Stopped. What is published stays; run the same command again to finish."

#: Name of the final state of a flow run whose request was wrong.
REFUSED = "Refused"


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of printing the usage first."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        fail(f"{message[:1].upper()}{message[1:]}. See --help.", EXIT_WRONG_REQUEST)


def fail(message: str, code: int) -> NoReturn:
    """Prints one line on standard error and exits."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"error: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def say_where_to_look(state: "State[Any]") -> None:
    """Prints where Prefect's UI shows the run; without a server, how to get one.

    Args:
        state: the run's last.
    """
    from prefect.utilities.urls import url_for

    page = url_for("flow-run", state.state_details.flow_run_id)
    print(f"Run: {page}" if page else _NO_UI)


#: A server that is started later shows this run too: temporary ones keep theirs in the same database.
_NO_UI = "Run: in Prefect's UI, once `make server` runs: http://127.0.0.1:4200 (docs/operations.md)."


def make_parser(function: Callable[..., Any], description: str, epilog: str | None = None) -> CommandParser:
    """A parser with one flag per parameter of a flow: names, types, defaults and help are the flow's.

    A parameter that may be given by position has no flag; one without a default has to be given.

    Args:
        function: the flow's function; its parameters are ``Annotated[type, Field(description=…)]``.
        description: what the command does.
        epilog: examples.
    """
    parser = CommandParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            _add_flag(parser, name, hints[name], parameter.default)
        else:
            parser.add_argument(name, metavar=name.upper(), help=_help(hints[name]))
    return parser


def _help(annotated: Any) -> str:
    _, *metadata = get_args(annotated)
    text = next((item.description for item in metadata if isinstance(item, FieldInfo)), None) or ""
    return text.replace("%", "%%")


def _add_flag(parser: argparse.ArgumentParser, name: str, annotated: Any, default: Any) -> None:
    annotation, *metadata = get_args(annotated)
    flag = f"--{name.replace('_', '-')}"
    kind, is_list = _element_type(annotation)
    options: dict[str, Any] = {"default": default, "help": _help(annotated), "dest": name}
    if default is inspect.Parameter.empty:
        options |= {"default": None, "required": True}
    if kind is bool:
        parser.add_argument(flag, action="store_true", **options)
    elif kind is dict:
        parser.add_argument(flag, nargs="+", metavar="K:V", **options)
    elif get_origin(kind) is Literal:
        parser.add_argument(flag, choices=get_args(kind), **options)
    else:
        metavar = {int: "N", float: "X"}.get(kind, "TEXT")
        secret = next((item.keep for item in metadata if isinstance(item, Secret)), None)
        parser.add_argument(flag, type=secret or kind, nargs="+" if is_list else None, metavar=metavar, **options)


def _element_type(annotation: Any) -> tuple[Any, bool]:
    """The type of one value, and whether several are taken."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kinds = [argument for argument in arguments if argument is not type(None)]
        return _element_type(kinds[0]) if len(kinds) == 1 else (_int_or_text, False)
    if origin is list:
        return _element_type(arguments[0])[0], True
    return (dict, False) if origin is dict else (annotation, False)


def _int_or_text(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def run_command(module: str, *, is_flow: bool = True) -> NoReturn:
    """Runs a module's ``main``: our errors and signals become one line and an exit code; libraries keep quiet.

    The module is imported by its name, because what is defined in ``__main__`` can't be sent to a cluster by name.

    Args:
        module: whose file was started.
        is_flow: whether it needs Prefect's server.
    """
    silence_libraries()
    _hide_main_module()
    with _stopped_by_signals() as received:
        try:
            code = _exit_code(module, is_flow=is_flow)
        except KeyboardInterrupt:
            code = EXIT_INCOMPLETE
        except SystemExit:
            if not received:
                raise
            code = EXIT_INCOMPLETE  # what was being done when the signal came made another error of it
        if received and code != EXIT_DONE:
            fail(_STOPPED, EXIT_STOPPED + received[0])
    raise SystemExit(code)


def _exit_code(module: str, *, is_flow: bool) -> int:
    try:
        command = importlib.import_module(module)
        if is_flow:
            start_temporary_server()
        code: int = command.main()
    except (TransientError, OutOfReachError) as error:
        fail(one_line(error), EXIT_INCOMPLETE)
    except RLHFBlenderError as error:
        fail(one_line(error), EXIT_WRONG_REQUEST)
    except BrokenPipeError:  # the reader of our output went away, e.g. `| head`
        sys.stderr.close()
        return EXIT_INCOMPLETE
    return code


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Has a closed terminal and ``kill`` stop the command as Ctrl-C does; gives the numbers of those that came."""
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        _end_in_time(number)
        raise KeyboardInterrupt

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [signal.Signals[name] for name in names]
    # Ignored ones (`nohup`) stay so.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_in_time(number: int) -> None:
    """Ends the process after a while, whatever hangs: the next run cleans up as after a kill.

    An exception that a signal raises just anywhere can leave a lock of Python's own import machinery locked for good
    (seen once in 60 runs), and a thread that hangs in an environment can't be ended.
    """
    if not hasattr(signal, "SIGALRM"):  # Windows
        return

    def end(_number: int, _frame: object) -> None:
        with contextlib.suppress(SystemExit):
            fail(_STOPPED, EXIT_STOPPED + number)
        os._exit(EXIT_STOPPED + number)

    signal.signal(signal.SIGALRM, end)
    signal.alarm(_GRACE_S)


def run_flow(flow: Callable[..., Any], **parameters: Any) -> "State[Any]":
    """The final state of a flow's run, started from a command line."""
    with server_settings():
        state: State[Any] = flow(**parameters, return_state=True)
    return state


def _hide_main_module() -> None:
    """Keeps worker processes from importing the started file, and Prefect with it, which they don't need."""
    vars(sys.modules["__main__"]).pop("__file__", None)


def silence_libraries() -> None:
    """Keeps the terminal for what the command itself has to say. Prefect's logs still go to its server."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # in processes started from here
    for name in ("", "prefect", "prefect._internal", "uvicorn", "fastapi"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL + 1)
    logging.getLogger().setLevel(logging.CRITICAL + 1)


def given(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """The parsed flags as parameters of the flow."""
    return vars(arguments)
