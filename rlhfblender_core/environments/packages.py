"""Which package an environment's id belongs to, and importing packages so that every failure is one clear line.

Looking ids up is in :mod:`rlhfblender_core.environments.registration`.
"""

import importlib
import importlib.util
import re
from dataclasses import dataclass
from types import ModuleType

from rlhfblender_core.environments.quiet import quiet_natives, silence_native_loggers
from rlhfblender_core.errors import EnvironmentNotUsableError, last_line


@dataclass(frozen=True)
class EnvironmentPackage:
    """A package with environments.

    Attributes:
        install: what pip is asked for.
        module: imported to register the environments; None where Gymnasium registers them and the package is only
            needed to make them.
        namespaces: namespaces of ids (``ALE`` in ``ALE/Pong-v5``) that are this package's.
        names: regular expression of the names, without namespace and version, that are this package's.
        note: what else a user of it should know, as a sentence.
    """

    install: str
    module: str | None
    namespaces: frozenset[str] = frozenset()
    names: str = r"(?!)"
    note: str = ""


_NEEDS_OLD_GYM = "It is made for the old 'gym' and works only if a version for Gymnasium exists."

#: Looked up in this order.
PACKAGES = (
    EnvironmentPackage(
        install="ale-py",
        module="ale_py",
        namespaces=frozenset({"ALE"}),
        names=r"\w+(NoFrameskip|Deterministic|-ram|-ramDeterministic|-ramNoFrameskip)",
    ),
    EnvironmentPackage(install="minigrid", module="minigrid", names=r"(MiniGrid|BabyAI)-.*"),
    EnvironmentPackage(
        install="highway-env",
        module="highway_env",
        names=r"(exit|highway|highway-fast|intersection|intersection-multi-agent|lane-keeping|two-way|u-turn"
        r"|(merge|parking|racetrack|roundabout)(-\w+)?)",
    ),
    EnvironmentPackage(
        install="gymnasium[box2d]",
        module=None,
        names=r"LunarLander(Continuous)?|BipedalWalker(Hardcore)?|CarRacing",
    ),
    EnvironmentPackage(
        install="gymnasium[classic-control]",
        module=None,
        names=r"CartPole|Pendulum|Acrobot|MountainCar(Continuous)?",
    ),
    EnvironmentPackage(
        install="gymnasium[toy-text]",
        module=None,
        names=r"Blackjack|CliffWalking(Slippery)?|FrozenLake(8x8)?|Taxi",
    ),
    EnvironmentPackage(
        install="gymnasium[mujoco]",
        module=None,
        names=r"Ant|HalfCheetah|Hopper|Humanoid(Standup)?|Inverted(Double)?Pendulum|Pusher|Reacher|Swimmer|Walker2d",
        note="Agents trained on v2 or v3 belong on v4, not v5.",
    ),
    EnvironmentPackage(install="gymnasium[jax]", module=None, namespaces=frozenset({"phys2d", "tabular"})),
    EnvironmentPackage(
        install="gymnasium-robotics",
        module="gymnasium_robotics",
        names=r"(Fetch|HandManipulate|HandReach|AntMaze|PointMaze|Adroit|FrankaKitchen).*",
    ),
    EnvironmentPackage(install="metaworld", module="metaworld", namespaces=frozenset({"Meta-World"})),
    EnvironmentPackage(install="miniworld", module="miniworld", names=r"MiniWorld-.*"),
    EnvironmentPackage(install="miniwob", module="miniwob", namespaces=frozenset({"miniwob"})),
    EnvironmentPackage(install="mo-gymnasium", module="mo_gymnasium", names=r"mo-.*"),
    EnvironmentPackage(install="panda-gym", module="panda_gym", names=r"Panda.*"),
    EnvironmentPackage(install="pybullet-envs-gymnasium", module="pybullet_envs_gymnasium", names=r".*Bullet(Env|X?)?"),
    EnvironmentPackage(install="vizdoom", module="vizdoom.gymnasium_wrapper", names=r"Vizdoom.*"),
    EnvironmentPackage(install="flappy-bird-gymnasium", module="flappy_bird_gymnasium", names=r"FlappyBird"),
    EnvironmentPackage(install="shimmy[dm-control]", module="shimmy", namespaces=frozenset({"dm_control"})),
    EnvironmentPackage(install="procgen", module="procgen", names=r"procgen-.*", note=_NEEDS_OLD_GYM),
    EnvironmentPackage(install="gym-super-mario-bros", module="gym_super_mario_bros", names=r"SuperMarioBros.*"),
)


def package_of(namespace: str | None, name: str) -> EnvironmentPackage | None:
    """The known package whose ids look like this one, or None."""
    for package in PACKAGES:
        if namespace in package.namespaces or (namespace is None and re.fullmatch(package.names, name)):
            return package
    return None


def is_installed(module: str) -> bool:
    """Whether the module's top-level package can be found; nothing is imported."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def import_installed_packages() -> None:
    """Imports every known package that is installed, so that ids with names of no known form are registered too.

    Packages that fail to import are skipped: nobody asked for them.
    """
    for package in PACKAGES:
        if package.module is not None and is_installed(package.module):
            try:
                import_quietly(package.module)
            except (Exception, SystemExit):  # noqa: BLE001, S112 (see the docstring; anything can happen at import)
                continue


def import_quietly(name: str) -> ModuleType:
    """The module, imported without its banners and deprecation warnings."""
    with quiet_natives():
        module = importlib.import_module(name)
    silence_native_loggers()
    return module


def import_module(name: str, asked_by: str) -> ModuleType:
    """The module; every failure is one line for the user.

    Args:
        name: dotted name.
        asked_by: what the user wrote to ask for it: ``"--additional-gym-packages"``.

    Raises:
        EnvironmentNotUsableError: it can't be found, needs something that is missing, or raises while imported.
    """
    try:
        return import_quietly(name)
    except ModuleNotFoundError as error:
        raise EnvironmentNotUsableError(_not_found(name, asked_by, error)) from error
    except (Exception, SystemExit) as error:
        raise EnvironmentNotUsableError(
            f"The package {name!r} ({asked_by}) fails when it is imported: {last_line(error):.300}. "
            f'Try python -c "import {name}" to see why.'
        ) from error


def _not_found(name: str, asked_by: str, error: ModuleNotFoundError) -> str:
    missing = error.name or name
    if missing == "gym":
        return f"The package {name!r} ({asked_by}) is made for the old 'gym'. Use a version of it made for Gymnasium."
    if name != missing and not name.startswith(f"{missing}."):
        return (
            f"The package {name!r} ({asked_by}) needs the module {missing!r}, which is not installed. "
            f"Install it: pip install {quoted(install_name(missing))}"
        )
    module_name = name.replace("-", "_")
    if module_name != name and is_installed(module_name):
        return f"There is no module {name!r} ({asked_by}). Give the name that Python imports: {module_name}"
    return (
        f"There is no module {name!r} ({asked_by}). Check its spelling, install the package into this Python, "
        "or put its folder on PYTHONPATH."
    )


def install_name(module: str) -> str:
    """What pip installs to get this module, as far as the table knows, else the module's top-level name."""
    root = module.partition(".")[0]
    for package in PACKAGES:
        if package.module is not None and package.module.partition(".")[0] == root:
            return package.install
    return root


def quoted(requirement: str) -> str:
    """The requirement as a shell takes it: brackets are patterns to some."""
    return f'"{requirement}"' if "[" in requirement else requirement
