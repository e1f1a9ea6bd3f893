"""An episode's arrays as the formats of others take them: observations with the final one, texts that are UTF-8."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.environments.observations import ROOT
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.reading.episode import Episode

#: What a policy may have said of a step, as our ``.npz`` files name it.
POLICY_ARRAYS = ("probs", "action_mean", "action_std", "log_probs", "entropy", "values", "q_values")


@dataclass(frozen=True)
class EpisodeColumns:
    """An episode's arrays; T is its length.

    Attributes:
        episode: the episode.
        observations: (T+1, …) each, by the name of their column: one, called ``""``, of a plain space.
        actions: (T, …).
        rewards: (T,) float64.
        terminated: (T,) bool.
        truncated: (T,) bool.
        infos: T texts in JSON, ASCII.
        policy: (T, …) each, those of :data:`POLICY_ARRAYS` that there are, and ``uncertainty`` where there is a notion.
    """

    episode: Episode
    observations: Mapping[str, NDArray[Any]]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    infos: NDArray[np.str_]
    policy: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.rewards)

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
        names = [name for name in arrays if name == ROOT or name.startswith(f"{ROOT}.")]
        columns = {
            "actions": arrays["actions"],
            "rewards": arrays["rewards"].astype(np.float64),
            "terminated": arrays["terminated"].astype(np.bool_),
            "truncated": arrays["truncated"].astype(np.bool_),
            "infos": arrays["infos"] if "infos" in arrays else np.full(len(arrays["rewards"]), "{}"),
        }
        policy = {name: arrays[name] for name in POLICY_ARRAYS if name in arrays}
        observations = {
            name.removeprefix(ROOT).removeprefix("."): np.concatenate([arrays[name], arrays[f"final_{name}"][None]])
            for name in names
        }
    if episode.manifest.uncertainty_kind != "none" and ArtifactKind.UNCERTAINTY in episode.manifest.artifacts:
        policy["uncertainty"] = episode.uncertainty
    lengths = {len(column) for column in (*columns.values(), *policy.values())}
    lengths |= {len(column) - 1 for column in observations.values()}
    if lengths != {episode.episode_length} or not episode.episode_length:
        raise DataNotUsableError(
            f"Episode {episode.id} has arrays of {sorted(lengths)} steps and claims {episode.episode_length}. "
            "Run `python flows/verify.py --repair`."
        )
    return EpisodeColumns(episode, observations, **columns, policy=policy)


def is_text(column: NDArray[Any]) -> bool:
    """Whether the column holds texts."""
    return column.dtype.kind == "U"


def storable_texts(column: NDArray[Any]) -> list[str]:
    """The texts as every format can hold them: what has no UTF-8, and end marks, as backslash sequences."""
    return [str(text).encode(errors="backslashreplace").decode().replace("\0", "\\x00") for text in column.tolist()]
