import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import registry

from rlhfblender_core.environments import EnvironmentSpec, make_environment
from rlhfblender_core.errors import EnvironmentNotUsableError


def made(env_id: str, entry_point: str | None = None, *, render: bool = True, **fields: object) -> gymnasium.Env:
    return make_environment(EnvironmentSpec(env_id, entry_point, **fields), render=render)  # type: ignore[arg-type]


def refused(env_id: str, entry_point: str | None = None, *, render: bool = True, **fields: object) -> str:
    """The one line with which an environment is refused."""
    with pytest.raises(EnvironmentNotUsableError) as caught:
        made(env_id, entry_point, render=render, **fields)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("env_id", ["CartPole-v1", "LunarLander-v3", "Pendulum-v1", "FrozenLake-v1"])
@pytest.mark.parametrize("render", [True, False])
def test_gymnasiums_own_environments_are_made(env_id: str, render: bool) -> None:
    env = made(env_id, render=render)
    assert env.spec.id == env_id
    assert env.render_mode == ("rgb_array" if render else None)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()


@pytest.mark.parametrize(
    ("env_id", "module"),
    [
        ("ALE/Pong-v5", "ale_py"),
        ("PongNoFrameskip-v4", "ale_py"),
        ("Pong-v4", "ale_py"),
        ("MiniGrid-Empty-5x5-v0", "minigrid"),
        ("minigrid:MiniGrid-Empty-5x5-v0", "minigrid"),
        ("BabyAI-GoToRedBallGrey-v0", "minigrid"),
        ("highway-v0", "highway_env"),
    ],
)
def test_installed_packages_are_imported_without_being_named(env_id: str, module: str) -> None:
    pytest.importorskip(module)
    for render in (True, False):
        made(env_id, render=render).close()


