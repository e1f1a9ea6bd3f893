"""What a plan tells besides: flags that mean nothing to an agent, and a 0 that isn't the checkpoint of step 0."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.planning.plan import GenerationPlan, plan_generation
from rlhfblender_core.planning.request import request_from_flags


def planned(models: Path, cache: Path, **flags: object) -> GenerationPlan:
    request = request_from_flags({"env": "CartPole-v1", "model_path": str(models), "no_render": True, **flags})
    return plan_generation(request, None, cache)


def test_a_mask_method_means_nothing_to_a_model_without_masks(trained_cartpole: Path, tmp_path: Path) -> None:
    plain = planned(trained_cartpole, tmp_path)
    named = planned(trained_cartpole, tmp_path, action_mask_method="valid_action_mask")
    assert [one.digest for one in named.settings] == [one.digest for one in plain.settings]
    assert plain.notes == ()
    assert named.notes == ("--action-mask-method means nothing to PPO, which chooses without a mask.",)


@pytest.mark.parametrize(("wanted", "labels"), [([0], ["random"]), ([":0"], ["0"]), (["0:9"], ["random", "0"])])
def test_the_checkpoint_of_step_0_is_told_from_the_random_baseline(
    wanted: list[int | str], labels: list[str], trained_cartpole: Path, tmp_path: Path
) -> None:
    for step in (0, 128):
        shutil.copy(trained_cartpole / "rl_model_128_steps.zip", tmp_path / f"rl_model_{step}_steps.zip")
    plan = planned(tmp_path, tmp_path / "cache", checkpoints=[*wanted, 128])
    assert [settings.label for settings in plan.settings] == [*labels, "128"]
    assert any("':0'" in note for note in plan.notes) == (0 in wanted or "0:9" in wanted)


MASKED = "tests.support.environments_for_tests.masked"


@pytest.mark.parametrize(
    ("name", "flags", "is_told"),
    [
        ("Choosing", {}, True),
        ("Choosing", {"action_mask_method": "valid_action_mask"}, False),
        ("Choosing", {"action_mask_method": "none"}, False),
        ("Masking", {}, False),
        ("Picturing", {}, False),
    ],
)
def test_random_agent_is_told_of_a_mask_that_it_is_not_given(
    name: str, flags: dict[str, Any], is_told: bool, tmp_path: Path
) -> None:
    asked = {"env": f"{name}-v0", "env_gym_entrypoint": f"{MASKED}:{name}", "random": True, "no_render": True}
    plan = plan_generation(request_from_flags({**asked, **flags}), None, tmp_path)
    assert any("give --action-mask-method valid_action_mask" in note for note in plan.notes) == is_told
    assert len(plan.notes) == is_told


def test_one_file_of_statistics_for_several_checkpoints_is_told(tmp_path: Path) -> None:
    import gymnasium as gym
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    folder = tmp_path / "ppo"
    folder.mkdir()
    for name in ("rl_model_16_steps", "rl_model_32_steps", "CartPole-v1"):
        model.save(folder / name)
    env.save(str(folder / "vecnormalize.pkl"))

    def notes(*checkpoints: int | str) -> tuple[str, ...]:
        return planned(folder, tmp_path / "cache", checkpoints=list(checkpoints)).notes

    (note,) = notes(16, 32, "final")
    assert note.startswith(
        "observations of 16 to 32 are normalised by 'vecnormalize.pkl', which other checkpoints share"
    )
    assert notes("final") == ()
    for step in (16, 32):
        shutil.copy(folder / "vecnormalize.pkl", folder / f"rl_model_vecnormalize_{step}_steps.pkl")
    assert notes(16, 32, "final") == ()
