"""What a plan tells besides: flags that mean nothing to an agent, and a 0 that isn't the checkpoint of step 0."""

import shutil
from pathlib import Path

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
