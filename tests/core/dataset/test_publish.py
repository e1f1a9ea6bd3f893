"""Publishing, and reading what is published: an episode exists if and only if its manifest does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.existing import find_existing
from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.publish import episode_record, publish_shard
from rlhfblender_core.dataset.published import Published, read_published
from rlhfblender_core.errors import DataNotUsableError, RegistryConflictError, StorageNotUsableError
from rlhfblender_core.planning.same_request import check_same_request
from rlhfblender_core.rollout.shards import Shard, roll_out_shard
from rlhfblender_core.storage import DataRoot, open_data_root

ShardMaker = Callable[..., Shard]


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path / "data"))


def publish(shard: Shard, staging: Path, root: DataRoot) -> Published:
    publish_shard(root, roll_out_shard(shard, staging))
    return read_published(root, shard.key)


def test_what_is_published_is_complete_and_staging_is_empty(shard: ShardMaker, staging: Path, root: DataRoot) -> None:
    made = shard(episodes=(0, 1, 2))
    published = publish(made, staging, root)
    assert [published.is_complete(n) for n in range(4)] == [True, True, True, False]
    assert published.missing(range(5)) == (3, 4)
    assert published.leftovers() == ()
    assert [path for path in staging.rglob("*") if path.is_file()] == []
    assert len([path for path in root.local_folder.rglob("*") if path.is_file()]) == 3 * 6


@pytest.mark.parametrize("kind", list(ArtifactKind))
def test_an_episode_that_lost_a_file_is_missing(
    kind: ArtifactKind, shard: ShardMaker, staging: Path, root: DataRoot
) -> None:
    published = publish(shard(episodes=(0, 1)), staging, root)
    file = root.local_folder / published.manifests[1].artifacts[kind].path
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert read_published(root, published.key).missing(range(2)) == (1,)
    file.unlink()
    assert read_published(root, published.key).missing(range(2)) == (1,)


def test_without_its_manifest_an_episode_doesnt_exist(shard: ShardMaker, staging: Path, root: DataRoot) -> None:
    published = publish(shard(episodes=(0, 1)), staging, root)
    (root.local_folder / "manifests/exp/random/0.json").unlink()
    published = read_published(root, published.key)
    assert set(published.manifests) == {1}
    assert set(published.leftovers()) == {
        record.path.replace("/1.", "/0.") for record in published.manifests[1].artifacts.values()
    }


def test_publishing_that_breaks_off_leaves_no_manifest_and_can_be_done_again(
    shard: ShardMaker, staging: Path, root: DataRoot
) -> None:
    staged = roll_out_shard(shard(episodes=(0, 1)), staging)
    obstacle = root.local_folder / "thumbnails"  # the last kind: the others are moved by then
    obstacle.parent.mkdir()
    obstacle.write_text("in the way")
    with pytest.raises(StorageNotUsableError, match="thumbnails"):
        publish_shard(root, staged)
    assert read_published(root, staged.key).manifests == {}
    obstacle.unlink()
    publish_shard(root, staged)
    assert read_published(root, staged.key).missing(range(2)) == ()


def test_replacing_without_pictures_takes_the_old_pictures_away(
    shard: ShardMaker, staging: Path, root: DataRoot
) -> None:
    publish(shard(episodes=(0,)), staging, root)
    published = publish(shard(episodes=(0,), render=False), staging, root)
    assert published.missing([0]) == ()
    assert published.leftovers() == ()
    assert published.sizes[ArtifactKind.RENDERS] == {}


def test_another_runs_manifest_is_taken_back_before_a_file_of_its_is_touched(
    shard: ShardMaker, staging: Path, root: DataRoot
) -> None:
    staged = roll_out_shard(shard(episodes=(0, 1), seed=1), staging)
    (staging / "other").mkdir()
    before = publish(shard(episodes=(0, 1)), staging / "other", root)  # published while the shard was rolled out
    obstacle = root.local_folder / "thumbnails/exp/random/1.png"  # the last file of all
    obstacle.unlink()
    (obstacle / "in the way").mkdir(parents=True)
    with pytest.raises(StorageNotUsableError, match=r"not empty.*1\.png"):
        publish_shard(root, staged)
    assert read_published(root, before.key).manifests == {}


def test_a_manifest_that_stays_true_is_never_away(shard: ShardMaker, staging: Path, root: DataRoot) -> None:
    publish(shard(), staging, root)
    obstacle = root.local_folder / "thumbnails/exp/random/0.png"
    obstacle.unlink()
    (obstacle / "in the way").mkdir(parents=True)
    with pytest.raises(StorageNotUsableError):
        publish(shard(), staging, root)
    assert set(read_published(root, shard().key).manifests) == {0}


def test_a_broken_manifest_is_named(shard: ShardMaker, staging: Path, root: DataRoot) -> None:
    published = publish(shard(), staging, root)
    (root.local_folder / "manifests/exp/random/0.json").write_text("{")
    with pytest.raises(DataNotUsableError, match=r"manifests/exp/random/0\.json"):
        read_published(root, published.key)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 5}, "--seed 0"),
        ({"max_steps_per_episode": 3}, "--max-steps-per-episode None"),
        ({"fps": 10.0}, "fps 20.0"),
        ({"length": 6}, "other environment kwargs"),
        ({"env": "Reusing"}, "another environment"),
        ({"render": False}, "fps 20.0"),
    ],
)
def test_another_request_for_the_same_episodes_is_a_conflict_that_says_what_differs(
    change: dict[str, object], reason: str, shard: ShardMaker, staging: Path, root: DataRoot
) -> None:
    made = shard(episodes=(0, 1))
    publish(made, staging, root)
    existing = find_existing(root, None, made.key)
    check_same_request(root, existing, made.settings, range(10))
    with pytest.raises(RegistryConflictError, match=f"2 episodes .* with {reason}"):
        check_same_request(root, existing, shard(**change).settings, range(10))
    check_same_request(root, existing, shard(**change).settings, range(2, 10))


def test_the_registrys_row_says_what_the_manifest_says(shard: ShardMaker, staging: Path, root: DataRoot) -> None:
    manifest = publish(shard(), staging, root).manifests[0]
    row = episode_record(manifest)
    assert (row.number, row.seed, row.episode_length) == (0, manifest.seed, 5)
    assert (row.experiment, row.checkpoint, row.request_digest) == ("exp", "random", manifest.request_digest)
    assert row.episode_return == manifest.episode_return
