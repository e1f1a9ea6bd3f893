import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core.dataset.episode_checks import find_fault
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.dataset.video import frame_times, read_frames
from rlhfblender_core.import_data.pictures import probe_video
from tests.core.import_data.conftest import ImportAll
from tests.support.making_sources import (
    HEIGHT,
    WIDTH,
    encode_otherwise,
    episode_arrays,
    make_database,
    make_documented,
    make_server,
)

Snapshot = Callable[[Path], dict[str, str]]


def manifest_of(target: Path, checkpoint: str = "5000", number: int = 0) -> Manifest:
    path = target / "manifests" / "Mine" / checkpoint / f"{number}.json"
    return parse_manifest(path.read_bytes(), str(path))


def check_sound(target: Path, manifest: Manifest) -> None:
    for kind, record in manifest.artifacts.items():
        assert find_fault(kind, target / record.path, manifest) is None


@pytest.mark.parametrize("make", [make_documented, make_server])
def test_both_layouts_become_this_data_set(
    make: Callable[[Path], Path], source: Path, target: Path, import_all: ImportAll
) -> None:
    make(source)
    (batch,) = import_all()
    assert (batch.key, batch.made, batch.faults, batch.notes) == (CheckpointKey("Mine", "5000"), (0, 1), (), ())
    for number in (0, 1):
        manifest, theirs = manifest_of(target, number=number), episode_arrays(seed=number)
        assert set(manifest.artifacts) == set(ArtifactKind)
        check_sound(target, manifest)
        assert (manifest.step, manifest.seed, manifest.run_seed, manifest.policy.kind) == (5000, None, None, "imported")
        assert (manifest.frames, manifest.episode_length, manifest.fps) == (6, 6, 25.0)
        assert (manifest.terminated, manifest.truncated) == (False, True)
        assert manifest.episode_return == np.cumsum(theirs["rewards"])[-1]
        with np.load(target / "episodes" / "Mine" / "5000" / f"{number}.npz", allow_pickle=False) as arrays:
            for name in ("obs", "actions", "rewards", "dones"):
                np.testing.assert_array_equal(arrays[name], theirs[name])
            assert arrays["probs"].shape == (6, 2)
            assert arrays["truncated"].tolist() == [False] * 5 + [True]
            assert json.loads(arrays["infos"][1]) == {"value": 1.0, "TimeLimit.truncated": False, "name": "x"}
            assert {"seed", "features", "episode_rewards"}.isdisjoint(arrays.files)


def test_source_is_not_changed_and_a_second_import_writes_nothing(
    source: Path, target: Path, import_all: ImportAll, snapshot: Snapshot
) -> None:
    make_server(source)
    make_database(source)
    database = (source / "rlhfblender.db").read_bytes()
    before = snapshot(source)
    import_all()
    first = snapshot(target)
    (batch,) = import_all()
    assert (batch.made, batch.existing) == ((), (0, 1))
    assert snapshot(target) == first
    assert snapshot(source) == before
    assert (source / "rlhfblender.db").read_bytes() == database
    shutil.rmtree(target)
    import_all()
    assert snapshot(target) == first


def test_import_in_place_converts_and_is_done_once(source: Path, import_all: ImportAll, snapshot: Snapshot) -> None:
    make_documented(source, experiment="Mine")
    (batch,) = import_all(data_root=source)
    assert batch.made == (0, 1)
    check_sound(source, manifest_of(source))
    before = snapshot(source)
    (again,) = import_all(data_root=source)
    assert (again.made, again.existing, again.faults) == ((), (0, 1), ())
    assert snapshot(source) == before


def test_what_is_missing_is_made_or_left_out_and_said(source: Path, target: Path, import_all: ImportAll) -> None:
    make_documented(source, episodes=3)
    for name in ("rewards/Theirs/5000/0.npy", "uncertainty/Theirs/5000/0.npy", "thumbnails/Theirs/5000/1.png"):
        (source / name).unlink()
    (source / "renders/Theirs/5000/2.mp4").unlink()
    (batch,) = import_all()
    assert batch.made == (0, 1, 2)
    assert [note.partition(": ")[::2] for note in batch.notes] == [
        ("rewards/Theirs/5000/0.npy", "is missing; made from the episode's rewards"),
        ("uncertainty/Theirs/5000/0.npy", "is missing; uncertainty is NaN"),
        ("thumbnails/Theirs/5000/1.png", "is missing; made from the video"),
        ("renders/Theirs/5000/2.mp4", "is missing; the episode has no video"),
    ]
    manifests = [manifest_of(target, number=number) for number in range(3)]
    for manifest in manifests:
        check_sound(target, manifest)
    assert [manifest.uncertainty_kind for manifest in manifests] == ["none", "imported", "imported"]
    assert ArtifactKind.RENDERS not in manifests[2].artifacts


