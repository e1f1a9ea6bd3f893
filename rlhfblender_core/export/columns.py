"""An episode's arrays as the formats of others take them: observations with the final one, texts that are UTF-8."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.reading.episode import Episode, observed_columns

#: What a policy may have said of a step, as our ``.npz`` files name it.
POLICY_ARRAYS = ("probs", "action_mean", "action_std", "log_probs", "entropy", "values", "q_values", "features")


@dataclass(frozen=True)
class EpisodeColumns:
    """An episode's arrays; T is its length.

    Attributes:
        episode: the episode.
        observations: (T, …) each, by the name of their column: one, called ``""``, of a plain space.
        finals: the last observation, likewise; None where an imported episode's source doesn't have it.
        actions: (T, …).
        rewards: (T,) float64.
        terminated: (T,) bool.
        truncated: (T,) bool.
        infos: T texts in JSON, ASCII.
        policy: (T, …) each, those of :data:`POLICY_ARRAYS` that there are, and ``uncertainty`` where there is a notion.
    """

    episode: Episode
    observations: Mapping[str, NDArray[Any]]
    finals: Mapping[str, NDArray[Any]] | None
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: NDArray[np.str_]
    policy: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def next_observations(self) -> dict[str, NDArray[Any]] | None:
        """(T, …) each: what was observed after each step; None where that isn't known of the last one."""
        if self.finals is None:
            return None
        return {
            name: np.concatenate([rows[1:], self.finals[name][np.newaxis]]) for name, rows in self.observations.items()
        }

    @property
    def schema(self) -> dict[str, tuple[object, ...]]:
        """What the episodes of one data set have in common: names, dtypes and shapes of rows; texts have any width."""
        arrays = {**self.observations, "actions": self.actions, **self.policy}
        return {
            name: ("text" if column.dtype.kind == "U" else column.dtype.str, *column.shape[1:])
            for name, column in arrays.items()
        }


def read_columns(episode: Episode) -> EpisodeColumns:
    """Reads an episode; memory holds all of it.

    Raises:
        DataNotUsableError: its files are gone or damaged, or its arrays differ in length.
    """
    with episode.open() as arrays:
        observations, finals = observed_columns(arrays)
        columns = {
            "actions": arrays["actions"],
            "rewards": arrays["rewards"].astype(np.float64),
            "terminated": arrays["terminated"].astype(np.bool_),
            "truncated": arrays["truncated"].astype(np.bool_),
            "infos": arrays["infos"] if "infos" in arrays else np.full(len(arrays["rewards"]), "{}"),
        }
        policy = {name: arrays[name] for name in POLICY_ARRAYS if name in arrays}
    if episode.manifest.uncertainty_kind != "none" and ArtifactKind.UNCERTAINTY in episode.manifest.artifacts:
        policy["uncertainty"] = episode.uncertainty
    lengths = {len(column) for column in (*columns.values(), *policy.values(), *observations.values())}
    if lengths != {episode.episode_length} or not episode.episode_length:
        raise DataNotUsableError(
            f"Episode {episode.id} has arrays of {sorted(lengths)} steps and claims {episode.episode_length}. "
            "Run `python flows/verify.py --repair`."
        )
    return EpisodeColumns(episode, observations, finals, **columns, policy=policy)


def is_text(column: NDArray[Any]) -> bool:
    """Whether the column holds texts."""
    return column.dtype.kind == "U"


def storable_texts(column: NDArray[Any]) -> list[str]:
    """The texts as every format can hold them: what has no UTF-8, and end marks, as backslash sequences."""
    return [str(text).encode(errors="backslashreplace").decode().replace("\0", "\\x00") for text in column.tolist()]
