"""From an environment's id or entry point to what Gymnasium knows about it.

Ids of installed packages are found without the user naming the package. Constructing environments is in
:mod:`rlhfblender_core.environments.make`.
"""

import difflib
import re
import sys
from collections.abc import Callable, Collection
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, parse_env_id, registry

from rlhfblender_core.environments.packages import (
    EnvironmentPackage,
    import_installed_packages,
    import_module,
    is_installed,
    package_of,
    quoted,
)
from rlhfblender_core.environments.spec import EnvironmentSpec
from rlhfblender_core.errors import EnvironmentNotUsableError, one_line
from rlhfblender_core.witness import tell_witness

#: What Gymnasium calls to make an environment: a class or a function.
EnvCreator = Callable[..., Any]

_ENTRY_POINT = "--env-gym-entrypoint"
_PACKAGES = "--additional-gym-packages"
_MOST_NAMED = 8


def find_registration(spec: EnvironmentSpec) -> EnvSpec:
    """Gymnasium's registration of the environment, after importing the packages that belong to it.

    An entry point is registered under the id if the id is new.

    Raises:
        EnvironmentNotUsableError: a package or entry point that can't be used, an id that is unknown or registered
            with another entry point.
    """
    module, env_id = split_module(spec.env_id)
    if not _is_id(env_id, module):
        raise EnvironmentNotUsableError(
            f"{spec.env_id!r} is no environment id. Ids look like CartPole-v1, ALE/Pong-v5 or my_package:MyEnv-v0."
        )
    tell_witness(spec.env_id)  # what follows is somebody's code
    for package in spec.additional_packages:
        import_module(package, _PACKAGES)
    if module is not None:
        import_module(module, f"the part of {spec.env_id!r} before the colon")
    if spec.entry_point is not None:
        _register(env_id, spec.entry_point)
    return _look_up(env_id, spec.additional_packages)


def split_module(env_id: str) -> tuple[str | None, str]:
    """``my_package:MyEnv-v0`` is ``("my_package", "MyEnv-v0")``; without a colon the module is None."""
    module, colon, name = env_id.rpartition(":")
    return (module, name) if colon else (None, env_id)


def _is_id(env_id: str, module: str | None) -> bool:
    try:
        parse_env_id(env_id)
    except gymnasium.error.Error:
        return False
    return module is None or all(part.isidentifier() for part in module.split("."))


def load_entry_point(entry_point: str, asked_by: str = _ENTRY_POINT) -> EnvCreator:
    """The class or function that a text like ``my_package.envs:MyEnv`` names.

    Args:
        entry_point: ``module:name``.
        asked_by: where it was given, for messages.

    Raises:
        EnvironmentNotUsableError: not of that form, not importable, not there, or no Gymnasium environment.
    """
    module_name, colon, attribute = entry_point.partition(":")
    if not (colon and module_name and attribute.isidentifier()):
        raise EnvironmentNotUsableError(
            f"An entry point ({asked_by}) is written module:Class, not {entry_point!r}. Example: my_package.envs:MyEnv"
        )
    module = import_module(module_name, asked_by)
    if not hasattr(module, attribute):
        found = [name for name, value in vars(module).items() if _is_environment_class(value)]
        known = f" It has: {', '.join(sorted(found)[:10])}." if found else ""
        raise EnvironmentNotUsableError(f"The module {module_name!r} has no {attribute!r} ({asked_by}).{known}")
    creator = getattr(module, attribute)
    if isinstance(creator, type) and not issubclass(creator, gymnasium.Env):
        raise EnvironmentNotUsableError(not_an_environment(entry_point, creator))
    if not callable(creator):
        raise EnvironmentNotUsableError(not_an_environment(entry_point, type(creator)))
    return creator  # type: ignore[no-any-return]  # getattr of a module


def not_an_environment(what: str, cls: type) -> str:
    """The line for something that should be a Gymnasium environment and isn't."""
    if any(base.__module__ == "gym.core" for base in cls.__mro__):
        return f"{what} is made for the old 'gym'. Derive it from gymnasium.Env, or use a newer version of it."
    return f"{what} is no Gymnasium environment but {cls.__module__}.{cls.__qualname__}. Derive it from gymnasium.Env."


def entry_point_text(entry_point: EnvCreator | str | None) -> str | None:
    """An entry point as ``module:name``, whether it was registered as text or as an object."""
    if entry_point is None or isinstance(entry_point, str):
        return entry_point
    cls = entry_point if hasattr(entry_point, "__qualname__") else type(entry_point)
    return f"{cls.__module__}:{cls.__qualname__}"


def other_versions(env_id: str) -> list[str]:
    """Registered ids of the same environment in other versions, oldest first."""
    namespace, name, version = parse_env_id(env_id)
    same = [
        other
        for other in registry.values()
        if (other.namespace, other.name) == (namespace, name) and other.version != version and not _is_retired(other)
    ]
    return [s.id for s in sorted(same, key=lambda s: -1 if s.version is None else s.version)]


