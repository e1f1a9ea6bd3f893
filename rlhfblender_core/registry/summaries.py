"""What the index says of many episodes at once, added up by the database. Everything runs in the caller's session."""

import json
import math
from typing import Any

from sqlalchemy import Row, Select, String, case, func, select, type_coerce
from sqlalchemy.orm import Session

from rlhfblender_core.registry.models import Checkpoint, Episode, Experiment
from rlhfblender_core.registry.records import ReturnSummary

#: Returns within these bounds have squares, and sums of squares, that fit into a double: PostgreSQL refuses others.
_LARGEST, _SMALLEST = 1e100, 1e-100


def summarise(session: Session, experiment: str, below: int | None = None) -> list[ReturnSummary]:
    """Returns and lengths of an experiment's episodes, by checkpoint's label.

    Args:
        session: holds the transaction.
        experiment: the experiment's name.
        below: count episodes with numbers below that; None for all.
    """
    value, length = Episode.episode_return, Episode.episode_length
    lengths = (func.avg(length), func.min(length), func.max(length))
    query = select(Checkpoint.label, func.count(), func.count(value), func.min(value), func.max(value), *lengths)
    bounds = session.execute(_own(query, experiment, below).group_by(Checkpoint.label)).all()
    if all(_is_ordinary(row) for row in bounds):
        returns = _means_and_deviations(session, experiment, below)
    else:
        returns = {row[0]: _by_hand(session, experiment, row[0], below) for row in bounds}
    return [_summary(row, *returns[row[0]]) for row in bounds]


def count_warnings(session: Session, experiment: str, below: int | None = None) -> dict[str, dict[str, int]]:
    """Number of an experiment's episodes by checkpoint's label and warning, see :func:`summarise`."""
    text = type_coerce(Episode.warnings, String)
    query = _own(select(Checkpoint.label, text, func.count()), experiment, below).where(Episode.warnings.is_not(None))
    counts: dict[str, dict[str, int]] = {}
    for label, warnings, episodes in session.execute(query.group_by(Checkpoint.label, text)).tuples():
        of_checkpoint = counts.setdefault(label, {})
        for warning in json.loads(warnings or "[]"):
            of_checkpoint[warning] = of_checkpoint.get(warning, 0) + episodes
    return counts


def _own(query: Select[Any], experiment: str, below: int | None) -> Select[Any]:
    query = query.select_from(Episode).join(Checkpoint).join(Experiment).where(Experiment.name == experiment)
    return query if below is None else query.where(Episode.number < below)


def _is_ordinary(row: Row[Any]) -> bool:
    _, episodes, known, least, most, *_ = row
    return bool(episodes == known and max(abs(least), abs(most)) < _LARGEST)


def _means_and_deviations(session: Session, experiment: str, below: int | None) -> dict[str, tuple[float, float]]:
    """In two passes: from sums of squares nothing is left of a small deviation of large returns."""
    value = Episode.episode_return
    averages = select(Episode.checkpoint_id.label("checkpoint"), func.avg(value).label("mean"))
    means = _own(averages, experiment, below).group_by(Episode.checkpoint_id).subquery()
    away = value - means.c.mean
    square = case((func.abs(away) < _SMALLEST, 0.0), else_=away * away)
    query = _own(select(Checkpoint.label, means.c.mean, func.avg(square)), experiment, below)
    query = query.join(means, means.c.checkpoint == Checkpoint.id).group_by(Checkpoint.label, means.c.mean)
    return {label: (mean, math.sqrt(variance)) for label, mean, variance in session.execute(query).tuples()}


def _by_hand(session: Session, experiment: str, label: str, below: int | None) -> tuple[float, float]:
    """Where a return isn't known, infinite, or too large to be squared."""
    import numpy as np

    query = _own(select(Episode.episode_return), experiment, below).where(Checkpoint.label == label)
    values = np.fromiter(session.scalars(query), float)
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite returns the deviation is NaN
        return float(values.mean()), float(values.std())


def _summary(row: Row[Any], mean: float, std: float) -> ReturnSummary:
    label, episodes, *_, mean_length, min_length, max_length = row
    return ReturnSummary(
        checkpoint=label,
        episodes=episodes,
        mean_return=mean,
        std_return=std,
        mean_length=float(mean_length),
        min_length=min_length,
        max_length=max_length,
    )