@pytest.mark.parametrize(
    "options",
    [
        ("-c:v", "mpeg4"),
        ("-c:v", "libx264", "-pix_fmt", "yuv444p"),
        ("-vf", "setpts=N*N/(25*TB)", "-fps_mode", "passthrough"),  # unevenly spaced
        ("-vf", "setpts=(N+9)/(25*TB)", "-fps_mode", "passthrough"),  # late
    ],
)
def test_videos_of_other_codecs_and_rhythms_are_encoded_anew(
    options: tuple[str, ...], source: Path, target: Path, import_all: ImportAll
) -> None:
    make_documented(source, episodes=1)
    encode_otherwise(source / "renders/Theirs/5000/0.mp4", *options)
    import_all()
    video = target / "renders/Mine/5000/0.mp4"
    assert probe_video(video, "it").is_plain
    assert video.read_bytes() != (source / "renders/Theirs/5000/0.mp4").read_bytes()
    times = frame_times(video)
    assert (len(times), times[0], len({after - before for before, after in pairwise(times)})) == (6, 0, 1)
    widths = [int((frame[4, :, 0] > 115).sum()) for frame in read_frames(video, HEIGHT, WIDTH)]
    assert widths == pytest.approx([1, 2, 3, 4, 5, 6], abs=1), "each frame once, in order"


def test_plain_videos_are_taken_as_they_are(source: Path, target: Path, import_all: ImportAll) -> None:
    make_documented(source, episodes=1)
    import_all()
    theirs = source / "renders/Theirs/5000/0.mp4"
    assert (target / "renders/Mine/5000/0.mp4").read_bytes() == theirs.read_bytes()


def test_another_episode_of_that_number_is_kept_unless_overwritten(
    source: Path, target: Path, import_all: ImportAll
) -> None:
    make_documented(source, episodes=1)
    import_all()
    before = manifest_of(target)
    np.save(source / "uncertainty/Theirs/5000/0.npy", np.ones(6))
    (batch,) = import_all()
    assert batch.faults[0].endswith("is there already, made otherwise. Use another --exp, or --overwrite.")
    assert manifest_of(target) == before
    (batch,) = import_all(overwrite=True)
    assert batch.made == (0,)
    check_sound(target, manifest_of(target))


def test_object_observations_become_columns(source: Path, target: Path, import_all: ImportAll) -> None:
    make_documented(source, episodes=1)
    observations = np.empty(6, object)
    for step in range(6):
        observations[step] = {"image": np.full((2, 2), step, np.uint8), "inner": {"speed": float(step)}}
    np.savez(source / "episodes/Theirs/5000/0.npz", allow_pickle=True, **{**episode_arrays(), "obs": observations})
    (batch,) = import_all()
    assert batch.made == (0,)
    with np.load(target / "episodes/Mine/5000/0.npz") as arrays:
        assert arrays["obs.image"].shape == (6, 2, 2)
        assert arrays["obs.inner.speed"].tolist() == [0, 1, 2, 3, 4, 5]
    assert batch.notes == ()


def test_last_observation_is_taken_out_of_the_last_info(source: Path, target: Path, import_all: ImportAll) -> None:
    make_documented(source, episodes=1)
    arrays = episode_arrays()
    arrays["infos"][-1] = {"terminal_observation": np.array([1.0, 2.0, 3.0])}
    np.savez(source / "episodes/Theirs/5000/0.npz", allow_pickle=True, **arrays)
    import_all()
    with np.load(target / "episodes/Mine/5000/0.npz") as converted:
        assert converted["final_obs"].tolist() == [1.0, 2.0, 3.0]
        assert converted["infos"][-1] == "{}"
    assert manifest_of(target).terminated
