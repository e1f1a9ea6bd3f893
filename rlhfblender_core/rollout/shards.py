"""Shards: episodes that one worker rolls out one after another, into files that wait to be published."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rlhfblender_core.dataset.episode_writer import EpisodeFiles, discard_staged
from rlhfblender_core.dataset.layout import CheckpointKey, EpisodeKey
from rlhfblender_core.dataset.staged import StagedEpisode, StagedShard
from rlhfblender_core.environments import close_environment, free_closed_environments, make_environment
from rlhfblender_core.environments.describe import DEFAULT_FPS
from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    EnvironmentNotUsableError,
    EpisodeError,
    one_line,
    trace_of,
)
from rlhfblender_core.rollout.episode import Agent, RawRecorder, Stage, roll_out_episode
from rlhfblender_core.rollout.manifest import describe_episode
from rlhfblender_core.rollout.seeding import SeededGlobals, episode_seed, is_torch_loaded
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.trial import Moments, forget_trials, try_out
from rlhfblender_core.storage import full_disk_errors, gone
from rlhfblender_core.workers.progress import count_progress


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
        """``100000 0-9``, in ASCII: Prefect's timeline draws nothing else."""
        first, last = self.episodes[0], self.episodes[-1]
        return f"{self.key.checkpoint} {first}" + (f"-{last}" if last != first else "")


@dataclass(frozen=True)
class PendingShard:
    """Episodes that one worker shall make.

    Attributes:
        shard: the episodes, and how they are made.
        existing: those among them that are published from the same request, and are replaced.
        present: those among them in whose places something lay when this was planned: it is compared before it is
            replaced. The others need no question, which on object storage is a request.
    """

    shard: Shard
    existing: frozenset[int] = frozenset()
    present: frozenset[int] = frozenset()


def roll_out_shard(shard: Shard, staging: Path) -> StagedShard:
    """Rolls out the shard's episodes; one that fails doesn't keep the others from being made.

    Each is made in an environment of its own. The policy is kept for the next shard of the same checkpoint in this
    process.

    Args:
        shard: which episodes.
        staging: folder of the run, on the machine that calls this.

    Raises:
        RLHFBlenderError: what isn't one episode's own: no space, an unusable environment or checkpoint.
    """
    started = time.perf_counter()
    staged: list[StagedEpisode] = []
    failures: dict[int, str] = {}
    traces: dict[int, str] = {}
    for episode in shard.episodes:
        try:
            staged.append(_stage_episode(shard, episode, staging))
        except EpisodeError as error:
            failures[episode], traces[episode] = str(error), error.trace
        free_closed_environments()
        count_progress(episodes=1)
    return StagedShard(shard.name, shard.key, tuple(staged), failures, traces, time.perf_counter() - started)


def _stage_episode(shard: Shard, episode: int, staging: Path) -> StagedEpisode:
    had_torch = is_torch_loaded() or shard.settings.agent.is_trained
    staged = _try_episode(shard, episode, staging)
    if had_torch or not is_torch_loaded():
        return staged
    # The environment has imported torch meanwhile: what it drew from it began at no seed. Once in a process.
    return _try_episode(shard, episode, staging)


def _try_episode(shard: Shard, episode: int, staging: Path) -> StagedEpisode:
    options = shard.settings.options
    folder = episode_folder(shard, episode, staging)
    discard_staged(folder)  # of an earlier try
    with full_disk_errors(staging):
        _make_below(staging, folder)
    try:
        with (
            _session.acting(shard.settings, episode) as agent,
            EpisodeFiles(folder, options.fps or DEFAULT_FPS) as files,
        ):
            summary = roll_out_episode(agent, episode, options, files, _count_steps)
            kind = agent.policy.uncertainty_kind
    except EpisodeError as error:
        if not folder.is_dir():
            raise gone(staging) from error
        discard_staged(folder)
        raise
    except BaseException:  # an interrupt, too, leaves no half episode; raised again
        discard_staged(folder)
        raise
    key = EpisodeKey(shard.key.experiment, shard.key.checkpoint, episode)
    manifest = describe_episode(key, shard.settings, kind, summary, folder)
    return StagedEpisode(manifest, folder)


