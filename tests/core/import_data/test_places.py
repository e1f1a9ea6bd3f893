"""What lies where imported episodes go: unknown files are not replaced, a dead import's are, and imports don't mix."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.import_data.run import Imported, import_data
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support.claiming import claim_and_die, under_way
from tests.support.making_sources import ENV, make_documented
from tests.support.verifying import database, problems

Snapshot = Callable[[Path], dict[str, str]]
KEY = CheckpointKey("Mine", "5000")
THUMBNAIL, EPISODE = "thumbnails/Mine/5000/1.png", "episodes/Mine/5000/1.npz"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_documented(tmp_path / "source")


def run(source: Path | None, target: Path, **options: object) -> Imported:
    folder = None if source is None else str(source)
    return import_data(folder, exp="Mine", env=ENV, data_root=str(target), **options)


def lay(target: Path, path: str, content: bytes = b"somebody's") -> None:
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    (target / path).write_bytes(content)


@pytest.mark.parametrize("path", [THUMBNAIL, EPISODE])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_unknown_file_is_not_replaced_and_the_others_are_imported(
    path: str, source: Path, target: Path, *, overwrite: bool
) -> None:
    lay(target, path)
    done = run(source, target, overwrite=overwrite)
    (fault,) = done.faults
    assert fault.startswith(f"{path}: lie")
    assert "import_data.py --exp Mine --env" in fault
    assert "\n" not in fault
    assert (target / path).read_bytes() == b"somebody's"
    assert done.batches[0].made == (0,)
    assert not (target / "manifests/Mine/5000/1.json").exists()
    root = open_data_root(str(target))
    with open_registry(database(root)) as registry:
        assert [row.number for row in registry.list_episodes("Mine")] == [0]
        assert registry.list_runs("Mine") == []
        # The fault's episode isn't this import's any more: what lies there is still unknown.
        assert registry.list_claims("Mine") == {}


def test_a_file_with_the_very_bytes_is_no_unknown_file(source: Path, target: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "other")
    lay(target, THUMBNAIL, (tmp_path / "other" / THUMBNAIL).read_bytes())
    assert run(source, target).faults == ()


def test_what_a_killed_import_left_is_ours(source: Path, target: Path, snapshot: Snapshot, tmp_path: Path) -> None:
    root = open_data_root(str(target))
    open_registry(database(root)).close()
    claim_and_die(root, database(root), KEY, [1])
    lay(target, THUMBNAIL, b"half a picture")
    assert run(source, target).faults == ()
    run(source, tmp_path / "whole")
    assert snapshot(target) == snapshot(tmp_path / "whole")
    assert problems(root, database(root)) == []


def test_what_was_laid_there_by_hand_is_taken_in_where_it_lies(target: Path) -> None:
    make_documented(target, experiment="Mine")
    assert len(problems(open_data_root(str(target)), database(open_data_root(str(target))))) == 10
    assert run(None, target).faults == ()
    assert problems(open_data_root(str(target)), database(open_data_root(str(target)))) == []


@pytest.mark.parametrize("digest", ["imported from elsewhere", "a request"])
def test_an_import_beside_another_run_on_the_same_checkpoint_is_refused_before_it_writes(
    digest: str, source: Path, target: Path, snapshot: Snapshot
) -> None:
    root = open_data_root(str(target))
    open_registry(database(root)).close()
    with under_way(root, database(root), "Mine", digest, checkpoint="5000"):
        before = snapshot(target)
        with pytest.raises(InvalidParameterError, match="Another run is at work on experiment 'Mine' at 5000"):
            run(source, target)
        assert {path for path in snapshot(target) if path not in before} == set()
    assert run(source, target).made == 2
