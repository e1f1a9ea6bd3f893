"""A shard from its claim to its publication: what its claims say when it is cut short."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from rlhfblender_core.dataset.publish import PublishedShard
from rlhfblender_core.dataset.staged import StagedShard
from rlhfblender_core.errors import OutOfReachError, RunStoppedError, StorageUnavailableError
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.work import plan_work
from rlhfblender_core.registry import open_registry
from rlhfblender_core.rollout.make_shard import RunWorkers, make_shard, write_shard
from rlhfblender_core.rollout.pace import Pace
from rlhfblender_core.rollout.shards import PendingShard
from rlhfblender_core.runs.claims import dead_claims, open_claims
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.workers.pool import Workers
from tests.support.generating import KEY, generate, locations_of, request


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    """A data root with one episode."""
    root, url = DataRoot(str(tmp_path / "data")), f"sqlite:///{tmp_path}/registry.db"
    generate(root, url, request(1))
    return locations_of(root, url)


@contextlib.contextmanager
def at_work(locations: Locations, tmp_path: Path) -> Iterator[tuple[PendingShard, RunWorkers]]:
    """A run that has entered the registry, and its first shard."""
    work = plan_work(request(3), locations)
    pending = next(iter(work.shards(Pace(1, work.missing))))
    digests = {KEY.checkpoint: pending.shard.settings.digest}
    with (
        open_run(locations.open_root()) as run,
        Workers(0, tmp_path) as workers,
        open_claims(locations.database_url, run.folder, KEY.experiment, digests),
    ):
        yield pending, RunWorkers(workers, run)


def left_behind(locations: Locations) -> dict[str, frozenset[int]]:
    with open_registry(locations.database_url) as registry:
        return dead_claims(registry, KEY.experiment)


def test_a_shard_that_is_published_leaves_no_claims(locations: Locations, tmp_path: Path) -> None:
    with at_work(locations, tmp_path) as (pending, run_workers):
        run_id = run_workers.run.name
        made = make_shard(
            pending, run_workers, locations, run_id, lambda staged: write_shard(staged, locations, run_id)
        )
        assert made.episodes == (1,)
        with open_registry(locations.database_url) as registry:
            assert registry.list_claims(KEY.experiment) == {}
    assert left_behind(locations) == {}


def test_what_a_shard_had_moved_into_place_when_the_storage_went_is_known_by_its_claims(
    locations: Locations, tmp_path: Path
) -> None:
    def write(staged: StagedShard) -> NoReturn:
        path, file = next(iter(staged.episodes[0].files().items()))
        file.rename(locations.open_root().local_folder / path)
        raise StorageUnavailableError("gone")

    with at_work(locations, tmp_path) as (pending, run_workers), pytest.raises(OutOfReachError):
        make_shard(pending, run_workers, locations, run_workers.run.name, write)
    assert left_behind(locations) == {KEY.checkpoint: {1}}
    assert generate(locations.open_root(), locations.database_url, request(3)) == 2
    assert left_behind(locations) == {}


def test_a_shard_that_is_stopped_before_anything_is_written_leaves_no_claims(
    locations: Locations, tmp_path: Path
) -> None:
    def write(_staged: StagedShard) -> PublishedShard:
        raise AssertionError("nothing was made")

    with at_work(locations, tmp_path) as (pending, run_workers):
        run_workers.workers.close()
        with pytest.raises(RunStoppedError):
            make_shard(pending, run_workers, locations, run_workers.run.name, write)
    assert left_behind(locations) == {}
