"""Shards: episodes that one worker rolls out one after another, into files that wait to be published."""

import atexit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhfblender_core.dataset.episode_writer import EpisodeFiles, discard_staged, staged_path
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, EpisodeKey
from rlhfblender_core.dataset.manifests import (
    Manifest,
)
from rlhfblender_core.environments import close_environment, make_environment
from rlhfblender_core.environments.describe import DEFAULT_FPS
from rlhfblender_core.errors import CheckpointNotUsableError, EpisodeError, one_line
from rlhfblender_core.rollout.episode import Agent, EpisodeTerms, RawRecorder, roll_out_episode
from rlhfblender_core.rollout.manifest import describe_episode
from rlhfblender_core.rollout.seeding import episode_seed, seeded_globals
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.storage import full_disk_errors, gone
from rlhfblender_core.workers.progress import count_progress

#: Shards get no larger: what a dying worker loses, and what waits to be published.
MAX_SHARD = 25
#: Shards per worker still to come when a shard is cut: small ones at the end let workers finish together.
_SHARDS_AHEAD = 4


@dataclass(frozen=True)
class Shard:
    """Which episodes of which checkpoint one worker makes.

    Attributes:
        key: experiment and checkpoint.
        settings: how they are rolled out.
        episodes: their numbers, ascending.
        replace: whether they replace episodes that exist, which otherwise are only repaired.
    """

    key: CheckpointKey
    settings: RolloutSettings
    episodes: tuple[int, ...]
    replace: bool = False

    @property
    def name(self) -> str:
        """``100000 · 0–9``."""
        first, last = self.episodes[0], self.episodes[-1]
        return f"{self.key.checkpoint} · {first}" + (f"–{last}" if last != first else "")


@dataclass(frozen=True)
class StagedEpisode:
    """An episode whose files lie in the run's folder.

    Attributes:
        manifest: its commit record, to be published last.
        folder: where its files are.
        kinds: which of them are published; None for all. The others exist, and are what the manifest says.
    """

    manifest: Manifest
    folder: Path
    kinds: frozenset[ArtifactKind] | None = None

    def files(self) -> dict[str, Path]:
        """Local file by the path below the data root where it belongs, of those that are published."""
        return {
            record.path: staged_path(self.folder, kind)
            for kind, record in self.manifest.artifacts.items()
            if self.kinds is None or kind in self.kinds
        }


@dataclass(frozen=True)
class StagedShard:
    """What came of a shard.

    Attributes:
        name: the shard's.
        key: experiment and checkpoint.
        episodes: those to publish.
        failures: message by number of those that the environment or the policy broke off.
        replace: whether they replace episodes that exist, which otherwise are only repaired.
    """

    name: str
    key: CheckpointKey
    episodes: tuple[StagedEpisode, ...]
    failures: Mapping[int, str]
    replace: bool = False


def cut_shards(episodes: Sequence[int], workers: int) -> list[tuple[int, ...]]:
    """The episodes, cut into runs of consecutive work.

    Single ones come first, so that something shows soon; then from large to small, so that workers finish together.

    Args:
        episodes: numbers, ascending.
        workers: how many shards are worked on at once, at least 1.
    """
    shards: list[tuple[int, ...]] = []
    start = 0
    while start < len(episodes):
        size = max(1, min(MAX_SHARD, (len(episodes) - start) // (_SHARDS_AHEAD * max(1, workers))))
        size = 1 if len(shards) < workers else size
        shards.append(tuple(episodes[start : start + size]))
        start += size
    return shards


def roll_out_shard(shard: Shard, staging: Path) -> StagedShard:
    """Rolls out the shard's episodes; one that fails doesn't keep the others from being made.

    The environment and the policy are kept for the next shard of the same checkpoint in this process.

    Args:
        shard: which episodes.
        staging: folder of the run, on the machine that calls this.

    Raises:
        RLHFBlenderError: what isn't one episode's own: no space, an unusable environment or checkpoint.
    """
    staged: list[StagedEpisode] = []
    failures: dict[int, str] = {}
    for episode in shard.episodes:
        try:
            staged.append(_stage_episode(shard, episode, staging))
        except EpisodeError as error:
            _session.close()  # its state is unknown now
            failures[episode] = str(error)
        count_progress(episodes=1)
    return StagedShard(shard.name, shard.key, tuple(staged), failures, shard.replace)


def _stage_episode(shard: Shard, episode: int, staging: Path) -> StagedEpisode:
    options = shard.settings.options
    folder = staging / shard.key.checkpoint / str(episode)
    discard_staged(folder)  # of an earlier try
    with full_disk_errors():
        _make_below(staging, folder)
    terms = EpisodeTerms(options.seed, options.max_steps_per_episode, options.render)
    agent = _session.open(shard.settings)
    try:
        with EpisodeFiles(folder, options.fps or DEFAULT_FPS) as files:
            summary = roll_out_episode(agent, episode, terms, files, _count_steps)
    except EpisodeError as error:
        if not folder.is_dir():
            raise gone(staging) from error
        discard_staged(folder)
        raise
    except BaseException:
        discard_staged(folder)
        raise
    key = EpisodeKey(shard.key.experiment, shard.key.checkpoint, episode)
    return StagedEpisode(describe_episode(key, shard.settings, agent.policy.uncertainty_kind, summary, folder), folder)


def _make_below(staging: Path, folder: Path) -> None:
    """Makes an episode's folder, but not that of the run, which may have been on a disk that isn't there any more."""
    try:
        folder.parent.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise gone(staging) from error
    folder.mkdir()


def _count_steps(steps: int) -> None:
    count_progress(steps=steps)


class _Session:
    """The environment and policy that this process used last: loading them costs seconds, episodes may cost less."""

    def __init__(self) -> None:
        self._digest: str | None = None
        self._agent: Agent | None = None

    def open(self, settings: RolloutSettings) -> Agent:
        if self._agent is None or self._digest != settings.digest:
            self.close()
            # Left to the interpreter's end, some libraries print what they find alive then (ALE's: 50 lines).
            atexit.unregister(self.close)
            atexit.register(self.close)
            self._agent = make_agent(settings)
            self._digest = settings.digest
        return self._agent

    def close(self) -> None:
        agent, self._agent, self._digest = self._agent, None, None
        if agent is not None:
            close_environment(agent.env)


_session = _Session()


def close_session() -> None:
    """Frees the environment and policy that this process keeps."""
    _session.close()


def make_agent(settings: RolloutSettings) -> Agent:
    """The policy in its environment; a random one without importing torch.

    Raises:
        RequestError: the environment or the checkpoint can't be used, or they don't fit together.
    """
    # Whatever the constructor draws from the global generators: the same in all workers.
    with seeded_globals(episode_seed(settings.options.seed, 0)):
        recorder = RawRecorder(make_environment(settings.environment, render=settings.options.render))
    return settings.agent.act_in(recorder, settings.options)


def check_agent(settings: RolloutSettings) -> None:
    """Loads what the settings name and lets it act once; the next shard in this process finds it loaded.

    Raises:
        RequestError: the environment or the checkpoint can't be used, or they don't fit together.
    """
    agent = _session.open(settings)
    if not settings.agent.is_trained:
        return
    agent.policy.reset(seed=0)
    observation, _ = agent.env.reset(seed=0)
    try:
        agent.policy.act(observation)
    except Exception as error:
        raise CheckpointNotUsableError(
            f"{settings.agent} can't act in {settings.environment.env_id}: {one_line(error)}. "
            "Check that it was trained on this environment."
        ) from error
