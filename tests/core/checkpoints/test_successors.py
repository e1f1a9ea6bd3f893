"""Agents of old ids and of wrappers that skip frames get the environment that they were trained in, and a note."""

import dataclasses
import shutil

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from rlhfblender_core.checkpoints import (
    as_trained,
    check_spaces,
    fetch_checkpoint,
    find_checkpoints,
    select_checkpoints,
    successor_hint,
)
from rlhfblender_core.checkpoints.origin import Origin, origin_of
from rlhfblender_core.checkpoints.successors import SUCCESSIONS
from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.wrappers import AgentSettings, WrapperSpec

ATARI = "stable_baselines3.common.atari_wrappers.AtariWrapper"


@pytest.fixture
def agent(trained):
    """A reference to a model with this origin and these wrappers."""

    def make(*names: str, settings: str | None = None, wrappers: tuple[WrapperSpec, ...] = (), **env_kwargs: object):
        return dataclasses.replace(
            trained("PPO").ref(),
            origin=Origin(settings, names),
            settings=AgentSettings(wrappers=wrappers, env_kwargs=env_kwargs),
        )

    return make


def kwargs_of(ref, registration, **given):
    return as_trained(ref, registration, given).settings.env_kwargs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a/Walker2d-v3.zip", "Walker2d-v3"),
        ("/a/Walker2d-v3_1/best_model.zip", "Walker2d-v3"),
        ("/a/tqc/Walker2d-v3_12/rl_model_1000_steps.zip", "Walker2d-v3"),
        ("s3://b/ppo-Walker2d-v3_2/checkpoints/odd.zip", "Walker2d-v3"),
        ("/a/sac_Walker2d-v3_exp_10000.zip", "Walker2d-v3"),
    ],
)
def test_id_is_read_from_names_of_files_and_folders(agent, url, expected):
    ref = dataclasses.replace(agent(), origin=origin_of(None, (url,)))
    assert expected in ref.origin.ids
    assert "belong on Walker2d-v4" in (successor_hint(ref, "Walker2d-v5") or "")


def test_settings_are_believed_before_names(trained, tmp_path):
    run = tmp_path / "Hopper-v4_1"
    (run / "Hopper-v4").mkdir(parents=True)
    shutil.copy(trained("PPO").path, run / "best_model.zip")
    shutil.copy(trained("PPO").path, run / "Hopper-v4.zip")
    (run / "Hopper-v4" / "args.yml").write_text("env: Hopper-v2\n")
    for label in ("best", "final"):
        (file,) = select_checkpoints(find_checkpoints(str(run), "Hopper-v4"), [label])
        assert fetch_checkpoint(file, tmp_path / "cache").origin.ids == ("Hopper-v2",)


def test_hint_names_the_version_that_old_simulated_agents_belong_on(agent):
    for old in ("Walker2d-v2", "Walker2d-v3", "Walker2d-v4"):
        assert f"Agents of {old} belong on Walker2d-v4" in (successor_hint(agent(old), "Walker2d-v5") or "")
    assert successor_hint(agent("Walker2d-v3"), "Walker2d-v4") is None
    assert successor_hint(agent("Walker2d-v5"), "Walker2d-v5") is None


@pytest.mark.parametrize("old", ["LunarLander-v2", "Pendulum-v0", "CartPole-v0"])
def test_successors_that_changed_nothing_have_no_note(agent, old):
    base, _, version = old.rpartition("-v")
    new = f"{base}-v{int(version) + 1}"
    assert successor_hint(agent(old), new) is None
    assert as_trained(agent(old), gym.spec(new), {}).notes == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("BipedalWalker-v2", "BipedalWalker-v3", "lidar"),
        ("Taxi-v2", "Taxi-v3", "map"),
        ("Humanoid-v3", "Humanoid-v4", "contact forces"),
        ("MyOwn-v1", "MyOwn-v7", "isn't known here"),
    ],
)
def test_what_a_successor_changed_is_told(agent, old, new, said):
    registration = EnvSpec(id=new, entry_point="a:B")
    (note,) = as_trained(agent(settings=old), registration, {}).notes
    assert said in note
    assert old in note


def test_every_row_of_the_table_has_a_source():
    assert all(row.source for row in SUCCESSIONS)


