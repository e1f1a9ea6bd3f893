"""Check every published file against its manifest and the registry, and mend what is broken.

``python flows/verify.py [--exp E] [--repair]``: one line per problem, naming the file. Exit code 0: nothing is wrong
(any more), 1: something is, 2: the request was.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.verify")

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import tasks.prefect_defaults  # noqa: F401 (its import is what it is for)

from prefect import State, flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run as current_run
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import Field

from flows.cli.arguments import REFUSED, make_parser, run_flow, say_where_to_look
from flows.cli.process import EXIT_DONE, EXIT_INCOMPLETE, EXIT_WRONG_REQUEST, fail
from flows.cli.secret_parameters import DatabaseUrl
from flows.execution.crashed_task_runs import end_lost_tasks
from flows.execution.task_runners import RunnerChoice, open_means, open_runner
from flows.signs_of_life import SIGNS_OF_LIFE
from flows.ui.parameter_forms import shown_as_form
from flows.ui.verify_artifacts import show_verification
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.listings import CheckpointListing, EpisodeListing, check_root
from rlhfblender_core.errors import EpisodesFailedError, RequestError, RLHFBlenderError, one_line
from rlhfblender_core.repair import Remake
from rlhfblender_core.rollout.shards import MAX_SHARD, Shard, cut_shards
from rlhfblender_core.runs.cleanup import remove_leftovers
from rlhfblender_core.verify import Findings, Problem, Remedy, index_problems
from rlhfblender_core.wording import counted
from rlhfblender_core.workers.pool import available_cores
from tasks.config import Locations, resolve_locations
from tasks.rollout import ShardTarget, rollout_episodes
from tasks.verify import (
    check_files,
    check_registry,
    find_files_of_others,
    find_published,
    list_episodes,
    plan_repair,
    rebuild_registry,
    remove_files_of_nobody,
)

T = TypeVar("T")

#: Files are fetched from object storage while others are decoded.
_REMOTE_THREADS = 8


@dataclass(frozen=True)
class Verification:
    """What a run of verify found, and what it mended.

    Attributes:
        found: what was wrong at first.
        left: what is wrong now.
        notes: why something could not be mended.
        episodes: number of episodes whose manifests are sound.
        files: number of files that were checked.
        sound: number of those episodes, by checkpoint.
    """

    found: tuple[Problem, ...]
    left: tuple[Problem, ...]
    notes: tuple[str, ...]
    episodes: int
    files: int
    sound: Mapping[CheckpointKey, int]


@dataclass(frozen=True)
class _Survey:
    listings: tuple[CheckpointListing, ...]
    findings: Findings

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.findings.problems


#: How the command line that started the flow in this context shows what was found.
current_printer: ContextVar[Callable[[Verification], None] | None] = ContextVar("current_printer", default=None)


def run_name() -> str:
    """``verify CartPole-v1_random_experiment``: what a person reads in Prefect's UI."""
    parameters = current_run.parameters
    return " ".join(filter(None, ["verify", parameters.get("exp"), "repair" if parameters.get("repair") else None]))


@shown_as_form
@flow(name="verify", flow_run_name=run_name, **SIGNS_OF_LIFE)
def verify(
    *,
    exp: Annotated[str | None, Field(description="experiment (default all)")] = None,
    repair: Annotated[
        bool, Field(description="make broken episodes again, remove files of nobody, rebuild the registry's index")
    ] = False,
    trust_checkpoint: Annotated[
        bool, Field(description="with --repair: let a checkpoint that you made yourself run its own code")
    ] = False,
    workers: Annotated[
        int | None, Field(ge=1, description="checks, or worker processes, at once (default the cores)")
    ] = None,
    data_root: Annotated[
        str | None, Field(description="folder or fsspec URL (default RLHFBLENDER_DATA_ROOT, else data)")
    ] = None,
    database_url: DatabaseUrl = None,
) -> State[Any]:
    """Checks what is published, and mends it with ``repair``."""
    end_lost_tasks()
    try:
        locations = resolve_locations(data_root, database_url)
        check_root(locations.open_root())
        concurrency = workers or available_cores()
        verification = _verify(exp, locations, concurrency, repair=repair, trust_checkpoint=trust_checkpoint)
    except RequestError as error:
        get_run_logger().error("%s", one_line(error))
        return Failed(name=REFUSED, message=one_line(error))
    except RLHFBlenderError as error:
        return Failed(message=one_line(error))
    for line in verification.notes:
        get_run_logger().warning("%s", line)
    show_verification(exp, verification.sound, verification.found, verification.left)
    printer = current_printer.get()
    if printer is not None:
        printer(verification)
    if verification.left:
        return Failed(message=f"{counted(len(verification.left), 'problem')}: {verification.left[0]}")
    return Completed(message=summary(verification))


def _verify(
    exp: str | None, locations: Locations, concurrency: int, *, repair: bool, trust_checkpoint: bool
) -> Verification:
    if repair:
        remove_leftovers(locations.open_root(), ())
    first = survey = _survey(exp, locations, concurrency)
    notes: list[str] = []
    if repair and first.problems:
        leftovers = [problem for problem in first.problems if problem.remedy is Remedy.REMOVE]
        broken = [problem for problem in first.problems if problem.remedy is Remedy.REMAKE]
        if leftovers:
            remove_files_of_nobody(leftovers, locations)
        if broken:
            remakes, notes = plan_repair(first.findings, locations, trust_checkpoint=trust_checkpoint)
            notes += _remake(remakes, locations, concurrency)
        if leftovers or broken:
            survey = _survey(exp, locations, concurrency)
        rows = index_problems(survey.problems)
        if rows:
            notes += _rebuild(rows, survey, locations)
            survey = _without_index_problems(survey, locations)
    findings = survey.findings
    sound = Counter(CheckpointKey(record.experiment, record.checkpoint) for record in findings.records)
    return Verification(first.problems, findings.problems, tuple(notes), sound.total(), findings.files, sound)


