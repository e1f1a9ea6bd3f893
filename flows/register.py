"""Register an environment without generating, label its actions, and show what is registered.

``python flows/register.py --env CartPole-v1 --set-action-labels left right``. A plain command, not a Prefect flow: it
takes a second, where a flow would need fifteen to start (``docs/decisions.md``). It is also
``python -m rlhfblender_core.register``.
"""

if __name__ == "__main__":  # before what takes long to import
    from flows.cli.process import start_command

    start_command("flows.register", is_flow=False)

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from flows.cli.arguments import make_parser
from flows.cli.next_commands import command, path_from_here
from flows.cli.process import EXIT_DONE
from flows.cli.secret_parameters import DatabaseUrl
from flows.cli.shared_flags import (
    AdditionalGymPackages,
    DataRoot,
    EnvDescription,
    EnvDisplayName,
    EnvGymEntrypoint,
    EnvKwargs,
)
from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.environments import parse_env_kwargs
from rlhfblender_core.environments.parse import env_kwarg_text
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.locations import Locations
from rlhfblender_core.names import checked_name
from rlhfblender_core.register import (
    ExperimentUpdate,
    Registered,
    RegisteredExperiment,
    RegistrationRequest,
    action_space_of,
    delete_environment,
    dimensions_of,
    experiments_of,
    follow_experiment,
    list_registered,
    register_environment,
    update_experiment,
)
from rlhfblender_core.registry import (
    DEFAULT_PROJECT,
    EnvironmentRecord,
    ExperimentRecord,
    open_existing_registry,
    open_registry,
)
from rlhfblender_core.wording import counted
from tasks.config import resolve_locations

_PIPE_WIDTH = 10_000


