"""The export to LeRobot's format v3, read by LeRobot 0.4.4 in a virtual environment of its own.

Its pins of torch don't go with ours, so the packages that it reads with are installed without their dependencies,
beside ours. torchvision's operators and video reader don't load there: the operators are declared, and PyAV decodes the
frame at the time that LeRobot asks for, within LeRobot's tolerance.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core.dataset.video import read_frames
from tests.support.exporting import DataSet

PACKAGES = (
    *("lerobot==0.4.4", "av>=15,<16", "draccus==0.10.0", "datasets>=4,<5", "huggingface_hub>=0.34.2,<0.36"),
    *("torchvision==0.28.0", "accelerate<2", "deepdiff", "einops", "jsonlines", "mergedeep", "mypy_extensions"),
    *("orderly-set", "pyyaml-include", "safetensors", "termcolor", "toml", "typing-inspect"),
)
READER = """
import sys

import av
import numpy as np
import torch

operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets import lerobot_dataset

def decode(path, times, tolerance, backend=None):
    with av.open(str(path)) as video:
        frames = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]
    nearest = [min(frames, key=lambda frame: abs(frame[0] - time)) for time in times]
    assert all(abs(frame[0] - time) < tolerance for frame, time in zip(nearest, times))
    return torch.from_numpy(np.stack([frame[1] for frame in nearest]))

lerobot_dataset.decode_video_frames = decode
steps = lerobot_dataset.LeRobotDataset("local/export", root=sys.argv[1], video_backend="pyav")
rows = [steps[number] for number in range(len(steps))]
names = ("observation.state", "action", "next.reward", "episode_index", "observation.images.render")
np.savez(sys.argv[2], task=rows[0]["task"], **{name: np.stack([row[name].numpy() for row in rows]) for name in names})
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has LeRobot."""
    folder = tmp_path_factory.mktemp("lerobot") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES], check=False)
    if done.returncode:
        pytest.skip("LeRobot can't be installed here")
    (site,) = folder.glob("lib/*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_lerobot_reads_every_step_and_its_frame(data: DataSet, out: Path, tmp_path: Path, python: Path) -> None:
    data.generate(env="CartPole-v1", exp="E", random=True, num_episodes=3, max_steps_per_episode=15)
    (report,) = data.export(out, to="lerobot")
    script = tmp_path / "read.py"
    script.write_text(READER)
    subprocess.run([python, script, out / report.place, tmp_path / "read.npz"], check=True)
    with np.load(tmp_path / "read.npz") as found:
        own = [data.arrays("E", "random", number) for number in range(3)]
        lengths = [len(arrays["rewards"]) for arrays in own]
        assert found["episode_index"].tolist() == np.repeat(range(3), lengths).tolist()
        for ours, theirs in (("obs", "observation.state"), ("actions", "action"), ("rewards", "next.reward")):
            np.testing.assert_array_equal(found[theirs], np.concatenate([arrays[ours] for arrays in own]))
        height, width = found["observation.images.render"].shape[1:3]
        videos = [Path(data.root.full_path(f"renders/E/random/{number}.mp4")) for number in range(3)]
        frames = np.stack([frame for video in videos for frame in read_frames(video, height, width)])
        differences = np.abs(found["observation.images.render"].astype(int) - frames.astype(int))
        assert differences.mean() < 1, "two decoders turn colours into RGB with other roundings"
        assert found["task"] == "CartPole-v1"