def _survey(exp: str | None, locations: Locations, concurrency: int) -> _Survey:
    """Looks at everything; files are checked side by side."""
    threads = concurrency if locations.open_root().is_local else max(concurrency, _REMOTE_THREADS)
    runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=threads)
    with runner:
        keys = find_published(exp, locations)
        listings = _results(runner.submit(list_episodes, {"key": key, "locations": locations}) for key in keys)
        checks = [
            runner.submit(check_files, {"listing": listing, "episodes": part, "locations": locations})
            for listing in listings
            for part in _parts(listing)
        ]
        findings = sum(_results(checks), Findings())
    findings += find_files_of_others(exp, listings, locations)
    findings += Findings(check_registry(listings, findings.records, locations))
    return _Survey(tuple(listings), findings)


def _parts(listing: CheckpointListing) -> Iterable[Sequence[EpisodeListing]]:
    for start in range(0, len(listing.episodes), MAX_SHARD):
        yield listing.episodes[start : start + MAX_SHARD]


def _results(futures: Iterable[PrefectFuture[T]]) -> list[T]:
    return [future.result() for future in list(futures)]


def _remake(remakes: Sequence[Remake], locations: Locations, concurrency: int) -> list[str]:
    """Makes the episodes again, by the same tasks as generate; returns lines about those that failed."""
    if not remakes:
        return []
    wanted = sum(len(remake.episodes) for remake in remakes)
    choice = RunnerChoice("auto", concurrency).for_agents(
        trained=any(remake.settings.agent.is_trained for remake in remakes)
    )
    notes: list[str] = []
    with open_runner(choice, wanted) as runner, open_means(choice, locations.open_root(), wanted) as means:
        futures = [
            runner.submit(
                rollout_episodes.with_options(refresh_cache=True),
                {
                    "shard": Shard(remake.key, remake.settings, episodes),
                    "target": ShardTarget(locations, means.run_id, episodes, existing=episodes),
                },
            )
            for remake in remakes
            for episodes in cut_shards(remake.episodes, choice.concurrency(wanted))
        ]
        for future in futures:
            result: object = future.result(raise_on_failure=False)
            if isinstance(result, EpisodesFailedError):
                notes += result.failures.values()
            elif isinstance(result, BaseException):
                notes.append(one_line(result))
    return notes


def _rebuild(rows: Sequence[Problem], survey: _Survey, locations: Locations) -> list[str]:
    try:
        rebuild_registry(rows, survey.findings.records, locations)
    except RequestError as error:
        return [f"The registry's index can't be rebuilt: {one_line(error)}"]
    return []


def _without_index_problems(survey: _Survey, locations: Locations) -> _Survey:
    """The survey with the registry looked at again."""
    findings = survey.findings
    others = tuple(problem for problem in findings.problems if problem.remedy is not Remedy.INDEX)
    rows = check_registry(survey.listings, findings.records, locations)
    return _Survey(survey.listings, Findings(others + rows, findings.records, findings.files))


def summary(verification: Verification) -> str:
    """One line about everything."""
    checked = f"{counted(verification.episodes, 'episode')}, {counted(verification.files, 'file')} checked"
    mended = len(set(verification.found) - set(verification.left))
    if verification.left:
        return f"{checked}: {counted(len(verification.left), 'problem')} left, {mended} repaired."
    if mended:
        return f"{checked}: {counted(mended, 'problem')} repaired, nothing is wrong any more."
    return f"{checked}: nothing is wrong."


def print_verification(verification: Verification, *, repair: bool) -> None:
    """Prints one line per problem and remark, and one about everything."""
    left = set(verification.left)
    for problem in verification.found:
        state = "repaired: " if repair and problem not in left else ""
        print(f"{state}{problem}")
    for problem in verification.left:
        if problem not in verification.found:
            print(problem)
    for note in verification.notes:
        print(f"not repaired: {note}")
    print(summary(verification))
    if left and not repair:
        print("Run the same command with --repair to mend what can be mended.")


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(verify.fn, "Check published episodes against their manifests and the registry.", _EXAMPLES)
    arguments = vars(parser.parse_args())
    check_root(resolve_locations(arguments["data_root"], arguments["database_url"]).open_root())
    shown: list[Verification] = []

    def show(verification: Verification) -> None:
        print_verification(verification, repair=arguments["repair"])
        shown.append(verification)

    current_printer.set(show)
    state = run_flow(verify, **arguments)
    if state.is_completed():
        say_where_to_look(state)
        return EXIT_DONE
    if not shown:
        message = state.message or "the check failed"
        fail(message, EXIT_WRONG_REQUEST if state.name == REFUSED else EXIT_INCOMPLETE)
    say_where_to_look(state)
    return EXIT_INCOMPLETE


_EXAMPLES = """examples:
  python flows/verify.py
  python flows/verify.py --exp CartPole-v1_random_experiment --repair
"""
