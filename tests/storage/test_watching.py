"""Looking into a model folder on S3."""

from pathlib import Path

import s3fs

from rlhfblender_core.planning.unfilled_checkpoints import find_waiting
from rlhfblender_core.registry import ExperimentRecord
from rlhfblender_core.storage import DataRoot


def test_checkpoints_on_s3_wait_until_they_have_settled(
    s3_root: DataRoot, s3_endpoint: str, trained_cartpole: Path
) -> None:
    options = {"endpoint_url": s3_endpoint}
    models = f"{s3_root.url}-models"
    experiment = ExperimentRecord(
        name="study", env_id="CartPole-v1", kind="trained", project="P", model_path=models, settings={}
    )
    store = s3fs.S3FileSystem(**options, use_listings_cache=False, skip_instance_cache=True)
    found = []
    for steps, settle in ((128, 600), (128, 0), (256, 0)):
        store.put(str(trained_cartpole / f"rl_model_{steps}_steps.zip"), f"{models}/rl_model_{steps}_steps.zip")
        found.append(find_waiting(experiment, 2, s3_root, settle_seconds=settle, options=options))
    assert [(look.ready, look.unsettled) for look in found] == [((), ("128",)), (("128",), ()), (("128", "256"), ())]
