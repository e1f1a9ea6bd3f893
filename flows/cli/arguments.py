"""What the command lines of all flows share: flags made from a flow's parameters, its run, where to look at it.

How a command starts and ends is in :mod:`flows.cli.process`.
"""

import argparse
import inspect
import types
from collections.abc import Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from flows.cli.outliving import note_run
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, StoppedBySignal, fail, show_tracebacks
from flows.cli.secret_parameters import Noted
from flows.cli.temporary_server import server_settings
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.errors import OutOfReachError, one_line

if TYPE_CHECKING:
    from prefect import State

#: How argparse begins what it says of flags that it doesn't know.
_UNKNOWN = "unrecognized arguments: "
#: Name of the final state of a flow run whose request was wrong.
REFUSED = "Refused"
#: And of one that a person stopped.
STOPPED = "Stopped"


class CommandParser(argparse.ArgumentParser):
    """Says what is wrong in one line, instead of printing the usage first."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2."""
        hint = self._meant(message.removeprefix(_UNKNOWN)) if message.startswith(_UNKNOWN) else ""
        shown = without_credentials(message)
        fail(f"{shown[:1].upper()}{shown[1:]}. {hint}See --help.", EXIT_WRONG_REQUEST)

    def _meant(self, words: str) -> str:
        """What flags may have been meant by these words, as a sentence."""
        wrong = [word.partition("=")[0] for word in words.split() if word.startswith("-")]
        for place in (action.metavar or action.dest.upper() for action in self._get_positional_actions()):
            if f"--{place}".lower() in wrong:
                return f"{place} is given without a flag. "
        close = [flag for word in wrong for flag in self._close_to(word.lstrip("-").lower())]
        return f"Did you mean {' and '.join(close)}? " if close else ""

    def _close_to(self, word: str) -> list[str]:
        """The flag that is written nearly like the word, or begins it: ``--exp`` for ``experiment``."""
        flags = {flag.lstrip("-"): flag for flag in self._option_string_actions if flag.startswith("--")}
        names = get_close_matches(word, flags, 1) or [name for name in flags if word.startswith(name)]
        return [flags[name] for name in names]


def fail_as(state: "State[Any]", otherwise: str) -> NoReturn:
    """Ends the command with the line that a run ended with, and the exit code that goes with it.

    Args:
        state: the run's last.
        otherwise: the line for a run that left none.
    """
    code = EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE
    fail(state.message or otherwise, code)


def say_where_to_look(state: "State[Any]") -> None:
    """Prints where Prefect's UI shows the run; without a server, how to get one.

    Args:
        state: the run's last.
    """
    from prefect.utilities.urls import url_for

    page = url_for("flow-run", state.state_details.flow_run_id)
    print(f"Run: {without_credentials(page)}" if page else _NO_UI)


def end_as(state: "State[Any]", *, is_told: bool, otherwise: str = "the run failed") -> int:
    """The exit code of a command whose run has ended; says where to look at the run, or why there is nothing to see.

    Args:
        state: the run's last.
        is_told: whether what the run came to is on the terminal already.
        otherwise: the line for a run that left none.
    """
    if not state.is_completed() and not is_told:
        fail_as(state, otherwise)
    say_where_to_look(state)
    return EXIT_DONE if state.is_completed() else EXIT_INCOMPLETE


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
    parser.add_argument("--verbose", action=_Verbose, nargs=0, help="show where errors come from, as tracebacks")
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            _add_flag(parser, name, hints[name], parameter.default)
        else:
            optional = parameter.default is not inspect.Parameter.empty
            nargs = "?" if optional else None
            parser.add_argument(name, metavar=name.upper(), nargs=nargs, help=_help(hints[name]))
    return parser


class _Verbose(argparse.Action):
    """Concerns the terminal, not the flow: it is obeyed where it is read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(default=argparse.SUPPRESS, **{**options, "dest": argparse.SUPPRESS})

    def __call__(self, *_: object) -> None:
        show_tracebacks()


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
        keep = next((item.keep for item in metadata if isinstance(item, Noted)), None)
        parser.add_argument(flag, type=keep or kind, nargs="+" if is_list else None, metavar=metavar, **options)


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


def run_flow(flow: Callable[..., Any], **parameters: Any) -> "State[Any]":
    """The final state of a flow's run, started from a command line.

    Raises:
        OutOfReachError: Prefect's server doesn't answer.
        StoppedBySignal: a person stopped it.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    note_run()
    with server_settings():
        try:
            state: State[Any] = flow(**parameters, return_state=True)
        except RuntimeError as error:
            if not isinstance(error.__cause__, httpx.HTTPError):  # Prefect's words for its first request's failure
                raise
            raise OutOfReachError(
                f"Prefect's server at {PREFECT_API_URL.value()} can't be reached ({one_line(error.__cause__)}). Start "
                "it, or do without: `prefect config unset PREFECT_API_URL`, and the variable."
            ) from error
    if state.name == STOPPED:
        raise StoppedBySignal
    return state
