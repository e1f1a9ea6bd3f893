"""``watch.py --live``: what appears in a local folder has its episodes within seconds."""

import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core import generate
from tests.support import server_contract


def wait_for(is_so: Callable[[], bool], process: Any, seconds: float = 60) -> float:
    """How long it took."""
    start = time.monotonic()
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - start < seconds
        time.sleep(0.1)
    return time.monotonic() - start


@pytest.mark.soak
def test_a_checkpoint_that_appears_in_a_local_folder_is_filled_and_exported_within_seconds(
    command: Any, tmp_path: Path, trained_cartpole: Path
) -> None:
    models, data, out = tmp_path / "models", tmp_path / "data", tmp_path / "out"
    models.mkdir()
    shutil.copy(trained_cartpole / "rl_model_128_steps.zip", models)
    generate(
        env="CartPole-v1", exp="study", model_path=str(models), num_episodes=1, max_steps_per_episode=5, follow=True,
        data_root=str(data), workers=1,
    )  # fmt: skip
    live = replace(command, file="watch.py")
    with live.start("--live", "--export-to", out, "--data-root", data) as process:
        wait_for(lambda: len(list(out.rglob("*.mp4"))) == 1, process)  # it looks at once
        shutil.copy(trained_cartpole / "rl_model_256_steps.zip", models)
        seconds = wait_for((data / "manifests/study/256/0.json").exists, process)
        wait_for(lambda: len(list(out.rglob("*.mp4"))) == 2, process)
        time.sleep(1)  # the export's index comes last
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert seconds < 30
    assert process.returncode == 130, err
    assert "Traceback" not in err
    served = server_contract.check_folder(out)
    assert sorted(episode.checkpoint for episode in served) == [128, 256]