def test_old_ant_sees_the_contact_forces_of_its_training(agent):
    ref = as_trained(agent(settings="Ant-v3"), EnvSpec(id="Ant-v4", entry_point="a:B"), {})
    assert ref.settings.env_kwargs == {"use_contact_forces": True, "contact_force_range": [0.0, 0.0]}
    assert "use_contact_forces:True contact_force_range:[0.0, 0.0]" in ref.notes[0]
    assert kwargs_of(agent("Ant-v4"), EnvSpec(id="Ant-v4", entry_point="a:B")) == {}
    given = kwargs_of(agent("Ant-v2"), EnvSpec(id="Ant-v4", entry_point="a:B"), use_contact_forces=False)
    assert "use_contact_forces" not in given


def test_old_ant_acts_in_its_successor(agent):
    pytest.importorskip("mujoco", reason="needs the extra 'mujoco'")
    with pytest.warns(DeprecationWarning, match="out of date"):
        env = gym.make("Ant-v4", **kwargs_of(agent("Ant-v3"), gym.spec("Ant-v4")))
    observation, _ = env.reset(seed=0)
    for _ in range(20):
        observation, *_ = env.step(env.action_space.sample())
    assert observation.shape == (111,)
    assert not observation[-84:].any()
    env.close()


@pytest.fixture
def pong():
    ale = pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    gym.register_envs(ale)
    return gym.spec("ALE/Pong-v5")


@pytest.mark.parametrize(
    ("wrappers", "expected"),
    [
        ((WrapperSpec(ATARI),), {"frameskip": 1, "repeat_action_probability": 0.0}),
        ((WrapperSpec(ATARI, {"frame_skip": 1}),), {}),
        ((WrapperSpec("stable_baselines3.common.atari_wrappers.MaxAndSkipEnv"),), {"frameskip": 1}),
        ((WrapperSpec("gymnasium.wrappers.AtariPreprocessing"),), {"frameskip": 1}),
        ((WrapperSpec("rl_zoo3.wrappers.FrameSkip", {"skip": 3}),), {"frameskip": 1}),
        ((WrapperSpec("stable_baselines3.common.atari_wrappers.WarpFrame"),), {}),
        ((), {}),
    ],
)
def test_frames_are_not_skipped_twice(agent, pong, wrappers, expected):
    ref = as_trained(agent(wrappers=wrappers), pong, {})
    assert ref.settings.env_kwargs == expected
    assert len(ref.notes) == bool(expected)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ("PongNoFrameskip-v4", {"frameskip": 1, "repeat_action_probability": 0.0}),
        ("PongNoFrameskip-v0", {"frameskip": 1}),
        ("Pong-v4", {"frameskip": [2, 5], "repeat_action_probability": 0.0}),
        ("PongDeterministic-v4", {"repeat_action_probability": 0.0}),
        ("Pong-ram-v4", {"frameskip": [2, 5], "repeat_action_probability": 0.0, "obs_type": "ram"}),
        ("Pong-ramDeterministic-v0", {"obs_type": "ram"}),
        ("ALE/Pong-v5", {}),
    ],
)
def test_atari_agents_get_the_frames_of_their_id(agent, pong, old, expected):
    assert kwargs_of(agent(settings=old, wrappers=(WrapperSpec(ATARI),)), pong) == expected


def test_own_and_given_frame_skips_win(agent, pong):
    ref = agent("PongNoFrameskip-v4", wrappers=(WrapperSpec(ATARI),))
    assert kwargs_of(ref, pong, frameskip=2) == {"repeat_action_probability": 0.0}
    own = agent("PongNoFrameskip-v4", wrappers=(WrapperSpec(ATARI),), frameskip=3)
    assert kwargs_of(own, pong) == {"frameskip": 3, "repeat_action_probability": 0.0}


def test_environments_that_skip_frames_under_any_name_count(agent):
    registration = EnvSpec(id="Jumper-v1", entry_point="a:B", kwargs={"frame_skip": 8})
    wrapped = agent(wrappers=(WrapperSpec("rl_zoo3.wrappers.FrameSkip"),))
    assert kwargs_of(wrapped, registration) == {"frame_skip": 1}


def test_stacked_agent_without_settings_is_told_its_stack(trained):
    with pytest.raises(SpacesDifferError, match="frame_stack:3"):
        check_spaces(trained("PPO").ref(), spaces.Box(-1, 1, (1,), np.float32), spaces.Discrete(3))
    with pytest.raises(SpacesDifferError, match="frame_stack:3"):
        check_spaces(trained("PPO-image").ref(), spaces.Box(0, 255, (36, 40, 1), np.uint8), spaces.Discrete(3))
