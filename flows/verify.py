"""Check every published file against its manifest and the registry, and mend what is broken.

``python flows/verify.py [--exp E] [--repair]``: one line per problem, naming the file. Exit code 0: nothing is wrong
(any more), 1: something is, 2: the request was.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.verify")

from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any

import tasks.prefect_defaults

from prefect import State, get_run_logger
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from pydantic import Field

import tasks.verify  # noqa: F401 (the tasks of its steps)
from flows.cli.arguments import end_as, make_parser, run_flow
from flows.cli.next_commands import as_typed, command, with_place
from flows.cli.progress import TerminalDisplay, current_display
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import DataRoot
from flows.execution.data_flow import data_flow
from flows.execution.prefect_steps import PrefectRunner, PrefectSteps
from flows.execution.task_runners import RunnerChoice
from flows.ui.verify_artifacts import show_verification
from rlhfblender_core.dataset.listings import check_root
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.repair import repair_all
from rlhfblender_core.verification.checks import Remedy
from rlhfblender_core.verify import Verification, verify_all
from rlhfblender_core.wording import counted
from tasks.config import resolve_locations

#: How the command line that started the flow in this context shows what was found.
current_printer: ContextVar[Callable[[Verification], None] | None] = ContextVar("current_printer", default=None)


def run_name() -> str:
    """``verify CartPole-v1_random_experiment``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    return " ".join(filter(None, ["verify", parameters.get("exp"), "repair" if parameters.get("repair") else None]))


@data_flow("verify", run_name)
def verify(  # noqa: PLR0913 (flat parameters make a deployment's form and `--param` work)
    *,
    exp: Annotated[str | None, Field(description="experiment (default all)")] = None,
    quick: Annotated[
        bool, Field(description="compare names, sizes and manifests only; no other file is opened")
    ] = False,
    repair: Annotated[
        bool, Field(description="make broken episodes again, remove what dead runs left, rebuild the registry's index")
    ] = False,
    quarantine: Annotated[
        bool, Field(description="move unknown files to quarantine/<date>/, with a list; nothing is deleted")
    ] = False,
    trust_checkpoint: Annotated[
        bool, Field(description="with --repair: let a checkpoint that you made yourself run its own code")
    ] = False,
    workers: Annotated[
        int | None, Field(ge=1, description="checks, or worker processes, at once (default the cores)")
    ] = None,
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Checks what is published, and mends it with ``repair``."""
    locations = resolve_locations(data_root, database_url)
    if repair and quarantine:
        raise InvalidParameterError("Give either --repair or --quarantine; first one, then the other.")
    if repair and quick:
        raise InvalidParameterError("Give either --repair or --quick: what is repaired is checked in full.")
    if repair:
        steps = PrefectSteps(locations, RunnerChoice(workers=workers))
        verification = repair_all(exp, PrefectRunner(), steps, trust_checkpoint=trust_checkpoint)
    else:
        verification = verify_all(exp, PrefectRunner(), locations, workers, quick=quick, quarantine=quarantine)
    for line in verification.notes:
        get_run_logger().warning("%s", with_place(line))
    show_verification(exp, verification.sound, verification.found, verification.left)
    printer = current_printer.get()
    if printer is not None:
        printer(verification)
    if verification.left:
        return Failed(message=f"{counted(len(verification.left), 'problem')}: {verification.left[0]}")
    return Completed(message=verification.summary)


def print_verification(
    verification: Verification, *, repair: bool, quarantine: bool = False, exp: str | None = None
) -> None:
    """Prints one line per problem and remark, and one about everything.

    Args:
        verification: what was found.
        repair: whether it was repaired.
        quarantine: whether unknown files were moved.
        exp: the experiment that was checked; None for all.
    """
    left = set(verification.left)
    for problem in verification.found:
        done = "repaired: " if repair else ("moved to quarantine: " if quarantine else "")
        state = done if problem not in left else ""
        print(as_typed(f"{state}{problem}"))
    for problem in verification.left:
        if problem not in verification.found:
            print(as_typed(str(problem)))
    for note in verification.notes:
        print(as_typed(f"not repaired: {note}"))
    print(verification.summary)
    again = ("verify",) if exp is None else ("verify", "--exp", exp)
    remedies = {problem.remedy for problem in left}
    if remedies - {Remedy.QUARANTINE, Remedy.BY_HAND} and not repair:
        print(f"Mend what can be mended: {command(*again, '--repair')}")
    if Remedy.QUARANTINE in remedies and not quarantine:
        print(f"Move unknown files to quarantine/<date>/: {command(*again, '--quarantine')}")


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(verify.fn, "Check published episodes against their manifests and the registry.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    check_root(resolve_locations(arguments["data_root"], arguments["database_url"]).open_root())
    shown: list[Verification] = []

    def show(verification: Verification) -> None:
        asked = {name: arguments[name] for name in ("repair", "quarantine", "exp")}
        print_verification(verification, **asked)
        shown.append(verification)

    current_printer.set(show)
    current_display.set(TerminalDisplay())
    state = run_flow(verify, **arguments)
    return end_as(state, is_told=bool(shown), otherwise="the check failed")


_EXAMPLES = """examples:
  python flows/verify.py
  python flows/verify.py --quick
  python flows/verify.py --exp CartPole-v1_random_experiment --repair
"""
