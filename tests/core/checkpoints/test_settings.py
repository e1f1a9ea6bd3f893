"""An agent's settings files are understood, and spaces are compared as its wrappers make them."""

import dataclasses
import json
import pickle

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.checkpoints import (
    CheckpointFile,
    Companions,
    check_spaces,
    fetch_checkpoint,
    parse_algorithm,
    successor_hint,
)
from rlhfblender_core.checkpoints.settings import SettingsFile, agent_settings
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError, SpacesDifferError
from rlhfblender_core.wrappers import AgentSettings, WrapperSpec

ZOO = """!!python/object/apply:collections.OrderedDict
- - - env_wrapper
    - - stable_baselines3.common.atari_wrappers.AtariWrapper
      - rl_zoo3.wrappers.FrameSkip:
          skip: 2
  - - frame_stack
    - 4
  - - n_envs
    - 8
  - - normalize
    - {}
  - - policy
    - !!python/tuple
      - 1
"""


def config(text):
    return SettingsFile("config.yml", text.encode())


@pytest.mark.parametrize(
    ("normalize", "norm_obs"),
    [("true", True), ("false", False), ("dict(norm_obs=True, norm_reward=False)", True),
     ("\"{'norm_obs': False, 'norm_reward': True}\"", False), ("dict(norm_reward=True)", True), ("'True'", True)],
)  # fmt: skip
def test_zoo_hyperparameters_are_understood(normalize, norm_obs):
    settings, algorithm = agent_settings(config(ZOO.format(normalize)), None, None)
    wrappers = (
        WrapperSpec("stable_baselines3.common.atari_wrappers.AtariWrapper"),
        WrapperSpec("rl_zoo3.wrappers.FrameSkip", {"skip": 2}),
    )
    assert settings == AgentSettings(4, norm_obs, wrappers)
    assert settings.is_atari
    assert algorithm is None


def test_environment_kwargs_and_algorithm_come_from_args():
    args = SettingsFile(
        "args.yml",
        b"!!python/object/apply:collections.OrderedDict\n- - - algo\n    - qrdqn\n  - - env_kwargs\n    - {a: 1}\n",
    )
    settings, algorithm = agent_settings(None, args, SettingsFile("env_kwargs.yml", b"b: 2\n"))
    assert settings.env_kwargs == {"a": 1, "b": 2}
    assert algorithm == "qrdqn"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ppo", "PPO"), ("QR-DQN", "QRDQN"), ("ppo_lstm", "RecurrentPPO"), ("recurrent_ppo", "RecurrentPPO"),
     ("MaskablePPO", "MaskablePPO"), ("ppo_mask", "MaskablePPO"), ("CrossQ", "CrossQ")],
)  # fmt: skip
def test_algorithms_have_both_projects_spellings(name, expected):
    assert parse_algorithm(name) == expected


def test_unknown_algorithm_names_the_known():
    with pytest.raises(InvalidParameterError, match="CrossQ"):
        parse_algorithm("alphazero")


def test_algorithm_that_contradicts_the_model_is_refused(trained):
    with pytest.raises(CheckpointNotUsableError, match="holds a model of PPO, not SAC"):
        trained("PPO").ref(algorithm="sac")
    assert trained("PPO").ref(algorithm="a2c").algorithm == "A2C"


def test_reference_is_plain_and_survives_pickle_and_json(trained):
    ref = trained("PPO").ref()
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert json.loads(json.dumps(dataclasses.asdict(ref)))["algorithm"] == "PPO"


def test_missing_statistics_of_a_normalised_agent_are_refused(trained, tmp_path):
    file = tmp_path / "config.yml"
    file.write_text("normalize: true\n")
    with pytest.raises(CheckpointNotUsableError, match=r"vecnormalize\.pkl is missing"):
        fetch_checkpoint(
            CheckpointFile("final", None, str(trained("PPO").path), Companions(config=str(file))), tmp_path
        )


