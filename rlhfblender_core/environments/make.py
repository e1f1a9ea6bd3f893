"""Making environments, quietly, with every failure as one line that says what to do."""

import contextlib
import dataclasses
import inspect
import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import gymnasium
from gymnasium.envs.registration import EnvSpec, registry

from rlhfblender_core.environments.contained import contained
from rlhfblender_core.environments.freed import watch_closed
from rlhfblender_core.environments.headless import check_mujoco_rendering, prepare_headless
from rlhfblender_core.environments.packages import install_name, package_of, quoted
from rlhfblender_core.environments.quiet import quiet_natives, quiet_output, silence_native_loggers
from rlhfblender_core.environments.registration import (
    EnvCreator,
    find_registration,
    load_entry_point,
    other_versions,
    split_module,
)
from rlhfblender_core.environments.spaces import check_supported
from rlhfblender_core.environments.spec import EnvironmentSpec
from rlhfblender_core.errors import EnvironmentNotUsableError, one_line
from rlhfblender_core.tuples import tuple_forms

#: Any observations and any actions.
Environment: TypeAlias = "gymnasium.Env[Any, Any]"

RENDER_MODE = "rgb_array"
RENDER_MODE_KWARG = "render_mode"

_UNEXPECTED = re.compile(r"got an unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: '(\w+)'")


def make_environment(spec: EnvironmentSpec, *, render: bool) -> Environment:
    """A new environment, wrapped as Gymnasium's own ``make`` does (time limit, order of calls).

    Gymnasium's passive checker is off unless ``disable_env_checker`` says otherwise: it checks only the first calls,
    and its findings are warnings to the environment's author.

    Args:
        spec: what to make.
        render: whether ``env.render()`` must return frames.

    Raises:
        EnvironmentNotUsableError: the id, a package, the entry point or a keyword argument is wrong, a dependency is
            missing, it can't render as asked, or it has a space that is not supported.
    """
    prepare_headless()
    known_before = set(registry)
    try:
        with contained(), quiet_natives():
            return _make(spec, render=render)
    except BaseException:
        # Also when interrupted: an entry point that turned out unusable leaves its id free for another try.
        if spec.entry_point is not None and (env_id := split_module(spec.env_id)[1]) not in known_before:
            registry.pop(env_id, None)
        raise


def _make(spec: EnvironmentSpec, *, render: bool) -> Environment:
    registration = find_registration(spec)
    creator = _creator(registration)
    _check_kwargs(spec, creator)
    silence_native_loggers()
    env = _construct(spec, registration, creator, render=render)
    try:
        check_supported(getattr(env, "observation_space", None), getattr(env, "action_space", None))
        if render:
            if missing := _missing_mode(env.metadata):
                raise _no_rendering(spec.env_id, missing)
            check_mujoco_rendering(env.unwrapped)
    except BaseException:  # an interrupt, too, must leave no simulator or window open
        close_environment(env)
        raise
    return env


def close_environment(env: Environment) -> None:
    """Frees what the environment holds; what was made with it stays good, whatever its ``close()`` raises."""
    watch_closed(env)
    with contained(), contextlib.suppress(Exception, SystemExit, GeneratorExit):
        env.close()


def check_kwargs(spec: EnvironmentSpec) -> None:
    """Checks that the environment can be found and its constructor takes the keyword arguments; it isn't made.

    Raises:
        EnvironmentNotUsableError: as far as that can be told from the constructor's signature.
    """
    prepare_headless()
    with quiet_output():
        _check_kwargs(spec, _creator(find_registration(spec)))


def _creator(registration: EnvSpec) -> EnvCreator:
    entry_point = registration.entry_point
    if entry_point is None:
        raise EnvironmentNotUsableError(
            f"{registration.id} exists as a vector environment only, which is not supported."
        )
    if callable(entry_point):
        return entry_point
    try:
        return load_entry_point(entry_point, f"the entry point of {registration.id}")
    except EnvironmentNotUsableError as error:
        if isinstance(error.__cause__, ImportError | gymnasium.error.DependencyNotInstalled):
            raise _missing_dependency(registration, error.__cause__) from error
        raise