def known_registration(env_id: str) -> EnvSpec | None:
    """What installed packages have registered under the id; nothing that the id or a registry names is imported."""
    name = split_module(env_id)[1]
    try:
        found = _look_up(name)
    except (EnvironmentNotUsableError, gymnasium.error.Error):
        return None
    return None if found.id in _ours else found


def known_registrations() -> list[EnvSpec]:
    """What Gymnasium and all installed packages of the table have registered, without what a request has."""
    import_installed_packages()
    return [known for known in registry.values() if known.id not in _ours]


#: Ids that were registered here: a process that serves several requests may be told otherwise by the next.
_ours: set[str] = set()


def _register(env_id: str, entry_point: str) -> None:
    creator = load_entry_point(entry_point)
    existing = registry.get(env_id)
    if existing is None or env_id in _ours:
        registry.pop(env_id, None)
        try:
            gymnasium.register(env_id, entry_point=entry_point)
        except gymnasium.error.Error as error:
            raise EnvironmentNotUsableError(f"{env_id!r} can't be registered: {one_line(error)}") from error
        _ours.add(env_id)
        return
    known = entry_point_text(existing.entry_point)
    if known == entry_point or existing.entry_point is creator:
        return
    if isinstance(existing.entry_point, str) and load_entry_point(existing.entry_point) is creator:
        return
    raise EnvironmentNotUsableError(
        f"{env_id} is registered with the entry point {known} already, not {entry_point}. Choose another --env."
    )


def _look_up(env_id: str, packages: Collection[str] = ()) -> EnvSpec:
    namespace, name, _ = parse_env_id(env_id)
    found = _registered(env_id)
    package = package_of(namespace, name)
    if found is None and package is not None and package.module is not None and is_installed(package.module):
        import_module(package.module, f"needed for {env_id}")
        found = _registered(env_id)
    if found is None and package is None and not other_versions(env_id):
        import_installed_packages()
        found = _registered(env_id)
    if found is None:
        raise EnvironmentNotUsableError(_unknown(env_id, package, packages))
    return found


def _registered(env_id: str) -> EnvSpec | None:
    if env_id in registry:
        return registry[env_id]
    versions = other_versions(env_id)
    # As Gymnasium does: an id without a version means the newest.
    return registry[versions[-1]] if versions and parse_env_id(env_id)[2] is None else None


def _unknown(env_id: str, package: EnvironmentPackage | None, given: Collection[str]) -> str:
    if _is_in_old_gym(env_id):
        return f"{env_id} is registered with the old 'gym', not with Gymnasium. Use a version made for Gymnasium."
    versions = other_versions(env_id)
    if versions:
        note = f" {package.note}" if package and package.note else ""
        return f"There is no {env_id} in the installed version. Use {' or '.join(versions)}.{note}"
    if package is not None and package.module is not None and not _is_complete(package, package.module):
        note = f" {package.note}" if package.note else ""
        return (
            f"{env_id} needs a package that is not installed. Install it: pip install {quoted(package.install)}.{note}"
        )
    close = _closest(env_id)
    suggestion = f"Did you mean {' or '.join(close)}? " if close else ""
    own = f"Environments of a package of your own need {_PACKAGES} or {_ENTRY_POINT}."
    return f"There is no environment {env_id!r}. {suggestion}{_registered_by(given) if given else own}"


def _registered_by(packages: Collection[str]) -> str:
    """What the packages that a user names bring, as a sentence."""
    roots = {package.partition(".")[0] for package in packages}
    makers = {known: entry_point_text(spec.entry_point) or "" for known, spec in registry.items()}
    own = [known for known, maker in makers.items() if re.split("[.:]", maker)[0] in roots]
    who = f"{' and '.join(packages)} ({_PACKAGES})"
    if own:
        return f"{who} registers {', '.join(own[:_MOST_NAMED])}{', …' if len(own) > _MOST_NAMED else ''}."
    return (
        f"{who} registers no such id when it is imported. Give the module of it that does, or the class: "
        f"{_ENTRY_POINT} module:Class."
    )


def _is_complete(package: EnvironmentPackage, module: str) -> bool:
    """Whether it is there with its environments: shimmy alone, without the extra, registers none."""
    own = tuple(f"{namespace}/" for namespace in package.namespaces)
    return is_installed(module) and (not own or any(env_id.startswith(own) for env_id in registry))


def _closest(env_id: str) -> list[str]:
    by_lower = {known.lower(): known for known in registry}
    return [by_lower[match] for match in difflib.get_close_matches(env_id.lower(), by_lower, n=3)]


def _is_retired(registration: EnvSpec) -> bool:
    # Gymnasium keeps MuJoCo's v2 and v3 as a function that only raises; its real environments are registered as text.
    return getattr(registration.entry_point, "__module__", "").partition(".")[0] == "gymnasium"


def _is_in_old_gym(env_id: str) -> bool:
    # Only if something has imported it: importing it here would print its farewell notice.
    old = getattr(sys.modules.get("gym"), "envs", None)
    old_registry = getattr(old, "registry", {})
    return env_id in getattr(old_registry, "env_specs", old_registry)


def _is_environment_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, gymnasium.Env) and value is not gymnasium.Env
