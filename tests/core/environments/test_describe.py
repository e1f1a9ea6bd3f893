import dataclasses
import json
import types
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from rlhfblender_core.environments import EnvironmentSpec, describe_environment, fps_of, space_from_description
from rlhfblender_core.errors import EnvironmentNotUsableError


def test_description_of_a_known_environment() -> None:
    described = describe_environment(EnvironmentSpec("LunarLander-v3"), render=True)
    assert described.env_id == "LunarLander-v3"
    assert described.entry_point == "gymnasium.envs.box2d.lunar_lander:LunarLander"
    assert (described.fps, described.max_episode_steps, described.reward_threshold) == (50, 1000, 200)
    assert "rgb_array" in described.render_modes
    assert described.package_versions["gymnasium"] == version("gymnasium")
    assert any(name.lower() == "box2d" for name in described.package_versions)
    env = gymnasium.make("LunarLander-v3")
    assert space_from_description(described.observation_space) == env.observation_space
    assert space_from_description(described.action_space) == env.action_space


def test_description_is_json_and_does_not_depend_on_other_environments() -> None:
    one = describe_environment(EnvironmentSpec("Pendulum-v1"))
    describe_environment(EnvironmentSpec("LunarLander-v3"))
    other = describe_environment(EnvironmentSpec("Pendulum-v1"))
    assert json.dumps(dataclasses.asdict(one)) == json.dumps(dataclasses.asdict(other))


def test_description_resolves_what_the_user_left_open(outside: Path) -> None:
    assert describe_environment(EnvironmentSpec("CartPole")).env_id == "CartPole-v1"
    spec = EnvironmentSpec("outside/Classy-v0", additional_packages=("outside_registering",))
    described = describe_environment(spec, render=True)
    assert described.entry_point == "outside_envs:Counting"
    assert described.fps == 7


def test_minigrid_has_its_mission_as_text() -> None:
    pytest.importorskip("minigrid")
    described = describe_environment(EnvironmentSpec("MiniGrid-Empty-5x5-v0"), render=True)
    mission = described.observation_space["spaces"]["mission"]
    assert mission["type"] == "Text"
    assert described.package_versions["minigrid"] == version("minigrid")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("BrokenReset", "can't be reset: RuntimeError: the level file is gone"),
        ("BrokenRender", "can't render: RuntimeError: no paint. Pass --no-render"),
        ("RendersText", "renders str, not an array"),
        ("RendersFloats", r"renders an array \(4, 6, 3\) of float64"),
        ("RendersNothing", r"renders an array \(0, 6, 3\) of uint8, not .* with 1 to 16,384 pixels"),
        ("RendersTooMuch", r"renders an array \(2, 16385, 3\) of uint8"),
    ],
)
def test_first_frame_shows_what_stands_in_the_way_of_videos(outside: Path, name: str, part: str) -> None:
    spec = EnvironmentSpec(f"{name}-v0", f"outside_envs:{name}")
    with pytest.raises(EnvironmentNotUsableError, match=part) as caught:
        describe_environment(spec, render=True, try_out=True)
    assert "\n" not in str(caught.value)
    assert describe_environment(spec).fps == 7


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("BrokenReset", "can't be reset"),
        ("Exiting", "can't be reset: SystemExit"),
        ("ObservesText", "space says shape"),
    ],
)
def test_a_first_observation_that_cant_be_had_is_told_without_rendering_too(
    outside: Path, name: str, part: str
) -> None:
    spec = EnvironmentSpec(f"{name}-v0", f"outside_envs:{name}")
    with pytest.raises(EnvironmentNotUsableError, match=part):
        describe_environment(spec, try_out=True)


def test_an_environment_that_changes_the_working_directory_changes_it_for_itself_only(outside: Path) -> None:
    here = Path.cwd()
    describe_environment(EnvironmentSpec("Wandering-v0", "outside_envs:Wandering"), try_out=True)
    assert Path.cwd() == here


def test_an_environment_that_fails_to_close_is_described(outside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert describe_environment(EnvironmentSpec("Stuck-v0", "outside_envs:Stuck"), try_out=True).fps == 7
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("metadata", "fps"),
    [
        ({"render_fps": 50}, 50),
        ({"render_fps": np.float32(12.5)}, 12.5),
        ({"render_fps": 0}, 30),
        ({"render_fps": -5}, 30),
        ({"render_fps": float("nan")}, 30),
        ({"render_fps": float("inf")}, 30),
        ({"render_fps": "fast"}, 30),
        ({"render_fps": True}, 30),
        ({"render_fps": None}, 30),
        ({}, 30),
        (None, 30),
    ],
)
def test_fps_are_the_metadatas_or_thirty(metadata: object, fps: float) -> None:
    assert fps_of(types.SimpleNamespace(metadata=metadata)) == fps  # type: ignore[arg-type]