def _construct(spec: EnvironmentSpec, registration: EnvSpec, creator: EnvCreator, *, render: bool) -> Environment:
    overrides: dict[str, Any] = {"disable_env_checker": True, **spec.spec_kwargs}
    registration = dataclasses.replace(registration, **overrides)
    ways = list(itertools.product(_render_ways(registration, creator, render=render), tuple_forms(spec.kwargs)))
    first = _worked.get((spec.env_id, spec.entry_point, render, json.dumps(spec.kwargs)), 0)
    error: BaseException | None = None
    for number in dict.fromkeys((first, *range(len(ways)))):
        render_kwargs, kwargs = ways[number]
        try:
            env = gymnasium.make(registration, **kwargs, **render_kwargs)
        except (Exception, SystemExit, GeneratorExit) as raised:  # noqa: BLE001 (somebody's constructor; the first error is explained)
            error = error or raised
            if isinstance(raised, ImportError | gymnasium.error.DependencyNotInstalled):
                break
            continue
        _worked[spec.env_id, spec.entry_point, render, json.dumps(spec.kwargs)] = number
        return env
    assert error is not None, "there is always a way to try"  # noqa: S101 (for the type checker)
    raise _explained(spec, registration, creator, error, render=render) from error


#: Which of the ways to make an environment worked, in this process: each episode makes it again.
_worked: dict[tuple[str, str | None, bool, str], int] = {}


def _render_ways(registration: EnvSpec, creator: EnvCreator, *, render: bool) -> list[dict[str, str | None]]:
    if render:
        return [{RENDER_MODE_KWARG: RENDER_MODE}]
    # Without rendering, None is passed only where another default is possible: some constructors don't take the name.
    takes_it = RENDER_MODE_KWARG in registration.kwargs or RENDER_MODE_KWARG in accepted_kwargs(creator)
    # Some insist on a mode (all of panda-gym). Not their default, which may open a window.
    return [{RENDER_MODE_KWARG: None}, {RENDER_MODE_KWARG: RENDER_MODE}] if takes_it else [{}]


def accepted_kwargs(creator: EnvCreator) -> list[str]:
    """Names of the keyword arguments that a class or function takes, as far as signatures tell.

    A class with ``**kwargs`` is expected to hand them to the next class, as MiniGrid's do.
    """
    names: list[str] = []
    for parameters in map(_parameters, _constructors(creator)):
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names += [p.name for p in parameters if p.kind in by_name and p.name not in ("self", *names)]
        if not _takes_any_name(parameters):
            break
    return names


def _constructors(creator: EnvCreator) -> list[Callable[..., Any]]:
    if not isinstance(creator, type):
        return [creator]
    return [vars(cls)["__init__"] for cls in creator.__mro__ if "__init__" in vars(cls) and cls is not object]


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C
        return [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)]


