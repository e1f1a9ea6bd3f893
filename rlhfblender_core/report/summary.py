"""What a run achieved, in numbers: one row per checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhfblender_core.dataset.manifests import mean_and_std
from rlhfblender_core.dataset.published import Published


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
class Report:
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


def report_checkpoint(
    published: Published, num_episodes: int, made: int, failed: Mapping[int, str]
) -> CheckpointReport:
    """The row of a checkpoint.

    Args:
        published: what is there after the run.
        num_episodes: how many were asked for.
        made: how many the run has published.
        failed: message by episode number.
    """
    lost = "was taken away by another run meanwhile. Run the same command again."
    failed = {
        **{n: f"episode {n} {lost}" for n in range(num_episodes) if not published.is_complete(n)},
        **failed,
    }
    # One that was there before and failed to be replaced is still there, but isn't what was asked for.
    manifests = [published.manifests[n] for n in range(num_episodes) if published.is_complete(n) and n not in failed]
    mean, std = mean_and_std(manifest.episode_return for manifest in manifests)
    mean_length, _ = mean_and_std(float(manifest.episode_length) for manifest in manifests)
    warnings: dict[str, int] = {}
    for manifest in manifests:
        for warning in manifest.warnings:
            warnings[warning] = warnings.get(warning, 0) + 1
    return CheckpointReport(
        checkpoint=published.key.checkpoint,
        made=min(made, len(manifests)),
        existing=max(0, len(manifests) - made),
        failed=dict(failed),
        mean_return=mean,
        std_return=std,
        mean_length=mean_length,
        warnings=warnings,
    )