def episode_folder(shard: Shard, episode: int, staging: Path) -> Path:
    """Where an episode's files wait to be published."""
    return staging / shard.key.checkpoint / str(episode)


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
    """The policy that this process used last: loading it costs seconds, episodes may cost less.

    Environments aren't kept. Some carry state over seeded resets (Box2D's contacts, Bullet's solver), and a MuJoCo
    renderer may go black after its first episode: a fourth episode differed with the number of workers.
    """

    def __init__(self) -> None:
        self._digest: str | None = None
        self._agent: Agent | None = None

    @contextlib.contextmanager
    def acting(self, settings: RolloutSettings, episode: int) -> Iterator[Agent]:
        """The agent in an environment of the episode's own, which is closed at the end.

        Raises:
            EpisodeError: this environment can't be made, though one could be made before.
            RequestError: the environment or the checkpoint can't be used, or they don't fit together.
        """
        if self._digest != settings.digest:
            self.close()
        try:
            stage = self._furnished(settings)
        except EnvironmentNotUsableError as error:
            if self._agent is None:
                raise
            raise EpisodeError(episode, -1, one_line(error), trace_of(error)) from error
        try:
            if self._agent is None:
                policy = settings.agent.make_policy(stage, settings.options)
                self._agent, self._digest = Agent(stage, policy), settings.digest
            yield self._agent
        finally:
            stage.leave()

    def _furnished(self, settings: RolloutSettings) -> Stage:
        """The stage with another environment on it, which nothing but the stage holds."""
        recorder = make_recorder(settings)
        try:
            env = settings.agent.wrap(recorder)
        except BaseException:  # closed and raised again, whatever it was
            close_environment(recorder)
            raise
        if self._agent is None:
            return Stage(recorder, env)
        self._agent.stage.enter(recorder, env)
        return self._agent.stage

    def close(self) -> None:
        self._agent, self._digest = None, None


_session = _Session()


def close_session() -> None:
    """Frees the policy that this process keeps, and forgets what environments were tried out."""
    _session.close()
    forget_trials()


def make_recorder(settings: RolloutSettings) -> RawRecorder:
    """A new environment; whatever its constructor draws from the global generators is the same in all episodes.

    Raises:
        EnvironmentNotUsableError: it can't be made.
    """
    with SeededGlobals(episode_seed(settings.options.seed, 0)):
        return RawRecorder(make_environment(settings.environment, render=settings.options.render))


def check_agent(settings: RolloutSettings, elsewhere: Moments | None = None) -> RolloutSettings:
    """Loads what the settings name, tries its environment out and lets it act once, in environments made for that.

    The next shard in this process finds the policy loaded.

    Args:
        settings: of the episodes.
        elsewhere: what the environment gave in another process; None to make two in this one.

    Returns:
        The settings, and whether their environment is reproducible.

    Raises:
        RequestError: the environment or the checkpoint can't be used, or they don't fit together.
    """
    reproducible = settings.reproducible
    if reproducible is None:
        reproducible = try_out(settings.environment, render=settings.options.render, elsewhere=elsewhere)
    with _session.acting(settings, 0) as agent:
        if settings.agent.is_trained:
            _act_once(agent, settings)
    del agent
    free_closed_environments()
    return replace(settings, reproducible=reproducible)


def _act_once(agent: Agent, settings: RolloutSettings) -> None:
    agent.policy.reset(seed=0)
    observation, _ = agent.stage.reset(seed=0)
    try:
        agent.policy.act(observation)
    except (Exception, SystemExit) as error:
        raise CheckpointNotUsableError(
            f"{settings.agent} can't act in {settings.environment.env_id}: {one_line(error)}. {settings.agent.advice}"
        ) from error
