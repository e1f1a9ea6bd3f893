"""What a run achieved, in numbers: one row per checkpoint."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlhfblender_core.dataset.manifests import mean_and_std
from rlhfblender_core.registry import Registry
from rlhfblender_core.wording import InWords, counted


@dataclass(frozen=True)
class CheckpointReport:
    """A checkpoint's row.

    Attributes:
        checkpoint: its label.
        made: episodes published by this run.
        existing: episodes that were complete before, or that another run has made meanwhile.
        failed: message by number of those that failed.
        mean_return, std_return: over the episodes asked for that exist; NaN for none.
        mean_length: likewise, in steps.
        warnings: number of episodes by what a person should know of them.
    """

    checkpoint: str
    made: int
    existing: int
    failed: Mapping[int, str]
    mean_return: float
    std_return: float
    mean_length: float
    warnings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report(InWords):
    """What became of the request.

    Attributes:
        experiment: its name; None when only an environment was registered.
        data_root: where everything is, as a person would use it.
        checkpoints: a row each.
        has_videos: whether episodes were asked for with videos.
        notes: what a person should know besides.
    """

    experiment: str | None
    data_root: str
    checkpoints: tuple[CheckpointReport, ...] = ()
    has_videos: bool = True
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Number of episodes that failed."""
        return sum(len(row.failed) for row in self.checkpoints)

    @property
    def made(self) -> int:
        """Number of episodes published by this run."""
        return sum(row.made for row in self.checkpoints)

    @property
    def wanted(self) -> int:
        """Number of episodes asked for."""
        return sum(row.made + row.existing + len(row.failed) for row in self.checkpoints)

    @property
    def first_failure(self) -> str:
        """The message of one episode that failed; empty for none."""
        return next((message for row in self.checkpoints for message in row.failed.values()), "")

    @property
    def summary(self) -> str:
        """What was made, in a line; why one failed, if any did."""
        if self.failed:
            return f"{self.failed} of {self.wanted} episodes failed: {self.first_failure}"
        return f"{counted(self.made, 'episode')} made, {self.wanted - self.made:,} already there, in {self.data_root}"


@dataclass(frozen=True)
class CheckpointOutcome:
    """What a run did at a checkpoint.

    Attributes:
        checkpoint: its label.
        made: how many episodes the run has published.
        failed: message by episode number.
    """

    checkpoint: str
    made: int
    failed: Mapping[int, str] = field(default_factory=dict)


def report_checkpoints(
    registry: Registry, experiment: str, num_episodes: int, outcomes: Sequence[CheckpointOutcome]
) -> tuple[CheckpointReport, ...]:
    """The rows of the checkpoints, by what the index says after the run.

    Args:
        registry: with the index.
        experiment: the experiment's name.
        num_episodes: how many were asked for, per checkpoint.
        outcomes: what the run did.
    """
    summaries = {summary.checkpoint: summary for summary in registry.summarise(experiment, num_episodes)}
    warnings = registry.count_warnings(experiment, num_episodes)
    rows = []
    for outcome in outcomes:
        summary, label = summaries.get(outcome.checkpoint), outcome.checkpoint
        if outcome.failed or summary is None or summary.episodes < num_episodes:
            rows.append(_counted_row(registry, experiment, num_episodes, outcome))
        else:
            returns = summary.mean_return, summary.std_return, summary.mean_length
            rows.append(_row(outcome, summary.episodes, outcome.failed, returns, warnings.get(label, {})))
    return tuple(rows)


def _counted_row(
    registry: Registry, experiment: str, num_episodes: int, outcome: CheckpointOutcome
) -> CheckpointReport:
    """Where not all that was asked for exists, episode by episode."""
    found = registry.find_episodes(experiment, outcome.checkpoint, range(num_episodes))
    lost = set(range(num_episodes)).difference(episode.number for episode in found)
    gone = "was taken away by another run meanwhile. Run the same command again."
    failed = {**{number: f"episode {number} {gone}" for number in sorted(lost)}, **outcome.failed}
    # One that was there before and failed to be replaced is still there, but isn't what was asked for.
    episodes = [episode for episode in found if episode.number not in failed]
    mean, std = mean_and_std(episode.episode_return for episode in episodes)
    mean_length, _ = mean_and_std(float(episode.episode_length) for episode in episodes)
    warnings = Counter(warning for episode in episodes for warning in episode.warnings)
    return _row(outcome, len(episodes), failed, (mean, std, mean_length), warnings)


def _row(
    outcome: CheckpointOutcome,
    episodes: int,
    failed: Mapping[int, str],
    returns: tuple[float, float, float],
    warnings: Mapping[str, int],
) -> CheckpointReport:
    mean, std, mean_length = returns
    return CheckpointReport(
        checkpoint=outcome.checkpoint,
        made=min(outcome.made, episodes),
        existing=max(0, episodes - outcome.made),
        failed=dict(failed),
        mean_return=mean,
        std_return=std,
        mean_length=mean_length,
        warnings=dict(warnings),
    )
