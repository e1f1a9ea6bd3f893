import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.dataset.layout import (
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    action_label_path,
    artifact_folder,
    artifact_path,
    manifest_folder,
    manifest_path,
    parse_episode_path,
)
from rlhfblender_core.errors import InvalidNameError

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_ .-]{0,20}[A-Za-z0-9_]", fullmatch=True)
numbers = st.integers(0, 10**9 - 1)
keys = st.builds(EpisodeKey, names.filter(lambda name: "com" not in name.lower()), st.just("100000"), numbers)


def test_paths_are_those_that_rlhf_blender_reads() -> None:
    key = EpisodeKey("exp", "random", 3)
    assert {kind.value: artifact_path(kind, key) for kind in ArtifactKind} == {
        "episodes": "episodes/exp/random/3.npz",
        "rewards": "rewards/exp/random/3.npy",
        "uncertainty": "uncertainty/exp/random/3.npy",
        "renders": "renders/exp/random/3.mp4",
        "thumbnails": "thumbnails/exp/random/3.png",
    }
    assert manifest_path(key) == "manifests/exp/random/3.json"
    assert action_label_path("ALE/Pong-v5", "FIRE") == "action_labels/ALE-Pong-v5/FIRE.npy"


@given(st.sampled_from(ArtifactKind), keys)
def test_parsing_a_path_gives_back_what_it_was_made_from(kind: ArtifactKind, key: EpisodeKey) -> None:
    assert parse_episode_path(artifact_path(kind, key)) == (kind, key)
    assert parse_episode_path(manifest_path(key)) == (None, key)
    checkpoint = CheckpointKey(key.experiment, key.checkpoint)
    assert artifact_path(kind, key).startswith(artifact_folder(kind, checkpoint) + "/")
    assert manifest_path(key).startswith(manifest_folder(checkpoint) + "/")


@pytest.mark.parametrize(
    "path",
    [
        "episodes/exp/random/03.npz",
        "episodes/exp/random/-3.npz",
        "episodes/exp/random/1000000000.npz",
        "episodes/exp/random/٣.npz",
        "episodes/exp/random/.3.npz.77.part",
        "episodes/exp/random/3.npy",
        "episodes/exp/3.npz",
        "episodes/../random/3.npz",
        "episodes/.exp/random/3.npz",
        "episodes//random/3.npz",
        ".runs/exp/random/3.npz",
        "rlhfblender.db",
        "",
    ],
)
def test_other_paths_belong_to_no_episode(path: str) -> None:
    assert parse_episode_path(path) is None


@given(st.text(alphabet="episodrnz/.0123-", max_size=40))
def test_any_text_can_be_asked_about(path: str) -> None:
    parse_episode_path(path)


@pytest.mark.parametrize(
    ("experiment", "checkpoint"), [("../x", "random"), ("a/b", "random"), ("exp", ".."), ("", "1")]
)
def test_keys_that_leave_the_data_root_dont_exist(experiment: str, checkpoint: str) -> None:
    with pytest.raises(InvalidNameError):
        EpisodeKey(experiment, checkpoint, 0)
    with pytest.raises(InvalidNameError):
        CheckpointKey(experiment, checkpoint)


@pytest.mark.parametrize("number", [-1, 10**9])
def test_episodes_are_counted_from_zero_as_far_as_databases_count(number: int) -> None:
    with pytest.raises(ValueError, match="go from 0 to 999999999"):
        EpisodeKey("exp", "random", number)
