"""Agents choose among the actions that the environment allows, whatever its method is called, or are refused."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TransformAction

from rlhfblender_core.checkpoints import fetch_checkpoint, find_checkpoints
from rlhfblender_core.dataset.episode_writer import staged_path
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.errors import EnvironmentNotUsableError, InvalidParameterError
from rlhfblender_core.planning.plan import plan_generation
from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.rollout.agents import CheckpointAgent, RandomAgent, RolloutAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, check_agent, close_session, roll_out_shard
from tests.support.environments_for_tests.masked import ACTIONS, Choosing, Masking

NAMED = "valid_action_mask"
SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    yield
    close_session()


@pytest.fixture(scope="session")
def masked_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A MaskablePPO model for one of the kinds of actions."""
    made: dict[str, Path] = {}

    def train(actions: str) -> Path:
        from sb3_contrib import MaskablePPO
        from sb3_contrib.common.wrappers import ActionMasker

        if actions not in made:
            path = tmp_path_factory.mktemp("masked") / "model.zip"
            env: Any = Choosing(actions)
            if actions == "shifted":  # Stable-Baselines3 counts actions from 0
                env = TransformAction(env, lambda action: action - 2, spaces.Discrete(5))
            masker = ActionMasker(env, lambda env: env.get_wrapper_attr(NAMED)())
            MaskablePPO("MlpPolicy", masker, **SMALL).learn(16).save(path)
            made[actions] = path
        return made[actions]

    return train


def settings_of(env: str, agent: RolloutAgent, *, actions: str = "discrete", **options: Any) -> RolloutSettings:
    spec = EnvironmentSpec(
        f"{env}-v0", f"tests.support.environments_for_tests.masked:{env}", kwargs={"actions": actions}
    )
    return RolloutSettings(spec, agent, RolloutOptions(render=False, fps=30.0, **options))


def trained(path: Path, folder: Path) -> CheckpointAgent:
    file = find_checkpoints(str(path), "Choosing-v0")[0]
    return CheckpointAgent(file, fetch_checkpoint(file, folder))


def rolled_out(settings: RolloutSettings, folder: Path) -> tuple[Manifest, dict[str, Any]]:
    shard = roll_out_shard(Shard(CheckpointKey("e", "c"), settings, (0,)), folder)
    assert shard.failures == {}
    with np.load(staged_path(shard.episodes[0].folder, ArtifactKind.EPISODES), allow_pickle=False) as arrays:
        return shard.episodes[0].manifest, dict(arrays)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize(("env", "method"), [("Masking", None), ("Choosing", NAMED)])
def test_a_random_agent_draws_allowed_actions_only_with_their_probabilities(
    env: str, method: str | None, actions: str, tmp_path: Path
) -> None:
    settings = settings_of(env, RandomAgent(), actions=actions, action_mask_method=method)
    _, arrays = rolled_out(settings, tmp_path)
    assert arrays["rewards"].tolist() == [1.0] * 12
    two_of_each = {"discrete": 2, "shifted": 2, "multi_discrete": None, "multi_binary": 1}[actions]
    space, probs = ACTIONS[actions], arrays["probs"]
    assert all(space.contains(action) for action in arrays["actions"].astype(space.dtype))
    if actions == "multi_binary":
        assert np.array_equal(probs, arrays["actions"])  # one value of each bit is allowed
    elif two_of_each:
        assert set(probs.ravel().tolist()) == {0.0, 0.5}
        start = getattr(space, "start", 0)
        assert all(row[action - start] == 0.5 for row, action in zip(probs, arrays["actions"], strict=True))
        np.testing.assert_allclose(arrays["entropy"], math.log(2), rtol=1e-6)
    else:
        np.testing.assert_allclose(probs[:, :3].sum(1), 1)
        np.testing.assert_allclose(probs[:, 3:].sum(1), 1)
    np.testing.assert_allclose(arrays["log_probs"], -arrays["entropy"], rtol=1e-6)


def test_masked_random_actions_are_those_of_gymnasiums_own_sampling(tmp_path: Path) -> None:
    from rlhfblender_core.policies.masked_random import MaskedRandomPolicy

    env = Masking()
    policy = MaskedRandomPolicy(env.action_space, env.action_masks)
    policy.reset(4)
    first = [int(policy.act(None).action) for _ in range(50)]
    policy.reset(4)
    assert [int(policy.act(None).action) for _ in range(50)] == first
    assert set(first) == set(np.flatnonzero(env.action_masks()))


