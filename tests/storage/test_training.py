"""Training into object storage: the folder and the episodes are there, and a later run goes on from them."""

from typing import Any

import pytest

from rlhfblender_core import train
from rlhfblender_core.storage import DataRoot, list_sizes

pytestmark = pytest.mark.xdist_group("object-storage")  # one worker, so that each server starts once


@pytest.mark.soak
def test_a_training_on_s3_goes_on_from_its_last_checkpoint(s3_root: DataRoot, s3_endpoint: str, tmp_path: Any) -> None:
    flags: dict[str, Any] = {
        "env": "Pendulum-v1",
        "exp": "study",
        "algorithm": "sac",
        "checkpoint_every": 60,
        "num_episodes": 1,
        "no_render": True,
        "max_steps_per_episode": 5,
        "keep_replay_buffer": True,
        "hyperparameters": {"learning_starts": 20, "buffer_size": 500, "batch_size": 16, "normalize": True},
        "workers": 1,
        "data_root": s3_root.url,
        "database_url": f"sqlite:///{tmp_path / 'rlhfblender.db'}",
        "storage_options": {"endpoint_url": s3_endpoint},
    }
    assert train(**flags, total_timesteps=60).steps == (60,)
    trained = train(**flags, total_timesteps=120)
    assert trained.steps == (60, 120)
    assert {row.checkpoint: row.made for row in trained.report.checkpoints} == {"random": 0, "60": 0, "120": 1}
    assert set(list_sizes(s3_root, "models/study")) == {
        "training.json",
        *(f"rl_model_{step}_steps.zip" for step in (60, 120)),
        *(f"rl_model_vecnormalize_{step}_steps.pkl" for step in (60, 120)),
        "rl_model_replay_buffer_120_steps.npz",
    }
