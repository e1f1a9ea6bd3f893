"""Published episodes with made-up curves, for pages with more of them than one would want to roll out."""

import hashlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.dataset.manifests import ArtifactRecord, EnvironmentRecordInManifest, Manifest, PolicyRecord
from rlhfblender_core.dataset.npz import WholeArray, write_npz
from rlhfblender_core.dataset.video import VideoWriter
from rlhfblender_core.storage import DataRoot, open_data_root

WIDTH, HEIGHT, FPS = 240, 160, 30.0
ACTIONS = ("left", "idle", "right")


@dataclass(frozen=True)
class Synthetic:
    """A checkpoint's worth of episodes.

    Attributes:
        videos: how many of the first episodes have a video and a thumbnail.
        mean_length: of the episodes, in steps.
        own_arrays: gives other arrays than the usual ones, for a number of steps.
    """

    root: Path
    experiment: str = "Synthetic"
    checkpoint: str = "100000"
    episodes: int = 6
    videos: int = 2
    mean_length: int = 60
    level: float = 1.0
    environment: str = "Made/Up-v0"
    actions: tuple[str, ...] | None = ACTIONS
    algorithm: str = "PPO"
    warning: str = "the video never changes"
    own_arrays: Callable[[int], dict[str, np.ndarray]] | None = None

    def publish(self) -> DataRoot:
        root = open_data_root(str(self.root))
        contents: dict[str, bytes] = {}
        for number in range(self.episodes):
            contents |= self._episode(number)
        for path, content in contents.items():  # not flushed to the disk one by one: thousands would take minutes
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(content)
        return root

    def length(self, number: int) -> int:
        return self.mean_length if number < self.videos else self.mean_length // 2 + (number * 7919) % self.mean_length

    def _episode(self, number: int) -> dict[str, bytes]:
        length = self.length(number)
        random = np.random.default_rng([number, *self.checkpoint.encode()])
        rewards = self.level * (0.4 + random.random()) * (1 + 0.5 * np.sin(np.arange(length) / 9)) + random.normal(
            0, 0.1, length
        )
        uncertainty = np.abs(np.cumsum(random.normal(0, 0.1, length))).astype(np.float32)
        files = {
            ArtifactKind.EPISODES: _npz(self.own_arrays(length) if self.own_arrays else _arrays(rewards, random)),
            ArtifactKind.REWARDS: _npy(np.cumsum(rewards)),
            ArtifactKind.UNCERTAINTY: _npy(uncertainty),
        }
        if number < self.videos:
            files |= _pictures(self.root, length)
        key = EpisodeKey(self.experiment, self.checkpoint, number)
        manifest = self._manifest(key, length, float(rewards.sum()), files)
        contents = {artifact_path(kind, key): content for kind, content in files.items()}
        return contents | {manifest_path(key): manifest.content}

    def _manifest(self, key: EpisodeKey, length: int, total: float, files: dict[ArtifactKind, bytes]) -> Manifest:
        records = {
            kind: ArtifactRecord(
                path=artifact_path(kind, key), size=len(content), sha256=hashlib.sha256(content).hexdigest()
            )
            for kind, content in files.items()
        }
        has_video = ArtifactKind.RENDERS in files
        return Manifest(
            experiment=key.experiment,
            checkpoint=key.checkpoint,
            step=int(key.checkpoint) if key.checkpoint.isdigit() else None,
            episode=key.episode,
            environment=EnvironmentRecordInManifest(id=self.environment),
            policy=PolicyRecord(kind="random")
            if key.checkpoint == "random"
            else PolicyRecord(kind="checkpoint", algorithm=self.algorithm),
            request_digest="0" * 64,
            run_seed=0,
            seed=key.episode,
            max_steps=None,
            episode_return=total,
            episode_length=length,
            terminated=key.episode % 3 != 0,
            truncated=key.episode % 3 == 0,
            frames=length if has_video else 0,
            fps=FPS if has_video else None,
            frame_height=HEIGHT if has_video else None,
            frame_width=WIDTH if has_video else None,
            uncertainty_kind="entropy",
            action_names=self.actions,
            versions={},
            warnings=(self.warning,) if key.episode == 4 else (),
            artifacts=records,
        )


def _arrays(rewards: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """What an agent with three actions and four-dimensional observations leaves behind."""
    steps = np.arange(len(rewards))
    logits = np.stack([np.sin(steps / 9), 0.3 * np.cos(steps / 5), -np.sin(steps / 9)], axis=1) * 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return {
        "obs": np.stack([np.sin(steps / (3 + 4 * i)) + random.normal(0, 0.02) for i in range(4)], axis=1).astype("<f4"),
        "final_obs": np.zeros(4, "<f4"),
        "actions": probs.argmax(axis=1),
        "rewards": rewards,
        "probs": probs.astype("<f4"),
        "entropy": -(probs * np.log(probs)).sum(axis=1).astype("<f4"),
        "values": np.cumsum(rewards[::-1])[::-1].astype("<f4"),
    }


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_npz(Path(folder) / "0.npz", {name: WholeArray(array) for name, array in arrays.items()})
        return (Path(folder) / "0.npz").read_bytes()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


_pictures_by_length: dict[int, dict[ArtifactKind, bytes]] = {}


def _pictures(folder: Path, length: int) -> dict[ArtifactKind, bytes]:
    """A video in which a disc goes from left to right, a bar below it shows the step, and its middle frame."""
    if length not in _pictures_by_length:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ".synthetic.mp4"
        video = VideoWriter(path, HEIGHT, WIDTH, FPS)
        thumbnail = io.BytesIO()
        for step in range(length):
            frame = _frame(step / max(1, length - 1))
            video.write(np.asarray(frame))
            if step == length // 2:
                frame.save(thumbnail, format="PNG")
        video.close()
        _pictures_by_length[length] = {
            ArtifactKind.RENDERS: path.read_bytes(),
            ArtifactKind.THUMBNAILS: thumbnail.getvalue(),
        }
        path.unlink()
    return _pictures_by_length[length]


def _frame(share: float) -> Image.Image:
    frame = Image.new("RGB", (WIDTH, HEIGHT), (238, 240, 242))
    draw = ImageDraw.Draw(frame)
    x = 24 + share * (WIDTH - 48)
    draw.line((0, 120, WIDTH, 120), fill=(120, 126, 130), width=2)
    draw.ellipse((x - 16, 88, x + 16, 120), fill=(40, 90, 160))
    draw.rectangle((0, HEIGHT - 6, share * WIDTH, HEIGHT), fill=(200, 90, 60))
    return frame