def register(  # noqa: PLR0913 (one per flag)
    *,
    env: Annotated[str | None, Field(description="Gymnasium id, e.g. CartPole-v1")] = None,
    project: Annotated[str | None, Field(description=f"project (default {DEFAULT_PROJECT}; with --list: all)")] = None,
    env_gym_entrypoint: EnvGymEntrypoint = None,
    additional_gym_packages: AdditionalGymPackages = [],  # noqa: B006
    env_display_name: EnvDisplayName = None,
    env_description: EnvDescription = None,
    env_kwargs: EnvKwargs = {},  # noqa: B006
    get_action_dims: Annotated[bool, Field(description="print the number of dimensions of an action")] = False,
    set_action_labels: Annotated[
        list[str],
        Field(description="labels: one per action (Discrete) or per dimension (flat Box); replace earlier ones"),
    ] = [],  # noqa: B006
    set_action_images: Annotated[
        list[str], Field(description="pictures of the actions: up=up.png …, or one folder with <label>.png")
    ] = [],  # noqa: B006
    exp: Annotated[str | None, Field(description="with --update, --follow or --unfollow: the experiment")] = None,
    update: Annotated[
        bool,
        Field(
            description="change what can't be changed otherwise, and say what depends on it: an environment's entry "
            "point and packages; with --exp, its keyword arguments and its project"
        ),
    ] = False,
    follow: Annotated[
        bool, Field(description="with --exp: watch.py generates for checkpoints that are newer than those chosen")
    ] = False,
    unfollow: Annotated[bool, Field(description="with --exp: it doesn't any more")] = False,
    delete_env: Annotated[
        str | None, Field(description="remove an environment that no experiment uses; its id may be in --env")
    ] = None,
    list: Annotated[bool, Field(description="show what is registered")] = False,  # noqa: A002 (named like the flag)
    data_root: DataRoot = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Registers the environment and prints what was asked for."""
    locations = resolve_locations(data_root, database_url)
    if delete_env is not None:
        delete_environment(delete_env, locations.database_url)
        print(f"Environment {delete_env} is no longer registered.")
    elif follow or unfollow:
        is_alone = follow != unfollow and not update and env is None
        print(_followed_line(exp if is_alone else None, locations, follow=follow))
    elif exp is not None:
        if not update or env is not None:
            raise InvalidParameterError(
                "--exp goes with --update, --follow or --unfollow, and without --env: an experiment keeps its own."
            )
        changes = ExperimentUpdate(exp, project, env_kwargs)
        for line in _update_lines(update_experiment(changes, locations.database_url, locations.trust()), locations):
            print(line)
    elif env is None:
        if not list or set_action_labels or set_action_images or get_action_dims:
            raise InvalidParameterError("Give --env with a Gymnasium id, or --list to see what is registered.")
    else:
        request = RegistrationRequest(
            env=env,
            project=project or DEFAULT_PROJECT,
            env_gym_entrypoint=env_gym_entrypoint,
            additional_gym_packages=additional_gym_packages,
            env_display_name=env_display_name,
            env_description=env_description,
            env_kwargs=env_kwargs,
            action_labels=set_action_labels,
            action_images=set_action_images,
            needs_dimensions=get_action_dims,
            update=update,
        )
        environment = register_environment(request, locations.open_root(), locations.database_url, locations.trust())
        for line in (*_registered_lines(environment, request), *_dependent_lines(request, locations)):
            print(line)
    if list:
        # A pipe has no width: names stay whole, for grep and awk.
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        print_registered(_registered(locations, project), Console(width=width))


def _registered_lines(environment: EnvironmentRecord, request: RegistrationRequest) -> Iterator[str]:
    if request.needs_dimensions:
        yield f"Action dimensions: {dimensions_of(environment)}"
    else:
        yield f"Environment {environment.env_id} is registered, its actions are {action_space_of(environment)!s:.80}."
    if request.action_labels:
        yield f"Action labels: {', '.join(environment.action_names or ())}"
    if request.action_images:
        yield "Action images: stored."
    if request.needs_dimensions or (request.update and not request.env_kwargs):
        return
    kwargs = [env_kwarg_text(name, value) for name, value in request.env_kwargs.items()]
    if kwargs:
        yield "Keyword arguments belong to experiments, not to the environment:"
    flags = ["--env-kwargs", *kwargs] if kwargs else []
    yield f"Generate: {command('generate', '--env', environment.env_id, '--random', *flags)}"


def _dependent_lines(request: RegistrationRequest, locations: Locations) -> Iterator[str]:
    if request.update:
        with open_registry(locations.database_url, create=False) as registry:
            studies = experiments_of(registry, request.env)
        yield from (_dependent(name, episodes) for name, episodes in studies.items())


def _followed_line(exp: str | None, locations: Locations, *, follow: bool) -> str:
    if exp is None:
        raise InvalidParameterError("Give either --follow or --unfollow, with --exp and nothing else.")
    record = follow_experiment(exp, locations, follow=follow)
    if record.following is None:
        return f"Experiment {record.name} is not followed."
    newer = f"newer than step {record.following.after}" if record.following.after >= 0 else "all of them"
    place = path_from_here(without_credentials(record.model_path or ""))
    return f"Experiment {record.name} is followed: watch.py generates for checkpoints in {place}, {newer}."


def _update_lines(record: ExperimentRecord, locations: Locations) -> Iterator[str]:
    kwargs = " ".join(env_kwarg_text(name, value) for name, value in record.env_kwargs.items())
    yield (
        f"Experiment {record.name} is one of {record.project}, its environment {record.env_id} {kwargs}".rstrip() + "."
    )
    with open_registry(locations.database_url, create=False) as registry:
        yield _dependent(record.name, sum(row.episodes for row in registry.summarise(record.name)))


def _dependent(name: str, episodes: int) -> str:
    if not episodes:
        return f"Experiment {name} has no episodes yet."
    return (
        f"Experiment {name} has {counted(episodes, 'episode')} made before, which stay. "
        "Where they were made otherwise, more of them need --overwrite."
    )


def _registered(locations: Locations, project: str | None) -> Registered:
    if project is not None:
        checked_name(project, "project")
    registry = open_existing_registry(locations.database_url)
    if registry is None:
        return Registered((), (), ())
    with registry:
        return list_registered(registry, project)


def print_registered(registered: Registered, console: Console) -> None:
    """Prints tables of the environments and the experiments."""
    if not registered.environments and not registered.experiments:
        projects = ", ".join(record.name for record in registered.projects)
        console.print(f"Nothing is registered{f' but the projects {projects}' if projects else ''}.", markup=False)
        return
    _print_table(
        console, ("environment", "actions", "labels", "entry point"), map(_environment_row, registered.environments)
    )
    if registered.experiments:
        console.print()
        headings = ("experiment", "project", "environment", "kind", "episodes by checkpoint")
        _print_table(console, headings, map(_experiment_row, registered.experiments))


def _environment_row(environment: EnvironmentRecord) -> tuple[str, ...]:
    space = f"{action_space_of(environment)!s:.40}" if environment.action_space else "unknown"
    return environment.env_id, space, ", ".join(environment.action_names or ()) or "–", environment.entry_point or "–"


def _experiment_row(experiment: RegisteredExperiment) -> tuple[str, ...]:
    episodes = ", ".join(f"{checkpoint.label}: {count}" for checkpoint, count in experiment.checkpoints)
    record = experiment.record
    kind = record.kind if record.following is None else f"{record.kind}, followed"
    return record.name, record.project, record.env_id, kind, episodes or "none yet"


def _print_table(console: Console, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console.print(table, highlight=False)


def main() -> int:
    """The command line; returns the exit code."""
    parser = make_parser(register, "Register an environment, label its actions, list what is registered.", _EXAMPLES)
    arguments: Mapping[str, Any] = vars(parser.parse_args(_with_deleted_id(sys.argv[1:])))
    register(**{**arguments, "env_kwargs": parse_env_kwargs(arguments["env_kwargs"] or [])})
    return EXIT_DONE


def _with_deleted_id(words: Sequence[str]) -> Sequence[str]:
    """``--env E --delete-env`` as ``--delete-env E``."""
    found = [number for number, word in enumerate(words) if word == "--delete-env"]
    if not found or "--env" not in words[:-1] or (words[found[0] + 1 :] and not words[found[0] + 1].startswith("-")):
        return words
    return ["--delete-env", words[words.index("--env") + 1]]


_EXAMPLES = """examples:
  python flows/register.py --env MyEnv-v0 --env-gym-entrypoint my_package.envs:MyEnv --get-action-dims
  python flows/register.py --env CartPole-v1 --set-action-labels left right --set-action-images left=l.png right=r.png
  python flows/register.py --env MyEnv-v0 --env-gym-entrypoint my_package.new:MyEnv --update
  python flows/register.py --exp my-study --env-kwargs size:9 --update
  python flows/register.py --exp my-study --follow
  python flows/register.py --delete-env MyEnv-v0
  python flows/register.py --list
"""