def _takes_any_name(parameters: list[inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _check_kwargs(spec: EnvironmentSpec, creator: EnvCreator) -> None:
    if RENDER_MODE_KWARG in spec.kwargs:
        raise EnvironmentNotUsableError(f"{spec.env_id}: render_mode can't be given; it follows from --no-render.")
    constructors = _constructors(creator)
    # With **kwargs only the constructor knows what it takes; its TypeError is explained by _type_error.
    if constructors and _takes_any_name(_parameters(constructors[0])):
        return
    accepted = accepted_kwargs(creator)
    for name in spec.kwargs:
        if name not in accepted:
            raise _unknown_kwarg(spec.env_id, name, creator)


def _unknown_kwarg(env_id: str, name: str, creator: EnvCreator) -> EnvironmentNotUsableError:
    names = [known for known in accepted_kwargs(creator) if known != RENDER_MODE_KWARG]
    known = f"It takes: {', '.join(names)}." if names else "It takes none."
    return EnvironmentNotUsableError(f"{env_id} has no keyword argument {name!r} (--env-kwargs). {known}")


def _missing_mode(metadata: object) -> str | None:
    """What metadata say against rendering frames; None if nothing."""
    if not isinstance(metadata, Mapping):
        return None  # a wrapper class, whose metadata is a property of its instances
    modes = list(metadata.get("render_modes") or metadata.get("render.modes") or ())
    # Declared nowhere: some environments return frames all the same, which shows when one is drawn.
    if RENDER_MODE in modes or not modes:
        return None
    if modes == [f"{RENDER_MODE}_list"]:
        return "it offers rgb_array_list only, all frames at the end; let its render() return each frame"
    return f"render modes: {', '.join(map(str, modes))}"


def _no_rendering(env_id: str, why: str) -> EnvironmentNotUsableError:
    return EnvironmentNotUsableError(
        f"{env_id} can't render to {RENDER_MODE} ({why}). Pass --no-render to generate data without videos."
    )


def _explained(
    spec: EnvironmentSpec, registration: EnvSpec, creator: EnvCreator, error: BaseException, *, render: bool
) -> EnvironmentNotUsableError:
    if isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled):
        return _missing_dependency(registration, error)
    if isinstance(error, TypeError) and (explained := _type_error(spec, creator, error)):
        return explained
    if render and (missing := _missing_mode(getattr(creator, "metadata", None))):
        return _no_rendering(spec.env_id, missing)  # many constructors assert that they know the mode
    given = ", ".join(f"{key}={value!r:.40}" for key, value in spec.kwargs.items())
    original = error.__cause__ if isinstance(error, TypeError) and error.__cause__ else error
    return EnvironmentNotUsableError(
        f"{spec.env_id} can't be made{given and f' with {given}'}: {one_line(original):.300}"
    )


def _type_error(  # noqa: PLR0911 (a row of known messages)
    spec: EnvironmentSpec, creator: EnvCreator, error: TypeError
) -> EnvironmentNotUsableError | None:
    # Gymnasium wraps the constructor's error and adds all keyword arguments.
    original = error.__cause__ if isinstance(error.__cause__, TypeError) else error
    if "takes no arguments" in str(original) and not spec.kwargs:
        return _no_rendering(spec.env_id, "its constructor takes no render_mode")
    if found := _UNEXPECTED.search(str(original)):
        if found[1] == RENDER_MODE_KWARG:
            return _no_rendering(spec.env_id, "its constructor takes no render_mode")
        if found[1] in spec.kwargs:
            return _unknown_kwarg(spec.env_id, found[1], creator)
    if found := _MISSING.search(str(original)):
        return EnvironmentNotUsableError(
            f"{spec.env_id} needs the keyword argument {found[1]!r}. Give it: --env-kwargs {found[1]}:VALUE"
        )
    if "Gym is incompatible with Gymnasium" in str(error):
        return EnvironmentNotUsableError(
            f"{spec.env_id} is made for the old 'gym'. Derive it from gymnasium.Env, or use a newer version of it."
        )
    if original is error and "must inherit from the gymnasium.Env" in str(error):
        return EnvironmentNotUsableError(f"{spec.env_id} is no Gymnasium environment. Derive it from gymnasium.Env.")
    return None


def _missing_dependency(registration: EnvSpec, error: BaseException) -> EnvironmentNotUsableError:
    package = package_of(registration.namespace, registration.name)
    versions = other_versions(registration.id)
    cause = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    missing = cause.name if isinstance(cause, ModuleNotFoundError) else None
    if missing is not None:
        install = package.install if package is not None and package.module is None else install_name(missing)
        return EnvironmentNotUsableError(
            f"{registration.id} needs the module {missing!r}, which is not installed. "
            f"Install it: pip install {quoted(install)}"
        )
    instead = f" Use {' or '.join(versions)}." if versions else ""
    note = f" {package.note}" if package is not None and package.note and versions else ""
    return EnvironmentNotUsableError(f"{registration.id} can't be made: {one_line(error):.300}{instead}{note}")