def test_masked_velocities_are_known_from_the_models_name(trained, tmp_path):
    path = tmp_path / "CartPoleNoVel-v1.zip"
    path.write_bytes(trained("PPO").path.read_bytes())
    ref = fetch_checkpoint(CheckpointFile("final", None, str(path)), tmp_path)
    assert ref.settings.wrappers == (WrapperSpec("rl_zoo3.wrappers.MaskVelocityWrapper"),)


BOX = spaces.Box(-1, 1, (3,), np.float32)


@pytest.mark.parametrize(
    ("observed", "acted", "said"),
    [
        (
            spaces.Box(-1, 1, (4,), np.float32),
            spaces.Discrete(3),
            r"Box\(\(3,\), float32\), the environment has Box\(\(4,",
        ),
        (spaces.Box(0, 1, (3,), np.uint8), spaces.Discrete(3), "uint8"),
        (spaces.Discrete(3), spaces.Discrete(3), "observations"),
        (BOX, spaces.Discrete(4), "actions 3 actions or values, the environment has 4"),
        (BOX, spaces.Box(-1, 1, (3,)), "actions Discrete"),
    ],
)
def test_spaces_that_differ_are_refused_with_both(trained, observed, acted, said):
    with pytest.raises(SpacesDifferError, match=said) as caught:
        check_spaces(trained("PPO").ref(), observed, acted)
    assert "\n" not in str(caught.value)


def test_spaces_may_differ_in_float_size_and_bounds(trained):
    check_spaces(trained("PPO").ref(), spaces.Box(-9, 9, (3,), np.float64), spaces.Discrete(3))


def test_images_agree_with_their_channels_first_or_last(trained):
    ref = trained("PPO-image").ref()
    check_spaces(ref, spaces.Box(0, 255, (36, 40, 3), np.uint8), spaces.Discrete(3))
    check_spaces(ref, spaces.Box(0, 255, (3, 36, 40), np.uint8), spaces.Discrete(3))
    with pytest.raises(SpacesDifferError):
        check_spaces(ref, spaces.Box(0, 255, (36, 40, 1), np.uint8), spaces.Discrete(3))


def test_frame_stack_counts(trained):
    ref = trained("PPO-image").ref(overrides=AgentSettings(frame_stack=3))
    check_spaces(ref, spaces.Box(0, 255, (36, 40, 1), np.uint8), spaces.Discrete(3))


def test_dict_spaces_name_the_entry_that_differs(trained):
    ref = trained("SAC-her").ref()
    held = {"achieved_goal": BOX, "desired_goal": BOX}
    actions = spaces.Box(np.array([-2, 0], np.float32), np.array([1, 5], np.float32))
    with pytest.raises(SpacesDifferError, match="'observation'"):
        check_spaces(ref, spaces.Dict(held), actions)
    with pytest.raises(SpacesDifferError, match=r"observation: Box\(\(4,\)"):
        check_spaces(ref, spaces.Dict({**held, "observation": BOX}), actions)


def test_old_mujoco_agents_are_pointed_to_version_4(trained):
    ref = dataclasses.replace(trained("PPO").ref(), url="/agents/Walker2d-v3.zip")
    assert "belong on Walker2d-v4" in (successor_hint(ref, "Walker2d-v5") or "")
    assert successor_hint(ref, "Walker2d-v4") is None
    assert successor_hint(ref, "CartPole-v1") is None
    with pytest.raises(SpacesDifferError, match="Walker2d-v4"):
        check_spaces(ref, spaces.Box(-1, 1, (9,)), spaces.Discrete(3), environment_id="Walker2d-v5")


@pytest.mark.parametrize("text", ["env_kwargs: '{[]: 2}'", "normalize: '{{}: 2}'", "env_wrapper: [{a: '{[]: 1}'}]"])
def test_literals_that_are_no_values_are_one_line(text):
    with pytest.raises(CheckpointNotUsableError, match=r"config\.yml.*is no plain value"):
        agent_settings(config(text), None, None)


def test_a_wrapper_of_spaces_is_none():
    assert agent_settings(config("env_wrapper: ' '"), None, None)[0].wrappers == ()