def test_making_prints_and_warns_nothing() -> None:
    pytest.importorskip("ale_py")
    # A process of its own, as banners come once, and from C++ past Python's streams.
    script = """
import sys
from rlhfblender_core.environments import EnvironmentSpec, describe_environment
for env_id in sys.argv[1:]:
    describe_environment(EnvironmentSpec(env_id), render=True)
"""
    ids = ["ALE/Pong-v5", "MiniGrid-Empty-5x5-v0", "CartPole-v0", "CartPole", "LunarLander-v3"]
    run = subprocess.run([sys.executable, "-c", script, *ids], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_own_environment_is_made_by_its_entry_point_quietly(outside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    env = made("Talking-v0", "outside_envs:Talking")
    env.reset(seed=0)
    assert env.render().shape == (4, 6, 3)
    assert "Talking-v0" in registry
    assert capfd.readouterr() == ("", "")


def test_function_and_wrapper_are_entry_points_too(outside: Path) -> None:
    assert made("Function-v0", "outside_envs:counting", kwargs={"length": 8}).unwrapped.length == 8
    made("Wrapped-v0", "outside_envs:Wrapped").close()
    made("Late-v0", "outside_envs:LateMetadata").close()


def test_making_again_finds_the_entry_point_registered(outside: Path) -> None:
    made("Again-v0", "outside_envs:Counting").close()
    made("Again-v0", "outside_envs:Counting").close()
    made("Again-v0").close()


def test_additional_packages_are_imported_first(outside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    env = made("OutsideRegistered-v0", additional_packages=("outside_registering",))
    assert env.spec.max_episode_steps == 9
    made("OutsideRegistered-v0", "outside_envs:Counting").close()
    assert made("outside/Classy-v0", "outside_envs:Counting", render=False).render_mode is None
    assert capfd.readouterr() == ("", "")


def test_what_the_given_packages_register_is_told_where_the_id_is_unknown(outside: Path) -> None:
    line = refused("Pandoro-v3", additional_packages=("minigrid",))
    assert "minigrid (--additional-gym-packages) registers MiniGrid-" in line
    line = refused("RegisteredNowhere-v0", additional_packages=("outside_envs",))
    assert "outside_envs (--additional-gym-packages) registers no such id when it is imported" in line
    assert "--env-gym-entrypoint module:Class" in line
    line = refused("CartPol-v1", additional_packages=("outside_envs",))
    assert "Did you mean CartPole-v1 " in line


def test_spec_kwargs_set_the_time_limit_and_other_kwargs_go_to_the_constructor(outside: Path) -> None:
    env = made(
        "Limited-v0",
        "outside_envs:Counting",
        kwargs={"length": 50, "difficulty": "hard"},
        spec_kwargs={"max_episode_steps": 2},
    )
    env.reset(seed=0)
    assert env.unwrapped.difficulty == "hard"
    assert [env.step(0)[3] for _ in range(2)] == [False, True]
    unlimited = made("CartPole-v1", spec_kwargs={"max_episode_steps": None, "reward_threshold": 3})
    assert unlimited.spec.max_episode_steps is None
    assert unlimited.spec.reward_threshold == 3


def test_passive_checker_is_off_unless_asked_for() -> None:
    checker = gymnasium.wrappers.PassiveEnvChecker

    def has_checker(env: gymnasium.Env) -> bool:
        return isinstance(env, checker) or (isinstance(env, gymnasium.Wrapper) and has_checker(env.env))

    assert not has_checker(made("CartPole-v1"))
    assert has_checker(made("CartPole-v1", spec_kwargs={"disable_env_checker": False}))


def test_kwargs_reach_constructors_that_forward_or_pop_them(outside: Path) -> None:
    assert made("Forward-v0", "outside_envs:Forwarding", kwargs={"length": 4}).unwrapped.length == 4
    assert made("Pop-v0", "outside_envs:Popping", kwargs={"secret": 1}).unwrapped.secret == 1


def test_lists_become_tuples_for_constructors_that_insist(outside: Path) -> None:
    assert made("Tuple-v0", "outside_envs:WantsTuple", kwargs={"span": [1, 2]}).unwrapped.span == (1, 2)
    assert "span must be a tuple" in refused("Tuple-v0", "outside_envs:WantsTuple", kwargs={"span": 3})


def test_constructors_cannot_change_the_spec(outside: Path) -> None:
    spec = EnvironmentSpec("Changing-v0", "outside_envs:Changing", kwargs={"config": {}})
    make_environment(spec, render=False).close()
    assert spec.kwargs == {"config": {}}


def test_no_render_overrides_a_constructors_default(outside: Path) -> None:
    assert made("Windows-v0", "outside_envs:OpensWindows", render=False).render_mode is None


def test_environment_without_rendering_is_made_with_no_render(outside: Path) -> None:
    made("Blind-v0", "outside_envs:Blind", render=False).close()


@pytest.mark.parametrize(
    ("env_id", "parts"),
    [
        ("CartPol-v1", ["no environment 'CartPol-v1'", "Did you mean CartPole-v1", "--additional-gym-packages"]),
        ("cartpole-v1", ["Did you mean CartPole-v1"]),
        ("XyzzyPlugh-v3", ["no environment 'XyzzyPlugh-v3'. Environments of a package"]),
        ("LunarLander-v2", ["There is no LunarLander-v2", "Use LunarLander-v3"]),
        ("CartPole-v7", ["There is no CartPole-v7", "Use CartPole-v0 or CartPole-v1"]),
        ("Hopper-v3", ["Use Hopper-v4 or Hopper-v5", "belong on v4"]),
        ("a b", ["'a b' is no environment id. Ids look like CartPole-v1"]),
        ("", ["'' is no environment id"]),
        (":CartPole-v1", ["':CartPole-v1' is no environment id"]),
        ("../x", ["'../x' is no environment id"]),
        ("nowhere:CartPole-v1", ["There is no module 'nowhere'", "before the colon"]),
        ("GymV21Environment-v0", ["can't be made", "nstall"]),
    ],
)
def test_unknown_ids_say_what_there_is_instead(env_id: str, parts: list[str]) -> None:
    line = refused(env_id)
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("env_id", "missing", "install"),
    [
        ("ALE/Pong-v5", "ale_py", "pip install ale-py"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "pip install minigrid"),
        ("highway-v0", "highway_env", "pip install highway-env"),
        ("LunarLander-v3", "Box2D", 'pip install "gymnasium[box2d]"'),
        ("Hopper-v5", "mujoco", 'pip install "gymnasium[mujoco]"'),
        ("FetchReach-v4", "gymnasium_robotics", "pip install gymnasium-robotics"),
        ("Meta-World/MT1", "metaworld", "pip install metaworld"),
        ("procgen-coinrun-v0", "procgen", "pip install procgen. It is made for the old 'gym'"),
    ],
)
def test_missing_package_is_named_with_its_installation(env_id: str, missing: str, install: str) -> None:
    # A fresh process in which the package can't be found, as if it weren't installed.
    script = f"""
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "{missing}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] == "{missing}" else found(name, *rest)
from rlhfblender_core.environments import EnvironmentSpec, make_environment
from rlhfblender_core.errors import EnvironmentNotUsableError
try:
    make_environment(EnvironmentSpec("{env_id}"), render=True)
except EnvironmentNotUsableError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert install in run.stdout, run
    assert run.stdout.startswith(f"{env_id} needs")
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "parts"),
    [
        ("nowhere_at_all", ["There is no module 'nowhere_at_all' (--additional-gym-packages)", "PYTHONPATH"]),
        ("outside_needing", ["needs the module 'package_that_nobody_has", "pip install package_that_nobody_has"]),
        ("outside_raising", ["fails when it is imported: RuntimeError: wrong platform"]),
        ("outside_exiting", ["fails when it is imported: SystemExit: 3"]),
        ("outside-envs", ["Give the name that Python imports: outside_envs"]),
        ("", ["fails when it is imported"]),
    ],
)
def test_additional_package_that_does_not_import_is_one_line(outside: Path, package: str, parts: list[str]) -> None:
    line = refused("CartPole-v1", additional_packages=(package,))
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("entry_point", "parts"),
    [
        ("outside_envs", ["is written module:Class, not 'outside_envs'"]),
        ("outside_envs:", ["is written module:Class"]),
        (":Counting", ["is written module:Class"]),
        ("outside_envs:Counting:x", ["is written module:Class"]),
        ("outside_envs.py:Counting", ["There is no module 'outside_envs.py' (--env-gym-entrypoint)"]),
        ("nowhere.envs:Env", ["There is no module 'nowhere.envs'"]),
        ("outside_needing:Env", ["needs the module 'package_that_nobody_has"]),
        ("outside_envs:Countin", ["has no 'Countin'", "It has: ", "Counting"]),
        ("outside_envs:NotAnEnv", ["outside_envs:NotAnEnv is no Gymnasium environment"]),
        ("outside_envs:a_number", ["is no Gymnasium environment but builtins.int"]),
        ("outside_envs:not_an_env", ["New-v0 is no Gymnasium environment"]),
        ("outside_envs:Broken", ["New-v0 can't be made: RuntimeError: no licence found"]),
        ("outside_envs:NeedsPackage", ["New-v0 needs the module 'package_that_nobody_has'", "pip install"]),
        ("outside_envs:NeedsSize", ["needs the keyword argument 'size'", "--env-kwargs size:VALUE"]),
        ("outside_envs:DictActions", ["Action spaces of type Dict are not supported"]),
        ("outside_envs:GraphObservations", ["Spaces of type Graph are not supported"]),
        ("outside_envs:NoSpaces", ["observation_space is None"]),
        ("outside_envs:Blind", ["can't render to rgb_array", "--no-render"]),
        ("outside_envs:Asserting", ["can't render to rgb_array (render modes: human)", "--no-render"]),
        ("outside_envs:WithoutConstructor", ["can't render to rgb_array", "--no-render"]),
    ],
)
def test_unusable_entry_point_is_one_line_and_leaves_its_id_free(
    outside: Path, entry_point: str, parts: list[str]
) -> None:
    line = refused("New-v0", entry_point)
    assert all(part in line for part in parts), line
    assert "New-v0" not in registry


def test_id_of_another_entry_point_is_refused(outside: Path) -> None:
    line = refused("CartPole-v1", "outside_envs:Counting")
    assert "CartPole-v1 is registered with the entry point gymnasium.envs.classic_control" in line
    assert registry["CartPole-v1"].entry_point == "gymnasium.envs.classic_control.cartpole:CartPoleEnv"


def test_id_that_gymnasium_refuses_to_register_is_one_line(outside: Path) -> None:
    assert "can't be registered" in refused("CartPole", "outside_envs:Counting")


@pytest.mark.parametrize(
    ("env_id", "entry_point", "name", "accepted"),
    [
        ("CartPole-v1", None, "colour", "It takes: sutton_barto_reward."),
        ("Counting-v0", "outside_envs:Counting", "colour", "It takes: length, difficulty."),
        ("Forwarding-v0", "outside_envs:Forwarding", "colour", "It takes: size, length, difficulty."),
        ("Popping-v0", "outside_envs:Popping", "colour", "It takes: length, difficulty."),
        ("Function-v0", "outside_envs:counting", "colour", "It takes: length."),
        ("Without-v0", "outside_envs:WithoutConstructor", "colour", "It takes none."),
    ],
)
def test_unknown_kwarg_is_named_with_the_accepted_ones(
    outside: Path, env_id: str, entry_point: str | None, name: str, accepted: str
) -> None:
    line = refused(env_id, entry_point, kwargs={name: 1}, render=False)
    assert line == f"{env_id} has no keyword argument 'colour' (--env-kwargs). {accepted}"


def test_values_that_the_constructor_refuses_are_shown() -> None:
    line = refused("LunarLander-v3", kwargs={"gravity": 5})
    assert "LunarLander-v3 can't be made with gravity=5" in line
    assert "render_mode can't be given" in refused("CartPole-v1", kwargs={"render_mode": "human"})


def test_environment_of_the_old_gym_is_recognised(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outside / "gym.py").write_text(
        "import types\n"
        "class Env: pass\n"
        "Env.__module__ = 'gym.core'\n"
        "envs = types.SimpleNamespace(registry={'Ancient-v0': None})\n"
    )
    (outside / "outside_ancient.py").write_text("import gym\nclass Ancient(gym.Env): pass\n")
    monkeypatch.delitem(sys.modules, "gym", raising=False)
    line = refused("Ancient-v0", additional_packages=("outside_ancient",))
    assert "Ancient-v0 is registered with the old 'gym'" in line
    assert "is made for the old 'gym'" in refused("Ancient-v1", "outside_ancient:Ancient")


def test_package_that_needs_the_old_gym_says_so(outside: Path) -> None:
    if importlib.util.find_spec("gym") is not None:
        pytest.skip("the old gym is installed here")
    assert "made for the old 'gym'" in refused("X-v0", additional_packages=("outside_old_gym",))


def test_own_environments_warnings_are_not_hidden_while_stepping(outside: Path) -> None:
    env = made("Counting-v0", "outside_envs:Counting")
    with pytest.warns(UserWarning, match="mine"):
        warnings.warn("mine", stacklevel=1)
    env.close()


def test_an_id_of_our_own_may_mean_another_class_in_the_next_request() -> None:
    for cls in ("Counting", "Drawing"):
        env = made("Reused-v0", f"tests.support.environments_for_tests.counting:{cls}")
        assert type(env.unwrapped).__name__ == cls
        env.close()


def test_a_package_that_registers_nothing_without_its_extra_names_it() -> None:
    pytest.importorskip("shimmy")
    if importlib.util.find_spec("dm_control"):
        pytest.skip("the extra is installed")
    with pytest.raises(EnvironmentNotUsableError, match=r"pip install \"shimmy\[dm-control\]\""):
        make_environment(EnvironmentSpec("dm_control/cartpole-balance-v0"), render=False)
