"""The card of a data set: what it is, in figures, and how to load it. The Hub shows it; locally it is ``README.md``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.export.columns import EpisodeColumns
from rlhfblender_core.export.data_sets import Build, DataSetJob
from rlhfblender_core.export.statistics import FeatureStatistics, Statistics, merged, statistics_of
from rlhfblender_core.wording import in_markdown

#: Features that the card has room for.
_MOST_FEATURES = 40


@dataclass
class Card:
    """What a card says; filled while the data set is written.

    Attributes:
        job: the data set.
        returns: statistics of the episodes' returns.
        lengths: the same of their lengths in steps.
        example: the first episode's manifest: versions, seed, request.
        place: how it is named where it is loaded.
    """

    job: DataSetJob
    returns: Statistics | None = None
    lengths: Statistics | None = None
    example: Manifest | None = None
    tags: tuple[str, ...] = field(default=("reinforcement-learning", "rlhf", "gymnasium"))

    @classmethod
    def of(cls, build: Build, *tags: str) -> "Card":
        """An empty card."""
        card = cls(build.job)
        card.tags = (*card.tags, *tags)
        return card

    def add(self, columns: EpisodeColumns) -> None:
        """Counts an episode."""
        manifest = columns.episode.manifest
        self.example = self.example or manifest
        self.returns = merged(self.returns, statistics_of(np.array([manifest.episode_return])))
        self.lengths = merged(self.lengths, statistics_of(np.array([len(columns)])))


def card_text(card: Card, statistics: FeatureStatistics, loading: str, settings: str = "") -> str:
    """The card as Markdown with the Hub's front matter.

    Args:
        card: the figures.
        statistics: of its features.
        loading: how to load it, with ``{place}`` for its folder or its name on the Hub.
        settings: what else stands in the front matter, as YAML lines.
    """
    title = f"{card.job.source.record.env_id}, {card.job.key.experiment} at {card.job.key.checkpoint}"
    return "\n".join(
        [
            *("---", f"pretty_name: {json.dumps(title)}", "tags:", *(f"- {tag}" for tag in card.tags)),
            *(*settings.splitlines(), "---", "", f"# {in_markdown(title)}", "", *_figures(card), ""),
            *("## Loading", "", loading.replace("{place}", card.job.path).rstrip(), ""),
            *("## Features", "", *_feature_table(statistics.results()), ""),
        ]
    )


def _figures(card: Card) -> list[str]:
    if card.returns is None or card.lengths is None or card.example is None:
        return ["It has no episodes."]
    policy = card.example.policy
    agent = policy.algorithm or policy.kind
    rows: Mapping[str, Any] = {
        "episodes": f"{card.returns.count:,}",
        "steps": f"{round(float(card.lengths.mean[()]) * card.lengths.count):,}",
        "return": mean_and_range(card.returns),
        "length": mean_and_range(card.lengths),
        "agent": f"{agent}, {'deterministic' if policy.deterministic else 'stochastic'}",
        "uncertainty": card.example.uncertainty_kind,
        "versions": ", ".join(f"{name} {version}" for name, version in card.example.versions.items()) or "not known",
    }
    return ["| | |", "|---|---|", *(f"| {name} | {in_markdown(str(value))} |" for name, value in rows.items())]


def mean_and_range(found: Statistics) -> str:
    """Of one number per episode: ``12.5 ± 3.1, from 9 to 20``."""
    numbers = (found.mean, found.std, found.minimum, found.maximum)
    mean, std, least, most = (f"{float(number):,.4g}" for number in numbers)
    return f"{mean} ± {std}, from {least} to {most}"


def _feature_table(features: Mapping[str, Statistics]) -> list[str]:
    rows = [
        f"| {in_markdown(name)} | {list(found.mean.shape)} | {_range(found)} |"
        for name, found in list(features.items())[:_MOST_FEATURES]
    ]
    return ["| feature | shape | minimum, mean, maximum over all elements |", "|---|---|---|", *rows]


def _range(found: Statistics) -> str:
    numbers = (found.minimum.min(), found.mean.mean(), found.maximum.max())
    return ", ".join(f"{float(number):.4g}" for number in numbers)
