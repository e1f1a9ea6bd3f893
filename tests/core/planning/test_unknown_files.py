"""A request that needs the places of unknown files is refused when it is planned; a killed run's own files are ours."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.planning.work import plan_work
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.claiming import claim_and_die, under_way
from tests.support.generating import generate, locations_of, request
from tests.support.verifying import database, problems

Snapshot = Callable[[Path], dict[str, str]]
KEY = CheckpointKey("E", "random")


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path / "data"))


def lay(root: DataRoot, number: int, *kinds: ArtifactKind) -> None:
    for kind in kinds or tuple(ArtifactKind):
        file = root.local_folder / artifact_path(kind, EpisodeKey(KEY.experiment, KEY.checkpoint, number))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"somebody's")


@pytest.mark.parametrize("kinds", [tuple(ArtifactKind), (ArtifactKind.THUMBNAILS,), (ArtifactKind.EPISODES,)])
@pytest.mark.parametrize("asked", [{}, {"overwrite": True}, {"no_render": True}])
def test_a_new_experiment_on_unknown_files_is_refused_and_nothing_is_registered(
    asked: dict[str, object], kinds: tuple[ArtifactKind, ...], root: DataRoot, snapshot: Snapshot
) -> None:
    lay(root, 1, *kinds)
    before = snapshot(root.local_folder)
    with pytest.raises(DataNotUsableError, match=r"import_data\.py --exp E --env Counting-v0`") as refusal:
        generate(root, database(root), request(3, **asked))
    assert artifact_path(kinds[0], EpisodeKey("E", "random", 1)) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert snapshot(root.local_folder) == before
    assert not (root.local_folder / "rlhfblender.db").exists()


def test_more_episodes_on_unknown_files_are_refused_and_fewer_are_made(root: DataRoot) -> None:
    generate(root, database(root), request(2))
    lay(root, 4)
    with pytest.raises(DataNotUsableError, match="5 files"):
        generate(root, database(root), request(6))
    assert generate(root, database(root), request(4)) == 2


def test_a_file_beside_an_episode_that_has_none_of_that_kind_is_refused_when_it_would_be_replaced(
    root: DataRoot,
) -> None:
    generate(root, database(root), request(2, no_render=True))
    lay(root, 1, ArtifactKind.RENDERS)
    assert generate(root, database(root), request(2, no_render=True)) == 0
    with pytest.raises(DataNotUsableError, match=r"renders/E/random/1\.mp4 \(1 file\) lies"):
        generate(root, database(root), request(2, overwrite=True, seed=3))


def test_what_a_killed_run_left_is_ours(root: DataRoot) -> None:
    generate(root, database(root), request(1))
    claim_and_die(root, database(root), KEY, [1, 2])
    lay(root, 1)
    lay(root, 2, ArtifactKind.RENDERS)
    assert generate(root, database(root), request(3)) == 2
    assert problems(root, database(root)) == []


def test_an_episode_that_lost_its_manifest_is_ours(root: DataRoot) -> None:
    generate(root, database(root), request(2))
    (root.local_folder / "manifests/E/random/1.json").unlink()
    assert generate(root, database(root), request(2)) == 1


@pytest.mark.parametrize("same_registry", [True, False])
def test_what_lies_there_while_a_run_is_under_way_is_left_to_publishing(
    same_registry: bool, root: DataRoot, tmp_path: Path
) -> None:
    generate(root, database(root), request(1))
    lay(root, 1)
    url = database(root) if same_registry else f"sqlite:///{tmp_path / 'other.db'}"
    with under_way(root, url, "E"):
        plan_work(request(2), locations_of(root, database(root)))
    with pytest.raises(DataNotUsableError):
        plan_work(request(2), locations_of(root, database(root)))


def test_finished_and_new_requests_ask_the_registry_nothing(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(root, database(root), request(2))

    def refuse(*_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("rlhfblender_core.registry.store.Registry.list_claims", refuse)
    assert not plan_work(request(2), locations_of(root, database(root))).missing
    assert plan_work(request(5), locations_of(root, database(root))).missing == 3