@pytest.mark.parametrize("actions", ACTIONS)
def test_a_maskable_model_takes_allowed_actions_only(
    actions: str, masked_model: Callable[[str], Path], tmp_path: Path
) -> None:
    agent = trained(masked_model(actions), tmp_path)
    manifest, arrays = rolled_out(settings_of("Choosing", agent, actions=actions, action_mask_method=NAMED), tmp_path)
    assert arrays["rewards"].tolist() == [1.0] * 12
    assert manifest.policy.action_mask_method == NAMED


def test_a_maskable_model_is_refused_where_nothing_says_which_actions_are_allowed(
    masked_model: Callable[[str], Path], tmp_path: Path
) -> None:
    agent = trained(masked_model("discrete"), tmp_path)
    with pytest.raises(EnvironmentNotUsableError, match="--action-mask-method valid_action_mask") as caught:
        check_agent(settings_of("Choosing", agent))
    assert "\n" not in str(caught.value)
    check_agent(settings_of("Choosing", agent, action_mask_method="none"))  # trained without masks, says the user


@pytest.mark.parametrize("method", ["no_such_method", "counts"])
def test_a_method_that_isnt_there_is_refused_with_those_that_are(method: str) -> None:
    with pytest.raises(EnvironmentNotUsableError, match=rf"no method {method}\(\).*--action-mask-method {NAMED}"):
        check_agent(settings_of("Choosing", RandomAgent(), action_mask_method=method))


@pytest.mark.parametrize("method", ["", "a b", "__class__", "os.system", "-1"])
def test_what_is_no_name_of_a_method_is_refused(method: str) -> None:
    with pytest.raises(InvalidParameterError, match="--action-mask-method"):
        RolloutOptions(action_mask_method=method)


def test_a_mask_that_allows_nothing_ends_the_episode_with_a_line(tmp_path: Path) -> None:
    shard = roll_out_shard(Shard(CheckpointKey("e", "random"), settings_of("Stuck", RandomAgent()), (0,)), tmp_path)
    assert "step 3" in shard.failures[0]
    assert "no action" in shard.failures[0]


def test_a_mask_that_allows_nothing_is_no_mask_to_a_maskable_model_either(
    masked_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """With all actions forbidden, sb3-contrib gives the first one."""
    settings = settings_of("Stuck", trained(masked_model("discrete"), tmp_path))
    shard = roll_out_shard(Shard(CheckpointKey("e", "c"), settings, (0,)), tmp_path)
    assert "step 3" in shard.failures[0]
    assert "no action" in shard.failures[0]


def test_a_mask_may_come_in_one_part_for_each_choice(masked_model: Callable[[str], Path], tmp_path: Path) -> None:
    for agent in (RandomAgent(), trained(masked_model("multi_discrete"), tmp_path)):
        folder = tmp_path / agent.label
        folder.mkdir()
        _, arrays = rolled_out(settings_of("MaskingEach", agent, actions="multi_discrete"), folder)
        assert arrays["rewards"].tolist() == [1.0] * 12


@pytest.mark.parametrize(
    ("env", "part"),
    [
        ("AskingForTheState", "missing a required argument: 'state'"),
        ("MaskingTooFew", "4 flags, the actions take 5"),
        ("FailingToMask", "no attribute 'board'"),
    ],
)
def test_masks_that_can_never_be_had_are_told_before_anything_is_registered(
    env: str, part: str, tmp_path: Path
) -> None:
    entry_point = f"tests.support.environments_for_tests.masked:{env}"
    flags = {"env_gym_entrypoint": entry_point, "random": True, "action_mask_method": "action_masks"}
    with pytest.raises(EnvironmentNotUsableError, match=part) as caught:
        plan_generation(request_from_flags({"env": f"{env}-v0", "no_render": True, **flags}), None, tmp_path)
    assert "\n" not in str(caught.value)


def test_only_a_named_method_is_part_of_digest_registry_and_manifest(tmp_path: Path) -> None:
    plain, named = (settings_of("Masking", RandomAgent(), action_mask_method=method) for method in (None, NAMED))
    assert plain.digest != named.digest
    assert "action_mask_method" not in plain.identity() | plain.options.to_json()
    manifest, _ = rolled_out(plain, tmp_path)
    assert b"action_mask" not in manifest.content
    manifest, _ = rolled_out(named, tmp_path)
    assert parse_manifest(manifest.content, "m").policy.action_mask_method == NAMED
