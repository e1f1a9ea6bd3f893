"""Every episode has an environment of its own: the same bytes, whatever was made before it in the same process."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.check_in_workers import check_in_workers
from rlhfblender_core.rollout.manifest import UNREPRODUCIBLE
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, check_agent, close_session, roll_out_shard
from rlhfblender_core.rollout.trial import try_out
from rlhfblender_core.workers.pool import Workers

CHANCE = "tests.support.environments_for_tests.chance"
SEEDED = (
    "Remembering",
    "RememberingSteps",
    "SamplingSpaces",
    "SamplingInWrapper",
    "SamplingKeptSpaces",
    "HoldingAnother",
    "DrawingBeforeReset",
    "DrawingFromTorch",
    "DrawingFromAll",
    "ObservingNaN",
)
UNSEEDED = (
    "Unseeded",
    "UnseededLater",
    "RewardingByChance",
    "CountingInstances",
    "WatchingTheClock",
    "GrowingHarder",
    "SharingAGenerator",
    "ExploringTogether",
)
#: The same for two environments of one process.
UNSEEDED_ELSEWHERE = (
    "SeededByItsProcess",
    "SeededByTheSecond",
    "DrawnOnce",
    "InOrderOfArrival",
    "NamingSteps",
    "PaintedByChance",
)
KEY = CheckpointKey("exp", "random")
Maker = Callable[[Shard, Path], list[Manifest]]


def spec_of(name: str) -> EnvironmentSpec:
    return EnvironmentSpec(f"{name}ForTests-v0", f"{CHANCE}:{name}")


def settings_of(spec: EnvironmentSpec, **options: object) -> RolloutSettings:
    return RolloutSettings(spec, RandomAgent(), RolloutOptions(**{"fps": 20.0, **options}))


def made_here(shard: Shard, folder: Path) -> list[Manifest]:
    folder.mkdir(parents=True)
    staged = roll_out_shard(shard, folder)
    assert staged.failures == {}
    return [episode.manifest for episode in staged.episodes]


def made_by(workers: int, settings: RolloutSettings, cuts: Sequence[tuple[int, ...]], folder: Path) -> list[Manifest]:
    """The manifests of episodes, made in worker processes (0: in a thread here) which checked the agent before."""
    folder.mkdir(parents=True)
    with Workers(workers, folder) as pool, ThreadPoolExecutor(max(1, workers)) as threads:
        settings = pool.run(check_agent, settings)
        shards = [Shard(KEY, settings, episodes) for episodes in cuts]
        staged = list(threads.map(lambda shard: pool.run(roll_out_shard, shard, folder), shards))
    manifests = [episode.manifest for part in staged for episode in part.episodes]
    return sorted(manifests, key=lambda manifest: manifest.episode)


@pytest.fixture(autouse=True)
def _no_session() -> Iterator[None]:
    yield
    close_session()


@pytest.mark.parametrize("name", SEEDED)
def test_an_episode_is_the_same_after_others_and_alone(name: str, tmp_path: Path) -> None:
    settings = check_agent(settings_of(spec_of(name)))
    together = made_here(Shard(KEY, settings, tuple(range(5))), tmp_path / "together")
    check_agent(settings)
    for n in (4, 1, 0):
        (alone,) = made_here(Shard(KEY, settings, (n,)), tmp_path / str(n))
        assert alone == together[n]
    assert [manifest.reproducible for manifest in together] == [True] * 5
    digests = {tuple(record.sha256 for record in manifest.artifacts.values()) for manifest in together}
    assert len(digests) > 1


@pytest.mark.parametrize("name", ["Remembering", "SamplingSpaces", "DrawingFromTorch"])
def test_the_number_of_workers_and_the_cuts_of_shards_change_nothing(name: str, tmp_path: Path) -> None:
    settings = settings_of(spec_of(name))
    one = made_by(1, settings, [(0, 1, 2, 3)], tmp_path / "one")
    two = made_by(2, settings, [(0,), (1,), (2, 3)], tmp_path / "two")
    here = made_by(0, settings, [(0, 1), (2,), (3,)], tmp_path / "here")
    assert one == two == here
    assert len(one) == 4


def test_bipedal_walker_is_the_same_whatever_was_made_before_it(tmp_path: Path) -> None:
    """Its fourth episode was another after three others: Box2D remembers."""
    settings = settings_of(EnvironmentSpec("BipedalWalker-v3"), render=False, max_steps_per_episode=300)
    one = made_by(1, settings, [tuple(range(6))], tmp_path / "one")
    two = made_by(2, settings, [(0,), (1,), (2, 3), (4, 5)], tmp_path / "two")
    here = made_by(0, settings, [(5,), (1, 3), (0, 2, 4)], tmp_path / "here")
    assert one == two == here


@pytest.mark.parametrize("name", UNSEEDED)
def test_what_no_seed_decides_is_noted(name: str, tmp_path: Path) -> None:
    (manifest,) = made_here(Shard(KEY, check_agent(settings_of(spec_of(name))), (0,)), tmp_path / "made")
    assert manifest.reproducible is False
    assert UNREPRODUCIBLE in manifest.warnings
    assert b'"reproducible": false' in manifest.content


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with Workers(1, tmp_path_factory.mktemp("progress")) as workers:
        yield workers


@pytest.mark.parametrize("name", UNSEEDED_ELSEWHERE)
def test_what_another_process_or_another_past_changes_is_noted(name: str, worker: Workers) -> None:
    assert check_in_workers(worker, settings_of(spec_of(name))).reproducible is False


def test_what_the_hashes_of_texts_decide_is_the_same_in_all_workers_and_noted_here(
    worker: Workers, tmp_path: Path
) -> None:
    settings = settings_of(spec_of("OrderingNames"))
    assert check_in_workers(worker, settings).reproducible is True
    with Workers(0, tmp_path) as here:  # of six names, no two orders in a thousand are alike
        assert check_in_workers(here, settings).reproducible is False


@pytest.mark.parametrize("name", SEEDED)
def test_what_a_seed_decides_is_the_same_in_another_process(name: str, worker: Workers) -> None:
    assert check_in_workers(worker, settings_of(spec_of(name))).reproducible is True


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "LunarLander-v3", "BipedalWalker-v3", "Blackjack-v1", "CarRacing-v3"]
)
def test_honest_environments_are_reproducible(env_id: str) -> None:
    assert try_out(EnvironmentSpec(env_id), render=False)


def test_an_environment_that_fails_while_it_is_tried_out_is_neither(tmp_path: Path) -> None:
    spec = EnvironmentSpec("Unready-v0", "tests.support.environments_for_tests.counting:Unready")
    assert try_out(spec, render=False) is None


def test_manifests_from_before_keep_their_bytes(tmp_path: Path) -> None:
    (manifest,) = made_here(Shard(KEY, settings_of(spec_of("Remembering")), (0,)), tmp_path / "made")
    before = manifest.model_copy(update={"reproducible": None})
    assert b"reproducible" not in before.content


def test_an_environment_that_cant_be_made_again_fails_its_episode_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.environments_for_tests import chance

    settings = settings_of(spec_of("Remembering"))
    shard = Shard(KEY, settings, (0, 1, 2))
    made_here(dataclasses.replace(shard, episodes=(7,)), tmp_path / "before")
    makes = iter([True, False, True])
    init = chance.Remembering.__init__

    def sometimes(self: chance.Remembering, **kwargs: object) -> None:
        if not next(makes):
            raise RuntimeError("the port is taken")
        init(self, **kwargs)

    monkeypatch.setattr(chance.Remembering, "__init__", sometimes)
    (tmp_path / "after").mkdir()
    staged = roll_out_shard(shard, tmp_path / "after")
    assert [episode.manifest.episode for episode in staged.episodes] == [0, 2]
    assert "the port is taken" in staged.failures[1]
